"""The verdict says of planted differences what is true, and of missing data nothing."""

import dataclasses

import numpy as np
import pytest

from experiments.analysis import comparisons, verdict
from experiments.analysis import departures as departing
from experiments.studies import plans, store
from experiments.studies.cells import TUNING, Cell
from sounddrop_jax import statistics
from tests.stores import DATASET, DOCUMENT, ENVIRONMENT, make_store

BASE = np.array([70.0, 71.0, 69.5, 70.5, 72.0, 68.5, 71.5, 70.0])
UP = np.array([2.0, 1.5, 2.5, 1.0, 3.0, 2.0, 1.5, 2.5])
MIXED = np.array([1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 1.5, -1.5])
# Of 256 choices of signs, + and - throughout.
LEAST = 2 / 256

GAUSSIAN = {"reg": "gaussian", "intensity": 0.1}
PLANTED = {
    **DOCUMENT,
    "comparisons": [["water", "dropout"], ["none", "dropout"], ["gaussian", "dropout"]],
    "arms": {**DOCUMENT["arms"], "gaussian": GAUSSIAN},
}
SCORES = {"dropout": BASE, "water": BASE + UP, "none": BASE - UP}
SCORES["gaussian"] = BASE + MIXED
SWEEP = {
    **DOCUMENT,
    "arms": {
        **DOCUMENT["arms"],
        "water": {"reg": "water", "intensity": [0.02, 0.05, 0.1]},
    },
}
OFFICIAL = {**DATASET, "title": "CIFAR-10"}
TUNED = {**SWEEP, "tuning": {"images": 5000, "first_seed": 100, "seeds": 2}}
TWO_REGIMES = {
    "short": {"epochs": 1, "augment": False},
    "long": {"epochs": 3, "train_images": 5000},
}


def sentence(study: store.Study) -> str:
    return verdict.sentence(comparisons.Analysis(study))


def departures(study: store.Study, registered: plans.Plan | None) -> list[str]:
    return departing.departures(comparisons.Analysis(study), registered)


def make_study(folder, document=PLANTED, *, scores=None, **settings) -> store.Study:
    """Makes a study whose arms have these scores of the primary outcome, by seed."""
    outcome = document.get("outcome", "accuracy")
    settings.setdefault("with_robustness", outcome == "corruption_error")

    def edit(record):
        if scores is not None:
            record[outcome] = float(scores[record["arm"]][record["seed"]])

    settings.setdefault("edit", edit)
    return store.read([make_store(folder, plan_document=document, **settings)])


def cells(arm, seeds, strength=0.05, regime="short") -> list[Cell]:
    return [Cell(regime, arm, strength, seed) for seed in seeds]


# Decisions


def test_what_was_planted_is_decided(tmp_path):
    study = make_study(tmp_path, scores=SCORES)
    family = comparisons.compare(study)
    assert [(c.arm, c.baseline, c.decision) for c in family] == [
        ("water", "dropout", "wins"),
        ("none", "dropout", "loses"),
        ("gaussian", "dropout", "undecided"),
    ]
    np.testing.assert_allclose(
        [c.p_adjusted for c in family], [3 * LEAST, 3 * LEAST, 1]
    )
    for comparison, planted in zip(family, (UP, -UP, MIXED), strict=True):
        assert (comparison.regime, comparison.outcome) == ("short", "accuracy")
        assert (comparison.strength, comparison.baseline_strength) == (
            study.plan.arms[comparison.arm].strengths[0],
            0.2,
        )
        assert comparison.seeds == study.plan.seeds and comparison.note == ""
        assert comparison.result == statistics.compare_pairs(BASE + planted, BASE)
        assert comparison.detectable == statistics.smallest_detectable_effect(
            8, comparison.result.std_difference, num_comparisons=3
        )


@pytest.mark.parametrize("outcome", ["nll", "corruption_error"])
def test_lower_is_better_where_it_is(tmp_path, outcome):
    scores = {name: score / 100 for name, score in SCORES.items()}
    document = {**PLANTED, "outcome": outcome}
    study = make_study(tmp_path, document, scores=scores)
    water, none, gaussian = comparisons.compare(study)
    assert (water.decision, none.decision) == ("loses", "wins")
    assert gaussian.decision == "undecided"
    assert water.result.mean_difference == pytest.approx(0.02)


