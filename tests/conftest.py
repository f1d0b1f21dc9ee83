"""Fixtures that every test module may use: databases of each kind, and one Dask cluster."""

import fcntl
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import servers, small_disks

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client
    from sqlalchemy.engine import URL

    from entropic import Database
    from tests.support.protocol_cases import Place

SERVERS = ("postgresql", "mysql")
FORMER = ("entropic==2.3.0", "sqlalchemy>=2.0.49", "numpy")
DATABASES = ("sqlite-file", "sqlite-memory", *SERVERS)


def pytest_configure() -> None:
    # Where a shell has put pytest into the background SIGINT is ignored, also in the children that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nobody_has_options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no file or variable of whoever runs the tests say where results are."""
    from entropic.process.settings import NAMES, PREFIX, VARIABLE

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("XDG_CONFIG_HOME", VARIABLE, *(PREFIX + name.upper() for name in NAMES)):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def tables_are_compiled_once() -> Iterator[None]:
    """Keep the texts that make the library's tables: SQLAlchemy makes them anew for each of thousands of databases."""
    from sqlalchemy.schema import CreateTable

    from entropic.sql.columns import LibraryBase

    compile_anew = CreateTable.compile
    kept: dict[Any, Any] = {}

    def compile_once(create: Any, bind: Any = None, dialect: Any = None, **options: Any) -> Any:
        is_ours = create.element.metadata is LibraryBase.metadata and not any(options.values())
        if not is_ours or bind is not None or dialect is None:
            return compile_anew(create, bind, dialect, **options)
        kind = create.element.name, dialect.name, dialect.driver, dialect.server_version_info
        if kind not in kept:
            kept[kind] = compile_anew(create, bind, dialect, **options)
        return kept[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CreateTable, "compile", compile_once)
        yield


@pytest.fixture
def leases_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the end of a lease count at once in this process, though nobody has watched the claim."""
    from entropic.leases import claims

    monkeypatch.setattr(claims, "WATCHED", 0.0)


def pytest_collection_finish() -> None:
    # Of the thousands of tests nothing is garbage before the end: the collector need not look at them again and again.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    # pytest looks for garbage five times, which takes seconds; once tells as much of what finalizers have to say.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Close what the Stores of a test leave open, or thousands of tests use up the process's descriptors."""
    from entropic.disk import staging
    from entropic.runs import single
    from entropic.sql import database

    there, written, used = set(database._databases), set(staging._staging), set(single._used)
    yield
    for root in single._used.keys() - used:
        del single._used[root]  # or thousands of folders are looked at when the process ends
    for one in list(database._databases):
        if one not in there and not one.is_memory:
            one.dispose()
    for key in staging._staging.keys() - written:
        staging._staging[key]._close_sidecar()


@pytest.fixture
def sqlite_url(tmp_path: "Path") -> str:
    """URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'entropic.sqlite3'}"


@pytest.fixture
def place(tmp_path: "Path", sqlite_url: str) -> "Place":
    """Where a table of results is to be: on SQLite, and nothing of it yet."""
    from tests.support.protocol_cases import Place

    return Place(sqlite_url, tmp_path)


@pytest.fixture(scope="session")
def postgres_server() -> "Iterator[URL]":
    """The session's PostgreSQL server, started when a test first asks for it."""
    with servers.postgres_server() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: "URL") -> Iterator[str]:
    """URL of an empty PostgreSQL database, ``postgresql+psycopg://…``."""
    with servers.postgres_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def mysql_server() -> "Iterator[URL]":
    """The session's MariaDB server, started when a test first asks for it, or a MySQL that runs already."""
    with servers.mysql_server() as url:
        yield url


@pytest.fixture
def mysql_url(mysql_server: "URL") -> Iterator[str]:
    """URL of an empty MariaDB or MySQL database, ``mysql+pymysql://…``."""
    with servers.mysql_database(mysql_server) as url:
        yield url


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, once for each kind of database."""
    return _url_of(request)


@pytest.fixture
def database(database_url: str) -> "Iterator[Database]":
    """An empty database, once for each kind of database; closed afterwards."""
    yield from _opened(database_url)


@pytest.fixture
def sqlite(sqlite_url: str) -> "Iterator[Database]":
    """A SQLite file that does not exist yet, as a database; closed afterwards."""
    yield from _opened(sqlite_url)


def _opened(url: str) -> "Iterator[Database]":
    from entropic import Database

    database = Database(url)
    yield database
    database.dispose()


@pytest.fixture(params=SERVERS)
def server_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, once for each kind of server."""
    return _url_of(request)


def _url_of(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite-memory":
        return "sqlite://"
    fixture = {"sqlite-file": "sqlite_url", "postgresql": "postgres_url", "mysql": "mysql_url"}[request.param]
    return request.getfixturevalue(fixture)


@pytest.fixture(scope="session")
def dask_client() -> "Iterator[Client]":
    """A client of a cluster of two worker processes, shared by the whole session."""
    from tests.support.clusters import local_client

    with local_client() as client:
        yield client


@pytest.fixture
def disk(tmp_path: "Path") -> "Iterator[Path]":
    """A small file system of its own."""
    with small_disks.small_disk(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture(scope="session")
def former_python(tmp_path_factory: pytest.TempPathFactory) -> "Path":
    """The Python of an environment with 2.3.0 in it, made once for all the processes that run the tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    python, is_made = folder / "former" / "bin" / "python", folder / "former" / "made"
    with open(folder / "former.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_made.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "former"], check=True)
            install = [python, "-m", "pip", "install", "--quiet", *FORMER]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot install {' '.join(FORMER)}: {done.stderr.strip().splitlines()[-1]}")
            is_made.touch()
    return python
