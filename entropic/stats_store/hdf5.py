"""Statistics as HDF5 files: one for each run and kind, which grows at its end."""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from entropic.disk.files import sync_folder
from entropic.disk.journal import HEADER_BYTES, header, opened, read_whole, recover
from entropic.disk.linked_lock import LinkedLock
from entropic.disk.names import check_name, encode_name
from entropic.disk.publish import publish
from entropic.errors import CorruptFileError
from entropic.stats_store.collector import Collected, Collector
from entropic.stats_store.columns import AXES, LABELLED, METRIC, Kind, Scores
from entropic.stats_store.interface import StatsStore, Step
from entropic.stats_store.plans import (
    NO_LABEL,
    ScoresChange,
    TrainingChange,
    number_labels,
)

__all__ = ["FileStatsStore"]

T = TypeVar("T")

SUFFIX = ".h5"
FOLDERS: Mapping[Kind, str] = {
    "training": "training_stats",
    "scores": "validation_scores",
    "metrics": "metrics",
}
CHUNK = 4096  # rows
COLUMNS: Mapping[Kind, Mapping[str, str]] = {
    "training": {"iteration": "i8", "loss": "f8", "time": "f8"},
    "scores": {
        "iteration": "i8", "shape": "", "count": "i8",  # of each validation
        "dataset": "i4", "parameters": "i4", "criterion": "i4", "score": "f8",  # of each score
    },
    "metrics": {"metric": "i4", "iteration": "i8", "value": "f8"},
}  # fmt: skip
DIRECTION = "higher_is_better"
UNKNOWN = -1  # which direction


