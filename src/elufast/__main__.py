"""The command line: ``elufast``, or ``python -m elufast``."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import math
import os
import signal
import sys
import timeit
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import elufast
from elufast._apply import DTYPES, Problem, apply, bind, require

FORWARD = ("elu", "selu", "celu")
BACKWARD = tuple(f"{name}_backward" for name in FORWARD)
LIBRARIES = ("elufast", "numpy", "torch", "numexpr", "numba")
SIZES = (1, 1_000, 100_000, 1_000_000)
SAMPLE_SECONDS = 2e-3

_FISH = "(__fish_complete_path (commandline -ct))"  # this and the next: what shtab is to complete after an option
_FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f", "fish": _FISH}


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As getopt: the word after an option is its value, be it -1e-3 or a file called -x, if it is no option."""
        words, joined = list(sys.argv[1:] if args is None else args), []
        options = self._option_string_actions
        while words:
            word = words.pop(0)
            meant = [action for name, action in options.items() if name.startswith(word)]
            if len(meant) == 1 and meant[0].nargs is None and words and words[0] not in (*options, "--"):
                word = f"{meant[0].option_strings[-1]}={words.pop(0)}"
            joined.append(word)
        return super().parse_known_args(joined, namespace)

    def error(self, message: str) -> NoReturn:
        raise Problem(f"{message} ({self.prog} --help)")


class _Completion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, *__: Any) -> NoReturn:
        print(require("shtab", "cli").complete(parser, shell))
        parser.exit()


def _dtype(text: str) -> np.dtype[Any]:
    said = require("ml_dtypes", "half").bfloat16 if text == "bfloat16" else text
    with contextlib.suppress(Exception):  # NumPy raises whatever it likes
        dtype: np.dtype[Any] = np.dtype(said)
        if dtype.name in DTYPES:
            return dtype
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(DTYPES)}, '<f2', '>f2', '<f4', ..., '>f8'")


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a file")
    return text


def _file(where: Any, *names: str, **options: Any) -> None:
    vars(where.add_argument(*names, type=_path, **options))["complete"] = _FILE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="elufast", description="ELU, SELU and CELU: fast, and accurate to the last place.")
    parser.add_argument("--version", action="version", version=f"elufast {elufast.__version__}")
    text = "print a completion script for this shell (needs the extra `cli`)"
    parser.add_argument("--print-completion", action=_Completion, choices=[*_FILE], help=text)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    alpha: dict[str, Any] = {"type": float, "metavar": "A", "help": "alpha of elu and celu (default: 1)"}

    def command(run: Callable[[argparse.Namespace], None], *functions: str, **optional: Any) -> argparse.ArgumentParser:
        """Called as its function is, whose docstring is the help; functions: those of elufast that it takes."""
        text, _, examples = inspect.cleandoc(run.__doc__ or "").partition("\n\n")
        name, brief = run.__name__.strip("_"), text[:1].lower() + text[1:-1]
        layout = argparse.RawDescriptionHelpFormatter
        sub = commands.add_parser(name, help=brief, description=text, epilog=examples, formatter_class=layout)
        sub.set_defaults(run=run)
        if functions:
            sub.add_argument("function", choices=functions, metavar="FUNCTION", help=", ".join(functions), **optional)
        return sub

    command(_info).add_argument("--json", action="store_true", help="as JSON")

    files = command(apply, *FORWARD, *BACKWARD)
    _file(files, "input", metavar="IN", help=".npy, .npz (or IN.npz:member), Zarr array, or raw binary")
    to = files.add_mutually_exclusive_group(required=True)
    _file(to, "-o", "--output", metavar="OUT", help="the file to write, in the format of IN")
    to.add_argument("--in-place", dest="output", action="store_const", help="overwrite IN (of a .npz file, one member)")
    files.add_argument("--alpha", **alpha)
    _file(files, "--grad", metavar="FILE", help="grad of a backward function, a file like IN")
    files.add_argument("--from-output", action="store_true", help="IN holds the forward result, not x")
    files.add_argument("--member", metavar="NAME", help="the array of a .npz file")
    files.add_argument("--dtype", type=_dtype, help=f"of raw binary: {', '.join(DTYPES)}, '>f4', ...")
    files.add_argument("--force", action="store_true", help="replace OUT if it is there")
    files.add_argument("--backup", action="store_true", help="with --in-place: copy IN to IN.bak first, and compare")
    files.add_argument("--threads", type=int, metavar="N", help="at most so many threads")

    bench = command(_bench, *FORWARD, nargs="?", default="elu")
    bench.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)")
    _file(bench, "--plot", metavar="FILE", help="draw the times too (needs the extra `plot`)")

    plot = command(_plot, *FORWARD)
    _file(plot, "-o", "--output", metavar="FILE", help="the picture to write; without it, show a window")
    plot.add_argument("--alpha", **alpha)
    plot.add_argument("--derivative", action="store_true", help="draw the derivative too")
    return parser


