"""The command line: what it prints and with which status it ends, in a process of its own and in this one."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from entropic import cli, migrate
from entropic.sql import versions
from entropic.sql.database import Database

ROOT = Path(__file__).parents[2]
URL = "ENTROPIC_DB_URL"


@pytest.fixture(autouse=True)
def no_url_in_the_environment(monkeypatch):
    monkeypatch.delenv(URL, raising=False)


def test_upgrade_current_and_check_of_a_fresh_database(database_url, capsys):
    if database_url == "sqlite://":
        pytest.skip("each command would have a database of its own")

    statuses = [
        cli.main(["db", name, "--url", database_url]) for name in ("current", "upgrade", "current", "check")
    ]

    head = versions.HEAD
    assert statuses == [0, 0, 0, 0]
    assert capsys.readouterr().out.splitlines() == [
        "none",
        f"at {head}, up to date",
        f"{head} (head)",
        "up to date",
    ]


def test_url_is_taken_from_the_environment(sqlite_url, monkeypatch):
    monkeypatch.setenv(URL, sqlite_url)

    status = cli.main(["db", "upgrade"])

    assert status == 0
    assert migrate.current(sqlite_url) == versions.HEAD


def test_db_command_without_url_ends_with_the_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["db", "check"])

    assert caught.value.code == 2
    assert "required: --url" in capsys.readouterr().err


def test_db_command_without_url_takes_that_of_the_options(tmp_path, monkeypatch, capsys):
    (tmp_path / "entropic.toml").write_text("db_url = 'sqlite:///named.sqlite3'")
    monkeypatch.chdir(tmp_path)

    assert cli.main(["db", "upgrade"]) == 0
    assert (tmp_path / "named.sqlite3").is_file()

    (tmp_path / "entropic.toml").write_text("db_ur = 'sqlite:///named.sqlite3'")
    assert cli.main(["db", "check"]) == 1
    assert "there is no option 'db_ur'; did you mean 'db_url'?" in capsys.readouterr().err
    assert cli.main(["db", "check", "--url", f"sqlite:///{tmp_path}/named.sqlite3"]) == 0
    monkeypatch.setenv(URL, "sqlite:///other.sqlite3")
    capsys.readouterr()
    assert cli.main(["db", "check"]) == 1
    assert "there is no option 'db_ur'; did you mean 'db_url'?" in capsys.readouterr().err


def test_check_of_an_outdated_database_ends_with_the_reason(sqlite_url, monkeypatch, capsys):
    database = Database(sqlite_url)
    versions.ensure_schema(database, [])
    database.write(lambda c: c.execute(text(f"UPDATE {versions.VERSION_TABLE} SET version_num = '0000'")))
    monkeypatch.setattr(versions, "REVISIONS", ("0000", *versions.REVISIONS))

    status = cli.main(["db", "check", "--url", sqlite_url])

    printed = capsys.readouterr()
    assert (status, printed.out) == (1, "")
    assert printed.err.startswith("entropic: the database sqlite:////")
    assert f"entropic db upgrade --url {sqlite_url}" in printed.err


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "could not parse db_url (not shown, a password may be in it) as the URL"),
        ("nosuch://db", "entropic works on SQLite, PostgreSQL, MySQL and MariaDB, not on nosuch"),
        ("sqlite:////proc/nobody/db.sqlite3", "/proc/nobody"),
        ("postgresql://127.0.0.1:1/db", "refused"),
        ("mysql://127.0.0.1:1/db", "refused"),
    ],
)
def test_upgrade_of_what_is_no_database_is_one_sentence_on_stderr(url, reason, capsys):
    status = cli.main(["db", "upgrade", "--url", url])

    printed = capsys.readouterr()
    assert (status, printed.out) == (1, "")
    assert reason in printed.err
    assert "Traceback" not in printed.err


def test_file_that_is_no_database_is_named(tmp_path, capsys):
    (tmp_path / "notes.sqlite3").write_text("no database, but notes of mine")

    status = cli.main(["db", "check", "--url", f"sqlite:///{tmp_path / 'notes.sqlite3'}"])

    printed = capsys.readouterr()
    assert (status, printed.out) == (1, "")
    assert printed.err.startswith(
        f"entropic: file is not a database: the database is 'notes.sqlite3' in the folder '{tmp_path}', "
    )


def test_interrupt_ends_a_command_without_a_traceback(sqlite_url, monkeypatch, capsys):
    def upgrade(url):
        raise KeyboardInterrupt

    monkeypatch.setattr(migrate, "upgrade", upgrade)

    status = cli.main(["db", "upgrade", "--url", sqlite_url])

    printed = capsys.readouterr()
    assert (status, printed.out) == (130, "")
    assert printed.err.strip().startswith("entropic: interrupted")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_that_has_gone_ends_a_command_in_silence(sqlite_url, unbuffered):
    """As ``head`` goes."""
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "entropic", "db", "current", "--url", sqlite_url],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )

    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_upgrade_constructs_no_user_table(sqlite_url):
    cli.main(["db", "upgrade", "--url", sqlite_url])

    names = inspect(Database(sqlite_url).engine).get_table_names()
    assert {name.partition("_")[0] for name in names} == {"entropic"}


def test_check_without_the_driver_is_one_sentence_on_stderr(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psycopg", None)

    status = cli.main(["db", "check", "--url", "postgresql://lab@nowhere/runs"])

    printed = capsys.readouterr()
    assert (status, printed.out) == (1, "")
    assert printed.err.startswith("entropic: the database postgresql+psycopg://")
    assert printed.err.endswith("pip install 'entropic[postgres]'\n")


def test_version_option_prints_the_installed_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])

    try:
        version = metadata.version("entropic")
    except metadata.PackageNotFoundError:
        version = "unknown"
    assert (caught.value.code, capsys.readouterr().out) == (0, f"entropic {version}\n")


def test_module_run_as_a_program_checks_without_a_traceback(tmp_path):
    url = f"sqlite:///{tmp_path / 'none.sqlite3'}"

    done = subprocess.run(
        [sys.executable, "-m", "entropic", "db", "check", "--url", url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("entropic: the database ")
    assert done.stderr.count("\n") == 1


def test_database_commands_load_neither_alembic_nor_the_demo_for_a_check(tmp_path):
    url = f"sqlite:///{tmp_path / 'made.sqlite3'}"
    migrate.upgrade(url)
    script = f"import sys; from entropic.cli import main; main(['db', 'check', '--url', {url!r}]); print(*sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith("up to date\n")
    assert {"alembic", "entropic.demo"}.isdisjoint(done.stdout.split())


def test_demo_takes_its_own_options(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--help"])

    assert caught.value.code == 0
    assert "--serial" in capsys.readouterr().out
