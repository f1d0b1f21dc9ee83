"""The API reference that the project started from, clause by clause, as the contract of the Store refines it.

Where the two differ the contract holds: custom data is not passed to the runner, only a lost cluster falls back to
serial, unknown keys are errors, and not every type falls back to ``str()``.
"""

import enum
import inspect
from concurrent.futures import Executor
from datetime import date, datetime
from pathlib import Path

import pytest

import entropic
from entropic import (
    Base,
    Mapped,
    ParameterError,
    SchemaError,
    Store,
    UnhashableParamError,
    expand_grid,
    hash_params,
)
from tests.support.counting import NumberedRunner, statements


class SimResult(Base):
    __tablename__ = "seed_results"

    n: Mapped[int]
    dt: Mapped[float]


class LostExecutor(Executor):
    """A cluster that is gone: it takes nothing."""

    def submit(self, function, /, *args, **kwargs):
        raise ConnectionError("the scheduler is gone")


PARAMS = {"n": 100, "dt": 0.1}


@pytest.fixture
def runner():
    return NumberedRunner()


@pytest.fixture
def store(runner, tmp_path, sqlite_url):
    store = Store(runner, SimResult, tmp_path / "results", ".h5", sqlite_url)
    yield store
    store.database.dispose()


def test_constructor_has_the_promised_arguments_and_defaults():
    parameters = inspect.signature(Store).parameters

    assert list(parameters)[:5] == ["runner", "result_cls", "results_dir", "file_suffix", "db_url"]
    assert [parameters[name].default for name in list(parameters)[2:5]] == [
        "./results",
        ".h5",
        "sqlite:///db.sqlite3",
    ]


def test_constructor_makes_the_folder_and_the_table(store, tmp_path):
    assert (tmp_path / "results").is_dir()
    assert store.count() == 0


def test_constructor_takes_a_path_as_text(runner, tmp_path, sqlite_url):
    store = Store(runner, SimResult, str(tmp_path / "deep" / "results"), db_url=sqlite_url)

    assert (tmp_path / "deep" / "results").is_dir()
    store.database.dispose()


def test_file_suffix_is_appended_to_the_generated_name(store):
    assert Path(store.run_or_retrieve(PARAMS).result_file).name == f"{hash_params(PARAMS)}.h5"


def test_methods_return_the_model(store):
    assert all(type(record) is SimResult for record in (store.run(PARAMS), store.retrieve(PARAMS)))


def test_run_or_retrieve_runs_once_and_persists(store, runner):
    first, second = store.run_or_retrieve(PARAMS), store.run_or_retrieve(PARAMS)

    assert (len(runner.seen), first.id) == (1, second.id)


def test_custom_data_is_stored_on_the_row_and_not_passed_to_the_runner(store, runner):
    record = store.run_or_retrieve(PARAMS, campaign="may")

    assert record.custom_data["campaign"] == "may"
    assert runner.seen[0].keys() == {"n", "dt", "id", "result_file"}


def test_custom_data_is_only_stored_when_a_run_happens(store):
    store.run_or_retrieve(PARAMS, campaign="may")

    assert store.run_or_retrieve(PARAMS, campaign="june").custom_data["campaign"] == "may"


def test_run_always_executes_and_overwrites_row_and_file_at_the_same_path(store, runner):
    first, second = store.run(PARAMS), store.run(PARAMS)

    assert len(runner.seen) == 2
    assert (first.id, first.result_file) == (second.id, second.result_file)
    assert Path(second.result_file).read_text() == "run 2"
    assert store.count() == 1


def test_run_adds_elapsed_seconds(store):
    assert store.run(PARAMS).custom_data["elapsed_seconds"] >= 0


def test_retrieve_is_an_exact_match_or_none(store):
    store.run(PARAMS)

    assert store.retrieve(PARAMS).n == 100
    assert store.retrieve({"n": 100, "dt": 0.2}) is None


