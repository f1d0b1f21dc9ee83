"""Small faults, put into a copy of the package one by one: which of them do the fast tests not notice?

Run as ``python -m tests.support.mutants --module runs/recovery --seed 1 --count 20``. The same seed draws the same
faults from the same text. Nothing is ever written into the working tree.

The tests are run once without a fault, to see which of them call what; and then, for each fault, those that call the
function that it is in, the shortest first. A test that calls it in a child process only is run with ``--all``.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import cache_from_source
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Any

import numpy  # noqa: F401  what the package or its tests import, and the forks need not import again
import pydantic  # noqa: F401
import pytest
import sqlalchemy.orm  # noqa: F401

ROOT = Path(__file__).parents[2]
COPIED = ("entropic", "tests", "benchmarks", "migrations", "alembic.ini", "pyproject.toml")
NEIGHBOURS = {  # where the tests of a wing's modules are, the nearest first
    "disk": ["disk", "runs"],
    "runs": [
        *("runs", "whole/test_between_steps.py", "whole/test_store_runs.py", "sweeps/test_sweep.py"),
        *("whole/test_store_own_files.py", "whole/test_store_every_day.py"),
    ],
    "sweeps": ["sweeps/test_sweep.py", "whole/test_between_steps.py", "sweeps", "runs"],
    "leases": ["leases", "runs"],
    "model": ["model", "whole"],
    "values": ["values", "model"],
    "stats_store": ["contracts/test_stats_stores.py", "stats_store"],
}
SQLITE = "not postgres and not mysql and not dask"

_PAIRS: list[tuple[type[ast.AST], type[ast.AST]]] = [
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.And, ast.Or),
    (ast.Add, ast.Sub),
    (ast.BitOr, ast.BitAnd),
]
_OPPOSITES = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}


@dataclass(frozen=True)
class Mutant:
    """One fault: what kind, at which line, and the module's text with it."""

    kind: str
    line: int
    source: str


def draw(source: str, seed: int, count: int) -> list[Mutant]:
    """Draw so many faults that can be put into *source*, or all; each kind is as likely as every other one."""
    tree, generator = ast.parse(source), random.Random(seed)
    kinds: dict[str, list[tuple[int, Change]]] = {}
    for number, node in enumerate(_walk(tree)):
        for kind, change in _changes(node):
            kinds.setdefault(kind, []).append((number, change))
    drawn: dict[str, Mutant] = {ast.unparse(tree): Mutant("nothing", 0, source)}
    while kinds and len(drawn) <= count:
        kind = generator.choice(sorted(kinds))
        number, change = kinds[kind].pop(generator.randrange(len(kinds[kind])))
        if not kinds[kind]:
            del kinds[kind]
        mutated = copy.deepcopy(tree)
        node = next(node for n, node in enumerate(_walk(mutated)) if n == number)
        line = node.target.lineno if isinstance(node, ast.comprehension) else getattr(node, "lineno", 0)
        change(node)
        text = ast.unparse(ast.fix_missing_locations(mutated))
        drawn.setdefault(text, Mutant(kind, line, text))
    return list(drawn.values())[1:]


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Walk over all that is run when a function is: not over annotations and decorators."""
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in {"annotation", "returns", "decorator_list"}:
                yield from _walk(child)


Change = Callable[[ast.AST], None]


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Yield what can be done to *node*, each with its kind."""
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield "negate a condition", _negate
    if isinstance(node, ast.comprehension) and node.ifs:
        yield "drop a condition", lambda found: found.ifs.clear()  # type: ignore[attr-defined]
    if isinstance(node, ast.Compare):
        yield "turn a comparison", _turn_comparison
    if isinstance(node, ast.BoolOp):
        yield "swap and with or", _turn_operator
        for place in range(len(node.values)):
            yield "drop a condition", _dropper("values", place)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPPOSITES:
        yield "turn an operator", _turn_operator
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "negate a condition", _drop_not
    if isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        yield "change a constant", _change_constant
    if isinstance(node, ast.Call):
        yield from _changes_of_call(node)
    for name in ("body", "orelse", "finalbody"):
        for place, statement in enumerate(_statements(node, name)):
            yield from _changes_of_statement(statement, name, place)


def _statements(node: ast.AST, name: str) -> list[ast.stmt]:
    block = getattr(node, name, [])
    # What a class or module says at its top is found by every test, if only by a name that is missing.
    return [] if isinstance(node, ast.Module | ast.ClassDef) or not isinstance(block, list) else block


def _changes_of_call(node: ast.Call) -> Iterator[tuple[str, Change]]:
    if len(node.args) > 1 and not any(isinstance(one, ast.Starred) for one in node.args):
        yield "swap arguments", lambda found: found.args.insert(1, found.args.pop(0))  # type: ignore[attr-defined]
    for place in range(len(node.keywords)):
        yield "drop an argument", _dropper("keywords", place)


