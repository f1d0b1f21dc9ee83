"""What goes on when the power is cut: scenarios of a Store, each a process under strace; and what must be there after.

``python -m tests.support.power_cases NAME FOLDER [FAULT]`` runs one on an empty folder. A *fault* leaves out one of the
syncs, so that a test can tell that the loss is noticed.
"""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from entropic import Base, Mapped, Store
from entropic.disk import staged, staging
from entropic.runs import publishing, recovery
from entropic.sql import schema_lock
from entropic.sql.database import Database
from tests.support.counting import append_line
from tests.support.power_cuts import SAY, Tree

RUN_S = 0.01


class Cut(Base):
    __tablename__ = "power_cuts"

    a: Mapped[float]


def contents(a: float) -> list[bytes]:
    """What a run of *a* may have written: the first time, and when it was run again."""
    return [f"run {n} of {a!r}\n".encode() * 700 for n in (1, 2)]  # some pages


class Runner:
    """Writes what `contents` says, in a moment."""

    def __init__(self, run: int = 1, kills: float | None = None) -> None:
        self.run = run
        self.kills = kills

    def __call__(self, params: dict[str, Any]) -> None:
        if params["a"] == self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(RUN_S)
        Path(params["result_file"]).write_bytes(contents(params["a"])[self.run - 1])


def store_in(folder: Path, **runner: Any) -> Store[Cut]:
    """Open the Store of a scenario."""
    return Store(
        Runner(**runner),
        Cut,
        folder / "results",
        db_url=f"sqlite:///{folder / 'runs.sqlite3'}",
        file_suffix=".txt",
    )


def _sets(first: int, count: int) -> list[dict[str, float]]:
    return [{"a": float(a)} for a in range(first, first + count)]


def _call(store: Store[Cut], a: float, folder: Path) -> None:
    record = store.run_or_retrieve({"a": a})
    append_line(folder.parent / SAY, record.id)


def sweep(folder: Path) -> None:
    """Single calls, then sweeps: in this process, and in two others."""
    store = store_in(folder)
    for a in (-1.0, -2.0):
        _call(store, a, folder)
    store.sweep(_sets(0, 60), progress=False)
    store.sweep(_sets(100, 20), workers=2, progress=False)
    _call(store, -3.0, folder)


def recovered(folder: Path) -> None:
    """Two processes that are killed, before the commit of a single call and in a sweep, and who comes after them."""
    for name in ("killed_call", "killed_sweep"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.power_cases", name, str(folder)], check=False
        )
        assert done.returncode == -signal.SIGKILL
    store = store_in(folder)
    _call(store, -2.0, folder)
    store.sweep(_sets(0, 30), progress=False)


def killed_call(folder: Path) -> None:
    """A single call whose process is killed when its run is noted."""
    store = store_in(folder)
    _call(store, -1.0, folder)
    publishing.move = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    store.run_or_retrieve({"a": -2.0})


def killed_sweep(folder: Path) -> None:
    """A sweep whose process is killed in the middle of a chunk."""
    store_in(folder, kills=20.0).sweep(_sets(0, 30), progress=False)


def emptied(folder: Path) -> None:
    """A sidecar that is emptied again and again, and runs that are run again."""
    staging.LINES = 4
    store = store_in(folder)
    for a in range(11):
        _call(store, float(a), folder)
    again = store_in(folder, run=2)
    for a in (1.0, 9.0):
        again.run({"a": a})
    _call(store, 20.0, folder)


SCENARIOS: list[Callable[[Path], None]] = [sweep, recovered, emptied]


# What is left out


def _results() -> None:
    staging.sync_together = lambda results: {}
    digest_at = staged.digest_at
    staged.digest_at = lambda *args, sync=False: digest_at(*args)


def _lines() -> None:
    staging.sync_data = lambda descriptor: None


def _names() -> None:
    publishing.sync_folder = lambda folder: None


def _commits() -> None:
    write = Database.write
    Database.write = lambda self, work, *, durable=False, **options: write(self, work, **options)  # type: ignore


def _short_runs() -> None:
    publishing.sync_runs = lambda root, receipts: {}


def _taken_over() -> None:
    recovery.sync_runs = lambda root, receipts: {}


def _database() -> None:
    schema_lock.synchronous = lambda connection, level: level


FAULTS: dict[str, tuple[str, Callable[[], None]]] = {
    "results are not synced": ("emptied", _results),
    "lines are not synced": ("emptied", _lines),
    "names are not synced before a sidecar is emptied": ("emptied", _names),
    "commits are not synced before a sidecar is emptied": ("emptied", _commits),
    "short runs of a sweep are not synced": ("recovered", _short_runs),
    "what a process has left is not synced": ("recovered", _taken_over),
    "a new database is not synced": ("emptied", _database),
}
"""Each with the scenario that it is noticed in."""


def leave_out_moves(patch: Any) -> None:
    """Let recoveries of this process not move again what a power cut has taken back."""
    patch.setattr(recovery, "_move_again", lambda *_: None)


# What must be there


def committed(tree: Tree, folder: Path) -> dict[str, str]:
    """Return the rows, by key the SHA-256 of each, that SQLite shows of a tree: written for it into *folder*."""
    folder.mkdir()
    for name, content in tree.contents().items():
        if name.startswith("runs.sqlite3") and content is not None:
            (folder / name).write_bytes(content)
    return _rows(folder / "runs.sqlite3")


def _rows(database: Path) -> dict[str, str]:
    with closing(sqlite3.connect(database)) as connection, suppress(sqlite3.OperationalError):
        return dict(connection.execute("SELECT record_id, sha256 FROM entropic_files"))
    return {}


def wrong_or_lost(folder: Path, expected: dict[str, str]) -> list[str]:
    """Open a Store on what a power cut left; return what is wrong in it, and what of *expected* it does not serve."""
    store = store_in(folder)
    try:
        problems, served = [], {}
        for record in store.records():
            with suppress(FileNotFoundError):
                content = Path(record.result_file).read_bytes()
                served[record.id] = hashlib.sha256(content).hexdigest()
                # Of a run again, which had finished, the result may have been committed since.
                known = [hashlib.sha256(one).hexdigest() for one in contents(record.a)]
                former = known.index(expected[record.id]) if record.id in expected else 0
                if served[record.id] not in known[former:]:
                    problems.append(f"{record.id} of {record.a} is wrong")
        problems += [f"{key} is lost" for key in expected if key not in served]
        said = _rows(folder / "runs.sqlite3")
        problems += [f"{key} is not what its row says" for key in served if served[key] != said[key]]
        return problems
    finally:
        store.database.dispose()


if __name__ == "__main__":
    for fault in sys.argv[3:]:
        FAULTS[fault][1]()
    globals()[sys.argv[1]](Path(sys.argv[2]))
