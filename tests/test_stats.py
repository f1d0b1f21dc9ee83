"""Statistics of a training and scores of its validations, as values."""

import copy
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from entropic.stats import (
    TrainingIterationStats,
    TrainingStats,
    ValidationIterationScores,
    ValidationScores,
)
from tests.support.stats_cases import Criteria, Threshold


def stats(*iterations):
    return TrainingStats([TrainingIterationStats(i, loss=1 / (i + 1), time=0.5) for i in iterations])


def iterations_of(one):
    return [each.iteration for each in one.iteration_stats]


class Scores(Criteria):
    criteria = ("f1", "loss")


def validations(*iterations, axes=(2, 2, 2)):
    parameters = [Threshold(0.1 * n) for n in range(axes[1])]
    datasets = [SimpleNamespace(name=f"d{n}") for n in range(axes[0])]
    scores = ValidationScores(parameters, datasets, Scores())
    for i in iterations:
        scores.add_iteration_scores(ValidationIterationScores(i, np.full(axes, float(i)).tolist()))
    return scores


# Trainings


def test_training_goes_on_from_its_last_iteration():
    assert stats().trained_until() == 0
    assert stats(0, 1, 7).trained_until() == 8


def test_iteration_that_is_done_again_replaces_all_from_it_on():
    again = stats(0, 1, 2, 3)
    again.add_iteration_stats(TrainingIterationStats(2, 9.0, 0.1))

    assert iterations_of(again) == [0, 1, 2]
    assert again.iteration_stats[-1].loss == 9.0

    again.add_iteration_stats(TrainingIterationStats(5, 8.0, 0.1))
    assert iterations_of(again) == [0, 1, 2, 5]


def test_delete_after_keeps_what_was_before():
    some = stats(0, 1, 2)
    some.delete_after(1)
    assert iterations_of(some) == [0]
    some.delete_after(0)
    assert iterations_of(some) == []


def test_two_trainings_share_no_list():
    one = TrainingStats()
    one.add_iteration_stats(TrainingIterationStats(0, 1.0, 1.0))
    assert TrainingStats().iteration_stats == []


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 0.0])
def test_loss_of_a_training_that_diverged_is_kept(loss):
    one = TrainingIterationStats(np.int64(3), np.float32(loss), 1)

    assert type(one.iteration) is int
    assert type(one.loss) is float
    assert type(one.time) is float
    assert repr(one.loss) == repr(loss)


@pytest.mark.parametrize(
    "make", [lambda i: TrainingIterationStats(i, 0.0, 0.0), lambda i: ValidationIterationScores(i, [])]
)
@pytest.mark.parametrize(
    ("iteration", "error"),
    [
        (-1, ValueError),
        (2**63, ValueError),
        (1.0, TypeError),
        ("1", TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
def test_what_is_no_number_of_an_iteration_is_refused(make, iteration, error):
    with pytest.raises(error, match=f"an iteration .*{iteration!r}"):
        make(iteration)


def test_losses_as_an_array_have_their_iterations():
    array = stats(0, 1, 5).to_xarray()

    assert array.dims == ("iterations",)
    assert array.coords["iterations"].values.tolist() == [0, 1, 5]
    assert array.sel(iterations=5).item() == 1 / 6
    assert stats().to_xarray().sizes == {"iterations": 0}


@pytest.mark.parametrize("value", [stats(0, 1), validations(100, 200)], ids=["training", "validations"])
def test_values_are_copied_and_pickled(value):
    assert type(copy.deepcopy(value)) is type(value)
    assert pickle.loads(pickle.dumps(stats(0, 1))) == stats(0, 1)


# Validations


@pytest.mark.parametrize(
    ("existing", "own", "expected"),
    [
        ((), (), (False, 0)),
        ((100,), (), (True, 0)),
        ((100,), (100,), (False, 101)),
        ((100, 200), (100,), (True, 0)),
        ((100,), (100, 200), (False, 101)),
        ((), (100,), (False, 0)),
    ],
)
def test_comparison_tells_what_is_new_or_that_a_training_went_back(existing, own, expected):
    assert validations(*own).compare(validations(*existing).scores) == expected


def test_validations_reach_to_the_highest_iteration_in_whatever_order():
    assert validations(200, 100).validated_until() == 201
    some = validations(200, 100, 300)
    some.delete_after(300)
    assert [one.iteration for one in some.scores] == [200, 100]
    assert validations().validated_until() == 0


def test_part_of_the_validations_has_the_same_axes():
    some = validations(100, 200)
    part = some.subscores(some.scores[:1])

    assert [one.iteration for one in part.scores] == [100]
    assert (part.criteria, part.parameter_names) == (["f1", "loss"], ["id", "threshold"])
    assert len(some.scores) == 2


def test_scores_as_an_array_are_found_by_name():
    some = validations(100, 200)
    some.scores[1].scores[1][0][0] = 0.5

    array = some.to_xarray()

    assert array.dims == ("iterations", "datasets", "parameters", "criteria")
    assert array.sel(iterations=200, datasets="d1", parameters="threshold_0.0", criteria="f1").item() == 0.5
    assert validations().to_xarray().sizes["iterations"] == 0


@pytest.mark.parametrize(
    "scores", [[], [[[1.0, 2.0]]], [[[1.0], [1.0]], [[1.0], [1.0]]], [[1.0, 2.0], [1.0, 2.0]]]
)
def test_scores_that_are_not_complete_are_named(scores):
    some = validations(100)
    some.add_iteration_scores(ValidationIterationScores(200, scores))

    with pytest.raises(ValueError, match="the scores of iteration 200 are not 2 × 2 × 2"):
        some.to_xarray()


def test_scores_may_be_arrays():
    some = validations(100)
    some.add_iteration_scores(ValidationIterationScores(200, np.full((2, 2, 2), 0.5)))
    assert some.to_xarray().sel(iterations=200).values.tolist() == [[[0.5] * 2] * 2] * 2

    some.add_iteration_scores(ValidationIterationScores(300, np.full((2, 3, 2), 0.5)))
    with pytest.raises(ValueError, match="the scores of iteration 300 are not 2 × 2 × 2"):
        some.to_xarray()


def test_best_score_of_each_criterion_goes_by_its_own_direction():
    some = validations(100, 200, 300)
    array = some.to_xarray().isel(datasets=0, parameters=0)

    index, value = some.get_best(array, "iterations")

    assert dict(zip(index.criteria.values.tolist(), index.values.tolist(), strict=True)) == {
        "f1": 300,
        "loss": 100,
    }
    assert value.values.tolist() == [300.0, 100.0]


def test_best_score_of_one_criterion_keeps_the_other_dimensions():
    some = validations(100, 200)
    index, value = some.get_best(some.to_xarray().sel(criteria="loss"), "iterations")

    assert index.dims == value.dims == ("datasets", "parameters")
    assert np.all(index == 100)

    index, value = some.get_best(some.to_xarray(), "parameters")
    assert index.dims == value.dims == ("iterations", "datasets", "criteria")


def test_nan_is_never_best_and_of_equals_the_first_is():
    some = validations(100, 200, 300)
    array = some.to_xarray().isel(datasets=0, parameters=0).sel(criteria="f1")
    array[:] = [math.nan, 2.0, 2.0]

    index, value = some.get_best(array, "iterations")

    assert (index.item(), value.item()) == (200, 2.0)


def test_best_needs_to_know_the_criterion():
    some = validations(100)
    array = some.to_xarray().isel(criteria=0, drop=True)

    with pytest.raises(ValueError, match="Cannot determine 'best' without knowing the criterion"):
        some.get_best(array, "iterations")
