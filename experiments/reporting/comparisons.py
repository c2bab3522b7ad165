"""The sections of differences between arms, and of the scores behind them."""

from typing import Any

from experiments.analysis.comparisons import POWER, Comparison, regions
from experiments.analysis.names import name_arm
from experiments.pictures import differences
from experiments.pictures.differences import Interval
from experiments.reporting.context import Context
from experiments.reporting.formats import score, span, upper
from experiments.studies.outcomes import OUTCOMES
from experiments.words import name_seeds


def primary(context: Context) -> dict[str, Any]:
    """Gathers the decided comparisons."""
    outcome, family = context.outcome, context.analysis.family
    figures = []
    for regime in context.plan.regimes:
        own = [each for each in family if each.regime == regime]
        picture = context.draw(
            context.in_regime(
                f"{len(own)} differences in {outcome.title} with intervals", regime
            ),
            differences.forest,
            [Interval(context.versus(c), c.decision, *c.bounds) for c in own],
            f"arm − baseline, {outcome.differences}",
            outcome.digits,
        )
        n = span(len(each.seeds) for each in own)
        figures.append({"picture": picture, "heading": context.heading(regime), "n": n})
    rows = [
        (context.in_regime(context.versus(each), each.regime), each) for each in family
    ]
    notes = list(dict.fromkeys(each.note for each in family if each.note))
    return {"figures": figures, "rows": rows, "notes": notes, "power": POWER}


def seeds(context: Context) -> dict[str, Any]:
    """Gathers every network's score."""
    key = context.plan.outcome
    figures = []
    for regime, groups in context.by_regime(key):
        arms = [
            (group.label, {r["seed"]: r[key] for r in group.with_a(key)})
            for group in groups
        ]
        joined = len(arms) <= 8 and len(context.plan.seeds) <= 16
        picture = context.draw(
            context.in_regime(f"Every seed's {context.outcome.title}, by arm", regime),
            differences.strips,
            arms,
            score(context.outcome),
            joined,
        )
        figures.append(
            {
                "picture": picture,
                "heading": context.heading(regime),
                "n": span(len(scores) for _, scores in arms),
                "joined": joined,
                "left_out": _left_out(context, regime),
            }
        )
    if not figures:
        return {}
    return {"figures": figures, "score": upper(context.outcome.title)}


def _left_out(context: Context, regime: str) -> list[str]:
    """Names what a picture lacks."""
    return [
        f"{name_seeds(row[kind])} of "
        f"{name_arm(context.plan, row['arm'], row['strength'])} ({kind})"
        for row in context.analysis.rows
        for kind in ("diverged", "missing")
        if row["regime"] == regime and row[kind]
    ]


def sweep(context: Context) -> dict[str, Any]:
    """Gathers differences from the baseline by strength, or else by regime."""
    plan, baseline = context.plan, context.baseline
    several = any(len(arm.strengths) > 1 for arm in plan.arms.values())
    has_strengths = several and plan.tuning is None
    family = [each for each in context.analysis.family if each.baseline == baseline]
    if not (has_strengths or context.several_regimes) or not any(
        each.result for each in family
    ):
        return {}
    # By panel, arm and place.
    found: dict[str, dict[str, dict[str, Interval]]] = {}
    for each in family:
        place = f"{each.strength:g}" if has_strengths else each.regime
        panel = each.regime if has_strengths else ""
        interval = Interval(each.arm, each.decision, *each.bounds)
        found.setdefault(panel, {}).setdefault(each.arm, {})[place] = interval
    what = "strength" if has_strengths else "regime"
    label = f"Difference from {baseline} against {what}"
    points = context.outcome.points
    figures = []
    for panel, arms in found.items():
        places = {place: None for intervals in arms.values() for place in intervals}
        picture = context.draw(
            context.in_regime(label, panel) if panel else label,
            differences.sweep,
            list(arms.items()),
            sorted(places, key=float) if has_strengths else list(places),
            what,
            f"difference from {baseline}" + (f"\n{points}" if points else ""),
        )
        heading = context.heading(panel) if panel else ""
        figures.append({"picture": picture, "heading": heading})
    # Where, along its strengths, each arm wins and loses.
    rows: dict[str, dict[str, Any]] = {}
    for region in regions(context.analysis.family):
        pair = f"{region.arm} − {region.baseline}"
        rows.setdefault(pair, {})[region.regime] = region
    return {"figures": figures, "what": what, "rows": rows}


def secondary(context: Context) -> dict[str, Any]:
    """Gathers the comparisons of which no test was planned."""
    found = context.analysis.secondary
    if not found:
        return {}
    rows: dict[str, dict[str, Comparison]] = {}
    for each in found:
        label = context.in_regime(context.versus(each), each.regime)
        rows.setdefault(label, {})[each.outcome] = each
    notes = {
        label: list(dict.fromkeys(each.note for each in row.values() if each.note))
        for label, row in rows.items()
    }
    return {
        "outcomes": {each.outcome: OUTCOMES[each.outcome] for each in found},
        "rows": rows,
        "notes_of": notes,
        "notes": list(dict.fromkeys(note for own in notes.values() for note in own)),
    }
