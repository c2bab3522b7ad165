"""Who takes part in the benchmark of ensembles, and how each is started."""

import importlib.util
from typing import NamedTuple

import numpy as np

from experiments import cores
from experiments.training.regularizers import REGULARIZERS

REGS = ("none", "dropout", "gaussian", "water")  # which PyTorch has as well
TORCH_MODELS = ("cnn", "resnet20")  # of `torch_networks`
BATCH_SIZE = 64
MAX_SEEDS = {"cpu": 16, "gpu": 256}
# From one number of seeds to the next; programs of a GPU take longer to compile.
FACTOR = {"cpu": 2, "gpu": 4}
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


def plan(
    reg: str,
    model: str,
    dtype: str,
    max_seeds: int | None,
    platform: str,
    folder: str,
) -> list[tuple[int, list[Contestant]]]:
    """Lists the numbers of seeds, and for each the contestants, ours first.

    PyTorch takes part with one network, on all cores, and with a process for each core,
    side by side; on a GPU also beside our most, with all networks as one. JAX's own
    layers take part in these cases. They come first, for a run may be cut. PyTorch is
    left out where it does not have the network.
    """
    kind = "cpu" if platform == "cpu" else "gpu"
    most = max_seeds or MAX_SEEDS[kind]
    available = cores.available_cores()
    side_by_side = min(len(available), most)
    compared = {1, side_by_side, most}
    powers = {FACTOR[kind] ** n for n in range(most.bit_length())}
    counts = compared | {n for n in powers if n < most}
    has_torch = model in TORCH_MODELS and importlib.util.find_spec("torch") is not None
    settings = {"folder": folder, "reg": reg, "model": model, "dtype": dtype}
    cases = []
    for num_seeds in sorted(counts, key=lambda n: (n not in compared, -n)):
        together = settings | {"num_seeds": num_seeds}
        contestants = [Contestant(OURS, f"{JAX}:prepare_ours", together)]
        if num_seeds in compared:
            plain = f"{JAX}:prepare_plain"
            contestants.append(Contestant("JAX, one after another", plain, settings))
            if kind == "gpu" or num_seeds <= MAX_PLAIN_VMAP_ON_CPU:
                contestants.append(Contestant("JAX, vmap", plain, together))
        if has_torch and num_seeds in (1, side_by_side):
            shares = np.array_split(np.array(available), num_seeds)
            contestants += torch_contestants(
                settings, tuple(tuple(share.tolist()) for share in shares)
            )
        if has_torch and kind == "gpu" and 1 < num_seeds == most:
            contestants += grouped_contestants(together, (tuple(available),))
        cases.append((num_seeds, contestants))
    return cases


def torch_contestants(
    settings: dict, shares: tuple[tuple[int, ...], ...]
) -> list[Contestant]:
    """Lists the PyTorch contestants, each with a worker for each share of cores."""
    reg = settings["reg"]
    variants: dict[str, tuple[str, dict]] = {
        "PyTorch": (reg, {}),
        "PyTorch, compiled": (reg, {"mode": "default"}),
    }
    if reg == "water":
        variants["PyTorch, our bank"] = reg, {"noise": "bank"}
    if reg != "none":
        variants["PyTorch, none"] = "none", {}
    # As the original has it.
    host = {"pipeline": "loader", "noise": "host"}
    variants["PyTorch, DataLoader"] = reg, host
    return [
        _make_torch(name, settings | own | {"reg": arm}, shares)
        for name, (arm, own) in variants.items()
    ]


def grouped_contestants(
    settings: dict, shares: tuple[tuple[int, ...], ...]
) -> list[Contestant]:
    """Lists those that train all networks as one, with CUDA graphs on a GPU."""
    settings = settings | {"mode": "max-autotune"}
    variants: dict[str, dict] = {"PyTorch, grouped": {}}
    if settings["reg"] == "water":
        variants["PyTorch, grouped, our bank"] = {"noise": "bank"}
    return [_make_torch(name, settings | own, shares) for name, own in variants.items()]


def _make_torch(
    name: str, settings: dict, shares: tuple[tuple[int, ...], ...]
) -> Contestant:
    own = {
        "strength": REGULARIZERS[settings["reg"]].default,
        "num_threads": len(shares[0]),
    }
    return Contestant(name, f"{TORCH}:prepare", settings | own, shares)
