"""What MkDocs asks while it builds the site: addresses, pages from elsewhere, links.

The home page is README.md and the changelog CHANGELOG.md; reports are made of the
records in results/, as the command makes them for anybody. Links that leave docs/
lead to the repository. A link that leads nowhere is a warning, and so an error of
`--strict`.
"""

import logging
import posixpath
import re
import tomllib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import links
from jinja2 import Environment
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
# Pages that lie elsewhere in the repository, by where they are on the site.
ELSEWHERE = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}

log = logging.getLogger("mkdocs.hooks.site")
# Reports are made while the notebook runs, one after the other.
pool = ThreadPoolExecutor(max_workers=1)
reports: list[Future[None]] = []


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Takes the addresses from pyproject.toml, where they stand once."""
    config.site_url = PROJECT["urls"]["Documentation"]
    config.repo_url = REPOSITORY
    config.repo_name = REPOSITORY.partition("//")[2].partition("/")[2]
    return config


def make_report(records: Path) -> None:
    """Makes the report of a study, unless it is there and newer than the records."""
    report = records / "report.html"
    newest = max(path.stat().st_mtime for path in records.glob("*.json*"))
    if not report.exists() or report.stat().st_mtime < newest:
        # Here, and not by the command, which would load JAX for each.
        from experiments.analysis.comparisons import Analysis
        from experiments.reporting.tables import write
        from experiments.studies import store

        write(Analysis(store.read([records])), records)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages and the reports that do not lie in docs/."""
    for uri, path in ELSEWHERE.items():
        content = (ROOT / path).read_text("utf-8")
        files.append(File.generated(config, uri, content=content))
    for records in sorted(path.parent for path in ROOT.glob("results/*/study.json")):
        uri, report = f"reports/{records.name}.html", str(records / "report.html")
        files.append(File.generated(config, uri, abs_src_path=report))
        reports.append(pool.submit(make_report, records))
    return files


def on_env(env: Environment, **kwargs: Any) -> Environment:
    """Waits for the reports: pages have been read, and files are copied next."""
    while reports:
        reports.pop().result()
    return env


def on_page_markdown(
    markdown: str, *, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Leads links to where things are: on the site, or else in the repository."""
    uri = page.file.src_uri
    origin = posixpath.dirname(ELSEWHERE.get(uri, f"docs/{uri}"))
    here = posixpath.dirname(uri)

    def lead(match: re.Match[str]) -> str:
        start, path, anchor = match.groups()
        target = posixpath.normpath(posixpath.join(origin, path))
        inside = {source: uri for uri, source in ELSEWHERE.items()}.get(target)
        if inside is None and target.startswith("docs/"):
            inside = target.removeprefix("docs/")
        file = files.get_file_from_path(inside) if inside else None
        if file and file.inclusion.is_included():
            return f"{start}{posixpath.relpath(inside, here or '.')}{anchor})"
        if not (ROOT / target).exists():
            return match[0]  # MkDocs warns
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        led = f"{start}{REPOSITORY}/{kind}/main/{target}{anchor})"
        report = f"reports/{posixpath.basename(target)}.html"
        if target.startswith("results/") and files.get_file_from_path(report):
            led += f" and [report]({posixpath.relpath(report, here or '.')})"
        return led

    blocks = re.split(r"(^```.*?^```)", markdown, flags=re.M | re.S)
    blocks[::2] = [
        re.sub(r"(\]\()(?!https?:|#|mailto:)([^)\s#]+)((?:#[^)\s]*)?)\)", lead, prose)
        for prose in blocks[::2]
    ]
    return "".join(blocks)


def on_post_page(output: str, **kwargs: Any) -> str:
    """Leaves out what would ask others: GitHub for stars, a server for formulas."""
    output = output.replace(' data-md-component="source"', "")
    formulas = "<script data-mkdocs-jupyter-mathjax.*?</script>"
    return re.sub(formulas, "", output, flags=re.S)


def on_post_build(config: MkDocsConfig, **kwargs: Any) -> None:
    """Follows every link of what was built."""
    base = urlsplit(config.site_url or "/").path
    broken, counts = links.check(Path(config.site_dir), base)
    for line in broken:
        log.warning(line)
    counted = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    log.info(f"{counted} followed, {len(broken)} broken")
