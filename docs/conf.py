"""Sphinx configuration: `make docs`."""

from __future__ import annotations

import importlib
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import elufast

HERE = Path(__file__).parent

project = "elufast"
author = copyright = "the elufast developers"
version = release = elufast.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store"]
nitpicky = True
# No inventory of another project is read: a build needs no network. Private names have no page.
nitpick_ignore_regex = [
    ("py:.*", r"_.*"),
    ("py:.*", r"(dask|distributed|joblib|keras|matplotlib|np|numba|numpy|pandas|pd)(\..*)?"),
    ("py:.*", r"(sklearn|torch|xarray|xr|zarr)(\..*)?"),
]
default_role = "py:obj"  # what single backticks mean in a numpydoc docstring

highlight_language = "none"  # of a block that names no language
toc_object_entries = False
autodoc_typehints = "none"  # the docstrings state them
numpydoc_show_class_members = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

copybutton_exclude = ".linenos, .gp, .go"


def importable(module: str) -> bool:
    """Whether there is such a module, and what it needs is installed too."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


# A page whose module or library is missing stays out: torch has no small wheel everywhere.
for page in (HERE / "reference").glob("elufast.*.md"):
    if not importable(page.stem):
        exclude_patterns.append(f"reference/{page.name}")

sphinx_gallery_conf: dict[str, Any] = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"__init__\.py" if find_spec("torch") else r"__init__\.py|pytorch_.*\.py",
    "default_thumb_file": str(HERE / "images" / "elu.png"),
    "doc_module": ("elufast",),
    "reference_url": {"elufast": None},
    "download_all_examples": False,
    "write_computation_times": False,
    "show_memory": False,
    "capture_repr": ("_repr_html_",),
    "min_reported_time": 10**9,
    "copyfile_regex": r"",
}
# What matplotlib says where there is no screen.
warnings.filterwarnings("ignore", message=".*FigureCanvasAgg is non-interactive.*")

html_theme = "pydata_sphinx_theme"
html_title = "elufast"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["elufast.css"]
html_sidebars = {"*": []}  # pages that are not in a folder
html_theme_options = {
    "show_prev_next": True,
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
