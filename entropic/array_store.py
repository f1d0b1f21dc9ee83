"""Where the arrays of a training lie: what it predicted, what came of it, and what it was shown.

Each run has two zarr containers, one for validations and one for snapshots; an identifier says in which of them an
array is, and under which path. What there is can be listed: the containers themselves are the register.
"""

from __future__ import annotations

import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

from entropic.disk.files import require_folder
from entropic.disk.guarded import open_folder, remove_at
from entropic.disk.names import FILE_NAME_BYTES, check_name, is_text
from entropic.disk.replacing import NEW, beside, discard, put, read_unreplaced, recover
from entropic.errors import (
    AlreadyExistsError,
    CorruptFileError,
    InvalidContainerError,
    ResultFileMissingError,
)
from entropic.extras import need
from entropic.process.logs import get_logger
from entropic.values.array_digests import differs_from_fill, digest_of, is_digest_of, little_endian
from entropic.values.untrusted_zarr import require_plain_codecs
from entropic.values.zarr_folders import (
    METADATA,
    arrays_below,
    is_array,
    is_group,
    may_be_array,
    require_groups,
)

if TYPE_CHECKING:
    import numpy

__all__ = [
    "ArrayRecord",
    "ArrayStore",
    "LocalArrayIdentifier",
    "LocalArrayStore",
    "LocalContainerIdentifier",
]

log = get_logger(__name__)

SUFFIX = ".zarr"
VALIDATION = f"validation{SUFFIX}"
SNAPSHOT = f"snapshot{SUFFIX}"
_DIGEST = "sha256"  # attribute of an array
_OWN = ".entropic-"  # what is being written begins with it
_TRIES, _PAUSE_S = 100, 0.02
_SHOWN = 3  # arrays of a group that an error names
_RESERVED = {METADATA, ".zarray", ".zgroup", ".zattrs", ".zmetadata"}

# Where in a container an array is, and what that says of it.
_PATHS = {
    VALIDATION: (
        re.compile(r"(?P<iteration>\d+)/(?P<dataset>.+)/(?P<role>prediction)"),
        re.compile(r"(?P<iteration>\d+)/(?P<dataset>.+?)/(?P<role>output)/(?P<parameters>.+)"),
        re.compile(r"inputs/(?:(?P<dataset>.+)/)?(?P<role>raw|gt)"),
    ),
    SNAPSHOT: (),
}
_REST = {VALIDATION: "best", SNAPSHOT: "snapshot"}


@dataclass(frozen=True)
class LocalArrayIdentifier:
    """Which array: a container, and the path in it."""

    container: Path
    dataset: str


@dataclass(frozen=True)
class LocalContainerIdentifier:
    """Which container."""

    container: Path

    def array_identifier(self, dataset: str) -> LocalArrayIdentifier:
        """Return the identifier of an array in it."""
        return LocalArrayIdentifier(self.container, dataset)


@dataclass(frozen=True)
class ArrayRecord:
    """An array that there is.

    Attributes
    ----------
    identifier : LocalArrayIdentifier
    run : str
    role : {"prediction", "output", "raw", "gt", "best", "snapshot"}
    iteration : int or None
        How many iterations were done before, of a prediction or output.
    dataset : str or None
        The data set, or the index of an input; of the best arrays and of snapshots the path.
    parameters : str or None
        Of the post-processing that an output is of.
    shape : tuple of int
    dtype : str
    digest : str or None
        SHA-256 of the values, in C order, of what `LocalArrayStore.store_array` wrote.
    """

    identifier: LocalArrayIdentifier
    run: str
    role: str
    iteration: int | None
    dataset: str | None
    parameters: str | None
    shape: tuple[int, ...]
    dtype: str
    digest: str | None


