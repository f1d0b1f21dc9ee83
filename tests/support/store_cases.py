"""What the tests of a Store share: a model, a runner that can be told what to do, and looks that bypass the Store."""

import json
from pathlib import Path
from typing import Any

from sqlalchemy import text

from entropic import Base, Database, Mapped, output, param
from tests.support.counting import result_bytes


class Pendulum(Base):
    __tablename__ = "pendulum"

    length: Mapped[float]
    swings: Mapped[int]
    damping: Mapped[float] = param(default=0.0)
    label: Mapped[str | None]
    period: Mapped[float | None] = output()
    steps: Mapped[int | None] = output()


PARAMS = {"length": 1.5, "swings": 3}
DEFAULTS = {"damping": 0.0, "label": None}


class Runner:
    """Writes its parameters and keeps what it was given; then returns or raises what it was told.

    A *note* in front of the bytes tells one run of a key from the next.
    """

    def __init__(self, returns: Any = None, raises: BaseException | None = None) -> None:
        self.returns = returns
        self.raises = raises
        self.note = b""
        self.seen: list[dict[str, Any]] = []

    def __call__(self, params: dict[str, Any]) -> Any:
        self.seen.append(dict(params))
        Path(params["result_file"]).write_bytes(self.note + result_bytes(params))
        if self.raises is not None:
            raise self.raises
        return self.returns


def expected_bytes(params: dict[str, Any]) -> bytes:
    """Return what a runner writes for *params* of a `Pendulum`."""
    return result_bytes({**DEFAULTS, **params})


def rows_of(database: Database, table: str = "pendulum") -> list[dict[str, Any]]:
    """Return the rows of a table as the driver gives them, ``custom_data`` decoded."""
    with database.reading() as connection:
        rows = [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]
    for row in rows:
        if isinstance(row.get("custom_data"), str):
            row["custom_data"] = json.loads(row["custom_data"])
    return rows


def attempts_of(database: Database) -> list[tuple[str, str]]:
    """Return state and error type of every attempt, oldest first."""
    statement = text("SELECT state, error_type FROM entropic_attempts ORDER BY ended_at")
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(statement)]


def claims_of(database: Database) -> int:
    """Return how many keys are claimed."""
    with database.reading() as connection:
        return connection.execute(text("SELECT count(*) FROM entropic_claims")).scalar_one()


def results_in(folder: Path) -> list[str]:
    """Return the names in ``folder/results`` that are not the library's own."""
    return sorted(
        path.name for path in (folder / "results").iterdir() if not path.name.startswith(".entropic")
    )


def staged_in(folder: Path) -> list[Path]:
    """Return the files that lie in slots of attempts."""
    return [
        path for path in (folder / "results" / ".entropic").glob("*/*/*") if "quarantine" not in path.parts
    ]


def warnings_of(caplog: Any) -> list[str]:
    """Return the messages of the WARNINGs so far."""
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
