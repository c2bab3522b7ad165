"""The figures in the documentation are those of the results beside it."""

import json
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parent.parent / "docs"
ARMS = ("none", "dropout", "gaussian", "water", "aphex")


def fidelity_row(arm: str) -> str:
    """The table row that follows from the runs: ours, then the peer's."""
    ours = json.loads((DOCS / f"fidelity/{arm}.json").read_text())["runs"]
    peer = [
        run
        for run in json.loads((DOCS / "fidelity/peer.json").read_text())
        if run["reg"] == arm
    ]
    losses = np.mean([run["train_loss"] for run in ours], axis=0)
    accuracies = [run["accuracy"] for run in ours]
    cells = [
        arm,
        f"{losses[0]:.3f}",
        " ".join(f"{run['losses'][0]:.3f}" for run in peer),
        f"{losses[-1]:.3f}",
        " ".join(f"{run['losses'][-1]:.3f}" for run in peer),
        f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}",
        " ".join(f"{run['accuracy']:.2f}" for run in peer),
    ]
    return "| " + " | ".join(cells) + " |"


@pytest.mark.parametrize("arm", ARMS)
def test_fidelity_table(arm):
    assert fidelity_row(arm) in (DOCS / "fidelity.md").read_text()


@pytest.mark.parametrize("arm", ARMS)
def test_fidelity_is_within_its_bounds(arm):
    ours = json.loads((DOCS / f"fidelity/{arm}.json").read_text())["runs"]
    peer = [
        run
        for run in json.loads((DOCS / "fidelity/peer.json").read_text())
        if run["reg"] == arm
    ]
    assert len(ours) >= 4 and len(peer) >= 2
    loss = np.mean([run["train_loss"][-1] for run in ours])
    accuracy = np.mean([run["accuracy"] for run in ours])
    assert abs(loss - np.mean([run["losses"][-1] for run in peer])) < 0.02
    assert abs(accuracy - np.mean([run["accuracy"] for run in peer])) < 1.5
