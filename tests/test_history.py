from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import history


@pytest.mark.parametrize(
    ("values", "around", "expected"),
    [
        ([5.0, 5.0, 5.11, 5.0], 1, [2, 3]),
        ([5.0, 5.09, 5.0], 1, []),
        ([5.0, 4.0], 1, [1]),
        ([5.0, 5.0, 6.0, 5.0, 5.0], 3, []),  # a disturbed measurement
        ([5.0, 5.1, 5.0, 4.0, 4.1, 4.0], 3, [3]),
        ([5.0, 5.0, 5.0, 4.8, 4.0, 4.0, 3.8, 3.8], 3, [4]),  # not its neighbours too
        ([5.0], 1, []),
    ],
)
def test_a_step_is_named_where_it_is(values: list[float], around: int, expected: list[int]) -> None:
    assert list(history.steps(values, around)) == expected


def test_report_reads_what_asv_keeps(tmp_path: Path) -> None:
    line = {"a" * 40: "first", "b" * 40: "second", "c" * 40: "third"}
    counts = {"a" * 40: [3.0, 8.0], "c" * 40: [3.0, 7.0]}
    for commit, values in counts.items():
        parameters = [["'forward_unit'"], ["'float32'", "'float64'"]]
        results = {
            "benchmarks.History.track_instructions": [values, parameters, "version"],
            "benchmarks.History.track_wheel_size": [None, [], "version"],  # failed
            "benchmarks.Functions.time_call": [[1.0], [], "version"],
        }
        (tmp_path / f"{commit[:8]}-env.json").write_text(json.dumps({"commit_hash": commit, "results": results}))
    found = history.measured(tmp_path)
    assert found["c" * 40] == {
        ("instructions", "forward_unit", "float32"): 3.0,
        ("instructions", "forward_unit", "float64"): 7.0,
    }
    (step,) = history.report(line, {commit: found[commit] for commit in line if commit in found})
    assert step.startswith("ccccccc third\n")
    assert "forward_unit float64" in step
    assert "8 -> 7 (-12.5%, since aaaaaaa)" in step
