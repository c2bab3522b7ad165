"""The site of the documentation: which page holds which name, and where links lead."""

import importlib
import inspect
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

from tests.test_api import EVERYTHING

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(path for path in (DOCS / "api").glob("*.md") if path.stem != "index")


def names_on(page: Path) -> list[object]:
    """What a page of the API shows, by the lines that mkdocstrings reads."""
    found = []
    for path in re.findall(r"^::: (sounddrop_jax\.\S+)$", page.read_text(), re.M):
        package, *names = path.split(".")
        value = importlib.import_module(package)
        for name in names:
            value = getattr(value, name)
        found.append(value)
    return found


def test_every_public_name_is_on_one_page_of_the_api():
    shown = Counter(value for page in PAGES for value in names_on(page))
    assert set(shown) == set(EVERYTHING.values())
    assert set(shown.values()) == {1}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_of_the_api_has_an_example(page):
    for value in names_on(page):  # doctest runs them
        assert ">>> " in inspect.getdoc(value).partition("Example:\n")[2], value


def test_the_navigation_and_the_overview_name_every_page_of_the_api():
    listed = re.findall(r"api/(\w+)\.md", (DOCS.parent / "mkdocs.yml").read_text())
    linked = re.findall(r"\]\((\w+)\.md\)", (DOCS / "api/index.md").read_text())
    assert sorted(listed) == sorted([*linked, "index"])
    assert sorted(linked) == [page.stem for page in PAGES]


def test_a_link_of_the_site_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "api").mkdir()
    (tmp_path / "api/index.html").write_text(
        '<h1 id="top">A</h1><a href="../b.html#there">b</a><a href="#top">up</a>'
        '<a href="../c.html">c</a><img src="/base/d.png"><a href="https://e.org">e</a>'
    )
    (tmp_path / "b.html").write_text('<a id="here" href="/base/api/">a</a>')
    check = runpy.run_path(str(DOCS / "site/links.py"))["check"]
    broken, counts = check(tmp_path, "/base/")
    assert broken == [
        "api/index.html: ../b.html#there leads to no anchor",
        "api/index.html: ../c.html leads to no file",
        "api/index.html: /base/d.png leads to no file",
    ]
    assert counts == {"pages": 2, "anchors": 2, "links": 5}
