"""How a study departs from its plan, and from the benchmarks it is named by."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from experiments.analysis.comparisons import Analysis
from experiments.analysis.names import name_arm, name_dataset
from experiments.robustness.corruptions import BENCHMARK
from experiments.studies.cells import tuning_cells
from experiments.studies.plans import Plan
from experiments.words import name_seeds


def departures(analysis: Analysis, registered: Plan | None) -> list[str]:
    """Lists how a study departs from its plan, and from the benchmarks it is named by.

    Args:
        analysis: of the study.
        registered: the plan as its file says it, from `plans.load`; None if there is no
            such file.

    Returns:
        Sentences.
    """
    study = analysis.study
    plan = study.plan
    found = []
    if registered is not None:
        found += _changes(plan, registered)
    elif study.begun is None:
        found.append(
            f"There is no plan file of the name {plan.name}, so nothing shows what was "
            "decided before the networks were trained."
        )
    if study.begun is not None:
        found += _growth(plan, study.begun)
    for row in analysis.rows:
        arm = name_arm(study.plan, row["arm"], row["strength"])
        name = f"{arm} in regime {study.plan.regimes[row['regime']].title}"
        if row["missing"]:
            found.append(f"{name}: {name_seeds(row['missing'])} missing.")
        if row["diverged"]:
            found.append(f"{name}: {name_seeds(row['diverged'])} diverged.")
    planned = tuning_cells(plan)
    if len(study.tuning) < len(planned):
        lacking = len(planned) - len(study.tuning)
        found.append(f"The tuning lacks {lacking} of its {len(planned)} networks.")
    for record in study.tuning:
        if record["diverged"]:
            name = name_arm(study.plan, record["arm"], record["strength"])
            found.append(f"{name} in the tuning: seed {record['seed']} diverged.")

    environments = [r["environment"] for r in (*study.records, *study.tuning)]
    for key, things in (
        ("commit", "commits"),
        ("jax", "versions of JAX"),
        ("device", "devices"),
    ):
        values = sorted({str(each.get(key) or "unknown") for each in environments})
        if len(values) > 1:
            found.append(f"The records are of several {things}: {', '.join(values)}.")
    if any(str(each.get("commit")).endswith("-dirty") for each in environments):
        found.append("Some networks were trained with code that was not committed.")

    if plan.corruption_images:
        found.append(
            f"Of the 15 corruptions of the benchmark {len(BENCHMARK)} are used: frost, "
            "which pastes photographs, is left out."
        )
    sources = [record.get("corruption_source", {}) for record in study.records]
    names = dict.fromkeys(name for source in sources for name in source)
    generated = [
        name for name in names if any(s.get(name) == "generated" for s in sources)
    ]
    if generated:
        which = ", ".join(generated)
        if len(generated) == len(names):
            which = "All corruptions"
        found.append(
            f"{which} {'was' if which in names else 'were'} generated here, after the "
            "published definitions, instead of read from CIFAR-10-C."
        )
    if plan.dataset in ("auto", "cifar10") and study.dataset["title"] != "CIFAR-10":
        found.append(
            f"The images are {name_dataset(study)}, not CIFAR-10 with its official "
            "pixels."
        )
    return found


def _growth(plan: Plan, begun: Mapping[str, Any]) -> list[str]:
    """Lists what a plan has that it had not when its study began."""
    found = []
    if len(plan.seeds) != begun["seeds"]:
        found.append(
            f"When the study began, its plan had {begun['seeds']} seeds; the study has "
            f"{len(plan.seeds)}."
        )
    pairs = [list(pair) for pair in plan.comparisons]
    for kind, names in (
        ("arm", [name for name in plan.arms if name not in begun["arms"]]),
        (
            "comparison",
            [" with ".join(p) for p in pairs if p not in begun["comparisons"]],
        ),
        (
            "hypothesis",
            [
                name
                for name in plan.document.get("hypotheses", {})
                if name not in begun.get("hypotheses", [])
            ],
        ),
    ):
        if names:
            found.append(f"Added since the study began, {kind}: {', '.join(names)}.")
    return found


def _changes(plan: Plan, registered: Plan) -> list[str]:
    """Lists where a plan differs from the one of its file."""
    found = []
    if plan.seeds != registered.seeds:
        found.append(
            f"The study has {name_seeds(plan.seeds)} ({len(plan.seeds)}); its plan "
            f"file has {name_seeds(registered.seeds)} ({len(registered.seeds)})."
        )
    pairs = [
        ("arm", list(plan.arms), list(registered.arms)),
        (
            "comparison",
            [" with ".join(pair) for pair in plan.comparisons],
            [" with ".join(pair) for pair in registered.comparisons],
        ),
    ]
    for kind, ours, theirs in pairs:
        for which, names in (
            ("not in the plan file", [name for name in ours if name not in theirs]),
            ("not in the study", [name for name in theirs if name not in ours]),
        ):
            if names:
                found.append(f"{_number(names, kind)} {which}: {', '.join(names)}.")
    compared = {"name", "document", "seeds", "arms", "comparisons"}
    changed = [
        field.name.replace("_", " ")
        for field in dataclasses.fields(Plan)
        if field.name not in compared
        and getattr(plan, field.name) != getattr(registered, field.name)
    ]
    changed += [
        f"arm {name}"
        for name in plan.arms
        if plan.arms[name] != registered.arms.get(name, plan.arms[name])
    ]
    if changed:
        found.append(f"Other than in the plan file: {', '.join(changed)}.")
    return found


def _number(names: Collection[str], kind: str) -> str:
    return f"{len(names)} {kind}{'s are' if len(names) > 1 else ' is'}"
