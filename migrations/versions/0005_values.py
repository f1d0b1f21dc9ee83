"""Results without a file: small values that stand in their rows.

Revision 0005, after 0004. Imports nothing from entropic: the models move on, this script does not.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
FILES = sa.Table(
    "entropic_files",  # as SQLite has it, which copies the table to change it
    sa.MetaData(),
    sa.Column("table_name", sa.String(), nullable=False),
    sa.Column("record_id", sa.String(), nullable=False),
    sa.Column("attempt", sa.String()),
    sa.Column("name", LONG_TEXT),
    sa.Column("size_bytes", sa.Integer(), nullable=False),
    sa.Column("sha256", sa.String(), nullable=False),
    sa.PrimaryKeyConstraint("table_name", "record_id", name="pk_entropic_files"),
)
META = sa.table("entropic_meta", sa.column("name", sa.String()), sa.column("value", sa.String()))


def upgrade() -> None:
    with op.batch_alter_table("entropic_files", copy_from=FILES) as files:
        files.alter_column("name", existing_type=LONG_TEXT, existing_nullable=False, nullable=True)
    # An earlier release would take such a row for one whose file is gone.
    op.execute(META.update().where(META.c.name == "needs").values(value="3.1.0"))


def downgrade() -> None:
    values = sa.select(sa.func.count()).select_from(FILES).where(FILES.c.name.is_(None))
    if not op.get_context().as_sql and (count := op.get_bind().scalar(values)):
        # An earlier release would run them again, and its `check(fix=True)` would delete their rows.
        raise RuntimeError(
            f"{count} results stand in their rows, which revision {down_revision} cannot say. Nothing was changed: "
            "delete them first, or restore the database from a backup of before"
        )
    op.execute(META.update().where(META.c.name == "needs").values(value="3.0.0"))
    with op.batch_alter_table("entropic_files", copy_from=FILES) as files:
        files.alter_column("name", existing_type=LONG_TEXT, existing_nullable=True, nullable=False)
