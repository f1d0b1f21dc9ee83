"""No secret of a URL is shown, wherever in it that stands: not by us, and not by a driver in our name."""

import logging
import pickle
import subprocess
import sys
import traceback
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from entropic import Base, Database, Mapped, Store, memoize
from entropic.functions.memoized import Memoizer
from entropic.sql import outages, versions
from entropic.sql.urls import parse_url, scrub, shown

SECRETS = ("hunter2user", "hunter2pass", "hunter2query", "hunter2key")


class Sealed(Base):
    __tablename__ = "sealed"
    n: Mapped[int]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////data/db.sqlite3", "sqlite:////data/db.sqlite3"),
        ("sqlite:////data/lr=0.1;seed=3/db.sqlite3", "sqlite:////data/lr=0.1;seed=3/db.sqlite3"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///file:/data/x?mode=ro&uri=true&key=hunter2", None),
        ("postgresql+psycopg://me:hunter2@host:5432/lab", "postgresql+psycopg://***@host:5432/lab"),
        ("postgresql+psycopg:///lab?host=/run/pg", "postgresql+psycopg:///lab?host=/run/pg"),
        ("postgresql+psycopg://hunter2@host/lab", "postgresql+psycopg://***@host/lab"),
        (
            "postgresql+psycopg://host/lab?password=hunter2&sslpassword=hunter2",
            "postgresql+psycopg://host/lab?password=***&sslpassword=***",
        ),
        ("mysql+pymysql://root@127.0.0.1/x?passwd=hunter2", "mysql+pymysql://***@127.0.0.1/x?passwd=***"),
        ("mysql+pymysql://me:p@hunter2@host/x", None),
        ("postgresql+psycopg:///dbname=lab password=hunter2", None),
        ("postgresql+psycopg://h/x?host=hunter2:1&host=hunter2:2", None),
    ],
)
def test_url_is_shown_without_what_may_be_a_secret(url, expected):
    made = make_url(url)

    assert "hunter2" not in shown(made)
    assert expected is None or shown(made) == expected
    assert "hunter2" not in repr(Database(url))


@pytest.mark.parametrize("given", ["hunter2", "postgresql://me@host:hunter2/db", "://hunter2"])
def test_text_that_is_no_url_is_not_repeated(given):
    with pytest.raises(ArgumentError) as caught:
        Database(given)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "%40" in str(caught.value)


def test_what_others_say_is_scrubbed_in_each_form_of_a_secret():
    url = URL.create("postgresql+psycopg", "me", "p@ss/w'rd", "host", database="lab", query={"key": "s3cret"})

    said = scrub('bad key "s3cret" in me:p%40ss%2Fw%27rd@host or p@ss/w\'rd, at host', url)

    assert said == 'bad key "***" in me:***@host or ***, at host'


def open_store(url, tmp_path):
    return Store(print, Sealed, tmp_path / "results", ".txt", url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://hunter2user:hunter2pass@127.0.0.1:1/lab?connect_timeout=1&sslmode=hunter2query",
        "postgresql+psycopg://hunter2user:hunter2pass@127.0.0.1:1/lab?options=hunter2query&odd=hunter2key",
        "postgresql+psycopg://hunter2user:hunter2pass@127.0.0.1:1/lab?connect_timeout=1",
        "mysql+pymysql://hunter2user:hunter2pass@127.0.0.1:1/lab?ssl_ca=/hunter2query&read_timeout=1",
        "mysql+pymysql://hunter2user:hunter2pass@127.0.0.1:1/lab?ssl_check_hostname=hunter2query",
        "mysql+pymysql://hunter2user:hunter2pass@127.0.0.1:1/lab?read_timeout=hunter2query",
        "mysql+pymysql://127.0.0.1:1/lab?user=hunter2user&password=hunter2pass&init_command=hunter2query",
    ],
)
def test_store_that_cannot_be_opened_tells_no_secret(url, tmp_path, caplog):
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises((SQLAlchemyError, ValueError, TypeError, OSError, LookupError)) as caught,
    ):
        open_store(url, tmp_path)

    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    source = [line for line in told.splitlines() if "hunter2" in line]
    assert source == []


def test_pickles_reprs_and_texts_of_what_holds_a_url_tell_no_secret():
    url = "postgresql+psycopg://hunter2user:hunter2pass@host/lab?sslpassword=hunter2query"

    @memoize(db_url=url)
    def sealed(n: int) -> int:
        return n

    database = Database(url)
    holders = [database, sealed, Memoizer(db_url=url)]
    told = " ".join([*map(repr, holders), versions.upgrade_command(database)])
    pickled = pickle.dumps(database)

    assert [secret for secret in SECRETS if secret in told] == []
    assert [secret for secret in SECRETS if secret.encode() in pickled] == []
    assert pickle.loads(pickled).url == parse_url(url)