def _changes_of_statement(statement: ast.stmt, name: str, place: int) -> Iterator[tuple[str, Change]]:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return  # a docstring
    if isinstance(statement, ast.Expr):
        yield "drop a call", _replacer(name, place, "pass")
    elif isinstance(statement, ast.AugAssign):
        yield "assign instead of add", _assigner(name, place)
        yield "drop a statement", _replacer(name, place, "pass")
    elif isinstance(statement, ast.If | ast.Raise | ast.For | ast.Delete | ast.Continue | ast.Break):
        yield "drop a statement", _replacer(name, place, "pass")
    elif isinstance(statement, ast.Return) and statement.value is not None:
        yield "return nothing", _replacer(name, place, "return None")
    if isinstance(statement, ast.With | ast.Try | ast.For | ast.If):
        yield "return early", _replacer(name, place, "return None")


def _negate(found: ast.AST) -> None:
    found.test = ast.UnaryOp(ast.Not(), found.test)  # type: ignore[attr-defined]


def _drop_not(found: ast.AST) -> None:
    found.op, found.operand = ast.Not(), ast.UnaryOp(ast.Not(), found.operand)  # type: ignore[attr-defined]


def _turn_comparison(found: ast.AST) -> None:
    found.ops = [_OPPOSITES[type(op)]() for op in found.ops]  # type: ignore[attr-defined]


def _turn_operator(found: ast.AST) -> None:
    found.op = _OPPOSITES[type(found.op)]()  # type: ignore[attr-defined]


def _change_constant(found: ast.AST) -> None:
    value = found.value  # type: ignore[attr-defined]
    found.value = not value if isinstance(value, bool) else value + 1  # type: ignore[attr-defined]


def _dropper(name: str, place: int) -> Change:
    return lambda found: getattr(found, name).pop(place) and None


def _replacer(name: str, place: int, statement: str) -> Change:
    def replace(found: ast.AST) -> None:
        getattr(found, name)[place] = ast.parse(statement).body[0]

    return replace


def _assigner(name: str, place: int) -> Change:
    def assign(found: ast.AST) -> None:
        block = getattr(found, name)
        block[place] = ast.Assign([block[place].target], block[place].value)

    return assign


# Running the tests


def start_of(source: str, line: int) -> int | None:
    """Return the first line, decorators included, of the innermost function of *source* in which *line* is."""
    found = [
        (min(one.lineno for one in (node, *node.decorator_list)), node.end_lineno or 0)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    ]
    return max((first for first, last in found if first <= line <= last), default=None)


class Watch:
    """Pytest's plugin that notes how long each test takes and to which functions of some files it comes.

    Only what it calls in its own process is seen.
    """

    def __init__(self, files: list[str], report: Path) -> None:
        self._files, self._report = frozenset(files), report
        self._called: set[tuple[str, int]] = set()
        self._failed: set[str] = set()
        self._tests: dict[str, tuple[float, list[tuple[str, int]]]] = {}
        sys.settrace(self._trace)
        threading.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_filename in self._files:
            self._called.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._called, begun = set(), time.monotonic()
        try:
            return (yield)
        finally:
            self._tests[item.nodeid] = time.monotonic() - begun, sorted(self._called)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        kept = {test: found for test, found in self._tests.items() if test not in self._failed}
        self._report.write_text(json.dumps([kept, sorted(self._failed)]))


class Choice:
    """Pytest's plugin that runs these tests only, in this order, and says which one failed."""

    def __init__(self, tests: list[str], report: Path) -> None:
        self._places = {test: place for place, test in enumerate(tests)}
        self._report = report

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._places]
        items.sort(key=lambda item: self._places[item.nodeid])

    def pytest_configure(self, config: pytest.Config) -> None:
        config.option.maxfail = 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._report.write_text(report.nodeid)


