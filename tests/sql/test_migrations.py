"""The library's own schema: the same whichever way it was made, safe for many first starters, refused when not ours."""

import ast
import shlex
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Column,
    Inspector,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from entropic import migrate
from entropic.config_store import SQLConfigStore
from entropic.configs import RunConfig, TaskConfig
from entropic.errors import SchemaError
from entropic.sql import schema_lock as locks
from entropic.sql import versions
from entropic.sql.database import Database
from entropic.sql.tables import NAMES, FileRow, every_table
from tests.assets.schema import make
from tests.support.processes import run_together
from tests.support.scripts import run_text
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
ASSETS = Path(make.__file__).parent
between_processes = pytest.mark.parametrize(
    "database_url",
    ["sqlite-file", "postgresql", pytest.param("mysql", marks=pytest.mark.slow)],
    indirect=True,
)

LIBRARY = sorted(every_table().tables)


def script_directory() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))


def user_table(metadata: MetaData | None = None) -> Table:
    return Table(
        "mine", MetaData() if metadata is None else metadata, Column("id", String(16), primary_key=True)
    )


def facts(database: Database) -> dict[str, str]:
    with database.reading() as connection:
        return dict(connection.execute(text("SELECT name, value FROM entropic_meta")).all())


def stamp(database: Database, version: str) -> None:
    database.write(
        lambda c: c.execute(text("UPDATE entropic_alembic_version SET version_num = :v"), {"v": version})
    )


def mysql_options(inspector: Inspector, name: str) -> dict[str, object]:
    return {
        option: value for option, value in inspector.get_table_options(name).items() if "auto" not in option
    }


def schema_of(database: Database) -> dict[str, object]:
    """Everything that the inspector knows of the library's tables and the version table."""
    with database.reading() as connection:
        inspector = inspect(connection)
        return {
            name: {
                "columns": [
                    {**c, "type": c["type"].compile(connection.dialect)} for c in inspector.get_columns(name)
                ],
                "primary key": inspector.get_pk_constraint(name),
                "indexes": sorted(inspector.get_indexes(name), key=lambda index: index["name"]),
                "unique": inspector.get_unique_constraints(name),
                "foreign keys": sorted(inspector.get_foreign_keys(name), key=lambda key: key["name"]),
                "checks": inspector.get_check_constraints(name),
                "options": mysql_options(inspector, name) if database.dialect == "mysql" else {},
            }
            for name in [*LIBRARY, versions.VERSION_TABLE]
        }


def rows_of(database: Database) -> dict[str, list[tuple[object, ...]]]:
    with database.reading() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in every_table().sorted_tables
        }


ALEMBIC = f"""
import os, warnings
warnings.simplefilter("error")
os.chdir({str(ROOT)!r})
from alembic.config import main
main(prog="alembic")
"""


