"""The test logits of a store: a file for each network, beside its record.

DIR/logits/REGIME/ARM/STRENGTH/SEED.npz    float32 [M, num_classes]
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from experiments import files
from experiments.studies.cells import Cell, cell_of
from experiments.words import reason

LOGITS = "logits"


def logits_path(folder: Path, cell: Cell) -> Path:
    """Returns where the test logits of a network lie."""
    # 17 digits would tell all floats apart, and repr gives as few as do.
    strength = repr(float(cell.strength))
    return Path(folder, LOGITS, cell.regime, cell.arm, strength, f"{cell.seed}.npz")


def write_logits(path: Path, logits: np.ndarray) -> None:
    """Writes the logits of a network, whole or not at all."""
    files.make_folder(path.parent)
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, logits=logits)


def read_logits(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Reads the logits of a network.

    Args:
        path: of the file.
        shape: `[M, num_classes]`, of the images that the network was tested on.

    Raises:
        OSError: if it is no file, or cannot be read.
        ValueError: if it is damaged, or holds something else.
    """
    # Beside the numbers, some headers.
    arrays = files.read_arrays(path, 4 * shape[0] * shape[1] + 4096)
    logits = arrays.get("logits")
    if logits is None or (logits.shape, logits.dtype) != (shape, np.float32):
        found = {name: f"{a.dtype}{list(a.shape)}" for name, a in arrays.items()}
        raise ValueError(f"{found or 'nothing'}, not logits of float32{list(shape)}")
    return logits


def find_faults(
    folder: Path, records: Iterable[Mapping], shapes: Mapping[str, tuple[int, int]]
) -> list[str]:
    """Finds the records whose logits are missing or damaged.

    Args:
        folder: of the store.
        records: of its networks.
        shapes: `[M, num_classes]`, by regime.

    Returns:
        For each of them its path, and what is wrong.
    """
    faults = []
    for record in records:
        path = logits_path(folder, cell_of(record))
        try:
            logits = read_logits(path, shapes[record["regime"]])
            if not record["diverged"] and not np.isfinite(logits).all():
                raise ValueError("not finite, as its network is said to be")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else reason(error)
            faults.append(f"{path}: {why}")
    return faults
