"""The HTML of a page: its style and its pieces."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.pictures import drawing

CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d4d8dd;
  --soft: #f4f5f7; --dim: #59636e; --wins: #0060a0; --loses: #b34700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #15181c;
  --line: #3b424a; --soft: #20252b; --dim: #a0a9b3; --wins: #63b3ed;
  --loses: #f0965a; } }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --line: #ccc;
  --soft: #f4f5f7; --dim: #444; --wins: #0060a0; --loses: #b34700; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial,
  sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
p, ul { max-width: 46rem; }
.kind, figcaption, .note { color: var(--dim); font-size: .875rem; }
.kind { margin: 0; }
.verdict { font-size: 1.15rem; border-left: .3rem solid var(--wins);
  padding: .25rem 0 .25rem .9rem; margin: 1rem 0; }
nav { font-size: .875rem; }
nav a { display: inline-block; padding: .3rem .9rem .3rem 0; }
a { color: var(--wins); }
figure { margin: 1rem 0; min-width: 0; }
figcaption { max-width: 46rem; margin-top: .4rem; }
.row { display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 31rem), 1fr)); }
.row > .wide { grid-column: 1 / -1; }
.panels { display: flex; flex-wrap: wrap; gap: .75rem 1rem; align-items: flex-start; }
.panels > div { max-width: 100%; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--wins); }
svg { display: block; max-width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-size: .875rem; overflow-wrap: break-word;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
thead th { vertical-align: bottom; white-space: normal; overflow-wrap: normal;
  min-width: 4.5rem; }
th:first-child, td.words { text-align: left; white-space: normal; }
th:first-child { padding-left: 0; min-width: min(9rem, 28vw); position: sticky;
  left: 0; background: var(--paper); }
td small { display: block; color: var(--dim); }
.wins { color: var(--wins); font-weight: 600; }
.loses { color: var(--loses); font-weight: 600; }
pre { background: var(--soft); padding: .75rem; border-radius: .3rem;
  white-space: pre-wrap; font-size: .8rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; } .scroll { overflow: visible; }
  th:first-child { position: static; }
  figure > .scroll, .panels > div, tr, .verdict { break-inside: avoid; }
  h2 { break-after: avoid; } table { font-size: 7.5pt; }
  th, td { padding: .15rem .3rem; white-space: normal; } }
"""


class Notes:
    """Numbers what is said below a table, the same things once."""

    def __init__(self) -> None:
        self._notes: list[str] = []

    def mark(self, note: str) -> str:
        """Returns the mark of a note, nothing for an empty one."""
        if not note:
            return ""
        if note not in self._notes:
            self._notes.append(note)
        return f" <sup>{self._notes.index(note) + 1}</sup>"

    def write(self) -> str:
        """Returns the notes."""
        return "".join(
            f'<p class="note"><sup>{index}</sup> {text(note)}.</p>'
            for index, note in enumerate(self._notes, 1)
        )


def text(value: Any) -> str:
    """Writes a value as it is: escaped, without what is no character of a text."""
    kept = "\n".join(drawing.clean(line) for line in str(value).split("\n"))
    return html.escape(kept)


def anchor(title: str) -> str:
    """Names a section for links to it."""
    return title.lower().replace(" ", "-")


def section(title: str, body: str) -> str:
    """Puts HTML below a heading."""
    heading = f"<h2>{text(title)}</h2>"
    return f'<section id="{anchor(title)}">\n{heading}\n{body}\n</section>'


def figure(body: str, caption: str) -> str:
    """Puts words below HTML, as wide as the page if it has panels."""
    kind = ' class="wide"' if 'class="panels"' in body else ""
    return f"<figure{kind}>{body}<figcaption>{text(caption)}</figcaption></figure>"


def panels(pictures: Iterable[str]) -> str:
    """Puts small pictures side by side, as many as there is room for."""
    return f'<div class="panels">{"".join(pictures)}</div>'


def row(parts: Sequence[str]) -> str:
    """Puts figures side by side where the page is wide enough."""
    if len(parts) < 2:
        return "".join(parts)
    return f'<div class="row">{"".join(parts)}</div>'


def table(head: Sequence[str], body: Iterable[Sequence[str]], caption: str) -> str:
    """Writes a table, of cells that are HTML already."""
    titles = "".join(f'<th scope="col">{text(title)}</th>' for title in head)
    rows = []
    for first, *others in body:
        cells = [f'<th scope="row">{first}</th>']
        for title, cell in zip(head[1:], others, strict=True):
            kind = ' class="words"' if title == "regime" else ""
            cells.append(f"<td{kind}>{cell}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>\n")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>'
        f"<thead><tr>{titles}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody></table></div>"
        f'<p class="note">{text(caption)}</p>'
    )
