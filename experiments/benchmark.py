"""One command: what the layers cost, how fast many networks train, and compilers.

python -m experiments.benchmark layer --out=layer.json
python -m experiments.benchmark ensemble --out=ensemble.json
python -m experiments.benchmark compile --target=h100 --out=compile.json
"""

from typing import Any

import tyro

from experiments import terminal
from experiments.benchmarks.compiling import CompileConfig, run_compile
from experiments.benchmarks.ensembles import EnsembleConfig, run_ensemble
from experiments.benchmarks.layers import LayerConfig, run_layer
from experiments.cli import (
    Signals,
    check_choice,
    exit_codes,
    read_flags,
    run_command,
)

PROG = "python -m experiments.benchmark"
COMMANDS: dict[str, Any] = {
    "layer": LayerConfig,
    "ensemble": EnsembleConfig,
    "compile": CompileConfig,
}


@terminal.sheltered()
def main() -> None:
    """Runs the command line; bad input ends it with one line and exit code 2."""
    left = "what was done is printed above; --out has the cases that were done."
    with exit_codes(interrupted=left), Signals(left):
        match terminal.arguments():
            case ["layer", *args]:
                run_layer(read_flags(LayerConfig, prog=f"{PROG} layer", args=args))
            case ["ensemble", *args]:
                run_ensemble(
                    read_flags(EnsembleConfig, prog=f"{PROG} ensemble", args=args)
                )
            case ["compile", *args]:
                run_compile(
                    read_flags(CompileConfig, prog=f"{PROG} compile", args=args)
                )
            case ["-h" | "--help", *_]:
                tyro.extras.subcommand_cli_from_dict(COMMANDS, prog=PROG)
            case args:
                check_choice("benchmark", "".join(args[:1]), list(COMMANDS))


if __name__ == "__main__":
    run_command(main)