def _info(args: argparse.Namespace) -> None:
    """Show what was built and what this machine runs.

    examples:
      elufast info
      elufast info --json
    """
    if args.json:
        print(json.dumps(elufast.runtime_info(), indent=2))
    else:
        elufast.show_runtime()


@contextlib.contextmanager
def _tidily() -> Iterator[None]:
    """Let signals that would end the process raise an exception, so that temporary files are removed."""
    known = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGBREAK"))
    # What is ignored, as SIGHUP under nohup, or handled by somebody else stays so; not every system has all.
    ours = [n for n in known if n and signal.getsignal(n) in (signal.SIG_DFL, signal.default_int_handler)]

    def end(number: int, _: object) -> NoReturn:
        for each in ours:  # a closing terminal sends SIGHUP twice: the second must not interrupt the tidying up
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    with contextlib.ExitStack() as before:
        with contextlib.suppress(ValueError):  # threads other than the main one cannot handle signals
            for number in ours:
                before.callback(signal.signal, number, signal.signal(number, end))
        yield


def _call(library: str, function: str, x: Any, out: Any) -> Callable[[], Any]:
    """What to time: it writes into ``out``."""
    scalars = (elufast.SELU_ALPHA, elufast.SELU_SCALE) if function == "selu" else (1, 1)  # CELU with alpha 1 is ELU
    alpha, scale = (x.dtype.type(value) for value in scalars)
    if library == "elufast":
        call = getattr(elufast, function)
        return lambda: call(x, out=out, num_threads=1)
    if library == "numpy":
        return lambda: np.multiply(scale, np.where(x > 0, x, alpha * np.expm1(x)), out=out)
    module = require(library, "peers")
    if library == "torch":
        module.set_num_threads(1)
        tensor, result = module.from_numpy(x), module.from_numpy(out)
        return lambda: module.ops.aten.elu.out(tensor, alpha=float(alpha), scale=float(scale), out=result)
    if library == "numexpr":
        module.set_num_threads(1)
        names = {"x": x, "alpha": alpha, "scale": scale}
        return lambda: module.evaluate("scale * where(x > 0, x, alpha * expm1(x))", local_dict=names, out=out)

    def loop(x: Any, out: Any, alpha: Any, scale: Any) -> None:
        for i in range(x.size):
            out[i] = scale * x[i] if x[i] > 0 else scale * (alpha * math.expm1(x[i]))

    compiled = module.njit(loop)
    return lambda: compiled(x, out, alpha, scale)


