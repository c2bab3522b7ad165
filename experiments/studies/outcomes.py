"""The scores by which arms are compared: one table of what each is called and means."""

from typing import Literal, NamedTuple


class Outcome(NamedTuple):
    """What a score is.

    Attributes:
        title: its name, in tables and pictures.
        unit: of the score, after a number.
        points: what its differences are counted in; "" for no unit.
        phrase: the same within a sentence, after a number.
        digits: behind the point.
        better: "higher" or "lower"; "" if it is neither good nor bad by itself.
        role: "primary" if a plan may decide by it; "secondary" if arms are compared by
            it and nothing is decided; "shown" if it stands in the table of arms alone.
    """

    title: str
    unit: str
    points: str
    phrase: str
    digits: int
    better: Literal["higher", "lower", ""]
    role: Literal["primary", "secondary", "shown"]

    @property
    def differences(self) -> str:
        """Names its differences: "final accuracy, percentage points"."""
        return f"{self.title}, {self.points}" if self.points else self.title


OUTCOMES = {
    "accuracy": Outcome(
        "final accuracy",
        " %",
        "percentage points",
        "points of accuracy",
        2,
        "higher",
        "primary",
    ),
    "peak_accuracy": Outcome(
        "peak accuracy",
        " %",
        "percentage points",
        "points of peak accuracy",
        2,
        "higher",
        "secondary",
    ),
    "train_loss": Outcome("train loss", "", "", "of train loss", 3, "lower", "shown"),
    "gap": Outcome("gap", " nats", "nats", "nats of the gap", 3, "", "secondary"),
    "nll": Outcome(
        "NLL", " nats", "nats", "nats of negative log-likelihood", 3, "lower", "primary"
    ),
    "brier": Outcome("Brier score", "", "", "of Brier score", 4, "lower", "primary"),
    "ece": Outcome("ECE", "", "", "of calibration error", 4, "lower", "primary"),
    "ece_mass": Outcome(
        "ECE, equal mass", "", "", "of calibration error", 4, "lower", "shown"
    ),
    "corruption_error": Outcome(
        "corruption error",
        " %",
        "percentage points",
        "points of error on corrupted images",
        2,
        "lower",
        "primary",
    ),
}

PRIMARY, SECONDARY = (
    tuple(name for name, outcome in OUTCOMES.items() if outcome.role == role)
    for role in ("primary", "secondary")
)
