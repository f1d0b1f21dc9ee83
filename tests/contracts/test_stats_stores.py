"""What every store of statistics does."""

import itertools
import logging
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from entropic import AlreadyExistsError, Database
from entropic.stats import TrainingIterationStats, TrainingStats, ValidationScores
from entropic.stats_store import BestScore, FileStatsStore, SQLStatsStore, StatsStore
from tests.support import servers
from tests.support.stats_cases import Criteria, full, losses, shown, training, validation

STORES = ["sqlite", "sqlite-memory", "postgresql", "mysql", "files"]

_numbers = itertools.count()


@pytest.fixture(scope="module", params=STORES)
def store(request, tmp_path_factory):
    """A store of each kind: one for all of these tests, which have a run each, as tables cost time."""
    if request.param == "sqlite":
        yield SQLStatsStore(f"sqlite:///{tmp_path_factory.mktemp('stats') / 'stats.sqlite3'}")
    elif request.param == "files":
        yield FileStatsStore(tmp_path_factory.mktemp("stats") / "stats")
    elif request.param == "sqlite-memory":
        yield SQLStatsStore("sqlite://")
    else:
        name = {"postgresql": "postgres", "mysql": "mysql"}[request.param]
        server = request.getfixturevalue(f"{name}_server")
        with getattr(servers, f"{name}_database")(server) as url:
            made = SQLStatsStore(Database(url))
            yield made
            made.database.dispose()


@pytest.fixture
def run():
    return f"run {next(_numbers)}"


# Trainings


def test_training_comes_back(store, run):
    assert store.store_training_stats(run, training(range(5))) is None

    back = store.retrieve_training_stats(run)

    assert back == training(range(5))
    assert type(back.iteration_stats[0]) is TrainingIterationStats
    assert [type(value) for value in vars_of(back.iteration_stats[0])] == [int, float, float]


def vars_of(one):
    return [one.iteration, one.loss, one.time]


def test_what_is_not_there_is_empty(store, run):
    assert store.retrieve_training_stats(run) == TrainingStats()
    assert store.retrieve_training_stats(run, subsample=True) == TrainingStats()
    assert store.retrieve_validation_iteration_scores(run) == []
    assert store.retrieve_validation_iteration_scores(run, subsample=True) == []
    assert [len(column) for column in store.to_numpy(run).values()] == [0, 0, 0]
    assert list(store.to_numpy(run, "metrics")) == ["iteration"]
    assert {len(column) for column in store.to_numpy(run, "scores").values()} == {0}
    assert store.best(run, None, "f1") is None
    assert store.delete_training_stats(run) == store.delete_validation_scores(run) == 0
    assert store.delete_metrics(run) == 0


def test_training_that_goes_on_is_appended_to_what_is_stored(store, run):
    store.store_training_stats(run, training(range(3)))
    store.store_training_stats(run, training(range(5), loss=lambda i: 9.0))

    assert losses(store.retrieve_training_stats(run)) == {
        0: "1.0",
        1: "0.5",
        2: repr(1 / 3),
        3: "9.0",
        4: "9.0",
    }


@pytest.mark.parametrize("last", [5, 2])
def test_training_that_is_behind_replaces_what_is_stored_with_a_warning(store, run, last, caplog):
    store.store_training_stats(run, training(range(5)))
    with caplog.at_level(logging.WARNING):
        store.store_training_stats(run, training(range(last), loss=lambda i: 9.0))

    assert losses(store.retrieve_training_stats(run)) == dict.fromkeys(range(last), "9.0")
    assert f"the training of run '{run}' went back: {last} iterations up to {last - 1}" in caplog.text


def test_empty_training_changes_nothing(store, run):
    store.store_training_stats(run, training(range(3)))
    store.store_training_stats(run, TrainingStats())
    assert len(store.retrieve_training_stats(run).iteration_stats) == 3


