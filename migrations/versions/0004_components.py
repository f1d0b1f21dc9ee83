"""Tables of the component datastore.

Revision 0004, after 0003. Imports nothing from entropic: the models move on, this script does not.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def byte_string(length: int) -> sa.types.TypeEngine[str]:
    """Return a string that compares bytewise on this server."""
    dialect = op.get_context().dialect
    if dialect.name not in {"mysql", "mariadb"}:
        return sa.String()
    nopad = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
    return mysql.VARCHAR(length, charset="utf8mb4", collation=nopad)


def state_key(table: str, column: str) -> sa.ForeignKeyConstraint:
    """Return the constraint that a column names a state."""
    name = f"fk_{table}_{column}_entropic_component_states"
    return sa.ForeignKeyConstraint([column], ["entropic_component_states.id"], name=op.f(name))


def upgrade() -> None:
    op.create_table(
        "entropic_component_types",
        sa.Column("id", INTEGER, nullable=False, autoincrement=True),
        sa.Column("full_type", byte_string(255), nullable=False),
        sa.Column("version", byte_string(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entropic_component_types")),
        sa.UniqueConstraint(
            "full_type", "version", name=op.f("uq_entropic_component_types_full_type_version")
        ),
    )
    op.create_table(
        "entropic_data_files",
        sa.Column("name", byte_string(255), nullable=False),
        sa.Column("is_whole", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_entropic_data_files")),
    )
    op.create_table(
        "entropic_component_states",
        sa.Column("id", INTEGER, nullable=False, autoincrement=True),
        sa.Column("type_id", INTEGER, nullable=False),
        sa.Column("key", LONG_TEXT, nullable=False),
        sa.Column("key_digest", byte_string(64), nullable=False),
        sa.Column("identity", byte_string(64), nullable=False),
        sa.Column("parameters", LONG_TEXT, nullable=False),
        sa.Column("parameters_url", LONG_TEXT),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["type_id"],
            ["entropic_component_types.id"],
            name=op.f("fk_entropic_component_states_type_id_entropic_component_types"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entropic_component_states")),
        sa.UniqueConstraint("key_digest", name=op.f("uq_entropic_component_states_key_digest")),
    )
    op.create_index(op.f("ix_entropic_component_states_type_id"), "entropic_component_states", ["type_id"])
    op.create_table(
        "entropic_component_parameters",
        sa.Column("state_id", INTEGER, nullable=False, autoincrement=False),
        sa.Column("digest", byte_string(64), nullable=False),
        state_key("entropic_component_parameters", "state_id"),
        sa.PrimaryKeyConstraint("state_id", "digest", name=op.f("pk_entropic_component_parameters")),
    )
    op.create_index(
        op.f("ix_entropic_component_parameters_digest"), "entropic_component_parameters", ["digest"]
    )
    op.create_table(
        "entropic_component_inputs",
        sa.Column("state_id", INTEGER, nullable=False, autoincrement=False),
        sa.Column("position", INTEGER, nullable=False, autoincrement=False),
        sa.Column("input_state_id", INTEGER, nullable=False),
        state_key("entropic_component_inputs", "state_id"),
        state_key("entropic_component_inputs", "input_state_id"),
        sa.PrimaryKeyConstraint("state_id", "position", name=op.f("pk_entropic_component_inputs")),
    )
    op.create_index(
        op.f("ix_entropic_component_inputs_input_state_id"), "entropic_component_inputs", ["input_state_id"]
    )
    op.create_table(
        "entropic_data_items",
        sa.Column("state_id", INTEGER, nullable=False, autoincrement=False),
        sa.Column("attribute", byte_string(255), nullable=False),
        sa.Column("writing", byte_string(32), nullable=False),
        sa.Column("codec", byte_string(16), nullable=False),
        sa.Column("payload", LONG_TEXT),
        sa.Column("file_name", byte_string(255)),
        sa.Column("sha256", byte_string(64), nullable=False),
        sa.Column("size_bytes", INTEGER, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        state_key("entropic_data_items", "state_id"),
        sa.ForeignKeyConstraint(
            ["file_name"],
            ["entropic_data_files.name"],
            name=op.f("fk_entropic_data_items_file_name_entropic_data_files"),
        ),
        sa.PrimaryKeyConstraint("state_id", "attribute", name=op.f("pk_entropic_data_items")),
    )
    op.create_index(op.f("ix_entropic_data_items_file_name"), "entropic_data_items", ["file_name"])
    op.create_index(op.f("ix_entropic_data_items_updated_at"), "entropic_data_items", ["updated_at"])


def downgrade() -> None:
    op.drop_table("entropic_data_items")
    op.drop_table("entropic_component_inputs")
    op.drop_table("entropic_component_parameters")
    op.drop_table("entropic_component_states")
    op.drop_table("entropic_data_files")
    op.drop_table("entropic_component_types")
