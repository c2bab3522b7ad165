"""Who takes part in the benchmark of ensembles, and how each is started."""

import importlib.metadata
import importlib.util
from typing import NamedTuple

import numpy as np

from experiments.benchmarks import workers
from experiments.training.regularizers import REGULARIZERS

REGS = ("none", "dropout", "gaussian", "water")  # which PyTorch has as well
TORCH_MODELS = ("cnn", "resnet20")  # of `torch_networks`
BATCH_SIZE = 64
MAX_SEEDS = {"cpu": 16, "gpu": 256}
# On a CPU one step of more networks under plain vmap takes longer than a turn.
MAX_PLAIN_VMAP_ON_CPU = 4
OURS = "ours"
JAX = "experiments.benchmarks.jax_contestants"
TORCH = "experiments.benchmarks.torch_peer"


class Contestant(NamedTuple):
    """Who takes part, and how its workers are started, see `workers.start_team`."""

    name: str
    prepare: str
    settings: dict
    cores: tuple[tuple[int, ...] | None, ...] = (None,)


# Who takes part


def plan(
    reg: str, model: str, max_seeds: int | None, platform: str, folder: str
) -> list[tuple[int, list[Contestant]]]:
    """Lists the numbers of seeds, and for each the contestants, ours first.

    PyTorch trains one network in a process. So it takes part with one network, on all
    cores, and with one on each core, side by side; on a GPU with one, beside our one
    and beside our most. Networks that it does not have it leaves to us.
    """
    on_cpu = platform == "cpu"
    most = max_seeds or MAX_SEEDS["cpu" if on_cpu else "gpu"]
    cores = workers.available_cores()
    counts = {2**power for power in range(most.bit_length())}
    side_by_side = min(len(cores), most) if on_cpu else 1
    counts.add(side_by_side)
    with_torch = {1, side_by_side if on_cpu else max(counts)}
    has_torch = model in TORCH_MODELS and importlib.util.find_spec("torch") is not None
    cases = []
    for num_seeds in sorted(counts):
        settings = {"folder": folder, "reg": reg, "model": model}
        contestants = [
            Contestant(
                OURS, f"{JAX}:prepare_ours", settings | {"num_seeds": num_seeds}
            ),
            Contestant("JAX, one after another", f"{JAX}:prepare_plain", settings),
        ]
        if not on_cpu or num_seeds <= MAX_PLAIN_VMAP_ON_CPU:
            contestants.append(
                Contestant(
                    "JAX, vmap",
                    f"{JAX}:prepare_plain",
                    settings | {"num_seeds": num_seeds},
                )
            )
        if num_seeds in with_torch and has_torch:
            num_workers = num_seeds if on_cpu else 1
            shares = np.array_split(np.array(cores), num_workers)
            contestants += torch_contestants(
                reg, model, folder, [share.tolist() for share in shares], on_cpu
            )
        cases.append((num_seeds, contestants))
    return cases


def torch_contestants(
    reg: str, model: str, folder: str, shares: list[list[int]], on_cpu: bool
) -> list[Contestant]:
    """Lists the PyTorch contestants, each with a worker for each share of cores."""
    variants: dict[str, tuple[str, dict]] = {
        "PyTorch": (reg, {}),
        "PyTorch, compiled": (reg, {"compiled": True}),
    }
    if reg == "water":
        variants["PyTorch, our bank"] = reg, {"noise": "bank"}
    if reg != "none":
        variants["PyTorch, none"] = "none", {}
    # As the original has it.
    host = {"pipeline": "loader", "noise": "host"}
    variants["PyTorch, DataLoader"] = reg, host
    return [
        Contestant(
            name,
            f"{TORCH}:prepare",
            {
                "folder": folder,
                "reg": arm,
                "model": model,
                "strength": REGULARIZERS[arm].default,
                "num_threads": len(shares[0]),
                **settings,
            },
            tuple(tuple(share) for share in shares) if on_cpu else (None,),
        )
        for name, (arm, settings) in variants.items()
    ]