def test_window_of_a_training_is_taken_by_its_iterations(store, run):
    store.store_training_stats(run, training(range(2)))
    store.store_training_stats(run, training([2, 3, 4, 5]))
    store.store_training_stats(run, training([4, 5, 10, 13]))

    assert list(losses(store.retrieve_training_stats(run))) == [0, 1, 2, 3, 4, 5, 10, 13]


def test_merge_keeps_what_is_not_given_again(store, run):
    store.store_training_stats(run, training(range(5)))
    store.store_training_stats(run, training([1, 3], loss=lambda i: 9.0), on_behind="merge")

    back = losses(store.retrieve_training_stats(run))
    assert back == {0: "1.0", 1: "9.0", 2: repr(1 / 3), 3: "9.0", 4: "0.2"}


def test_being_behind_can_be_an_error(store, run):
    store.store_training_stats(run, training(range(5)))
    store.store_training_stats(run, training(range(6)), on_behind="error")

    with pytest.raises(
        AlreadyExistsError, match="stored up to iteration 5, and what is to be stored ends at 2"
    ):
        store.store_training_stats(run, training(range(3)), on_behind="error")

    assert store.retrieve_training_stats(run) == training(range(6))


@pytest.mark.parametrize("iterations", [[], [1], [9]])
def test_what_to_do_when_behind_is_one_of_three(store, run, iterations):
    store.store_training_stats(run, training([5]))
    for put, given in (
        (store.store_training_stats, training(iterations)),
        (store.store_validation_iteration_scores, validation(dict.fromkeys(iterations, 1))),
    ):
        with pytest.raises(ValueError, match="'overwrite', 'merge' or 'error', not 'append'"):
            put(run, given, on_behind="append")


def test_iterations_that_do_not_ascend_are_refused_and_nothing_is_lost(store, run):
    store.store_training_stats(run, training(range(3)))
    for iterations in ([0, 4, 3, 5], [5, 5], [7, 6, 8], [1, 0], [20, 1, 30], [1, 0, 5]):
        with pytest.raises(ValueError, match="they must ascend: nothing was stored"):
            store.store_training_stats(run, training(iterations))

    assert store.retrieve_training_stats(run) == training(range(3))


def test_iterations_that_came_since_a_training_was_stored_must_ascend_too(store, run):
    stats = training(range(3))
    store.store_training_stats(run, stats)
    for iterations in ([9, 1, 12], [2], [5, 5]):
        grown = training(iterations).iteration_stats
        stats.iteration_stats.extend(grown)
        with pytest.raises(ValueError, match="they must ascend: nothing was stored"):
            store.store_training_stats(run, stats)
        del stats.iteration_stats[3:]
    stats.add_iteration_stats(TrainingIterationStats(1, 0.5, 0.1))
    stats.add_iteration_stats(TrainingIterationStats(3, 0.5, 0.1))
    store.store_training_stats(run, stats)

    assert [one.iteration for one in store.retrieve_training_stats(run).iteration_stats] == [0, 1, 2, 3]


def test_nan_infinities_and_the_rarest_doubles_are_kept(store, run):
    values = [math.nan, math.inf, -math.inf, 5e-324, -1.7976931348623155e308, 0.1, 2**53 + 1.0]
    store.store_training_stats(run, training(range(len(values)), loss=lambda i: values[i]))
    store.store_training_stats(run, TrainingStats([TrainingIterationStats(2**62, math.nan, math.nan)]))

    back = store.retrieve_training_stats(run)

    assert list(losses(back).values()) == [repr(value) for value in [*values, math.nan]]
    assert back.iteration_stats[-1].iteration == 2**62
    assert repr(back.iteration_stats[-1].time) == "nan"
    assert_array_equal(store.to_numpy(run)["loss"], [*values, math.nan])


def test_sign_of_nothing_is_kept_by_files_and_postgresql(store, run):
    store.store_training_stats(run, training([0], loss=lambda i: -0.0))
    (loss,) = losses(store.retrieve_training_stats(run)).values()
    keeps = isinstance(store, FileStatsStore) or store.database.dialect == "postgresql"
    assert float(loss) == 0
    assert loss == "-0.0" or not keeps


