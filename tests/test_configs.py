"""Flags, their defaults, and one clear line for each that cannot be run."""

import gc
import math
import runpy
import signal
import sys
import time
from pathlib import Path

import pytest

from experiments import cifar, cli, study
from experiments.benchmarks.ensembles import EnsembleConfig
from experiments.cli import Interrupted, UsageError, exit_codes, read_flags, run_command
from experiments.report import ReportConfig
from experiments.runs.configs import Config, check
from experiments.study import StudyConfig
from experiments.training.regularizers import REGULARIZERS
from tests.programs import python


@pytest.mark.parametrize("name", REGULARIZERS)
def test_strength_is_the_flag_or_the_recipes_default(name):
    recipe = REGULARIZERS[name]
    assert Config(reg=name).strength == recipe.default
    assert Config(reg=name).recipe is recipe
    if recipe.strength is not None:
        given = Config(reg=name, **{recipe.strength: 0.25})
        assert given.strength == 0.25
        check(given)
        # 0 is a strength as well, not a missing one.
        assert Config(reg=name, **{recipe.strength: 0.0}).strength == 0


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"intensity": 0.0, "weight_decay": 0.0, "learning_rate": 0.0},
        {"reg": "dropout", "rate": 0.0},
        {"reg": "dropout", "rate": 0.999},
        {"seed": 2**32 - 4, "seeds": 4},
        {"resume": True, "out": Path("runs/one")},
    ],
    ids=str,
)
def test_what_can_be_run_passes(good):
    check(Config(**good))


BAD = [
    # flags, the flag and value that the message names, and a part of the remedy
    ({"reg": "watr"}, "--reg=watr", ", ".join(REGULARIZERS)),
    ({"reg": "watr"}, "--reg=watr", "did you mean water?"),
    ({"dataset": "cifar100"}, "--dataset=cifar100", "did you mean cifar10?"),
    ({"model": "resnet"}, "--model=resnet", "did you mean resnet20?"),
    ({"dtype": "float16"}, "--dtype=float16", "float32, bfloat16"),
    ({"seeds": 0}, "--seeds=0", "1 or more"),
    ({"seeds_at_once": 0}, "--seeds-at-once=0", "1 or more"),
    ({"epochs": -1}, "--epochs=-1", "1 or more"),
    ({"steps_per_epoch": 0}, "--steps-per-epoch=0", "1 or more"),
    ({"batch_size": -64}, "--batch-size=-64", "1 or more"),
    ({"seed": 2**32}, "--seed=4294967296", "from 0 to 4294967295"),
    ({"seed": 2**32 - 1, "seeds": 2}, "--seed=4294967295", "--seeds=2"),
    ({"reg": "gaussian", "intensity": -1e-9}, "--intensity=-1e-09", "0 or more"),
    ({"intensity": math.inf}, "--intensity=inf", "finite"),
    # More than bfloat16 holds.
    ({"intensity": 3.4e38}, "--intensity=3.4e+38", "up to 3.38e+38"),
    ({"learning_rate": 1e39}, "--learning-rate=1e+39", "up to 3.38e+38"),
    ({"learning_rate": math.nan}, "--learning-rate=nan", "finite"),
    ({"weight_decay": -0.1}, "--weight-decay=-0.1", "0 or more"),
    ({"reg": "dropout", "rate": 0.999999999}, "--rate=0.999999999", "below 1"),
    # Flags that the regularizer would ignore.
    ({"reg": "water", "rate": 0.2}, "--rate=0.2", "--reg=dropout or spatial_dropout"),
    ({"reg": "none", "intensity": 0.1}, "--intensity=0.1", "water or plane or aphex"),
    ({"reg": "water", "audio": "song.mp3"}, "--audio=song.mp3", "--reg=aphex"),
    ({"resume": True}, "--resume", "--out=DIR"),
    ({"resume": True, "out": Path("a"), "distributed": True}, "--resume", "anew"),
]


