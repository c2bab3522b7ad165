"""Accelerators that XLA compiles for without having one."""

import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from experiments.cli import UsageError


@dataclasses.dataclass(frozen=True)
class Target:
    """A chip.

    Attributes:
        title: its name.
        platform: what JAX calls its kind, "cuda" or "tpu".
        bandwidth: of its memory, bytes a second.
        clock: units of the compiler's cost a second: microseconds of a GPU; cycles of
            a TPU, at the clock that its peak of bfloat16 products implies.
        topology: as JAX's plug-in knows the smallest group of them.
        accelerator: as the plug-in of a TPU wants it to be called.
    """

    title: str
    platform: str
    bandwidth: float
    clock: float
    topology: str
    accelerator: str = ""


TARGETS = {
    "h100": Target("H100 SXM", "cuda", 3352.32e9, 1e6, "1x1x1"),
    "v5e": Target("TPU v5e", "tpu", 819e9, 1.5e9, "v5e:2x2", "v5litepod-4"),
    "v6e": Target("TPU v6e", "tpu", 1640e9, 1.75e9, "v6e:2x2", "v6e-4"),
    "v5p": Target("TPU v5p", "tpu", 2765e9, 1.75e9, "v5p:2x2x1", "v5p-8"),
}
PLUGINS = {
    "cuda": ("jax_cuda13_plugin", "compile-gpu"),
    "tpu": ("libtpu", "compile-tpu"),
}


def open_target(name: str) -> jax.Device:
    """Returns a device of a target, to compile for and not to run on.

    JAX itself has to start on the CPU, and after this. What it needs to know is in
    the environment, which is set here.

    Args:
        name: in `TARGETS`.

    Raises:
        UsageError: if JAX has no plug-in for it here, or one that does not fit.
    """
    target = TARGETS[name]
    module, extra = PLUGINS[target.platform]
    remedy = f"pip install -e '.[{extra}]'"
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"--target={name}: needs the package {module}; {remedy}.")
    jax.config.update("jax_platforms", "cpu")
    if target.platform == "cuda":
        # The compiler's costs become part of the program's text.
        flags = os.environ.get("XLA_FLAGS", "")
        flags = f"{flags} --xla_gpu_collect_cost_model_stats=true"
        os.environ["XLA_FLAGS"] = flags.strip()
        chip = Path(__file__).with_name(f"{name}.txtpb").read_text("utf-8")
        settings: dict[str, Any] = {"topology": target.topology, "target_config": chip}
        which = name
    else:
        # What it would ask a TPU's machine; and another process may compile as well.
        for variable, value in {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": target.accelerator,
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_LOG_DIR": "disabled",
        }.items():
            os.environ.setdefault(variable, value)
        settings, which = {}, target.topology
    try:
        found = topologies.get_topology_desc(
            which, platform=target.platform, **settings
        )
    except (RuntimeError, NotImplementedError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"--target={name}: {module} does not know it or does not fit JAX "
            f"{jax.__version__} ({reason}); {remedy}."
        ) from None
    return found.devices[0]
