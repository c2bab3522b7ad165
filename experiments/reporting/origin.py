"""The sections of where a study comes from: its plan, noise, tuning and records."""

import collections
import json
from typing import Any

import numpy as np

from experiments.analysis.departures import departures as find_departures
from experiments.pictures import curves
from experiments.pictures.drawing import number
from experiments.reporting import formats
from experiments.reporting.context import Context
from experiments.studies import plans
from experiments.studies.cells import choose_strengths, tuning_cells


def departures(context: Context) -> dict[str, Any]:
    """Gathers how the study departs from its plan."""
    own = {path.stem for path in plans.FOLDER.glob("*.toml")}
    name = context.plan.name
    registered = plans.load(name) if name in own else None
    return {"found": find_departures(context.analysis, registered)}


def noise(context: Context) -> dict[str, Any]:
    """Gathers the spectra of what each arm adds."""
    known = context.study.noise
    found = {arm: known[arm] for arm in context.plan.arms if arm in known}
    measured = {arm: each for arm, each in found.items() if each and each["layers"]}
    if not measured:
        return {}
    arms: dict[str, list[tuple[str, np.ndarray, np.ndarray, int, bool]]] = {}
    for arm, each in measured.items():
        arms[arm] = []
        for index, layer in enumerate(each["layers"]):
            for key in ("rows", "columns"):
                pairs = np.array(layer["power"][key], float).reshape(-1, 2)
                pairs = pairs[(pairs > 0).all(axis=1)]  # logarithms have no zero
                exponent = layer["exponents"][key]
                label = f"{index + 1} {key}"
                label += "" if exponent is None else f": {number(exponent, 2)}"
                arms[arm].append((label, *pairs.T, index, key == "columns"))
    powers = np.concatenate([line[2] for lines in arms.values() for line in lines])
    limits = (powers.min() / 1.5, powers.max() * 1.5) if powers.size else (0.1, 1)
    pictures = [
        context.draw(
            f"Spectra of the noise of {context.plan.arms[arm].title}",
            curves.spectra,
            lines,
            f"{context.plan.arms[arm].title} at {measured[arm]['strength']:g}",
            limits,
        )
        for arm, lines in arms.items()
    ]
    silent = [context.plan.arms[a].title for a in found if a not in measured]
    return {"pictures": pictures, "silent": silent}


def tuning(context: Context) -> dict[str, Any]:
    """Gathers the trials of each strength, and which was chosen."""
    plan = context.plan
    if plan.tuning is None:
        return {}
    scores = collections.defaultdict[tuple[str, float], list[float]](list)
    for record in context.study.tuning:
        if not record["diverged"]:
            scores[record["arm"], record["strength"]].append(record["accuracy"])
    everything = [score for each in scores.values() for score in each]
    limits = None
    if everything:
        margin = 0.05 * (max(everything) - min(everything)) or 1.0
        limits = (min(everything) - margin, max(everything) + margin)
    pictures, rows, at_ends = [], [], []
    for arm, best in choose_strengths(plan, context.study.tuning).items():
        strengths = sorted(plan.arms[arm].strengths)
        found = [scores[arm, strength] for strength in strengths]
        title = plan.arms[arm].title
        if any(found):
            label = f"Accuracy on held-out images of {title} against its strength"
            drawn = (strengths, found, best, title, limits)
            pictures.append(context.draw(label, curves.trials, *drawn))
        if len(strengths) > 1 and best in (strengths[0], strengths[-1]):
            at_ends.append(f"{title} at {best:g}")
        rows += [
            {
                "arm": title,
                "strength": strength,
                "n": len(trials),
                "mean": float(np.mean(trials)) if trials else None,
                "std": float(np.std(trials, ddof=1)) if trials[1:] else None,
                "is_chosen": strength == best,
            }
            for strength, trials in zip(strengths, found, strict=True)
        ]
    return {"pictures": pictures, "rows": rows, "at_ends": at_ends}


def plan(context: Context) -> dict[str, Any]:
    """Gathers the plan as it was written."""
    return {"document": formats.toml(context.plan.document)}


def records(context: Context) -> dict[str, Any]:
    """Gathers what the networks were trained on, where and how long."""
    study = context.study
    trained = [*study.records, *study.tuning]
    counts = collections.Counter(
        json.dumps(record["environment"], sort_keys=True) for record in trained
    )
    environments = [(n, json.loads(text)) for text, n in sorted(counts.items())]
    return {
        "study": study,
        "used": list(
            dict.fromkeys(
                f"{regime.train_images:,}"
                for regime in context.plan.regimes.values()
                if regime.train_images is not None
            )
        ),
        "num_planned": len(context.analysis.rows) * len(context.plan.seeds),
        "num_tuning": len(tuning_cells(context.plan)),
        "seconds": sum(record["seconds"] for record in trained),
        "corruption_sources": sorted(
            {
                source
                for record in study.records
                for source in (record.get("corruption_source") or {}).values()
            }
        ),
        "environments": environments,
        "keys": list(dict.fromkeys(key for _, each in environments for key in each)),
    }
