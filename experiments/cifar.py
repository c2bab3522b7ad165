"""One command: trains the network with one regularizer, over one or more seeds.

python -m experiments.cifar --reg=water
"""

import sys

from experiments import terminal
from experiments.cli import (
    exit_codes,
    read_flags,
    run_command,
)
from experiments.runs import processes
from experiments.runs.configs import DESCRIPTION, Config
from experiments.runs.runner import run
from experiments.training import devices


@terminal.sheltered()
def main() -> None:
    """Runs the command line; bad input ends it with one line and exit code 2."""
    with processes.leave_the_others(), exit_codes(interrupted="no result was written."):
        config = read_flags(
            Config,
            prog="python -m experiments.cifar",
            description=DESCRIPTION,
            args=terminal.arguments(),
        )
        devices.keep_programs()
        if config.deterministic:
            devices.be_deterministic()
        if config.distributed:
            processes.join()
        devices.share_cores(config.seeds)
        devices.start_jax()
        try:
            run(config)
        except KeyboardInterrupt:
            if processes.is_first():
                raise
            sys.exit(130)


if __name__ == "__main__":
    run_command(main)
