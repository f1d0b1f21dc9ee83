"""`memoize`: a call runs once, its value comes back, and what a Store promises holds for functions."""

import copy
import importlib
import inspect
import json
import logging
import os
import pickle
import signal
import textwrap
import threading
from datetime import timedelta
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from entropic import (
    Base,
    CorruptFileError,
    Database,
    ParameterError,
    ResultFileMissingError,
    SchemaError,
    expand_grid,
    memoize,
    register_codec,
)
from entropic.model.records import RecordReader
from entropic.values import codecs
from tests.support.counting import statements
from tests.support.every_argument import CALLS, EVERYTHING, Scheme, everything
from tests.support.executors import executor_of
from tests.support.memo_cases import call_once, memoized, ranked, runs, simulate, unstorable
from tests.support.processes import run_together
from tests.support.scripts import run_script
from tests.support.values import Mesh, Point, is_same, read_mesh, values, write_mesh
from tests.support.waiting import wait_for


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log")


@pytest.fixture
def function(tmp_path):
    return memoized(tmp_path)


# A call


def test_call_runs_once_and_its_value_comes_back(tmp_path, log, database_url):
    function = memoized(tmp_path, url=database_url)

    first = function(5, log=log)
    second = function(5, log=log)

    assert first.tolist() == [0.0, 0.01, 0.02, 0.03, 0.04]
    assert is_same(first, second)
    assert len(runs(tmp_path)) == 1
    assert not function.store.check(checksum=True)
    function.store.database.dispose()


def test_call_by_position_by_keyword_or_with_defaults_left_out_is_one_call(function, tmp_path, log):
    function(5, log=log)
    function(n=5, log=log)
    function(5, 0.01, log=log)
    function(5, method="rk4", dt=0.01)
    function(np.int64(5), np.float64(0.01), "rk4", "another log")

    assert runs(tmp_path) == [[5, 0.01, "rk4", os.getpid()]]
    assert function.store.count() == 1


def test_hit_is_one_select_and_writes_nothing(tmp_path, log, postgres_url):
    function = memoized(tmp_path, url=postgres_url)
    function(5, log=log)
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))

    with statements(function.store.database.engine) as seen:
        function(5, log=log)

    assert [statement.split()[0] for statement in seen] == ["SELECT"]
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before
    function.store.database.dispose()


RETURNED = []


def returned(n: int):
    return RETURNED[n]


@pytest.fixture(scope="module", params=[2000, 0], ids=["in the row", "in a file"])
def returning(tmp_path_factory, request):
    """Return what it is told to, in the row if it is small and plain; or always in a file."""
    return memoized(tmp_path_factory.mktemp("returned"), returned, inline_bytes=request.param)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(value=values)
def test_value_of_a_call_comes_back_equal_in_type_dtype_and_shape(returning, value):
    RETURNED.append(value)
    n = len(RETURNED) - 1

    assert is_same(returning(n), value)
    RETURNED[n] = None
    assert is_same(returning(n), value)


def test_function_looks_like_itself(function):
    assert function.__name__ == "simulate"
    assert function.__doc__.startswith(simulate.__doc__)
    assert function.__wrapped__ is simulate
    assert inspect.signature(function) == inspect.signature(simulate)
    assert repr(function).startswith("<memoized simulate, in ")


def test_decoration_opens_and_makes_nothing(tmp_path, function):
    assert list(tmp_path.iterdir()) == []


def test_paths_are_those_of_the_decoration(tmp_path, monkeypatch, log):
    monkeypatch.chdir(tmp_path)
    function = memoize(ignore=["log"])(simulate)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    function(2, log=log)

    assert (tmp_path / "db.sqlite3").exists()
    assert [path.name for path in (tmp_path / "results").iterdir()] == [function.table]


def test_run_runs_again_and_replaces(function, tmp_path, log):
    function(3, log=log)

    assert function.run(3, log=log).tolist() == [0.0, 0.01, 0.02]
    assert len(runs(tmp_path)) == 2
    assert function.store.count() == 1


