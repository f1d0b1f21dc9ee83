"""Rows that the database refuses: a failed run, which costs no other run, no file, no claim and no second run."""

import logging
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from entropic import memoize
from entropic.disk.roots import QUARANTINE, STATE
from entropic.errors import SchemaError
from entropic.runs.refusals import spellings
from entropic.sql.outages import bytes_of
from tests.support import servers
from tests.support.processes import outcomes_of
from tests.support.refused_cases import KINDS, ODD, REASONS, Trials, run_and_die, run_and_die_moved
from tests.support.sweep_runs import place

SLOW = {
    ("mysql", "packet"),
    *(
        (kind, reason)
        for kind in ("postgresql", "mysql")
        for reason in ("trigger", "foreign key", "null", "range")
    ),
}
ONE_OF_EACH = [("sqlite", "check"), ("postgresql", "charset"), ("mysql", "charset")]
GRID = [{"n": n} for n in (1, ODD, 3)]


@pytest.fixture
def trials(request, tmp_path):
    """A table in a database that refuses the odd row, and has a reason."""
    kind, reason = request.param
    if kind == "sqlite":
        made = Trials(f"sqlite:///{tmp_path / 'trials.sqlite3'}", tmp_path, reason)
        made.prepare()
        yield made
        return
    server = request.getfixturevalue("postgres_server" if kind == "postgresql" else "mysql_server")
    make = servers.postgres_database if kind == "postgresql" else servers.mysql_database
    with make(server, latin1=reason == "charset") as url:
        made = Trials(url, tmp_path, reason)
        made.prepare()
        yield made


def named(kind):
    return "-".join(kind)