def test_missing_arms_stay_in_the_family(tmp_path):
    # One sign of eight is another, that of the least: p = 4/256, below 0.05 by itself
    # and with two more, not with three.
    names = ["gaussian0", "gaussian1", "gaussian2"]
    document = {
        **PLANTED,
        "arms": {**DOCUMENT["arms"], **dict.fromkeys(names, GAUSSIAN)},
        "comparisons": [["water", "dropout"], *([name, "dropout"] for name in names)],
    }
    difference = [-0.5, 1.5, 2.5, 1.0, 3.0, 2.0, 1.5, 2.5]
    scores = SCORES | dict.fromkeys(names, BASE) | {"water": BASE + difference}
    absent = [cell for name in names for cell in cells(name, range(8), 0.1)]
    study = make_study(tmp_path, document, scores=scores, missing=absent)
    water, *others = comparisons.compare(study)
    assert water.result.p_value == 4 / 256
    assert (water.p_adjusted, water.decision) == (4 * 4 / 256, "undecided")
    for other in others:
        assert other.note == f"seeds 0 to 7 of {other.arm} missing"
        assert other.decision == "untested" and other.p_adjusted is None
        assert other.result is None and other.seeds == ()


def test_a_missing_or_diverged_seed_is_named_and_the_rest_shown(tmp_path):
    study = make_study(
        tmp_path,
        scores=SCORES,
        missing=cells("water", [2, 5]),
        diverged=[*cells("water", [7]), *cells("none", [1], 0.0)],
    )
    water, none, gaussian = comparisons.compare(study)
    for comparison, planted, kept, note in (
        (water, UP, [0, 1, 3, 4, 6], "seeds 2, 5 of water missing; seed 7 of water"),
        (none, -UP, [0, 2, 3, 4, 5, 6, 7], "seed 1 of none"),
    ):
        assert comparison.note == f"{note} diverged"
        assert comparison.seeds == tuple(kept)
        assert comparison.decision == "untested"
        assert comparison.p_adjusted is comparison.detectable is None
        assert comparison.result == statistics.compare_pairs(
            (BASE + planted)[kept], BASE[kept]
        )
    assert gaussian.decision == "undecided"


def test_a_seed_without_the_score_is_named(tmp_path):
    scores = {name: score / 100 for name, score in SCORES.items()}
    scores["water"] = [*scores["water"][:-1], np.nan]
    study = make_study(tmp_path, {**PLANTED, "outcome": "nll"}, scores=scores)
    water, none, _ = comparisons.compare(study)
    assert (water.decision, water.note) == ("untested", "seed 7 of water without nll")
    assert none.decision == "wins"
    row = next(row for row in comparisons.summarize(study) if row["arm"] == "water")
    assert row["n"] == 8 and row["nll_mean"] is None and row["brier_mean"] > 0


def test_a_store_without_records_is_all_untested(tmp_path):
    study = dataclasses.replace(make_study(tmp_path), records=[])
    for comparison in comparisons.compare(study):
        assert comparison.decision == "untested" and comparison.result is None
    assert comparisons.secondary(study) == []
    for row in comparisons.summarize(study):
        assert row["n"] == 0 and row["missing"] == list(range(8))
        assert row["accuracy_mean"] is None
    assert "no comparison could be tested" in sentence(study)


def test_equal_differences_have_an_interval_without_width(tmp_path):
    scores = SCORES | {"water": BASE, "none": BASE - 1}
    study = make_study(tmp_path, scores=scores)
    water, none, _ = comparisons.compare(study)
    note = "all differences are equal, so the interval has no width"
    for comparison, difference in ((water, 0), (none, -1)):
        assert comparison.note == note and comparison.detectable is None
        assert comparison.result.low == comparison.result.high == difference
    assert water.decision == "undecided" and water.p_adjusted == 1
    # The test that was planned, of signs, needs no spread.
    assert none.decision == "loses" and none.p_adjusted == 3 * LEAST