def told_by(error):
    """Return all that an error, and those that it came from, says of itself."""
    told, waiting = [], [error]
    while waiting:
        one = waiting.pop()
        if one is None or one in told:
            continue
        told.append(one)
        waiting += [one.__cause__, one.__context__]
    texts = [text for one in told for text in (str(one), repr(one), *getattr(one, "__notes__", ()))]
    return "".join([*traceback.format_exception(error), *texts])


def count(store):
    store.count()


def write_somewhere(store):
    statement = text("INSERT INTO entropic_meta (name, value) VALUES ('a', 'b')")
    store.database.write(lambda connection: connection.execute(statement))


def delete(store):
    store.delete({"n": 1})


def run(store):
    store.run_or_retrieve({"n": 2})


@contextmanager
def secret_role(url):
    """Yield the URL of a role that may only read, each part of it a secret, and what locks the role out."""
    name = f"hunter2{uuid4().hex[:12]}"
    made = make_url(url)
    is_mysql = made.get_backend_name() == "mysql"
    role = f"'{name}'@'%'" if is_mysql else name
    tables = f"{made.database}.*" if is_mysql else "ALL TABLES IN SCHEMA public"
    query = {"init_command": "SET @a='hunter2query'"} if is_mysql else {"application_name": "hunter2query"}
    with Database(url).engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")

        def lock_out():
            if is_mysql:
                connection.execute(text(f"ALTER USER {role} IDENTIFIED BY 'other'"))
            else:
                connection.execute(text(f"ALTER ROLE {role} NOLOGIN"))

        how = "IDENTIFIED BY" if is_mysql else "PASSWORD"
        connection.execute(text(f"CREATE USER {role} {how} 'hunter2pass'"))
        connection.execute(text(f"GRANT SELECT ON {tables} TO {role}"))
        try:
            yield made.set(username=name, password="hunter2pass").update_query_dict(query), lock_out
        finally:
            if not is_mysql:
                connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP USER {role}"))


def test_statement_that_a_server_refuses_tells_no_secret(server_url, tmp_path):
    open_store(server_url, tmp_path).close()

    with secret_role(server_url) as (url, _):
        store = open_store(url, tmp_path)
        with pytest.raises(SQLAlchemyError) as caught:
            write_somewhere(store)
        store.database.dispose()

    assert "denied" in str(caught.value)
    assert "hunter2" not in told_by(caught.value)


@pytest.mark.parametrize("fail", [count, delete, run], ids=lambda fail: fail.__name__)
def test_server_that_lets_nobody_in_any_more_tells_no_secret(server_url, tmp_path, fail, caplog, monkeypatch):
    monkeypatch.setattr(outages, "AWAY", replace(outages.AWAY, limit_s=0.1, say_after_s=0.0))
    open_store(server_url, tmp_path).close()

    with secret_role(server_url) as (url, lock_out):
        store = open_store(url, tmp_path)
        caplog.clear()
        store.database.dispose()
        lock_out()
        with caplog.at_level(logging.DEBUG, "entropic"), pytest.raises(SQLAlchemyError) as caught:
            fail(store)

    assert "hunter2" not in told_by(caught.value) + caplog.text


@pytest.mark.parametrize(
    "query", ["vfs=hunter2query&uri=true", "timeout=hunter2query", "isolation_level=hunter2query"]
)
def test_sqlite_file_that_cannot_be_opened_tells_no_secret(tmp_path, query):
    with pytest.raises((SQLAlchemyError, ValueError, TypeError)) as caught:
        open_store(f"sqlite:///file:{tmp_path / 'runs.sqlite3'}?{query}", tmp_path)

    assert "hunter2" not in told_by(caught.value)


def test_users_name_is_taken_out_of_what_a_server_says_as_a_word_only():
    url = URL.create("mysql+pymysql", "walk", "pass", "host", database="lab")

    assert scrub("no walk for 'walk'@'%' in walks", url) == "no *** for '***'@'%' in walks"


def test_process_list_and_files_of_a_run_tell_no_secret(postgres_url, tmp_path):
    url = make_url(postgres_url).update_query_dict({"application_name": "hunter2query"})

    def run(params):
        listed.append(subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout)
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or b"hunter2" not in path.read_bytes()
        with open(params["result_file"], "w") as file:
            file.write("x")

    listed: list[str] = []
    store = Store(run, Sealed, tmp_path / "results", ".txt", url)
    store.run_or_retrieve({"n": 1})

    own = [line for line in listed[0].splitlines() if sys.executable in line or "heartbeat" in line]
    assert own
    assert not [line for line in own if "hunter2" in line]
    store.database.dispose()
