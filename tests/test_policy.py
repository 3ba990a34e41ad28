"""examples/policy.py: its results, against float64, and its command line."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="not in a checkout")


@pytest.fixture(scope="module")
def policy() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("policy")


@pytest.mark.parametrize("batch", [1, 2, 33, 300])
def test_policy(policy: ModuleType, batch: int) -> None:
    """Twice: the memory of one call serves the next. The products' rounding is most of the difference."""
    layers = policy.random_layers()
    run = policy.Policy(layers, batch)
    for seed in (0, 1):
        x = np.random.default_rng(seed).standard_normal((batch, 48), np.float32)
        wanted = policy.exact(layers, x)
        got = run(x)
        assert got.shape == (batch, 12)
        assert np.abs(got - wanted).max() < 3e-6
        assert np.abs(wanted).max() > 0.1


@pytest.mark.parametrize("batch", [1, 33, 300])
def test_policy_kept_in_bfloat16(policy: ModuleType, batch: int) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    layers = policy.random_layers()
    x = np.random.default_rng(0).standard_normal((batch, 48), np.float32)
    run = policy.Policy(layers, batch, bfloat16)
    difference = np.abs(run(x) - policy.exact(layers, x)).max()
    assert 1e-5 < difference < 0.03
    assert [kept.dtype for kept in run.kept] == [bfloat16] * 3


def test_policy_program(
    policy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With weights of a state dict of another shape, which random_layers does not give."""
    rng = np.random.default_rng(0)
    state = {"0.weight": rng.random((6, 5)), "0.bias": rng.random(6), "10.weight": rng.random((3, 6))}
    np.savez(tmp_path / "weights.npz", **state, **{"10.bias": rng.random(3)})
    monkeypatch.setattr(policy, "BATCHES", (1, 4))
    monkeypatch.setattr(policy, "torch_models", policy.onnx_model)  # compiling takes half a minute
    monkeypatch.setattr(policy, "SLICE", 0)
    policy.main(["--weights", str(tmp_path / "weights.npz"), "--rounds", "1"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "5-6-3, float32"
    rows = [line for line in lines if line.startswith("batch")]
    assert len(rows) >= 2
    for row in rows:
        assert float(row.split()[-1]) < (0.05 if "bfloat16" in row else 3e-6)


def test_policy_command_line_error(policy: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        policy.main(["--weights", str(tmp_path / "missing.npz")])
    assert error.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