@pytest.mark.parametrize(
    ("num_seeds", "alpha", "decision"),
    [(2, 0.05, "untested"), (5, 0.05, "untested"), (6, 0.05, "wins")]
    # What would have to be below alpha, and is alpha.
    + [(8, LEAST, "untested")],
)
def test_too_few_seeds_decide_nothing(tmp_path, num_seeds, alpha, decision):
    document = {
        **PLANTED,
        "seeds": num_seeds,
        "alpha": alpha,
        "comparisons": [["water", "dropout"]],
    }
    study = make_study(tmp_path, document, scores=SCORES)
    (water,) = comparisons.compare(study)
    assert water.decision == decision
    assert water.result.mean_difference == pytest.approx(UP[:num_seeds].mean())
    said = sentence(study)
    assert ("water beats dropout" in said) == (decision == "wins")
    if decision == "untested":
        assert f"the p-value of {num_seeds} pairs is never below" in water.note
        assert "nothing can be decided" in said and water.note in said


def test_the_seeds_of_every_plan_suffice_for_its_family():
    for path in plans.FOLDER.glob("*.toml"):
        plan = plans.load(path.stem)
        size = len(plan.regimes) * sum(
            1 if plan.tuning else len(plan.arms[arm].strengths)
            for arm, _ in plan.comparisons
        )
        smallest = statistics.smallest_p_value(len(plan.seeds))
        assert (smallest * size < plan.alpha) == (plan.name != "smoke"), plan.name


def test_the_family_is_of_all_regimes_and_strengths_with_their_own_scores(tmp_path):
    # Points by strength, and in the long regime ten more of them.
    def edit(record):
        gain = 10 * (record["regime"] == "long") + 100 * record["strength"]
        gain *= record["arm"] == "water"
        gain += 4 * (-1) ** record["seed"] * (record["arm"] == "water")
        record["accuracy"] = 50 + record["seed"] + gain

    document = {**SWEEP, "regimes": TWO_REGIMES, "seeds": 10}
    study = make_study(tmp_path, document, edit=edit)
    family = comparisons.compare(study)
    pairs = [
        *(("water", strength, "dropout") for strength in (0.02, 0.05, 0.1)),
        *(("water", strength, "none") for strength in (0.02, 0.05, 0.1)),
        ("none", 0.0, "dropout"),
    ]
    assert [(c.regime, c.arm, c.strength, c.baseline) for c in family] == [
        (regime, *pair) for regime in ("short", "long") for pair in pairs
    ]
    adjusted = statistics.holm([comparison.result.p_value for comparison in family])
    np.testing.assert_allclose([each.p_adjusted for each in family], adjusted)
    differences = [each.result.mean_difference for each in family]
    short, long = [2, 5, 10, 2, 5, 10, 0], [12, 15, 20, 12, 15, 20, 0]
    np.testing.assert_allclose(differences, short + long, atol=1e-9)
    means = np.array([row["accuracy_mean"] for row in comparisons.summarize(study)])
    expected = [0, 0, 2, 5, 10, 0, 0, 12, 15, 20]
    np.testing.assert_allclose(means - means[0], expected, atol=1e-9)


def test_regions_say_where_along_its_strengths_an_arm_wins_and_loses(tmp_path):
    # Points by regime and strength; where none is given, as much up as down.
    planted = {("short", 0.02): 3.0, ("short", 0.05): 4.0, ("short", 0.1): -5.0}
    planted["long", 0.1] = -1.0

    def edit(record):
        size = 1 if record["seed"] % 2 else -1
        gain = planted.get((record["regime"], record["strength"]), size)
        gain *= record["arm"] == "water"
        record["nll"] = 50 + record["seed"] - gain

    document = {**SWEEP, "outcome": "nll", "regimes": TWO_REGIMES, "seeds": 10}
    document["comparisons"] = [["water", "none"], ["dropout", "none"]]
    strengths = [0.1, 0.02, 0.05]
    water = {"reg": "water", "intensity": strengths}
    document["arms"] = {**document["arms"], "water": water}
    study = make_study(tmp_path, document, edit=edit)
    # There is none of dropout, which has one strength.
    short, long = comparisons.regions(comparisons.compare(study))
    assert short[:5] == ("short", "water", "none", (0.02, 0.05), (0.1,))
    assert long[:5] == ("long", "water", "none", (), (0.1,))
    assert (short.best.strength, long.best.strength) == (0.05, 0.02)
    assert short.best in comparisons.compare(study)
    assert str(short) == "wins at 0.02, 0.05; loses at 0.1"
    assert str(long) == "loses at 0.1"
    assert str(long._replace(loses=())) == "undecided"


