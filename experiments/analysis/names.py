"""What sentences and pictures call arms, seeds and datasets."""

from typing import Any

from experiments.studies.plans import Arm, Plan
from experiments.studies.store import Study
from experiments.training.regularizers import BUILT_IN

_NOISES = {
    "none": "no regularizer",
    "dropout": "dropout of features",
    "spatial_dropout": "dropout of whole channels",
    "gaussian": "white Gaussian noise",
    "water": "pink noise along rows, windows of a bank",
    "plane": "noise in the plane",
}
_SPECTRA = {
    0: "the same power at all frequencies (white)",
    1: "power 1/f (pink)",
    2: "power 1/f² (brown)",
    -1: "power that grows as f (blue)",
}
_PLACES = {
    "inputs": ["at the inputs"],
    "early": ["in the first third of its places"],
    "late": ["in the last third of its places"],
}


def name_arm(plan: Plan, arm: str, strength: float | None) -> str:
    """Names an arm, with its strength if it has several: "water at 0.05"."""
    title = plan.arms[arm].title
    if len(plan.arms[arm].strengths) == 1:
        return title
    return f"{title} at {'?' if strength is None else f'{strength:g}'}"


def describe_arm(arm: Arm) -> str:
    """Describes what an arm does: "white Gaussian noise, the same in all channels"."""
    settings = dict(arm.settings)
    is_ours = arm.reg in BUILT_IN
    words = _describe_settings(arm.reg, settings) if is_ours else [arm.reg]
    words += _PLACES.get(arm.where, [])
    words += [f"{name} = {value}" for name, value in settings.items()]
    return ", ".join(words)


def _describe_settings(reg: str, settings: dict[str, Any]) -> list[str]:
    """Takes from the settings of our own what it has words for."""
    words = [_NOISES.get(reg, reg)]
    if "exponent" in settings:
        exponent = settings.pop("exponent")
        words.append(_SPECTRA.get(exponent, f"power 1/f^{exponent:g}"))
    if reg == "aphex":
        audio, surrogate = settings.pop("audio", None), settings.pop("surrogate", "")
        words = [f"windows of {audio or 'a built-in glitch track'}"]
        if surrogate == "phases":
            words.append("its spectrum with random phases")
        elif surrogate == "shuffled":
            words.append("its samples in random order")
    if settings.pop("shared", False):
        words.append("the same in all channels")
    if correlation := settings.pop("channel_correlation", 0):
        words.append(f"channels correlated by {correlation:g}")
    if settings.get("mode") == "multiplicative":
        words.append("multiplied")
        del settings["mode"]
    return words


def name_dataset(study: Study) -> str:
    """Writes "CIFAR-10, a copy" as "CIFAR-10 (a copy)", to stand in a sentence."""
    title, _, what = study.dataset["title"].partition(", ")
    return f"{title} ({what})" if what else title


def name_corruption(corruption: str) -> str:
    """Writes "gaussian_noise" as people do: "Gaussian noise"."""
    words = corruption.replace("_", " ")
    return words.replace("gaussian", "Gaussian").replace("jpeg", "JPEG")
