"""What sentences and pictures call arms, seeds and datasets."""

from experiments.studies.store import Study


def name_arm(study: Study, name: str, strength: float | None) -> str:
    """Names an arm, with its strength if it has several."""
    if len(study.plan.arms[name].strengths) == 1 or strength is None:
        return name
    return f"{name} at {strength:g}"


def name_dataset(study: Study) -> str:
    """Writes "CIFAR-10, a copy" as "CIFAR-10 (a copy)", to stand in a sentence."""
    title, _, what = study.dataset["title"].partition(", ")
    return f"{title} ({what})" if what else title
