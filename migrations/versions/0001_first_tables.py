"""First tables: attempts, claims, files, meta and tables.

Revision 0001, after nothing. Imports nothing from entropic: the models move on, this script does not.
"""

from importlib.metadata import PackageNotFoundError, version
from uuid import uuid4

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NEEDS = "3.0.0"  # the oldest entropic that may use these tables

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def byte_string(length: int) -> sa.types.TypeEngine[str]:
    """Return a string that compares bytewise on this server; the collation's name differs between MySQL and MariaDB."""
    dialect = op.get_context().dialect
    if dialect.name not in {"mysql", "mariadb"}:
        return sa.String()
    nopad = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
    return mysql.VARCHAR(length, charset="utf8mb4", collation=nopad)


def utc_time() -> sa.types.TypeEngine[object]:
    """Return a time with microseconds."""
    if op.get_context().dialect.name in {"mysql", "mariadb"}:
        return mysql.DATETIME(fsp=6)
    return sa.DateTime(timezone=True)


def upgrade() -> None:
    create_attempts()
    create_claims()
    create_files()
    create_tables()
    create_meta()


def create_attempts() -> None:
    op.create_table(
        "entropic_attempts",
        sa.Column("id", byte_string(32), nullable=False),
        sa.Column("table_name", byte_string(128), nullable=False),
        sa.Column("record_id", byte_string(200), nullable=False),
        sa.Column("state", byte_string(16), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("owner", byte_string(32)),
        sa.Column("host", byte_string(255)),
        sa.Column("pid", INTEGER),
        sa.Column("worker", byte_string(255)),
        sa.Column("batch_job", byte_string(255)),
        sa.Column("started_at", utc_time()),
        sa.Column("ended_at", utc_time(), nullable=False),
        sa.Column("exit_code", INTEGER),
        sa.Column("error_type", byte_string(255)),
        sa.Column("message", LONG_TEXT),
        sa.Column("traceback", LONG_TEXT),
        sa.Column("code", byte_string(32)),
        sa.Column("git_commit", byte_string(64)),
        sa.Column("git_dirty", sa.Boolean()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entropic_attempts")),
    )
    op.create_index(
        op.f("ix_entropic_attempts_table_name_record_id"), "entropic_attempts", ["table_name", "record_id"]
    )
    op.create_index(
        op.f("ix_entropic_attempts_table_name_state_code"),
        "entropic_attempts",
        ["table_name", "state", "code"],
    )


def create_claims() -> None:
    op.create_table(
        "entropic_claims",
        sa.Column("table_name", byte_string(128), nullable=False),
        sa.Column("record_id", byte_string(200), nullable=False),
        sa.Column("owner", byte_string(32), nullable=False),
        sa.Column("token", byte_string(32), nullable=False),
        sa.Column("host", byte_string(255), nullable=False),
        sa.Column("boot", byte_string(128), nullable=False),
        sa.Column("pid", INTEGER, nullable=False),
        sa.Column("started", byte_string(32), nullable=False),
        sa.Column("acquired_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("table_name", "record_id", name=op.f("pk_entropic_claims")),
    )
    op.create_index(op.f("ix_entropic_claims_owner"), "entropic_claims", ["owner"])


def create_files() -> None:
    op.create_table(
        "entropic_files",
        sa.Column("table_name", byte_string(128), nullable=False),
        sa.Column("record_id", byte_string(200), nullable=False),
        sa.Column("attempt", byte_string(32)),
        sa.Column("name", LONG_TEXT, nullable=False),
        sa.Column("size_bytes", INTEGER, nullable=False),
        sa.Column("sha256", byte_string(64), nullable=False),
        sa.PrimaryKeyConstraint("table_name", "record_id", name=op.f("pk_entropic_files")),
    )


def create_tables() -> None:
    op.create_table(
        "entropic_tables",
        sa.Column("table_name", byte_string(128), nullable=False),
        sa.Column("key_rule", INTEGER, nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("root", byte_string(32)),
        sa.Column("results_dir", LONG_TEXT),
        sa.Column("created_at", utc_time(), nullable=False),
        sa.PrimaryKeyConstraint("table_name", name=op.f("pk_entropic_tables")),
    )


def create_meta() -> None:
    meta = op.create_table(
        "entropic_meta",
        sa.Column("name", byte_string(64), nullable=False),
        sa.Column("value", byte_string(255), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_entropic_meta")),
    )
    try:
        created_by = version("entropic")
    except PackageNotFoundError:
        created_by = "unknown"
    facts = {"database": uuid4().hex, "created_by": created_by, "needs": NEEDS}
    op.bulk_insert(meta, [{"name": name, "value": value} for name, value in facts.items()])


def downgrade() -> None:
    op.drop_table("entropic_meta")
    op.drop_table("entropic_tables")
    op.drop_table("entropic_files")
    op.drop_table("entropic_claims")
    op.drop_table("entropic_attempts")
