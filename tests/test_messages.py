"""An error says which value was wrong: where users make mistakes, no message is the same whatever they wrote."""

import ast
from pathlib import Path

import pytest

import entropic

PACKAGE = Path(entropic.__file__).parent
WHERE_USERS_MAKE_MISTAKES = ("functions", "store.py", "sweeps", "diagnosis", "migrate.py", "model", "cli")

NAMES_ITS_VALUE = {  # by itself, or whoever catches it puts the value before it
    "is NaN, which is equal to nothing and no key; use None in a nullable column",
    "is NaT, which is no time; use None in a nullable column",
    "is None, which its annotation does not say that it may be",
    "which says nothing about what may be stored",
    "whose values are given as Python's own: write int, float, bool or str for it",
    "whose values are given as Python's own: write datetime or timedelta for it",
    "whose values have no column and no stable hash (entropic.register_hasher gives them one)",
}
HAS_NO_VALUE = {
    "unreachable",
    "the sweep was stopped",
    "the task was given to another Dask worker meanwhile",
    "Either 'params' or 'hash' need to be set",
    "client is asynchronous: give a Client that was made without asynchronous=True",
    "Dask cancelled a task of the sweep: somebody restarted the cluster, or cancelled it. What is finished is stored: "
    "sweep again",
}
FILES = [
    path
    for name in WHERE_USERS_MAKE_MISTAKES
    for path in (sorted((PACKAGE / name).rglob("*.py")) or [PACKAGE / name])
]


def constant_messages(source):
    """Yield the text of every error that is raised with nothing but a constant."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            arguments = node.exc.args
            if all(isinstance(one, ast.Constant) for one in arguments):
                yield arguments[0].value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_message_names_a_value(path):
    assert set(constant_messages(path.read_text())) <= NAMES_ITS_VALUE | HAS_NO_VALUE


def test_exceptions_are_still_raised():
    raised = {text for path in FILES for text in constant_messages(path.read_text())}

    assert raised >= NAMES_ITS_VALUE | HAS_NO_VALUE
