"""Tables of the execution store.

Revision 0003, after 0002. Imports nothing from entropic: the models move on, this script does not.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def byte_string(length: int, collation: str | None = None) -> sa.types.TypeEngine[str]:
    """Return a string that compares bytewise on this server; *collation* is PostgreSQL's."""
    dialect = op.get_context().dialect
    if dialect.name not in {"mysql", "mariadb"}:
        return sa.String(collation=collation if dialect.name == "postgresql" else None)
    nopad = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
    return mysql.VARCHAR(length, charset="utf8mb4", collation=nopad)


def upgrade() -> None:
    op.create_table(
        "entropic_execution_stores",
        sa.Column("id", INTEGER, nullable=False, autoincrement=True),
        sa.Column("scope", byte_string(255, "C"), nullable=False),
        sa.Column("name", byte_string(255, "C"), nullable=False),
        sa.Column("is_explicit", sa.Boolean(), nullable=False),
        sa.Column("document", LONG_TEXT),
        sa.Column("policy", byte_string(16), nullable=False),
        sa.Column("created_us", INTEGER),
        sa.Column("updated_us", INTEGER),
        sa.Column("epoch", INTEGER, nullable=False),
        sa.Column("last_event", INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entropic_execution_stores")),
        sa.UniqueConstraint("scope", "name", name=op.f("uq_entropic_execution_stores_scope_name")),
    )
    op.create_table(
        "entropic_execution_keys",
        sa.Column("store_id", INTEGER, nullable=False, autoincrement=False),
        sa.Column("name", byte_string(255, "C"), nullable=False),
        sa.Column("policy", byte_string(16), nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("created_us", INTEGER, nullable=False),
        sa.Column("updated_us", INTEGER),
        sa.Column("expires_us", INTEGER),
        sa.Column("value", LONG_TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["store_id"],
            ["entropic_execution_stores.id"],
            name=op.f("fk_entropic_execution_keys_store_id_entropic_execution_stores"),
        ),
        sa.PrimaryKeyConstraint("store_id", "name", name=op.f("pk_entropic_execution_keys")),
    )
    op.create_index(op.f("ix_entropic_execution_keys_expires_us"), "entropic_execution_keys", ["expires_us"])
    op.create_table(
        "entropic_execution_events",
        sa.Column("store_id", INTEGER, nullable=False, autoincrement=False),
        sa.Column("number", INTEGER, nullable=False, autoincrement=False),
        sa.Column("name", byte_string(255, "C"), nullable=False),
        sa.Column("operation", byte_string(16), nullable=False),
        sa.Column("at_us", INTEGER, nullable=False),
        sa.ForeignKeyConstraint(
            ["store_id"],
            ["entropic_execution_stores.id"],
            name=op.f("fk_entropic_execution_events_store_id_entropic_execution_stores"),
        ),
        sa.PrimaryKeyConstraint("store_id", "number", name=op.f("pk_entropic_execution_events")),
    )


def downgrade() -> None:
    op.drop_table("entropic_execution_events")
    op.drop_table("entropic_execution_keys")
    op.drop_table("entropic_execution_stores")
