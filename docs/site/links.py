"""Whether the links of a built site lead somewhere: pages, files and anchors."""

import posixpath
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and what links may lead to in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Is called for every tag."""
        for name, value in attrs:
            if name in ("href", "src") and value and tag != "base":
                self.links.append(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")


def check(site: Path, base: str = "/") -> tuple[list[str], dict[str, int]]:
    """Follows every link of every page, but for those that leave the site.

    Args:
        site: the folder that the site was built in.
        base: the path that it will have on its server; links from the root begin so.

    Returns:
        A line for each broken link, and how many pages, anchors and links there are.
    """
    pages = {
        path.relative_to(site).as_posix(): Page(path.read_text("utf-8"))
        for path in sorted(site.rglob("*.html"))
    }
    broken, followed = [], 0
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            followed += 1
            path, folder = unquote(parts.path), posixpath.dirname(name)
            if path.startswith(base):
                path, folder = path.removeprefix(base), ""
            target = posixpath.normpath(posixpath.join(folder, path))
            target = target if parts.path else name
            if (site / target).is_dir():
                target = posixpath.join(target, "index.html")
            anchor = unquote(parts.fragment)
            if not (site / target).is_file():
                broken.append(f"{name}: {link} leads to no file")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                broken.append(f"{name}: {link} leads to no anchor")
    anchors = sum(len(page.anchors) for page in pages.values())
    return broken, {"pages": len(pages), "anchors": anchors, "links": followed}