class FileStatsStore(StatsStore):
    """Keeps statistics as HDF5 files: ``<path>/training_stats/<run>.h5``, ``validation_scores`` and ``metrics``.

    Parameters
    ----------
    path : str or Path
        Of the folder; it is made, with one for each kind.

    Raises
    ------
    NotADirectoryError
        If a file is there.

    Notes
    -----
    Each call is on the disk when it returns, as a whole: whoever is killed, or whose power is cut, leaves what was
    before or all of it. What is appended goes into a journal beside the file first. Readers never wait, and see what
    was written last. Characters that file systems do not take stand percent-encoded in a file's name.

    One at a time writes to a run: who does makes a file ``<run>.h5.lock``, which says on which host, since which boot,
    by which process and since when; HDF5 itself locks nothing. One whose owner has ended is broken at once.

    Between hosts that share a folder, which must have links (NFS has them), a process is not seen: its lock is broken
    when it was there unchanged for a minute, which is thousands of times what writing takes. Who was suspended
    for so long, and wakes up, writes nothing more, unless it was suspended in the few milliseconds in which the
    journal is carried over: then the file may be damaged. A host may see for some seconds what another one has
    replaced, as its caches have it.

    What was logged and is not yet written is known to all stores of the folder in this process; a copy that is
    unpickled in another one has nothing of it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        for folder in FOLDERS.values():
            try:
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise NotADirectoryError(
                    f"{error.filename!r} is a file, where a folder of statistics is wanted: give another path"
                ) from None
        self._collect()

    def _collect(self) -> None:
        # If HDF5 is loaded at exit only, to write what was collected, Python crashes.
        importlib.import_module("h5py")
        self._collector = Collector.of(str(self.path), self._add_metrics)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path = path
        self._collect()

    def __repr__(self) -> str:
        return f"FileStatsStore({str(self.path)!r})"

    @property
    def training_stats(self) -> Path:
        """The folder of the trainings."""
        return self.path / FOLDERS["training"]

    @property
    def validation_scores(self) -> Path:
        """The folder of the scores."""
        return self.path / FOLDERS["scores"]

    # Files

    def _checked(self, run_name: str) -> str:
        encode_name(check_name(run_name), f"{SUFFIX}.journal")  # which has the longest name of its files
        return run_name

    def _file(self, kind: Kind, run_name: str) -> Path:
        return self.path / FOLDERS[kind] / encode_name(run_name, SUFFIX)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[LinkedLock]:
        """Hold the right to write a file, with nothing left to finish."""
        with LinkedLock(path.with_name(f"{path.name}.lock")) as lock:
            recover(path)
            yield lock

    def _read(self, kind: Kind, run_name: str, work: Callable[[Any], T], *, otherwise: T) -> T:
        """Return what ``work(file)`` makes of an open HDF5 file, as it was when it was last written whole."""
        path = self._file(kind, run_name)
        data = read_whole(path)
        if data is None:
            return otherwise
        try:
            return _with_hdf5(io.BytesIO(data), "r", work, path)
        except CorruptFileError:
            raise
        except (OSError, ValueError, RuntimeError, LookupError) as error:  # whatever HDF5 makes of damage
            raise _damaged(path, error) from error

    def _edit(self, kind: Kind, run_name: str, work: Callable[[Any], bool]) -> bool:
        """Let ``work(file)`` change a file that is there, as a whole, unless it returns False."""
        path = self._file(kind, run_name)
        with self._locked(path) as lock:
            if os.path.lexists(path):
                with opened(path) as file:
                    if is_changed := _with_hdf5(file, "r+", work, path):
                        lock.require()
                        file.commit()
                return is_changed
            data = _made(kind, work)
            if data is None:
                return False
            lock.require()
            with publish(path) as part:
                part.path.write_bytes(data)
            return True

    # Trainings

    def _change_training(
        self, run_name: str, plan: Callable[[int], TrainingChange | None]
    ) -> TrainingChange | None:
        change: TrainingChange | None = None

        def work(file: Any) -> bool:
            nonlocal change
            change = plan(_until(file))
            if change is None:
                return False
            rows = change.rows
            if change.merges:
                there = zip(*(file[name][:].tolist() for name in COLUMNS["training"]), strict=True)
                rows = sorted(({one[0]: one for one in there} | {one[0]: one for one in rows}).values())
            if change.merges or change.replaces:
                _empty(file, "training")
            columns = list(zip(*rows, strict=True))
            _append(file, dict(zip(COLUMNS["training"], columns, strict=True)))
            return True

        self._edit("training", run_name, work)
        return change

    def _training(self, run_name: str, step: Step | None) -> Mapping[str, Any]:
        def work(file: Any) -> dict[str, Any]:
            return {name: file[name][:] for name in COLUMNS["training"]}

        columns = self._read("training", run_name, work, otherwise=_empty_arrays(COLUMNS["training"]))
        return {name: column[_chosen(columns["iteration"], step)] for name, column in columns.items()}

    # Validations

    def _change_scores(
        self, run_name: str, plan: Callable[[int], ScoresChange | None]
    ) -> ScoresChange | None:
        change: ScoresChange | None = None

        def work(file: Any) -> bool:
            nonlocal change
            change = plan(_until(file))
            if change is None:
                return False
            kept = None
            if change.merges:
                kept = _taken(file, {one.iteration for one in change.validations})
            if change.replaces or change.merges:
                _empty(file, "scores")
            columns = _as_columns(change, _numbered_axes(file, change))
            if kept is not None:
                columns = _sorted_together(kept, columns)
            _append(file, columns)
            return True

        self._edit("scores", run_name, work)
        return change

    def _scores(self, run_name: str, step: Step | None) -> Scores:
        return self._read("scores", run_name, lambda file: _read_scores(file, step), otherwise=_no_scores())

    def _labels(self, run_name: str) -> tuple[Mapping[str, Mapping[int, str]], Mapping[int, bool | None]]:
        def work(file: Any) -> tuple[Mapping[str, Mapping[int, str]], Mapping[int, bool | None]]:
            directions = enumerate(file[f"labels/{DIRECTION}"][:].tolist())
            known = {number: None if value == UNKNOWN else bool(value) for number, value in directions}
            return _read_labels(file), known

        nothing: tuple[Mapping[str, Mapping[int, str]], Mapping[int, bool | None]] = ({}, {})
        return self._read("scores", run_name, work, otherwise=nothing)

    def _best(
        self, run_name: str, datasets: list[int] | None, criteria: list[int], higher_is_better: bool
    ) -> tuple[int, int, int, int, float] | None:
        import numpy

        columns = self._scores(run_name, None).columns
        is_wanted = numpy.isin(columns["criterion"], criteria) & ~numpy.isnan(columns["score"])
        if datasets is not None:
            is_wanted &= numpy.isin(columns["dataset"], datasets)
        (there,) = numpy.nonzero(is_wanted)
        if not len(there):
            return None
        values = columns["score"][there]
        at = there[values.argmax() if higher_is_better else values.argmin()]  # the first of equal ones
        iteration, *numbers = (int(columns[name][at]) for name in ("iteration", *AXES))
        return (iteration, *numbers, float(columns["score"][at]))  # type: ignore[return-value]

    # Metrics

    def _add_metrics(self, run_name: str, collected: Collected) -> None:
        def work(file: Any) -> bool:
            values = collected()
            names = list(dict.fromkeys(name for name, _ in values))
            numbers = dict(zip(names, _numbered(file, METRIC, names), strict=True))
            _append(
                file,
                {
                    "metric": [numbers[name] for name, _ in values],
                    "iteration": [iteration for _, iteration in values],
                    "value": list(values.values()),
                },
            )
            return bool(values)

        self._edit("metrics", run_name, work)

    def _metrics(self, run_name: str) -> Mapping[str, tuple[Any, Any]]:
        return self._read("metrics", run_name, _read_metrics, otherwise={})

    # Either

    def _delete(self, run_name: str, kind: Kind) -> int:
        def count(file: Any) -> int:
            if kind == "metrics":
                return sum(len(iterations) for iterations, _ in _read_metrics(file).values())
            return len(file["iteration"])

        path = self._file(kind, run_name)
        with self._locked(path) as lock:
            counted = self._read(kind, run_name, count, otherwise=0)
            lock.require()
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        return counted


def _with_hdf5(file: Any, mode: str, work: Callable[[Any], T], path: Path) -> T:
    import h5py

    try:
        with h5py.File(file, mode) as hdf5:
            return work(hdf5)
    except OSError as error:  # nothing of it is written to a disk yet
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CorruptFileError:
    return CorruptFileError(f"{str(path)!r} is no HDF5 file, or is damaged: {error}")


def _made(kind: Kind, work: Callable[[Any], bool]) -> bytes | None:
    """Return a new file, of which *work* makes what it wants; None if it wants none."""
    import h5py

    buffer = io.BytesIO()
    # Never libver="latest": a file of that kind whose writer was killed cannot be opened.
    with h5py.File(buffer, "w", userblock_size=HEADER_BYTES) as file:
        texts = h5py.string_dtype()
        for name, dtype in COLUMNS[kind].items():
            file.create_dataset(
                name, (0,), dtype or texts, maxshape=(None,), chunks=(CHUNK if dtype else 64,)
            )
        for axis in LABELLED[kind]:
            file.create_dataset(f"labels/{axis}", (0,), texts, maxshape=(None,), chunks=(64,))
        if kind == "scores":
            file.create_dataset(f"labels/{DIRECTION}", (0,), "i1", maxshape=(None,), chunks=(64,))
        is_wanted = work(file)
    buffer.seek(0)
    buffer.write(header())
    return buffer.getvalue() if is_wanted else None


def _append(file: Any, columns: Mapping[str, Sequence[Any]]) -> None:
    for name, values in columns.items():
        dataset, count = file[name], len(values)
        if count:
            dataset.resize(len(dataset) + count, axis=0)
            dataset[-count:] = values


def _empty(file: Any, kind: Kind) -> None:
    for name in COLUMNS[kind]:
        file[name].resize(0, axis=0)


def _until(file: Any) -> int:
    numbers = file["iteration"]
    return int(numbers[-1]) + 1 if len(numbers) else 0


def _empty_arrays(dtypes: Mapping[str, str]) -> dict[str, Any]:
    import numpy

    return {name: numpy.empty(0, dtype) for name, dtype in dtypes.items()}


def _chosen(iterations: Any, step: Step | None) -> Any:
    """Return which iterations there are in a subsample."""
    if step is None or not len(iterations):
        return slice(None)
    highest = int(iterations[-1])
    return (iterations % step(highest) == 0) | (iterations == highest)


# Labels


def _read_labels(file: Any) -> dict[str, dict[int, str]]:
    return {axis: dict(enumerate(_texts(file[f"labels/{axis}"]))) for axis in AXES}


def _texts(dataset: Any) -> list[str]:
    return [one.decode() for one in dataset[:]]


def _numbered(file: Any, axis: str, labels: Sequence[str]) -> list[int]:
    """Return the numbers of labels, which are their places; those that have none get one."""
    numbers, added = number_labels(enumerate(_texts(file[f"labels/{axis}"])), labels)
    _append(file, {f"labels/{axis}": [label for _, label in added]})
    return numbers


def _numbered_axes(file: Any, change: ScoresChange) -> list[list[int]]:
    numbers = [_numbered(file, axis, change.labels[axis]) for axis in AXES]
    directions = file[f"labels/{DIRECTION}"]
    missing = len(file["labels/criterion"]) - len(directions)
    _append(file, {f"labels/{DIRECTION}": [UNKNOWN] * missing})
    for number, direction in zip(numbers[-1], change.directions, strict=True):
        if direction is not None:
            directions[number] = direction
    return numbers


# Scores


def _as_columns(change: ScoresChange, numbers: Sequence[Sequence[int]]) -> dict[str, list[Any]]:
    """Return validations as columns; the scores' are as long as all counts together."""
    places = [place for one in change.validations for place in one.places]
    of_axes = {
        axis: [known[place[n]] if place[n] < len(known) else NO_LABEL for place in places]
        for n, (axis, known) in enumerate(zip(AXES, numbers, strict=True))
    }
    return {
        "iteration": [one.iteration for one in change.validations],
        "shape": [json.dumps(one.shape) for one in change.validations],
        "count": [len(one.scores) for one in change.validations],
        **of_axes,
        "score": [score for one in change.validations for score in one.scores],
    }