@pytest.mark.parametrize(
    "order", [(1.5, np.arange(3), [np.arange(2)]), ([np.arange(2)], None, np.arange(3)), (np.arange(3), 1.5)]
)
def test_run_whose_value_has_another_format_leaves_no_file_behind(returning, order):
    RETURNED.append(None)
    n = len(RETURNED) - 1
    for value in order:
        RETURNED[n] = value
        assert is_same(returning.run(n), value)

    names = [
        path.name for path in returning.results_dir.iterdir() if path.name.startswith(returning.record(n).id)
    ]
    assert len(names) == (returning.record(n).result_file is not None)
    assert not returning.store.check(checksum=True)


SIZES = [3]


def sized(n: int) -> np.ndarray | list[int]:
    return list(range(SIZES[-1])) if SIZES[-1] < 10 else np.arange(SIZES[-1])


@pytest.mark.parametrize(("before", "after"), [(50_000, 3), (3, 50_000)])
@pytest.mark.parametrize("call", ["__call__", "retrieve", "run"])
def test_value_that_another_run_replaces_while_it_is_read_is_the_new_one(
    tmp_path, monkeypatch, before, after, call
):
    function = memoized(tmp_path, sized)
    SIZES[:] = [before]
    function(1)
    load, loads = Base.load, []

    def replaced_meanwhile(record, **options):
        loads.append(record)
        if len(loads) == 1:
            SIZES[:] = [after]
            function.store.run({"n": 1})
        return load(record, **options)

    monkeypatch.setattr(Base, "load", replaced_meanwhile)

    assert len(getattr(function, call)(1)) == (before if before == 3 else after)


def test_value_that_is_gone_for_good_is_missing(tmp_path, monkeypatch):
    function = memoized(tmp_path, sized)
    SIZES[:] = [50_000]
    record = function.record(1)
    monkeypatch.setattr(function.store, "run_or_retrieve", lambda params: record)
    Path(record.result_file).unlink()

    with pytest.raises(ResultFileMissingError):
        function(1)


def test_sweep_takes_no_result_for_gone_that_another_run_has_replaced(tmp_path, monkeypatch, caplog):
    function = memoized(tmp_path, sized)
    SIZES[:] = [50_000]
    function.sweep(range(12))
    is_present, looks = RecordReader.is_present, []
    for path in (tmp_path / "results").rglob("*.npy"):
        path.rename(path.with_suffix(".away"))

    def back_meanwhile(reader, found):
        looks.append(found)
        is_there = is_present(reader, found)
        if len(looks) == 12:
            SIZES[:] = [3]
            for n in range(12):
                function.store.run({"n": n})
        return is_there

    monkeypatch.setattr(RecordReader, "is_present", back_meanwhile)
    result = function.sweep(range(12))

    assert [len(record.load()) for record in result] == [3] * 12
    assert "gone" not in caplog.text


def test_retrieve_runs_nothing(function, tmp_path, log):
    assert function.retrieve(3) is None
    function(3, log=log)

    assert function.retrieve(3).tolist() == [0.0, 0.01, 0.02]
    assert len(runs(tmp_path)) == 1


def test_record_has_the_parameters_and_loads_the_value(function, tmp_path, log):
    record = function.record(3, dt=0.5, log=log)

    assert (record.n, record.dt, record.method) == (3, 0.5, "rk4")
    assert record.load(verify=True).tolist() == [0.0, 0.5, 1.0]
    assert Path(record.result_file).parent == tmp_path / "results" / function.table
    assert record.result_file.endswith(".npy")
    assert repr(record) == f"simulate(id={record.id!r}, n=3, dt=0.5, method='rk4')"
    with pytest.raises(AttributeError):
        _ = record.log


def test_records_and_frames_are_the_stores(function, log):
    for n in range(4):
        function(n, log=log)

    model = function.model
    assert [record.n for record in function.records(model.n > 1, order_by=model.n.desc())] == [3, 2]
    assert function.records(n=2)[0].load().tolist() == [0.0, 0.01]
    assert list(function.to_frame(model.n < 2)["n"]) == [0, 1]
    assert list(function.to_frame().columns)[:3] == ["n", "dt", "method"]


