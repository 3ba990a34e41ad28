"""The code in the documentation runs and prints what it says; the reference has every public name."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import elufast

ROOT = Path(__file__).parent.parent
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if not {"_build", "gallery"} & set(page.relative_to(ROOT).parts)
]

# Of the libraries that pages are about, which warn where they please.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Every ```python block of a page, with prompts or without, from top to bottom in one namespace."""
    sybil = pytest.importorskip("sybil")
    myst = pytest.importorskip("sybil.parsers.myst")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    parsers = [myst.PythonCodeBlockParser(doctest_optionflags=flags), myst.SkipParser()]
    monkeypatch.chdir(tmp_path)
    document = sybil.Sybil(parsers=parsers).parse(page)
    document.namespace["__name__"] = "__main__"
    examples = list(document.examples())
    code = "\n".join(str(getattr(example.parsed, "source", example.parsed)) for example in examples)
    for module in re.findall(r"^(?:import|from) ([\w.]+)", code, re.MULTILINE):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if str(error.name).startswith("elufast"):
                raise
            pytest.skip(str(error))
    for example in examples:
        example.evaluate()


def test_reference_has_every_public_name() -> None:
    page = ROOT / "docs" / "reference" / "elufast.md"
    if not page.is_file():
        pytest.skip("not in a checkout")
    listed = re.findall(r"^(?:   |\.\. autodata:: )(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == elufast.__all__
