"""`memoize`: a function becomes a table, and its return values become files.

The function's signature is the model, and a `Store` does the rest: keys, claims, files and sweeps are the Store's. What
is here is the way from a call to parameters, from a returned value to a file, and back. The results of a function are
kept under its module and qualified name, in a table and a folder of its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload
from uuid import uuid4
from weakref import WeakValueDictionary

from sqlalchemy import URL, ColumnElement

from entropic.disk.names import safe_name
from entropic.display.hints import did_you_mean
from entropic.errors import CorruptFileError, ParameterError, ResultFileMissingError
from entropic.functions.filling import fill_outputs, warn_of_unfilled
from entropic.functions.places import located
from entropic.functions.returned import columns_of, outputs_in
from entropic.functions.runner import CallRunner, by_name, named
from entropic.functions.signatures import (
    Arguments,
    classes_in,
    derive_model,
    error_of,
    kinds_of,
    require_function,
    returned_classes,
    table_name_of,
)
from entropic.functions.sources import Source, remember_source, require_source, source_of
from entropic.model.base import RECORDED, Base
from entropic.model.parameters import Parameters
from entropic.model.selection import NOT_GIVEN
from entropic.process.patience import checked_lease, checked_timeout
from entropic.process.provenance import code_label
from entropic.sql.database import Database, DatabaseLike
from entropic.store import Store
from entropic.sweeps.grids import ParameterSets, parameter_sets
from entropic.sweeps.result import SweepOptions, SweepResult
from entropic.values.codecs import adopt, can_save, registered_codecs
from entropic.values.documents import know
from entropic.values.hashing import adopt_hashers, hashers_of
from entropic.values.row_texts import INLINE_BYTES

if TYPE_CHECKING:
    import pandas

__all__ = ["MemoizedFunction", "Memoizer", "memoize"]

P = ParamSpec("P")
R = TypeVar("R")
Q = ParamSpec("Q")
S = TypeVar("S")

MOST_INLINE_BYTES = 1_000_000  # each row and each line of a sidecar is read as a whole

# Those of this process, by uid.
_known: WeakValueDictionary[str, MemoizedFunction[..., Any]] = WeakValueDictionary()
_databases: WeakValueDictionary[URL, Database] = WeakValueDictionary()
_SWEEP_OPTIONS = [one.name for one in fields(SweepOptions) if one.name != "patience"]
_pickling: ContextVar[frozenset[str]] = ContextVar("_pickling", default=frozenset())


@dataclass(frozen=True)
class Memoizer:
    """The decorator that `memoize` returns when it is called with options; one may decorate many functions.

    Called with options again, it returns another one that has both.
    """

    results_dir: str | Path | None = None
    db_url: DatabaseLike | None = field(default=None, repr=False)  # a password may be in it
    table: str | None = None
    ignore: Iterable[str] = ()
    outputs: Mapping[str, Any] | None = None
    inline_bytes: int = INLINE_BYTES
    lease_s: float | None = None
    wait_timeout_s: float | None = None

    def __post_init__(self) -> None:
        ignore = (self.ignore,) if isinstance(self.ignore, str) else tuple(self.ignore)  # used more than once
        object.__setattr__(self, "ignore", ignore)
        outputs: Any = self.outputs
        if outputs is not None and not isinstance(outputs, Mapping):
            first = outputs if isinstance(outputs, str) else next(iter(outputs), "rmse")
            raise TypeError(
                f"outputs= says of what type each column is, as in outputs={{{first!r}: float}}, not {outputs!r}"
            )
        size: Any = self.inline_bytes
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MOST_INLINE_BYTES:
            raise ValueError(
                f"inline_bytes= is how large a value in the row may be, from 0, for none, to {MOST_INLINE_BYTES} bytes "
                f"of JSON, not {size!r}"
            )
        if self.lease_s is not None:
            checked_lease(self.lease_s)
        checked_timeout(self.wait_timeout_s)

    @overload
    def __call__(self, function: Callable[Q, S], /) -> MemoizedFunction[Q, S]: ...

    @overload
    def __call__(self, function: None = None, /, **options: Any) -> Memoizer: ...

    def __call__(self, function: Callable[Q, S] | None = None, /, **options: Any) -> Any:
        """Memoize *function*, or add *options*."""
        _require_options(options)
        memoizer = replace(self, **options) if options else self
        return memoizer if function is None else MemoizedFunction(function, memoizer)


class MemoizedFunction(Generic[P, R]):
    """A function whose calls are kept: `memoize` makes it.

    Attributes
    ----------
    model : type
        Subclass of `entropic.Base`, whose columns are the parameters and outputs, such as ``fit.model.rmse``.

    Notes
    -----
    The database is opened by the first call, not by the decoration. Safe to share between threads, and usable after a
    fork. It pickles, with cloudpickle also where it was defined in a script or a notebook, and connects where it is
    used.
    """

    def __init__(self, function: Callable[P, R], options: Memoizer, uid: str | None = None) -> None:
        if uid is None:  # in the process where it was made
            require_function(function)
        kinds = kinds_of(function, options.ignore)
        _require_storable(function)
        know(classes_in(kind.annotation for kind in kinds.values()))  # which it may well return
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        signature = f"{function.__name__}{inspect.signature(function)}"
        self.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{signature}\n{_METHODS}".lstrip()
        self._name: str = function.__qualname__
        self._uid = uid or uuid4().hex
        _known[self._uid] = self
        self.table = options.table or table_name_of(function)
        safe_name(self.table)
        # Now, not at the first call: the working directory may be another one then.
        places = located(options.db_url, options.results_dir, options.lease_s, options.wait_timeout_s)
        self._database = _shared(places.db_url)
        self._places = places
        self.results_dir = places.results_dir / self.table
        self._options = replace(
            options,
            db_url=self._database,
            table=self.table,
            results_dir=places.results_dir,
            lease_s=places.lease_s,
            wait_timeout_s=places.wait_timeout_s,
        )
        columns = columns_of(function, inspect.signature(function).parameters, options.outputs)
        outputs = {column.name: kind for column, kind in columns.items()}
        self.model: type[Any] = derive_model(function, kinds, table=self.table, outputs=outputs)
        Parameters(self.model, self._database.url.get_dialect()())  # which refuses a default that is no value
        self._arguments = Arguments(function, kinds)
        self.runner = CallRunner(function, self._arguments, tuple(columns), options.inline_bytes)
        self._store: Store[Base] | None = None

    def __repr__(self) -> str:
        return f"<memoized {self._name}, in {str(self.results_dir)!r} and {self._database!r}>"

    @property
    def store(self) -> Store[Base]:
        """The `Store` of the function's calls; opened at first use.

        Raises
        ------
        SchemaError
            If the signature changed by more than new parameters with defaults, the table is that of another function of
            this name, or the library's tables are of another version.
        ResultsDirUnavailableError
            If the table is new and the folder is another table's.
        """
        if self._store is None:
            # Without a lock, which a fork might find held: two threads may open two, and one of them is kept.
            self._store = self._opened()
        return self._store

    def _opened(self) -> Store[Base]:
        self._places.refuse_elsewhere(self._database, self.table, self._name)
        source = self._source()
        if source is not None:
            require_source(self._database, self.table, source, self._name)
        store = Store(
            self.runner,
            self.model,
            self.results_dir,
            "",
            self._database,
            lease_s=self._places.lease_s,
            wait_timeout_s=self._places.wait_timeout_s,
        )
        if source is not None:
            remember_source(self._database, self.table, source)
        return store

    def _source(self) -> Source | None:
        return source_of(self.__wrapped__, code_label(self.runner))

    def adopt_code(self) -> None:
        """Say that the results in the table are this function's, although it was moved and changed at once.

        A function is known by the file that defines it, or by its body; one with another file and another body is
        taken for another function of the same name, and refused.
        """
        if (source := self._source()) is not None:
            remember_source(self._database, self.table, source)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what the function returns for these arguments; run it if that is not known.

        Raises
        ------
        TypeError
            If the arguments do not fit the signature; or if there is no way to store what the function returned.
        ParameterError
            If a value does not fit the parameter's type. Nothing was run.
        CorruptFileError
            If the result was damaged, and cannot be read.
        Exception
            Whatever the function raises, and whatever `Store.run_or_retrieve` does.

        Notes
        -----
        The value is read from the row or the result file also when the function has just run, so that every call
        returns the same.
        """
        find = partial(self.store.run_or_retrieve, self._arguments.bind(args, kwargs))
        return cast("R", _loaded(find(), find))

    def run(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function even if the result is known, replace that, and return the new one."""
        params = self._arguments.bind(args, kwargs)
        return cast("R", _loaded(self.store.run(params), partial(self.store.run_or_retrieve, params)))

    def retrieve(self, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the result if it is known, else None; nothing is run.

        Of a function that may return None, ``store.retrieve`` tells whether it did: it returns the record.
        """
        find = partial(self.store.retrieve, self._arguments.bind(args, kwargs))
        return cast("R | None", _loaded(find(), find))

    def record(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Return the record of a call: its parameters, outputs and result; run the function if there is none.

        ``record.load()`` gives the value, ``record.load(verify=True)`` only if it is what was written, byte for byte.
        """
        return self.store.run_or_retrieve(self._arguments.bind(args, kwargs))

    def sweep(
        self, params: ParameterSets = NOT_GIVEN, client: Any = None, **options: Any
    ) -> SweepResult[Any]:
        """Run or retrieve a record for each of *params*, dicts of arguments by name.

        Parameters
        ----------
        params : iterable of mapping, dict of lists, or frame
            Such as `expand_grid` makes. Arguments with a default may be left out. A dict of lists is a grid; a frame
            is taken row by row; other values are arguments of a function that has one parameter.
        client : distributed.Client, optional
            A Dask cluster whose workers see the results folder.
        **options
            As for `Store.sweep`: ``workers=``, ``executor=``, ``on_error=``, ``retries=`` and the others.

        Returns
        -------
        SweepResult
            Records in input order; ``[record.load() for record in result]`` are the values.

        Raises
        ------
        TypeError
            If the parameters are given by keyword, or there is no such option. Otherwise as `Store.sweep`.
        """
        unknown = [name for name in options if name not in _SWEEP_OPTIONS]
        if params is NOT_GIVEN or unknown:
            raise self._misunderstood(unknown)
        return self.store.sweep(self._bound(params), client, **options)

    def _misunderstood(self, unknown: list[str]) -> TypeError:
        """Return the error of a sweep that was called like the function, or with an option that there is not."""
        names = self._arguments.names
        if unknown and unknown[0] not in names:
            hint = did_you_mean(unknown[0], _SWEEP_OPTIONS) or "."
            return TypeError(f"sweep has no option {unknown[0]!r}{hint} It has: {', '.join(_SWEEP_OPTIONS)}.")
        name = next(iter([*unknown, *names]), "name")
        return TypeError(
            f"{self._name}.sweep takes the parameter sets first, not by keyword: a dict of lists for every "
            f"combination, as in sweep({{{name!r}: [...]}}), or a list of dicts, as in sweep([{{{name!r}: ...}}, ...])"
        )

    def _bound(self, params: ParameterSets) -> Iterable[dict[str, Any]]:
        for number, one in enumerate(parameter_sets(params, self._arguments.names)):
            try:
                yield self._arguments.bind_named(one)
            except ParameterError as error:
                error.add_note(f"in parameter set {number} of the sweep: {one!r:.300}")
                raise

    def records(
        self,
        /,
        *where: ColumnElement[bool],
        order_by: Any = NOT_GIVEN,
        limit: int | None = NOT_GIVEN,
        **equals: Any,
    ) -> list[Any]:
        """Return the records that meet all conditions, as `Store.records` does; ``self.model`` has the columns."""
        return self.store.records(*where, order_by=order_by, limit=limit, **equals)

    def to_frame(
        self, /, *where: ColumnElement[bool], bookkeeping: bool | None = NOT_GIVEN, **equals: Any
    ) -> pandas.DataFrame:
        """Return records as a `pandas.DataFrame`, as `Store.to_frame` does: parameters, and what was returned.

        Conditions, ``order_by`` and ``limit`` as for `records`.
        Where results are older than the columns of what is returned, a WARNING names `fill_columns`.
        """
        frame = self.store.to_frame(*where, bookkeeping=bookkeeping, **equals)
        warn_of_unfilled(self.store._table, frame, f"{self._name}.fill_columns()")
        return frame

    def fill_columns(self) -> int:
        """Fill the columns of what is returned in rows that are older than they, and return how many were.

        The results are read for it; nothing runs. One that is gone or damaged is left alone, with a WARNING.

        Notes
        -----
        Safe between processes: a row that is made anew meanwhile keeps its own.
        """
        return fill_outputs(self.store._table, lambda value: outputs_in(value, self.runner.columns))

    def delete(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call, its file too, and return whether there was one."""
        return self.store.delete(self._arguments.bind(args, kwargs), remove_file=True)

    def clear(self) -> int:
        """Forget every result of the function, files too, and return how many there were.

        Files that were registered stay where they are. What runs just now is stored all the same.

        Notes
        -----
        Safe between processes: a result that another one deletes meanwhile is not counted.
        """
        count = 0
        for record in self.store.records():
            is_own = record.result_file is None or Path(record.result_file).parent == self.results_dir
            count += self.store.delete(hash=record.id, remove_file=is_own)
        return count

    def _registered(self) -> tuple[Any, ...]:
        """Return what was registered for the function's values, which another process may not know."""
        kinds = kinds_of(self.__wrapped__, self._options.ignore)
        kept = {base for class_ in returned_classes(self.__wrapped__) for base in class_.__mro__}
        codecs = [one for one in registered_codecs() if not kept.isdisjoint(one.types)]
        return hashers_of(classes_in(kind.annotation for kind in kinds.values())), codecs

    def __reduce__(self) -> str | tuple[Any, ...]:
        if named(self.__wrapped__) == self:
            return self._name
        if self._uid in _pickling.get():  # it refers to itself, perhaps by way of others
            return _find, (self._uid,)
        import cloudpickle

        token = _pickling.set(_pickling.get() | {self._uid})
        try:
            pickled = cloudpickle.dumps((self.__wrapped__, self._options, self._registered()))
        finally:
            _pickling.reset(token)
        return _restore, (self._uid, self.__module__, self._name, self.table, pickled)


def _loaded(record: Any, find: Callable[[], Any]) -> Any:
    """Return the value of a record, or None without one; *find* gives that which another run has put in its place."""
    seen: Any = None
    while record is not None:
        try:
            return record.load()
        except (CorruptFileError, ResultFileMissingError):
            place = vars(record)[RECORDED], record.result_value
            if place == seen:
                raise
            seen = place
        record = find()
    return None


_METHODS = """    is memoized: a call returns what is kept for its arguments, or runs.

    .run(...)        runs again and replaces       .sweep(sets)      many calls, returns records
    .retrieve(...)   what is kept, or None         .records(...)     what there is, by conditions
    .record(...)     parameters, outputs, result   .to_frame(...)    the same as a DataFrame
    .delete(...)     forgets a call                .clear()          forgets all
    .store, .model   the Store and its table       .adopt_code()     the table is this function's
    .fill_columns()  in rows older than the columns"""


@overload
def memoize(function: Callable[P, R], /) -> MemoizedFunction[P, R]: ...


@overload
def memoize(
    function: None = None,
    /,
    *,
    results_dir: str | Path = ...,
    db_url: DatabaseLike = ...,
    table: str | None = ...,
    ignore: Iterable[str] = ...,
    outputs: Mapping[str, Any] = ...,
    inline_bytes: int = ...,
    lease_s: float = ...,
    wait_timeout_s: float | None = ...,
) -> Memoizer: ...


def memoize(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Keep what a function returns, so that no call is computed twice.

    A decorator, with or without options. Each parameter needs an annotation, which makes a typed column: int, float,
    str, bool, times, Enum, Literal, paths; lists, tuples, dicts, arrays and dataclasses, which a JSON column
    identifies; ``Annotated[..., type]`` for a column type of SQLAlchemy's. Defaults are key defaults: to give one and
    to leave it out are one call, and a parameter that is added with a default keeps every result.

    Parameters
    ----------
    results_dir : path, optional
        Each function has a folder of its own in there, named like its table. Default: what `Options` say where the
        script or notebook is, else ``results`` in the working directory.
    db_url : str, sqlalchemy.URL, sqlalchemy.Engine or Database, optional
        Functions that are given the same `Database` share its engine. Default: what `Options` say, else
        ``sqlite:///db.sqlite3``.
    table : str, optional
        Name of the table. Default: made of the function's name and a digest of its module and qualified name, so that
        a function that is renamed or moved begins anew; to prevent that, name the table.
    ignore : iterable of str
        Parameters that do not change the result, such as ``verbose``: they reach the function, and are not in the key.
    outputs : mapping, optional
        Which fields of the mapping or object that the function returns become columns, to query and order by:
        ``outputs={"rmse": float}``, or ``{"error": "rmse"}`` for one of another name, whose type the annotation says.
        Default: those that the return annotation has, as a `typing.TypedDict`, NamedTuple or dataclass has numbers,
        texts, truth values and times; of a function that returns one such value, ``value``. A name that a parameter
        has gets ``result_`` in front. ``{}`` for none. The whole result is kept all the same.
    inline_bytes : int
        Plain values that take no more than this as JSON stand in the row, without a file. Default: 2 000; 0 for none.
    lease_s, wait_timeout_s : float
        As for `Store`.

    Returns
    -------
    MemoizedFunction
        Called like the function. Without a function, the decorator, which may be kept and used for many.

    Raises
    ------
    TypeError
        At decoration: if a parameter has no annotation or one that makes no column, if the return annotation is a type
        that cannot be stored, or if it is a method, a closure over a value, a lambda, a generator or a coroutine.
    SchemaError
        At the first call: if the signature changed by more than new parameters with defaults; or if the table is not
        where `Options` say, but is where it would be without them.
    ValueError
        At decoration: if the file of options has one that there is not, or a number of seconds is none.

    Notes
    -----
    Returned values that are small and plain stand in their rows; the others are kept as npy (arrays), typed JSON (None,
    numbers, strings, bytes, times, paths and containers of them, NumPy scalars), HDF5 (arrays in containers), parquet
    (pandas) or netCDF (xarray). All come back equal in type, dtype and shape; `register_codec` adds types. There is no
    pickle. A value that cannot be kept is a TypeError.

    The function must depend on its parameters alone. A change of its code is logged, once, and nothing runs again.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> @memoize(results_dir=folder, db_url="sqlite://")
    ... def mean(values: list[float], power: int = 1) -> float:
    ...     print("runs")
    ...     return (sum(v**power for v in values) / len(values)) ** (1 / power)
    >>> mean([1.0, 2.0, 6.0])
    runs
    3.0
    >>> mean([1.0, 2.0, 6.0], power=1)
    3.0
    """
    _require_options(options)
    memoizer = Memoizer(**options)
    return memoizer if function is None else memoizer(function)


def _require_options(options: Mapping[str, Any]) -> None:
    known = [one.name for one in fields(Memoizer)]
    for name in options.keys() - set(known):
        hint = did_you_mean(name, known) or "."
        raise TypeError(f"memoize has no option {name!r}{hint} It has: {', '.join(known)}.")


def _require_storable(function: Callable[..., Any]) -> None:
    """Raise TypeError if the return annotation has a class whose values cannot be stored: not after a night's run."""
    classes = returned_classes(function)
    for class_, is_direct in classes.items():
        if is_direct and not can_save(class_):
            name = class_.__qualname__
            raise error_of(
                function,
                f"it returns a {name}, and there is no way to store that. Say before how it is written and read, with "
                f"entropic.register_codec({name}, suffix, save=..., load=...), or return plain values and arrays",
            )
    know(classes)


def _shared(db_url: DatabaseLike) -> Database:
    """Return one `Database` for all functions with the same URL: each keeps a connection for each thread."""
    database = Database.of(db_url)
    if isinstance(db_url, str | URL) and not database.is_memory:
        return _databases.setdefault(database.url, database)
    return database


# Pickling


@functools.lru_cache(maxsize=16)
def _restore(
    uid: str, module: str, qualified_name: str, table: str, pickled: bytes
) -> MemoizedFunction[..., Any]:
    """Return the function itself in its own process, that of the same script in a process of its own, or make it."""
    if uid in _known:
        return _known[uid]
    if module == "__main__":
        with suppress(AttributeError):
            found = by_name(module, qualified_name)
            if isinstance(found, MemoizedFunction) and found.table == table:
                return found
    import cloudpickle

    made = _known[uid] = MemoizedFunction.__new__(MemoizedFunction)
    function, options, (hashers, codecs) = cloudpickle.loads(pickled)
    adopt_hashers(hashers)
    adopt(codecs)
    MemoizedFunction.__init__(made, function, options, uid)
    return made


def _find(uid: str) -> MemoizedFunction[..., Any]:
    return _known[uid]
