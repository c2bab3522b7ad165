"""What importing the library loads, and which of its modules may know which."""

import ast
import functools
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT, python

FOLDER = ROOT / "sounddrop_jax"
LIBRARY = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts): path
    for path in FOLDER.rglob("*.py")
    if not path.name.startswith("__")
}
COMMANDS = ("cifar", "study", "report", "benchmark")

# Imports point one way; see CONTRIBUTING.md.
ALLOWED = {
    "spectra": set(),
    "tracks": set(),
    "audio": {"tracks"},
    "_tpu": set(),
    "banks": {"spectra", "_tpu"},
    "matching": {"banks"},
    "inject": {"banks", "spectra"},
    "modules": {"audio", "banks", "inject"},
    "linen": {"audio", "banks", "inject"},
    "sweeps.convolution": set(),
    "sweeps.ensembles": set(),
    "sweeps.statistics": set(),
}
# Each imports only what stands before it.
WINGS = (
    *("words", "values", "cores", "cli", "terminal", "files", "data", "pictures"),
    *("training", "robustness", "runs", "studies", "analysis", "reporting"),
    "benchmarks",
    *COMMANDS,
)

LAZY = (
    *("librosa", "soundfile", "audioread"),
    *("tensorflow", "tensorflow_datasets", "torch"),
    *("matplotlib", "sklearn", "scipy", "pandas", "PIL", "tyro"),
)


def test_importing_the_library_loads_jax_flax_and_numpy_alone_and_little_more():
    code = """
import sys
import numpy, jax, flax.nnx
print(*sys.modules)
import flax.linen
print(*sys.modules)
import sounddrop_jax
print(*sys.modules)
"""
    done = python("-c", code)
    nnx, flax, ours = (set(line.split()) for line in done.stdout.splitlines())
    assert "sounddrop_jax.modules" in ours and not set(LAZY) & ours
    packages = {name.partition(".")[0] for name in ours - flax}
    assert packages - sys.stdlib_module_names == {"sounddrop_jax"}
    assert len(ours) < 1.15 * len(nnx)


def imports(path: Path) -> list[tuple[str, str]]:
    """Every (module, name) that a file imports, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def imported(path: Path, package: str) -> set[str]:
    """What a file imports of a package, as it is called in there."""
    found = set()
    for source, name in imports(path):
        outer, _, inner = source.partition(".")
        if outer == package:
            found.add(inner or name)
    return found


@pytest.mark.parametrize("module", LIBRARY)
def test_imports_of_the_library_point_one_way(module):
    assert imported(LIBRARY[module], "sounddrop_jax") <= ALLOWED[module]
    packages = {source.partition(".")[0] for source, _ in imports(LIBRARY[module])}
    assert not packages & {"experiments", "tests"}


@functools.cache
def graph() -> dict[str, set[str]]:
    """Of every wing of the experiments the others that it imports."""
    found: dict[str, set[str]] = {wing: set() for wing in WINGS}
    for path in (ROOT / "experiments").rglob("[a-z]*.py"):
        wing = path.relative_to(ROOT / "experiments").with_suffix("").parts[0]
        others = {name.partition(".")[0] for name in imported(path, "experiments")}
        found[wing] |= others - {wing}
    return found


def test_imports_between_wings_point_one_way():
    assert set(graph()) == set(WINGS)
    for index, wing in enumerate(WINGS):
        assert graph()[wing] <= set(WINGS[:index]), wing


def draw() -> str:
    """Draws the graph of the wings, without what follows from the rest."""
    behind: dict[str, set[str]] = {}  # all that a wing reaches
    lines = []
    for wing in WINGS:
        direct = graph()[wing]
        reached = set().union(*(behind[other] for other in direct))
        behind[wing] = direct | reached
        lines += [
            f"  {wing} --> {other}" for other in WINGS if other in direct - reached
        ]
    return "\n".join(["flowchart TD", *reversed(lines)])


def test_the_graph_of_the_contributors_guide_is_that_of_the_code():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"```mermaid\n{draw()}\n```" in guide, f"it is now\n{draw()}"


def test_modules_are_read_in_one_sitting():
    # A module that is longer has a reason, and stands here with it.
    longer = {
        "sounddrop_jax/audio.py",  # the faults of files in four formats
        "sounddrop_jax/modules.py",  # docstrings of four layers
        "sounddrop_jax/sweeps/statistics.py",  # docstrings with sources
    }
    for path in ALL_SOURCES:
        if str(path.relative_to(ROOT)) not in longer:
            assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES, path


def opens_text(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("read_text", "write_text")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id == "open" and "b'" not in ast.unparse(node)
    return False


def test_text_files_say_their_encoding():
    for path in ALL_SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not opens_text(node) or "utf-8" in ast.unparse(node), path


MOST_LINES = 420
ALL_SOURCES = [*LIBRARY.values(), *(ROOT / "experiments").rglob("*.py")]
