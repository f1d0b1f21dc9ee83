"""Two Stores on one database and one folder, through runs, crashes, damage and repair, against a dictionary.

The model says after every step what the rows are and which bytes lie under which name. What a crashed process left is
in the model too, so that it also says what `recover` and `check` are to find.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text

from entropic import AlreadyExistsError, Database, ResultFileMissingError, Store
from entropic.disk import roots, sidecars
from entropic.process.identity import this_process
from tests.support import protocol_cases as cases
from tests.support import servers
from tests.support.counting import append_line
from tests.support.processes import outcomes_of
from tests.support.protocol_cases import FINISHED, Place, VersionedRunner

POINTS = ("claimed", "slot taken", "in the runner", "file staged", *FINISHED)
BEFORE_THE_RUNNER = ("claimed", "slot taken")


class BoomError(Exception):
    """What the runner raises where it is to fail."""


@dataclass
class Runner:
    """Runs as the version that is set, and fails for the parameters that are set, with half a file written."""

    log: Path
    version: str = "1"
    raises: frozenset[float] = frozenset()

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        if params["a"] in self.raises:
            append_line(self.log, params["id"])
            Path(params["result_file"]).write_bytes(b"half")
            raise BoomError(params["a"])
        return VersionedRunner(self.log, self.version)(params)


@dataclass(frozen=True)
class Row:
    """A row as it must be, and the content that its result had when the row was written."""

    content: bytes
    custom: dict[str, Any]
    path: Path
    is_run: bool
    written: int
    """When it was made; a registered row keeps it when its ``custom_data`` changes."""


@dataclass(frozen=True)
class Line:
    """A finished run that was not committed, as a killed process left it."""

    a: float
    content: bytes
    version: str
    replaces: bytes | None
    is_moved: bool
    ended: int


@dataclass
class Model:
    """What the rows, the files and the leftovers must be; plain dictionaries by parameter and by path."""

    results: Path
    key: Callable[[float], str]
    rows: dict[float, Row] = field(default_factory=dict)
    disk: dict[Path, bytes] = field(default_factory=dict)
    quarantined: list[bytes] = field(default_factory=list)
    line: Line | None = None
    claim: float | None = None
    """The key whose claim a killed process left."""
    has_dead_folder: bool = False
    failed: dict[float, int] = field(default_factory=dict)
    completed: dict[float, int] = field(default_factory=dict)
    calls: int = 0
    clock: int = 0

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def final(self, a: float) -> Path:
        return self.results / f"{self.key(a)}.txt"

    def is_inside(self, path: Path) -> bool:
        return path.parent == self.results

    def has_result(self, a: float) -> bool:
        return a in self.rows and self.rows[a].path in self.disk

    def is_lost_for_good(self, a: float) -> bool:
        """Whether the result is a registered file outside the folder that is gone: no run may replace it."""
        row = self.rows.get(a)
        return row is not None and row.path not in self.disk and not self.is_inside(row.path)

    def commit(self, a: float, content: bytes, custom: dict[str, Any], ended: int) -> None:
        self.disk[self.final(a)] = content
        self.rows[a] = Row(content, custom, self.final(a), True, ended)
        self.completed[a] = max(ended, self.completed.get(a, 0))

    def recover(self) -> int:
        line, self.line, self.claim, self.has_dead_folder = self.line, None, None, False
        if line is None or not self.is_wanted(line):
            return 0
        self.commit(line.a, line.content, {"version": line.version}, line.ended)
        return 1

    def is_wanted(self, line: Line) -> bool:
        if line.is_moved and self.disk.get(self.final(line.a)) != line.content:
            return False
        row = self.rows.get(line.a)
        if row is not None and row.content == line.content:
            return line.replaces is not None and self.disk.get(row.path) != row.content
        return row is None or row.content == line.replaces

    def obtain(self, a: float, content: bytes | None, custom: dict[str, Any], *, is_forced: bool) -> bool:
        """Run or retrieve; a *content* of None is a runner that raises. Return whether it raised."""
        if not is_forced and self.has_result(a):
            return False
        self.take_over(a)
        if not is_forced and self.has_result(a):
            return False
        self.calls += 1
        if content is None:
            self.failed[a] = self.tick()
            return True
        self.commit(a, content, custom, self.tick())
        return False

    def take_over(self, a: float) -> None:
        """Claim a key; whoever takes it from a dead process recovers what that had finished."""
        if self.claim == a:
            self.recover()

    def failures(self) -> list[float]:
        def is_settled(a: float, when: int) -> bool:
            return self.completed.get(a, 0) > when or (a in self.rows and self.rows[a].written > when)

        return [
            a for a, when in sorted(self.failed.items(), key=lambda one: one[1]) if not is_settled(a, when)
        ]

    def check(self, *, checksum: bool, fix: bool) -> list[tuple[str, str | None, bool]]:
        """Do what check does; return kind, id or basename, and whether it was fixed, of each finding."""
        if fix:
            self.recover()
        found: list[tuple[str, str | None, bool]] = []
        for a, row in list(self.rows.items()):
            there = self.disk.get(row.path)
            if there is None:
                is_fixed = fix and self.is_inside(row.path)
                found.append(("missing-file", self.key(a), is_fixed))
            elif len(there) != len(row.content) or (checksum and there != row.content):
                is_fixed = fix and row.is_run
                found.append(("corrupt-file", self.key(a), is_fixed))
                if is_fixed:
                    self.quarantined.append(self.disk.pop(row.path))
            else:
                continue
            if is_fixed:
                del self.rows[a]
        known = {row.path for row in self.rows.values()}
        strays = [path for path in self.disk if self.is_inside(path) and path not in known]
        found += [("stray-file", path.name, False) for path in strays]
        if self.line is not None and (not self.line.is_moved or self.is_wanted(self.line)):
            found.append(("unfinished", self.key(self.line.a), False))
        if self.has_dead_folder:
            found.append(("abandoned", None, False))
        if self.claim is not None:
            found.append(("abandoned", self.key(self.claim), False))
        return sorted(found, key=str)


STORES = st.integers(0, 1)
VALUES = [1.0, 2.0, 3.0]
PARAMETERS = st.sampled_from(VALUES)
VERSIONS = st.sampled_from(["1", "2", "3"])
NOTES = st.integers(0, 3)


class TwoStores(RuleBasedStateMachine):
    """Drives two Stores, and the model beside them."""

    def __init__(self, new_url: Callable[[Path], Any]) -> None:
        super().__init__()
        self.resources = ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="entropic-stateful-"))
        self.resources.callback(shutil.rmtree, folder)
        self.place = Place(self.resources.enter_context(new_url(folder)), folder)
        self.inspector = Database(self.place.url)
        self.resources.callback(self.inspector.dispose)
        self.runner = Runner(folder / "calls.log")
        self.stores = [self.opened(), self.opened()]
        keys = {a: self.stores[0].key({"a": a}) for a in (1.0, 2.0, 3.0)}
        self.model = Model(self.place.results, keys.__getitem__)
        (folder / "elsewhere").mkdir()

    def opened(self) -> Store[cases.Sim]:
        return Store(self.runner, cases.Sim, self.place.results, ".txt", self.place.url, wait_timeout_s=20.0)

    def teardown(self) -> None:
        for store in self.stores:
            store.database.dispose()
        self.resources.close()

    def content(self, a: float, version: str) -> bytes:
        return VersionedRunner(self.runner.log, version).result(a)

    def set_runner(self, version: str, raises: frozenset[float] = frozenset()) -> None:
        self.runner.version, self.runner.raises = version, raises

    # What users do

    @rule(
        who=STORES, a=PARAMETERS, version=VERSIONS, note=NOTES, fails=st.booleans(), is_forced=st.booleans()
    )
    def run_or_retrieve_or_run(
        self, who: int, a: float, version: str, note: int, fails: bool, is_forced: bool
    ) -> None:
        self.set_runner(version, frozenset({a} if fails else ()))
        call = self.stores[who].run if is_forced else self.stores[who].run_or_retrieve
        if not is_forced and self.model.is_lost_for_good(a):
            with pytest.raises(ResultFileMissingError):
                call({"a": a}, note=note)
            return
        content = None if fails else self.content(a, version)
        custom = {"version": version, "note": note}
        if self.model.obtain(a, content, custom, is_forced=is_forced):
            with pytest.raises(BoomError):
                call({"a": a}, note=note)
        else:
            self.assert_record(call({"a": a}, note=note), a)

    @rule(who=STORES, a=PARAMETERS)
    def retrieve(self, who: int, a: float) -> None:
        record = self.stores[who].retrieve({"a": a})
        if self.model.has_result(a):
            self.assert_record(record, a)
        else:
            assert record is None

    @rule(
        who=STORES,
        order=st.lists(PARAMETERS, max_size=4),
        version=VERSIONS,
        raises=st.sets(PARAMETERS, max_size=1),
        on_error=st.sampled_from(["raise", "continue"]),
    )
    def sweep(self, who: int, order: list[float], version: str, raises: set[float], on_error: str) -> None:
        self.set_runner(version, frozenset(raises))
        grid = [{"a": a} for a in order]
        distinct = list(dict.fromkeys(order))
        if any(self.model.is_lost_for_good(a) for a in distinct):
            with pytest.raises(ResultFileMissingError):
                self.stores[who].sweep(grid, progress=False)
            return
        missing = [a for a in distinct if not self.model.has_result(a)]
        # A hit is the row as it was looked up: what recovery puts in its place after that is the next call's.
        hits = {a: self.model.rows[a] for a in distinct if a not in missing}
        if missing:
            self.model.recover()
        failed = [
            a
            for a in missing
            if self.model.obtain(
                a,
                None if a in raises else self.content(a, version),
                {"version": version},
                is_forced=False,
            )
        ]
        if failed and on_error == "raise":
            with pytest.raises(BoomError):
                self.stores[who].sweep(grid, progress=False, on_error=on_error)
            return
        result = self.stores[who].sweep(grid, progress=False, on_error=on_error)
        expected = [a for a in distinct if a not in failed]
        assert [record.a for record in result] == expected
        assert [one.params["a"] for one in result.failed] == failed
        for record in result:
            self.assert_record(record, record.a, hits.get(record.a))

    @rule(
        who=STORES,
        a=PARAMETERS,
        where=st.sampled_from(["inside", "outside", "in place"]),
        content=st.sampled_from([b"made elsewhere", b"made elsewhere too"]),
        note=NOTES,
        overwrite=st.booleans(),
    )
    def register(self, who: int, a: float, where: str, content: bytes, note: int, overwrite: bool) -> None:
        model = self.model
        name = f"mine-{a:g}.txt"
        path = {
            "inside": self.place.results / name,
            "outside": self.place.folder / "elsewhere" / name,
            "in place": model.final(a),
        }[where]
        if where != "in place":
            path.write_bytes(content)
            model.disk[path] = content

        def call() -> Any:
            return self.stores[who].register({"a": a}, path, overwrite=overwrite, note=note)

        if path not in model.disk:
            with pytest.raises(ResultFileMissingError):
                call()
            return
        row = model.rows.get(a)
        if row is not None and (row.path, row.content) == (path, model.disk[path]):
            model.rows[a] = replace(row, custom={"note": note})
        elif row is not None and not overwrite:
            with pytest.raises(AlreadyExistsError):
                call()
            return
        else:
            model.take_over(a)
            if a in model.rows and not overwrite:  # it was finished by the process that was killed
                with pytest.raises(AlreadyExistsError):
                    call()
                return
            model.rows[a] = Row(model.disk[path], {"note": note}, path, False, model.tick())
        self.assert_record(call(), a)

    @rule(who=STORES, a=PARAMETERS, remove_file=st.booleans())
    def delete(self, who: int, a: float, remove_file: bool) -> None:
        row = self.model.rows.pop(a, None)
        if row is not None and remove_file:
            self.model.disk.pop(row.path, None)

        assert self.stores[who].delete({"a": a}, remove_file) is (row is not None)

    @rule(who=STORES)
    def reopen(self, who: int) -> None:
        self.stores[who].database.dispose()
        self.stores[who] = self.opened()
        self.model.recover()

    # What goes wrong

    @rule(a=PARAMETERS, point=st.sampled_from(POINTS), version=VERSIONS, is_forced=st.booleans())
    def crash(self, a: float, point: str, version: str, is_forced: bool) -> None:
        """Kill a process at *point* of a run, unless there is nothing to run."""
        (outcome,) = outcomes_of(cases.run_until, [(self.place, point, {"a": a}, version, is_forced)])
        model = self.model
        model.recover()  # it opened a Store
        if not is_forced and model.has_result(a):
            assert outcome.finished, outcome
            return
        if not is_forced and model.is_lost_for_good(a):
            assert "ResultFileMissingError" in outcome.traceback
            return
        assert outcome.exitcode == -9, outcome
        model.calls += point not in BEFORE_THE_RUNNER
        model.has_dead_folder = point != "claimed"
        content = self.content(a, version)
        if point == "committed":
            model.commit(a, content, {"version": version}, model.tick())
            return
        model.claim = a
        if point in FINISHED:
            former = model.rows.get(a)
            is_moved = point == "file moved"
            model.line = Line(a, content, version, former.content if former else None, is_moved, model.tick())
            if is_moved:
                model.disk[model.final(a)] = content

    @rule(data=st.data(), how=st.sampled_from(["deleted", "flipped", "truncated"]))
    def damage(self, data: st.DataObject, how: str) -> None:
        """Spoil one result by hand."""
        paths = sorted({row.path for row in self.model.rows.values()} & self.model.disk.keys())
        if not paths:
            return
        path = data.draw(st.sampled_from(paths))
        content = self.model.disk[path]
        if how == "deleted" or not content:
            path.unlink()
            del self.model.disk[path]
            return
        changed = content[:-1] if how == "truncated" else bytes([content[0] ^ 1]) + content[1:]
        path.write_bytes(changed)
        self.model.disk[path] = changed

    # What mends it

    @rule(who=STORES)
    def recover(self, who: int) -> None:
        assert self.stores[who].recover() == self.model.recover()
        self.assert_checked(who, checksum=True, fix=False)

    @rule(who=STORES, checksum=st.booleans(), fix=st.booleans())
    def check(self, who: int, checksum: bool, fix: bool) -> None:
        self.assert_checked(who, checksum=checksum, fix=fix)

    def assert_checked(self, who: int, *, checksum: bool, fix: bool) -> None:
        expected = self.model.check(checksum=checksum, fix=fix)
        report = self.stores[who].check(checksum=checksum, fix=fix)
        found = [
            (one.kind, Path(one.path).name if one.kind == "stray-file" else one.id, one.is_fixed)
            for one in report
        ]
        assert sorted(found, key=str) == expected, str(report)

    # What must hold after each step

    def assert_record(self, record: Any, a: float, row: Row | None = None) -> None:
        row = row or self.model.rows[a]
        custom = {name: value for name, value in record.custom_data.items() if name != "elapsed_seconds"}
        assert (record.id, record.a, record.result_file, custom) == (
            self.model.key(a),
            a,
            str(row.path),
            row.custom,
        )

    @invariant()
    def both_stores_show_the_rows_of_the_model(self) -> None:
        for store in self.stores:
            records = {record.a: record for record in store.records()}
            assert records.keys() == self.model.rows.keys()
            assert store.count() == len(self.model.rows)
            for a, record in records.items():
                self.assert_record(record, a)

    @invariant()
    def files_are_those_of_the_model(self) -> None:
        visible = [path for path in self.place.results.iterdir() if not path.name.startswith(".entropic")]
        outside = (self.place.folder / "elsewhere").iterdir()

        assert {path: path.read_bytes() for path in [*visible, *outside]} == self.model.disk
        self.clear_strays()

    def clear_strays(self) -> None:
        """Remove what lies under the name of a run's result and is no row's: a run would take another name then.

        Which one is drawn anew each time, and so not the model's to say; `test_store_own_files` is about these.
        """
        model = self.model
        kept = {row.path for row in model.rows.values()}
        if model.line is not None and model.line.is_moved:
            kept.add(model.final(model.line.a))
        for a in VALUES:
            if model.final(a) in model.disk.keys() - kept:
                model.disk.pop(model.final(a))
                model.final(a).unlink()

    @invariant()
    def file_records_are_those_of_the_model(self) -> None:
        records = {
            row.record_id: (row.name, row.sha256, row.attempt is not None)
            for row in self.sql("SELECT record_id, name, sha256, attempt FROM entropic_files")
        }

        assert records == {
            self.model.key(a): (
                row.path.name if self.model.is_inside(row.path) else str(row.path),
                hashlib.sha256(row.content).hexdigest(),
                row.is_run,
            )
            for a, row in self.model.rows.items()
        }

    @invariant()
    def nothing_is_claimed_but_by_the_dead(self) -> None:
        claimed = [row.record_id for row in self.sql("SELECT record_id FROM entropic_claims")]

        assert claimed == ([] if self.model.claim is None else [self.model.key(self.model.claim)])

    @invariant()
    def only_the_dead_leave_files_in_the_state_folder(self) -> None:
        own = {sidecars.PROCESS, sidecars.SIDECAR}
        folders = {folder.name: folder for folder in self.place.state_folders()}
        ours = folders.pop(this_process().owner, None)
        left = [path for path in ours.rglob("*") if path.is_file()] if ours else []
        quarantine = self.place.results / roots.STATE / roots.QUARANTINE

        assert {path.name for path in left} <= own
        assert len(folders) == int(self.model.has_dead_folder)
        assert sorted(path.read_bytes() for path in quarantine.rglob("*.txt")) == sorted(
            self.model.quarantined
        )

    @invariant()
    def runs_are_those_of_the_model(self) -> None:
        calls = self.place.runner().calls

        assert len(calls) == self.model.calls
        assert [one.params["a"] for one in self.stores[0].failures()] == self.model.failures()

    def sql(self, statement: str) -> list[Any]:
        with self.inspector.engine.connect() as connection:
            return list(connection.execute(text(statement)))


@contextmanager
def sqlite_file(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder / 'entropic.sqlite3'}"


def drive(new_url: Callable[[Path], Any], *, examples: int, steps: int, **options: Any) -> None:
    run_state_machine_as_test(
        lambda: TwoStores(new_url),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            # What is tried is the same each time: chance finds its bugs where somebody watches.
            derandomize=True,
            # A step may start a process, or wait for a disk.
            suppress_health_check=[HealthCheck.too_slow],
            **options,
        ),
    )


def test_two_stores_do_what_a_dictionary_does():
    drive(sqlite_file, examples=6, steps=15)


@pytest.mark.slow
def test_two_stores_do_what_a_dictionary_does_for_long():
    drive(sqlite_file, examples=100, steps=25)


@pytest.mark.slow
def test_two_stores_on_a_server_do_what_a_dictionary_does(postgres_server):
    drive(lambda folder: servers.postgres_database(postgres_server), examples=15, steps=15)