def test_delete_forgets_the_call_and_its_file(function, tmp_path, log):
    function(3, log=log)

    assert function.delete(3)
    assert not function.delete(3)
    assert function.retrieve(3) is None
    assert not function.store.check()
    function(3, log=log)
    assert len(runs(tmp_path)) == 2


def test_outputs_are_columns_by_which_calls_are_ranked(tmp_path, database_url):
    function = memoized(tmp_path, ranked, url=database_url, outputs={"rmse": float, "note": str})
    for degree in (2, 5, 3):
        function(degree)

    best = function.records(order_by=function.model.rmse, limit=2)

    assert [record.degree for record in best] == [5, 3]
    assert best[0].rmse == 0.2
    assert best[0].note == "x"
    assert best[0].load()["coefficients"].tolist() == [0, 1, 2, 3, 4]
    assert "coefficients" not in best[0].custom_data
    function.store.database.dispose()


@pytest.mark.parametrize(
    ("value", "says"), [(3.0, "the returned float has no rmse"), ({"r": 1}, "the returned dict has no rmse")]
)
def test_output_that_is_not_returned_is_null_and_said(tmp_path, caplog, value, says):
    RETURNED.append(value)
    function = memoized(tmp_path, returned, outputs={"rmse": float})

    assert function(len(RETURNED) - 1) == value

    assert function.records()[0].rmse is None
    assert says in caplog.text


def test_output_that_is_nan_is_null(tmp_path):
    RETURNED.append({"rmse": float("nan")})
    function = memoized(tmp_path, returned, outputs={"rmse": float})

    assert is_same(function(len(RETURNED) - 1), {"rmse": float("nan")})
    assert function.records()[0].rmse is None


def fibonacci(n: int) -> int:
    return n if n < 2 else RECURSIVE["fibonacci"](n - 1) + RECURSIVE["fibonacci"](n - 2)


RECURSIVE = {}


def test_function_may_call_itself_memoized(tmp_path):
    RECURSIVE["fibonacci"] = memoized(tmp_path, fibonacci)

    assert RECURSIVE["fibonacci"](20) == 6765
    assert RECURSIVE["fibonacci"].store.count() == 21


def test_functions_share_a_database_and_have_folders_of_their_own(tmp_path, log, database_url):
    database = Database(database_url)
    lab = memoize(results_dir=tmp_path / "results", db_url=database)

    one, other = lab(ignore=["log"])(simulate), lab(ranked)
    one(3, log=log)
    other(3)

    assert one.store.database is other.store.database is database
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted([one.table, other.table])
    database.dispose()


def test_functions_with_one_url_share_a_connection(tmp_path):
    one, other = memoized(tmp_path), memoized(tmp_path, ranked)

    assert one.store.database is other.store.database


def test_name_of_one_parameter_to_ignore_may_be_given_by_itself(tmp_path, log):
    function = memoized(tmp_path, ignore="log")

    assert function(2, log=log).tolist() == function(2).tolist() == [0.0, 0.01]


def test_decorator_with_an_unknown_option_raises():
    with pytest.raises(TypeError, match="result_dir"):
        memoize(result_dir="results")


@pytest.mark.parametrize("table", ["", "a/b", "x" * 300])
def test_table_that_cannot_be_a_folder_raises(tmp_path, table):
    if table == "":
        assert memoized(tmp_path, table=table).table.startswith("simulate_")
        return
    with pytest.raises(ValueError, match="cannot be a file's name"):
        memoized(tmp_path, table=table)


OTHERS = {
    "x": 0.2,
    "scheme": Scheme.EULER,
    "path": Path("data/out.csv"),
    "when": EVERYTHING["when"] + timedelta(microseconds=1),
    "exact": EVERYTHING["exact"] * 2,
    "span": EVERYTHING["span"] * 2,
    "kind": "a",
    "raw": b"\x00",
    "shape": (3, 2),
    "weights": np.where(np.arange(2000) == 1000, 0.0, EVERYTHING["weights"]),
    "point": Point(1.0, 2.5),
    "options": {"nested": [1, {"deep": 0}], "ä": True},
    "words": frozenset({"a"}),
    "table": pd.DataFrame({"k": [1.0, 2.5]}),
}