def test_retrieve_with_an_id_uses_it_verbatim(store):
    record = store.run(PARAMS)

    assert store.retrieve({"id": record.id}).n == 100


def test_register_indexes_a_file(store, runner, tmp_path):
    external = tmp_path / "external.h5"
    external.touch()

    record = store.register(PARAMS, external, origin="cluster")

    assert (record.result_file, record.custom_data) == (str(external), {"origin": "cluster"})
    assert store.run_or_retrieve(PARAMS).result_file == str(external)
    assert runner.seen == []


def test_register_of_a_missing_file_is_a_file_not_found_error(store, tmp_path):
    with pytest.raises(FileNotFoundError):
        store.register(PARAMS, tmp_path / "absent.h5")


def test_sweep_takes_any_iterable_once(store, runner):
    records = store.sweep({"n": n, "dt": dt} for n, dt in zip((1, 2), (0.1, 0.2), strict=True))

    assert isinstance(records, list)
    assert [(record.n, record.dt) for record in records] == [(1, 0.1), (2, 0.2)]


def test_sweep_removes_duplicates_and_reuses_what_is_cached(store, runner):
    store.run(PARAMS)

    records = store.sweep([PARAMS, {"n": 1, "dt": 0.1}, {"dt": 0.1, "n": 100}, {"n": 1, "dt": 0.1}])

    assert [record.n for record in records] == [100, 1]
    assert [seen["n"] for seen in runner.seen] == [100, 1]


def test_sweep_takes_a_dask_client_second(store):
    assert list(inspect.signature(store.sweep).parameters)[:2] == ["params", "client"]


def test_sweep_goes_on_serially_when_the_cluster_is_lost(store, runner, caplog):
    records = store.sweep([PARAMS, {"n": 1, "dt": 0.1}], executor=LostExecutor())

    assert len(records) == len(runner.seen) == 2
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_sweep_does_not_repeat_a_runners_own_error_serially(tmp_path, sqlite_url):
    from concurrent.futures import ThreadPoolExecutor

    calls = []

    def runner(params):
        calls.append(params["n"])
        raise ZeroDivisionError("in the model")

    store = Store(runner, SimResult, tmp_path / "results", db_url=sqlite_url)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        store.sweep([PARAMS], executor=pool)

    assert calls == [100]
    store.database.dispose()


def test_delete_removes_the_row_and_with_remove_file_the_file(store):
    record = store.run(PARAMS)

    assert store.delete(PARAMS) is True
    assert Path(record.result_file).exists()
    record = store.run(PARAMS)
    assert store.delete(PARAMS, True) is True
    assert not Path(record.result_file).exists()
    assert store.delete(PARAMS) is False


def test_expand_grid_is_the_product_in_itertools_order():
    assert expand_grid({"alpha": [1, 2], "beta": [0.1, 0.2]}) == [
        {"alpha": 1, "beta": 0.1},
        {"alpha": 1, "beta": 0.2},
        {"alpha": 2, "beta": 0.1},
        {"alpha": 2, "beta": 0.2},
    ]


def test_names_of_the_schema_are_exported():
    assert {"Base", "Mapped", "mapped_column", "expand_grid", "Store"} <= set(entropic.__all__)


def test_base_defines_four_reserved_columns(store):
    columns = SimResult.__table__.c

    assert set(columns.keys()) == {"id", "result_file", "created_at", "custom_data", "n", "dt"}
    assert columns["id"].primary_key
    assert not columns["custom_data"].nullable


@pytest.mark.parametrize("name", ["id", "result_file", "created_at", "custom_data"])
def test_reserved_column_cannot_be_redefined(name):
    with pytest.raises(SchemaError, match=name):
        type(Base)("Taken", (Base,), {"__tablename__": "taken", "__annotations__": {name: Mapped[str]}})


def test_id_has_sixteen_hexadecimal_digits_and_created_at_is_utc(store):
    record = store.run(PARAMS)

    assert len(record.id) == 16
    assert int(record.id, 16) >= 0
    assert record.created_at.utcoffset().total_seconds() == 0


