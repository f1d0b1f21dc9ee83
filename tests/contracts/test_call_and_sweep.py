"""A call and a sweep of one do the same in every state that a key can be in.

A state is the key's row, its claim and what the sidecar of a process that is gone says of it; all of it is written past
the code under test, after the Store was opened, which would have recovered. A sweep has no forced form: `Store.run` is
held against what it promises in every state instead, one run that replaces what there is, unless somebody is at it.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from entropic import ClaimTimeoutError, ResultFileMissingError
from entropic.process.identity import Process, this_process
from entropic.process.patience import Patience
from tests.support.protocol_cases import Place

pytestmark = pytest.mark.usefixtures("leases_end_at_once")

PARAMS = {"a": 1.5}
ROWS = ("none", "there", "file gone", "other digest", "other, file gone", "registered", "registered, gone")
CLAIMS = ("none", "live other's", "dead", "over", "own and orphaned")
SIDECARS = ("none", "finished", "a re-run's", "torn")

FIRST, OTHER, LINE = b"of the first run", b"of some other run", b"of the run in the sidecar"


class Outcome(NamedTuple):
    """What a call or a sweep came to, as far as it is to be the same."""

    result: bytes | type[BaseException] | None
    runs: int
    row: Any
    file: Any
    attempts: Counter[str]
    claims: list[Any]
    files: dict[str, bytes]


class Lab:
    """One database, folder and Store, put into one state after the other."""

    def __init__(self, folder: Path, dead: Process) -> None:
        self.place = Place(f"sqlite:///{folder / 'entropic.sqlite3'}", folder)
        self.dead = dead
        self.elsewhere = replace(dead, host="elsewhere", boot="another")
        self.store = self.place.store()
        self.store._patience = Patience(limit_s=0.0, first_pause_s=0.001)
        self.key = self.store.key(PARAMS)
        self.path = self.place.results / f"{self.key}.txt"
        self.registered = folder / "registered.txt"
        self.runs = self.place.runner("new").result(1.5)
        self.store.runner = self.place.runner("new")
        self.connection = sqlite3.connect(folder / "entropic.sqlite3", isolation_level=None)
        self.connection.execute("PRAGMA synchronous=OFF")

    def sql(self, statement: str, *values: Any) -> list[Any]:
        return self.connection.execute(statement, values).fetchall()

    def insert(self, table: str, **values: Any) -> None:
        marks = ", ".join("?" * len(values))
        self.sql(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", *values.values())

    def put(self, row: str, claim: str, sidecar: str) -> None:
        """Put the key into a state."""
        for table in ("protocol_sims", "entropic_files", "entropic_attempts", "entropic_claims"):
            self.sql(f"DELETE FROM {table}")
        for path in self.place.results.glob("*.txt"):
            path.unlink()
        for folder in self.place.state_folders():
            if folder.name != this_process().owner:
                shutil.rmtree(folder)
        (self.place.folder / "calls.log").write_text("")
        if row != "none":
            self._put_row(OTHER if row.startswith("other") else FIRST, row)
        if claim != "none":
            self._put_claim(claim)
        if sidecar != "none":
            self._put_line(sidecar)

    def _put_row(self, data: bytes, row: str) -> None:
        is_registered = row.startswith("registered")
        path, attempt = (self.registered, None) if is_registered else (self.path, uuid4().hex)
        path.write_bytes(data)
        self.insert(
            "protocol_sims",
            id=self.key, a=1.5, b=0, result_file=str(path), created_at="2026-01-01 00:00:00.000000", custom_data="{}",
        )  # fmt: skip
        self.insert(
            "entropic_files",
            table_name="protocol_sims", record_id=self.key, attempt=attempt,
            name=str(path) if is_registered else path.name, size_bytes=len(data), sha256=sha256(data).hexdigest(),
        )  # fmt: skip
        if row.endswith("gone"):
            path.unlink()

    def _put_claim(self, claim: str) -> None:
        process = {
            "live other's": self.elsewhere, "over": self.elsewhere, "dead": self.dead,
            "own and orphaned": this_process(),
        }[claim]  # fmt: skip
        now = time.time()
        self.insert(
            "entropic_claims",
            table_name="protocol_sims", record_id=self.key, token=uuid4().hex, acquired_at=now - 100,
            expires_at=now + (-50 if claim == "over" else 1000), **asdict(process),
        )  # fmt: skip

    def _put_line(self, sidecar: str) -> None:
        folder = self.place.results / ".entropic" / uuid4().hex
        (folder / "0").mkdir(parents=True)
        process = asdict(self.dead)
        (folder / "process.json").write_text(json.dumps({**process, "holder": process}))
        (folder / "0" / self.path.name).write_bytes(LINE)
        marker = self.store._table.marker
        line = {
            "database": marker.database, "table": marker.table, "record_id": self.key, "attempt": uuid4().hex,
            "folder": folder.name, "slot": "0", "name": self.path.name, "size_bytes": len(LINE),
            "sha256": sha256(LINE).hexdigest(), "stored": {"a": 1.5, "b": 0}, "custom": {}, "returned": {},
            "replaces": sha256(FIRST).hexdigest() if sidecar == "a re-run's" else None,
            "started_at": 1.0, "elapsed_s": 2.0, "is_folder": False,
            "where": {"owner": self.dead.owner, "host": "h", "pid": 1, "worker": None, "batch_job": None},
        }  # fmt: skip
        text = json.dumps(line)
        (folder / "sidecar.jsonl").write_text(text[: len(text) // 2] if sidecar == "torn" else f"{text}\n")

    def outcome(self, call: Any) -> Outcome:
        """Do *call* and return what it came to."""
        try:
            result: Any = Path(call().result_file).read_bytes()
        except (ClaimTimeoutError, ResultFileMissingError) as error:
            result = type(error)
        return self.look()._replace(result=result)

    def look(self) -> Outcome:
        """Return what there is."""
        files = [*self.place.results.glob("*.txt"), self.registered]
        return Outcome(
            None,
            len(self.place.runner().calls),
            self.sql("SELECT id, a, b, result_file FROM protocol_sims"),
            self.sql("SELECT name, size_bytes, sha256 FROM entropic_files"),
            Counter(state for (state,) in self.sql("SELECT state FROM entropic_attempts")),
            self.sql("SELECT owner, expires_at > 0 FROM entropic_claims"),
            {path.name: path.read_bytes() for path in files if path.exists()},
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = replace(this_process(), owner=uuid4().hex, pid=ended.pid, started="1")
    made = Lab(tmp_path_factory.mktemp("lab"), dead)
    yield made
    made.connection.close()
    made.store.database.dispose()


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("sidecar", SIDECARS)
def test_call_and_sweep_of_one_do_the_same(lab, row, claim, sidecar):
    def sweep() -> Any:
        (record,) = lab.store.sweep([PARAMS], progress=False)
        return record

    lab.put(row, claim, sidecar)
    called = lab.outcome(lambda: lab.store.run_or_retrieve(PARAMS))
    lab.put(row, claim, sidecar)
    swept = lab.outcome(sweep)

    assert swept == called
    if row in {"there", "other digest", "registered"}:
        assert called.runs == 0
    elif row == "registered, gone":
        assert called.result is ResultFileMissingError
    elif claim == "live other's":
        assert called.result is ClaimTimeoutError
    else:
        is_finished = sidecar == "finished" and row == "none"
        is_rerun = sidecar == "a re-run's" and row in {"none", "file gone"}
        assert (called.runs, called.claims) == (0 if is_finished or is_rerun else 1, [])
        assert called.result == (LINE if is_finished or is_rerun else lab.runs)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("sidecar", SIDECARS)
def test_forced_call_runs_once_and_replaces_whatever_there_is_unless_somebody_is_at_it(
    lab, row, claim, sidecar
):
    lab.put(row, claim, sidecar)
    before = lab.look()
    forced = lab.outcome(lambda: lab.store.run(PARAMS))

    if claim == "live other's":
        assert forced == before._replace(result=ClaimTimeoutError)
        return
    assert (forced.result, forced.runs, forced.claims) == (lab.runs, 1, [])
    assert [path for *_, path in forced.row] == [str(lab.path)]
    assert forced.file == [(lab.path.name, len(lab.runs), sha256(lab.runs).hexdigest())]
    assert forced.files[lab.path.name] == lab.runs
    assert forced.files.get("registered.txt") == before.files.get("registered.txt")