def test_merge_writes_nan_over_numbers(store, run):
    store.store_training_stats(run, training(range(3)))
    store.store_training_stats(run, training([1], loss=lambda i: math.nan), on_behind="merge")
    assert list(losses(store.retrieve_training_stats(run)).values()) == ["1.0", "nan", repr(1 / 3)]


@pytest.mark.parametrize(
    ("highest", "step", "count"), [(0, 1, 1), (1, 1, 2), (1000, 1, 1001), (1001, 2, 502), (2499, 3, 834)]
)
def test_subsample_of_a_training_has_a_thousand_iterations_and_the_last_one(store, run, highest, step, count):
    store.store_training_stats(run, training(range(highest + 1)))

    found = list(losses(store.retrieve_training_stats(run, subsample=True)))

    expected = [*range(0, highest + 1, step)]
    assert found == (expected if expected[-1] == highest else [*expected, highest])
    assert len(found) == count
    assert store.to_numpy(run, subsample=True)["iteration"].tolist() == found


def test_deleting_a_training_leaves_all_else(store, run):
    other = f"{run} too"
    for name in (run, other):
        store.store_training_stats(name, training(range(3)))
    store.store_validation_iteration_scores(run, validation({1: 0.5}))
    store.log(run, 0, accuracy=1)

    assert store.delete_training_stats(run) == 3
    assert store.delete_training_stats(run) == 0

    assert store.retrieve_training_stats(run) == TrainingStats()
    assert len(store.retrieve_training_stats(other).iteration_stats) == 3
    assert len(store.retrieve_validation_iteration_scores(run)) == 1
    assert store.delete_metrics(run) == 1
    store.store_training_stats(run, training(range(1)))
    assert store.retrieve_training_stats(run) == training(range(1))


def test_list_in_the_place_of_statistics_is_refused_and_nothing_is_lost(store, run):
    store.store_training_stats(run, training(range(2)))
    store.store_validation_iteration_scores(run, validation({100: 1}))

    with pytest.raises(TypeError, match=r"a TrainingStats is wanted, not \[TrainingIterationStats"):
        store.store_training_stats(run, training(range(3)).iteration_stats)
    with pytest.raises(TypeError, match=r"a ValidationScores is wanted, not {'f1': 0\.5}"):
        store.store_validation_iteration_scores(run, {"f1": 0.5})
    assert store.retrieve_training_stats(run) == training(range(2))
    assert shown(store.retrieve_validation_iteration_scores(run)) == {100: full(1)}


@pytest.mark.parametrize("name", [None, 3, "", "..", "/abs", "a/../b", "nul\0", "half\ud800", "x" * 256])
def test_what_is_no_name_is_refused(store, name):
    for act in (
        lambda: store.store_training_stats(name, training(range(1))),
        lambda: store.retrieve_training_stats(name),
        lambda: store.store_validation_iteration_scores(name, validation({1: 1})),
        lambda: store.retrieve_validation_iteration_scores(name),
        lambda: store.delete_training_stats(name),
        lambda: store.delete_validation_scores(name),
        lambda: store.delete_metrics(name),
        lambda: store.log(name, 1, x=1),
        lambda: store.to_numpy(name),
        lambda: store.best(name, None, "f1"),
    ):
        with pytest.raises(ValueError, match="a name"):
            act()


@pytest.mark.parametrize("name", ["a/b", "ünïcode β", "A", "a", "a ", "CON", "%41", "x" * 200])
def test_every_other_name_is_a_run_of_its_own(store, name):
    store.store_training_stats(name, training([len(name), 1000 + ord(name[0])]))
    assert list(losses(store.retrieve_training_stats(name))) == [len(name), 1000 + ord(name[0])]


# Validations


def test_validations_come_back(store, run):
    assert store.store_validation_iteration_scores(run, validation({100: 1, 200: 2})) is None

    back = store.retrieve_validation_iteration_scores(run)

    assert shown(back) == {100: full(1), 200: full(2)}


