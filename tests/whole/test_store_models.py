"""A Store whose model or runner changed since its rows were made: refused, warned of, or still a hit."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.schema import CreateColumn

from entropic import Base, Mapped, SchemaError, Store, mapped_column, output, param
from tests.support.counting import CountingRunner
from tests.support.store_cases import attempts_of, warnings_of

# One model before and after a change: the same module, qualified name and table, as when an edited cell runs again.


def model_at_first():
    class Changing(Base):
        __qualname__ = "Changing"
        __tablename__ = "changing"
        alpha: Mapped[float]
        beta: Mapped[float] = param(default=0.5)

    return Changing


def model_with_another_default():
    class Changing(Base):
        __qualname__ = "Changing"
        __tablename__ = "changing"
        alpha: Mapped[float]
        beta: Mapped[float] = param(default=0.75)

    return Changing


def model_without_a_default():
    class Changing(Base):
        __qualname__ = "Changing"
        __tablename__ = "changing"
        alpha: Mapped[float]
        beta: Mapped[float]

    return Changing


def model_without_beta():
    class Changing(Base):
        __qualname__ = "Changing"
        __tablename__ = "changing"
        alpha: Mapped[float]

    return Changing


def model_with_beta_as_output():
    class Changing(Base):
        __qualname__ = "Changing"
        __tablename__ = "changing"
        alpha: Mapped[float]
        beta: Mapped[float | None] = output()

    return Changing


def model_with_more_columns():
    class Changing(Base):
        __qualname__ = "Changing"
        __tablename__ = "changing"
        alpha: Mapped[float]
        beta: Mapped[float] = param(default=0.5)
        solver: Mapped[str] = param(default="rk4")
        order: Mapped[int] = param(default=4)
        adaptive: Mapped[bool] = param(default=False)
        seed: Mapped[int | None]
        error: Mapped[float | None] = output()

    return Changing


def model_with_a_nullable_column():
    class Changing(Base):
        __qualname__ = "Changing"
        __tablename__ = "changing"
        alpha: Mapped[float]
        beta: Mapped[float] = param(default=0.5)
        gamma: Mapped[float | None] = mapped_column(default=1.0)

    return Changing


@pytest.fixture
def runner(tmp_path):
    return CountingRunner(tmp_path / "calls")


def add_columns(database, model, names):
    """Add columns to the table as their model declares them."""
    dialect = database.engine.dialect
    quote = dialect.identifier_preparer.quote
    for name in names:
        column = CreateColumn(model.__table__.c[name]).compile(dialect=dialect)
        statement = text(f"ALTER TABLE {quote('changing')} ADD COLUMN {column}")
        database.write(lambda connection, statement=statement: connection.execute(statement))


GIVEN = [{"alpha": 1.0}, {"alpha": 2.0, "beta": 0.5}, {"alpha": 3.0, "beta": 7.0}]


def test_column_with_a_default_added_to_model_and_table_keeps_every_row_a_hit(database, tmp_path, runner):
    store = Store(runner, model_at_first(), tmp_path / "results", db_url=database)
    old = [store.run_or_retrieve(one).id for one in GIVEN]
    model = model_with_more_columns()
    add_columns(database, model, ["solver", "order", "adaptive", "seed", "error"])

    store = Store(runner, model, tmp_path / "results", db_url=database)
    left_out = [store.run_or_retrieve(one) for one in GIVEN]
    explicit = [
        store.run_or_retrieve({**one, "solver": "rk4", "order": 4, "adaptive": False, "seed": None})
        for one in GIVEN
    ]

    assert [record.id for record in left_out] == [record.id for record in explicit] == old
    assert [record.id for record in store.sweep(GIVEN, progress=False)] == old
    assert {(r.solver, r.order, r.adaptive, r.seed, r.error) for r in left_out} == {
        ("rk4", 4, False, None, None)
    }
    assert len(runner.calls) == 3
    assert store.run_or_retrieve({**GIVEN[0], "order": 5}).id not in old
    assert len(runner.calls) == 4


def test_nullable_column_with_a_default_keeps_old_rows_hits_though_they_hold_null(database, tmp_path, runner):
    store = Store(runner, model_at_first(), tmp_path / "results", db_url=database)
    old = [store.run_or_retrieve(one).id for one in GIVEN]
    model = model_with_a_nullable_column()
    add_columns(database, model, ["gamma"])

    store = Store(runner, model, tmp_path / "results", db_url=database)

    assert [store.run_or_retrieve(one).id for one in GIVEN] == old
    assert [store.run_or_retrieve({**one, "gamma": 1.0}).id for one in GIVEN] == old
    assert store.run_or_retrieve({**GIVEN[0], "gamma": None}).id not in old
    assert len(runner.calls) == 4


def test_column_missing_in_the_table_is_refused_before_anything_runs(database, tmp_path, runner):
    Store(runner, model_at_first(), tmp_path / "results", db_url=database)

    with pytest.raises(SchemaError, match="solver"):
        Store(runner, model_with_more_columns(), tmp_path / "results", db_url=database)

    assert runner.calls == []


def test_default_that_changed_is_refused_with_both_values(database, tmp_path, runner):
    Store(runner, model_at_first(), tmp_path / "results", db_url=database).run_or_retrieve({"alpha": 1.0})

    with pytest.raises(SchemaError, match="beta") as caught:
        Store(runner, model_with_another_default(), tmp_path / "results", db_url=database)

    assert "0.5" in str(caught.value)
    assert "0.75" in str(caught.value)
    again = Store(runner, model_at_first(), tmp_path / "results", db_url=database)
    assert again.run_or_retrieve({"alpha": 1.0}).beta == 0.5
    assert len(runner.calls) == 1


@pytest.mark.parametrize(
    "changed",
    [model_without_a_default, model_without_beta, model_with_beta_as_output],
    ids=lambda f: f.__name__,
)
def test_parameter_that_vanished_or_lost_its_default_is_refused_by_name(sqlite, tmp_path, runner, changed):
    Store(runner, model_at_first(), tmp_path / "results", db_url=sqlite).run_or_retrieve({"alpha": 1.0})

    with pytest.raises(SchemaError, match="beta"):
        Store(runner, changed(), tmp_path / "results", db_url=sqlite)

    assert len(runner.calls) == 1


def test_model_defined_again_without_a_change_is_accepted(sqlite, tmp_path, runner):
    first = Store(runner, model_at_first(), tmp_path / "results", db_url=sqlite)
    record = first.run_or_retrieve({"alpha": 1.0})

    second = Store(runner, model_at_first(), tmp_path / "results", db_url=sqlite)

    assert second.run_or_retrieve({"alpha": 1.0}).id == record.id
    assert len(runner.calls) == 1


# The runner's code


def code_at_first():
    def simulate(params):
        Path(params["result_file"]).write_text("1")

    return simulate


def code_with_comments():
    def simulate(params):
        """Write one."""
        # A comment, and another layout of the same call.
        Path(
            params["result_file"],
        ).write_text("1")

    return simulate


def code_that_changed():
    def simulate(params):
        Path(params["result_file"]).write_text("2")

    return simulate


def test_runner_whose_body_changed_is_warned_of_once_and_nothing_is_run_again(database, tmp_path, caplog):
    model = model_at_first()
    first = Store(code_at_first(), model, tmp_path / "results", db_url=database)
    records = [first.run_or_retrieve({"alpha": alpha}) for alpha in (1.0, 2.0)]

    store = Store(code_that_changed(), model, tmp_path / "results", db_url=database)
    found = [store.run_or_retrieve({"alpha": alpha}) for alpha in (1.0, 2.0)]

    (warning,) = warnings_of(caplog)
    assert warning.startswith("rows of changing that were computed by another version of the runner: 2, ")
    assert records[0].created_at.strftime("%Y-%m-%d") in warning
    assert [record.created_at for record in found] == [record.created_at for record in records]
    assert len(attempts_of(database)) == 2


def test_rows_that_the_changed_runner_ran_again_are_not_warned_of(sqlite, tmp_path, caplog):
    model = model_at_first()
    Store(code_at_first(), model, tmp_path / "results", db_url=sqlite).run_or_retrieve({"alpha": 1.0})
    Store(code_that_changed(), model, tmp_path / "results", db_url=sqlite).run({"alpha": 1.0})
    caplog.clear()

    Store(code_that_changed(), model, tmp_path / "results", db_url=sqlite)

    assert warnings_of(caplog) == []


def test_comments_docstrings_and_layout_of_the_runner_do_not_count(sqlite, tmp_path, caplog):
    model = model_at_first()
    Store(code_at_first(), model, tmp_path / "results", db_url=sqlite).run_or_retrieve({"alpha": 1.0})

    Store(code_with_comments(), model, tmp_path / "results", db_url=sqlite)

    assert warnings_of(caplog) == []


def test_runner_without_source_is_accepted_and_not_warned_of(sqlite, tmp_path, caplog):
    model = model_at_first()
    Store(code_at_first(), model, tmp_path / "results", db_url=sqlite).run_or_retrieve({"alpha": 1.0})
    namespace = {"Path": Path}
    exec("def simulate(params):\n    Path(params['result_file']).write_text('3')\n", namespace)

    store = Store(namespace["simulate"], model, tmp_path / "results", db_url=sqlite)

    assert Path(store.run_or_retrieve({"alpha": 2.0}).result_file).read_text() == "3"
    assert warnings_of(caplog) == []
