"""The script that draws faults: the same ones each time, all of them Python, none of them the text itself."""

import ast

import pytest

from tests.support.mutants import draw, start_of

SOURCE = '''
def total(items: list[int] | None, *, limit: int = 3) -> int:
    """Add up."""
    if not items or len(items) > limit:
        raise ValueError("too many")
    found = 0
    for item in items:
        if item is not None and item >= 0:
            found += item
    note(found, limit, again=True)
    return found
'''


@pytest.mark.parametrize("seed", range(3))
def test_same_seed_draws_the_same_different_faults(seed):
    drawn = draw(SOURCE, seed, 12)

    assert drawn == draw(SOURCE, seed, 12)
    assert len({mutant.source for mutant in drawn} | {ast.unparse(ast.parse(SOURCE))}) == 13
    assert drawn != draw(SOURCE, seed + 3, 12)


def test_every_fault_is_python_and_leaves_annotations_and_docstrings_alone():
    drawn = draw(SOURCE, 1, 1000)

    assert {mutant.kind for mutant in drawn} >= {
        "negate a condition",
        "swap and with or",
        "turn a comparison",
        "change a constant",
        "assign instead of add",
        "drop a statement",
        "drop a call",
        "drop a condition",
        "drop an argument",
        "swap arguments",
        "return early",
        "return nothing",
    }
    for mutant in drawn:
        compile(mutant.source, "mutant", "exec")
        assert "items: list[int] | None" in mutant.source
        assert "Add up." in mutant.source


def test_fault_is_in_the_innermost_function_decorators_included():
    source = "x = 1\n@one\n@two\ndef f():\n    def g():\n        return 1\n    return g\ny = 2\n"

    assert [start_of(source, line) for line in range(1, 9)] == [None, 2, 2, 2, 5, 5, 2, None]