def test_parameters_of_every_type_make_one_call_on_every_database(tmp_path, database_url):
    function = memoized(tmp_path, everything, url=database_url)
    CALLS.clear()

    first = function(**EVERYTHING)
    again = function(**{**EVERYTHING, "path": "data/in.csv", "weights": EVERYTHING["weights"].copy(), "N": 2})

    assert len(CALLS) == 1
    assert is_same(first, again)
    assert (
        "(<Scheme.RK4: 4>, PosixPath('data/in.csv'), datetime.datetime(2026, 1, 2, 3, 4, 5, 6"
        in first["seen"]
    )
    assert (
        "timedelta(seconds=3600, microseconds=3), 'b', b'\\x00\\xff', (2, 3), Point(x=1.0, y=2.0), None, 1, 2)"
        in first["seen"]
    )
    assert first["sum"] == pytest.approx(1003.0)
    assert OTHERS.keys() == EVERYTHING.keys()
    for number, name in enumerate(OTHERS):
        function(**{**EVERYTHING, name: OTHERS[name]})
        assert len(CALLS) == number + 2, name
    assert not function.store.check(checksum=True)
    function.store.database.dispose()


def constant() -> float:
    CALLS.append(0.0)
    return 42.0


def test_function_without_parameters_is_one_call(tmp_path):
    function = memoized(tmp_path, constant)
    CALLS.clear()

    assert [function(), function()] == [42.0, 42.0]
    assert len(CALLS) == 1


def test_function_of_the_longest_name_has_a_table_on_every_database(tmp_path, database_url):
    def function(n: int) -> int:
        return n

    function.__name__ = function.__qualname__ = "ä" + "x" * 200
    memoized_one = memoized(tmp_path, function, url=database_url)

    assert memoized_one(3) == memoized_one(3) == 3
    memoized_one.store.database.dispose()


def test_module_that_is_loaded_again_keeps_the_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = SCRIPT.replace("print(area(3.0))", "calls = []").replace('print("runs")', "calls.append(side)")
    (tmp_path / "reloaded.py").write_text(source)
    module = importlib.import_module("reloaded")
    former = module.area
    before = former(3.0)

    module = importlib.reload(module)

    assert module.area is not former
    assert (module.area(3.0), module.calls, before) == (9.0, [], 9.0)
    assert pickle.loads(pickle.dumps(module.area)) is module.area


# What is refused


def test_value_that_does_not_fit_is_refused_before_anything_runs(function, tmp_path):
    with pytest.raises(ParameterError, match=r"simulate\.n must be an integer, not 'many'"):
        function("many")
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        function(3, steps=4)

    assert not runs(tmp_path)


def test_function_of_which_the_return_annotation_cannot_be_stored_is_refused_at_decoration(monkeypatch):
    monkeypatch.setattr(codecs, "_known", codecs._known)

    def mesh(cells: int) -> Mesh:
        return Mesh(cells)

    with pytest.raises(
        TypeError, match=r"cannot memoize .*mesh: it returns a Mesh.*register_codec\(Mesh, suffix"
    ):
        memoize(mesh)
    register_codec(Mesh, ".mesh", save=write_mesh, load=read_mesh)
    memoize(mesh)


def test_returned_value_that_cannot_be_stored_is_a_failed_run(tmp_path):
    function = memoized(tmp_path, unstorable)

    with pytest.raises(
        TypeError, match=r"at \[thing\]: it is a tests\.support\.memo_cases\.Thing.*entropic\.register_codec"
    ) as caught:
        function(1)

    assert any("n=1" in note for note in caught.value.__notes__)
    assert [failure.error_type for failure in function.store.failures()] == ["TypeError"]
    assert not function.store.check()


def test_registered_type_is_returned_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(codecs, "_known", codecs._known)
    register_codec(Mesh, ".mesh", save=write_mesh, load=read_mesh)

    def mesh(cells: int) -> Mesh:
        return Mesh(cells)

    function = memoized(tmp_path, mesh)

    assert [type(function(4)), function(4).cells] == [Mesh, 4]


# Damage


