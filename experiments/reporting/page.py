"""The page of a study, or of runs: one HTML file that needs no other."""

import functools
import itertools
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from experiments.analysis.comparisons import Analysis
from experiments.pictures import drawing
from experiments.reporting import comparisons, formats, networks, origin, robustness
from experiments.reporting.context import Context
from experiments.words import upper

_TEMPLATES = Path(__file__).parent / "templates"

# By heading what gathers a section, nothing if the study has nothing to say there. The
# section's template has the name of the function. The first are open.
_OPEN = ("Answer", "Primary comparisons")
_SECTIONS: Mapping[str, Callable[[Context], dict[str, Any]]] = {
    "Answer": comparisons.answers,
    "Primary comparisons": comparisons.primary,
    "Departures from the plan": origin.departures,
    "Every seed": comparisons.seeds,
    "Arms": networks.arms,
    "Training": networks.training,
    "Against strength and regime": comparisons.sweep,
    "Confusion": networks.confusion,
    "Corrupted images": robustness.corrupted,
    "Single frequencies": robustness.frequencies,
    "Calibration": robustness.calibration,
    "Noise as measured": origin.noise,
    "Tuning": origin.tuning,
    "Secondary outcomes": comparisons.secondary,
    "The plan": origin.plan,
    "Where the numbers come from": origin.records,
}


def build(analysis: Analysis, *, with_pictures: bool = True) -> str:
    """Writes the page.

    Args:
        analysis: of the study.
        with_pictures: False for words in their places, where they cannot be drawn.

    Returns:
        HTML; the same study gives the same text.
    """
    context = Context(analysis, with_pictures)
    shared = {
        "plan": context.plan,
        "outcome": context.outcome,
        "baseline": context.plan.arms[context.baseline].title,
        "several_regimes": context.several_regimes,
    }
    sections = {
        title: (f"{gather.__name__}.html", shared | found)
        for title, gather in _SECTIONS.items()
        if (found := gather(context))
    }
    plan = context.plan
    return lay_out(f"Study {plan.name}", plan.question, sections, _OPEN)


def lay_out(
    kind: str,
    heading: str,
    sections: Mapping[str, tuple[str, Mapping[str, Any]]],
    opened: Collection[str],
) -> str:
    """Lays out a page, of a study or of runs.

    Args:
        kind: what it is of: "Study claim".
        heading: what it asks.
        sections: by heading the template of each, and what that says.
        opened: the headings of those that are not closed at first.

    Returns:
        HTML.
    """
    rendered = {}
    for title, (name, found) in sections.items():
        template = _environment().get_template(name)
        rendered[title] = Markup(template.render(found, title=title))
    template = _environment().get_template("page.html")
    text = template.render(kind=kind, heading=heading, sections=rendered, opened=opened)
    numbers = itertools.count(1)
    return re.sub(
        "<figcaption>", lambda _: f"<figcaption>Figure {next(numbers)}. ", text
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    for write in (formats.number, formats.interval, formats.p_value, upper):
        environment.filters[write.__name__] = write
    return environment


def _clean(value: Any) -> str:
    """Marks what is no character of a text; line breaks remain."""
    if isinstance(value, Markup):
        return value  # made here, of what was cleaned before
    return "\n".join(map(drawing.clean, str(value).split("\n")))
