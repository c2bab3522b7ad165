"""What the sections of a page share: networks by arm, their names, and pictures."""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from experiments.analysis.comparisons import Analysis, Comparison
from experiments.analysis.names import name_arm
from experiments.pictures import curves, drawing, maps
from experiments.pictures.curves import Series
from experiments.reporting.formats import span
from experiments.studies.cells import choose_strengths
from experiments.studies.outcomes import OUTCOMES

# As many curves as there are colours, and the baseline's.
_MOST_TOGETHER = 1 + len(drawing.COLOURS)
# Of pictures of one arm each; where there would be more, not every strength has one.
_MOST_PANELS = 24


class Group(NamedTuple):
    """The networks of an arm at one strength in one regime.

    Attributes:
        regime: its name.
        arm: its name.
        strength: None if it is not chosen yet.
        label: tells it from the others of its regime.
        title: tells it from all others.
        records: of those that did not diverge.
        is_baseline: of the arm that most others are compared with.
    """

    regime: str
    arm: str
    strength: float | None
    label: str
    title: str
    records: list[Mapping[str, Any]]
    is_baseline: bool

    def with_a(self, key: str) -> list[Mapping[str, Any]]:
        """The records that have something."""
        return [r for r in self.records if r.get(key) is not None]

    def all_of(self, key: str) -> list[Any]:
        """That of each record that has it."""
        return [r[key] for r in self.with_a(key)]

    def series(self, values: Iterable[Any]) -> Series:
        """Makes curves of a row for each network."""
        return Series(self.label, np.array(list(values), float), self.is_baseline)


