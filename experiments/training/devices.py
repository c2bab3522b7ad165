"""The devices of a command: how many, which, and the programs compiled for them."""

import contextlib
import glob
import os
import re
import sys
import warnings
from pathlib import Path

import jax
from jax.sharding import Mesh

from experiments.cli import UsageError
from experiments.cores import available_cores
from experiments.files import cache_folder, trim
from sounddrop_jax import ensembles


def keep_programs() -> None:
    """Keeps compiled programs for the next run, in the user's folder of caches.

    JAX_COMPILATION_CACHE_DIR names another folder, which is left as it is; empty, it
    keeps nothing.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        folder = cache_folder("programs")
        if folder is not None:
            trim(folder)
            _heal(folder)
        chosen = str(folder or "")
    jax.config.update("jax_compilation_cache_dir", chosen or None)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The many small programs of a start, too: together they take seconds.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _heal(folder: Path) -> None:
    """Removes the programs that JAX finds damaged, and says nothing of them.

    JAX compares checksums, warns and compiles anew, every time, but never replaces
    what it found.
    """
    # Whatever the command's filters are; where the folder is full, too.
    words = r"Error \w+ persistent compilation cache entry for '(.*?)'"
    warnings.filterwarnings("always", words)
    show = warnings.showwarning

    def heal(message, *args, **settings):
        match = re.match(words, str(message))
        if match is None:
            return show(message, *args, **settings)
        for path in folder.glob(f"{glob.escape(match[1])}-*"):
            with contextlib.suppress(OSError):
                path.unlink()

    warnings.showwarning = heal


def _wastes_little(num_seeds: int, num_devices: int) -> bool:
    """Returns whether filling all devices runs at most one seed in eight in vain."""
    return -num_seeds % num_devices <= num_seeds / 8


def be_deterministic() -> None:
    """Keeps XLA to what gives the same bits every time, before it starts.

    That leaves out what sums in the order in which threads arrive, and the choice
    between algorithms by timing them. https://openxla.org/xla/determinism
    """
    flags = os.environ.get("XLA_FLAGS", "")
    # The last of several counts.
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def share_cores(num_seeds: int) -> None:
    """Makes a device of each core of a CPU, unless another number was chosen.

    As many as there are cores that this process may use, unless too many would run in
    vain, where the devices do not divide the seeds.
    """
    counts = range(min(len(available_cores()), num_seeds), 0, -1)
    num_devices = next((n for n in counts if _wastes_little(num_seeds, n)), 1)
    if jax.distributed.is_initialized():
        # How many processes there are, JAX tells when it has its devices: `make_mesh`.
        num_devices = max(counts, default=1)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        # Refused once JAX has started, as in a notebook: then it stays as it is.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", num_devices)


def start_jax() -> None:
    """Starts JAX on the devices that the environment asks for.

    It comes after `join` and `share_cores`. Everything is computed in float32, and so
    to the same numbers where JAX_ENABLE_X64 is set.

    Raises:
        UsageError: if there are no such devices.
    """
    jax.config.update("jax_enable_x64", False)
    try:
        jax.devices()
    # JAX only asserts that it has a device where it knows a platform and finds none.
    except (RuntimeError, AssertionError) as error:
        names = [n for n in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(n)]
        asked = ", ".join(f"{name}={os.environ[name]}" for name in names) or "JAX"
        reason = str(error).partition("\n")[0].partition(" (set JAX_PLATFORMS")[0]
        remedy = "set JAX_PLATFORMS=cpu, or leave the choice to JAX."
        message = (
            f"{asked}: no such device can be used here ({reason or 'none was found'}); "
            f"{remedy if names else 'set JAX_PLATFORMS=cpu.'}"
        )
        if jax.distributed.is_initialized():
            # At once: the others, which may have their devices, cannot be told.
            print(f"error: {message}", file=sys.stderr, flush=True)
            os._exit(2)
        raise UsageError(message) from None


def make_mesh(num_seeds: int) -> Mesh | None:
    """Makes the mesh of a run; None for a single device.

    No more devices of a process take part than there are seeds. Of several processes on
    CPUs, each takes part with as many devices as divide the seeds well: they come
    process by process, so that with more of them than seeds the last processes would
    have copies and nothing else.
    """
    if jax.process_count() == 1:
        devices = jax.devices()[:num_seeds]
        return ensembles.make_mesh(devices=devices) if len(devices) > 1 else None
    if jax.default_backend() != "cpu":
        return ensembles.make_mesh()
    own = [jax.local_devices(process_index=i) for i in range(jax.process_count())]
    for num_devices in range(max(map(len, own)), 0, -1):
        devices = [device for each in own for device in each[:num_devices]]
        if _wastes_little(num_seeds, len(devices)):
            break
    return ensembles.make_mesh(devices=devices)


def choose_seeds_at_once() -> int | None:
    """Returns how many seeds each device should work on; None for all that fit."""
    # The fastest on a CPU, see docs/performance.md.
    return 1 if jax.default_backend() == "cpu" else None
