"""One command: what the layers cost, and how fast many networks train.

python -m experiments.benchmark layer --out=layer.json
python -m experiments.benchmark ensemble --out=ensemble.json
"""

import tyro

from experiments import terminal
from experiments.benchmark_ensembles import EnsembleConfig, run_ensemble
from experiments.benchmark_layers import LayerConfig, run_layer
from experiments.configs import exit_codes


@terminal.sheltered()
def main() -> None:
    """Runs the command line; bad input ends it with one line and exit code 2."""
    with exit_codes(interrupted="nothing was written."):
        config: LayerConfig | EnsembleConfig = tyro.extras.subcommand_cli_from_dict(
            {"layer": LayerConfig, "ensemble": EnsembleConfig},
            prog="python -m experiments.benchmark",
            args=terminal.arguments(),
        )
        if isinstance(config, LayerConfig):
            run_layer(config)
        else:
            run_ensemble(config)


if __name__ == "__main__":
    main()
