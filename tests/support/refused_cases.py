"""A table whose rows a database may refuse, for each reason that it can have, and a runner that gives it one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import CheckConstraint, String, UniqueConstraint, text

from entropic import Base, Database, Mapped, Store, output
from tests.support.counting import append_line
from tests.support.protocol_cases import arm

ODD = 2  # the n whose row is refused

REASONS: dict[str, dict[str, Any]] = {
    "check": {"loss": -1.0},
    "duplicate": {"label": "taken"},
    "too long": {"label": "far too long"},
    "charset": {"label": "Łódź"},
    "packet": {"notes": "x" * (17 << 20)},
}
"""What the runner returns where the database refuses the row."""


class Trial(Base):
    __tablename__ = "refused_trials"
    __table_args__ = (CheckConstraint("loss >= 0", name="positive"), UniqueConstraint("label"))

    n: Mapped[int]
    loss: Mapped[float | None] = output()
    label: Mapped[str | None] = output(String(40))


@dataclass(frozen=True)
class Odd:
    """Writes a file, leaves a line per call in *log*, and returns for one n what the database will refuse."""

    log: Path
    reason: str

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        append_line(self.log, str(params["n"]))
        Path(params["result_file"]).write_text(str(params["n"]))
        return REASONS[self.reason] if params["n"] == ODD else {"loss": 1.0}


@dataclass(frozen=True)
class Trials:
    """Where the table lives: it goes to children as it is."""

    url: str
    folder: Path
    reason: str

    def store(self, **options: Any) -> Store[Trial]:
        runner = Odd(self.folder / "calls.log", self.reason)
        options = {"wait_timeout_s": 3.0, **options}
        return Store(runner, Trial, self.folder / "results", ".txt", self.url, **options)

    def calls(self) -> list[int]:
        log = self.folder / "calls.log"
        return sorted(int(line) for line in log.read_text().split()) if log.exists() else []

    def sql(self, *statements: str) -> list[Any]:
        """Run statements past all code under test, and return the rows of the last."""
        with Database(self.url).engine.begin() as connection:
            for statement in statements:
                result = connection.execute(text(statement))
            return list(result) if result.returns_rows else []

    def prepare(self) -> None:
        """Make the table, and give the database its reason."""
        database = self.store().database
        if self.reason == "duplicate":
            values = "'0', 'elsewhere', CURRENT_TIMESTAMP, '{}', 100, 'taken'"
            columns = "id, result_file, created_at, custom_data, n, label"
            self.sql(f"INSERT INTO refused_trials ({columns}) VALUES ({values})")
        elif self.reason == "too long":
            how = "ALTER COLUMN label TYPE" if database.dialect == "postgresql" else "MODIFY COLUMN label"
            self.sql(f"ALTER TABLE refused_trials {how} VARCHAR(3)")


def run_and_die(trials: Trials) -> None:
    """Run the odd one in a process that dies when the run is finished and not committed."""
    store = trials.store()
    arm("line written")
    store.run_or_retrieve({"n": ODD})