# Tuned arms


def test_tuned_arms_appear_at_the_strengths_that_were_chosen(tmp_path):
    document = {
        **TUNED,
        "arms": {
            **SWEEP["arms"],
            "dropout": {"reg": "dropout", "rate": [0.1, 0.2, 0.3]},
        },
    }
    effects = {("water", 0.02): 20, ("dropout", 0.3): 10}
    study = make_study(tmp_path, document, effects=effects)
    pairs = [
        ("water", 0.02, "dropout", 0.3),
        ("water", 0.02, "none", 0.0),
        ("none", 0.0, "dropout", 0.3),
    ]
    for family in (comparisons.compare(study), comparisons.secondary(study)[:3]):
        assert [c[1:5] for c in family] == pairs
    assert [(row["arm"], row["strength"]) for row in comparisons.summarize(study)] == [
        ("none", 0.0),
        ("dropout", 0.3),
        ("water", 0.02),
    ]
    assert all(row["n"] == 8 for row in comparisons.summarize(study))
    assert "water at 0.02 beats dropout at 0.3 by" in sentence(study)
    assert not any("missing" in said for said in departures(study, study.plan))


def test_an_arm_whose_strength_is_not_chosen_is_untested(tmp_path):
    absent = [Cell(TUNING, "water", 0.05, 101)]
    study = make_study(tmp_path, TUNED, missing=absent)
    water, _, none = comparisons.compare(study)
    assert (water.strength, water.decision) == (None, "untested")
    assert water.note == "the strength of water is not chosen yet"
    assert none.decision == "undecided"
    row = comparisons.summarize(study)[-1]
    assert (row["arm"], row["strength"], row["n"]) == ("water", None, 0)
    found = departures(study, study.plan)
    assert "The tuning lacks 1 of its 6 networks." in found
    assert "water at ? in regime short: seeds 0 to 7 missing." in found


# Other outcomes


def test_other_outcomes_get_intervals_and_no_tests(tmp_path):
    study = make_study(tmp_path, with_robustness=True)
    others = comparisons.secondary(study)
    outcomes = ["nll", "brier", "ece", "corruption_error", "peak_accuracy", "gap"]
    assert [c.outcome for c in others] == [o for o in outcomes for _ in range(3)]
    for comparison in others:
        assert comparison.decision == "secondary"
        assert comparison.p_adjusted is comparison.detectable is None
        ours, theirs = (
            [
                record[comparison.outcome]
                for record in study.records
                if record["arm"] == arm
            ]
            for arm in (comparison.arm, comparison.baseline)
        )
        assert comparison.result == statistics.compare_pairs(ours, theirs)


# Summary


def test_means_are_of_the_networks_that_count(tmp_path):
    study = make_study(
        tmp_path,
        scores=SCORES,
        with_robustness=True,
        missing=cells("water", [2]),
        diverged=cells("water", [0, 7]),
    )
    rows = {row["arm"]: row for row in comparisons.summarize(study)}
    assert list(rows) == list(study.plan.arms)
    water = rows["water"]
    assert (water["n"], water["diverged"], water["missing"]) == (5, [0, 7], [2])
    counted = [r for r in study.records if r["arm"] == "water" and not r["diverged"]]
    outcomes = ("accuracy", "peak_accuracy", "gap", "nll", "brier", "ece", "ece_mass")
    for outcome in (*outcomes, "corruption_error", "train_loss"):
        scores = [record[outcome] for record in counted]
        if outcome == "train_loss":
            scores = [losses[-1] for losses in scores]
        assert water[f"{outcome}_mean"] == pytest.approx(np.mean(scores))
        assert water[f"{outcome}_std"] == pytest.approx(np.std(scores, ddof=1))
    kept = [1, 3, 4, 5, 6]
    assert water["accuracy_mean"] == pytest.approx((BASE + UP)[kept].mean())


# Departures