def test_damaged_file_is_told_and_after_a_fix_runs_again(function, tmp_path, log):
    record = function.record(3, log=log)
    Path(record.result_file).write_bytes(b"\x93NUMPY, or what is left of it")

    with pytest.raises(CorruptFileError, match="is not what its run wrote"):
        function(3, log=log)
    function.store.check(checksum=True, fix=True)

    assert function(3, log=log).tolist() == [0.0, 0.01, 0.02]
    assert len(runs(tmp_path)) == 2


def test_file_that_was_deleted_is_made_again_with_a_warning(function, tmp_path, log, caplog):
    Path(function.record(3, log=log).result_file).unlink()

    assert function(3, log=log).tolist() == [0.0, 0.01, 0.02]
    assert len(runs(tmp_path)) == 2
    assert "is gone" in caplog.text


def test_stray_file_in_the_folder_is_reported(function, tmp_path, log):
    function(3, log=log)
    (function.results_dir / "notes.txt").write_text("mine")

    assert [finding.kind for finding in function.store.check()] == ["stray-file"]


def test_run_that_kills_its_process_runs_again(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal
        from pathlib import Path
        from entropic import memoize

        @memoize
        def deadly(n: int) -> int:
            if not Path("dead").exists():
                Path("dead").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return n

        print(deadly(3), deadly.store.check())
        """
    )
    (tmp_path / "script.py").write_text(script)

    first, second = (run_script(tmp_path / "script.py") for _ in range(2))

    assert first.returncode == -signal.SIGKILL
    assert (second.stdout, second.returncode) == ("3 no findings\n", 0)


@pytest.mark.parametrize(
    ("returned", "suffix"),
    [
        ("1.5", "None"),
        pytest.param("'1' * 2001", ".value.json", marks=pytest.mark.slow),
        ("np.arange(3)", ".npy"),
        pytest.param("{'x': np.ones(2)}", ".value.h5", marks=pytest.mark.slow),
    ],
)
def test_result_whose_process_was_killed_before_the_commit_is_committed_by_the_next(
    tmp_path, returned, suffix
):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        import numpy as np
        from entropic import memoize
        from entropic.runs.publishing import Publisher

        @memoize
        def finished(n: int):
            print("runs", flush=True)
            return {returned}

        if sys.argv[1:] == ["die"]:
            Publisher.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        print(finished(3), finished.record(3).result_file, finished.store.check(checksum=True))
        """
    )
    (tmp_path / "script.py").write_text(script)

    first, second = run_script(tmp_path / "script.py", "die"), run_script(tmp_path / "script.py")

    assert (first.stdout, first.returncode) == ("runs\n", -signal.SIGKILL)
    assert "recovered" in second.stderr
    assert "runs" not in second.stdout
    assert f"{suffix} no findings" in second.stdout


# Several processes


def test_same_call_from_several_processes_runs_once(tmp_path, sqlite_url):
    answers = run_together(call_once, [(tmp_path, sqlite_url, 4)] * 4)

    assert answers == [[0.0, 0.01, 0.02, 0.03]] * 4
    assert len(runs(tmp_path)) == 1


@pytest.mark.parametrize(
    "server_url", ["postgresql", pytest.param("mysql", marks=pytest.mark.slow)], indirect=True
)
def test_same_call_from_two_processes_on_a_server_runs_once(tmp_path, server_url):
    answers = run_together(call_once, [(tmp_path, server_url, 4)] * 2)

    assert answers == [[0.0, 0.01, 0.02, 0.03]] * 2
    assert len(runs(tmp_path)) == 1