@dataclass(frozen=True)
class Bench:
    """A copy of the package and its tests, in which one module at a time is at fault."""

    folder: Path
    tests: list[str]
    chosen: str
    limit_s: float

    def set_up(self) -> None:
        """Copy what the tests need."""
        for name in COPIED:
            source = ROOT / name
            put: Callable[..., object] = shutil.copytree if source.is_dir() else shutil.copy
            put(source, self.folder / name)

    def watch(self, modules: list[Path]) -> dict[str, tuple[float, list[list[Any]]]]:
        """Run the tests without a fault; return of each how long it took and which functions it came to."""
        report = self.folder / "watched.json"
        files = [str(self.folder / "entropic" / module) for module in modules]
        paths = [str(Path("tests") / one) for one in self.tests]
        self._run(paths, lambda: Watch(files, report), None)
        watched, failed = json.loads(report.read_text())
        for test in failed:
            print(f"{test} fails without any fault, and is left out")
        return dict(watched)

    def notice(self, module: Path, source: str, tests: list[str]) -> str | None:
        """Return which of some tests is the first to fail while a module has this text, or that they hang."""
        path, report = self.folder / "entropic" / module, self.folder / "failed"
        # Bytecode is known by second and size: that of another fault could be taken for this one's.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_text(source)
        report.write_text("the collection of the tests")
        code = self._run(
            sorted({test.partition("::")[0] for test in tests}), lambda: Choice(tests, report), self.limit_s
        )
        if code is None:
            return "tests that hang"
        return report.read_text() if code else None

    def _run(self, paths: list[str], plugin: Callable[[], object], limit_s: float | None) -> int | None:
        """Return pytest's exit code, or None if it hangs. In a fork: most of a short run is its imports."""
        child, begun = os.fork(), time.monotonic()
        if child == 0:
            os._exit(self._test(paths, plugin))
        try:
            while limit_s is None or time.monotonic() - begun < limit_s:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.05)
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # and what its tests had started
            with suppress(ChildProcessError):
                os.waitpid(child, 0)

    def _test(self, paths: list[str], plugin: Callable[[], object]) -> int:
        os.setsid()
        os.chdir(self.folder)
        os.environ["PYTHONPATH"] = str(self.folder)
        sys.path[0] = str(self.folder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        for stream in (1, 2):
            os.dup2(os.open(self.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        options = ["-q", "-n0", "-p", "no:cacheprovider", "-k", self.chosen]
        return int(pytest.main([*options, *paths], plugins=[plugin()]))


def main(arguments: list[str] | None = None) -> None:
    """Draw faults and say of each whether it was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.mutants", description=__doc__)
    parser.add_argument(
        "--module", action="append", required=True, help="such as runs/recovery; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20, help="of each module")
    parser.add_argument(
        "--only", type=int, action="append", help="the number of one that was drawn; may be repeated"
    )
    parser.add_argument(
        "--tests", nargs="*", help="paths below tests/; default: the modules' wings and their neighbours"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="run also the tests that do not call the faulty function in their own process",
    )
    parser.add_argument(
        "--at-most-s", type=float, default=float("inf"), help="of tests for each, the shortest first"
    )
    parser.add_argument("--chosen", default=SQLITE, help="pytest's -k")
    parser.add_argument("--limit-s", type=float, default=240.0, help="a run that lasts longer hangs: noticed")
    options = parser.parse_args(arguments)
    modules = [Path(f"{name}.py") for name in options.module]
    wings = list(dict.fromkeys(module.parts[0] for module in modules))
    tests = options.tests or [one for wing in wings for one in NEIGHBOURS.get(wing, [wing])]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), list(dict.fromkeys(tests)), options.chosen, options.limit_s)
        bench.set_up()
        watched = bench.watch(modules)
        for module in modules:
            source = (ROOT / "entropic" / module).read_text()
            file = str(bench.folder / "entropic" / module)
            drawn = draw(source, options.seed, options.count)
            noticed = tried = 0
            for number, mutant in enumerate(drawn):
                if options.only and number not in options.only:
                    continue
                place = [file, start_of(source, mutant.line)]
                near = sorted((took, test) for test, (took, called) in watched.items() if place in called)
                far = sorted((took, test) for test, (took, called) in watched.items() if place not in called)
                begun = time.monotonic()
                ordered = [*near, *far] if options.all or not near else near
                until = accumulate(took for took, _ in ordered)
                chosen = [
                    test for end, (_, test) in zip(until, ordered, strict=True) if end <= options.at_most_s
                ]
                noticer = bench.notice(module, mutant.source, chosen)
                tried, noticed = tried + 1, noticed + (noticer is not None)
                _show(module, number, mutant, source, noticer, time.monotonic() - begun)
            (bench.folder / "entropic" / module).write_text(source)
            print(f"{module}: {noticed} of {tried} noticed ({noticed / max(tried, 1):.0%})")


def _show(module: Path, number: int, mutant: Mutant, source: str, noticer: str | None, took: float) -> None:
    word = "SURVIVED" if noticer is None else f"noticed by {noticer}"
    print(f"{module} {number:3} line {mutant.line:3} {mutant.kind}: {word} ({took:.0f} s)")
    if noticer is None:
        texts = ast.unparse(ast.parse(source)).splitlines(), mutant.source.splitlines()
        print("\n".join(f"    {line}" for line in list(difflib.unified_diff(*texts, lineterm="", n=2))[2:]))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    main()