def has_environment(**values):
    """Edits the record of one seed."""

    def edit(record):
        if record["seed"] == 5:
            record["environment"] = ENVIRONMENT | values

    return edit


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"dataset": DATASET}, ["The images are CIFAR-10 (JPEG-75 copy)"]),
        (
            {"missing": cells("water", [0, 4]), "diverged": cells("none", [2], 0.0)},
            [
                "none in regime short: seed 2 diverged",
                "water in regime short: seeds 0, 4 missing",
            ],
        ),
        (
            {"document": TUNED, "diverged": [Cell(TUNING, "water", 0.05, 101)]},
            ["water at 0.05 in the tuning: seed 101 diverged"],
        ),
        ({"edit": has_environment(commit=None)}, ["commits: 0123456789ab, unknown"]),
        ({"edit": has_environment(jax="0.11.0")}, ["of JAX: 0.10.0, 0.11.0"]),
        (
            {"edit": has_environment(commit="0123456789ab-dirty")},
            [
                "commits: 0123456789ab, 0123456789ab-dirty",
                "code that was not committed",
            ],
        ),
    ],
)
def test_what_was_not_as_planned_is_a_departure(tmp_path, settings, expected):
    study = make_study(tmp_path, **{"dataset": OFFICIAL} | settings)
    found = departures(study, study.plan)
    for part, said in zip(expected, found, strict=True):
        assert part in said


@pytest.mark.parametrize(
    ("change", "departure"),
    [
        (None, "no plan file of the name fake"),
        ({"seeds": 16}, "has seeds 0 to 7 (8); its plan file has seeds 0 to 15 (16)"),
        (
            {"comparisons": [*PLANTED["comparisons"], ["water", "none"]]},
            "1 comparison is not in the study: water with none",
        ),
        (
            {"comparisons": PLANTED["comparisons"][:1]},
            "2 comparisons are not in the plan file: none with dropout, gaussian with",
        ),
        (
            {"arms": DOCUMENT["arms"], "comparisons": DOCUMENT["comparisons"]},
            "1 arm is not in the plan file: gaussian",
        ),
        (
            {"arms": {**PLANTED["arms"], "gaussian": GAUSSIAN | {"shared": True}}},
            "Other than in the plan file: arm gaussian",
        ),
        ({"alpha": 0.01, "rule": "By eye."}, "than in the plan file: rule, alpha"),
    ],
    ids=str,
)
def test_a_study_departs_from_its_plan_file(tmp_path, change, departure):
    study = make_study(tmp_path, dataset=OFFICIAL)
    registered = None
    if change is not None:
        registered = plans.parse({**PLANTED, "robustness": {}, **change}, "fake")
    else:  # nor does its store say what there was
        study = dataclasses.replace(study, begun=None)
    found = departures(study, registered)
    assert any(departure in said for said in found)
    assert all("plan file" in said or "in the study" in said for said in found)


def test_what_a_study_has_grown_by_is_a_departure(tmp_path):
    document = {**PLANTED, "robustness": {}}
    settings = {"dataset": OFFICIAL, "with_robustness": False}
    folder = make_store(tmp_path, plan_document=document, **settings)
    assert departures(store.read([folder]), None) == []
    arms = {**PLANTED["arms"], "weak": GAUSSIAN | {"title": "weak noise"}}
    grown = document | {
        "seeds": 16,
        "arms": arms,
        "comparisons": [*PLANTED["comparisons"], ["weak", "none"]],
        "hypotheses": {"weak": {"text": "?", "comparisons": [["weak", "none"]]}},
    }
    plan = plans.parse(store.read([folder]).plan.document | grown, "fake")
    for _ in range(2):  # the second time it has nothing new
        store.open_store(folder, plan, OFFICIAL, {})
    found = departures(store.read([folder]), plan)
    assert "When the study began, its plan had 8 seeds; the study has 16." in found
    added = [said for said in found if said.startswith("Added since the study began")]
    assert [said.partition(", ")[2] for said in added] == [
        "arm: weak.",
        "comparison: weak with none.",
        "hypothesis: weak.",
    ]


def test_other_seeds_than_those_of_the_file_are_a_departure(tmp_path):
    plan = plans.parse(PLANTED, "fake")
    written = {**plan.document, "seeds": 6}
    store.open_store(tmp_path, plan, OFFICIAL, {}, written=written)
    (said, *_) = departures(store.read([tmp_path]), None)
    assert said == "When the study began, its plan had 6 seeds; the study has 8."


