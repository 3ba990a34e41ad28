"""Picks the loops module for this CPU at import. The only file that knows instruction-set levels."""

import contextlib
import os
from types import ModuleType

from elufast import _runtime


def _load(level: str) -> ModuleType:
    # Literal imports, which tools that freeze a program find; `from elufast import` would raise ImportError
    # instead of ModuleNotFoundError where the level was not built.
    if level == "v4":
        import elufast._loops_v4
    elif level == "v3":
        import elufast._loops_v3
    else:
        import elufast._loops_base
    module: ModuleType = getattr(elufast, f"_loops_{level}")
    return module


def built_levels() -> tuple[str, ...]:
    """Levels that this build has and this CPU can run, best first."""
    levels = []
    for level in _runtime.cpu_levels():
        with contextlib.suppress(ModuleNotFoundError):
            _load(level)
            levels.append(level)
    return tuple(levels)


def choose(asked: str | None) -> tuple[str, ModuleType]:
    """The level to use and its loops: the best one, or the one that `asked` names."""
    if asked and asked not in (levels := built_levels()):
        raise ImportError(
            f"ELUFAST_ISA={asked!r}: this CPU and this build of elufast have "
            f"{', '.join(levels)}; set one of these or unset ELUFAST_ISA"
        )
    for level in [asked] if asked else _runtime.cpu_levels():
        with contextlib.suppress(ModuleNotFoundError):
            return level, _load(level)
    raise ImportError("elufast was not built: it lacks elufast._loops_base; install it, or build it in place")


level, loops = choose(os.environ.get("ELUFAST_ISA"))
