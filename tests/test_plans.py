"""Plans: the project's own, and one clear line for each that cannot be run."""

import copy
import dataclasses
import math
import tomllib
from typing import Any

import pytest

from experiments.analysis.names import describe_arm
from experiments.cli import UsageError
from experiments.studies import plans
from experiments.studies.plans import Arm, Regime, Tuning
from experiments.training.regularizers import REGULARIZERS, Recipe

OWN = sorted(path.stem for path in plans.FOLDER.glob("*.toml"))
DOCUMENT: dict[str, Any] = {
    "question": "Is water better than dropout?",
    "rule": "It is if p < 0.05.",
    "seeds": 3,
    "comparisons": [["water", "dropout"], ["none", "dropout"]],
    "regimes": {"short": {"epochs": 2}},
    "arms": {
        "none": {"reg": "none"},
        "dropout": {"reg": "dropout"},
        "water": {"reg": "water", "intensity": 0.5},
    },
}
TUNING: dict[str, Any] = {
    "tuning": {"images": 100, "first_seed": 50, "seeds": 2},
    "arms.dropout.rate": [0.1, 0.2],
    "arms.water.intensity": [0.5, 0.25],
}


def make(changes: dict[str, Any]) -> dict[str, Any]:
    """Makes a document with other entries: keys are dotted, None leaves one out."""
    document = copy.deepcopy(DOCUMENT)
    for key, value in changes.items():
        *tables, entry = key.split(".")
        table = document
        for name in tables:
            table = table.setdefault(name, {})
        table[entry] = copy.copy(value)
        if value is None:
            del table[entry]
    return document


# What can be run


@pytest.mark.parametrize("name", OWN)
def test_the_projects_own_plans_can_be_run_by_name_and_by_path(name):
    plan = plans.load(name)
    path = plans.FOLDER / f"{name}.toml"
    assert plan == plans.load(str(path))
    assert plan.name == name
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    assert plan.document | {"arms": 0} == document | {"arms": 0}
    assert plans.parse(plan.document, name) == plan
    assert "?" in plan.question and plan.rule.endswith(".")


def test_a_plan_says_little_and_gets_the_rest_by_default():
    plan = plans.parse(DOCUMENT, "p")
    assert (plan.name, plan.question) == ("p", "Is water better than dropout?")
    assert (plan.dataset, plan.outcome, plan.alpha) == ("auto", "accuracy", 0.05)
    assert plan.seeds == (0, 1, 2) and plan.tuning is None
    assert plan.regimes == {"short": Regime("short", 2, None, True, 1, "cnn")}
    assert plan.arms == {
        "none": Arm("none", "none", (0.0,), {}, "all", "none"),
        "dropout": Arm("dropout", "dropout", (0.2,), {}, "all", "dropout"),
        "water": Arm("water", "water", (0.5,), {}, "all", "water"),
    }
    assert plan.comparisons == (("water", "dropout"), ("none", "dropout"))
    assert (plan.batch_size, plan.learning_rate, plan.weight_decay) == (64, 1e-3, 0.01)
    assert plan.dtype == "float32"
    assert (plan.corruption_images, plan.fourier_images) == (0, 0)


def test_whatever_a_plan_says_is_in_it():
    changes = {
        **{"dataset": "digits", "first_seed": 7, "outcome": "nll", "alpha": 0.01},
        "regimes.short.train_images": 0,  # all
        "regimes.few": {"epochs": 9, "train_images": 500, "augment": False},
        "regimes.few.evaluate_every": 3,
        "training": {"batch_size": 8, "learning_rate": 1, "weight_decay": 0},
        "training.dtype": "bfloat16",
        "robustness": {"corruption_images": 20, "fourier_images": 10},
        "arms.plane": {"reg": "plane", "exponent": 2, "intensity": [1, 0.5]},
        "arms.plane.where": "inputs",
    }
    plan = plans.parse(make(changes), "p")
    assert (plan.dataset, plan.outcome, plan.alpha) == ("digits", "nll", 0.01)
    assert plan.seeds == (7, 8, 9)
    assert plan.regimes["short"].train_images is None
    assert plan.regimes["few"] == Regime("few", 9, 500, False, 3, "cnn")
    assert (plan.batch_size, plan.learning_rate, plan.weight_decay) == (8, 1, 0)
    assert plan.dtype == "bfloat16"
    assert (plan.corruption_images, plan.fourier_images) == (20, 10)
    assert plan.arms["plane"] == Arm(
        "plane", "plane", (1.0, 0.5), {"exponent": 2}, "inputs", "plane"
    )
    assert plans.parse(make(TUNING), "p").tuning == Tuning(100, (50, 51))