@pytest.mark.parametrize(
    ("published", "departure"),
    [
        (0, "All corruptions were generated here"),
        (15, "gaussian_blur, saturate were generated here"),
        (17, None),
    ],
)
def test_corruptions_are_always_a_departure(tmp_path, published, departure):
    def edit(record):
        sources = record["corruption_source"]
        sources.update(dict.fromkeys(list(sources)[:published], "published"))

    study = make_study(tmp_path, dataset=OFFICIAL, with_robustness=True, edit=edit)
    benchmark, *generated = departures(study, study.plan)
    assert "15 corruptions of the benchmark 14 are used: frost" in benchmark
    assert len(generated) == (departure is not None)
    assert all(said.startswith(departure) for said in generated)


# In words


def test_the_sentence_says_what_was_decided(tmp_path):
    pairs = [["water", "none"], *PLANTED["comparisons"]]
    study = make_study(tmp_path, {**PLANTED, "comparisons": pairs}, scores=SCORES)
    said = sentence(study)
    result = statistics.compare_pairs(SCORES["water"], SCORES["none"])
    interval = f"{result.low:.1f} to {result.high:.1f}"
    assert "after 3 epochs and over 8 paired seeds, water beats" in said
    assert f"none by 4.0 points of accuracy (95 % interval {interval})" in said
    assert "and dropout by 2.0 (" in said and "none loses to dropout by 2.0 (" in said
    assert "gaussian cannot be told from dropout (difference 0.0, −" in said


def test_an_interval_without_0_where_nothing_is_decided_is_explained(tmp_path):
    # p = 4/256, and the second of three.
    difference = [-0.5, 1.5, 2.5, 1.0, 3.0, 2.0, 1.5, 2.5]
    scores = SCORES | {"none": BASE + MIXED, "gaussian": BASE + difference}
    study = make_study(tmp_path, {**PLANTED, "alpha": 0.03}, scores=scores)
    gaussian = comparisons.compare(study)[2]
    assert gaussian.decision == "undecided" and gaussian.result.low > 0
    assert "may exclude 0 where nothing is decided" in sentence(study)


def test_regimes_are_told_apart(tmp_path):
    document = {**PLANTED, "regimes": TWO_REGIMES}
    document["comparisons"] = [["water", "dropout"], ["none", "dropout"]]

    def edit(record):
        sign = 1 if record["regime"] == "short" else -1
        scores = {"water": BASE + sign * UP, "none": BASE - sign * UP}
        record["accuracy"] = scores.get(record["arm"], BASE)[record["seed"]]

    said = sentence(make_study(tmp_path, document, edit=edit))
    short, long = said.partition("in regime long (after 3 epochs of 5,000 images)")[::2]
    assert "in regime short (after 1 epoch without augmentation) water beats" in short
    assert "none loses to" in short and "water loses" in long and "none beats" in long


def test_many_comparisons_are_counted_and_the_largest_named(tmp_path):
    strengths = [0.01 * step for step in range(1, 11)]
    document = {
        **DOCUMENT,
        "seeds": 12,
        "arms": {**DOCUMENT["arms"], "water": {"reg": "water", "intensity": strengths}},
        "comparisons": [["water", "dropout"]],
    }
    noise = np.tile(MIXED, 2)[:12]
    gains = {0.01: 5, 0.02: 8, 0.03: 6, 0.04: -7, 0.05: -9}

    def edit(record):
        seed, is_water = record["seed"], record["arm"] == "water"
        gain = gains.get(round(record["strength"], 2), 0)
        record["accuracy"] = 60 + is_water * (gain + noise[seed])

    absent = [Cell("short", "water", strengths[-1], 4)]
    said = sentence(make_study(tmp_path, document, edit=edit, missing=absent))
    shift = noise.mean()
    for part in (
        "in 3 of 9 comparisons, loses in 2, and 4 are undecided",
        f"win is that of water at 0.02 over dropout, by {8 + shift:.1f} points",
        f"of water at 0.05 to dropout, by {9 - shift:.1f} points",
        "water at 0.1 against dropout (seed 4 of water missing)",
    ):
        assert part in said


def test_many_that_are_untested_are_counted(tmp_path):
    document = {**SWEEP, "regimes": TWO_REGIMES, "seeds": 10}
    diverged = cells("dropout", [0], 0.2, "long")
    said = sentence(make_study(tmp_path, document, diverged=diverged))
    assert "Of 14 comparisons 4 are untested" in said
