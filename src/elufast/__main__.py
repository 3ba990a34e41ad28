"""The command line: ``elufast``, or ``python -m elufast``."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import elufast
from elufast._apply import Problem, apply, require

FORWARD = ("elu", "selu", "celu")
BACKWARD = tuple(f"{name}_backward" for name in FORWARD)
SIZES = (1, 1_000, 100_000, 1_000_000)
ROUNDS = 5
SAMPLE_SECONDS = 2e-3

# What shtab is to complete after an option.
_FILE = {
    "bash": "_shtab_compgen_files",
    "zsh": "_files",
    "tcsh": "f",
    "fish": "(__fish_complete_path (commandline -ct))",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Problem(f"{message} ({self.prog} --help)")


class _Completion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> NoReturn:
        _, shell, _ = arguments
        print(require("shtab", "cli").complete(parser, shell))
        parser.exit()


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _dtype(text: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(text)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.type not in (np.float32, np.float64):
        raise argparse.ArgumentTypeError(f"{text!r} is not float32 or float64, nor '<f4', '>f4', '<f8' or '>f8'")
    return dtype


def _file(action: argparse.Action) -> None:
    vars(action)["complete"] = _FILE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="elufast", description="ELU, SELU and CELU: fast, and accurate to the last place.")
    parser.add_argument("--version", action="version", version=f"elufast {elufast.__version__}")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=tuple(_FILE),
        help="print a completion script for this shell (needs the extra `cli`)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], None], text: str, examples: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            run.__name__.strip("_"),
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    info = command(
        _info,
        "show what was built and what this machine runs",
        """\
  elufast info
  elufast info --json""",
    )
    info.add_argument("--json", action="store_true", help="as JSON")

    files = command(
        _apply,
        "apply a function to an array in a file, of any size",
        """\
  elufast apply elu x.npy -o y.npy --alpha 0.5
  elufast apply selu weights.npz:layer1 -o new.npz     (the other members are copied)
  elufast apply celu images.zarr -o out.zarr           (needs the extra `zarr`)
  elufast apply elu x.bin -o y.bin --dtype '>f4'       (raw binary, big-endian)
  elufast apply elu_backward x.npy --grad g.npy -o dx.npy
  elufast apply elu x.npy --in-place --backup

