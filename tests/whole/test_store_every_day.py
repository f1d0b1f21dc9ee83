"""Small things of every day: notes, registered outputs, ways to forget and to let go, and what is shown on a screen."""

import json
import logging
import pydoc
import threading
from pathlib import Path

import numpy as np
import pytest

from entropic import ClaimLostError, Database, NotFoundError, ParameterError, Store, memoize
from entropic.display.text import LINES, short
from entropic.runs.publishing import Publisher
from tests.support.store_cases import PARAMS, Pendulum, Runner, rows_of, warnings_of
from tests.support.stores import open_store


@pytest.fixture
def store(database, tmp_path):
    return open_store(Pendulum, tmp_path, Runner(), database)


def test_registered_values_of_output_columns_fill_them_and_the_rest_are_notes(store, tmp_path):
    path = tmp_path / "made.json"
    path.touch()

    record = store.register(PARAMS, path, period=2.5, steps=np.int64(7), source="laboratory")
    again = store.register(PARAMS, path, period=3.0, source="garage")

    assert (record.period, record.steps, record.custom_data) == (2.5, 7, {"source": "laboratory"})
    assert (again.period, again.steps, again.custom_data) == (3.0, 7, {"source": "garage"})
    assert [r.period for r in store.records(Pendulum.period > 2)] == [3.0]


def test_registered_output_that_its_column_cannot_hold_is_refused_and_nothing_is_written(store, tmp_path):
    (tmp_path / "made.json").touch()

    with pytest.raises(ParameterError, match="period must be a number"):
        store.register(PARAMS, tmp_path / "made.json", period="long")
    assert store.count() == 0


def test_annotate_merges_notes_and_none_removes_one(store):
    store.run_or_retrieve(PARAMS, operator="Galileo")

    first = store.annotate(PARAMS, seen=True, place={"x": [1, None]})
    second = store.annotate({"id": first.id}, operator=None)

    assert first.custom_data["operator"] == "Galileo"
    assert {k: v for k, v in second.custom_data.items() if k != "elapsed_seconds"} == {
        "seen": True,
        "place": {"x": [1, None]},
    }
    assert second.custom_data == store.retrieve(PARAMS).custom_data
    assert store.count() == len(store.runner.seen) == 1


@pytest.mark.parametrize(
    ("notes", "error", "words"),
    [
        ({"swings": 3}, ParameterError, "'swings' is a column of Pendulum"),
        ({"period": 3.0}, ParameterError, "'period' is a column of Pendulum"),
        ({"result_file": "x"}, ParameterError, "'result_file' is a column"),
        ({"note": float("nan")}, ParameterError, "NaN"),
        ({"note": object()}, ParameterError, "cannot be stored"),
    ],
)
def test_annotate_refuses_what_is_no_note(sqlite, tmp_path, notes, error, words):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    before = store.run_or_retrieve(PARAMS).custom_data

    with pytest.raises(error, match=words):
        store.annotate(PARAMS, **notes)
    assert store.retrieve(PARAMS).custom_data == before


@pytest.mark.parametrize("method", ["run_or_retrieve", "run", "register"])
@pytest.mark.parametrize("is_there", [False, True], ids=["miss", "hit"])
def test_parameter_that_is_given_as_a_keyword_is_no_note(sqlite, tmp_path, method, is_there):
    """It would not be in the key, and its default would run: a wrong result, to whoever gave it so."""
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    path = tmp_path / "made.json"
    path.touch()
    if is_there:
        store.run_or_retrieve(PARAMS)
    before = rows_of(sqlite)

    with pytest.raises(
        ParameterError, match=r"'damping' is a parameter of Pendulum.* \{..., 'damping': ...\}"
    ):
        getattr(store, method)(PARAMS, *([path] if method == "register" else []), note="by day", damping=0.5)
    assert (rows_of(sqlite), len(store.runner.seen)) == (before, int(is_there))


def test_annotate_of_what_never_ran_is_not_found(store):
    with pytest.raises(NotFoundError, match=r"no record of \{'length': 1.5, 'swings': 3\}"):
        store.annotate(PARAMS, seen=True)


