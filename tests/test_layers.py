"""Which wing may import which, and what importing the package costs.

The list below is the rule; the page on the architecture only explains it.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import entropic

PACKAGE = Path(entropic.__file__).parent

WINGS = (  # from the top down: a wing, or a module at the top, imports only from those after it
    "__main__ cli ui functions demo store sweeps diagnosis evolution datastore runs create_store",
    "execution_store config_store stats_store weights_store array_store",
    "migrate model leases sql values configs disk options display stats process errors extras printable",
)
FLOOR_OF = {name: number for number, name in enumerate(reversed(" ".join(WINGS).split()))}

HEAVY = {"alembic", "cloudpickle", "dask", "distributed", "h5py", "matplotlib", "numpy", "pandas", "pydantic"}
HEAVY |= {"torch", "tqdm", "zarr"}
DEFINED_WITH_PYDANTIC = {"configs.py", "options.py"}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


# The wheel carries migrations/ inside the package; those scripts belong to no layer.
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if not relative(path).startswith("migrations/")]
MODULES = [path for path in FILES if relative(path) != "__init__.py"]


def wing_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def dotted(path: Path) -> str:
    return ".".join(["entropic", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


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
    """Name what of ours the source imports, by its dotted name; inside functions and for types too."""
    names = list(imports(ast.walk(ast.parse(source)), package))
    return {".".join(name) for name in names if name[0] == "entropic"}


def modules_imported(path: Path) -> set[str]:
    """Name the modules that a file of the package imports; a name in a module counts as the module."""
    package = ["entropic", *path.relative_to(PACKAGE).parent.parts]
    found = own_imports(path.read_text(), package)
    return {name if name in KNOWN else name.rpartition(".")[0] for name in found} - {dotted(path)}


KNOWN = {dotted(path) for path in MODULES}


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """Walk only what runs when the module is imported: no function bodies, no imports for types."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import_time(child)


def test_every_module_has_a_place():
    without = {wing_of(path) for path in MODULES} - FLOOR_OF.keys()

    assert not without, f"add them to WINGS: {sorted(without)}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_imports_only_downwards(path):
    me = wing_of(path)

    for name in modules_imported(path):
        assert name in KNOWN, (
            f"{relative(path)} imports {name}: from the package root, or no module of the package"
        )
        wing = name.split(".")[1]
        assert wing == me or FLOOR_OF[wing] < FLOOR_OF[me], f"{relative(path)} must not import {name}"


def test_no_circle_inside_a_wing():
    below = {dotted(path): modules_imported(path) for path in MODULES}

    while leaves := {name for name, needs in below.items() if not needs & below.keys()}:
        below = {name: needs for name, needs in below.items() if name not in leaves}

    assert not below, f"these import each other: {sorted(below)}"


PACKAGES_WITH_NAMES = {
    "cli",
    "sweeps/backends",
    "sql/tables",
    "config_store",
    "stats_store",
    "weights_store",
    "execution_store",
    "datastore",
}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name == "__init__.py"], ids=lambda path: relative(path.parent)
)
def test_a_wing_says_what_it_is_and_holds_no_names(path):
    tree = ast.parse(path.read_text())

    assert ast.get_docstring(tree)
    assert len(tree.body) == 1 or relative(path.parent) in PACKAGES_WITH_NAMES


def test_the_top_is_short_and_no_file_is_long():
    top = [path.name for path in FILES if path.parent == PACKAGE]
    lengths = {relative(path): len(path.read_text().splitlines()) for path in FILES}

    assert len(top) <= 24
    assert {name: length for name, length in lengths.items() if length > 600} == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import entropic.store", {"entropic.store"}),
        ("from entropic.store import Store", {"entropic.store.Store"}),
        ("from entropic import store", {"entropic.store"}),
        ("import entropic", {"entropic"}),
        ("from .. import store", {"entropic.store"}),
        ("from ..store import Store", {"entropic.store.Store"}),
        ("from .files import File", {"entropic.disk.files.File"}),
        ("def f():\n    from ..store import Store", {"entropic.store.Store"}),
        ("import sqlalchemy", set()),
    ],
)
def test_own_imports_of_each_form_are_found(source, expected):
    assert own_imports(source, ["entropic", "disk"]) == expected


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_module_defers_heavy_imports(path):
    if relative(path) in DEFINED_WITH_PYDANTIC:
        pytest.skip("its classes are pydantic models")
    loaded = {name[0] for name in imports(at_import_time(ast.parse(path.read_text())), ["entropic"])}

    assert not loaded & HEAVY, "import it where it is first used"


def loaded_by(statement: str) -> set[str]:
    """Name the modules that a process has after *statement*."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def ours(loaded: set[str]) -> set[str]:
    return {name for name in loaded if name.partition(".")[0] == "entropic"}


RUNNING = {"entropic.sweeps.sweep", "entropic.diagnosis.integrity"}
READING = {"entropic.values.codecs", "entropic.values.formats"}


def test_import_of_every_name_loads_nothing_heavy():
    loaded = loaded_by("from entropic import *")

    assert {"entropic", "entropic.store", "entropic.functions.memoized", *READING} <= loaded
    assert loaded & HEAVY == set()


def test_import_of_the_package_loads_what_declares_a_model_and_little_else():
    loaded = loaded_by("import entropic")
    beyond = loaded - loaded_by("import sqlalchemy.orm")

    wings = {name.split(".")[1] for name in ours(loaded) - {"entropic"}}
    assert "entropic.model.base" in loaded
    assert wings <= {"display", "errors", "model", "printable", "process", "sql", "sweeps", "values"}
    assert not loaded & {"entropic.sql.database", "entropic.sql.tables", *RUNNING, *READING}
    assert len(ours(loaded)) <= 30
    assert len(beyond - ours(loaded)) <= 12, sorted(beyond - ours(loaded))


def test_import_of_store_loads_all_that_its_calls_need():
    """A thread that imports holds a lock, for which the child of a fork beside it would wait for ever."""
    loaded = loaded_by("from entropic import Store")

    assert {*RUNNING, *READING, "entropic.store"} <= loaded
    assert loaded & HEAVY == set()