def each(is_fast):
    """Every reason on every database that can have it; slow are those of which something is not true."""
    kinds = [kind if is_fast(kind) else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
    return pytest.mark.parametrize("trials", kinds, indirect=True, ids=named)


each_kind = each(lambda kind: kind not in SLOW)
mostly_slowly = each(lambda kind: kind in ONE_OF_EACH)
always_slowly = each(lambda kind: False)
on_sqlite = pytest.mark.parametrize("trials", [("sqlite", "check")], indirect=True, ids=named)


def kept(trials):
    return [path.read_text() for path in (trials.folder / "results" / STATE / QUARANTINE).rglob("*.txt")]


def stored(trials):
    return sorted(row.n for row in trials.sql("SELECT n FROM refused_trials WHERE n < 100"))


def assert_settled(trials, *, rows, attempts=1):
    """Whatever was asked for is stored or failed, and nobody will come back to it."""
    calls = trials.calls()

    (failed,) = trials.store().failures()

    assert failed.params == {"n": ODD}
    assert "the database refuses the row" in failed.message
    assert stored(trials) == rows
    assert kept(trials) == [str(ODD)] * attempts
    assert trials.sql("SELECT * FROM entropic_claims") == []
    assert [finding for finding in trials.store().check() if finding.id != "0"] == []
    assert trials.calls() == calls


@each_kind
def test_sweep_with_a_row_that_is_refused_stores_the_others_and_lists_it(trials, request):
    assert_swept(trials, request, "serial")


@mostly_slowly
def test_single_run_whose_row_is_refused_raises_and_says_where_its_file_is(trials):
    with pytest.raises((SQLAlchemyError, UnicodeEncodeError)) as caught:
        trials.store().run_or_retrieve({"n": ODD})

    assert "the database refuses its row; its file is kept in" in caught.value.__notes__[-1]
    assert_settled(trials, rows=[])


@mostly_slowly
def test_recovery_of_a_row_that_is_refused_settles_it(trials):
    outcomes_of(run_and_die, [(trials,)])
    assert stored(trials) == []

    recovered = trials.store().recover()

    assert recovered == 0
    assert trials.calls() == [ODD]
    assert_settled(trials, rows=[])


def assert_swept(trials, request, where):
    with place(where, request) as options:
        result = trials.store().sweep(GRID, on_error="continue", fallback="raise", progress=False, **options)

    assert sorted(record.n for record in result) == [1, 3]
    assert [failed.params for failed in result.failed] == [{"n": ODD}]
    assert Counter(trials.calls()) == {1: 1, ODD: 1, 3: 1}
    assert_settled(trials, rows=[1, 3])


@mostly_slowly
def test_sweep_on_dask_with_a_row_that_is_refused_stores_the_others(trials, request):
    assert_swept(trials, request, "dask")


@always_slowly
def test_sweep_in_workers_with_a_row_that_is_refused_stores_the_others(trials, request):
    assert_swept(trials, request, "workers")


@on_sqlite
def test_sweep_raises_the_refusal_once_all_others_are_stored(trials):
    with pytest.raises(SQLAlchemyError, match="positive") as caught:
        trials.store().sweep(GRID, progress=False)

    assert any("1 of 3 runs of the sweep failed" in note for note in caught.value.__notes__)
    assert_settled(trials, rows=[1, 3])


@on_sqlite
def test_row_that_is_refused_is_run_again_for_who_asks_again(trials):
    for _ in range(2):
        trials.store().sweep(GRID, on_error="continue", progress=False)

    assert Counter(trials.calls()) == {1: 1, ODD: 2, 3: 1}
    assert_settled(trials, rows=[1, 3], attempts=2)


@on_sqlite
def test_sweep_that_finds_a_refused_run_of_a_dead_process_runs_it_once(trials):
    outcomes_of(run_and_die, [(trials,)])

    result = trials.store().sweep(GRID, on_error="continue", progress=False)

    assert [failed.params for failed in result.failed] == [{"n": ODD}]
    assert Counter(trials.calls()) == {1: 1, ODD: 2, 3: 1}


@on_sqlite
@pytest.mark.usefixtures("leases_end_at_once")
def test_claim_taken_over_whose_finished_run_is_refused_is_claimed_anew(trials):
    outcomes_of(run_and_die, [(trials,)])
    trials.sql("UPDATE entropic_claims SET expires_at = 0, boot = 'of another host'")

    result = trials.store(wait_timeout_s=30.0).sweep(GRID, on_error="continue", progress=False)

    assert [failed.params for failed in result.failed] == [{"n": ODD}]
    assert Counter(trials.calls()) == {1: 1, ODD: 2, 3: 1}
    assert trials.sql("SELECT * FROM entropic_claims") == []


@on_sqlite
def test_recovery_that_meets_other_trouble_gives_its_claims_back(trials):
    outcomes_of(run_and_die, [(trials,)])
    store = trials.store()
    outcomes_of(run_and_die, [(trials,)])
    trials.sql("CREATE TRIGGER no BEFORE INSERT ON refused_trials BEGIN INSERT INTO gone VALUES (1); END")

    with pytest.raises(SQLAlchemyError, match="gone"):
        store.recover()

    assert trials.sql("SELECT * FROM entropic_claims") == []
    assert kept(trials) == [str(ODD)]


@on_sqlite
def test_rerun_whose_row_is_refused_leaves_row_and_file(trials):
    trials.store().sweep([{"n": 1}], progress=False)
    trials.sql("CREATE TRIGGER no BEFORE UPDATE ON refused_trials BEGIN SELECT RAISE(ABORT, 'no'); END")

    with pytest.raises(SQLAlchemyError, match="no"):
        trials.store().run({"n": 1})

    assert Path(trials.store().retrieve({"n": 1}).result_file).read_text() == "1"
    assert kept(trials) == ["1"]
    assert trials.sql("SELECT * FROM entropic_claims") == []


LATE = (
    "CREATE FUNCTION no() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'not so late'; END $$ LANGUAGE plpgsql",
    "CREATE CONSTRAINT TRIGGER no AFTER UPDATE ON refused_trials DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION no()",
)


def assert_former_stands(trials, store):
    """A re-run that was refused as it was committed has cost neither the row nor its file."""
    record = trials.store().retrieve({"n": 1})
    assert Path(record.result_file).read_text() == "former"
    assert kept(trials) == ["later"]
    assert trials.sql("SELECT * FROM entropic_claims") == []
    assert [failed.params for failed in store.failures()] == [{"n": 1}]
    assert [finding for finding in store.check(checksum=True) if finding.id != "0"] == []


@pytest.mark.parametrize("trials", [("postgresql", "at commit")], indirect=True, ids=named)
@pytest.mark.parametrize("is_killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rerun_that_is_refused_at_commit_leaves_row_and_file(trials, is_killed):
    trials.writing("former").run({"n": 1})
    trials.sql(*LATE)

    if is_killed:
        outcomes_of(run_and_die_moved, [(trials,)])
        store = trials.writing("later")
    else:
        store = trials.writing("later")
        with pytest.raises(SQLAlchemyError, match="not so late"):
            store.run({"n": 1})

    assert_former_stands(trials, store)


@on_sqlite
def test_trouble_that_no_row_is_to_blame_for_stops_the_sweep_and_loses_nothing(trials):
    store = trials.store()
    trials.sql("CREATE TRIGGER no BEFORE INSERT ON refused_trials BEGIN INSERT INTO gone VALUES (1); END")

    with pytest.raises(SQLAlchemyError, match="gone"):
        store.sweep([{"n": 1}], progress=False)
    claims = trials.sql("SELECT * FROM entropic_claims")
    trials.sql("DROP TRIGGER no")

    assert claims == []
    assert trials.store().retrieve({"n": 1}) is not None
    assert trials.calls() == [1]


@on_sqlite
def test_column_that_no_run_fills_is_laid_to_the_table(trials):
    store = trials.store()
    made = trials.sql("SELECT sql FROM sqlite_master WHERE name = 'refused_trials'")[0].sql
    trials.sql("DROP TABLE refused_trials", made.replace("n INTEGER", "extra INTEGER NOT NULL, n INTEGER"))

    with pytest.raises(SchemaError, match="extra"):
        store.run_or_retrieve({"n": 1})
    trials.sql("DROP TABLE refused_trials", made)

    assert kept(trials) == []
    assert trials.store().retrieve({"n": 1}) is not None


def latin1(mysql_server):
    return servers.mysql_database(mysql_server, latin1=True)


def test_failure_that_the_database_cannot_spell_is_recorded_in_ascii(mysql_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with latin1(mysql_server) as url:

        @memoize(db_url=url, wait_timeout_s=3)
        def fails(n: int) -> int:
            raise ValueError("\u03bc must be positive")

        for _ in range(2):
            with pytest.raises(ValueError, match="\u03bc must be positive"):
                fails(0)

        messages = [failed.message for failed in fails.store.failures()]
        assert messages == ["\\u03bc must be positive"]


def test_trouble_with_the_record_leaves_the_exception_and_the_key(sqlite_url, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)

    @memoize(db_url=sqlite_url, wait_timeout_s=3)
    def fails(n: int) -> int:
        raise ValueError("of its own")

    with fails.store.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE entropic_attempts RENAME TO away")
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="of its own"):
        fails(0)

    with fails.store.database.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT * FROM entropic_claims").all() == []
    assert "could not be recorded" in caplog.text


def test_spellings_are_ascii_that_fits_its_columns_and_names_the_same_run():
    attempt = {
        "id": "i", "table_name": "täble", "record_id": "schlüssel", "state": "FAILED", "exit_code": 3,
        "params": {"n": "x"}, "message": "\0ü" * 10_000, "host": "ü" * 200,
    }  # fmt: skip

    plain, barest = spellings(attempt)

    assert [plain[name] for name in ("id", "table_name", "record_id")] == ["i", "täble", "schlüssel"]
    assert plain["message"].isascii()
    assert len(plain["message"]) < 20_000
    assert len(plain["host"]) == 255
    assert (plain["params"], barest["params"]) == ({"n": "x"}, {})
    assert plain["exit_code"] == 3


def test_bytes_of_parameters_are_those_of_the_largest_row():
    assert bytes_of({"a": "ü'", "b": 12, "c": b"123", "d": None}) == 4 + 2 + 3 + 4
    assert bytes_of([("aaaa", 1), ("a", 1)]) == 5
    assert bytes_of(()) == 0


def test_every_reason_has_a_kind():
    assert {reason for _, reason in KINDS} == set(REASONS)
    assert {*SLOW, *ONE_OF_EACH} <= set(KINDS)