@pytest.mark.parametrize(
    ("flags", "named", "remedy"), BAD, ids=[str(flags) for flags, _, _ in BAD]
)
def test_what_cannot_be_run_gets_one_line_with_flag_value_and_remedy(
    flags, named, remedy
):
    with pytest.raises(UsageError) as error:
        check(Config(**flags))
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{named}: ")
    assert remedy in message and message.endswith(".")


FAULTS = [
    # arguments of a command, the one at fault, and a part of the remedy
    (Config, "--intensity=abc", "--intensity=abc", "give a number"),
    (Config, "--seed=3 --seeds=2.5", "--seeds=2.5", "give a whole number"),
    (Config, "--steps_per_epoch=x", "--steps-per-epoch=x", "give a whole number"),
    (Config, "--seeds-at-once=x", "--seeds-at-once=x", "auto or a whole number"),
    (Config, "--epochs", "--epochs", "--epochs=VALUE"),
    (Config, "--out --resume", "--out", "--out=VALUE"),
    (Config, "--resume=3", "--resume=3", "give --resume."),
    (Config, "--seed5=3", "--seed5=3", "did you mean --seed?"),
    (Config, "--xyz", "--xyz", "no such flag; --help"),
    (Config, "--seeds 3 4", "4", "--help"),
    (StudyConfig, "--plna=x", "--plna=x", "did you mean --plan?"),
    (ReportConfig, "a --ot=b", "--ot=b", "did you mean --out?"),
    (ReportConfig, "--folders=a", "--folders=a", "--help"),
    (EnsembleConfig, "--max-seed=3", "--max-seed=3", "did you mean --max-seeds?"),
]


@pytest.mark.parametrize(("kind", "args", "named", "remedy"), FAULTS)
def test_what_is_no_flag_or_no_value_gets_one_line(kind, args, named, remedy, capsys):
    with pytest.raises(UsageError) as error:
        read_flags(kind, prog="command", args=args.split())
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{named}: ")
    assert remedy in message and message.endswith(".")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("--a: no."), 2, "error: --a: no."),
        (KeyboardInterrupt(), 130, "interrupted: nothing is left."),
        (Interrupted(15), 143, "interrupted: nothing is left."),
        (Interrupted(2, "much is left."), 130, "interrupted: much is left."),
    ],
    ids=repr,
)
def test_a_command_ends_with_one_line_and_a_code(error, code, line, capsys):
    with pytest.raises(SystemExit) as exit, exit_codes(interrupted="nothing is left."):
        raise error
    assert exit.value.code == code
    assert capsys.readouterr().err.splitlines() == [line]


def test_ctrl_c_is_not_lost_in_a_callback_of_the_garbage_collector(capsys):
    # Python only prints what is raised there, and JAX has such a callback, too.
    def interrupt(phase, info):
        if phase == "start":
            gc.callbacks.remove(interrupt)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit) as exit, exit_codes(interrupted="nothing is left."):
        gc.callbacks.append(interrupt)
        gc.collect()
        time.sleep(60)
    assert exit.value.code == 130
    assert capsys.readouterr().err == "interrupted: nothing is left.\n"


NEVER_EXITS = """
import atexit, threading
from experiments.cli import Interrupted, exit_codes, run_command

def main():
    # As JAX does there, where a program of it never ends.
    atexit.register(threading.Event().wait)
    with exit_codes(interrupted="nothing is left."):
        raise Interrupted(15)

run_command(main)
"""


def test_a_command_that_a_signal_ended_does_not_wait_for_an_exit():
    done = python("-c", NEVER_EXITS)
    assert done.returncode == 143
    assert done.stderr == "interrupted: nothing is left.\n"


def test_other_ends_of_a_command_are_pythons_own():
    run_command(lambda: None)
    with pytest.raises(SystemExit) as exit:
        run_command(lambda: sys.exit(2))
    assert exit.value.code == 2


@pytest.mark.parametrize("command", [cifar, study], ids=lambda module: module.__name__)
def test_what_trains_is_run_so(command, monkeypatch):
    run = []
    monkeypatch.setattr(cli, "run_command", run.append)
    names = runpy.run_path(command.__file__, run_name="__main__")
    assert run == [names["main"]]
