"""The page for groups, executed: real users, a real folder, and roles of a real PostgreSQL."""

import logging
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from entropic import Base, Database, Mapped, ResultsDirUnavailableError, SchemaError, Store
from tests.support.users import ALICE, BOB, GROUP, User, give, place_for_all

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "groups.md").read_text()
CAROL = User(47003, groups=(47003,))


class Walk(Base):
    __tablename__ = "group_walks"
    n: Mapped[int]


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Lab:
    """What the page makes: a folder, and the URL of the database for each role."""

    folder: Path
    url: str

    def url_of(self, role: str) -> str:
        return make_url(self.url).set(username=role).render_as_string(hide_password=False)


@pytest.fixture
def lab(postgres_server) -> Iterator[Lab]:
    url = postgres_server
    home = Path(str(url.query["host"]))
    mode = home.stat().st_mode
    dsn = {"host": str(home), "user": url.username, "port": url.port}
    making, reading = blocks("sql")
    with place_for_all() as folder, psycopg.connect(dbname=url.database, autocommit=True, **dsn) as server:
        home.chmod(0o711)  # the socket is in there, for other users too
        try:
            for statement in making.splitlines():
                server.execute(statement)
            folder_rules, _ = blocks("sh")
            subprocess.run(["sh", "-ec", folder_rules.replace("lab", str(GROUP))], cwd=folder, check=True)
            with psycopg.connect(dbname="runs", autocommit=True, **dsn) as inside:
                for statement in reading.splitlines():
                    inside.execute(statement)
            yield Lab(folder, url.set(database="runs").render_as_string(hide_password=False))
        finally:
            home.chmod(mode)
            server.execute("DROP DATABASE IF EXISTS runs WITH (FORCE)")
            for role in ("carol", "bob", "alice", "lab"):
                server.execute(f"DROP ROLE IF EXISTS {role}")


def umask_of_the_page() -> int:
    return int(re.fullmatch(r"umask (\d+)\n", blocks("sh")[1])[1], 8)


def member(user: User) -> User:
    return replace(user, umask=umask_of_the_page())


def walk(params: dict[str, Any]) -> None:
    Path(params["result_file"]).write_text(str(params["n"]))


def use(folder: Path, url: str, keys: list[int], want: list[int]) -> dict[str, Any]:
    """Open a Store, run *keys*, and read *want*; return what was read, said and raised."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("entropic").addHandler(handler)
    store = Store(walk, Walk, folder / "results", ".txt", url)
    raised = None
    try:
        for n in keys:
            store.run_or_retrieve({"n": n})
    except (ResultsDirUnavailableError, SchemaError) as error:
        raised = (type(error).__name__, str(error))
    read = [Path(record.result_file).read_text() for n in want if (record := store.retrieve({"n": n}))]
    store.database.dispose()
    # Python may lie where users cannot read.
    said = [text for text in said if "heartbeat process" not in text]
    return {"read": read, "said": said, "raised": raised}


def finish_and_leave(folder: Path, url: str) -> None:
    """Be killed after a run was finished, and before it was committed."""
    import os

    from entropic.runs import publishing

    def die(*_: Any) -> None:
        os._exit(9)

    publishing.Publisher.publish = die  # type: ignore[assignment]
    Store(walk, Walk, folder / "results", ".txt", url).run_or_retrieve({"n": 7})


def test_members_share_runs_and_recover_each_others(lab):
    alice, bob = member(ALICE), member(BOB)
    first = alice.does(use, lab.folder, lab.url_of("alice"), [1], [1])
    second = bob.does(use, lab.folder, lab.url_of("bob"), [1, 2], [1, 2])
    with pytest.raises(AssertionError, match="exit code 9"):
        alice.does(finish_and_leave, lab.folder, lab.url_of("alice"))

    third = bob.does(use, lab.folder, lab.url_of("bob"), [], [1, 2, 7])

    assert (first["read"], second["read"], third["read"]) == (["1"], ["1", "2"], ["1", "2", "7"])
    assert [one["raised"] for one in (first, second, third)] == [None] * 3
    assert first["said"] == second["said"] == []
    assert any("recovered" in text for text in third["said"])


def test_members_with_another_umask_share_runs_all_the_same(lab):
    ALICE.does(use, lab.folder, lab.url_of("alice"), [1], [1])

    second = BOB.does(use, lab.folder, lab.url_of("bob"), [2], [1, 2])

    assert (second["read"], second["raised"]) == (["1", "2"], None)
    assert all("is not believed" in text for text in second["said"])


def test_role_that_may_only_select_reads_and_is_told_before_anything_runs(lab):
    member(ALICE).does(use, lab.folder, lab.url_of("alice"), [1], [1])

    seen = member(BOB).does(use, lab.folder, lab.url_of("carol"), [1, 2], [1])

    assert seen["read"] == ["1"]
    assert seen["raised"][0] == "SchemaError"
    for text in (seen["raised"][1], *seen["said"]):
        assert "'carol' may not write" in text
        assert "GRANT INSERT, UPDATE, DELETE ON group_walks, entropic_claims" in text
    assert len(seen["said"]) == 1


def test_user_who_may_not_write_in_the_folder_reads_and_is_told_the_rights(lab):
    member(ALICE).does(use, lab.folder, lab.url_of("alice"), [1], [1])

    seen = CAROL.does(use, lab.folder, lab.url_of("bob"), [1, 2], [1])

    assert seen["read"] == ["1"]
    assert seen["raised"][0] == "ResultsDirUnavailableError"
    for text in (seen["raised"][1], *seen["said"]):
        assert f"uid {CAROL.uid}" in text
        assert f"group {GROUP}, mode 2775" in text
        assert "chgrp -R GROUP" in text
    assert len(seen["said"]) == 1


def read_sqlite(folder: Path) -> list[str]:
    database = Database(f"sqlite:///{folder / 'runs.sqlite3'}")
    store = Store(walk, Walk, folder / "results", ".txt", database)
    return [Path(store.run_or_retrieve({"n": 1}).result_file).read_text(), str(store.count())]


def make_sqlite(folder: Path) -> None:
    read_sqlite(folder)


def test_sqlite_file_on_a_read_only_mount_is_read():
    with place_for_all() as folder:
        (folder / "disk").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder / "disk"], check=True)
        try:
            give(folder / "disk", ALICE.uid, GROUP, 0o755)
            ALICE.does(make_sqlite, folder / "disk")
            subprocess.run(["mount", "-o", "remount,ro", folder / "disk"], check=True)

            assert ALICE.does(read_sqlite, folder / "disk") == ["1", "1"]
        finally:
            subprocess.run(["umount", "--lazy", folder / "disk"], check=True)