class ArrayStore(ABC):
    """Says where arrays are."""

    @abstractmethod
    def validation_prediction_array(
        self, run_name: str, iteration: int, dataset: Any
    ) -> LocalArrayIdentifier:
        """Return where the prediction of a validation is."""

    @abstractmethod
    def validation_output_array(
        self, run_name: str, iteration: int, parameters: Any, dataset: Any
    ) -> LocalArrayIdentifier:
        """Return where the output of a validation is, after the post-processing with these parameters."""

    @abstractmethod
    def validation_input_arrays(
        self, run_name: str, index: str | None = None
    ) -> tuple[LocalArrayIdentifier, LocalArrayIdentifier]:
        """Return where the raw data and the ground truth of validations are."""

    @abstractmethod
    def best_validation_array(
        self, run_name: str, criterion: str, index: str | None = None
    ) -> LocalArrayIdentifier:
        """Return where the output is that was best by a criterion."""

    @abstractmethod
    def snapshot_container(self, run_name: str) -> LocalContainerIdentifier:
        """Return where snapshots of a training are."""

    @abstractmethod
    def validation_container(self, run_name: str) -> LocalContainerIdentifier:
        """Return where all arrays of validations are."""

    @abstractmethod
    def remove(self, array_identifier: LocalArrayIdentifier) -> None:
        """Remove an array, or all below its path."""