OUT appears when it is complete, and not at all after an error or Ctrl-C. --in-place needs no
room for a second file, but an interruption leaves IN partly overwritten: use --backup, or
-o IN --force, which replaces IN in one step.""",
    )
    files.add_argument("function", choices=FORWARD + BACKWARD, metavar="FUNCTION", help=", ".join(FORWARD + BACKWARD))
    _file(files.add_argument("input", metavar="IN", help=".npy, .npz (or IN.npz:member), Zarr array, or raw binary"))
    to = files.add_mutually_exclusive_group(required=True)
    _file(to.add_argument("-o", "--output", metavar="OUT", help="the file to write, in the format of IN"))
    to.add_argument("--in-place", action="store_true", help="overwrite IN (of a .npz file, the one member)")
    files.add_argument("--alpha", type=float, metavar="A", help="alpha of elu and celu (default: 1)")
    _file(files.add_argument("--grad", metavar="FILE", help="grad of a backward function, a file like IN"))
    files.add_argument("--from-output", action="store_true", help="IN holds the forward result, not x")
    files.add_argument("--member", metavar="NAME", help="the array of a .npz file")
    files.add_argument("--dtype", type=_dtype, help="of raw binary: float32, float64, '<f4', '>f4', '<f8', '>f8'")
    files.add_argument("--force", action="store_true", help="replace OUT if it is there")
    files.add_argument("--backup", action="store_true", help="with --in-place: copy IN to IN.bak first, and compare")
    files.add_argument("--threads", type=_count, metavar="N", help="at most so many threads")

    bench = command(
        _bench,
        "time elufast beside the libraries that are installed, on one thread",
        """\
  elufast bench
  elufast bench selu --dtype float64 --plot times.png""",
    )
    bench.add_argument(
        "function", nargs="?", choices=FORWARD, default="elu", metavar="FUNCTION", help=", ".join(FORWARD)
    )
    bench.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)")
    _file(bench.add_argument("--plot", metavar="FILE", help="draw the times too (needs the extra `plot`)"))

    plot = command(
        _plot,
        "draw a function (needs the extra `plot`)",
        """\
  elufast plot elu -o elu.png
  elufast plot celu --alpha 0.5 --derivative""",
    )
    plot.add_argument("function", choices=FORWARD, metavar="FUNCTION", help=", ".join(FORWARD))
    _file(plot.add_argument("-o", "--output", metavar="FILE", help="the picture to write; without it, show a window"))
    plot.add_argument("--alpha", type=float, metavar="A", help="alpha of elu and celu (default: 1)")
    plot.add_argument("--derivative", action="store_true", help="draw the derivative too")
    return parser


def _info(options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(elufast.runtime_info(), indent=2))
    else:
        elufast.show_runtime()


def _apply(options: argparse.Namespace) -> None:
    def terminate(*_: Any) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, terminate)  # so that temporary files are removed
    try:
        apply(
            options.function,
            options.input,
            options.output,
            alpha=options.alpha,
            grad=options.grad,
            from_output=options.from_output,
            member=options.member,
            dtype=options.dtype,
            force=options.force,
            backup=options.backup,
            num_threads=options.threads,
        )
    finally:
        signal.signal(signal.SIGTERM, before)


# One maker a library: what to time, which writes into `out` where the library can.
_Maker = Callable[[str, Any, Any], Callable[[], Any]]
_FORMULA = "scale * where(x > 0, x, alpha * expm1(x))"


def _scalars(function: str, x: Any) -> dict[str, Any]:
    """CELU with alpha = 1 is ELU."""
    alpha, scale = (elufast.SELU_ALPHA, elufast.SELU_SCALE) if function == "selu" else (1.0, 1.0)
    return {"alpha": x.dtype.type(alpha), "scale": x.dtype.type(scale)}


def _elufast(function: str, x: Any, out: Any) -> Callable[[], Any]:
    call = getattr(elufast, function)
    return lambda: call(x, out=out, num_threads=1)


def _numpy(function: str, x: Any, out: Any) -> Callable[[], Any]:
    names = _scalars(function, x)
    alpha, scale = names["alpha"], names["scale"]
    return lambda: np.multiply(scale, np.where(x > 0, x, alpha * np.expm1(x)), out=out)


def _torch(function: str, x: Any, out: Any) -> Callable[[], Any]:
    torch = require("torch", "peers")
    torch.set_num_threads(1)
    tensor, result = torch.from_numpy(x), torch.from_numpy(out)
    names = {name: float(value) for name, value in _scalars(function, x).items()}
    return lambda: torch.ops.aten.elu.out(tensor, **names, out=result)


def _numexpr(function: str, x: Any, out: Any) -> Callable[[], Any]:
    numexpr = require("numexpr", "peers")
    numexpr.set_num_threads(1)
    names = {"x": x, **_scalars(function, x)}
    return lambda: numexpr.evaluate(_FORMULA, local_dict=names, out=out)


def _numba(function: str, x: Any, out: Any) -> Callable[[], Any]:
    def loop(x: Any, out: Any, alpha: Any, scale: Any) -> None:
        for i in range(x.size):
            out[i] = scale * x[i] if x[i] > 0 else scale * (alpha * math.expm1(x[i]))

    names = _scalars(function, x)
    compiled = require("numba", "peers").njit(loop)
    return lambda: compiled(x, out, names["alpha"], names["scale"])


_MAKERS: dict[str, _Maker] = {
    "elufast": _elufast,
    "numpy": _numpy,
    "torch": _torch,
    "numexpr": _numexpr,
    "numba": _numba,
}


def _times(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds a call: the libraries take turns, and the best time of each counts."""
    best = dict.fromkeys(calls, math.inf)
    numbers = {}
    for name, call in calls.items():
        call()
        numbers[name] = max(1, int(SAMPLE_SECONDS / timeit.timeit(call, number=1)))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            taken = timeit.repeat(call, number=numbers[name], repeat=5)
            best[name] = min(best[name], min(taken) / numbers[name])
    return best


