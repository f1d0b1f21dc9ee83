"""`Store`: parameters in, a row and a file out.

A Store turns parameters into a key, looks the key up in a table whose columns are the parameters, and either returns
the row or runs the user's function, publishes the file that it wrote and commits the row. The steps of a run are in
this order everywhere: type and hash, look up, claim, attempt, stage, publish and commit. Each stands in a module of
its own; here they meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import URL, ColumnElement, func, select
from sqlalchemy.exc import DBAPIError

from entropic.diagnosis.history import FailedRun, failed_runs, warn_of_other_code
from entropic.diagnosis.integrity import Report, check_table
from entropic.disk.files import digest_of
from entropic.disk.names import safe_name, safe_suffix
from entropic.display.frames import frame_of
from entropic.display.text import Listing
from entropic.errors import ClaimLostError, NotFoundError, ResultFileMissingError
from entropic.model.base import Base
from entropic.model.hits import ABSENT
from entropic.model.notes import checked_changes, refuse_parameters
from entropic.model.records import Found
from entropic.model.selection import NOT_GIVEN, selection
from entropic.process.logs import get_logger
from entropic.process.patience import LEASE_S, Patience, checked_lease, checked_timeout
from entropic.process.provenance import CodeState, code_label, git_state, source_folder
from entropic.runs.attempts import Runner, require_runner
from entropic.runs.recovery import recover
from entropic.runs.removal import remove_result
from entropic.runs.result_table import ResultTable
from entropic.runs.single import RunMaker, clear_away
from entropic.sql.database import Database, DatabaseLike
from entropic.sweeps.grids import ParameterSets, parameter_sets
from entropic.sweeps.result import SweepOptions, SweepResult
from entropic.sweeps.sweep import Sweep
from entropic.values import codecs  # noqa: F401 — all at once: a fork beside a thread that imports would hang
from entropic.values.plain import checked_custom

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas

__all__ = ["Store"]

log = get_logger(__name__)

ModelT = TypeVar("ModelT", bound=Base)


class Store(Generic[ModelT]):
    """A cache of runs: a row of typed parameters and a result file for each.

    Parameters
    ----------
    runner : callable
        Called as ``runner(params)`` with a copy of the typed parameters, defaults filled in, and two more entries:
        ``id``, and ``result_file``, the path to write to. It may return a mapping: what is an `output()` column of
        the model goes there, the rest into ``custom_data``.
    result_cls : type
        Subclass of `entropic.Base`. Its table *is* the cache.
    results_dir : path
        Where results lie; one folder for each table. Made, and marked, by the first Store of a table only.
    file_suffix : str
        Of the results' names, with its dot, such as ``".h5"``; empty for folders.
    db_url : str, sqlalchemy.URL, sqlalchemy.Engine or Database
        Stores that are given the same `Database` share its engine.
    lease_s : float
        How long a key that is being run stays reserved, in seconds, when its owner falls silent. While the owner
        lives it is extended six times in a lease, however long a run takes, and whatever the runner does. An owner
        on the same host that has ended is seen at once.
    wait_timeout_s : float, optional
        How long to wait for a key that another process runs, in seconds. Default: as long as it takes.

    Raises
    ------
    ValueError
        If the suffix has no dot in front, or a number of seconds is none.
    SchemaError
        If the library's tables are of another version, or the user's table or its keys do not fit the model.
    ResultsDirUnavailableError
        If the table is new and the folder is another table's.

    Notes
    -----
    Safe to share between threads, and usable after a fork. It pickles without its engine, and connects where it is
    used. Any number of processes may open the same database and folder; a key runs in one of them at a time.
    """

    def __init__(
        self,
        runner: Runner,
        result_cls: type[ModelT],
        results_dir: str | Path = "./results",
        file_suffix: str = ".h5",
        db_url: DatabaseLike = "sqlite:///db.sqlite3",
        *,
        lease_s: float = LEASE_S,
        wait_timeout_s: float | None = None,
    ) -> None:
        if not (
            isinstance(result_cls, type) and issubclass(result_cls, Base) and hasattr(result_cls, "__table__")
        ):
            raise TypeError(
                f"result_cls must be a subclass of entropic.Base, with a table, not {result_cls!r}: write "
                "Store(runner, Model, ...)"
            )
        require_runner(runner)
        safe_name(result_cls.__tablename__)
        lease_s, wait_timeout_s = checked_lease(lease_s), checked_timeout(wait_timeout_s)
        self.runner = runner
        self.file_suffix = safe_suffix(file_suffix)
        self.results_dir = Path(results_dir).expanduser().absolute()
        self.database = Database.of(db_url)
        self.database.refuse_block("opening a Store", "open it before the block")
        self._has_own_database = isinstance(db_url, str | URL)
        self._patience = Patience(limit_s=wait_timeout_s)
        self._table = ResultTable.open(
            self.database,
            result_cls,
            self.results_dir,
            lease_s=lease_s,
            code=CodeState(code_label(runner)),
            suffix=file_suffix,
        )
        warn_of_other_code(self._table)
        if self._table.can_write():
            try:
                recover(self._table)
            except (OSError, DBAPIError) as error:
                # To read is possible on a full disk or without the right to write; what needs to write says so itself.
                log.warning(
                    "what earlier processes left could not be recovered; recover() tries again: %s", error
                )

    def __repr__(self) -> str:
        return f"Store({self._table.model.__name__}, {str(self.results_dir)!r}, {self.database!r})"

    def key(self, params: Mapping[str, Any]) -> str:
        """Return the primary key of *params*."""
        return self._table.parameters.identify(params).id

    # One run

    def run_or_retrieve(self, /, params: Mapping[str, Any], **custom_data: Any) -> ModelT:
        """Return the record of *params*; run it if there is none.

        Parameters
        ----------
        params : mapping
            By name of the model's parameters; those at their default may be left out. Never modified.
        **custom_data
            Notes: JSON values for the row. Ignored on a hit: `annotate` changes the notes of a record that is there.

        Raises
        ------
        ParameterError
            If a name is unknown or missing, a value does not fit its column, or a note has the name of a parameter.
            Nothing was run.
        HashCollisionError
            If the row under the key holds other parameters. Nothing was run.
        ResultsDirUnavailableError
            If it would have to run and the results folder is absent or another's.
        ClaimTimeoutError
            If another process has held the key for longer than `wait_timeout_s`.
        ClaimLostError
            If this process was silent for longer than its lease, and another took the key over.
        Exception
            Whatever the runner raises, as it is, with a note that names the parameters.

        Notes
        -----
        A hit is one SELECT (two for a row of the published release's under another key), and writes nothing. Safe to
        call from any number of processes: one runs, the others wait and get its record.
        """
        if custom_data:
            refuse_parameters(self._table.parameters, custom_data)
        record = self._table.hits.find(params)
        if record is None or record is ABSENT:
            identity = self._table.parameters.identify(params)
            found = self._table.find(identity, is_absent=record is ABSENT)
            record = None if found is None else self._table.reader.present_record(found)
            if record is None and found is not None:
                # Another run may have replaced it since the row was read.
                found = self._table.find(identity)
                record = None if found is None else self._table.reader.present_record(found)
        if record is None:
            self._note_code()
            found = self._runs().obtain(identity, found, checked_custom(custom_data), is_forced=False)
            return self._table.reader.record(found)
        if custom_data:
            log.debug("%s is a hit: annotate() would add %s to it", record.id, ", ".join(custom_data))
        return record

    def run(self, /, params: Mapping[str, Any], **custom_data: Any) -> ModelT:
        """Run *params* even if there is a result, and replace row and file.

        The good file stays until its successor is complete. Raises what `run_or_retrieve` raises.
        """
        refuse_parameters(self._table.parameters, custom_data)
        identity = self._table.parameters.identify(params)
        found = self._table.find(identity)
        self._note_code()
        found = self._runs().obtain(identity, found, checked_custom(custom_data), is_forced=True)
        return self._table.reader.record(found)

    def retrieve(self, params: Mapping[str, Any], *, verify: bool = False) -> ModelT | None:
        """Return the record of *params*, or None; nothing is run.

        An ``id`` alone will do. If the results folder is not there, the record is returned all the same, with the
        path where its file would be.

        Parameters
        ----------
        verify : bool
            Read the whole result, and compare its size and SHA-256 with those of the run.

        Raises
        ------
        CorruptFileError
            If they differ. Nothing was changed.
        ResultFileMissingError
            If there is nothing to *verify*, as the results folder is not there, or nothing to compare it with.

        Notes
        -----
        Safe beside runs that replace the result: one that does not fit its row is looked at again.
        """
        record = None if verify else self._table.hits.find(params)
        if record is not None and record is not ABSENT:
            return record
        identity = self._table.parameters.identify(params, complete=False)
        found = self._table.find(identity, is_absent=record is ABSENT)
        found = None if found is None else self._table.settled(identity, found, verify=verify)
        return None if found is None else self._table.reader.record(found)

    def register(
        self,
        /,
        params: Mapping[str, Any],
        result_file: str | Path,
        *,
        overwrite: bool = False,
        **custom_data: Any,
    ) -> ModelT:
        """Make a file that was computed elsewhere the result of *params*.

        The file stays where it is; its size and digest are recorded. Registering the same file again replaces its
        ``custom_data`` and the outputs that are given, and nothing else.

        Parameters
        ----------
        **custom_data
            What is an `output()` column of the model goes there, the rest are JSON values for ``custom_data``.

        Raises
        ------
        ParameterError
            If the parameters are not those of the model, a value does not fit its column, or one of *custom_data* has
            the name of a parameter.
        ResultFileMissingError
            If the file is not there.
        ResultFileError
            If it is no file or folder of files, or if the results folder lies in it.
        AlreadyExistsError
            If *params* have another result, unless *overwrite*; or if the file is what another run wrote, of whatever
            table of the database, or a part of that.
        ResultsDirUnavailableError
            If the results folder is absent or another's.
        ClaimLostError
            If another process deleted the row meanwhile, or took the key over while the file was read.
        """
        refuse_parameters(self._table.parameters, custom_data)
        outputs, rest = self._table.parameters.outputs.split_given(custom_data)
        custom = {**outputs, **checked_custom(rest)}
        path = Path(result_file).expanduser().absolute()
        if not path.exists():
            raise ResultFileMissingError(f"the file to register is not there: {str(path)!r}")
        identity = self._table.parameters.identify(params)
        found = self._table.find(identity)
        if found is not None and self._is_same_file(found, path):
            key = found.id
            self._table.publisher.patch_registered(key, custom)
        else:
            if found is not None and not overwrite:
                self._table.refuse_other_file(found, path)
            key = identity.key_of_run(None if found is None else found.id)
            identity = identity._replace(id=key, former_id=None)
            self._runs().register(identity, path, str(result_file), custom, overwrite=overwrite)
        there = next(iter(self._table.reader.find((key,))), None)
        if there is None:
            raise ClaimLostError(
                f"the row of {key!r} was deleted by another process as {str(path)!r} was registered: register it again "
                "if it was not meant to be"
            )
        return self._table.reader.record(there)

    def delete(
        self, params: Mapping[str, Any] | None = None, remove_file: bool = False, *, hash: str | None = None
    ) -> bool:
        """Delete the row of *params*, or of the key *hash*, and return whether there was one.

        Parameters
        ----------
        remove_file : bool
            Delete the result too, also a file outside `results_dir` if this user registered it. One that is gone
            already does not matter; one that another row has too stays, of whatever table of the database.
        hash : str, optional
            The key; wins over *params*.

        Raises
        ------
        ValueError
            If neither is given.
        """
        if hash is not None:
            found = next(iter(self._table.reader.find((hash,))), None)
        elif params is not None:
            found = self._table.find(self._table.parameters.identify(params, complete=False))
        else:
            raise ValueError("Either 'params' or 'hash' need to be set")
        if found is None:
            return False
        deleted = self._table.publisher.delete(found.id)
        if remove_file:
            self.database.on_commit(partial(remove_result, self._table, found))
        return deleted

    def annotate(self, /, params: Mapping[str, Any], **custom_data: Any) -> ModelT:
        """Change the notes of a record that exists, its ``custom_data``, and return it; nothing is run.

        Parameters
        ----------
        params : mapping
            As for `retrieve`: an ``id`` alone will do.
        **custom_data
            JSON values, merged into those that are there; None removes one.

        Raises
        ------
        NotFoundError
            If there is no record.
        ParameterError
            If a value is none of JSON's, or a name is that of a parameter or output.

        Notes
        -----
        Several processes may annotate one record: each adds to what the others wrote.
        """
        notes = checked_changes(self._table.parameters, custom_data)
        identity = self._table.parameters.identify(params, complete=False)
        found = self._table.find(identity)
        if found is not None and self._table.publisher.annotate(found.id, notes):
            found = next(iter(self._table.reader.find((found.id,))), None)  # it may have been deleted since
            if found is not None:
                return self._table.reader.record(found)
        raise NotFoundError(f"there is no record of {dict(params)!r:.300}: it would have to run first")

    # Many runs

    def sweep(
        self,
        params: ParameterSets,
        client: Any = None,
        *,
        workers: int | None = None,
        executor: Executor | None = None,
        on_error: str = "raise",
        fallback: str = "serial",
        progress: bool | None = None,
        missing: str = "raise",
        retries: int = 0,
        threads_per_run: int = 1,
    ) -> SweepResult[ModelT]:
        """Run or retrieve a record for each of *params*.

        Parameters
        ----------
        params : iterable of mapping, dict of lists, or frame
            Consumed once. Sets with one key are one run. A dict of lists is a grid, as for `expand_grid`; a frame is
            taken row by row; values that are no dicts are those of the only parameter, if there is but one.
        client : distributed.Client, optional
            A Dask cluster whose workers see the results folder. At most one of *client*, *workers* and *executor*.
        workers : int, optional
            Processes of this machine.
        executor : concurrent.futures.Executor, optional
            Used, and not shut down.
        on_error : {"raise", "continue"}
            All runs are attempted and what succeeds is stored in either case; then the first failure, in input
            order, is raised, or the records that there are are returned.
        fallback : {"serial", "raise"}
            What to do when the cluster itself fails: run what is left in this process, or raise. Having no workers is
            no failure: the sweep waits. A run that killed its worker twice is a failed run, and never runs here.
        progress : bool, optional
            Show a bar. Default: on a terminal and in a notebook.
        missing : {"raise", "rerun"}
            What to do when more than ten, and more than a tenth, of the results that there are rows for are gone.
        retries : int
            How often a run that raised is tried again, after all others. Each attempt is recorded. One that killed
            its worker twice is not tried again.
        threads_per_run : int
            How many threads a run uses: so many fewer go on at once, of *workers*, of an executor's and of a Dask
            worker's threads, but one at least. What a library starts it has to be told itself.

        Returns
        -------
        SweepResult
            A list of the records in input order, one per distinct key, with `.failed` and `.align(params)`.

        Raises
        ------
        ParameterError
            As for `run_or_retrieve`, with the number of the set; or if *params* are no parameter sets. Nothing was run.
        TypeError
            If *client* is no client, as a number or an executor, which are ``workers=`` and ``executor=``; or if
            *executor* is none.
        ResultFileMissingError
            If many results are gone.
        ClusterError
            With ``fallback="raise"``: the cluster failed, or the runner cannot be pickled.

        Notes
        -----
        Each result is committed as it arrives. Several processes that sweep the same grid divide it between them.
        When this returns or raises, no run is going on and no future is held.
        """
        options = SweepOptions(
            client=client,
            workers=workers,
            executor=executor,
            on_error=on_error,
            fallback=fallback,
            progress=progress,
            missing=missing,
            patience=self._patience,
            retries=retries,
            threads_per_run=threads_per_run,
        )
        self.database.refuse_block("a sweep", "sweep first, then open the block")
        sets = parameter_sets(params, self._table.parameters.names)
        self._note_code()
        return Sweep(self._table, self.runner, options).run(sets)

    # What there is

    def records(
        self,
        /,
        *where: ColumnElement[bool],
        order_by: Any = NOT_GIVEN,
        limit: int | None = NOT_GIVEN,
        **equals: Any,
    ) -> list[ModelT]:
        """Return the records that meet all conditions.

        Parameters
        ----------
        *where
            SQLAlchemy expressions, such as ``Sim.rmse < 0.1``.
        order_by : column, its name, expression or list of them, optional
            Default: as they were made. The parameter, if the model has one of this name and it is no expression.
        limit : int, optional
            At most so many. The parameter, if the model has one of this name.
        **equals
            By attribute name, of outputs too; values are typed as parameters are.

        Raises
        ------
        ParameterError
            If there is no such column, or a value does not fit it.
        """
        asked = selection(self._table.parameters, where, equals, order_by=order_by, limit=limit)
        with self.database.reading() as connection:
            found = list(self._table.reader.select(asked.where, asked.order_by, asked.limit, connection))
        return Listing(self._table.reader.record(one) for one in found)

    def count(self, /, *where: ColumnElement[bool], **equals: Any) -> int:
        """Return how many records meet all conditions, given as for `records`."""
        conditions = selection(self._table.parameters, where, equals).where
        statement = select(func.count()).select_from(self._table.model).where(*conditions)
        with self.database.reading() as connection:
            return int(connection.scalar(statement) or 0)

    def to_frame(
        self, /, *where: ColumnElement[bool], bookkeeping: bool | None = NOT_GIVEN, **equals: Any
    ) -> pandas.DataFrame:
        """Return records as a `pandas.DataFrame`: a row each, a column per attribute.

        With *bookkeeping* also the library's own columns, indexed by ``id``: the default but for memoized functions.
        Conditions, ``order_by`` and ``limit`` as for `records`.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        if bookkeeping is not NOT_GIVEN and "bookkeeping" in self._table.parameters.names:
            equals["bookkeeping"], bookkeeping = bookkeeping, NOT_GIVEN
        names = self._table.names_of_columns(None if bookkeeping is NOT_GIVEN else bookkeeping)
        return frame_of(self.records(*where, **equals), names)

    def failures(self) -> list[FailedRun]:
        """Return the last attempt of every key whose last one failed, oldest first."""
        return Listing(failed_runs(self._table))

    # After a crash

    def recover(self) -> int:
        """Commit finished runs that a crash kept from being committed; return how many.

        Called when a Store opens and when a sweep ends.

        Raises
        ------
        ResultsDirUnavailableError
            If the results folder is absent or another's.
        """
        self.database.refuse_block("recovery", "recover() first, then open the block")
        self._table.require_root()
        return recover(self._table)

    def check(self, *, checksum: bool = False, fix: bool = False) -> Report:
        """Compare rows, file records and the results folder both ways.

        Parameters
        ----------
        checksum : bool
            Read every result and compare its SHA-256; without, sizes are compared.
        fix : bool
            Commit what was finished; delete rows whose file is gone; move damaged files to quarantine and delete
            their rows, so that the next call runs them; clear away what processes that are gone left. Registered
            files and files without a row are only reported.

        Returns
        -------
        Report
            Iterable of findings, falsy when clean; as text, a table.
        """
        if fix:
            self.database.refuse_block("check(fix=True)", "check first, then open the block")
        return check_table(self._table, self.file_suffix, checksum=checksum, fix=fix)

    def adopt_root(self) -> None:
        """Make `results_dir` this table's folder, after the former one was removed or replaced on purpose.

        Rows whose files are gone run again one by one; ``check(fix=True)`` deletes them at once.

        Raises
        ------
        ResultsDirUnavailableError
            If the folder is another table's.
        SchemaError
            If this user may not write in the database. The folder stays as it is.
        """
        self._table.adopt_root()

    def close(self) -> None:
        """Let go of what this Store holds: its connections, and its folder of runs that are committed.

        Notes
        -----
        A Store that is used again connects again. A `Database` or an engine that was given stays open for others,
        but for the connection of this thread; a database in memory is gone with the Store that made it. Wait until
        other threads have done with it. A folder in which a run of another Store goes on stays until the process ends.
        """
        clear_away(self._table)
        if self._has_own_database:
            self.database.dispose()
        else:
            self.database.release()

    def _runs(self) -> RunMaker:
        return RunMaker(self._table, self.runner, self._patience)

    def _is_same_file(self, found: Found, path: Path) -> bool:
        there = self._table.reader.path(found)
        is_there = there is not None and Path(there).absolute() == path
        return is_there and digest_of(path) == (found.size_bytes, found.sha256)

    def _note_code(self) -> None:
        """Find out, before the first run, what git says of the runner's source."""
        if self._table.code.commit is None:
            commit, is_dirty = git_state(source_folder(self.runner))
            self._table.code = replace(self._table.code, commit=commit, is_dirty=is_dirty)