def _taken(file: Any, but_for: set[int]) -> dict[str, list[Any]]:
    """Return the validations that are there as columns, but for those of some iterations."""
    import numpy

    iterations = file["iteration"][:]
    is_kept = ~numpy.isin(iterations, list(but_for))
    is_kept_score = numpy.repeat(is_kept, file["count"][:])
    columns = {name: file[name][:][is_kept_score].tolist() for name in (*AXES, "score")}
    shapes = [text for text, is_one in zip(_texts(file["shape"]), is_kept, strict=True) if is_one]
    counts = file["count"][:][is_kept].tolist()
    return {"iteration": iterations[is_kept].tolist(), "shape": shapes, "count": counts, **columns}


def _sorted_together(some: Mapping[str, list[Any]], others: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return two lots of validations by ascending iteration."""
    both = {name: [*some[name], *others[name]] for name in some}
    starts = [0]
    for count in both["count"]:
        starts.append(starts[-1] + count)
    order = sorted(range(len(both["iteration"])), key=both["iteration"].__getitem__)
    columns = {name: [both[name][n] for n in order] for name in ("iteration", "shape", "count")}
    for name in (*AXES, "score"):
        columns[name] = [value for n in order for value in both[name][starts[n] : starts[n + 1]]]
    return columns


def _read_scores(file: Any, step: Step | None) -> Scores:
    import numpy

    iterations, counts = file["iteration"][:], file["count"][:]
    is_wanted = numpy.zeros(len(iterations), bool)
    is_wanted[_chosen(iterations, step)] = True
    of_scores = numpy.repeat(is_wanted, counts)
    columns = {name: file[name][:][of_scores] for name in (*AXES, "score")}
    columns["iteration"] = numpy.repeat(iterations, counts)[of_scores]
    shapes = [
        json.loads(text) for text, is_one in zip(_texts(file["shape"]), is_wanted, strict=True) if is_one
    ]
    return Scores(iterations[is_wanted].tolist(), shapes, columns, _read_labels(file))


def _no_scores() -> Scores:
    dtypes = {name: COLUMNS["scores"][name] for name in ("iteration", *AXES, "score")}
    return Scores([], [], _empty_arrays(dtypes), {})


# Metrics


def _read_metrics(file: Any) -> dict[str, tuple[Any, Any]]:
    import numpy

    metric, iteration, value = (file[name][:] for name in COLUMNS["metrics"])
    found = {}
    for number, name in enumerate(_texts(file["labels/metric"])):
        of_metric = metric == number
        # The last of equal ones counts: `unique` finds the first, so from the end.
        iterations, at = numpy.unique(iteration[of_metric][::-1], return_index=True)
        found[name] = (iterations, value[of_metric][::-1][at])
    return found