def test_same_call_from_two_threads_runs_once(function, tmp_path, log):
    found = []
    threads = [threading.Thread(target=lambda: found.append(function(4, log=log).tolist())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [[0.0, 0.01, 0.02, 0.03]] * 4
    assert len(runs(tmp_path)) == 1


@pytest.mark.parametrize("where", ["workers", pytest.param("dask", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_sweep_of_many_calls(function, tmp_path, log, where, count, request):
    sets = expand_grid({"n": range(count // 10), "dt": [0.1 * k for k in range(1, 11)], "log": [log]})
    place = {"workers": 2} if where == "workers" else {"client": request.getfixturevalue("dask_client")}

    result = function.sweep(sets, **place)
    again = function.sweep(sets, **place)

    assert [(record.n, record.dt) for record in result] == [(one["n"], one["dt"]) for one in sets]
    assert [record.load().tolist() for record in result[::20]] == [
        (np.arange(one["n"]) * one["dt"]).tolist() for one in sets[::20]
    ]
    assert len(runs(tmp_path)) == count
    assert os.getpid() not in {process for *_, process in runs(tmp_path)}
    assert len(again) == count
    assert not function.store.check(checksum=True)
    if where == "dask":
        wait_for(lambda: not place["client"].futures)


def test_sweep_gives_a_frame(function, log):
    frame = function.sweep(expand_grid({"n": [1, 2], "dt": [0.5], "log": [log]})).to_frame()

    assert frame[["n", "dt"]].to_numpy().tolist() == [[1, 0.5], [2, 0.5]]


@pytest.mark.parametrize(
    ("sets", "error"),
    [
        ([{"n": 1}, {"dt": 0.1}], "simulate needs 'n', which was not given"),
        ([{"n": 1}, {"n": 1, "step": 2}], "simulate has no parameter 'step'"),
    ],
)
def test_sweep_with_a_bad_set_runs_nothing_and_says_which(function, tmp_path, sets, error):
    with pytest.raises(ParameterError, match=error) as caught:
        function.sweep(sets)

    assert any("parameter set 1" in note for note in caught.value.__notes__)
    assert not runs(tmp_path)


def test_sweep_that_is_called_like_the_function_says_how_to_write_it(function, tmp_path):
    words = (
        r"simulate\.sweep takes the parameter sets first, .*sweep\(\{'n': \[\.\.\.\]\}\), .*sweep\(\[\{'n': "
    )
    for call in (lambda: function.sweep(n=[1, 2]), lambda: function.sweep([{"n": 1}], n=2), function.sweep):
        with pytest.raises(TypeError, match=words):
            call()

    assert not runs(tmp_path)


def test_sweep_with_an_option_that_there_is_not_names_those_that_there_are(function):
    with pytest.raises(
        TypeError, match=r"no option 'worker'; did you mean 'workers'\? It has: client, workers, "
    ):
        function.sweep([{"n": 1}], worker=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lease_s": 0}, "lease_s is a number of seconds, more than 0, not 0"),
        ({"lease_s": True}, "lease_s is a number of seconds, more than 0, not True"),
        ({"wait_timeout_s": float("nan")}, "wait_timeout_s is a number of seconds, 0 or more, not nan"),
    ],
)
def test_number_of_seconds_that_is_none_is_refused_at_decoration(options, words):
    with pytest.raises(ValueError, match=words):
        memoize(**options)


def test_registered_types_go_with_a_sweep_to_its_workers(tmp_path):
    """Registered in the script only: the workers of a cluster never import it."""
    script = textwrap.dedent(
        """
        from pathlib import Path
        from entropic import memoize, register_codec

        class Mesh:
            def __init__(self, cells):
                self.cells = cells

        register_codec(
            Mesh, ".mesh",
            save=lambda mesh, path: Path(path).write_text(str(mesh.cells)),
            load=lambda path: Mesh(int(Path(path).read_text())),
        )

        @memoize
        def mesh(cells: int) -> Mesh:
            return Mesh(cells)

        if __name__ == "__main__":
            print([r.load().cells for r in mesh.sweep([{"cells": n} for n in range(5)], workers=2, fallback="raise")])
        """
    )
    (tmp_path / "script.py").write_text(script)

    assert run_script(tmp_path / "script.py").stdout == "[0, 1, 2, 3, 4]\n"


def test_registered_types_go_with_a_function_that_is_called_in_a_worker(tmp_path):
    """The script is none that a worker could import: what it memoizes and registers travels by value."""
    script = textwrap.dedent(
        """
        from pathlib import Path
        from entropic import memoize, register_codec, register_hasher

        class Mesh:
            def __init__(self, cells):
                self.cells = cells

        register_hasher(Mesh, lambda mesh: mesh.cells)
        register_codec(
            Mesh, ".mesh",
            save=lambda mesh, path: Path(path).write_text(str(mesh.cells)),
            load=lambda path: Mesh(int(Path(path).read_text())),
        )

        @memoize
        def refined(mesh: Mesh) -> Mesh:
            return Mesh(2 * mesh.cells)

        @memoize
        def cells(n: int) -> int:
            return refined(Mesh(n)).cells

        if __name__ == "__main__":
            print([r.load() for r in cells.sweep({"n": [1, 2]}, workers=2, fallback="raise")], refined(Mesh(1)).cells)
            print(len(refined.records()))
        """
    )
    (tmp_path / "script.py").write_text(script)

    assert run_script(tmp_path / "script.py").stdout == "[2, 4] 2\n2\n"


# Pickling


def test_function_of_a_module_pickles_by_name():
    from tests.support.memo_module import area

    assert pickle.loads(pickle.dumps(area)) is area
    assert len(pickle.dumps(area)) < 100


def test_function_defined_anywhere_travels_and_finds_itself_again(tmp_path):
    def local(n: int) -> int:
        return n + 1

    function = memoized(tmp_path, local)

    assert pickle.loads(cloudpickle.dumps(function)) is function
    assert copy.deepcopy(function) is function


def call_pickled(pickled, n):
    return pickle.loads(pickled)(n)


def test_function_travels_with_what_is_defined_beside_it(tmp_path):
    def helper(n, by=2):
        return n * by

    def inner(n: int) -> int:
        return helper(n)

    memoized_inner = memoized(tmp_path, inner)

    def call_inner(n):
        return memoized_inner(n)

    assert run_together(call_pickled, [(cloudpickle.dumps(call_inner), 3)]) == [6]
    assert len(memoized_inner.records()) == 1


def test_record_pickles_where_its_function_is_found_by_name():
    from tests.support.memo_module import area

    record = area.model(id="x", result_file="y", side=2.0)

    assert pickle.loads(pickle.dumps(record)).side == 2.0


ELSEWHERE = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from distributed import Client
from entropic import memoize

@memoize
def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@memoize
def twice(n: int) -> int:
    return 2 * fibonacci(n)

if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        print(list(pool.map(fibonacci, [10, 11])))
    with Client(sys.argv[1]) as client:
        print(client.submit(twice, 12, pure=False).result(), client.submit(fibonacci, 12, pure=False).result())
        print([r.load() for r in twice.sweep([{"n": n} for n in range(5)], client, fallback="raise")])
    print(fibonacci.store.count(), twice.store.count(), fibonacci.store.check(), twice.store.check())
"""


@pytest.mark.slow
def test_functions_of_a_script_travel_to_processes_and_clusters(tmp_path, dask_client):
    (tmp_path / "script.py").write_text(ELSEWHERE)

    done = run_script(tmp_path / "script.py", dask_client.scheduler.address)

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[55, 89]",
        "288 144",
        "[0, 2, 2, 4, 6]",
        "13 6 no findings no findings",
    ]


# The same function again


SCRIPT = """
import logging, sys
logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
from entropic import memoize

@memoize
def area(side: float, power: int = 2) -> float:
    print("runs")
    return side**power

print(area(3.0))
"""


@pytest.fixture
def scripts(tmp_path):
    """Writes scripts and runs them in one folder; returns the lines that they print."""

    def run(text, name="script.py"):
        (tmp_path / name).write_text(text)
        done = run_script(tmp_path / name)
        assert done.stderr == "", done.stderr
        return done.stdout.splitlines()

    return run


def test_script_started_again_finds_its_results(scripts):
    assert scripts(SCRIPT) == ["runs", "9.0"]
    assert scripts(SCRIPT) == ["9.0"]


def test_script_and_the_module_that_it_is_to_others_share_results(scripts):
    scripts(SCRIPT)

    assert scripts("import script", "other.py") == ["9.0"]


@pytest.mark.slow
def test_functions_of_one_name_in_two_scripts_do_not_collide(scripts):
    scripts(SCRIPT)

    assert scripts(SCRIPT.replace("side**power", "-side"), "other.py") == ["runs", "-3.0"]


def test_comments_docstrings_and_options_are_no_other_code(scripts):
    scripts(SCRIPT)
    same = SCRIPT.replace('    print("runs")', '    """Square."""\n    print("runs")  # again').replace(
        "@memoize", "@memoize(lease_s=60)"
    )

    assert scripts(same) == ["9.0"]


def test_edited_body_keeps_the_results_and_is_said_once(scripts):
    scripts(SCRIPT)

    warning, value, again = scripts(SCRIPT.replace("side**power", "side**power + 0") + "print(area(3.0))\n")

    assert warning.startswith("rows of area_")
    assert "computed by another version of the runner: 1, the first" in warning
    assert warning.endswith(" run(...) computes one again")
    assert (value, again) == ("9.0", "9.0")


@pytest.mark.slow
def test_renamed_function_begins_anew_unless_its_table_is_named(scripts):
    named = SCRIPT.replace("@memoize", '@memoize(table="areas")')
    scripts(SCRIPT)
    scripts(named)

    assert scripts(SCRIPT.replace("area(", "surface(")) == ["runs", "9.0"]
    assert "runs" not in scripts(named.replace("area(", "surface("))
    assert scripts(named.replace("area(", "surface("))[-1] == "9.0"


def test_functions_nested_in_two_functions_do_not_collide(tmp_path):
    def first():
        def inner(n: int) -> str:
            return "first"

        return memoized(tmp_path, inner)

    def second():
        def inner(n: int) -> str:
            return "second"

        return memoized(tmp_path, inner)

    one, other = first(), second()

    assert [one(1), other(1), one(1), other(1)] == ["first", "second", "first", "second"]


def test_decorating_again_keeps_the_results_and_both_work(tmp_path, log):
    first = memoized(tmp_path)
    first(3, log=log)

    second = memoized(tmp_path)

    assert second(3, log=log).tolist() == first(3, log=log).tolist()
    first(4, log=log)
    assert second(4, log=log).tolist() == [0.0, 0.01, 0.02, 0.03]
    assert len(runs(tmp_path)) == 2
    assert first.record(4).load().tolist() == second.records(n=4)[0].load().tolist()


def test_function_with_another_signature_is_refused_and_says_what_to_do(scripts, tmp_path):
    scripts(SCRIPT)
    (tmp_path / "script.py").write_text(SCRIPT.replace("power: int = 2", "power: int = 3"))

    done = run_script(tmp_path / "script.py")

    last = done.stderr[done.stderr.index("entropic.errors.SchemaError") :]
    assert "the default of power was 2 and is 3 now" in last
    assert "memoize: table=" in last


def test_library_says_nothing_of_a_suffix_that_the_value_chose(function, log, caplog):
    with caplog.at_level(logging.INFO, logger="entropic.disk.files"):
        function(3, log=log)

    assert "which is taken as the result" not in caplog.text


def test_executor_of_the_users_runs_calls(function, tmp_path, log):
    with executor_of("threads") as executor:
        result = function.sweep([{"n": n, "log": log} for n in range(6)], executor=executor)

    assert [record.load().size for record in result] == list(range(6))
    assert len(runs(tmp_path)) == 6


def test_json_shows_what_a_call_returned_to_other_programs(tmp_path):
    RETURNED.append({"rate": 0.5, "names": ["a"]})
    record = memoized(tmp_path, returned, inline_bytes=0).record(len(RETURNED) - 1)

    assert json.loads(Path(record.result_file).read_text()) == {"rate": 0.5, "names": ["a"]}


def test_schema_error_of_a_foreign_table_alters_nothing(tmp_path, sqlite):
    sqlite.write(lambda connection: connection.exec_driver_sql("CREATE TABLE mine (n INTEGER)"))
    function = memoized(tmp_path, url=sqlite, table="mine")

    with pytest.raises(SchemaError, match="in the model, not in the table"):
        function(3)

    with sqlite.reading() as connection:
        assert [row[1] for row in connection.exec_driver_sql("PRAGMA table_info(mine)")] == ["n"]
