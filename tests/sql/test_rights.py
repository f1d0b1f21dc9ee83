"""What a user of a server may not do is said when a Store opens, in words of GRANT, and nothing is found out later."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text

from entropic import Base, Database, Mapped, SchemaError, Store, memoize
from entropic.disk.roots import MARKER

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")


class Allowed(Base):
    __tablename__ = "allowed"
    n: Mapped[int]


class Unknown(Base):
    __tablename__ = "unknown_yet"
    n: Mapped[int]


class Percent(Base):
    __tablename__ = "100%_%(of)s"
    n: Mapped[int]


def write(params):
    Path(params["result_file"]).write_text(str(params["n"]))


def open_store(url, folder, model=Allowed):
    return Store(write, model, folder, ".txt", url)


@contextmanager
def role_on(url: str, rights: str) -> Iterator[str]:
    """Make a role that has *rights* on all tables of a database, and yield the URL for it."""
    name = f"e{uuid4().hex[:12]}"
    made = make_url(url)
    is_mysql = made.get_backend_name() == "mysql"
    role, tables = (
        (f"'{name}'@'%'", f"{made.database}.*") if is_mysql else (name, "ALL TABLES IN SCHEMA public")
    )
    with Database(url).engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"CREATE USER {role}"))
        connection.execute(text(f"GRANT {rights} ON {tables} TO {role}"))
        try:
            yield made.set(username=name).render_as_string(hide_password=False)
        finally:
            if not is_mysql:
                connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP USER {role}"))


@pytest.fixture
def folder(server_url, tmp_path):
    """A results folder with a run of one who may do everything."""
    store = open_store(server_url, tmp_path / "results")
    store.run_or_retrieve({"n": 1})
    store.close()
    return tmp_path / "results"


def grants_of(message: str) -> list[str]:
    """Return the statements that a message asks for."""
    asked = message.partition("Let the owner of the tables run: ")[2].partition("; or make")[0]
    return asked.split("; ")


def test_table_with_a_percent_sign_is_asked_for_by_its_name(server_url, tmp_path):
    store = open_store(server_url, tmp_path, Percent)

    assert Path(store.run_or_retrieve({"n": 1}).result_file).read_text() == "1"
    store.close()


LACKING = ("INSERT", "UPDATE", "DELETE")


@pytest.mark.parametrize("lacking", [("INSERT",), ("UPDATE",), ("DELETE",), LACKING], ids=", ".join)
def test_role_that_may_not_write_reads_is_told_its_grants_and_writes_once_it_has_them(
    server_url, folder, lacking, caplog
):
    given = ", ".join(right for right in RIGHTS if right not in lacking)
    with role_on(server_url, given) as url:
        store = open_store(url, folder)
        said = [record.getMessage() for record in caplog.records if "may not write" in record.getMessage()]
        read = store.retrieve({"n": 1}, verify=True)
        with pytest.raises(SchemaError, match=f"it lacks {', '.join(lacking)} on allowed") as caught:
            store.run_or_retrieve({"n": 2})
        owner = Database(server_url)
        for grant in grants_of(str(caught.value)):
            owner.write(lambda connection, grant=grant: connection.execute(text(grant)))
        ran = store.run_or_retrieve({"n": 2})
        store.close()

    assert said == [str(caught.value)]
    assert Path(read.result_file).read_text() == "1"
    assert Path(ran.result_file).read_text() == "2"


def test_role_that_may_only_select_is_told_that_a_table_is_missing(server_url, folder, tmp_path):
    with (
        role_on(server_url, "SELECT") as url,
        pytest.raises(SchemaError, match="lacks tables, and this user may not make them"),
    ):
        open_store(url, tmp_path / "other", Unknown)


def test_role_that_may_only_select_is_told_that_nobody_registered_its_table(server_url, folder, tmp_path):
    database = Database(server_url)
    database.write(lambda connection: Unknown.__table__.create(connection))
    with (
        role_on(server_url, "SELECT") as url,
        pytest.raises(SchemaError, match=r"register the table.*somebody who may open the Store once"),
    ):
        open_store(url, tmp_path / "other", Unknown)


def test_role_that_may_not_alter_is_told_that_a_parameter_is_new(server_url, tmp_path):
    def grown(n: int) -> int:
        return n

    options = {"results_dir": tmp_path / "results", "table": "grown"}
    memoize(grown, db_url=server_url, **options)(1)

    def grown(n: int, m: int = 2) -> int:
        return n * m

    with role_on(server_url, ", ".join(RIGHTS)) as url:
        function = memoize(grown, db_url=url, **options)
        with pytest.raises(SchemaError, match="bring it up to date"):
            function(1)


def read_only(url: str) -> str:
    """Return a URL of sessions that are as on a server of which nobody may write, such as a replica."""
    made = make_url(url)
    if made.get_backend_name() == "mysql":
        query = {"init_command": "SET SESSION TRANSACTION READ ONLY"}
    else:
        query = {"options": "-c default_transaction_read_only=on"}
    return made.update_query_dict(query).render_as_string(hide_password=False)


def test_replica_gives_hits_and_is_told_as_one_before_anything_runs(server_url, folder, caplog):
    store = open_store(read_only(server_url), folder)
    read = store.run_or_retrieve({"n": 1})
    for call in (lambda: store.run_or_retrieve({"n": 2}), lambda: store.sweep([{"n": 1}, {"n": 2}])):
        with pytest.raises(SchemaError, match="may only be read"):
            call()
    store.close()

    assert Path(read.result_file).read_text() == "1"
    assert [record.getMessage() for record in caplog.records if "may only be read" in record.getMessage()]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("to", ["the same folder", "another folder"])
def test_role_that_may_only_select_adopts_no_folder_and_leaves_its_marker(server_url, folder, tmp_path, to):
    marker = (folder / MARKER).read_bytes()
    if to == "another folder":
        folder = folder.rename(tmp_path / "other")
    with role_on(server_url, "SELECT") as url:
        store = open_store(url, folder)
        with pytest.raises(SchemaError, match="somebody who may"):
            store.adopt_root()
        store.close()

    assert (folder / MARKER).read_bytes() == marker
    ran = open_store(server_url, folder).run_or_retrieve({"n": 2})
    assert Path(ran.result_file).read_text() == "2"