class LocalArrayStore(ArrayStore):
    """Arrays in zarr containers: ``<basedir>/<run>/validation.zarr`` and ``snapshot.zarr``.

    Parameters
    ----------
    basedir : str or Path

    Notes
    -----
    To say where an array is touches no file, and an identifier of what is not there is no error. A data set, or
    parameters, may be any object: its ``str()`` is part of the path. Arrays are not part of a transaction: write them
    first, and record in it that they are there. One is moved to its place when all of it is written: what fails, or is
    killed, leaves what was there, and perhaps a folder beside the container whose name begins with ``.entropic-``. The
    next call that writes, removes or lists arrays of the run removes it, once its process has ended; where nothing
    tells that, as of another host, a week after its last change. Where the system cannot exchange two folders at once,
    as on NFS, the former array may lie in it after a kill: the next call brings that back.

    Arrays are not synced: after a power cut `retrieve_array` with *verify* tells whether one is whole. Values are kept
    in little-endian order, and come back so.
    """

    def __init__(self, basedir: str | Path) -> None:
        self.basedir = Path(basedir).expanduser().absolute()

    def __repr__(self) -> str:
        return f"LocalArrayStore({str(self.basedir)!r})"

    def validation_prediction_array(
        self, run_name: str, iteration: int, dataset: Any
    ) -> LocalArrayIdentifier:
        """Return where the prediction of a validation is: ``{iteration}/{dataset}/prediction``."""
        return self._validation(run_name, f"{int(iteration)}/{dataset}/prediction")

    def validation_output_array(
        self, run_name: str, iteration: int, parameters: Any, dataset: Any
    ) -> LocalArrayIdentifier:
        """Return where the output of a validation is: ``{iteration}/{dataset}/output/{parameters}``."""
        return self._validation(run_name, f"{int(iteration)}/{dataset}/output/{parameters}")

    def validation_input_arrays(
        self, run_name: str, index: str | None = None
    ) -> tuple[LocalArrayIdentifier, LocalArrayIdentifier]:
        """Return where raw data and ground truth are: ``inputs/raw`` and ``inputs/gt``, or ``inputs/{index}/…``."""
        path = "inputs" if index is None else f"inputs/{index}"
        return self._validation(run_name, f"{path}/raw"), self._validation(run_name, f"{path}/gt")

    def best_validation_array(
        self, run_name: str, criterion: str, index: str | None = None
    ) -> LocalArrayIdentifier:
        """Return where the best output is: ``{criterion}``, or ``{index}/{criterion}``."""
        return self._validation(run_name, criterion if index is None else f"{index}/{criterion}")

    def snapshot_container(self, run_name: str) -> LocalContainerIdentifier:
        """Return where snapshots of a training are: ``<basedir>/<run>/snapshot.zarr``."""
        return LocalContainerIdentifier(self._run(run_name) / SNAPSHOT)

    def validation_container(self, run_name: str) -> LocalContainerIdentifier:
        """Return where all arrays of validations are: ``<basedir>/<run>/validation.zarr``."""
        return LocalContainerIdentifier(self._run(run_name) / VALIDATION)

    def _run(self, run_name: str) -> Path:
        return self.basedir / check_name(run_name)

    def _validation(self, run_name: str, path: str) -> LocalArrayIdentifier:
        return self.validation_container(run_name).array_identifier(check_path(path))

    def store_array(
        self, array_identifier: LocalArrayIdentifier, values: Any, *, overwrite: bool = False, **options: Any
    ) -> Any:
        """Write an array, and note the digest of its values.

        Parameters
        ----------
        values : array
            What `numpy.asarray` takes.
        overwrite : bool
            Whether one that is there gives way.
        **options
            For `zarr.create_array`, as ``chunks=(64, 64, 64)``. With a codec that keeps values only nearly, what comes
            back does not have the digest.

        Returns
        -------
        zarr.Array

        Raises
        ------
        AlreadyExistsError
            If there is one already, unless *overwrite*. Or, whatever is said, if there is a group with others, a link
            or a file, or if it would lie below another array.
        ValueError
            If the path would leave the container, or zarr or a file system has no place for it.
        InvalidContainerError
            If it is no container below the base directory.
        NotADirectoryError
            If a file is in the place of the container, or of a folder above it.
        TypeError
            If *values* are masked, or of a type that zarr has none for.
        ImportError
            If zarr is not installed.
        """
        import numpy

        if isinstance(values, numpy.ma.MaskedArray):
            raise TypeError(
                f"{array_identifier} cannot be stored: the mask of a masked array would be lost. Give "
                "values.filled(...), or the mask as an array of its own"
            )
        zarr, values = self._zarr(), little_endian(numpy.asarray(values))
        container, path = self._checked(array_identifier)
        require_folder(container, below=container)
        recover(container.parent)
        allow = partial(_require_place, array_identifier, container, path, overwrite)
        allow()
        above, _, _ = path.rpartition("/")
        # Beside the container: who lists that is not to find it.
        with beside(container.parent, f"{container.name}/{path}") as own:
            version = require_groups(zarr, _groups(container, above), own / "group")
            allow()  # again: one of them may have become an array meanwhile, and now none can
            # In a container of the former format none of another would be listed.
            _write(zarr, own / NEW, values, {"zarr_format": version} | options)
            put(own, f"{container.name}/{path}", allow)
        return self._opened(array_identifier, "r+")

    def open(self, array_identifier: LocalArrayIdentifier, mode: str = "r") -> Any:
        """Return an array as `zarr.Array`, of which only what is asked for is read.

        If it is replaced later, what is read then is the new one's, or nobody's: `retrieve_array` sees to that.

        Parameters
        ----------
        mode : {"r", "r+"}

        Raises
        ------
        ResultFileMissingError
            If it is not there.
        DecodeError
            If reading it would unpickle.
        ValueError
            If *mode* is another one, of which zarr's "w" would remove the array.
        """
        if mode not in {"r", "r+"}:
            raise ValueError(
                f"an array is opened with the mode 'r' or 'r+', not {mode!r}: to put another one in its place, call "
                "store_array with overwrite=True"
            )
        array = self._opened(array_identifier, mode)
        container, path = self._checked(array_identifier)
        require_plain_codecs(array, str(container / path))
        return array

    def _opened(self, identifier: LocalArrayIdentifier, mode: str) -> Any:
        """Return an array that is there, by now or when it has been replaced, perhaps once more while it is opened."""
        zarr = self._zarr()
        for left in reversed(range(_TRIES)):
            container, path = self._there(identifier)
            try:
                return zarr.open_array(container, path=path, mode=mode)
            except FileNotFoundError:
                is_damaged = (container / path).is_dir() and not is_array(container / path)
                if is_damaged or not left:
                    raise
        raise RuntimeError("unreachable")

    def _there(self, identifier: LocalArrayIdentifier) -> tuple[Path, str]:
        """Return container and path of an array that is there, by now or when it has been replaced."""
        container, path = self._checked(identifier)
        for _ in range(_TRIES):
            if (container / path).is_dir():
                break
            if not recover(container.parent):
                break
            sleep(_PAUSE_S)
        if not (container / path).is_dir() or is_group(container / path):
            raise ResultFileMissingError(f"there is no array {identifier}")
        return container, path

    def retrieve_array(
        self, array_identifier: LocalArrayIdentifier, *, verify: bool = False
    ) -> numpy.ndarray:
        """Return the values of an array.

        Parameters
        ----------
        verify : bool
            Whether to compare them with the digest that was noted.

        Raises
        ------
        ResultFileMissingError
            If it is not there, or no digest was noted that it could be compared with.
        CorruptFileError
            If it is not what was written.
        ResultFileError
            If it was replaced again and again while it was read.

        Notes
        -----
        If it is replaced meanwhile, it is read again: the values are those of one call of `store_array`.
        """
        container, path = self._checked(array_identifier)
        values, noted = read_unreplaced(container / path, partial(self._values, array_identifier))
        if verify:
            if noted is None:
                raise ResultFileMissingError(f"there is no digest to compare {array_identifier} with")
            if not is_digest_of(values, noted):
                raise CorruptFileError(
                    f"{array_identifier} is not what was written: restore it, or compute it again"
                )
        return values

    def _values(self, identifier: LocalArrayIdentifier) -> tuple[numpy.ndarray, Any]:
        import numpy

        array = self.open(identifier)
        # Of no dimensions zarr gives a scalar, and a text in it is no longer filled up to its length.
        return numpy.asarray(array[...], array.dtype), array.attrs.get(_DIGEST)

    def arrays(self, run_name: str | None = None) -> Iterator[ArrayRecord]:
        """Yield what there is, of one run or of all, by run, container and path; what is no container is a warning.

        Raises
        ------
        ImportError
            If zarr is not installed.
        """
        zarr = self._zarr()
        for container in self._containers(run_name):
            recover(container.parent)
            run = container.parent.relative_to(self.basedir).as_posix()
            for path, array in _members(zarr, container):
                yield _record(LocalArrayIdentifier(container, path), run, array)

    def _containers(self, run_name: str | None) -> list[Path]:
        if run_name is not None:
            found = [self._run(run_name) / name for name in _PATHS]
        else:
            found = []
            for above, folders, _ in os.walk(self.basedir):
                found += [Path(above, name) for name in folders if name in _PATHS]
                folders[:] = [name for name in folders if not name.endswith(SUFFIX)]
        # Not of Path's: a run whose name is too long for a folder has no arrays, which is no error.
        return sorted(path for path in found if os.path.isdir(path) and not os.path.islink(path))

    def remove(self, array_identifier: LocalArrayIdentifier) -> None:
        """Remove an array, or all below its path; what is not there is a warning, and so is a file, which stays.

        Raises
        ------
        InvalidContainerError
            If the container is none of zarr's, or not below the base directory. Also a `ValueError`.
        ValueError
            If the path is empty, absolute, or leads out of the container.
        """
        container, path = self._checked(array_identifier)
        recover(container.parent)
        target = container / path
        if not os.path.lexists(target):
            log.warning("%s is not there, so it was not removed", array_identifier)
        elif target.is_symlink() or not target.is_dir():
            log.warning("%s is a link or a file, and no array: it was not removed", target)
        else:
            discard(container.parent, f"{container.name}/{path}")

    def remove_run(self, run_name: str) -> int:
        """Remove all arrays of a run, and return how many containers there were.

        Raises
        ------
        ValueError
            If it is no name of a run.
        """
        found = self._containers(run_name)
        for container in found:
            discard(container.parent, container.name)
            with open_folder(container.parent) as folder:
                for name in os.listdir(folder):
                    if name.startswith(_OWN):
                        remove_at(name, folder)
        return len(found)

    def _checked(self, identifier: LocalArrayIdentifier) -> tuple[Path, str]:
        """Return container and path of an identifier, which anybody may have made."""
        if not isinstance(identifier, LocalArrayIdentifier):
            raise TypeError(
                f"an array is named by a LocalArrayIdentifier, as snapshot_container(run).array_identifier(path) gives "
                f"one, not by {identifier!r:.200}"
            )
        container = Path(identifier.container)
        if container.suffix != SUFFIX:
            raise InvalidContainerError(
                f"the path of the container {str(container)!r} does not end with {SUFFIX!r}: nothing was done, so that "
                "no data are lost"
            )
        inside = container.absolute()
        real, base = Path(os.path.realpath(inside.parent)), Path(os.path.realpath(self.basedir))
        if inside.is_symlink() or ".." in inside.parts or not real.is_relative_to(base):
            raise InvalidContainerError(
                f"the container {str(container)!r} is a link, or not below {str(self.basedir)!r}: nothing was done"
            )
        return inside, check_path(identifier.dataset)

    def _zarr(self) -> Any:
        return need("zarr", "arrays", "an array store")


