"""Tables of an experiment's records: configs.

Revision 0002, after 0001. Imports nothing from entropic: the models move on, this script does not.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


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
    create_configs()


def create_configs() -> None:
    op.create_table(
        "entropic_configs",
        sa.Column("id", INTEGER, nullable=False, autoincrement=True),
        sa.Column("kind", byte_string(16), nullable=False),
        sa.Column("name", byte_string(255), nullable=False),
        sa.Column("type", byte_string(255), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("created_at", utc_time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entropic_configs")),
        sa.UniqueConstraint("kind", "name", name=op.f("uq_entropic_configs_kind_name")),
    )
    op.create_table(
        "entropic_config_parts",
        sa.Column("run_id", INTEGER, nullable=False, autoincrement=False),
        sa.Column("role", byte_string(16), nullable=False),
        sa.Column("name", byte_string(255), nullable=False),
        sa.Column("part_id", INTEGER),
        sa.ForeignKeyConstraint(
            ["part_id"],
            ["entropic_configs.id"],
            name=op.f("fk_entropic_config_parts_part_id_entropic_configs"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["entropic_configs.id"],
            name=op.f("fk_entropic_config_parts_run_id_entropic_configs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "role", name=op.f("pk_entropic_config_parts")),
    )
    op.create_index(op.f("ix_entropic_config_parts_part_id"), "entropic_config_parts", ["part_id"])
    op.create_index(op.f("ix_entropic_config_parts_role_name"), "entropic_config_parts", ["role", "name"])


def downgrade() -> None:
    op.drop_table("entropic_config_parts")
    op.drop_table("entropic_configs")