def test_only_validations_after_the_last_one_are_added(store, run):
    store.store_validation_iteration_scores(run, validation({100: 1, 200: 2}))
    store.store_validation_iteration_scores(run, validation({100: 7, 200: 7}))
    assert shown(store.retrieve_validation_iteration_scores(run)) == {100: full(1), 200: full(2)}

    store.store_validation_iteration_scores(run, validation({100: 8, 200: 8, 300: 3}))
    store.store_validation_iteration_scores(run, validation({400: 4}))
    assert shown(store.retrieve_validation_iteration_scores(run)) == {
        100: full(1), 200: full(2), 300: full(3), 400: full(4)
    }  # fmt: skip


def test_validations_that_are_behind_replace_what_is_stored_with_a_warning(store, run, caplog):
    store.store_validation_iteration_scores(run, validation({100: 1, 200: 2, 300: 3}))
    with caplog.at_level(logging.WARNING):
        store.store_validation_iteration_scores(run, validation({100: 9}))

    assert shown(store.retrieve_validation_iteration_scores(run)) == {100: full(9)}
    assert f"the training of run '{run}' went back: 1 validations up to iteration 100" in caplog.text


def test_validations_that_are_behind_can_be_merged_or_refused(store, run):
    store.store_validation_iteration_scores(run, validation({100: 1, 200: 2, 300: 3}))
    small = validation({50: 5, 200: 9}, datasets=["d0"])

    with pytest.raises(AlreadyExistsError, match="up to iteration 300, and what is to be stored ends at 200"):
        store.store_validation_iteration_scores(run, small, on_behind="error")
    store.store_validation_iteration_scores(run, small, on_behind="merge")

    assert shown(store.retrieve_validation_iteration_scores(run)) == {
        50: full(5, datasets=1), 100: full(1), 200: full(9, datasets=1), 300: full(3)
    }  # fmt: skip


def test_no_validations_change_nothing(store, run):
    store.store_validation_iteration_scores(run, validation({100: 1}))
    store.store_validation_iteration_scores(run, validation({}))
    assert shown(store.retrieve_validation_iteration_scores(run)) == {100: full(1)}


def test_validations_need_not_be_in_order_but_none_may_be_there_twice(store, run):
    store.store_validation_iteration_scores(run, validation({200: 2, 100: 1}))
    assert list(shown(store.retrieve_validation_iteration_scores(run))) == [100, 200]

    twice = validation({300: 3})
    twice.add_iteration_scores(twice.scores[0])
    with pytest.raises(ValueError, match="iteration 300 was validated twice"):
        store.store_validation_iteration_scores(run, twice)
    assert list(shown(store.retrieve_validation_iteration_scores(run))) == [100, 200]


RAGGED = {
    1: [],
    2: [[]],
    3: [[[]], []],
    4: [[[math.nan, math.inf, -math.inf]], [[1.0], [], [2.0, 3.0]]],
    5: [[[0.5, math.nan]], [[0.25, 1e300]]],
}


def test_scores_of_any_shape_come_back_as_they_were(store, run):
    store.store_validation_iteration_scores(run, validation(RAGGED))
    assert shown(store.retrieve_validation_iteration_scores(run)) == {
        number: repr(scores) for number, scores in RAGGED.items()
    }
    assert store.delete_validation_scores(run) == 5
    assert store.retrieve_validation_iteration_scores(run) == []


def test_deleted_validations_can_be_stored_again(store, run):
    store.store_validation_iteration_scores(run, validation({100: 1, 200: 2}))
    assert store.delete_validation_scores(run) == 2
    assert store.best(run, "d0", "f1") is None
    store.store_validation_iteration_scores(run, validation({100: 3}))

    assert shown(store.retrieve_validation_iteration_scores(run)) == {100: full(3)}
    assert store.best(run, "d0", "f1").score == 3.0


def test_scores_of_numpy_are_floats(store, run):
    store.store_validation_iteration_scores(run, validation({1: np.ones((2, 2, 2), "f4")}))
    assert shown(store.retrieve_validation_iteration_scores(run)) == {1: full(1)}


