"""tools/peers.py: every kind of call gives the formula's result, and a result that is another is not timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import peers


def test_every_mode_is_timed(tmp_path: Path) -> None:
    options = {
        "libraries": "elufast,NumPy,add + elu_,copy",
        "dtypes": "float32,float16",
        "threads": "1",
        "sizes": "1,600",
        "rounds": "1",
        "seconds": "1e-4",
        "output": str(tmp_path),
    }
    command = [sys.executable, peers.__file__, *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not timed" not in done.stdout
    cells = json.loads((tmp_path / "peers.json").read_text())
    assert len(cells) == 2 * 2 * 3 * len(peers.MODES)
    for *_, mode, _, times in cells:
        assert times["elufast"] > 0
        assert ("NumPy" in times) == (mode != "out" and mode not in peers.IN_PLACE)
        assert ("add + elu_" in times) == (mode == "bias")
    report = (tmp_path / "peers.md").read_text()
    assert report.count("| elu | float16 | 1 | bias |") == 3  # two times, and the ratios


@pytest.mark.parametrize("mode", peers.MODES)
@pytest.mark.parametrize("function", peers.ALPHA)
def test_wrong_results_are_named(function: str, mode: str) -> None:
    task, _ = peers.prepare(function, "float32", mode, 1000)
    right = peers.numpy_call(task)
    assert right
    peers.check(right, task)
    with pytest.raises(ValueError, match=peers.WRONG):
        peers.check(lambda: right() * np.float32(1.001), task)


def test_gradients_in_place_neither_vanish_nor_overflow() -> None:
    for function in peers.ALPHA:
        task, restore = peers.prepare(function, "float16", "backward in place", 1000)
        call = peers.numpy_call(task)
        assert call and restore
        before = np.abs(task.grad)
        for _ in range(peers.CALLS_IN_PLACE):
            task.grad[:] = call()
        after = np.abs(task.grad)
        assert np.all(np.isfinite(after))
        assert np.all(after >= before / 4)
        restore()
        np.testing.assert_array_equal(np.abs(task.grad), before)


def test_behind_and_means() -> None:
    cell = ("elu", "float32", 1, "out", 1000)
    times = {
        cell: {"elufast": 2.0, "PyTorch": 4.0, "libmvec": 1.0, "copy": 0.1},
        (*cell[:3], "new", 1000): {"elufast": 1.0, "PyTorch": 8.0},
    }
    assert peers.leads(times) == {cell: (0.5, "libmvec"), (*cell[:3], "new", 1000): (8.0, "PyTorch")}
    text = peers.summary(times)
    assert "fastest in 1," in text and "2.00 times libmvec" in text
    assert "2.00 with the fastest of all, 4.00 with PyTorch" in text
