"""What a training leaves behind: a loss per iteration, and scores of each validation; value objects without a database.

Training statistics count iterations from 0. Validations and weights belong to a number of iterations that were done:
what was validated at 100 has seen the iterations 0 to 99.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from entropic.extras import need

if TYPE_CHECKING:
    import xarray

__all__ = [
    "TrainingIterationStats",
    "TrainingStats",
    "ValidationIterationScores",
    "ValidationScores",
    "check_iteration",
]


@dataclass(slots=True)
class TrainingIterationStats:
    """One iteration of a training.

    Parameters
    ----------
    iteration : int
        From 0.
    loss : float
        NaN and infinities are kept: a training may diverge.
    time : float
        That it took, in seconds.

    Raises
    ------
    TypeError
        If the iteration is no integer.
    ValueError
        If it is negative.
    """

    iteration: int
    loss: float
    time: float

    def __post_init__(self) -> None:
        self.iteration = check_iteration(self.iteration)
        self.loss, self.time = float(self.loss), float(self.time)


@dataclass
class TrainingStats:
    """The iterations of one training, by ascending iteration.

    Parameters
    ----------
    iteration_stats : list of TrainingIterationStats
    """

    iteration_stats: list[TrainingIterationStats] = field(default_factory=list)

    def add_iteration_stats(self, iteration_stats: TrainingIterationStats) -> None:
        """Append an iteration; those from it on, which a training that went back does again, give way to it."""
        if self.iteration_stats and iteration_stats.iteration <= self.iteration_stats[-1].iteration:
            self.delete_after(iteration_stats.iteration)
        self.iteration_stats.append(iteration_stats)

    def delete_after(self, iteration: int) -> None:
        """Keep the iterations before *iteration*."""
        self.iteration_stats = [stats for stats in self.iteration_stats if stats.iteration < iteration]

    def trained_until(self) -> int:
        """Return how many iterations were done: the last one's number and one, or 0."""
        return self.iteration_stats[-1].iteration + 1 if self.iteration_stats else 0

    def to_xarray(self) -> xarray.DataArray:
        """Return the losses, of dimension ``iterations``, whose coordinate has their numbers.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        return _xarray().DataArray(
            [stats.loss for stats in self.iteration_stats],
            dims=["iterations"],
            coords={"iterations": [stats.iteration for stats in self.iteration_stats]},
        )


@dataclass(slots=True)
class ValidationIterationScores:
    """The scores of one validation.

    Parameters
    ----------
    iteration : int
        How many iterations were done before.
    scores : list of list of list of float
        By data set, by parameters of the post-processing, by criterion.

    Raises
    ------
    TypeError
        If the iteration is no integer.
    ValueError
        If it is negative.
    """

    iteration: int
    scores: list[list[list[float]]]

    def __post_init__(self) -> None:
        self.iteration = check_iteration(self.iteration)


@dataclass
class ValidationScores:
    """The validations of one training, and what the axes of their scores are.

    Parameters
    ----------
    parameters : list
        Of the post-processing; each may have `parameter_names`.
    datasets : list
        That were validated on; what has a ``name`` is called by it.
    evaluation_scores : object
        Has ``criteria``, the names of the criteria, and ``higher_is_better(criterion)``.
    scores : list of ValidationIterationScores
    """

    parameters: list[Any]
    datasets: list[Any]
    evaluation_scores: Any
    scores: list[ValidationIterationScores] = field(default_factory=list)

    def subscores(self, iteration_scores: list[ValidationIterationScores]) -> ValidationScores:
        """Return other validations with the same axes."""
        return ValidationScores(self.parameters, self.datasets, self.evaluation_scores, iteration_scores)

    def add_iteration_scores(self, iteration_scores: ValidationIterationScores) -> None:
        """Append a validation."""
        self.scores.append(iteration_scores)

    def delete_after(self, iteration: int) -> None:
        """Keep the validations before *iteration*."""
        self.scores = [scores for scores in self.scores if scores.iteration < iteration]

    def validated_until(self) -> int:
        """Return the highest iteration that was validated and one, or 0."""
        return _until(self.scores)

    def compare(self, existing_iteration_scores: list[ValidationIterationScores]) -> tuple[bool, int]:
        """Return whether those that exist must give way to these, and else from which iteration on these are new.

        They must give way if they reach further: this training has gone back since.
        """
        existing = _until(existing_iteration_scores)
        return (True, 0) if existing > self.validated_until() else (False, existing)

    @property
    def criteria(self) -> list[str]:
        """The names of the criteria."""
        return list(self.evaluation_scores.criteria)

    @property
    def parameter_names(self) -> list[str]:
        """The names of what makes up parameters of the post-processing."""
        return list(self.parameters[0].parameter_names)

    def to_xarray(self) -> xarray.DataArray:
        """Return the scores, of the dimensions ``iterations``, ``datasets``, ``parameters`` and ``criteria``.

        Raises
        ------
        ValueError
            If a validation has not one score for each data set, parameters and criterion.
        ImportError
            If xarray is not installed.
        """
        shape = (len(self.datasets), len(self.parameters), len(self.criteria))
        for one in self.scores:
            if not _has_shape(one.scores, shape):
                raise ValueError(
                    f"the scores of iteration {one.iteration} are not {shape[0]} × {shape[1]} × {shape[2]} (data sets "
                    "× parameters × criteria): add what is missing as NaN"
                )
        import numpy

        values = numpy.array([one.scores for one in self.scores], float).reshape(len(self.scores), *shape)
        return _xarray().DataArray(
            values,
            dims=["iterations", "datasets", "parameters", "criteria"],
            coords={
                "iterations": [one.iteration for one in self.scores],
                "datasets": [str(getattr(dataset, "name", dataset)) for dataset in self.datasets],
                "parameters": [str(parameters) for parameters in self.parameters],
                "criteria": self.criteria,
            },
        )

    def get_best(self, data: xarray.DataArray, dim: str) -> tuple[xarray.DataArray, xarray.DataArray]:
        """Return where along a dimension the best scores are, and those scores.

        Parameters
        ----------
        data : xarray.DataArray
            As from `to_xarray`, or a part of it; with a coordinate ``criteria``, which tells what is better.
        dim : str
            Any dimension but ``criteria``.

        Returns
        -------
        index, value : xarray.DataArray
            Without *dim*. NaN loses to every number; of equal scores the first one counts.

        Raises
        ------
        ValueError
            If *data* has no such coordinate.
        """
        if "criteria" not in data.coords:
            raise ValueError("Cannot determine 'best' without knowing the criterion")
        if data.coords["criteria"].ndim == 0:
            return self._best(data, dim, str(data.coords["criteria"].item()))
        best = [
            self._best(data.sel(criteria=criterion), dim, criterion)
            for criterion in data.coords["criteria"].values.tolist()
        ]
        index, value = (
            _xarray().concat(part, dim=data.coords["criteria"]) for part in zip(*best, strict=True)
        )
        rest = [name for name in data.dims if name != dim]
        return index.transpose(*rest), value.transpose(*rest)

    def _best(
        self, data: xarray.DataArray, dim: str, criterion: str
    ) -> tuple[xarray.DataArray, xarray.DataArray]:
        if self.evaluation_scores.higher_is_better(criterion):
            return data.idxmax(dim, skipna=True), data.max(dim, skipna=True)
        return data.idxmin(dim, skipna=True), data.min(dim, skipna=True)


def check_iteration(value: Any) -> int:
    """Return the number of an iteration as an int.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is negative, or larger than any database takes.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"an iteration is an integer, not {value!r}")
    if number < 0:
        raise ValueError(f"an iteration cannot be negative: {value!r}")
    if number >= 2**63 - 1:
        raise ValueError(f"an iteration has at most 63 bits: {value!r}")
    return number


def _until(scores: Sequence[ValidationIterationScores]) -> int:
    return max((one.iteration + 1 for one in scores), default=0)


def _has_shape(values: Any, shape: Sequence[int]) -> bool:
    if not shape:
        return not isinstance(values, list | tuple)
    return (
        hasattr(values, "__len__")
        and not isinstance(values, str)
        and len(values) == shape[0]
        and all(_has_shape(value, shape[1:]) for value in values)
    )


def _xarray() -> Any:
    return need("xarray", "xarray", "the statistics as an array with names")