@pytest.mark.parametrize("scores", [[1.0], [[1.0]], [[["x"]]], [[[None]]], [[[[1.0]]]]])
def test_what_are_no_scores_is_refused_and_nothing_is_lost(store, run, scores):
    store.store_validation_iteration_scores(run, validation({100: 1}))
    with pytest.raises(ValueError, match="the scores of iteration 200 are no numbers by data set"):
        store.store_validation_iteration_scores(run, validation({200: scores}))
    assert shown(store.retrieve_validation_iteration_scores(run)) == {100: full(1)}


@pytest.mark.parametrize(
    ("iterations", "interval", "expected"),
    [
        (range(100, 5001, 100), 100, [*range(100, 5001, 100)]),
        (range(100, 5001, 100), 250, [*range(500, 5001, 500)]),
        (range(100, 5001, 100), 1000, [*range(1000, 5001, 1000)]),
        (range(100, 5001, 100), 7, [*range(700, 5000, 700), 5000]),
        (range(100, 5001, 100), None, [*range(100, 5001, 100)]),
        ([1500, 2000, 3000, 1_500_000, 3_000_000], 1000, [3000, 1_500_000, 3_000_000]),
        ([1500, 2000, 3000, 2_500_000], 1000, [2000, 2_500_000]),
    ],
)
def test_subsample_of_validations(store, run, iterations, interval, expected):
    store.store_validation_iteration_scores(run, validation(dict.fromkeys(iterations, 1)))

    found = store.retrieve_validation_iteration_scores(run, subsample=True, validation_interval=interval)

    assert list(shown(found)) == expected
    assert shown(found) == dict.fromkeys(expected, full(1))
    all_of_them = store.retrieve_validation_iteration_scores(run, validation_interval=interval)
    assert list(shown(all_of_them)) == [*iterations]


@pytest.mark.parametrize("interval", [0, -5])
@pytest.mark.parametrize("subsample", [True, False])
def test_interval_of_less_than_one_iteration_is_refused(store, run, interval, subsample):
    with pytest.raises(ValueError, match="validation_interval counts iterations, from 1 on"):
        store.retrieve_validation_iteration_scores(run, subsample, interval)


# Labels and the best


def scores_of_four():
    """Of d0 and d1, with thresholds 0.1 and 0.2: f1 and distance."""
    nan = math.nan
    return validation(
        {
            100: [[[0.5, 9.0], [nan, 2.0]], [[0.9, 5.0], [0.2, nan]]],
            200: [[[0.7, 3.0], [0.7, 2.0]], [[0.9, 4.0], [0.1, -math.inf]]],
        }
    )


@pytest.mark.parametrize(
    ("dataset", "criterion", "expected"),
    [
        ("d0", "f1", (200, "d0", "threshold_0.1", "f1", 0.7)),
        ("d1", "f1", (100, "d1", "threshold_0.1", "f1", 0.9)),
        (None, "f1", (100, "d1", "threshold_0.1", "f1", 0.9)),
        ("d0", "distance", (100, "d0", "threshold_0.2", "distance", 2.0)),
        (None, "distance", (200, "d1", "threshold_0.2", "distance", -math.inf)),
    ],
)
def test_best_score_is_found_and_where_it_is(store, run, dataset, criterion, expected):
    store.store_validation_iteration_scores(run, scores_of_four())

    best = store.best(run, dataset, criterion)

    assert best == expected
    assert type(best) is BestScore
    assert [type(value) for value in best] == [int, str, str, str, float]


def test_best_takes_a_dataset_by_its_name_and_another_direction(store, run):
    scores = scores_of_four()
    store.store_validation_iteration_scores(run, scores)

    assert store.best(run, scores.datasets[1], "f1", higher_is_better=False).score == 0.1
    assert store.best(run, "d1", "distance", higher_is_better=True).score == 5.0


def test_best_of_nothing_but_nan_is_none(store, run):
    store.store_validation_iteration_scores(run, validation({1: math.nan}))
    assert store.best(run, None, "f1") is None


