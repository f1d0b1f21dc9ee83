"""Tables of an experiment's records: configs, statistics and weights.

Revision 0002, after 0001. Imports nothing from entropic: the models move on, this script does not.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
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


def integers(*names: str) -> list[sa.Column[int]]:
    """Return columns of numbers that are part of keys, and none that the database gives."""
    return [sa.Column(name, INTEGER, nullable=False, autoincrement=False) for name in names]


def upgrade() -> None:
    create_configs()
    create_stats()
    create_weights()


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


def create_stats() -> None:
    op.create_table(
        "entropic_stats_runs",
        sa.Column("id", INTEGER, nullable=False, autoincrement=True),
        sa.Column("name", byte_string(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entropic_stats_runs")),
        sa.UniqueConstraint("name", name=op.f("uq_entropic_stats_runs_name")),
    )
    op.create_table(
        "entropic_training_stats",
        *integers("run_id", "iteration"),
        sa.Column("loss", sa.Double()),
        sa.Column("time", sa.Double()),
        sa.PrimaryKeyConstraint("run_id", "iteration", name=op.f("pk_entropic_training_stats")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "entropic_validations",
        *integers("run_id", "iteration"),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "iteration", name=op.f("pk_entropic_validations")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "entropic_validation_scores",
        *integers("run_id", "iteration", "position"),
        sa.Column("dataset", INTEGER),
        sa.Column("parameters", INTEGER),
        sa.Column("criterion", INTEGER),
        sa.Column("score", sa.Double()),
        sa.PrimaryKeyConstraint(
            "run_id", "iteration", "position", name=op.f("pk_entropic_validation_scores")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "entropic_stats_labels",
        *integers("run_id"),
        sa.Column("axis", byte_string(16), nullable=False),
        *integers("number"),
        sa.Column("label", LONG_TEXT, nullable=False),
        sa.Column("higher_is_better", sa.Boolean()),
        sa.PrimaryKeyConstraint("run_id", "axis", "number", name=op.f("pk_entropic_stats_labels")),
    )
    op.create_table(
        "entropic_metrics",
        *integers("run_id", "metric", "iteration"),
        sa.Column("value", sa.Double()),
        sa.PrimaryKeyConstraint("run_id", "metric", "iteration", name=op.f("pk_entropic_metrics")),
        sqlite_with_rowid=False,
    )


def create_weights() -> None:
    op.create_table(
        "entropic_weights",
        sa.Column("run_name", byte_string(255), nullable=False),
        *integers("iteration"),
        sa.Column("file_name", byte_string(255), nullable=False),
        sa.Column("size_bytes", INTEGER, nullable=False),
        sa.Column("sha256", byte_string(64), nullable=False),
        sa.Column("created_at", utc_time(), nullable=False),
        sa.PrimaryKeyConstraint("run_name", "iteration", name=op.f("pk_entropic_weights")),
    )
    op.create_table(
        "entropic_best_weights",
        sa.Column("run_name", byte_string(255), nullable=False),
        sa.Column("dataset", byte_string(255), nullable=False),
        sa.Column("criterion", byte_string(255), nullable=False),
        *integers("iteration"),
        sa.Column("score", sa.Double()),
        sa.Column("created_at", utc_time(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_name", "iteration"],
            ["entropic_weights.run_name", "entropic_weights.iteration"],
            name=op.f("fk_entropic_best_weights_run_name_iteration_entropic_weights"),
        ),
        sa.PrimaryKeyConstraint("run_name", "dataset", "criterion", name=op.f("pk_entropic_best_weights")),
    )
    op.create_index(
        op.f("ix_entropic_best_weights_run_name_iteration"),
        "entropic_best_weights",
        ["run_name", "iteration"],
    )


def downgrade() -> None:
    for name in ("best_weights", "weights", "metrics", "stats_labels", "validation_scores", "validations"):
        op.drop_table(f"entropic_{name}")
    op.drop_table("entropic_training_stats")
    op.drop_table("entropic_stats_runs")
    op.drop_table("entropic_config_parts")
    op.drop_table("entropic_configs")
