"""Check that every link and picture between built HTML pages leads to a file, and to an anchor in it.

    python tools/links.py docs/_build/html

Prints what leads nowhere. Links to other hosts are counted, not followed.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page and what it refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.references: list[tuple[int, str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src"):
                self.references.append((self.getpos()[0], value or ""))


def main(folder: Path) -> int:
    paths = [path.resolve() for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path) for path in paths}
    inside = outside = broken = 0
    for path, page in pages.items():
        for line, reference in page.references:
            url = urlsplit(reference)
            if url.scheme or url.netloc:
                outside += 1
                continue
            inside += 1
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            anchor = unquote(url.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken += 1
                print(f"{path}:{line}: {reference} leads nowhere")
    print(f"{len(pages)} pages, {inside} links inside, {broken} of them broken; {outside} outside, not followed")
    return 1 if broken or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
