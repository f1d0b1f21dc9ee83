"""What storing means, whatever it is stored in: what of the given is new, and whether what is there gives way.

A training or its validations that reach further than what is stored are appended to it. Those that do not have gone
back since: what is stored gives way, unless the caller says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any, Literal, NamedTuple, get_args

from entropic.disk.names import is_text
from entropic.errors import AlreadyExistsError
from entropic.stats import TrainingStats, ValidationIterationScores, ValidationScores

__all__ = [
    "NO_LABEL",
    "OnBehind",
    "ScoresChange",
    "TrainingChange",
    "Validation",
    "nested",
    "number_labels",
    "plan_scores",
    "plan_training",
    "step_of",
]

OnBehind = Literal["overwrite", "merge", "error"]

NO_LABEL = -1
_ASCENDS = (
    "_entropic_ascends"  # attribute of statistics: a list that was looked at, and how many there were in it
)
SUBSAMPLE = 1000  # iterations that a subsample has, or a few more


@dataclass
class TrainingChange:
    """What is to be done to the stored iterations of a training.

    Attributes
    ----------
    rows : list of tuple
        Iteration, loss and time of each that is to be written.
    replaces : bool
        Whether all that is stored is to be deleted before.
    merges : bool
        Whether some of *rows* may be there, and give way.
    """

    rows: list[tuple[int, float, float]]
    replaces: bool = False
    merges: bool = False


class Validation(NamedTuple):
    """One validation, its scores in one list.

    Attributes
    ----------
    shape : list of list of int
        How many scores there are for each data set and each parameters of it.
    places : list of tuple of int
        Of each score: which data set, parameters and criterion.
    """

    iteration: int
    shape: list[list[int]]
    scores: list[float]
    places: list[tuple[int, int, int]]


@dataclass
class ScoresChange:
    """What is to be done to the stored validations of a training; as `TrainingChange`."""

    validations: list[Validation]
    replaces: bool = False
    merges: bool = False
    labels: dict[str, list[str]] = field(default_factory=dict)
    directions: list[bool | None] = field(default_factory=list)
    """Of each criterion, whether higher is better; None where nobody says."""


def plan_training(stats: TrainingStats, until: int, on_behind: OnBehind) -> TrainingChange | None:
    """Return what storing *stats* means where a training was stored up to the iteration before *until*.

    Raises
    ------
    ValueError
        If the iterations do not ascend.
    AlreadyExistsError
        If *stats* do not reach further, and that is an error.
    """
    _check(on_behind)
    if not stats.iteration_stats:
        return None
    _require_ascending(stats)
    given = stats.trained_until()
    if given > until:
        return TrainingChange(_rows_from(stats, until))
    _refuse_behind(on_behind, "training", given, until)
    rows = _rows_from(stats, 0)
    return TrainingChange(rows, replaces=on_behind == "overwrite", merges=on_behind == "merge")


def _require_ascending(stats: TrainingStats) -> None:
    # Of a training that goes on, with millions of iterations, only those that came since the last call are looked at.
    given = stats.iteration_stats
    known, count = getattr(stats, _ASCENDS, (None, 0))
    begin = count - 1 if known is given and 0 < count <= len(given) else 0
    for before, after in pairwise(given[begin:]):
        if after.iteration <= before.iteration:
            raise ValueError(
                f"iteration {after.iteration} comes after {before.iteration}, and they must ascend: nothing was "
                "stored. TrainingStats.add_iteration_stats keeps them so"
            )
    with suppress(AttributeError):  # of an object that takes none
        setattr(stats, _ASCENDS, (given, len(given)))


def _rows_from(stats: TrainingStats, begin: int) -> list[tuple[int, float, float]]:
    # From the end, for the same reason.
    last = reversed(stats.iteration_stats)
    rows = [
        (one.iteration, float(one.loss), float(one.time))
        for one in takewhile(lambda one: one.iteration >= begin, last)
    ]
    rows.reverse()
    return rows


def plan_scores(scores: ValidationScores, until: int, on_behind: OnBehind) -> ScoresChange | None:
    """Return what storing *scores* means where validations were stored up to the iteration before *until*.

    Raises
    ------
    ValueError
        If an iteration is there twice, scores are no lists of lists of lists of numbers, or a label cannot be kept.
    AlreadyExistsError
        If *scores* do not reach as far, and that is an error.
    """
    _check(on_behind)
    if not scores.scores:
        return None
    by_iteration = {one.iteration: one for one in scores.scores}
    if len(by_iteration) < len(scores.scores):
        numbers = [one.iteration for one in scores.scores]
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        raise ValueError(f"iteration {twice[0]} was validated twice in what is to be stored: nothing was")
    given = scores.validated_until()
    is_behind = until > given
    if is_behind:
        _refuse_behind(on_behind, "validation", given, until)
    begin = 0 if is_behind else until
    validations = [_flat(by_iteration[number]) for number in sorted(by_iteration) if number >= begin]
    if not validations:
        return None
    labels = _labels_of(scores)
    for axis, of_axis in labels.items():
        if not all(map(is_text, of_axis)):
            raise ValueError(f"a {axis} has NUL or half of a surrogate pair in its name: {of_axis!r:.300}")
    return ScoresChange(
        validations,
        replaces=is_behind and on_behind == "overwrite",
        merges=is_behind and on_behind == "merge",
        labels=labels,
        directions=[_direction(scores.evaluation_scores, name) for name in labels["criterion"]],
    )


def _check(on_behind: str) -> None:
    if on_behind not in get_args(OnBehind):
        raise ValueError(f"on_behind is 'overwrite', 'merge' or 'error', not {on_behind!r}")


def _refuse_behind(on_behind: OnBehind, what: str, given: int, until: int) -> None:
    if on_behind == "error":
        raise AlreadyExistsError(
            f"the {what} is stored up to iteration {until - 1}, and what is to be stored ends at {given - 1}: nothing "
            "was. on_behind='overwrite' lets it give way, on_behind='merge' keeps what is not given again"
        )


def _flat(one: ValidationIterationScores) -> Validation:
    shape: list[list[int]] = []
    flat: list[float] = []
    places: list[tuple[int, int, int]] = []
    try:
        for dataset, of_dataset in enumerate(one.scores):
            shape.append([])
            for parameters, of_parameters in enumerate(of_dataset):
                values = [float(value) for value in of_parameters]
                shape[-1].append(len(values))
                flat += values
                places += [(dataset, parameters, criterion) for criterion in range(len(values))]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the scores of iteration {one.iteration} are no numbers by data set, parameters and criterion: {error}"
        ) from error
    return Validation(one.iteration, shape, flat, places)


def nested(shape: Sequence[Sequence[int]], flat: Sequence[float]) -> list[list[list[float]]]:
    """Return scores as they were given: by data set, parameters and criterion."""
    found: list[list[list[float]]] = []
    at = 0
    for counts in shape:
        found.append([])
        for count in counts:
            found[-1].append(list(flat[at : at + count]))
            at += count
    return found


def _labels_of(scores: ValidationScores) -> dict[str, list[str]]:
    """Return what data sets, parameters and criteria are called, in their order."""
    criteria = getattr(scores.evaluation_scores, "criteria", None) or ()
    return {
        "dataset": [str(getattr(one, "name", one)) for one in scores.datasets],
        "parameters": [str(one) for one in scores.parameters],
        "criterion": [str(one) for one in criteria],
    }


def _direction(evaluation_scores: Any, criterion: str) -> bool | None:
    tell = getattr(evaluation_scores, "higher_is_better", None)
    return None if tell is None else bool(tell(criterion))


def number_labels(
    known: Iterable[tuple[int, str]], labels: Sequence[str], free_from: int = 0
) -> tuple[list[int], list[tuple[int, str]]]:
    """Return a number for each of *labels*, and those that are new, with their labels.

    Parameters
    ----------
    known : iterable of (int, str)
        Numbers that labels have; of equal labels each has its own.
    free_from : int
        The least number that a new label may have.
    """
    free: dict[str, list[int]] = {}
    next_number = free_from
    for number, label in known:
        free.setdefault(label, []).append(number)
        next_number = max(next_number, number + 1)
    numbers: list[int] = []
    added: list[tuple[int, str]] = []
    for label in labels:
        if free.get(label):
            numbers.append(free[label].pop(0))
        else:
            numbers.append(next_number)
            added.append((next_number, label))
            next_number += 1
    return numbers, added


def step_of(highest: int, interval: int | None = None) -> int:
    """Return of which number the iterations of a subsample are multiples.

    Parameters
    ----------
    highest : int
        The last iteration.
    interval : int, optional
        In which validations were made.

    Raises
    ------
    ValueError
        If *interval* is less than 1.
    """
    interval = 1 if interval is None else interval
    if interval < 1:
        raise ValueError(f"validation_interval counts iterations, from 1 on: {interval!r}")
    step = max((highest + SUBSAMPLE - 1) // SUBSAMPLE, 1)
    return max(step - step % interval, interval)
