"""What importing the library loads, and which of its modules may know which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sounddrop_jax

FOLDER = Path(sounddrop_jax.__file__).parent
SOURCES = {path.stem: path for path in FOLDER.glob("*.py") if path.stem != "__init__"}

# Imports point one way; see CONTRIBUTING.md.
ALLOWED = {
    "spectra": set(),
    "audio": set(),
    "banks": {"spectra"},
    "inject": {"banks", "spectra"},
    "modules": {"audio", "banks", "inject"},
    "linen": {"audio", "banks", "inject"},
    "convolution": set(),
    "ensembles": set(),
    "statistics": set(),
}

LAZY = (
    *("librosa", "soundfile", "audioread"),
    *("tensorflow", "tensorflow_datasets", "torch"),
    *("matplotlib", "sklearn", "scipy", "pandas", "PIL", "tyro"),
)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=FOLDER.parent,
    )
    return done.stdout


def test_importing_the_library_loads_no_optional_dependency():
    loaded = run("import sys, sounddrop_jax; print(*sys.modules)").split()
    assert "sounddrop_jax.modules" in loaded
    assert not set(LAZY) & set(loaded)


def test_importing_the_library_loads_nothing_but_jax_flax_and_numpy():
    code = """
import sys, numpy, jax, flax.nnx, flax.linen
before = set(sys.modules)
import sounddrop_jax
print(*set(sys.modules) - before)
"""
    packages = {name.partition(".")[0] for name in run(code).split()}
    assert packages - sys.stdlib_module_names == {"sounddrop_jax"}


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


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_one_way(module):
    ours = set()
    for source, name in imports(SOURCES[module]):
        package, _, submodule = source.partition(".")
        if package == "sounddrop_jax":
            ours.add(submodule or name)
    assert ours <= ALLOWED[module]


@pytest.mark.parametrize("module", SOURCES)
def test_the_library_imports_no_experiment(module):
    packages = {source.partition(".")[0] for source, _ in imports(SOURCES[module])}
    assert not packages & {"experiments", "tests"}


ALL_SOURCES = [*SOURCES.values(), *(FOLDER.parent / "experiments").rglob("*.py")]


def opens_text(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("read_text", "write_text")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id == "open" and "b'" not in ast.unparse(node)
    return False


@pytest.mark.parametrize("path", ALL_SOURCES, ids=lambda path: path.stem)
def test_text_files_say_their_encoding(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not opens_text(node) or "utf-8" in ast.unparse(node)


def test_only_one_module_makes_consoles():
    # Where text is printed as it is: see `terminal.make_console`.
    makers = {path.stem for path in ALL_SOURCES if " Console(" in path.read_text()}
    assert makers == {"terminal"}


def test_the_package_itself_only_re_exports():
    tree = ast.parse((FOLDER / "__init__.py").read_text())
    docstring, *statements = tree.body
    assert isinstance(docstring, ast.Expr)
    for statement in statements:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            assert alias.asname == alias.name  # `import X as X`: meant for others
            assert not alias.name.startswith("_")