def test_custom_data_of_a_new_row_defaults_to_an_empty_dict(store, tmp_path):
    external = tmp_path / "external.h5"
    external.touch()

    assert store.register(PARAMS, external).custom_data == {}


def test_apply_patch_merges_removes_and_clears_custom_data():
    record = SimResult(id="x", n=1, dt=0.1, custom_data={"a": 1, "b": 2})

    record.apply_patch({"n": 2, "dt": None, "custom_data": {"a": None, "c": 3}})
    merged = (record.n, record.dt, dict(record.custom_data))
    record.apply_patch({"custom_data": None})
    untouched = dict(record.custom_data)
    record.apply_patch({"custom_data": {}})

    assert merged == (2, 0.1, {"b": 2, "c": 3})
    assert untouched == {"b": 2, "c": 3}
    assert record.custom_data == {}


def test_apply_patch_refuses_an_unknown_key_and_another_id():
    record = SimResult(id="x", n=1, dt=0.1)

    with pytest.raises(AttributeError, match="nn"):
        record.apply_patch({"n": 2, "nn": 2})
    with pytest.raises(AttributeError, match="id"):
        record.apply_patch({"id": "y"})
    assert (record.n, record.id) == (1, "x")


def test_private_patch_of_custom_data_is_there():
    record = SimResult(id="x", n=1, dt=0.1, custom_data={"a": 1})

    record._apply_custom_data_patch({"b": 2})

    assert record.custom_data == {"a": 1, "b": 2}


def test_runner_finds_result_file_among_its_parameters(store, runner):
    store.run(PARAMS)

    (seen,) = runner.seen
    assert Path(seen["result_file"]).suffix == ".h5"
    assert (seen["n"], seen["dt"]) == (100, 0.1)


class Solver(enum.Enum):
    EULER = "euler"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"dt": 0.1, "n": 100}, {"n": 100, "dt": 0.1}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}),
        ({"a": 0.1 + 0.2}, {"a": 0.3}),
        ({"a": Solver.EULER}, {"a": "euler"}),
        ({"a": (1, (2.0, 3))}, {"a": [1, [2.0, 3]]}),
        ({"a": Path("x/y")}, {"a": "x/y"}),
        ({"a": date(2024, 5, 1)}, {"a": "2024-05-01"}),
        ({"a": 1, "result_file": "x", "created_at": datetime(2024, 5, 1), "custom_data": {}}, {"a": 1}),
    ],
    ids=["order", "nested order", "noise", "enum", "tuple", "path", "date", "reserved"],
)
def test_hash_is_the_same_for(one, other):
    assert hash_params(one) == hash_params(other)


@pytest.mark.parametrize(
    ("one", "other"), [({"a": [1, 2]}, {"a": [2, 1]}), ({"a": 1}, {"a": 2})], ids=["list", "value"]
)
def test_hash_differs_for(one, other):
    assert hash_params(one) != hash_params(other)


def test_hash_does_not_fall_back_to_text_for_every_type():
    with pytest.raises(UnhashableParamError, match="register_hasher"):
        hash_params({"a": object()})


def test_reserved_keys_in_params_are_harmless(store, runner):
    mess = {**PARAMS, "result_file": "x", "created_at": "y", "custom_data": "z"}

    assert store.run_or_retrieve(mess).id == store.run_or_retrieve(PARAMS).id == hash_params(PARAMS)
    assert len(runner.seen) == 1


def test_explicit_id_is_the_primary_key_verbatim(store):
    assert store.run_or_retrieve({**PARAMS, "id": "baseline"}).id == "baseline"


def test_extra_key_is_an_error_before_the_runner_is_called(store, runner):
    with statements(store.database.engine) as seen, pytest.raises(ParameterError, match="extra"):
        store.run_or_retrieve({**PARAMS, "extra": 1})

    assert (runner.seen, seen) == ([], [])