def test_strengths_left_to_defaults_are_written_out_as_defaults_may_change(monkeypatch):
    document = copy.deepcopy(DOCUMENT)
    plan = plans.parse(document, "p")
    assert document == DOCUMENT
    arms = DOCUMENT["arms"] | {"dropout": {"reg": "dropout", "rate": 0.2}}
    assert plan.document == DOCUMENT | {"arms": arms}
    monkeypatch.setitem(
        REGULARIZERS, "dropout", dataclasses.replace(REGULARIZERS["dropout"], default=0)
    )
    assert plans.parse(plan.document, "p") == plan


def test_arms_that_a_page_could_not_tell_apart_are_refused_but_read():
    document = make({"arms.none.title": "water"})
    with pytest.raises(UsageError, match="arms.water.title='water': arms.none has it"):
        plans.parse(document, "p")
    assert len(plans.parse(document, "p", is_done=True).arms) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"arms.water.intensity": 0},
        {"arms.none": {"reg": "dropout", "rate": [0, 0.999]}},
        {"seeds": 2, "first_seed": 2**31 - 1},
        {"outcome": "corruption_error", "robustness.corruption_images": 1},
        {"dataset": "my/pets.npz"},
        {"arms." + 62 * "a" + "_-": {"reg": "none"}},
        # A baseline may have several strengths if one of them is chosen.
        TUNING | {"tuning.first_seed": 3},
    ],
    ids=str,
)
def test_what_can_be_run_passes(changes):
    plans.parse(make(changes), "p")


def test_minus_zero_is_zero_which_names_the_same_folder():
    plan = plans.parse(make({"arms.water.intensity": -0.0}), "p")
    assert math.copysign(1, plan.arms["water"].strengths[0]) == 1


def test_a_regularizer_that_was_registered_can_be_an_arm(monkeypatch):
    prepare = REGULARIZERS["gaussian"].prepare
    monkeypatch.setitem(REGULARIZERS, "mine", Recipe("intensity", 0.3, prepare))
    tables = {
        "arms.mine": {"reg": "mine", "mode": "relative", "where": "late"},
        "arms.weak": {"reg": "mine", "intensity": [0, 0.1], "where": "inputs"},
    }
    plan = plans.parse(make(tables), "p")
    assert plan.arms["mine"].strengths == (0.3,)
    assert describe_arm(plan.arms["mine"]) == (
        "mine, in the last third of its places, mode = relative"
    )
    # What was done with it can be read without it.
    monkeypatch.delitem(REGULARIZERS, "mine")
    assert plans.parse(plan.document, "p", is_done=True) == plan
    with pytest.raises(UsageError, match="reg='mine': unknown; .*--module"):
        plans.parse(plan.document, "p")


# What cannot

DEEP: list = []
for _ in range(10_000):
    DEEP = [DEEP]
