"""Whose table it is: two functions of one name are told apart, and one that was moved or mended is still itself."""

import linecache
from pathlib import Path

import pytest

from entropic import Database, SchemaError, memoize
from tests.support.scripts import run_script

SCRIPT = """
from entropic import memoize
{options}
def simulate(n: int) -> int:
    return {body}
{before}
print(simulate(3))
"""


def script(folder: Path, body: str = "n + 1", options: str | None = None, before: str = "") -> Path:
    """Write a script of the name that every script has, and return its path."""
    folder.mkdir(exist_ok=True)
    lab = folder.parent
    options = (
        options or f"@memoize(results_dir={str(lab / 'results')!r}, db_url='sqlite:///{lab / 'lab.sqlite3'}')"
    )
    path = folder / "run.py"
    path.write_text(SCRIPT.format(options=options, body=body, before=before))
    return path


def run(path: Path) -> tuple[str, str]:
    done = run_script(path)
    return done.stdout.strip(), done.stderr


def test_function_of_one_name_in_another_script_with_another_body_is_refused(tmp_path):
    mine, hers = script(tmp_path / "alice"), script(tmp_path / "bob", "n * 1000")
    first = run(mine)[0]

    printed, said = run(hers)

    assert (first, printed) == ("4", "")
    assert "SchemaError" in said
    for part in (str(mine), str(hers), "table=", "simulate.adopt_code()"):
        assert part in said
    assert run(mine)[0] == "4"


@pytest.mark.slow
def test_function_with_a_table_of_its_own_works_beside(tmp_path):
    run(script(tmp_path / "alice"))
    options = (
        f"@memoize(table='bobs', results_dir='{tmp_path}/results', db_url='sqlite:///{tmp_path}/lab.sqlite3')"
    )

    assert run(script(tmp_path / "bob", "n * 1000", options))[0] == "3000"


@pytest.mark.slow
def test_function_that_was_moved_and_changed_is_adopted_when_that_is_said(tmp_path):
    run(script(tmp_path / "alice"))

    adopted = run(script(tmp_path / "bob", "n + 2", before="simulate.adopt_code()"))[0]
    afterwards = run(script(tmp_path / "bob", "n + 2"))[0]

    assert (adopted, afterwards) == ("4", "4")


@pytest.mark.slow
def test_project_that_moves_then_is_mended_and_a_second_clone_keep_their_results(tmp_path):
    printed = [
        run(script(tmp_path / "project"))[0],
        run(script(tmp_path / "moved"))[0],
        run(script(tmp_path / "moved", "1 + n"))[0],
        run(script(tmp_path / "project"))[0],
        run(script(tmp_path / "clone", "1 + n"))[0],
        run(script(tmp_path / "clone", "n + 1 + 0"))[0],
    ]

    assert printed == ["4"] * 6


@pytest.mark.parametrize("body", ["n + 1  # the same", "(n + 1)"])
def test_comments_and_brackets_do_not_make_another_function(tmp_path, body):
    run(script(tmp_path / "alice"))

    assert run(script(tmp_path / "bob", body))[0] == "4"


# Notebooks: a kernel gives each cell a file's name of its own, and the front end says which notebook it is


def cell(monkeypatch, notebook: Path, body: str, told_by: str = "server"):
    """Return the function that a cell of *notebook* defines, as a kernel does."""
    notebook.parent.mkdir(exist_ok=True)
    notebook.touch()
    names = {"__name__": "__main__"}
    if told_by == "server":
        monkeypatch.setenv("JPY_SESSION_NAME", str(notebook))
    elif told_by == "VS Code":
        names["__vsc_ipynb_file__"] = str(notebook)
    source = f"def simulate(n: int) -> int:\n    return {body}\n"
    file = f"/tmp/ipykernel_4711/{abs(hash((notebook, body)))}.py"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), names)
    return names["simulate"]


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    database = Database(f"sqlite:///{tmp_path / 'lab.sqlite3'}")
    yield {"results_dir": tmp_path / "results", "db_url": database}
    database.dispose()


@pytest.mark.parametrize("told_by", ["server", "VS Code"])
def test_function_of_one_name_in_another_notebook_with_another_body_is_refused(
    tmp_path, options, monkeypatch, told_by
):
    mine = memoize(cell(monkeypatch, tmp_path / "alice" / "run.ipynb", "n + 1", told_by), **options)
    hers = memoize(cell(monkeypatch, tmp_path / "bob" / "run.ipynb", "n * 1000", told_by), **options)
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "alice" / "run.ipynb"))
    first = mine(3)
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "bob" / "run.ipynb"))

    with pytest.raises(SchemaError, match=r"alice/run\.ipynb.*bob/run\.ipynb"):
        hers(3)

    assert first == 4


def test_cell_that_is_mended_and_a_notebook_that_is_moved_keep_their_results(tmp_path, options, monkeypatch):
    called = [
        memoize(cell(monkeypatch, tmp_path / folder / "run.ipynb", body), **options)(3)
        for folder, body in [("one", "n + 1"), ("one", "1 + n"), ("two", "1 + n"), ("two", "1 + n + 0")]
    ]

    assert called == [4] * 4


def test_console_has_no_file_and_is_not_told_from_another(tmp_path, options, monkeypatch):
    called = [
        memoize(cell(monkeypatch, tmp_path / f"console-{n}", body), **options)(3)
        for n, body in enumerate(["n + 1", "1 + n"])
    ]

    assert called == [4, 4]