def _members(zarr: Any, container: Path) -> Iterator[tuple[str, Any]]:
    if not is_group(container):
        log.warning("%s cannot be listed, and is left out: it is no group of zarr's", container)
        return
    for path in sorted(arrays_below(container, may_be_array)):
        try:
            with warnings.catch_warnings(action="ignore"):  # of types that other releases may read otherwise
                array = zarr.open_array(container, path=path, mode="r")
        except (OSError, ValueError, TypeError, LookupError) as error:
            log.warning("%s cannot be listed, and is left out: %s", container / path, error)
        else:
            yield path, array


def _write(zarr: Any, folder: Path, values: Any, options: dict[str, Any]) -> None:
    array = zarr.create_array(folder, shape=values.shape, dtype=values.dtype, **options)
    if values.dtype.names or values.dtype.kind != array.dtype.kind:
        # What comes back has no gaps between fields, and of older releases no text of fixed length.
        values = values.astype(array.dtype)
    if differs_from_fill(values, array.fill_value):
        config = options.get("config") or {}
        every = {"write_empty_chunks": True}
        options = options | {
            "config": config | every if isinstance(config, dict) else replace(config, **every)
        }
        array = zarr.create_array(folder, shape=values.shape, dtype=values.dtype, overwrite=True, **options)
    array[...] = values
    array.attrs[_DIGEST] = digest_of(values)
    zarr.open_array(folder, mode="r")  # of some types it writes what it cannot read


