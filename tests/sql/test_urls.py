"""No secret of a URL is shown, wherever in it that stands: not by us, and not by a driver in our name."""

import logging
import pickle
import subprocess
import sys
import traceback

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from entropic import Base, Database, Mapped, Store, memoize
from entropic.functions.memoized import Memoizer
from entropic.sql import versions
from entropic.sql.urls import parse_url, scrub, shown

SECRETS = ("hunter2user", "hunter2pass", "hunter2query", "hunter2key")


class Sealed(Base):
    __tablename__ = "sealed"
    n: Mapped[int]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////data/db.sqlite3", "sqlite:////data/db.sqlite3"),
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


@pytest.mark.parametrize("text", ["hunter2", "postgresql://me@host:hunter2/db", "://hunter2"])
def test_text_that_is_no_url_is_not_repeated(text):
    with pytest.raises(ArgumentError) as caught:
        Database(text)

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