def test_best_of_what_was_never_validated_is_an_error_that_says_what_was(store, run):
    store.store_validation_iteration_scores(run, scores_of_four())
    with pytest.raises(ValueError, match="of the criterion 'f2': there is 'f1', 'distance'"):
        store.best(run, None, "f2")
    with pytest.raises(ValueError, match="of the dataset 'D0': there is 'd0', 'd1'"):
        store.best(run, "D0", "f1")


def test_what_is_better_must_be_said_where_nobody_said_it(store, run):
    class Plain:
        criteria = ("f1",)

    store.store_validation_iteration_scores(run, validation({1: [[[1.0]]]}, evaluation_scores=Plain))
    with pytest.raises(ValueError, match="pass higher_is_better=True or False"):
        store.best(run, None, "f1")
    assert store.best(run, None, "f1", higher_is_better=True).score == 1.0

    store.store_validation_iteration_scores(run, validation({1: 1, 2: 3}))
    assert store.best(run, None, "f1").score == 3.0


def test_labels_belong_to_their_scores_when_the_axes_change(store, run):
    store.store_validation_iteration_scores(run, validation({1: [[[1.0, 0]], [[2.0, 0]]]}, ["a", "b"], [0.1]))
    store.store_validation_iteration_scores(run, validation({2: [[[4.0, 0]], [[3.0, 0]]]}, ["b", "a"], [0.1]))
    store.store_validation_iteration_scores(run, validation({3: [[[0.0, 0]]]}, ["c"], [0.3]))

    assert store.best(run, "a", "f1")[:2] == (2, "a")
    assert store.best(run, "a", "f1").score == 3.0
    assert store.best(run, "b", "f1").score == 4.0
    assert store.best(run, "c", "f1").parameters == "threshold_0.3"
    assert shown(store.retrieve_validation_iteration_scores(run))[2] == "[[[4.0, 0.0]], [[3.0, 0.0]]]"


def test_equal_labels_are_not_taken_for_one(store, run):
    store.store_validation_iteration_scores(run, validation({1: [[[1.0, 0], [2.0, 0]]]}, ["a"], [0.1, 0.1]))
    assert store.best(run, "a", "f1").score == 2.0
    assert store.to_xarray(run, "scores").shape == (1, 1, 2, 2)


def test_labels_of_any_length_are_kept(store, run):
    long, other = "é" * 1000, "É" * 1000
    store.store_validation_iteration_scores(
        run, validation({1: [[[1.0, 0]], [[2.0, 0]]]}, [long, other], [0.1])
    )
    assert store.best(run, long, "f1").score == 1.0
    assert store.best(run, other, "f1").dataset == other


@pytest.mark.parametrize("name", ["a\0b", "half\udfff"])
def test_label_that_cannot_be_kept_is_refused_and_nothing_is_lost(store, run, name):
    store.store_validation_iteration_scores(run, validation({1: 1}))
    for scores in (
        validation({2: 1}, datasets=["d0", name]),
        validation({2: 1}, thresholds=[0.1, name]),
        validation({2: [[[1.0]]]}, evaluation_scores=SimpleNamespace(criteria=[name])),
    ):
        with pytest.raises(ValueError, match="has NUL or half of a surrogate pair in its name"):
            store.store_validation_iteration_scores(run, scores)
    assert list(shown(store.retrieve_validation_iteration_scores(run))) == [1]


def test_labels_and_directions_are_deleted_with_their_scores(store, run):
    store.store_validation_iteration_scores(run, validation({1: 1}, ["b", "a"], [0.2, 0.1]))
    assert store.delete_validation_scores(run) == 1
    assert store.best(run, "nothing", "of this") is None

    plain = SimpleNamespace(criteria=["distance", "f1"])
    store.store_validation_iteration_scores(
        run, validation({1: [[[5.0, 1.0]], [[6.0, 2.0]]]}, ["a", "b"], [0.1], plain)
    )

    with pytest.raises(ValueError, match="what is better was not stored with the criterion 'f1'"):
        store.best(run, "a", "f1")
    assert store.best(run, "a", "f1", higher_is_better=False) == (1, "a", "threshold_0.1", "f1", 1.0)
    array = store.to_xarray(run, "scores")
    assert [array.coords[name].values.tolist() for name in ("datasets", "parameters", "criteria")] == [
        ["a", "b"], ["threshold_0.1"], ["distance", "f1"]
    ]  # fmt: skip
    assert array.values.tolist() == [[[[5.0, 1.0]], [[6.0, 2.0]]]]
    with pytest.raises(ValueError, match="of the criterion 'f2': there is 'distance', 'f1'"):
        store.best(run, "a", "f2")


