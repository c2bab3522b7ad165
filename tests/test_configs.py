"""Flags: what can be run passes, and what cannot is named with its remedy."""

import dataclasses

import pytest

from experiments.configs import Config, UsageError, check
from experiments.regularizers import REGULARIZERS

FLAGS = [
    *("reg", "seeds", "seed", "epochs", "steps_per_epoch", "batch_size"),
    *("learning_rate", "weight_decay", "intensity", "rate", "audio", "dataset"),
    *("data_dir", "out", "dtype"),
]


def test_flags_are_the_documented_ones():
    assert [field.name for field in dataclasses.fields(Config)] == FLAGS


@pytest.mark.parametrize("reg", REGULARIZERS)
def test_every_arm_passes_with_its_defaults(reg):
    config = Config(reg=reg)
    check(config)
    assert config.strength == REGULARIZERS[reg].default


@pytest.mark.parametrize(
    ("settings", "strength"),
    [
        ({"reg": "water", "intensity": 0.0}, 0.0),
        ({"reg": "gaussian", "intensity": 2.5}, 2.5),
        ({"reg": "dropout", "rate": 0.0}, 0.0),
        ({"reg": "dropout", "rate": 0.999}, 0.999),
    ],
)
def test_strength_is_what_the_flag_says(settings, strength):
    config = Config(**settings)
    check(config)
    assert config.strength == strength


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("settings", "flag", "remedy"),
    [
        ({"reg": "waterr"}, "--reg=waterr", "water"),
        ({"dataset": "imagenet"}, "--dataset=imagenet", "digits"),
        ({"dtype": "float8"}, "--dtype=float8", "bfloat16"),
        ({"seeds": 0}, "--seeds=0", "1 or more"),
        ({"epochs": 0}, "--epochs=0", "1 or more"),
        ({"steps_per_epoch": 0}, "--steps-per-epoch=0", "1 or more"),
        ({"batch_size": -5}, "--batch-size=-5", "1 or more"),
        ({"seed": -1}, "--seed=-1", "from 0"),
        ({"seed": 2**32}, f"--seed={2**32}", "from 0"),
        ({"seed": 2**32 - 1, "seeds": 2}, f"--seed={2**32 - 1}", "from 0"),
        ({"intensity": -1.0}, "--intensity=-1.0", "0 or more"),
        ({"intensity": NAN}, "--intensity=nan", "0 or more"),
        ({"intensity": INF}, "--intensity=inf", "finite"),
        ({"learning_rate": NAN}, "--learning-rate=nan", "0 or more"),
        ({"weight_decay": -0.1}, "--weight-decay=-0.1", "0 or more"),
        ({"reg": "dropout", "rate": 1.0}, "--rate=1.0", "not 1"),
        ({"reg": "dropout", "rate": -0.1}, "--rate=-0.1", "from 0"),
        ({"reg": "dropout", "rate": NAN}, "--rate=nan", "from 0"),
        ({"reg": "water", "rate": 0.1}, "--rate=0.1", "--reg=dropout"),
        ({"reg": "none", "intensity": 0.1}, "--intensity=0.1", "--reg=gaussian"),
        ({"reg": "water", "audio": "a.wav"}, "--audio=a.wav", "--reg=aphex"),
    ],
)
def test_bad_input_is_named_with_its_remedy(settings, flag, remedy):
    with pytest.raises(UsageError) as error:
        check(Config(**settings))
    message = str(error.value)
    assert message.startswith(f"{flag}:")
    assert remedy in message
    assert "\n" not in message
