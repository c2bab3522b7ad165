"""What sentences and pictures call arms, seeds and datasets."""

from experiments.studies.plans import Plan
from experiments.studies.store import Study


def name_arm(plan: Plan, arm: str, strength: float | None) -> str:
    """Names an arm, with its strength if it has several: "water at 0.05"."""
    if len(plan.arms[arm].strengths) == 1:
        return arm
    return f"{arm} at {'?' if strength is None else f'{strength:g}'}"


def name_dataset(study: Study) -> str:
    """Writes "CIFAR-10, a copy" as "CIFAR-10 (a copy)", to stand in a sentence."""
    title, _, what = study.dataset["title"].partition(", ")
    return f"{title} ({what})" if what else title
