"""What every store of statistics does, over a few steps that each does in its own way.

A training is known by its run's name, and three things are kept of it: the iterations, the scores of its validations,
and whatever metrics its user logs. Nothing is stored twice: what goes on is appended, and what has gone back replaces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from entropic.disk.names import check_name, is_text
from entropic.process.logs import get_logger
from entropic.stats import (
    TrainingIterationStats,
    TrainingStats,
    ValidationIterationScores,
    ValidationScores,
    check_iteration,
)
from entropic.stats_store.collector import Collected, Collector
from entropic.stats_store.columns import (
    AXES,
    Kind,
    Scores,
    curves,
    frame,
    score_array,
    score_columns,
    wide,
)
from entropic.stats_store.plans import (
    NO_LABEL,
    OnBehind,
    ScoresChange,
    TrainingChange,
    nested,
    plan_scores,
    plan_training,
    step_of,
)

if TYPE_CHECKING:
    import pandas
    import xarray

__all__ = ["BestScore", "StatsStore"]

log = get_logger(__name__)

Step = Callable[[int], int]
"""Makes, of the last iteration that is stored, the step of a subsample."""

_NO_METRICS = frozenset({"", "iteration", "iterations"})  # names of a column, and of xarray's dimension


class BestScore(NamedTuple):
    """Where a run was best.

    Attributes
    ----------
    iteration : int
        How many iterations were done.
    dataset, parameters, criterion : str
        Labels, as they were stored.
    score : float
    """

    iteration: int
    dataset: str
    parameters: str
    criterion: str
    score: float


class StatsStore(ABC):
    """Keeps the statistics of trainings by the names of their runs.

    Notes
    -----
    What is not there is empty, and no error: a training begins with nothing.
    """

    _collector: Collector

    def _checked(self, run_name: str) -> str:
        """Return the name of a run if this store can keep something under it, or raise `ValueError`."""
        return check_name(run_name)

    # What each store does in its own way

    @abstractmethod
    def _change_training(
        self, run_name: str, plan: Callable[[int], TrainingChange | None]
    ) -> TrainingChange | None:
        """Carry out, as a whole, what *plan* makes of the number of iterations that are stored; return it."""

    @abstractmethod
    def _change_scores(
        self, run_name: str, plan: Callable[[int], ScoresChange | None]
    ) -> ScoresChange | None:
        """Do for validations what `_change_training` does for a training."""

    @abstractmethod
    def _add_metrics(self, run_name: str, collected: Collected) -> None:
        """Write what was collected of a run, over what is there of the same iterations.

        It is asked for while the right to write the run is held, and committed before that is given up.
        """

    @abstractmethod
    def _delete(self, run_name: str, kind: Kind) -> int:
        """Delete what is stored of one kind; return how many iterations, validations or values that was."""

    @abstractmethod
    def _training(self, run_name: str, step: Step | None) -> Mapping[str, Any]:
        """Return the arrays ``iteration``, ``loss`` and ``time``; with *step*, of its multiples and the last one."""

    @abstractmethod
    def _scores(self, run_name: str, step: Step | None) -> Scores:
        """Return scores; with *step*, of the validations at its multiples and the last one."""

    @abstractmethod
    def _metrics(self, run_name: str) -> Mapping[str, tuple[Any, Any]]:
        """Return the arrays of iterations and values of each metric."""

    @abstractmethod
    def _labels(self, run_name: str) -> tuple[Mapping[str, Mapping[int, str]], Mapping[int, bool | None]]:
        """Return labels by axis and number, and of which criteria higher is better."""

    @abstractmethod
    def _best(
        self, run_name: str, datasets: list[int] | None, criteria: list[int], higher_is_better: bool
    ) -> tuple[int, int, int, int, float] | None:
        """Return iteration, numbers of data set, parameters and criterion, and score of the best; NaN is none."""

    # Trainings

    def store_training_stats(
        self, run_name: str, training_stats: TrainingStats, *, on_behind: OnBehind = "overwrite"
    ) -> None:
        """Store a training: what of it is new, or all of it if it does not reach further than what is stored.

        Parameters
        ----------
        run_name : str
        training_stats : TrainingStats
            The whole training or its last part. If it reaches further than what is stored, iterations that are stored
            already are not looked at. An empty one changes nothing.
        on_behind : {"overwrite", "merge", "error"}
            What to do if it does not reach further: let all that is stored give way, with a warning; replace the
            iterations that are given, and keep the others; or raise.

        Raises
        ------
        ValueError
            If the iterations do not ascend, or the name is none. Nothing is stored then.
        TypeError
            If it is no training, but its list for instance.
        AlreadyExistsError
            With ``on_behind="error"``.
        """
        self._checked(run_name)
        _require(training_stats, "iteration_stats", TrainingStats)
        change = self._change_training(
            run_name, lambda until: plan_training(training_stats, until, on_behind)
        )
        if change is not None and change.replaces:
            log.warning(
                "the training of run %r went back: %d iterations up to %d are all that is stored now",
                run_name, len(change.rows), change.rows[-1][0],
            )  # fmt: skip

    def retrieve_training_stats(self, run_name: str, subsample: bool = False) -> TrainingStats:
        """Return a training, by ascending iteration; an empty one if none is stored.

        Parameters
        ----------
        subsample : bool
            Whether to return about 1 000 iterations: those at the multiples of a step, and the last one.
        """
        columns = self._training(self._checked(run_name), step_of if subsample else None)
        values = (columns[name].tolist() for name in ("iteration", "loss", "time"))
        return TrainingStats(list(map(TrainingIterationStats, *values)))

    def delete_training_stats(self, run_name: str) -> int:
        """Delete a training, if there is one; return how many iterations that was."""
        return self._delete(self._checked(run_name), "training")

    # Validations

    def store_validation_iteration_scores(
        self, run_name: str, validation_scores: ValidationScores, *, on_behind: OnBehind = "overwrite"
    ) -> None:
        """Store validations: those after the last one that is stored, or all if they do not reach as far.

        Parameters
        ----------
        run_name : str
        validation_scores : ValidationScores
            All validations or the last ones. Those that are stored already stay as they are. Without any, nothing
            changes. What data sets, parameters and criteria are called is stored with them.
        on_behind : {"overwrite", "merge", "error"}
            What to do if the last one is before the last one that is stored: as in `store_training_stats`.

        Raises
        ------
        ValueError
            If an iteration is there twice, scores are no lists of lists of lists of numbers, or a name cannot be kept.
            Nothing is stored then.
        TypeError
            If they are no validations, but their list for instance.
        AlreadyExistsError
            With ``on_behind="error"``.
        """
        self._checked(run_name)
        _require(validation_scores, "scores", ValidationScores)
        change = self._change_scores(run_name, lambda until: plan_scores(validation_scores, until, on_behind))
        if change is not None and change.replaces:
            log.warning(
                "the training of run %r went back: %d validations up to iteration %d are all that is stored now",
                run_name, len(change.validations), change.validations[-1].iteration,
            )  # fmt: skip

    def retrieve_validation_iteration_scores(
        self, run_name: str, subsample: bool = False, validation_interval: int | None = None
    ) -> list[ValidationIterationScores]:
        """Return validations, by ascending iteration.

        Parameters
        ----------
        subsample : bool
            Whether to return about 1 000 at most: those at the multiples of a step, and the last one.
        validation_interval : int, optional
            In how many iterations validations were made, so that the step of a subsample is a multiple of it, if it
            is larger. Default: 1.

        Raises
        ------
        ValueError
            If *validation_interval* is less than 1.
        """
        step_of(1, validation_interval)
        step = (lambda highest: step_of(highest, validation_interval)) if subsample else None
        scores = self._scores(self._checked(run_name), step)
        flat, at, found = scores.columns["score"].tolist(), 0, []
        for iteration, shape in zip(scores.iterations, scores.shapes, strict=True):
            count = sum(map(sum, shape))
            found.append(ValidationIterationScores(iteration, nested(shape, flat[at : at + count])))
            at += count
        return found

    def delete_validation_scores(self, run_name: str) -> int:
        """Delete all validations, if there are any; return how many that was."""
        return self._delete(self._checked(run_name), "scores")

    def best(
        self, run_name: str, dataset: Any, criterion: str, *, higher_is_better: bool | None = None
    ) -> BestScore | None:
        """Return the best score of a run, and where it is.

        Parameters
        ----------
        dataset : str, object or None
            The name of a data set, or what has one as its ``name``; None for any.
        criterion : str
        higher_is_better : bool, optional
            Default: as was said of the criterion when the scores were stored.

        Returns
        -------
        BestScore or None
            NaN loses to every number; of equal scores the first one counts. None if there is no number.

        Raises
        ------
        ValueError
            If scores are stored, but none of that data set or criterion; or if nobody said what is better.
        """
        labels, directions = self._labels(self._checked(run_name))
        former, name = None, None if dataset is None else str(getattr(dataset, "name", dataset))
        while labels.get("criterion") and labels != former:
            criteria = _numbers(labels, "criterion", criterion)
            datasets = None if name is None else _numbers(labels, "dataset", name)
            is_higher = directions.get(criteria[-1]) if higher_is_better is None else higher_is_better
            if is_higher is None:
                raise ValueError(
                    f"what is better was not stored with the criterion {criterion!r}: pass higher_is_better=True or "
                    "False"
                )
            found = self._best(run_name, datasets, criteria, is_higher)
            best = None if found is None else _labelled(found, labels)
            if best is not None:
                return best
            # Another writer may have stored other scores since, with other labels.
            former, (labels, directions) = labels, self._labels(run_name)
        return None

    # Metrics

    def log(self, run_name: str, iteration: int, /, **metrics: float) -> None:
        """Note the values of metrics, of whatever names, at an iteration.

        Parameters
        ----------
        run_name : str
        iteration : int
            From 0.
        **metrics : float
            Numbers, or what makes a float. Where a metric has a value at that iteration, the new one counts.

        Raises
        ------
        TypeError
            If a value is no number; none of them is noted then.
        ValueError
            If a name is none, or the iteration is negative.

        Notes
        -----
        Values are collected, and written a second after the first of them, or when there are 1 000 of the run, with
        `flush` and at exit: what is killed loses its last second. They are kept, and tried again, while they cannot be
        written; only a call that finds 1 000 of its run raises then. Other runs are written all the same. Reading the
        values of a run writes them first.
        """
        self._checked(run_name)
        number = check_iteration(iteration)
        self._collector.add(
            run_name,
            {(_metric_name(name), number): _value(name, value) for name, value in metrics.items()},
        )

    def flush(self) -> None:
        """Write what was logged and is not yet written, each run's by itself; raise if one's cannot be."""
        self._collector.flush()

    def delete_metrics(self, run_name: str) -> int:
        """Delete all values that were logged for a run, if there are any; return how many that was."""
        self._collector.flush(self._checked(run_name))
        return self._delete(run_name, "metrics")

    # As arrays

    def to_numpy(self, run_name: str, kind: Kind = "training", *, subsample: bool = False) -> dict[str, Any]:
        """Return what is stored of a run as arrays, without an object for each row.

        Parameters
        ----------
        kind : {"training", "metrics", "scores"}
            What to return.
        subsample : bool
            Whether to leave some out, of a training or of scores, as `retrieve_training_stats` does.

        Returns
        -------
        dict of str to array
            Of a training ``iteration``, ``loss`` and ``time``; of metrics ``iteration`` and one for each of them, NaN
            where it has no value; of scores ``iteration``, ``dataset``, ``parameters``, ``criterion`` and ``score``.

        Raises
        ------
        ValueError
            If there is no such kind.
        """
        self._checked(run_name)
        step = step_of if subsample else None
        if kind == "training":
            return dict(self._training(run_name, step))
        if kind == "scores":
            return score_columns(self._scores(run_name, step))
        _check_kind(kind)
        self._collector.flush(run_name)
        return wide(self._metrics(run_name))

    def to_frame(
        self, run_name: str, kind: Kind = "training", *, subsample: bool = False
    ) -> pandas.DataFrame:
        """Return what `to_numpy` returns as a frame, whose index is the iteration but for scores.

        Raises
        ------
        ValueError
            If there is no such kind.
        ImportError
            If pandas is not installed.
        """
        columns = self.to_numpy(run_name, kind, subsample=subsample)
        return frame(columns, None if kind == "scores" else "iteration")

    def to_xarray(
        self, run_name: str, kind: Kind = "training", *, subsample: bool = False
    ) -> xarray.Dataset | xarray.DataArray:
        """Return what `to_numpy` returns with named dimensions.

        Returns
        -------
        Dataset or DataArray
            A dataset of the dimension ``iterations``; of scores an array of the dimensions ``iterations``,
            ``datasets``, ``parameters`` and ``criteria``, NaN where there is none.

        Raises
        ------
        ValueError
            If there is no such kind, or if scores were stored without labels.
        ImportError
            If xarray is not installed.
        """
        if kind == "scores":
            return score_array(self._scores(self._checked(run_name), step_of if subsample else None))
        return curves(self.to_numpy(run_name, kind, subsample=subsample))


def _numbers(labels: Mapping[str, Mapping[int, str]], axis: str, label: str) -> list[int]:
    known = labels.get(axis, {})
    numbers = sorted(number for number, text in known.items() if text == label)
    if not numbers:
        there = ", ".join(map(repr, known.values())) or "nothing"
        raise ValueError(f"no scores are stored of the {axis} {label!r}: there is {there}")
    return numbers


def _labelled(
    found: tuple[int, int, int, int, float], labels: Mapping[str, Mapping[int, str]]
) -> BestScore | None:
    """Return a score with its labels; None if these are not known."""
    dataset, parameters, criterion = (
        {NO_LABEL: "", **labels[axis]}.get(number) for axis, number in zip(AXES, found[1:4], strict=True)
    )
    if dataset is None or parameters is None or criterion is None:
        return None
    return BestScore(found[0], dataset, parameters, criterion, found[4])


def _metric_name(name: str) -> str:
    if name in _NO_METRICS or not is_text(name):
        raise ValueError(
            "a metric has a name, other than 'iteration' and 'iterations', without NUL and halves of surrogate pairs: "
            f"{name!r:.300}"
        )
    return name


def _value(name: str, value: Any) -> float:
    if value is None or isinstance(value, str | bytes):
        raise TypeError(f"the metric {name!r} is a number, not {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"the metric {name!r} is a number, not {value!r:.200}") from error


def _check_kind(kind: str) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"there are the kinds {', '.join(map(repr, get_args(Kind)))}, not {kind!r}")


def _require(given: Any, attribute: str, class_: type) -> None:
    if not hasattr(given, attribute):
        raise TypeError(f"a {class_.__name__} is wanted, not {given!r:.200}. Nothing was stored")