def _require_place(identifier: LocalArrayIdentifier, container: Path, path: str, overwrite: bool) -> None:
    """Raise `AlreadyExistsError` if an array may not be put where an identifier says."""
    target, (above, _, _) = container / path, path.rpartition("/")
    if (array := next(filter(is_array, _groups(container, above)), None)) is not None:
        raise AlreadyExistsError(
            f"{identifier} would lie below {str(array)!r}, which is an array itself: give it a name or parameters "
            "without '/', or remove that one"
        )
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise AlreadyExistsError(f"there is a link or a file in the place of {identifier}: it was left alone")
    if is_group(target):
        names = list(islice(arrays_below(target), _SHOWN + 1))
        listed = ", ".join(map(repr, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
        raise AlreadyExistsError(
            f"in the place of {identifier} is a group, and in it {f'the arrays {listed}' if names else 'no array'}: it "
            "was left alone. Give another name, or take all of it away first with remove"
        )
    if not overwrite:
        raise AlreadyExistsError(f"{identifier} is there already: to replace it, say overwrite=True")


def _groups(container: Path, path: str) -> list[Path]:
    """Return the folders of a container and of the groups of *path* in it."""
    parts = path.split("/") if path else []
    return [container.joinpath(*parts[:number]) for number in range(len(parts) + 1)]


def check_path(path: str) -> str:
    """Return the path of an array if it stays in its container.

    Raises
    ------
    ValueError
        If it is empty or absolute, or has a part that is empty, ``.`` or ``..``, a name of zarr's own or too long for
        a file system, a NUL or half of a surrogate pair.
    """
    parts = path.split("/")
    if not is_text(path) or path.startswith("/") or {"", ".", ".."} & set(parts):
        raise ValueError(
            f"the path of an array in its container is relative, without empty parts, '.' and '..': {path!r:.300}"
        )
    if reserved := _RESERVED.intersection(parts):
        raise ValueError(
            f"the path of an array has no part {min(reserved)!r}, as zarr calls a file of its own: give another name "
            f"instead of {path!r:.300}"
        )
    if long := [part for part in parts if len(part.encode("utf-8", "surrogatepass")) > FILE_NAME_BYTES]:
        raise ValueError(
            f"the path of an array has parts of at most {FILE_NAME_BYTES} bytes, as file systems do, and "
            f"{long[0]!r:.100}… is longer: give a shorter name, or parameters that have one"
        )
    return path


def _record(identifier: LocalArrayIdentifier, run: str, array: Any) -> ArrayRecord:
    name = identifier.container.name
    said = next((m.groupdict() for p in _PATHS[name] if (m := p.fullmatch(identifier.dataset))), None)
    if said is None:
        said = {"role": _REST[name], "dataset": identifier.dataset}
    iteration = said.get("iteration")
    return ArrayRecord(
        identifier,
        run,
        str(said["role"]),
        None if iteration is None else int(iteration),
        said.get("dataset"),
        said.get("parameters"),
        tuple(array.shape),
        str(array.dtype),
        array.attrs.get(_DIGEST),
    )