@pytest.fixture
def deleting(monkeypatch):
    """Let another process delete the row right after a method of the publisher."""

    def after(store, method):
        real = getattr(Publisher, method)

        def then_delete(self, *arguments):
            answer = real(self, *arguments)
            [store.delete(hash=record.id) for record in store.records()]
            return answer

        monkeypatch.setattr(Publisher, method, then_delete)

    return after


def test_record_that_is_deleted_as_it_is_annotated_is_not_found(store, deleting):
    store.run_or_retrieve(PARAMS)
    deleting(store, "annotate")

    with pytest.raises(NotFoundError, match="no record of"):
        store.annotate(PARAMS, seen=True)


@pytest.mark.parametrize("method", ["register", "patch_registered"])
def test_row_that_is_deleted_as_a_file_is_registered_is_told_of(store, tmp_path, deleting, method):
    path = tmp_path / "mine.json"
    path.write_text("mine")
    if method == "patch_registered":
        store.register(PARAMS, path)
    deleting(store, method)

    with pytest.raises(ClaimLostError, match="was deleted by another process"):
        store.register(PARAMS, path)
    assert store.count() == 0


def test_annotations_at_the_same_time_are_all_kept(store):
    store.run_or_retrieve(PARAMS)
    threads = [threading.Thread(target=store.annotate, args=(PARAMS,), kwargs={f"n{n}": n}) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert {f"n{n}" for n in range(4)} <= store.retrieve(PARAMS).custom_data.keys()


def test_note_that_is_given_on_a_hit_is_told_at_debug(sqlite, tmp_path, caplog):
    store = open_store(Pendulum, tmp_path, Runner(), sqlite)
    caplog.set_level(logging.DEBUG, "entropic.store")
    record = store.run_or_retrieve(PARAMS, note="first")
    caplog.clear()

    store.run_or_retrieve(PARAMS, note="second")

    assert [r.getMessage() for r in caplog.records] == [
        f"{record.id} is a hit: annotate() would add note to it"
    ]


def test_sweep_warns_once_of_an_output_that_no_run_returns_as_it_should(sqlite, tmp_path, caplog):
    store = open_store(
        Pendulum, tmp_path, Runner(returns={"period": "long", "curve": [float("nan")]}), sqlite
    )

    store.sweep(({**PARAMS, "swings": n} for n in range(20)), progress=False)
    store.run_or_retrieve({**PARAMS, "swings": 99})

    told = [text for text in warnings_of(caplog) if "left out" in text]
    assert [text.partition(",")[0] for text in told] == ["Pendulum.period", "'curve'"] * 2


def fitted(degree: int, label: str = "") -> dict:
    """Fit a polynomial."""
    if degree > 8:
        raise ValueError("a degree of\n9 is too much")
    return {"rmse": 1.0 / degree} if degree % 2 else {}


@pytest.fixture
def lab(tmp_path):
    return memoize(
        results_dir=tmp_path, db_url=f"sqlite:///{tmp_path / 'db.sqlite3'}", outputs={"rmse": float}
    )


@pytest.fixture
def fit(lab):
    return lab(fitted)


def test_sweep_warns_once_of_an_output_that_a_function_does_not_return(fit, caplog):
    fit.sweep({"degree": range(1, 9)}, progress=False)

    assert warnings_of(caplog) == ["the returned dict has no rmse: NULL in the row"]


def test_clear_forgets_every_result_and_leaves_registered_files(lab, tmp_path):
    fit = lab(inline_bytes=0)(fitted)
    fit.sweep({"degree": [1, 2, 3]}, progress=False)
    kept = tmp_path / "kept.value.json"
    kept.write_text("{}")
    fit.store.register({"degree": 5}, kept)
    files = [Path(record.result_file) for record in fit.records(fit.model.degree < 5)]

    assert fit.clear() == 4
    assert [path.exists() for path in files] == [False] * 3
    assert kept.exists()
    assert (fit.records(), fit.clear(), fit(1)) == ([], 0, {"rmse": 1.0})


def test_clear_forgets_values_in_rows_and_files_alike(lab):
    lab(inline_bytes=0)(fitted)(1)
    fit = lab(fitted)
    fit(2)

    assert sorted(record.result_file is None for record in fit.records()) == [False, True]
    assert fit.clear() == 2
    assert [path.name for path in fit.results_dir.iterdir() if path.suffix] == [".entropic-root.json"]
    assert (fit.records(), fit(1)) == ([], {"rmse": 1.0})


def test_close_lets_go_of_the_connections_that_the_store_made_and_the_next_call_connects(tmp_path):
    store = Store(Runner(), Pendulum, tmp_path / "results", ".json", f"sqlite:///{tmp_path / 'db.sqlite3'}")
    store.run_or_retrieve(PARAMS)

    store.close()

    assert store.database.engine.pool.checkedin() == 0
    assert list((tmp_path / "results" / ".entropic").glob("*/*")) == []
    assert store.run_or_retrieve(PARAMS).swings == 3
    assert len(store.runner.seen) == 1
    store.close()


def test_close_leaves_a_database_that_was_given_open(tmp_path):
    database = Database("sqlite://")
    store, other = (
        open_store(Pendulum, tmp_path, Runner(), database),
        open_store(Pendulum, tmp_path, Runner(), database),
    )
    store.run_or_retrieve(PARAMS)

    store.close()

    assert other.count() == 1
    assert rows_of(database)[0]["swings"] == 3


# On a screen


def test_records_and_failures_print_with_a_line_each_that_fits_a_screen(fit):
    fit.sweep({"degree": range(1, 9), "label": ["x" * 500]}, progress=False)
    fit.sweep({"degree": [9, 10]}, progress=False, on_error="continue")

    for shown in (
        str(fit.records()),
        str(fit.sweep({"degree": [1, 2, 3]}, progress=False)),
        str(fit.store.failures()),
    ):
        assert len(shown.splitlines()) >= 2
        assert max(map(len, shown.splitlines())) < 200
    assert "FailedRun(degree=9, label='': ValueError: a degree of 9 is too much; " in str(
        fit.store.failures()
    )


def test_many_records_print_the_first_and_how_many_more(fit):
    result = fit.sweep({"degree": [1, 3, 5, 7], "label": [str(n) for n in range(10)]}, progress=False)

    lines = str(result).splitlines()

    assert (len(lines), lines[-1]) == (LINES + 1, " ... 10 more]")
    assert str(result[:1]) == f"[{result[0]!r}]"


@pytest.mark.parametrize("value", [1.0, "short", {"a": [1, 2]}, None])
def test_short_value_prints_as_it_is(value):
    assert short(value) == repr(value)


def test_frame_has_parameters_and_outputs_first(fit):
    fit(1)

    assert list(fit.to_frame().columns)[:3] == ["degree", "label", "rmse"]


def test_help_shows_signature_docstring_and_methods(fit):
    text = pydoc.plain(pydoc.render_doc(fit))

    assert "Fit a polynomial." in text
    assert "fitted(degree: int, label: str = '') -> dict" in text
    own = [name for name in vars(type(fit)) if not name.startswith("_")]
    assert [name for name in own if f".{name}" not in text] == []


def test_load_of_a_folder_lists_it_and_says_how_to_read(sqlite, tmp_path):
    def write(params):
        folder = Path(params["result_file"])
        folder.mkdir()
        for name in ("mesh.vtu", "log.txt"):
            (folder / name).write_text("x")

    record = Store(write, Pendulum, tmp_path / "results", ".case", sqlite).run_or_retrieve(PARAMS)

    with pytest.raises(
        ValueError, match=r"a folder with 'log.txt', 'mesh.vtu'.*register_loader\('.case', .*Path\("
    ):
        record.load()
    assert (
        json.dumps(sorted(path.name for path in Path(record.result_file).iterdir()))
        == '["log.txt", "mesh.vtu"]'
    )