def _bench(args: argparse.Namespace) -> None:
    """Time elufast beside the libraries that are installed, on one thread.

    examples:
      elufast bench
      elufast bench selu --dtype float64 --plot times.png
    """
    figure = _figure(args.plot) if args.plot else None
    title = f"{args.function}, {args.dtype}, one thread"
    print(f"{title}: ns an element (n = 1: ns a call) and times elufast's")
    rows: list[dict[str, float]] = []
    for size in SIZES:
        x = np.random.default_rng(0).standard_normal(size).astype(args.dtype)
        calls = {}
        for name in LIBRARIES:
            with contextlib.suppress(Problem):  # it is not installed
                calls[name] = _call(name, args.function, x, np.empty_like(x))
        if not rows:
            print(f"{'n':>8}{'elufast':>9}" + "".join(f"{name:>18}" for name in [*calls][1:]))
        second = {name: timeit.repeat(call, number=1, repeat=2)[1] for name, call in calls.items()}
        row = dict.fromkeys(calls, math.inf)
        for name in [*calls] * 5:  # the libraries take turns, and the best time of each counts
            number = max(1, int(SAMPLE_SECONDS / second[name]))
            taken = timeit.repeat(calls[name], number=number, repeat=5)
            row[name] = min(row[name], min(taken) / number / size * 1e9)
        rows.append(row)
        own, *others = row.values()
        print(f"{size:>8}{own:>9.3g}" + "".join(f"{ns:>10.3g}{ns / own:>7.1f}x" for ns in others), flush=True)
    if figure is not None:
        curves = {name: [row[name] for row in rows] for name in rows[0]}
        scales = {"xscale": "log", "yscale": "log", "ylabel": "ns an element"}
        _draw(figure, args.plot, SIZES, curves, "o-", xlabel="elements", title=title, **scales)


def _figure(path: str | None) -> Any:
    """A figure that can be saved under this name or, without one, shown in a window."""
    size: dict[str, Any] = {"figsize": (6.4, 4.0), "layout": "constrained"}
    if not path:
        pyplot = require("matplotlib.pyplot", "plot")
        figure = pyplot.figure(**size)
        if pyplot.get_backend().lower() == "agg":
            raise Problem("there is no display to show a window on; name a picture with -o FILE")
        return figure
    figure = require("matplotlib.figure", "plot").Figure(**size)
    formats = figure.canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise Problem(f"{path}: no picture format; the name must end in one of: {', '.join(sorted(formats))}")
    return figure


def _draw(figure: Any, path: str | None, x: Any, curves: dict[str, Any], style: str, **options: Any) -> None:
    """Draw, and save or show what `_figure` has made for this name."""
    axes = figure.add_subplot(**options)
    for name, y in curves.items():
        axes.plot(x, y, style, label=name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path) if path else require("matplotlib.pyplot", "plot").show()


def _plot(args: argparse.Namespace) -> None:
    """Draw a function (needs the extra `plot`).

    examples:
      elufast plot elu -o elu.png
      elufast plot celu --alpha 0.5 --derivative
    """
    x = np.linspace(-5, 3, 801)
    curves = {args.function: bind(args.function, alpha=args.alpha)(x)}
    if args.derivative:
        curves["derivative"] = bind(f"{args.function}_backward", alpha=args.alpha)(np.ones_like(x), x)
    title = args.function if args.alpha is None else f"{args.function}, alpha = {args.alpha:g}"
    _draw(_figure(args.output), args.output, x, curves, "-", xlabel="x", title=title)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with these arguments, by default those of the process; return the exit code.

    It is 0; 2 after an error, told in one line on stderr; 130 after Ctrl-C; 141 if the reader of stdout has gone.
    SystemExit is raised after ``--help``, ``--version``, ``--print-completion`` and signals other than Ctrl-C.

    >>> main(["apply", "elu", "missing.npy", "--in-place"])  # elufast: missing.npy: No such file or directory
    2
    """
    try:
        try:
            args = _parser().parse_args(argv)
            with _tidily():
                args.run(args)
        finally:
            try:
                print(end="", flush=True)  # nothing where there is no stdout
            except OSError:  # nor can the interpreter flush it at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise
    except BrokenPipeError:
        return 141
    except (KeyboardInterrupt, OSError, Problem, MemoryError) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        told = "interrupted" if interrupted else str(error) or "out of memory"
        if isinstance(error, OSError):
            told = (f"{error.filename}: " if error.filename else "") + str(error.strerror or error)
        line = " ".join("; ".join([told, *getattr(error, "__notes__", ())]).splitlines())
        with contextlib.suppress(OSError):
            print(f"elufast: {line}", file=sys.stderr)
        return 130 if interrupted else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