def test_scores_without_labels_are_kept(store, run):
    store.store_validation_iteration_scores(run, ValidationScores([], [], None, validation({1: 2}).scores))
    assert shown(store.retrieve_validation_iteration_scores(run)) == {1: full(2)}
    assert store.best(run, None, "f1") is None
    assert set(store.to_numpy(run, "scores")["dataset"]) == {""}
    with pytest.raises(ValueError, match="without a label of their dataset"):
        store.to_xarray(run, "scores")


# Metrics


def test_metrics_of_any_name_come_back(store, run):
    store.log(run, 0, accuracy=0.5, **{"learning rate": 1e-3, "run_name": 7})
    store.log(run, 2, accuracy=np.float32(0.25))
    store.log(run, 1, grad_norm=math.inf, accuracy=math.nan)

    columns = store.to_numpy(run, "metrics")

    assert list(columns) == ["iteration", "accuracy", "learning rate", "run_name", "grad_norm"]
    assert_array_equal(columns["iteration"], [0, 1, 2])
    assert_array_equal(columns["accuracy"], [0.5, math.nan, 0.25])
    assert_array_equal(columns["learning rate"], [1e-3, math.nan, math.nan])
    assert_array_equal(columns["run_name"], [7, math.nan, math.nan])
    assert_array_equal(columns["grad_norm"], [math.nan, math.inf, math.nan])


def test_last_value_of_a_metric_at_an_iteration_counts(store, run):
    store.log(run, 1, accuracy=0.1)
    store.log(run, 1, accuracy=0.2)
    store.flush()
    store.log(run, 1, accuracy=0.3)
    store.log(run, 2, accuracy=0.4)

    assert store.to_numpy(run, "metrics")["accuracy"].tolist() == [0.3, 0.4]
    assert store.delete_metrics(run) == 2
    assert list(store.to_numpy(run, "metrics")) == ["iteration"]


def test_metrics_that_are_logged_after_a_delete_have_an_order_of_their_own(store, run):
    for names in (["a", "b", "c"], ["c", "b"], ["b", "d", "a"]):
        store.log(run, 1, **{name: number for number, name in enumerate(names)})
        assert list(store.to_numpy(run, "metrics")) == ["iteration", *names]
        assert [store.to_numpy(run, "metrics")[name][0] for name in names] == list(range(len(names)))
        assert store.delete_metrics(run) == len(names)


@pytest.mark.parametrize("value", [None, "0.5", b"1", [1, 2], 1j, {}, pytest.param(10**400, id="huge")])
def test_metric_that_is_no_number_is_refused_with_all_of_its_call(store, run, value):
    with pytest.raises(TypeError, match="the metric 'bad' is a number, not"):
        store.log(run, 1, good=1.0, bad=value)
    assert list(store.to_numpy(run, "metrics")) == ["iteration"]


@pytest.mark.parametrize("name", ["", "iteration", "iterations", "a\0b", "\ud800"])
def test_metric_whose_name_cannot_be_kept_is_refused(store, run, name):
    with pytest.raises(
        ValueError, match="a metric has a name, other than 'iteration' and 'iterations', without NUL"
    ):
        store.log(run, 1, **{name: 1.0})


@pytest.mark.parametrize(("iteration", "error"), [(-1, ValueError), (1.5, TypeError)])
def test_metric_has_an_iteration(store, run, iteration, error):
    with pytest.raises(error, match="an iteration"):
        store.log(run, iteration, x=1.0)


