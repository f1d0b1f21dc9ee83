"""A SQLite file that was removed, replaced, or lies where nobody may write: said, and nothing lost by it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from entropic import Base, Database, Mapped, SchemaError, Store
from tests.support.users import ALICE, BOB, GROUP, give, place_for_all


class Step(Base):
    __tablename__ = "file_steps"
    n: Mapped[int]


def step(params: dict[str, Any]) -> None:
    Path(params["result_file"]).write_text(str(params["n"]))


def open_store(folder: Path, database: Any = None) -> Store[Step]:
    return Store(step, Step, folder / "results", ".txt", database or f"sqlite:///{folder / 'steps.sqlite3'}")


def remove(folder: Path) -> None:
    for path in folder.glob("steps.sqlite3*"):
        path.unlink()


def test_nothing_is_run_once_the_file_is_removed(tmp_path):
    store = open_store(tmp_path)
    store.run_or_retrieve({"n": 1})
    remove(tmp_path)

    for call in (lambda: store.run({"n": 2}), lambda: store.sweep([{"n": 3}]), store.count):
        with pytest.raises(OperationalError, match="was removed while this process used it"):
            call()
    store.close()

    assert list(tmp_path.glob("steps.sqlite3*")) == []
    assert [path.name for path in (tmp_path / "results").glob("*.txt")] == [f"{store.key({'n': 1})}.txt"]


def test_what_had_finished_when_the_file_was_removed_is_kept_for_the_one_that_comes_back(tmp_path):
    aside = tmp_path / "aside"
    aside.mkdir()

    def lose_and_step(params: dict[str, Any]) -> None:
        for path in tmp_path.glob("steps.sqlite3*"):
            path.rename(aside / path.name)
        step(params)

    store = Store(
        lose_and_step, Step, tmp_path / "results", ".txt", f"sqlite:///{tmp_path / 'steps.sqlite3'}"
    )
    with pytest.raises(OperationalError, match="was removed"):
        store.run({"n": 1})
    store.close()
    for path in aside.iterdir():
        path.rename(tmp_path / path.name)

    again = open_store(tmp_path)

    assert again.retrieve({"n": 1}, verify=True) is not None
    again.close()


def test_file_that_replaces_another_is_the_one_that_is_used(tmp_path):
    """A backup is put back, by a rename, under a Store that is open."""
    store = open_store(tmp_path)
    store.run_or_retrieve({"n": 1})
    store.close()
    shutil.copy(tmp_path / "steps.sqlite3", tmp_path / "backup")
    store.run_or_retrieve({"n": 2})
    (tmp_path / "steps.sqlite3-wal").unlink()
    (tmp_path / "steps.sqlite3-shm").unlink()
    (tmp_path / "backup").rename(tmp_path / "steps.sqlite3")

    store.run_or_retrieve({"n": 3})

    assert sorted(record.n for record in store.records()) == [1, 3]
    store.close()
    other = open_store(tmp_path)
    assert sorted(record.n for record in other.records()) == [1, 3]
    other.close()


@pytest.mark.parametrize("is_engine", [False, True])
def test_who_opens_a_store_where_the_file_was_removed_begins_anew(tmp_path, is_engine):
    database: Any = create_engine(f"sqlite:///{tmp_path / 'steps.sqlite3'}") if is_engine else None
    first = open_store(tmp_path, database)
    first.run_or_retrieve({"n": 1})
    remove(tmp_path)
    shutil.rmtree(tmp_path / "results")

    second = open_store(tmp_path, database)

    assert second.count() == 0
    assert second.retrieve({"n": 1}) is None
    second.run_or_retrieve({"n": 2})
    assert (tmp_path / "steps.sqlite3").exists()
    second.close()
    if is_engine:
        database.dispose()


# Where nobody may write


@pytest.fixture
def disk() -> Iterator[Path]:
    with place_for_all() as folder:
        (folder / "disk").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder / "disk"]
        subprocess.run(mount, check=True)
        try:
            yield folder / "disk"
        finally:
            subprocess.run(["umount", "--lazy", folder / "disk"], check=True)


def make(folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context():
        store = open_store(folder)
        store.run_or_retrieve({"n": 1})
        store.close()
    return sorted(path.name for path in folder.iterdir())


def read(folder: Path) -> list[str]:
    store = open_store(folder)
    found = [Path(store.run_or_retrieve({"n": 1}).result_file).read_text(), str(store.count())]
    store.close()
    return found


def try_to_open(folder: Path) -> str:
    try:
        open_store(folder).close()
    except SchemaError as error:
        return str(error)
    return "opened"


def test_file_that_was_closed_is_read_on_a_mount_that_is_only_read(disk):
    give(disk, ALICE.uid, GROUP, 0o755)
    assert ALICE.does(make, disk) == ["results", "steps.sqlite3"]
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    assert ALICE.does(read, disk) == ["1", "1"]


def test_file_on_a_mount_that_may_be_written_again_is_read_and_written(disk):
    make(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    store = open_store(disk)
    assert store.count() == 1
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)

    store.run_or_retrieve({"n": 2})

    other = Database(f"sqlite:///{disk / 'steps.sqlite3'}?timeout=5")
    assert open_store(disk, other).count() == store.count() == 2
    other.dispose()
    store.close()


def test_who_may_not_write_beside_a_closed_file_is_told_so():
    with place_for_all() as folder:
        give(folder, ALICE.uid, GROUP, 0o755)
        ALICE.does(make, folder)

        said = BOB.does(try_to_open, folder)

    assert "reads it only for a user who may write it and make files in" in said
    assert "lacks tables" not in said
    assert os.fspath(folder) in said