def alembic(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Do what the command does in the checkout."""
    with TemporaryDirectory() as folder:
        return run_text(ALEMBIC, Path(folder), "-x", f"url={url}", *arguments)


# --- the scripts ---------------------------------------------------------------------------------------------------


def test_scripts_have_one_head_and_the_constants_name_them():
    scripts = script_directory()

    assert scripts.get_heads() == [versions.HEAD]
    assert tuple(reversed([s.revision for s in scripts.walk_revisions()])) == versions.REVISIONS


@pytest.mark.parametrize(
    "path", sorted((ROOT / "migrations" / "versions").glob("*.py")), ids=lambda p: p.name
)
def test_migration_script_imports_nothing_from_entropic(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))

    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    assert [name for name in names if name.split(".")[0] == "entropic"] == []


# --- one schema, whichever way it was made -------------------------------------------------------------------------


def test_models_after_upgrade_of_an_empty_database_need_no_change(database_url):
    database = Database(database_url)
    migrate.upgrade(database)

    migrate.check(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": versions.VERSION_TABLE,
                # MariaDB stores JSON as LONGTEXT, which Alembic takes for a change.
                "compare_type": lambda *a: (
                    None if database.dialect != "mysql" or str(a[4]) != "JSON" else False
                ),
            },
        )
        assert compare_metadata(context, every_table()) == []


def test_schema_made_by_alembic_equals_the_one_made_at_first_start(database_url):
    database = Database(database_url)
    versions.ensure_schema(database, [])
    made_at_start = schema_of(database)
    with migrate.schema_lock(database) as connection:
        every_table().drop_all(connection)
        connection.execute(text(f"DROP TABLE {versions.VERSION_TABLE}"))

    migrate.upgrade(database)

    assert schema_of(database) == made_at_start


def test_first_start_writes_version_and_facts_once(database_url):
    database = Database(database_url)

    versions.ensure_schema(database, [])
    before = facts(database)
    versions.ensure_schema(database, [])

    assert migrate.current(database) == versions.HEAD
    assert facts(database) == before
    assert before.keys() == {"database", "created_by", "needs"}
    assert len(before["database"]) == 32


def test_database_made_by_upgrade_alone_serves_a_first_start(database_url):
    database = Database(database_url)
    migrate.upgrade(database)
    uuid = facts(database)["database"]

    versions.ensure_schema(database, [user_table()])

    assert facts(database).keys() == {"database", "created_by", "needs"}
    assert versions.database_uuid(database) == uuid


def test_database_uuid_when_its_row_is_gone_is_made_and_kept(database_url):
    database = Database(database_url)
    versions.ensure_schema(database, [])
    database.write(lambda c: c.execute(text("DELETE FROM entropic_meta")))

    uuid = versions.database_uuid(database)

    assert uuid == facts(database)["database"] == versions.database_uuid(database)


def test_database_uuid_under_the_schema_lock_needs_no_second_connection(database_url):
    database = Database(database_url)
    versions.ensure_schema(database, [])

    with migrate.schema_lock(database) as connection:
        uuid = versions.database_uuid(database, connection)

    assert uuid == versions.database_uuid(database)


def test_upgrade_down_and_up_again_with_rows_ends_at_an_equal_schema(database_url):
    database = Database(database_url)
    migrate.upgrade(database)
    schema = schema_of(database)
    library = {model: row for model, row in make.ROWS.items() if model.__tablename__ in LIBRARY}
    for model, row in library.items():
        database.write(lambda c, model=model, row=row: c.execute(insert(model).values(row)))
    assert all(rows_of(database).values())

    with migrate.schema_lock(database) as connection:
        command.downgrade(migrate._alembic_config(connection), "base")
    names_at_base = set(inspect(database.engine).get_table_names())
    migrate.upgrade(database)

    assert names_at_base.isdisjoint(LIBRARY)
    assert schema_of(database) == schema
    assert migrate.current(database) == versions.HEAD


def test_tables_without_a_version_that_fit_are_stamped_and_completed(database_url):
    database = Database(database_url)
    versions.ensure_schema(database, [])
    database.write(lambda c: c.execute(text(f"DELETE FROM {versions.VERSION_TABLE}")))
    database.write(lambda c: c.execute(text("DROP TABLE entropic_files")))

    versions.ensure_schema(database, [])

    migrate.check(database)


@pytest.mark.parametrize(
    "opener", [lambda d: versions.ensure_schema(d, []), migrate.upgrade], ids=["start", "upgrade"]
)
def test_tables_without_a_version_that_do_not_fit_are_refused(database_url, opener):
    database = Database(database_url)
    database.write(
        lambda c: c.execute(text("CREATE TABLE entropic_files (table_name INTEGER NOT NULL PRIMARY KEY)"))
    )

    with pytest.raises(
        SchemaError, match=r"entropic_files: in the model, not in the table: record_id"
    ) as caught:
        opener(database)

    assert "Nothing was read or written" in str(caught.value)
    assert [name for name in inspect(database.engine).get_table_names() if name.startswith("entropic_")] == [
        "entropic_files"
    ]


# --- the first start -----------------------------------------------------------------------------------------------


def _start(url: str) -> str:
    database = Database(url)
    versions.ensure_schema(database, [user_table()])
    with database.reading() as connection:
        connection.execute(text("SELECT id FROM mine")).all()
    return versions.database_uuid(database)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [4, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "database_url",
    ["sqlite-file", "postgresql", "mysql"],
    indirect=True,
)
def test_many_first_starters_all_succeed_and_agree(database_url, processes):
    uuids = run_together(_start, [(database_url,)] * processes)

    assert len(set(uuids)) == 1


def _start_or_upgrade(url: str, upgrade: bool) -> str:
    if upgrade:
        migrate.upgrade(url)
    return _start(url)


@pytest.mark.parametrize(
    "database_url",
    ["sqlite-file", *(pytest.param(one, marks=pytest.mark.slow) for one in ("postgresql", "mysql"))],
    indirect=True,
)
def test_upgrades_and_first_starts_at_once_all_succeed_and_agree(database_url):
    uuids = run_together(_start_or_upgrade, [(database_url, i % 2 == 0) for i in range(6)])

    assert len(set(uuids)) == 1


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("is_users", [False, True], ids=["URL", "engine"])
def test_who_waits_for_the_lock_of_postgresql_sees_what_was_made_meanwhile(postgres_url, isolation, is_users):
    option = f"-c default_transaction_isolation={isolation.lower().replace(' ', chr(92) + ' ')}"
    url = make_url(postgres_url).update_query_dict({"options": option})
    engine = create_engine(postgres_url, isolation_level=isolation)
    second = Database(engine if is_users else url)
    first = Database(postgres_url)
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with ThreadPoolExecutor(1) as pool:
        with locks.schema_lock(first) as connection:
            made = pool.submit(versions.ensure_schema, second, [user_table()])
            wait_for(lambda: connection.scalar(waiting))
            versions.make_library_tables(first, connection)
        made.result()
    second.dispose()
    engine.dispose()

    migrate.check(first)


def test_tables_that_cannot_all_be_made_are_not_made_at_all(sqlite_url):
    database = Database(sqlite_url)
    table = user_table()

    @event.listens_for(table, "after_create")
    def fail(target, connection, **kw):
        assert inspect(connection).has_table("mine")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        versions.ensure_schema(database, [table])

    assert inspect(database.engine).get_table_names() == []


def test_read_only_file_with_a_complete_schema_opens(tmp_path):
    path = tmp_path / "lab.sqlite3"
    versions.ensure_schema(Database(f"sqlite:///{path}"), [user_table()])
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    database = Database(engine)

    versions.ensure_schema(database, [user_table()])

    with pytest.raises(DBAPIError, match="readonly"):
        database.write(lambda c: c.execute(text("DELETE FROM mine")))
    engine.dispose()


def test_read_only_file_that_lacks_a_table_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "lab.sqlite3"
    versions.ensure_schema(Database(f"sqlite:///{path}"), [])
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")

    with pytest.raises(SchemaError, match="may not make them: attempt to write a readonly database"):
        versions.ensure_schema(Database(engine), [user_table()])

    engine.dispose()


def test_server_user_without_create_opens_a_complete_schema_only(postgres_url):
    owner = Database(postgres_url)
    versions.ensure_schema(owner, [user_table()])
    role = f"reader_{make_url(postgres_url).database}"
    owner.write(lambda c: c.execute(text(f"CREATE ROLE {role} LOGIN")))
    owner.write(lambda c: c.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")))
    reader = Database(make_url(postgres_url).set(username=role))
    try:
        versions.ensure_schema(reader, [user_table()])
        with pytest.raises(SchemaError, match="may not make them: permission denied"):
            versions.ensure_schema(
                reader, [Table("other", MetaData(), Column("id", Integer, primary_key=True))]
            )
    finally:
        reader.dispose()
        owner.write(lambda c: c.execute(text(f"DROP OWNED BY {role}")))
        owner.write(lambda c: c.execute(text(f"DROP ROLE {role}")))


def test_schema_lock_when_it_is_held_too_long_says_so(server_url, monkeypatch):
    monkeypatch.setattr(locks, "LOCK_TIMEOUT_S", 0.2)

    with (
        migrate.schema_lock(Database(server_url)),
        pytest.raises(SchemaError, match=r"has held the schema lock .* for 0\.2 s"),
        migrate.schema_lock(Database(create_engine(server_url))),
    ):
        pass


# --- versions that are not ours ------------------------------------------------------------------------------------


def test_outdated_schema_is_refused_with_the_exact_command(database_url, monkeypatch):
    database = Database(database_url)
    versions.ensure_schema(database, [])
    stamp(database, "0000")
    monkeypatch.setattr(versions, "REVISIONS", ("0000", *versions.REVISIONS))

    with pytest.raises(SchemaError, match="has entropic schema 0000, made by entropic") as caught:
        versions.ensure_schema(database, [user_table()])

    told, _, line = str(caught.value).partition(", then run: ")
    assert f"needs {versions.HEAD}. Nothing was read or written." in told
    assert shlex.split(line)[:4] == ["entropic", "db", "upgrade", "--url"]
    assert make_url(shlex.split(line)[4]).database == database.url.database
    assert not inspect(database.engine).has_table("mine")


@pytest.mark.parametrize(
    "act",
    [lambda d: versions.ensure_schema(d, [user_table()]), migrate.check, migrate.upgrade],
    ids=["start", "check", "upgrade"],
)
def test_newer_schema_is_refused_with_the_version_that_it_needs(database_url, act):
    database = Database(database_url)
    versions.ensure_schema(database, [])
    stamp(database, "0099")
    database.write(lambda c: c.execute(text("UPDATE entropic_meta SET value = '3.4' WHERE name = 'needs'")))

    with pytest.raises(SchemaError, match="has entropic schema 0099") as caught:
        act(database)

    assert "is newer than this entropic" in str(caught.value)
    assert 'Nothing was read or written. Run: pip install -U "entropic>=3.4"' in str(caught.value)
    assert migrate.current(database) == "0099"


def test_check_of_a_database_without_tables_names_the_command_and_makes_no_file(tmp_path):
    path = tmp_path / "not" / "there.sqlite3"

    with pytest.raises(SchemaError, match="has no tables of entropic's") as caught:
        migrate.check(f"sqlite:///{path}")

    assert f"entropic db upgrade --url sqlite:///{path}" in str(caught.value)
    assert migrate.current(f"sqlite:///{path}") is None
    assert not path.parent.exists()


def test_check_when_a_library_table_was_changed_by_hand_names_the_column(database_url):
    database = Database(database_url)
    versions.ensure_schema(database, [])
    database.write(lambda c: c.execute(text("ALTER TABLE entropic_claims DROP COLUMN host")))
    database.write(lambda c: c.execute(text("DROP TABLE entropic_files")))

    with pytest.raises(
        SchemaError, match="entropic_claims: in the model, not in the table: host VARCHAR"
    ) as caught:
        migrate.check(database)

    assert "there is no table entropic_files" in str(caught.value)


def test_command_in_the_text_has_no_password_and_is_quoted_for_the_shell(sqlite_url, monkeypatch):
    url = make_url("postgresql+psycopg://lab:s3cret%25%40@db/my exp?password=s3cret2")
    database = SimpleNamespace(url=url)

    text_ = versions.upgrade_command(database)

    assert "s3cret" not in text_
    assert "'postgresql+psycopg://***@db/my exp?password=***'" in text_
    assert "ENTROPIC_DB_URL" in text_


# --- upgrades ------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken_migrations(tmp_path, monkeypatch):
    """The migrations with one more, which makes a table, writes a row and raises."""
    folder = tmp_path / "broken migrations"
    shutil.copytree(ROOT / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9999_broken.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision = '9999', {versions.HEAD!r}\n"
        "def upgrade():\n"
        "    op.create_table('entropic_half', sa.Column('id', sa.Integer, primary_key=True))\n"
        "    op.execute('DELETE FROM entropic_meta')\n"
        "    raise ZeroDivisionError\n"
    )
    monkeypatch.setattr(migrate, "migrations_dir", lambda: folder)
    monkeypatch.setattr(versions, "REVISIONS", (*versions.REVISIONS, "9999"))
    monkeypatch.setattr(versions, "HEAD", "9999")
    return folder


def test_downgrade_with_results_in_their_rows_is_refused_and_changes_nothing(database_url):
    database = Database(database_url)
    migrate.upgrade(database)
    in_its_row = {**make.ROWS[FileRow], "name": None}
    database.write(lambda c: c.execute(insert(FileRow).values(in_its_row)))
    before = rows_of(database)

    with (
        pytest.raises(RuntimeError, match="1 results stand in their rows"),
        migrate.schema_lock(database) as connection,
    ):
        command.downgrade(migrate._alembic_config(connection), "0004")

    assert rows_of(database) == before


@pytest.mark.parametrize("database_url", ["sqlite-file", "sqlite-memory", "postgresql"], indirect=True)
def test_upgrade_that_raises_half_way_leaves_the_former_revision_intact(database_url, request):
    database, head = Database(database_url), versions.HEAD
    versions.ensure_schema(database, [])
    before = (schema_of(database), facts(database))
    request.getfixturevalue("broken_migrations")

    with pytest.raises(ZeroDivisionError):
        migrate.upgrade(database)

    assert migrate.current(database) == head
    assert (schema_of(database), facts(database)) == before
    assert not inspect(database.engine).has_table("entropic_half")


class Interrupted(Exception):
    """Comes in the place of the n-th statement that changes a schema or a row."""

    def __init__(self, database: Database, n: int) -> None:
        self.left = n
        event.listen(database.engine, "before_cursor_execute", self.count)

    def count(self, connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.split(maxsplit=1)[0] in {"CREATE", "DROP", "ALTER", "INSERT", "UPDATE", "DELETE"}:
            self.left -= 1
        if self.left < 0:
            raise self


def move(database: Database, revision: str) -> None:
    """Do what ``alembic upgrade`` and ``alembic downgrade`` do."""
    with locks.schema_lock(database) as connection:
        direction = (
            command.upgrade if revision > (versions.read_version(connection) or "") else command.downgrade
        )
        direction(migrate._alembic_config(connection), revision)


@pytest.mark.parametrize("n", [1, 2, 3, 14, 17, 22, 25])
def test_step_that_was_interrupted_on_mysql_is_taken_again(mysql_url, n):
    database = Database(mysql_url)
    move(database, "0001")
    interrupted = Interrupted(database, n)
    with pytest.raises(Interrupted):
        migrate.upgrade(database)
    event.remove(database.engine, "before_cursor_execute", interrupted.count)

    migrate.upgrade(database)

    assert migrate.current(database) == versions.HEAD
    migrate.check(database)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": versions.VERSION_TABLE})
        assert compare_metadata(context, every_table()) == []


@pytest.mark.parametrize("n", [3, 9])
def test_step_back_that_was_interrupted_on_mysql_is_taken_again(mysql_url, n):
    database = Database(mysql_url)
    migrate.upgrade(database)
    interrupted = Interrupted(database, n)
    with pytest.raises(Interrupted):
        move(database, "0002")
    event.remove(database.engine, "before_cursor_execute", interrupted.count)

    move(database, "0002")

    assert migrate.current(database) == "0002"
    assert not inspect(database.engine).has_table("entropic_component_types")


def test_upgrade_twice_changes_nothing(database_url):
    database = Database(database_url)
    migrate.upgrade(database)
    before = facts(database)

    migrate.upgrade(database)

    assert facts(database) == before


@pytest.mark.parametrize("revision", versions.REVISIONS)
def test_frozen_database_upgrades_and_keeps_its_rows(revision, tmp_path):
    path = tmp_path / "old.sqlite3"
    shutil.copy(ASSETS / f"{revision}.sqlite3", path)

    def frozen_rows() -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(path)) as connection, connection:
            found = connection.execute(
                "SELECT id, custom_data, rate, label, noise, rmse FROM frozen_decay"
            ).fetchall()
            found += connection.execute("SELECT token, expires_at FROM entropic_claims").fetchall()
            found += connection.execute("SELECT name, size_bytes FROM entropic_files").fetchall()
        connection.close()
        return found

    database = Database(f"sqlite:///{path}")
    before, had = frozen_rows(), set(database.read(lambda c: inspect(c).get_table_names()))
    migrate.upgrade(database)
    migrate.check(database)
    versions.ensure_schema(database, [make.FrozenDecay.__table__])

    assert frozen_rows() == before
    assert before == [
        ("0123456789abcdef", '{"note": "kept"}', 0.1, "Ab ", 0.0, 1 / 3),
        ("t" * 32, 1767272400.25),
        ("0123456789abcdef.npy", 2**40),
    ]
    assert {name for name, rows in rows_of(database).items() if rows} == had & set(LIBRARY)
    assert facts(database).get("needs") in {None, versions.NEEDS}

    configs = SQLConfigStore(database)
    configs.store_run_config(RunConfig(name="new", task_config=TaskConfig(name="t")))
    assert configs.retrieve_run_config_names(task_names=["t"]) == ["new"]


# --- autogenerate --------------------------------------------------------------------------------------------------


def make_strangers(database: Database) -> None:
    database.write(lambda c: c.execute(text("CREATE TABLE stranger (id INTEGER NOT NULL PRIMARY KEY)")))
    versions.ensure_schema(database, [user_table()])


def test_project_autogenerate_next_to_other_tables_proposes_only_its_own_change(database_url):
    database, metadata = Database(database_url), MetaData()
    make_strangers(database)
    user_table(metadata).append_column(Column("added", Integer))

    with database.engine.connect() as connection:
        opts = {"include_name": migrate.include_name, "include_object": migrate.include_object}
        script = produce_migrations(MigrationContext.configure(connection, opts=opts), metadata)

    (change,) = script.upgrade_ops.ops
    assert [(type(op).__name__, op.column.name) for op in change.ops] == [("AddColumnOp", "added")]


@between_processes
def test_alembic_check_next_to_other_tables_proposes_nothing(database_url):
    make_strangers(Database(database_url))

    done = alembic(database_url, "check")

    assert (done.returncode, done.stdout.strip()) == (0, "No new upgrade operations detected."), done.stderr


# --- the alembic command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param("plain.sqlite3", marks=pytest.mark.slow), "100% a@b.sqlite3"])
def test_alembic_command_in_a_checkout_makes_a_database_that_a_start_accepts(tmp_path, name):
    url = Database(f"sqlite:///{tmp_path}/x").url.set(database=str(tmp_path / name)).render_as_string()

    upgraded = alembic(url, "upgrade", "head")
    shown = alembic(url, "current")

    assert (upgraded.returncode, upgraded.stderr) == (0, "")
    assert shown.stdout.split() == [versions.HEAD, "(head)"]
    assert (tmp_path / name).exists()
    versions.ensure_schema(Database(url), [user_table()])


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mariadb"])
def test_alembic_command_prints_the_sql_of_an_upgrade(dialect):
    url = {"sqlite": "sqlite://", "postgresql": "postgresql://h/db", "mariadb": "mariadb://h/db"}[dialect]

    done = alembic(url, "upgrade", "head", "--sql")

    assert done.returncode == 0, done.stderr
    assert "CREATE TABLE entropic_claims" in done.stdout
    assert f"INSERT INTO {versions.VERSION_TABLE}" in done.stdout


def test_alembic_command_without_a_database_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("ENTROPIC_DB_URL", raising=False)

    done = subprocess.run(
        [sys.executable, "-m", "alembic", "current"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert "-x url=URL" in done.stdout + done.stderr


def test_password_with_percent_and_at_survives_the_way_to_alembic(postgres_url):
    owner = Database(postgres_url)
    role = f"odd_{make_url(postgres_url).database}"
    owner.write(lambda c: c.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'p%s@:/%40'")))
    owner.write(lambda c: c.execute(text(f"GRANT ALL ON SCHEMA public TO {role}")))
    url = make_url(postgres_url).set(username=role, password="p%s@:/%40")
    try:
        done = alembic(url.render_as_string(hide_password=False), "upgrade", "head")
        migrate.upgrade(url)

        assert done.returncode == 0, done.stderr
        assert migrate.current(url) == versions.HEAD
    finally:
        Database(url).engine.dispose()
        owner.write(lambda c: c.execute(text(f"DROP OWNED BY {role}")))
        owner.write(lambda c: c.execute(text(f"DROP ROLE {role}")))


# --- a table with its store ----------------------------------------------------------------------------------------


def test_names_of_the_tables_are_those_of_all_stores():
    assert sorted(every_table().tables) == sorted(NAMES)


def test_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database " * 100)

    with pytest.raises(SchemaError, match=r"notes\.txt: the file is no SQLite database, or it is damaged"):
        versions.ensure_schema(Database(f"sqlite:///{path}"), [])
    assert path.read_text() == "no database " * 100


LOADED = """
import sys
from pathlib import Path
from entropic import Base, Mapped, Store
from entropic.sql.columns import LibraryBase

class Run(Base):
    __tablename__ = "runs"
    n: Mapped[int]

Store(lambda params: Path(params["result_file"]).touch(), Run, db_url=sys.argv[1], results_dir=sys.argv[2])
print(*sorted(LibraryBase.metadata.tables))
"""


def test_store_on_a_database_at_head_loads_only_the_tables_of_the_run_cache(sqlite, tmp_path):
    versions.ensure_schema(sqlite, [])

    found = subprocess.run(
        [sys.executable, "-c", LOADED, str(sqlite.url), str(tmp_path / "results")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert found.stdout.split() == [
        "entropic_attempts", "entropic_claims", "entropic_files", "entropic_meta", "entropic_tables",
    ]  # fmt: skip
