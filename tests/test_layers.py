"""Which module may import which, and what importing the package costs.

The table below is the rule; the page on the architecture only explains it.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import entropic

PACKAGE = Path(entropic.__file__).parent

LAYERS = (  # lowest first: a module imports only what stands above it here
    "errors",
    "hashing files payload progress provenance documents extras configs stats options",
    "display formats labelled",
    "loaders",
    "codecs schema heartbeat_process termination outages",
    "annotations processes coercion jobs sidecars engines",
    "backends signatures",
    "sweep database models attempts parameters",
    "drift locks",
    "claims migrate records",
    "publishing registration heartbeat",
    "table",
    "recovery history",
    "sweep_result",
    "runs sweeper integrity calls",
    "store",
    "memo config_store stats_store weights_store array_store execution_store datastore",
    "create_store demo",
    "cli",
    "__main__",
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names.split()}

HEAVY = {"alembic", "cloudpickle", "dask", "distributed", "h5py", "matplotlib", "numpy", "pandas", "pydantic"}
HEAVY |= {"torch", "tqdm", "zarr"}
DEFINED_WITH_PYDANTIC = {"configs.py"}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


# The wheel carries migrations/ inside the package; those scripts belong to no layer.
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if not relative(path).startswith("migrations/")]
MODULES = [path for path in FILES if relative(path) != "__init__.py"]


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(nodes: Iterator[ast.AST], package: list[str]) -> Iterator[list[str]]:
    """Yield the dotted name, in parts, of everything that the statements among *nodes* import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            start = start + (node.module.split(".") if node.module else [])
            yield from ([*start, alias.name] for alias in node.names)


def own_imports(source: str, package: list[str]) -> set[str]:
    """Name the modules of ours that the source imports, inside functions and for types too."""
    names = list(imports(ast.walk(ast.parse(source)), package))
    return {name[1] if len(name) > 1 else "the package root" for name in names if name[0] == "entropic"}


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """Walk only what runs when the module is imported: no function bodies, no imports for types."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import_time(child)


def test_every_module_has_a_layer():
    without = {module_of(path) for path in MODULES} - LAYER_OF.keys()

    assert not without, f"add them to LAYERS: {sorted(without)}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_imports_only_from_lower_layers(path):
    me = module_of(path)
    package = ["entropic", *path.relative_to(PACKAGE).parent.parts]

    for name in own_imports(path.read_text(), package) - {me}:
        assert name in LAYER_OF, f"{me} imports {name}, which is no module of the package"
        assert LAYER_OF[name] < LAYER_OF[me], f"{me} must not import {name}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import entropic.store", {"store"}),
        ("from entropic.store import Store", {"store"}),
        ("from entropic import store", {"store"}),
        ("import entropic", {"the package root"}),
        ("from .. import store", {"store"}),
        ("from ..store import Store", {"store"}),
        ("from .files import File", {"models"}),
        ("def f():\n    from ..store import Store", {"store"}),
        ("import sqlalchemy", set()),
    ],
)
def test_own_imports_of_each_form_are_found(source, expected):
    assert own_imports(source, ["entropic", "models"]) == expected


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_module_defers_heavy_imports(path):
    if relative(path) in DEFINED_WITH_PYDANTIC:
        pytest.skip("its classes are pydantic models")
    loaded = {name[0] for name in imports(at_import_time(ast.parse(path.read_text())), ["entropic"])}

    assert not loaded & HEAVY, "import it where it is first used"


def test_import_of_the_package_loads_nothing_heavy():
    script = "import sys, entropic; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.split())
    assert "entropic" in loaded
    assert loaded & HEAVY == set()