VALUES: list[tuple[str, Any, str]] = [
    # an entry, its value, which the message names, and a part of the remedy
    ("seeds", 1, "from 2 to 10000 (no spread can be told from one"),
    ("seeds", True, "give a whole number"),
    ("first_seed", -1, "from 0 to 2147483647"),
    ("question", 3, "give a string"),
    ("dataset", "../pets", "auto, cifar10, digits, NAME or"),
    ("dataset", "a\nb", "auto, cifar10, digits"),
    ("alpha", 0, "from above 0 to below 1"),
    ("alpha", 1, "from above 0 to below 1"),
    ("training", 3, "give a table [training]"),
    ("training.batch_size", 0, "from 1 to"),
    ("training.weight_decay", math.inf, "from 0 to 3.38e+38"),
    ("training.dtype", "float16", "float32, bfloat16"),
    ("robustness.corruption_images", -1, "from 0 to"),
    ("regimes", {}, "of one or more"),
    ("regimes.short", 3, "[regimes.short]"),
    ("regimes.short.epochs", 0, "from 1 to"),
    ("regimes.short.augment", 1, "true or false"),
    ("arms.none.reg", "watr", "(did you mean water?), or register it (--module)"),
    ("arms.none.rate", 0.1, "no such setting"),
    ("arms.water.mode", "aditive", "did you mean additive?"),
    ("arms.water.where", "here", "all, early, late, inputs"),
    ("regimes.short.model", "resnet", "resnet20?"),
    ("regimes.short.model", "mine", "--module"),
    ("arms.water.intensity", -1, "from 0 to 3.38e+38 that float32"),
    ("arms.water.intensity", [], "one number or more"),
    ("arms.water.intensity", [0.0, 1, -0.0], "once"),
    ("arms.dropout.rate", 0.999999999, "below 1 in float32"),
    ("comparisons", [], "one pair or more"),
    ("tuning", [], "a table [tuning]"),
]
TUNINGS: list[tuple[str, Any, str]] = [
    ("tuning.images", 0, "from 1 to"),
    ("tuning.seeds", 0, "from 1 to 10000"),
    ("tuning.first_seed", 2, "seed 2 is one of the study's"),
]
# What else a document may hold, how its message starts, and a part of the remedy.
BAD: list[tuple[dict[str, Any], str, str]] = [
    *(({key: value}, f"{key}={value!r}: ", part) for key, value, part in VALUES),
    *((TUNING | {k: value}, f"{k}={value!r}: ", part) for k, value, part in TUNINGS),
    ({"seeds": None}, "seeds is missing", "add it"),
    ({"alhpa": 1}, "alhpa: unknown", "did you mean alpha?"),
    ({"regimes.short.lr": 1}, "regimes.short.lr: unknown", "augment, epochs"),
    ({"\ud800": 1}, r"'\ud800': unknown", "leave it out"),
    ({"arms.water.a\nb": 1}, r"arms.water.'a\nb': unknown", "leave it out"),
    ({"alpha": 2**20_000}, "alpha=(int too large to show)", "give"),
    ({"arms.water.mode": DEEP}, "arms.water.mode=(list too large to show)", ""),
    ({"arms.water.intensity": [1, "a"]}, "arms.water.intensity='a'", "give a number"),
    ({"outcome": "corruption_error"}, "outcome=corrup", "robustness.corruption_images"),
    ({"arms.None": {"reg": "none"}}, "arms.None: the same folder as none", "another"),
    # Comparisons
    ({"comparisons": [["none", 1]]}, "comparisons=['none', 1]", '["arm", "baseline"]'),
    (
        {"comparisons": [["none", "water"], ["watr", "none"]]},
        "comparisons: there is no arm 'watr'",
        "none, dropout, water (did you mean water?)",
    ),
    ({"comparisons": [["none", "none"]]}, "comparisons: ['none', 'none']", "leave it"),
    ({"comparisons": 2 * [["none", "water"]]}, "comparisons: ['none', 'water']", ""),
    ({"arms.dropout.rate": [0.1, 0.2]}, "comparisons: 'dropout' is", "a [tuning]"),
    (
        {"hypotheses.h": {"text": "?", "comparisons": [["water", "none"]]}},
        "hypotheses: ['water', 'none'] is not among the comparisons",
        "add it",
    ),
    # Tuning
    (TUNING | {"first_seed": 51}, "tuning.first_seed=50: seed 51", "give others"),
    (TUNING | {"arms.water.intensity": [1, 2, 3]}, "arm water has 3", "the same"),
    ({"tuning": TUNING["tuning"]}, "tuning needs arms", "there are 0 such arms"),
    (TUNING | {"regimes.long": {"epochs": 3}}, "tuning needs", "2 such arms and 2"),
    # Names of folders
    *(
        ({"arms": {name: {"reg": "none"}}}, f"arms.{name!r}: ", "letters, digits")
        for name in ("", "..", "a/b", "a\\b", "a\nb", "²", "tuning", 65 * "a")
    ),
    ({"regimes": {"a.b": {"epochs": 2}}}, "regimes.'a.b': ", "letters, digits"),
]


@pytest.mark.parametrize(
    ("changes", "named", "remedy"), BAD, ids=[row[1][:60] for row in BAD]
)
def test_what_cannot_be_run_gets_one_line_with_entry_value_and_remedy(
    changes, named, remedy
):
    with pytest.raises(UsageError) as error:
        plans.parse(make(changes), "p")
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"plan p: {named}")
    assert remedy in message and message.endswith(".")


@pytest.mark.parametrize(
    ("content", "named", "remedy"),
    [
        (b"seeds = = 3", "not TOML (", "line 1"),
        (b"x = " + 9999 * b"[", "not TOML (", "correct it"),
        ("x = 1".encode("utf-16"), "cannot be read (not UTF-8 text)", "as UTF-8"),
        (None, "cannot be read (No such file", f"{', '.join(OWN)} (did you mean claim"),
    ],
    ids=["not TOML", "deep", "UTF-16", "missing"],
)
def test_a_file_that_holds_no_plan_gets_one_line(
    tmp_path, monkeypatch, content, named, remedy
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "clam").write_bytes(content)
    with pytest.raises(UsageError) as error:
        plans.load("clam")
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"--plan=clam: {named}")
    assert remedy in message and message.endswith(".")


def test_other_editors_files_are_read(tmp_path):
    text = (plans.FOLDER / "smoke.toml").read_bytes()
    file = tmp_path / "smoke.toml"
    file.write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert plans.load(str(file)) == plans.load("smoke")
