"""The stores that the options name."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy.exc import ArgumentError

from entropic import ClaimTimeoutError, ConfigNotFoundError, InUseError, configs
from entropic.array_store import LocalArrayStore
from entropic.config_store import FileConfigStore, SQLConfigStore
from entropic.configs import RunConfig, StartConfig, TaskConfig
from entropic.create_store import (
    claim_run,
    create_array_store,
    create_config_store,
    create_stats_store,
    create_weights_store,
    delete_run,
    resume_point,
)
from entropic.options import Options
from entropic.stats import (
    TrainingIterationStats,
    TrainingStats,
    ValidationIterationScores,
    ValidationScores,
)
from entropic.stats_store import FileStatsStore, SQLStatsStore
from entropic.weights_store import LocalWeightsStore, Weights


@pytest.fixture
def options(tmp_path):
    def made(kind):
        return Options(
            type=kind, runs_base_dir=tmp_path / "runs", db_url=f"sqlite:///{tmp_path / 'e.sqlite3'}"
        )

    return made


def test_configs_are_rows_or_files(options, tmp_path):
    rows, files = create_config_store(options("sql")), create_config_store(options("files"))
    assert (type(rows), type(files)) == (SQLConfigStore, FileConfigStore)
    for store in (rows, files):
        store.store_task_config(TaskConfig(name="t"))
        assert store.retrieve_task_config_names() == ["t"]
    assert (tmp_path / "runs" / "configs" / "tasks" / "t.yaml").is_file()
    assert create_config_store(options("sql")).database.engine is rows.database.engine


@pytest.mark.parametrize("foreign", [object(), 7, b"sqlite://", Path("e.sqlite3"), "no url"])
def test_what_is_no_database_is_refused_and_nothing_is_written(tmp_path, monkeypatch, foreign):
    monkeypatch.chdir(tmp_path)
    for make in (
        SQLConfigStore,
        SQLStatsStore,
        lambda database: LocalWeightsStore(tmp_path / "runs", database),
    ):
        with pytest.raises(ArgumentError, match=r"is named by its URL|as the URL of a database"):
            make(foreign)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_database_in_memory_would_be_another_one_for_each_store(tmp_path, url):
    options = Options(db_url=url, runs_base_dir=tmp_path / "runs")
    for make in (
        create_config_store,
        create_stats_store,
        create_weights_store,
        lambda options: resume_point("r", options),
        lambda options: claim_run("r", options),
        lambda options: delete_run("r", options),
    ):
        with pytest.raises(ValueError, match="in memory, of which each store would have one of its own"):
            make(options)

    assert list(tmp_path.iterdir()) == []


def test_rows_of_no_database_lie_where_the_options_say(tmp_path, monkeypatch):
    monkeypatch.setenv("ENTROPIC_DB_URL", f"sqlite:///{tmp_path / 'named.sqlite3'}")
    SQLConfigStore(None).store_task_config(TaskConfig(name="t"))

    assert create_config_store().retrieve_task_config_names() == ["t"]
    assert SQLStatsStore(None).database.token == create_stats_store().database.token


def test_arrays_lie_below_the_folder_of_runs(options, tmp_path):
    store = create_array_store(options("sql"))
    assert type(store) is LocalArrayStore
    assert store.snapshot_container("r").container == tmp_path / "runs" / "r" / "snapshot.zarr"


def test_stores_without_options_are_those_that_the_file_names(tmp_path, monkeypatch):
    (tmp_path / "entropic.toml").write_text("type = 'files'\nruns_base_dir = 'here'")
    monkeypatch.chdir(tmp_path)
    create_config_store().store_task_config(TaskConfig(name="t"))
    assert (tmp_path / "here" / "configs" / "tasks" / "t.yaml").is_file()

    (tmp_path / "entropic.toml").write_text("type = 'mongo'")
    with pytest.raises(
        ValueError, match=r"the option type \(.*entropic\.toml\): Input should be 'sql' or 'files'"
    ):
        create_config_store()


def test_statistics_and_weights_lie_where_the_options_say(options, tmp_path):
    rows, files = create_stats_store(options("sql")), create_stats_store(options("files"))
    assert (type(rows), type(files)) == (SQLStatsStore, FileStatsStore)
    one = create_weights_store(options("sql"))
    assert type(one) is LocalWeightsStore
    assert one.database.engine is create_config_store(options("sql")).database.engine
    create_weights_store(options("files")).store_weights("r", 1, Weights({"w": np.ones(3)}))
    assert list((tmp_path / "runs" / "r" / "checkpoints" / "iterations").iterdir())
    assert one.iterations("r") == []


BOTH = pytest.mark.parametrize("kind", ["sql", "files"])
CRITERIA = SimpleNamespace(criteria=["f1"], higher_is_better=lambda criterion: True)


def train(options, name, iterations, weights):
    """Record a training of *iterations*, and weights at some of them."""
    losses = [TrainingIterationStats(number, 1 / (number + 1), 0.1) for number in range(iterations)]
    create_config_store(options).store_run_config(RunConfig(name=name, task_config=TaskConfig(name="t")))
    stats = create_stats_store(options)
    stats.store_training_stats(name, TrainingStats(losses))
    scores = ValidationScores(["p"], ["d"], CRITERIA, [ValidationIterationScores(iterations, [[[0.5]]])])
    stats.store_validation_iteration_scores(name, scores)
    stats.log(name, 0, extra=1.0)  # and not written: other stores know of it
    for iteration in weights:
        create_weights_store(options).store_weights(name, iteration, Weights({"w": np.full(3, iteration)}))


def left(options, name):
    """Return which stores have anything of a run."""
    stats, weights = create_stats_store(options), create_weights_store(options)
    container = create_array_store(options).validation_container(name).container
    found = {
        "config": name in create_config_store(options).retrieve_run_config_names(),
        "losses": bool(stats.retrieve_training_stats(name).iteration_stats),
        "scores": bool(stats.retrieve_validation_iteration_scores(name)),
        "metrics": bool(len(stats.to_numpy(name, "metrics").get("extra", ()))),
        "weights": bool(weights.iterations(name)),
        "files": bool(list((options.runs_base_dir / name).rglob("*.h5"))),
        "arrays": container.exists(),
    }
    return {store for store, is_there in found.items() if is_there}


@BOTH
@pytest.mark.parametrize(
    ("iterations", "weights", "expected"),
    [
        (0, [], 0),
        (10, [], 0),
        (10, [5, 10], 10),
        (10, [5, 10, 15], 10),
        (7, [5, 10], 5),
        (0, [5], 0),
        (2501, [2500, 2501, 2502], 2501),
    ],
)
def test_run_goes_on_where_statistics_and_weights_agree(options, kind, iterations, weights, expected):
    made = options(kind)
    assert resume_point("r", made) == 0
    train(made, "r", iterations, weights)
    assert resume_point("r", made) == expected


@BOTH
def test_losses_of_a_former_attempt_are_replaced_by_what_is_kept_of_them(options, kind):
    made = options(kind)
    train(made, "r", 10, [5])
    stats = create_stats_store(made)
    losses = stats.retrieve_training_stats("r")
    losses.delete_after(resume_point("r", made))
    stats.store_training_stats("r", losses)
    for iteration in range(5, 12):
        losses.add_iteration_stats(TrainingIterationStats(iteration, -1.0, 0.1))
    stats.store_training_stats("r", losses)

    assert stats.retrieve_training_stats("r") == losses


@BOTH
def test_deleted_run_is_gone_from_all_stores_and_another_stays(options, kind):
    made = options(kind)
    for name in ("r", "s"):
        train(made, name, 3, [1, 3])
        arrays = create_array_store(made)
        arrays.store_array(arrays.validation_prediction_array(name, 3, "d"), np.ones((2, 2)))
    create_weights_store(made).store_best("r", 3, "d", "f1")
    exported = create_weights_store(made).export_best("r", "d", "f1")
    everything = left(made, "s")
    assert everything == {"config", "losses", "scores", "metrics", "weights", "files", "arrays"}

    delete_run("r", made)

    assert left(made, "r") == set()
    assert not exported.exists()
    assert left(made, "s") == everything
    assert create_config_store(made).retrieve_task_config_names() == ["t"]
    with pytest.raises(ConfigNotFoundError, match="there is nothing of a run 'r'"):
        delete_run("r", made)


@BOTH
def test_run_is_deleted_from_the_stores_that_are_given(options, kind, tmp_path):
    made = options(kind)
    own = Options(
        type=kind, runs_base_dir=tmp_path / "own" / "runs", db_url=f"sqlite:///{tmp_path / 'own.sqlite3'}"
    )
    for one in (made, own):
        train(one, "r", 3, [3])
    before = left(made, "r")
    stores = {
        "configs": create_config_store(own),
        "stats": create_stats_store(own),
        "weights": create_weights_store(own),
        "arrays": create_array_store(own),
    }

    with claim_run("r", own), pytest.raises(ClaimTimeoutError, match="is being trained"):
        delete_run("r", made, **stores)
    delete_run("r", made, **stores)

    assert left(own, "r") == set()
    assert left(made, "r") == before
    with pytest.raises(ConfigNotFoundError, match="there is nothing of a run 'r'"):
        delete_run("r", made, **stores)


def test_run_whose_name_is_too_long_for_a_folder_can_be_deleted(options):
    made, name = options("sql"), "ä" * 255
    train(made, name, 3, [3])

    delete_run(name, made)

    assert create_weights_store(made).iterations(name) == []
    assert create_config_store(made).retrieve_run_config_names() == []
    assert list(made.runs_base_dir.rglob("*.h5")) == []


@BOTH
def test_run_that_others_start_from_or_that_is_trained_is_not_deleted(options, kind):
    made = options(kind)
    train(made, "r", 3, [3])
    before = left(made, "r")
    later = RunConfig(name="later", start_config=StartConfig(run="r", criterion="f1"))
    create_config_store(made).store_run_config(later)

    with pytest.raises(InUseError, match="weights of the run 'r' are what the runs 'later' start from"):
        delete_run("r", made)
    with claim_run("r", made), pytest.raises(ClaimTimeoutError, match="is being trained"):
        delete_run("r", made, force=True)
    assert left(made, "r") == before

    delete_run("r", made, force=True)
    assert left(made, "r") == set()


@BOTH
def test_run_is_deleted_or_in_use_whatever_classes_the_other_runs_are_of(options, kind, monkeypatch):
    class Theirs(TaskConfig):
        """A class that another process has defined, and this one has not."""

    made = options(kind)
    store = create_config_store(made)
    for name in ("mine", "base"):
        store.store_run_config(RunConfig(name=name))
    start = StartConfig(run="base", criterion="f1")
    store.store_run_config(RunConfig(name="theirs", task_config=Theirs(name="t"), start_config=start))
    monkeypatch.delitem(configs._classes["task"], "Theirs")

    delete_run("mine", made)
    with pytest.raises(InUseError, match="what the runs 'theirs' start from"):
        delete_run("base", made)
    assert store.retrieve_run_config_names() == ["base", "theirs"]


def test_delete_that_fails_deletes_nothing(options, monkeypatch):
    made = options("sql")
    train(made, "r", 3, [1, 3])
    before = left(made, "r")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SQLConfigStore, "delete_run_config", fail)
    with pytest.raises(OSError, match="No space left"):
        delete_run("r", made)
    monkeypatch.undo()
    assert left(made, "r") == before
    assert create_weights_store(made).retrieve_weights("r", 3, verify=True).model["w"].tolist() == [3, 3, 3]
