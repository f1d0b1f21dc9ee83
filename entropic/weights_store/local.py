"""The weights of trainings: a file for each run and number of iterations, and a row that makes it visible.

A file is written whole and synced under a name that was never used, then its row is committed, then the file that the
row had before is removed. What a kill leaves in between a note tells, and it is cleared away when a store is opened.
Which weights were the best is a row that refers to theirs: it cannot point to weights that are gone.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL

from entropic.disk.files import require_folder
from entropic.disk.names import check_name, encode_name
from entropic.disk.notes import Note, Notes
from entropic.disk.publish import Part, publish
from entropic.disk.recorded import read_recorded
from entropic.errors import CorruptFileError, WeightsNotFoundError
from entropic.sql.database import Database, DatabaseLike
from entropic.sql.exchange import Exchange
from entropic.sql.versions import database_uuid, ensure_schema
from entropic.values.state_dicts import EncodedStates, StatesFile, encode_states, save_states
from entropic.weights_store.interface import Weights, WeightsStore
from entropic.weights_store.rows import (
    StoredWeights,
    WeightRows,
    absent,
    already_there,
    new_file_name,
)

__all__ = ["LocalWeightsStore", "WeightsProblem"]

DATABASE = "weights.sqlite3"
NOTES = ".entropic-weights"
EXPORTED = ".json"
LARGEST = 2**63 - 1  # that a column holds


class WeightsProblem(NamedTuple):
    """Weights that cannot be had as they were stored.

    Attributes
    ----------
    run : str
    iteration : int
    problem : str
        What is wrong with their file.
    """

    run: str
    iteration: int
    problem: str


class LocalWeightsStore(WeightsStore):
    """Weights as HDF5 files below a folder, ``<basedir>/<run>/checkpoints/iterations/<iteration>-<letters>.h5``.

    Parameters
    ----------
    basedir : str or Path
        Of all runs.
    database : Database, sqlalchemy.Engine, sqlalchemy.URL or str, optional
        Has the rows. Default: ``weights.sqlite3`` in *basedir*.

    Raises
    ------
    SchemaError
        If the database has tables of another version of entropic.
    NotADirectoryError
        If a file is in the place of *basedir*.

    Notes
    -----
    Safe between threads and processes. A reader gets the weights as they were before or after, whatever is killed when:
    only a row makes a file visible. Inside a block of `Database.transaction` the rows are committed with it, and files
    follow. A database has the weights of one folder, wherever that is mounted. Names are percent-encoded where a file
    system would not take them.
    """

    def __init__(self, basedir: str | Path, database: DatabaseLike | None = None) -> None:
        self.basedir = Path(basedir).expanduser().absolute()
        if database is None:
            require_folder(self.basedir, below=self.basedir)
            database = URL.create("sqlite", database=str(self.basedir / DATABASE))
        self.database = Database.of(database)
        ensure_schema(self.database, [])
        self._rows = WeightRows(self.database.dialect, self._folder)
        notes = Notes(self.basedir / NOTES, database_uuid(self.database))
        self._exchange = Exchange(self.database, notes, self._rows)
        if not self.database.is_in_block:
            self._exchange.recover()

    def __repr__(self) -> str:
        return f"LocalWeightsStore({str(self.basedir)!r}, {self.database!r})"

    # Weights

    def latest_iteration(self, run: Any) -> int | None:
        """Return the highest iteration of a run of which there are weights; None if there are none."""
        return self.database.read(partial(self._rows.latest, name=_name(run)))

    def iterations(self, run: Any) -> list[int]:
        """Return all iterations of a run of which there are weights, ascending."""
        return self.database.read(partial(self._rows.iterations, name=_name(run)))

    def store_weights(self, run: Any, iteration: int, weights: Any = None, *, exist_ok: bool = True) -> None:
        """Store weights; when this returns they survive a power cut.

        Parameters
        ----------
        run : str or object
            Without *weights*, an object with a name, a model and an optimiser.
        iteration : int
            How many iterations were done.
        weights : Weights or mapping, optional
            With `model` and `optimizer`. Default: the state dicts of the run's.
        exist_ok : bool
            Whether they may take the place of those that are there.

        Raises
        ------
        AlreadyExistsError
            If there are some, unless *exist_ok*.
        ResultsDirUnavailableError
            If the database has weights, but not in this folder: it is not mounted, or another one.
        NotADirectoryError
            If a file or a link is in the place of the run's folder. Nothing is stored.
        TypeError
            If there is something in them that is no array, tensor, scalar, dict, list or tuple; or if the iteration is
            no integer. Nothing is stored.
        ValueError
            If the run's name is none, or the iteration is negative.
        """
        name, number = _name(run), _iteration(iteration)
        self._exchange.require_root("weights")
        given = _weights_of(run, weights)
        encoded = encode_states({"model": given.model, "optimizer": given.optimizer})
        # Not in a block, which begins with its first statement: nobody is to wait while the file is written.
        former = None if self.database.is_in_block else self._find(name, number)
        if former is not None and not exist_ok:
            raise already_there(name, number)
        stored, note = self._written(name, number, encoded, [former.file_name] if former else [])
        self._exchange.change(note, partial(self._rows.put, stored=stored, note=note, exist_ok=exist_ok))

    def _written(
        self, name: str, number: int, encoded: EncodedStates, former: list[str]
    ) -> tuple[StoredWeights, Note]:
        """Write a file, and return the row that it is to have and the note that names it and the former one."""
        folder = self._folder(name)
        require_folder(folder, below=self.basedir)

        def save(part: Part) -> None:
            part.size_bytes, part.sha256 = save_states(encoded, str(part.path))

        part, note = self._exchange.write(name, folder / (file := new_file_name(number)), save, former)
        return StoredWeights(name, number, file, part.size_bytes, part.sha256), note

    def retrieve_weights(
        self, run: Any, iteration: int, *, verify: bool = False, lazy: bool = False
    ) -> Weights:
        """Return weights; tensors as such where torch is loaded, else as NumPy's arrays.

        Parameters
        ----------
        verify : bool
            Whether to compare the SHA-256 of the file with what was stored. Its size always is.
        lazy : bool
            Whether to read nothing yet: in the place of each array is a handle with `shape`, `dtype` and `load()`, of
            which ``[...]`` reads a part.

        Raises
        ------
        WeightsNotFoundError
            If there are none, or the file is gone. Also a `FileNotFoundError`.
        CorruptFileError
            If the file is not what was stored.
        ImportError
            If there is a type that NumPy does not have, such as bfloat16, and neither torch is loaded nor ml_dtypes is
            installed.
        """
        name, number = _name(run), _iteration(iteration)
        stored = self._require(name, number)
        while True:
            try:
                return self._read(stored, verify, lazy)
            except FileNotFoundError as error:
                former, stored = stored, self._require(name, number)
                if stored != former:  # they were replaced between the row and the file
                    continue
                raise WeightsNotFoundError(
                    f"the weights of the run {name!r} at iteration {number} are recorded, but "
                    f"{self._gone(stored)}: mount its folder, restore it, or remove the weights"
                ) from error

    def _read(self, stored: StoredWeights, verify: bool, lazy: bool) -> Weights:

        def read(path: str) -> tuple[StatesFile, dict[str, Any]]:
            file = StatesFile(path)
            try:
                return file, file.listed() if lazy else file.read()
            except BaseException:
                file.close()
                raise

        file, states = read_recorded(
            self._path(stored), stored.size_bytes, stored.sha256, read, what="weights", verify=verify
        )
        weights = Weights(states.get("model"), states.get("optimizer"))
        if lazy:
            weights._file = file
        else:
            file.close()
        return weights

    def remove(self, run: Any, iteration: int, *, force: bool = False) -> None:
        """Remove weights.

        Parameters
        ----------
        force : bool
            Whether they may be the best of something, which is forgotten then.

        Raises
        ------
        WeightsNotFoundError
            If there are none. Also a `FileNotFoundError`.
        InUseError
            If they are the best of something, unless *force*; the text says of what.
        """
        name, number = _name(run), _iteration(iteration)
        self._exchange.require_root("weights")
        note = self._exchange.notes.write(name, [self._require(name, number).file_name])
        take = partial(self._rows.take, name=name, number=number, note=note, force=force)
        self._exchange.change(note, take)

    def prune(self, run: Any, *, keep_last: int) -> list[int]:
        """Remove all weights of a run but the last *keep_last*, and those that are the best of something.

        Returns
        -------
        list of int
            The iterations that were removed, ascending.

        Raises
        ------
        ValueError
            If *keep_last* is negative.
        """
        if keep_last < 0:
            raise ValueError(f"keep_last is how many weights stay, 0 or more: {keep_last}")
        name = _name(run)
        old = self.database.read(partial(self._rows.older, name=name, keep_last=keep_last))
        if not old:
            return []
        self._exchange.require_root("weights")
        note = self._exchange.notes.write(name, old.values())
        thin_out = partial(self._rows.thin_out, name=name, keep_last=keep_last, note=note)
        return self._exchange.change(note, thin_out)

    def remove_run(self, run: Any) -> int:
        """Remove all weights of a run, those too that are the best of something; return how many there were."""
        name = _name(run)
        files = self.database.read(partial(self._rows.files, name=name))
        if not files:
            return 0
        self._exchange.require_root("weights")
        note = self._exchange.notes.write(name, files)
        return self._exchange.change(note, partial(self._rows.take_all, name=name, note=note))

    def check(self, *, checksum: bool = False) -> list[WeightsProblem]:
        """Return which weights cannot be had as they were stored, as their file is gone or another one by now.

        Parameters
        ----------
        checksum : bool
            Whether to compare the SHA-256 of each file, which reads all of them; the size always is.

        Raises
        ------
        ResultsDirUnavailableError
            If the database has weights, but not in this folder.
        """
        self._exchange.require_root("weights")
        found = []
        for stored in self.database.read(self._rows.every):
            problem = self._problem_of(stored, checksum)
            # They may have been replaced or removed since the rows were read.
            if problem and self._find(stored.run_name, stored.iteration) == stored:
                found.append(WeightsProblem(stored.run_name, stored.iteration, problem))
        return found

    def _problem_of(self, stored: StoredWeights, checksum: bool) -> str | None:
        path, sha256 = self._path(stored), stored.sha256
        try:
            read_recorded(path, stored.size_bytes, sha256, str, what="weights", verify=checksum)
        except FileNotFoundError:
            return self._gone(stored)
        except CorruptFileError as error:
            return str(error)
        return None

    def _gone(self, stored: StoredWeights) -> str:
        return f"their file {str(self._path(stored))!r} is gone"

    # The best

    def store_best(
        self,
        run: Any,
        iteration: int,
        dataset: Any,
        criterion: str,
        *,
        score: float | None = None,
        higher_is_better: bool = True,
    ) -> bool:
        """Note that weights are the best of a run on a data set by a criterion.

        Parameters
        ----------
        score : float, optional
            With it, only if it is better than that of those which were the best before. NaN is never better.
        higher_is_better : bool
            Which score is the better one.

        Returns
        -------
        bool
            Whether they are the best now.

        Raises
        ------
        WeightsNotFoundError
            If there are no such weights. Also a `FileNotFoundError`.
        """
        score = None if score is None else float(score)
        row = {
            "run_name": _name(run),
            "dataset": _name(dataset),
            "criterion": _name(criterion),
            "iteration": _iteration(iteration),
            "score": score,
        }

        def is_better(former: float) -> bool:
            if score is None:
                return True
            if math.isnan(former):
                return not math.isnan(score)
            return score > former if higher_is_better else score < former

        point = partial(self._rows.point, row=row, is_better=is_better)
        return self.database.write(point, repeatable=True)

    def retrieve_best(self, run: Any, dataset: Any, criterion: str) -> int:
        """Return the iteration of the best weights of a run on a data set by a criterion.

        Raises
        ------
        BestNotFoundError
            If nobody has said which they are. Also a `FileNotFoundError`.
        """
        best = partial(self._rows.best, name=_name(run), dataset=_name(dataset), criterion=_name(criterion))
        return self.database.read(best)

    def export_best(self, run: Any, dataset: Any, criterion: str) -> Path:
        """Write which weights are the best to a file, for programs that look for it as DaCapo's do.

        Returns
        -------
        Path
            ``<basedir>/<run>/checkpoints/<dataset>/<criterion>.json``, which has ``{"iteration": 100}``.

        Raises
        ------
        BestNotFoundError
            If nobody has said which they are.
        NotADirectoryError
            If a file or a link is in the place of a folder.

        Notes
        -----
        It is a copy: when other weights become the best, it stays as it is until it is exported again.
        """
        best = self.retrieve_best(run, dataset, criterion)
        folder = self._folder(_name(run)).parent / encode_name(_name(dataset))
        require_folder(folder, below=self.basedir)
        target = folder / encode_name(_name(criterion), EXPORTED)
        with publish(target, replace=True) as part:
            part.path.write_text(json.dumps({"iteration": best}))
        return target

    def remove_exported(self, run: Any) -> int:
        """Remove what `export_best` has written of a run; return how many files that were."""
        checkpoints, count = self._folder(_name(run)).parent, 0
        for path in checkpoints.glob(f"*/*{EXPORTED}"):
            if not (checkpoints.is_symlink() or path.parent.is_symlink()) and path.is_file():
                path.unlink(missing_ok=True)
                count += 1
        return count

    # Files

    def _find(self, name: str, number: int) -> StoredWeights | None:
        return self.database.read(partial(self._rows.find, name=name, number=number))

    def _require(self, name: str, number: int) -> StoredWeights:
        found = self._find(name, number)
        if found is None:
            raise absent(name, number)
        return found

    def _folder(self, name: str) -> Path:
        return self.basedir / _folder_name(check_name(name)) / "checkpoints" / "iterations"

    def _path(self, stored: StoredWeights) -> Path:
        return self._folder(stored.run_name) / stored.file_name


def _name(given: Any) -> str:
    name = given if isinstance(given, str) or given is None else getattr(given, "name", given)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"a name, or an object that has one, is wanted: {given!r:.200}")
    return check_name(name or "")


def _iteration(given: Any) -> int:
    try:
        number = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"an iteration is an integer, not {given!r:.200} ({type(given).__name__})")
    if not 0 <= number <= LARGEST:
        raise ValueError(f"an iteration is 0 or more, and has at most 63 bits: {number}")
    return number


def _weights_of(run: Any, weights: Any) -> Weights:
    source = run if weights is None else weights
    if isinstance(source, Mapping):
        model, optimizer = source.get("model"), source.get("optimizer")
    else:
        model, optimizer = getattr(source, "model", None), getattr(source, "optimizer", None)
    if model is None:
        raise TypeError(
            f"{source!r:.200} has no model: give the weights, as in store_weights(run, iteration, Weights(model, "
            "optimizer)), or a run that has a model and an optimizer"
        )
    return Weights(_state_of(model), _state_of(optimizer))


def _state_of(part: Any) -> Any:
    return part.state_dict() if hasattr(part, "state_dict") else part


def _folder_name(name: str) -> str:
    try:
        encoded = encode_name(name)
    except ValueError:  # too long for a file system
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    if encoded.lower().startswith(DATABASE):
        return f"%{ord(encoded[0]):02X}{encoded[1:]}"
    return encoded
