"""The script that draws faults: the same ones each time, all of them Python, none of them the text itself."""

import ast
from pathlib import Path

import pytest

from tests.support.mutants import Bench, draw

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


@pytest.mark.parametrize(
    ("source", "limit_s", "is_noticed"),
    [("limit = 3", 60.0, False), ("limit = 4", 60.0, True), ("while True: pass", 0.5, True)],
    ids=["none", "fails", "hangs"],
)
def test_fault_is_noticed_when_a_test_fails_or_hangs(tmp_path, source, limit_s, is_noticed):
    (tmp_path / "entropic").mkdir()
    (tmp_path / "entropic" / "__init__.py").touch()
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_small.py").write_text(
        "def test_limit():\n    from entropic.small import limit\n\n    assert limit == 3\n"
    )
    bench = Bench(tmp_path, ["test_small.py"], "limit", limit_s)

    assert bench.is_noticed(Path("small.py"), source) == is_noticed