class Context:
    """What the sections of a page share.

    Attributes:
        analysis: of the study.
        study: its records.
        plan: what it compares.
        outcome: the primary one.
        outcomes: all that say something of their own, by name.
        baseline: the name of the arm that most others are compared with.
        several_regimes: whether names need the regime beside them.
        groups: its networks, in the order of the plan.
    """

    def __init__(self, analysis: Analysis, with_pictures: bool):
        self.analysis = analysis
        self.study = analysis.study
        self.plan = self.study.plan
        self.outcome = OUTCOMES[self.plan.outcome]
        self.outcomes = dict(OUTCOMES)
        if all(r.evaluate_every >= r.epochs for r in self.plan.regimes.values()):
            del self.outcomes["peak_accuracy"]  # which is then the final one
        counts = collections.Counter(baseline for _, baseline in self.plan.comparisons)
        self.baseline = counts.most_common(1)[0][0]
        self.several_regimes = len(self.plan.regimes) > 1
        self.groups = self._group()
        self._with_pictures = with_pictures
        self._num_pictures = 0

    def _group(self) -> list[Group]:
        records = collections.defaultdict[tuple, list[Mapping[str, Any]]](list)
        for record in self.study.records:
            if not record["diverged"]:
                key = (record["regime"], record["arm"], record["strength"])
                records[key].append(record)
        groups = []
        for row in self.analysis.rows:
            key = regime, arm, strength = row["regime"], row["arm"], row["strength"]
            label = name_arm(self.plan, arm, strength)
            title = self.in_regime(label, regime)
            is_baseline = arm == self.baseline
            groups.append(Group(*key, label, title, records[key], is_baseline))
        return groups

    # Words

    def in_regime(self, label: str, regime: str) -> str:
        """Adds the regime to a name, if there are several."""
        title = self.plan.regimes[regime].title
        return f"{label}, {title}" if self.several_regimes else label

    def heading(self, regime: str) -> str:
        """Begins the caption of a regime's figure, if there are several."""
        title = self.plan.regimes[regime].title
        return f"Regime {title}. " if self.several_regimes else ""

    def versus(self, each: Comparison) -> str:
        """Names the arms of a comparison."""
        arm = name_arm(self.plan, each.arm, each.strength)
        return f"{arm} − {name_arm(self.plan, each.baseline, each.baseline_strength)}"

    # Networks

    def by_regime(
        self, key: str, groups: Sequence[Group] | None = None
    ) -> Iterable[tuple[str, list[Group]]]:
        """Yields the groups of each regime that have something, if any have."""
        groups = self.groups if groups is None else groups
        for regime in self.plan.regimes:
            own = [g for g in groups if g.regime == regime and g.with_a(key)]
            if own:
                yield regime, own

    def panels(self, key: str) -> tuple[list[Group], str]:
        """Returns the groups to draw alone, and words on those that are left out."""
        groups = [group for group in self.groups if group.with_a(key)]
        if len(groups) <= _MOST_PANELS:
            return groups, ""
        chosen = choose_strengths(self.plan, self.study.tuning)

        def is_shown(group: Group) -> bool:
            strengths = sorted(self.plan.arms[group.arm].strengths)
            middle = strengths[(len(strengths) - 1) // 2]
            return (
                len(strengths) == 1 or group.arm in chosen or group.strength == middle
            )

        kept = [group for group in groups if is_shown(group)]
        words = " Of several strengths only a middle one is shown."
        return kept, words if len(kept) < len(groups) else ""

    def less_baseline(
        self, groups: Sequence[Group], values: Sequence[np.ndarray]
    ) -> tuple[list[tuple[Group, str, np.ndarray]], float]:
        """Returns named differences of groups from the baseline in their regime.

        Returns:
            The differences, and how far from 0 a scale of their colours has to go.
        """
        of_baseline = {
            group.regime: (group.label, value)
            for group, value in zip(groups, values, strict=True)
            if group.is_baseline
        }
        found = []
        for group, value in zip(groups, values, strict=True):
            if group.regime in of_baseline and not group.is_baseline:
                label, baseline = of_baseline[group.regime]
                label = self.in_regime(f"{group.label} − {label}", group.regime)
                found.append((group, label, value - baseline))
        return found, max([0.1, *(float(np.abs(each).max()) for *_, each in found)])

    # Pictures

    def draw(
        self, label: str, plot: Callable[..., Any], *args: Any, **kw: Any
    ) -> Markup:
        """Returns a picture as HTML, nothing where pictures cannot be drawn."""
        if not self._with_pictures:
            return Markup()
        self._num_pictures += 1
        return Markup(drawing.svg(f"f{self._num_pictures}", label, plot, *args, **kw))

    def sample(self, arm: str) -> str:
        """Returns the address of a picture of an arm's noise, "" if there is none."""
        rows = self.study.noise.get(arm, {}).get("sample")
        return maps.sample(rows) if rows and self._with_pictures else ""

    def draw_curves(
        self, title: str, regime: str, arms: list[Series], xlabel: str, ylabel: str
    ) -> dict[str, Any]:
        """Draws curves together, or each beside the baseline where they are many.

        Returns:
            What the macro `curves` says of them.
        """
        label = self.in_regime(f"{title} of each arm against {xlabel}", regime)
        first = [arm for arm in arms if arm.is_baseline][:1]
        pictures: Markup | list[Markup]
        if len(arms) <= _MOST_TOGETHER:
            pictures = self.draw(label, curves.curves, arms, xlabel, ylabel)
        else:
            values = np.concatenate([arm.values.ravel() for arm in arms])
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            margin = 0.04 * (high - low) or 1.0
            pictures = [
                self.draw(
                    f"{label}: {arm.label}",
                    curves.curves,
                    [*first, arm],
                    xlabel,
                    ylabel,
                    (low - margin, high + margin),
                    small=True,
                )
                for arm in arms
                if not arm.is_baseline
            ]
        return {
            "pictures": pictures,
            "heading": self.heading(regime),
            "title": title,
            "xlabel": xlabel,
            "n": span(len(arm.values) for arm in arms),
            "dashed": first[0].label if first else "",
        }
