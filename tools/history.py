"""What each of the last commits that touch the package cost: instructions an element, times as ratios to a floor,
the size of the wheel, the import.

    python tools/history.py [--last 10] [--until HEAD]

asv builds each commit once, runs asv_bench's `History` and keeps what it measured, a file a commit: a run that was
stopped goes on where it was, and `asv publish` shows the same. Then, of all commits that are measured by now, the steps
of more than 2 % are named, and docs/images/history.png is drawn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ("src/elufast", "setup.py", "pyproject.toml")
ALLOWED = 1.02
TIMED = "ratio_to_floor"  # other processes disturb it: of a step's two sides, three commits each must agree
AROUND = 3

Series = tuple[str, ...]  # what is measured, and its parameters
Measured = dict[str, dict[Series, float]]


def commits(*which: str) -> dict[str, str]:
    """Hash and subject of the main line's commits that touch the package, oldest first."""
    log = ["git", "log", "--first-parent", "--reverse", "--format=%H %s", *which, "--", *PACKAGE]
    lines = subprocess.run(log, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split(" ", 1) for line in lines)


def measured(folder: Path) -> Measured:
    """What asv keeps in this folder, by commit."""
    found: Measured = {}
    for path in folder.glob("*-*.json"):
        kept = json.loads(path.read_text())
        row = found.setdefault(kept["commit_hash"], {})
        for name, (values, parameters, *_) in kept["results"].items():
            if ".History." in name and values is not None:
                what = name.partition(".track_")[2]
                cells = itertools.product(*([text.strip("'") for text in texts] for texts in parameters))
                row |= {(what, *cell): value for cell, value in zip(cells, values, strict=True) if value is not None}
    return found


def steps(values: Sequence[float], around: int = 1) -> Iterator[int]:
    """Where all of the next values, `around` of them, differ by more than 2 % from each of the last ones; of several
    such places side by side, the one with the largest change."""
    jumps = [0.0, *(abs(math.log(after / before)) for before, after in itertools.pairwise(values))]
    for k in range(around, len(values) - around + 1):
        before, after = values[k - around : k], values[k : k + around]
        apart = min(after) > ALLOWED * max(before) or min(before) > ALLOWED * max(after)
        if apart and jumps[k] == max(jumps[k - around + 1 : k + around]):
            yield k


def every_series(found: Measured) -> Iterator[tuple[Series, list[str], list[float], list[int]]]:
    """What is measured, the commits that have it, their values, and where its steps are."""
    for series in dict.fromkeys(itertools.chain.from_iterable(found.values())):
        have = [commit for commit in found if series in found[commit]]
        values = [found[commit][series] for commit in have]
        yield series, have, values, list(steps(values, AROUND if series[0] == TIMED else 1))


def report(line: dict[str, str], found: Measured) -> Iterator[str]:
    """The steps, under the commits that made them."""
    position = {commit: k for k, commit in enumerate(line)}
    named: dict[str, list[str]] = {commit: [] for commit in found}
    for series, have, values, where in every_series(found):
        for k in where:
            since = "" if position[have[k]] == position[have[k - 1]] + 1 else f", since {have[k - 1][:7]}"
            change = f"{values[k - 1]:.4g} -> {values[k]:.4g} ({values[k] / values[k - 1] - 1:+.1%}{since})"
            named[have[k]].append(f"    {' '.join(series):<46}{change}")
    for commit, changes in named.items():
        if changes:
            yield "\n".join([f"{commit[:7]} {line[commit]}", *changes])


def picture(line: dict[str, str], found: Measured, machine: str, path: Path) -> None:
    """A line a kernel: instructions, the ratio to the floor; then the wheel and the import. Rings are steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 2, figsize=(12, 13), sharex=True)
    panels = {
        ("instructions", "float32"): (axes[0, 0], "float32", "instructions an element, level v3"),
        ("instructions", "float64"): (axes[0, 1], "float64", ""),
        (TIMED, "float32", "100000"): (axes[1, 0], "", "time of 100 000 elements, times NumPy's floor"),
        (TIMED, "float64", "100000"): (axes[1, 1], "", ""),
        ("wheel_size",): (axes[2, 0], "", "wheel, KiB"),
        ("import",): (axes[2, 1], "", "import, million instructions"),
    }
    commits = list(found)
    for (what, *cell), have, values, where in every_series(found):
        if (panel := panels.get((what, *cell[1:]))) is None:
            continue
        axis, title, label = panel
        way, _, family = (cell[0] if cell else "").partition("_")
        style = {"linestyle": ":", "marker": "s"} if way == "backward" else {"linestyle": "-", "marker": "o"}
        color = {"unit": "C0", "alpha": "C1", "selu": "C2", "celu": "C3"}.get(family, "black")
        x = [commits.index(commit) for commit in have]
        axis.plot(x, values, **style, color=color, markersize=4, label=f"{way} {family}")
        rings = [x[k] for k in where], [values[k] for k in where]
        axis.plot(*rings, "o", markersize=10, markerfacecolor="none", markeredgecolor=color)
        axis.set(title=title, ylabel=label)
    place = [list(line).index(commit) for commit in commits]
    for axis in axes.flat:
        for k in range(1, len(place)):
            if place[k] > place[k - 1] + 1:
                axis.axvspan(k - 0.65, k - 0.35, color="0.9")
        axis.set_xticks(range(len(commits)), [commit[:7] for commit in commits], rotation=60, ha="right")
        axis.margins(y=0.1)
        axis.grid(alpha=0.3)
    for axis in axes[2]:
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
    lines = {line.get_label(): line for line in axes[0, 0].get_lines() if not line.get_label().startswith("_")}
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncol=4, frameon=False)
    figure.suptitle(f"What commits cost, oldest first ({machine}); a ring: a step; grey: commits left out")
    figure.tight_layout(rect=(0, 0.05, 1, 0.99))
    figure.savefig(path, dpi=90)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--last", type=int, default=10, help="how many commits; 0: measure none, show what there is")
    parser.add_argument("--until", default="HEAD", help="the last of them")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/images/history.png")
    options = parser.parse_args()
    asked = commits(f"-{options.last}", options.until)
    failed = 0
    if asked:
        run = [sys.executable, "-m", "asv", "run", "--skip-existing-successful", "--bench", "History", "HASHFILE:-"]
        failed = subprocess.run(run, cwd=ROOT, input="\n".join(reversed(asked)), text=True, check=False).returncode
    line = commits()
    folder = max(ROOT.glob(".asv/results/*/machine.json"), key=lambda path: path.stat().st_mtime).parent
    have = measured(folder)
    found = {commit: have[commit] for commit in line if have.get(commit)}  # not where the build failed
    print(*report(line, found), sep="\n\n")
    picture(line, found, json.loads((folder / "machine.json").read_text())["cpu"], options.output)
    return failed


if __name__ == "__main__":
    sys.exit(main())