def test_values_of_several_runs_stay_apart(store, run):
    for number in range(3):
        store.log(f"{run}/{number}", number, x=number)
    store.flush()
    for number in range(3):
        assert store.to_numpy(f"{run}/{number}", "metrics")["x"].tolist() == [number]


# As arrays


def test_training_as_arrays(store, run):
    store.store_training_stats(run, training([0, 1, 5], loss=lambda i: [0.5, math.nan, 0, 0, 0, 0.25][i]))

    columns = store.to_numpy(run)

    assert {name: column.dtype for name, column in columns.items()} == {
        "iteration": np.int64, "loss": np.float64, "time": np.float64
    }  # fmt: skip
    assert columns["iteration"].tolist() == [0, 1, 5]
    assert_array_equal(columns["loss"], [0.5, math.nan, 0.25])
    frame = store.to_frame(run)
    assert frame.index.name == "iteration"
    assert frame.loc[5, "loss"] == 0.25
    array = store.to_xarray(run)
    assert array["loss"].sel(iterations=5) == 0.25
    assert array["time"].dims == ("iterations",)


def test_metrics_as_frame_and_xarray(store, run):
    store.log(run, 3, a=1)
    store.log(run, 4, b=2)
    assert store.to_frame(run, "metrics").loc[4].isna().tolist() == [True, False]
    assert store.to_xarray(run, "metrics")["b"].sel(iterations=4) == 2


def test_scores_as_columns_and_with_names(store, run):
    scores = scores_of_four()
    store.store_validation_iteration_scores(run, scores)

    frame = store.to_frame(run, "scores")
    row = frame[(frame["iteration"] == 200) & (frame["dataset"] == "d1") & (frame["criterion"] == "distance")]
    assert row["score"].tolist() == [4.0, -math.inf]
    assert row["parameters"].tolist() == ["threshold_0.1", "threshold_0.2"]
    assert len(frame) == 16
    array = store.to_xarray(run, "scores")
    assert array.dims == ("iterations", "datasets", "parameters", "criteria")
    expected = scores.to_xarray()
    assert_array_equal(array.values, expected.values)
    for name, coordinate in expected.coords.items():
        assert array.coords[name].values.tolist() == coordinate.values.tolist()


def test_scores_that_are_missing_are_nan_on_the_axes(store, run):
    store.store_validation_iteration_scores(run, validation({1: 1}))
    store.store_validation_iteration_scores(run, validation({1: 1, 2: 2}, ["d1", "d2"], [0.3]))

    array = store.to_xarray(run, "scores")

    assert array.shape == (2, 3, 3, 2)
    assert array.sel(iterations=2, datasets="d2", parameters="threshold_0.3", criteria="f1") == 2
    assert math.isnan(array.sel(iterations=1, datasets="d2", parameters="threshold_0.3", criteria="f1"))


def test_kind_that_there_is_not_is_refused(store, run):
    with pytest.raises(ValueError, match="'training', 'metrics', 'scores', not 'losses'"):
        store.to_numpy(run, "losses")


def test_store_is_the_same_after_pickling(store, run):
    if getattr(getattr(store, "database", None), "is_memory", False):
        pytest.skip("nobody else sees it")
    store.store_training_stats(run, training(range(2)))
    again = pickle.loads(pickle.dumps(store))
    again.store_training_stats(run, training(range(4)))
    assert len(store.retrieve_training_stats(run).iteration_stats) == 4


def test_stores_of_one_place_know_what_was_logged_in_each_of_them(store, run):
    place = store.path if isinstance(store, FileStatsStore) else store.database
    again = type(store)(place)
    store.log(run, 1, x=1)
    again.log(run, 1, x=2)
    assert store.to_numpy(run, "metrics")["x"].tolist() == [2]

    store.log(run, 1, x=3)
    assert again.delete_metrics(run) == 1
    store.flush()
    assert list(again.to_numpy(run, "metrics")) == ["iteration"]


def test_interface_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        StatsStore()


def test_criteria_of_the_cases_are_two():
    assert len(Criteria.criteria) == 2
