"""What is stored of a run as columns: arrays, and what pandas and xarray make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from entropic.extras import need

if TYPE_CHECKING:
    import numpy
    import pandas
    import xarray

__all__ = [
    "AXES",
    "LABELLED",
    "METRIC",
    "Kind",
    "Scores",
    "curves",
    "frame",
    "score_array",
    "score_columns",
    "wide",
]

Kind = Literal["training", "metrics", "scores"]

AXES = ("dataset", "parameters", "criterion")
METRIC = "metric"
LABELLED: Mapping[Kind, Sequence[str]] = {"training": (), "scores": AXES, "metrics": (METRIC,)}
"""By kind, the axes whose numbers have labels: of metrics their names."""

_DIMS = {"dataset": "datasets", "parameters": "parameters", "criterion": "criteria"}


@dataclass
class Scores:
    """The scores of validations, one after the other.

    Attributes
    ----------
    iterations : list of int
        Of each validation.
    shapes : list of list of list of int
        Of each validation: how many scores for each data set and each parameters.
    columns : mapping of str to array
        Of each score: ``iteration``, the number of its ``dataset``, ``parameters`` and ``criterion`` (-1 where it was
        given no label) and ``score``.
    labels : mapping of str to mapping of int to str
        What the numbers mean, by axis.
    """

    iterations: list[int]
    shapes: list[list[list[int]]]
    columns: Mapping[str, Any]
    labels: Mapping[str, Mapping[int, str]]


def wide(metrics: Mapping[str, tuple[Any, Any]]) -> dict[str, numpy.ndarray]:
    """Return curves, each with iterations of its own, as columns over all of the iterations; NaN where one has none."""
    import numpy

    every = [iterations for iterations, _ in metrics.values()]
    union = numpy.unique(numpy.concatenate(every)) if every else numpy.empty(0, "i8")
    columns = {"iteration": union}
    for name, (iterations, values) in metrics.items():
        columns[name] = numpy.full(len(union), numpy.nan)
        columns[name][numpy.searchsorted(union, iterations)] = values
    return columns


def score_columns(scores: Scores) -> dict[str, Any]:
    """Return scores as columns whose labels are text, empty where there is none."""
    import numpy

    columns: dict[str, Any] = {"iteration": scores.columns["iteration"]}
    for axis in AXES:
        labels = scores.labels.get(axis, {})
        texts = numpy.full(max(labels, default=-1) + 2, "", dtype=object)
        for number, label in labels.items():
            texts[number] = label
        columns[axis] = texts[scores.columns[axis]]  # -1 is the last one
    columns["score"] = scores.columns["score"]
    return columns


def frame(columns: Mapping[str, Any], index: str | None) -> pandas.DataFrame:
    """Return columns as a frame.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    made = need("pandas", "frames", "the statistics as a frame").DataFrame(dict(columns))
    return made if index is None else made.set_index(index)


def curves(columns: Mapping[str, Any]) -> xarray.Dataset:
    """Return columns over ``iteration`` as a dataset of the dimension ``iterations``.

    Raises
    ------
    ImportError
        If xarray is not installed.
    """
    values = {name: ("iterations", array) for name, array in columns.items() if name != "iteration"}
    return _xarray().Dataset(values, coords={"iterations": columns["iteration"]})


def score_array(scores: Scores) -> xarray.DataArray:
    """Return scores by iterations, datasets, parameters and criteria; NaN where there is none.

    Raises
    ------
    ValueError
        If some have no labels: they have no place on an axis.
    ImportError
        If xarray is not installed.
    """
    import numpy

    xarray = _xarray()
    places, coordinates = [], {}
    iterations = numpy.asarray(scores.iterations, "i8")
    places.append(numpy.searchsorted(iterations, scores.columns["iteration"]))
    coordinates["iterations"] = iterations
    for axis in AXES:
        numbers, place = numpy.unique(scores.columns[axis], return_inverse=True)
        if len(numbers) and numbers[0] < 0:
            raise ValueError(
                f"some scores were stored without a label of their {axis}, and have no place on an axis: to_numpy and "
                "to_frame give them one below the other"
            )
        places.append(place)
        coordinates[_DIMS[axis]] = _texts(scores.labels, axis, numbers.tolist())
    values = numpy.full([len(one) for one in coordinates.values()], numpy.nan)
    values[tuple(places)] = scores.columns["score"]
    return xarray.DataArray(values, dims=list(coordinates), coords=coordinates)


def _texts(labels: Mapping[str, Mapping[int, str]], axis: str, numbers: Sequence[int]) -> Any:
    import numpy

    return numpy.array([labels[axis][number] for number in numbers], dtype=object)


def _xarray() -> Any:
    return need("xarray", "xarray", "the statistics as arrays with names")