def _bench(options: argparse.Namespace) -> None:
    figure = _figure(options.plot) if options.plot else None
    print(f"{options.function}, {options.dtype}, one thread: ns an element (n = 1: ns a call) and times elufast's")
    makers = dict(_MAKERS)
    rows: list[dict[str, float]] = []
    for size in SIZES:
        x = np.random.default_rng(0).standard_normal(size).astype(options.dtype)
        calls = {}
        for name, maker in tuple(makers.items()):
            try:
                calls[name] = maker(options.function, x, np.empty_like(x))
            except Problem:
                del makers[name]
        if not rows:
            print(f"{'n':>8}{'elufast':>9}" + "".join(f"{name:>18}" for name in makers if name != "elufast"))
        row = {name: seconds / size * 1e9 for name, seconds in _times(calls).items()}
        rows.append(row)
        own = row["elufast"]
        others = (f"{ns:>10.3g}{ns / own:>7.1f}x" for name, ns in row.items() if name != "elufast")
        print(f"{size:>8}{own:>9.3g}" + "".join(others), flush=True)
    if figure is not None:
        axes = figure.add_subplot(xscale="log", yscale="log", xlabel="elements", ylabel="ns an element")
        axes.set_title(f"{options.function}, {options.dtype}, one thread")
        for name in makers:
            axes.plot(SIZES, [row[name] for row in rows], "o-", label=name)
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(options.plot)


def _figure(path: str) -> Any:
    """A figure that can be saved under this name."""
    figure = require("matplotlib.figure", "plot").Figure(figsize=(6.4, 4.0), layout="constrained")
    formats = figure.canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise Problem(f"{path}: no picture format; the name must end in one of: {', '.join(sorted(formats))}")
    return figure


def _plot(options: argparse.Namespace) -> None:
    if options.alpha is not None and options.function == "selu":
        raise Problem("selu has no --alpha")
    alpha = {} if options.alpha is None else {"alpha": options.alpha}
    x = np.linspace(-5, 3, 801)
    curves = {}
    try:
        curves[options.function] = getattr(elufast, options.function)(x, **alpha)
        if options.derivative:
            curves["derivative"] = getattr(elufast, f"{options.function}_backward")(np.ones_like(x), x, **alpha)
    except ValueError as error:
        raise Problem(str(error)) from error
    if options.output:
        figure = _figure(options.output)
    else:
        pyplot = require("matplotlib.pyplot", "plot")
        figure = pyplot.figure(figsize=(6.4, 4.0), layout="constrained")
        if pyplot.get_backend().lower() == "agg":
            raise Problem("there is no display to show a window on; name a picture with -o FILE")
    axes = figure.add_subplot(xlabel="x")
    axes.set_title(options.function + "".join(f", alpha = {value:g}" for value in alpha.values()))
    for name, y in curves.items():
        axes.plot(x, y, label=name)
    axes.grid(alpha=0.3)
    axes.legend()
    if options.output:
        figure.savefig(options.output)
    else:
        pyplot.show()


def _flush() -> None:
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:  # nor can the interpreter flush it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit code: 0; 2 after an error, told in one line on stderr; 130 after Ctrl-C; 141 if the reader of
        stdout has gone.

    Raises
    ------
    SystemExit
        After ``--help``, ``--version`` and ``--print-completion``.

    Examples
    --------
    >>> main(["apply", "elu", "missing.npy", "--in-place"])  # elufast: missing.npy: No such file or directory
    2
    """
    try:
        try:
            options = _parser().parse_args(argv)
            options.run(options)
        finally:
            _flush()
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt as error:
        return _fail(130, "interrupted", error)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return _fail(2, f"{named}{error.strerror or error}", error)
    except (Problem, MemoryError) as error:
        return _fail(2, str(error) or "out of memory", error)
    return 0


def _fail(code: int, message: str, error: BaseException) -> int:
    line = " ".join("; ".join([message, *getattr(error, "__notes__", ())]).split())
    with contextlib.suppress(OSError):
        print(f"elufast: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
