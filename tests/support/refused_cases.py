"""A table whose rows a database may refuse, for each reason that it can have, and a runner that gives it one."""

import re
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
    "at commit": {"label": "taken"},
    "trigger": {"label": "taken"},
    "foreign key": {"label": "taken"},
    "null": {"loss": None},
    "range": {"loss": 7.0, "label": "taken"},
    "too long": {"label": "far too long"},
    "charset": {"label": "Łódź"},
    "packet": {"notes": "x" * (17 << 20)},
}
"""What the runner returns where the database refuses the row."""


_ANYWHERE = ("check", "duplicate", "trigger", "null", "foreign key")
_ON_SERVERS = (*_ANYWHERE, "range", "too long", "charset")

KINDS = [
    *(("sqlite", reason) for reason in (*_ANYWHERE, "at commit")),
    *(("postgresql", reason) for reason in (*_ON_SERVERS, "at commit")),
    *(("mysql", reason) for reason in (*_ON_SERVERS, "packet")),
]
"""Each reason on each database that can have it, for whoever makes the runs.

SQLite has no lengths and no charset, and takes any number. MySQL looks at no constraint as late as at COMMIT, and
alone has a limit on a packet that a row can exceed.
"""


SETUPS: dict[tuple[str, str], tuple[str, ...]] = {
    ("sqlite", "trigger"): (
        "CREATE TRIGGER no BEFORE INSERT ON refused_trials WHEN NEW.label = 'taken' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END",
    ),
    ("postgresql", "trigger"): (
        "CREATE FUNCTION no() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no'; END $$ LANGUAGE plpgsql",
        "CREATE TRIGGER no BEFORE INSERT ON refused_trials FOR EACH ROW WHEN (NEW.label = 'taken') "
        "EXECUTE FUNCTION no()",
    ),
    ("mysql", "trigger"): (
        "CREATE TRIGGER no BEFORE INSERT ON refused_trials FOR EACH ROW IF NEW.label = 'taken' THEN "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF",
    ),
    ("postgresql", "foreign key"): (
        "CREATE TABLE labels (LIKE refused_trials INCLUDING ALL)",
        "ALTER TABLE refused_trials ADD FOREIGN KEY (label) REFERENCES labels (label)",
    ),
    ("mysql", "foreign key"): (
        "CREATE TABLE labels LIKE refused_trials",
        "ALTER TABLE refused_trials ADD FOREIGN KEY (label) REFERENCES labels (label)",
    ),
    ("postgresql", "null"): ("ALTER TABLE refused_trials ALTER COLUMN loss SET NOT NULL",),
    ("mysql", "null"): ("ALTER TABLE refused_trials MODIFY COLUMN loss DOUBLE NOT NULL",),
    ("postgresql", "range"): ("CREATE INDEX inverse ON refused_trials ((1 / (loss - 7)))",),
    ("mysql", "range"): (
        "CREATE TRIGGER no BEFORE INSERT ON refused_trials FOR EACH ROW IF NEW.label = 'taken' THEN "
        "SET NEW.loss = EXP(1000); END IF",
    ),
    ("postgresql", "too long"): ("ALTER TABLE refused_trials ALTER COLUMN label TYPE VARCHAR(3)",),
    ("mysql", "too long"): ("ALTER TABLE refused_trials MODIFY COLUMN label VARCHAR(3)",),
}
"""What gives a database its reason, by dialect and reason; the others are in the model."""

_NAMES = r"\blabel VARCHAR\(40\)"
SQLITE_COLUMNS = {
    "null": (r"\bloss \w+", "NOT NULL"),
    "foreign key": (_NAMES, "REFERENCES labels (label)"),
    "at commit": (_NAMES, "REFERENCES labels (label) DEFERRABLE INITIALLY DEFERRED"),
}
"""What is added to a column of SQLite's, which cannot be changed later."""


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
class Writing:
    """Writes a text, whatever it is asked for."""

    text: str

    def __call__(self, params: dict[str, Any]) -> None:
        Path(params["result_file"]).write_text(self.text)


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

    def writing(self, text: str) -> Store[Trial]:
        """A Store whose runner writes *text*."""
        return Store(Writing(text), Trial, self.folder / "results", ".txt", self.url)

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
        if database.dialect == "sqlite" and self.reason in SQLITE_COLUMNS:
            self._make_anew(*SQLITE_COLUMNS[self.reason])
            return
        if self.reason in {"duplicate", "at commit"}:
            values = "'0', 'elsewhere', CURRENT_TIMESTAMP, '{}', 100, 'taken'"
            columns = "id, result_file, created_at, custom_data, n, label"
            self.sql(f"INSERT INTO refused_trials ({columns}) VALUES ({values})")
        if self.reason == "at commit":
            (found,) = self.sql(
                "SELECT conname FROM pg_constraint WHERE contype = 'u' AND conrelid = 'refused_trials'::regclass"
            )
            change = f"DROP CONSTRAINT {found.conname}, ADD UNIQUE (label) DEFERRABLE INITIALLY DEFERRED"
            self.sql(f"ALTER TABLE refused_trials {change}")
        self.sql(*SETUPS.get((database.dialect, self.reason), ("SELECT 1",)))

    def _make_anew(self, column: str, more: str) -> None:
        (made,) = self.sql("SELECT sql FROM sqlite_master WHERE name = 'refused_trials'")
        changed, count = re.subn(f"({column})", rf"\1 {more}", made.sql, count=1)
        assert count, made.sql
        self.sql("CREATE TABLE labels (label VARCHAR(40) PRIMARY KEY)", "DROP TABLE refused_trials", changed)


def run_and_die(trials: Trials) -> None:
    """Run the odd one in a process that dies when the run is finished and not committed."""
    store = trials.store()
    arm("line written")
    store.run_or_retrieve({"n": ODD})


def run_and_die_moved(trials: Trials) -> None:
    """Run again in a process that dies when the file is in its place, and its row is not committed."""
    store = trials.writing("later")
    arm("file moved")
    store.run({"n": 1})
