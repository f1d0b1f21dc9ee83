"""What every store of configs does, over a few steps that each does in its own way.

A store keeps one document for each kind and name. Storing what is there already changes nothing; storing something
else under its name is an error that says in what the two differ. A part that a run is made of is not taken away from
under it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from entropic.config_store.compare import shown
from entropic.config_store.given import Given, distinct, given_of
from entropic.config_store.parts import PARTS, ignored_inside, inside, part_name, start_of
from entropic.configs import (
    KINDS,
    ArchitectureConfig,
    ArrayConfig,
    Config,
    DatasetConfig,
    DataSplitConfig,
    RunConfig,
    TaskConfig,
    TrainerConfig,
    restore,
)
from entropic.disk.names import check_name
from entropic.errors import ConfigNotFoundError, DecodeError, DuplicateNameError, InUseError
from entropic.process.logs import get_logger

__all__ = ["COLLECTIONS", "ConfigStore", "IfExists", "Write"]

log = get_logger(__name__)

ConfigT = TypeVar("ConfigT", bound=Config)
IfExists = Literal["error", "replace", "keep"]

COLLECTIONS = {f"{kind}s": kind for kind in KINDS}
"""The name of each collection, and the kind of its configs."""


@dataclass(frozen=True)
class Write:
    """A document to be written under a name."""

    kind: str
    name: str
    document: dict[str, Any]
    replaces: bool
    """Whether another one was seen under the name, which is to give way."""


class ConfigStore(ABC):
    """Keeps configs by kind and name.

    Notes
    -----
    For each kind there are ``store_…_config``, ``retrieve_…_config``, ``retrieve_…_config_names`` and
    ``delete_…_config``, which mean the same for all of them.
    """

    # What each store does in its own way

    @abstractmethod
    def _load(self, kind: str, name: str) -> Any:
        """Return the document of a name, or None."""

    @abstractmethod
    def _names(self, kind: str) -> list[str]:
        """Return the names of a kind."""

    @abstractmethod
    def _write(self, writes: Sequence[Write], checked: Callable[[], Sequence[Write]]) -> None:
        """Write documents over those that there are; *checked* finds out anew what is to be written, or raises."""

    @abstractmethod
    def _remove(self, kind: str, name: str) -> None:
        """Remove a document that is there."""

    @abstractmethod
    def _handle(self, collection: str) -> Any:
        """Return what stands for a collection: what `delete_config` takes."""

    # The collections

    @property
    def runs(self) -> Any:
        """The collection of runs."""
        return self._handle("runs")

    @property
    def tasks(self) -> Any:
        """The collection of tasks."""
        return self._handle("tasks")

    @property
    def architectures(self) -> Any:
        """The collection of architectures."""
        return self._handle("architectures")

    @property
    def trainers(self) -> Any:
        """The collection of trainers."""
        return self._handle("trainers")

    @property
    def datasplits(self) -> Any:
        """The collection of datasplits."""
        return self._handle("datasplits")

    @property
    def datasets(self) -> Any:
        """The collection of datasets."""
        return self._handle("datasets")

    @property
    def arrays(self) -> Any:
        """The collection of arrays."""
        return self._handle("arrays")

    @property
    def users(self) -> Any:
        """The collection of users, of which the stores of DaCapo had the name and nothing in it."""
        return self._handle("users")

    def delete_config(self, database: Any, config_name: str, *, missing_ok: bool = False) -> None:
        """Delete a config.

        Parameters
        ----------
        database : object or str
            Its collection, such as `tasks`, or the name of the kind.
        config_name : str
        missing_ok : bool
            Whether it may be absent.

        Raises
        ------
        ConfigNotFoundError
            If there is none, unless *missing_ok*.
        InUseError
            If a run has it as a part; the text names the runs.
        TypeError
            If *database* is no collection of this store.
        """
        kind = self._kind_of(database)
        check_name(config_name)
        if self._load(kind, config_name) is None:
            if missing_ok:
                return
            raise self._not_found(kind, config_name)
        self._refuse_in_use(kind, config_name, "delete")
        self._remove(kind, config_name)

    def _kind_of(self, database: Any) -> str:
        for collection, kind in COLLECTIONS.items():
            if (isinstance(database, str) and database in {collection, kind}) or (
                type(database) is type(self._handle(collection)) and database == self._handle(collection)
            ):
                return kind
        raise TypeError(
            f"{database!r} is no collection of this store: pass store.{', store.'.join(COLLECTIONS)}, or the name of "
            "one"
        )

    # Runs

    def store_run_config(
        self,
        run_config: RunConfig,
        ignore: Collection[str] | None = None,
        *,
        if_exists: IfExists = "error",
        store_parts: bool = True,
        recursive: bool = False,
    ) -> None:
        """Store a run, and the configs that it is made of: all of them, or nothing.

        Parameters
        ----------
        run_config : RunConfig or mapping
            Also its document, such as ``{"name": "run_0"}``.
        ignore : collection of str, optional
            Fields of the run in which one that is stored may differ; dotted for those inside, ``"task_config.tol"``,
            in which a part that is stored may differ, too. Only compared: what is stored stays as it is.
        if_exists : {"error", "replace", "keep"}
            What to do with a run of this name that differs: ``"replace"`` replaces the parts that it is made of, too,
            and ``"keep"`` stores nothing. Any other part that is stored and differs is an error in any case.
        store_parts : bool
            Whether to store architecture, task, trainer and datasplit, too.
        recursive : bool
            Whether to store the datasets and arrays inside them, too.

        Raises
        ------
        DuplicateNameError
            If the run or a part has the name of another one that is stored, or two inside it have one name and differ;
            nothing is stored then.
        DecodeError
            If one of them would not come back as it is; the text names the fields.
        InUseError
            If a part would be replaced that other runs have, too; the text names them.
        """
        run_config = _config_of(RunConfig, run_config)
        parts = list(inside("", run_config)) if recursive else []
        parts = [(path, one) for path, one in parts if one.kind in {"dataset", "array"}]
        if store_parts:
            parts += [(f"{part.kind}_config", part) for part in run_config.parts()]
        self._store(run_config, RunConfig, ignore, if_exists, parts=parts)

    def retrieve_run_config(self, run_name: str, *, strict: bool = True) -> RunConfig:
        """Return the run of a name, with all of its parts as they were when it was stored.

        Parameters
        ----------
        strict : bool
            If False, what cannot be read is returned as it is stored, a dict, with a warning.

        Raises
        ------
        ConfigNotFoundError
            If there is none.
        DecodeError
            If its document cannot be read, unless *strict* is False.
        """
        return self._retrieve(RunConfig, run_name, strict=strict)

    def retrieve_run_config_names(
        self,
        task_names: Collection[str] | None = None,
        datasplit_names: Collection[str] | None = None,
        architecture_names: Collection[str] | None = None,
        trainer_names: Collection[str] | None = None,
    ) -> list[str]:
        """Return the names of all runs, or of those that have one of the parts of each filter.

        Raises
        ------
        TypeError
            If a filter is a single string.
        """
        filters = {
            "task": task_names,
            "datasplit": datasplit_names,
            "architecture": architecture_names,
            "trainer": trainer_names,
        }
        wanted = {part: set(_names_of(part, names)) for part, names in filters.items() if names is not None}
        return self._run_names(wanted) if wanted else self._names("run")

    def _run_names(self, wanted: Mapping[str, set[str]]) -> list[str]:
        """Return the names of the runs whose parts have these names."""
        return [
            name
            for name, document in self._runs()
            if all(part_name(document, part) in names for part, names in wanted.items())
        ]

    def runs_that_start_from(self, run_name: str) -> list[str]:
        """Return the names of the other runs that start from the weights of a run, be their classes known or not."""
        return [
            name for name, document in self._runs() if name != run_name and start_of(document) == run_name
        ]

    def _runs(self) -> Iterator[tuple[str, Any]]:
        for name in self._names("run"):
            document = self._load("run", name)
            if document is not None:  # else it went meanwhile
                yield name, document

    def delete_run_config(self, run_name: str, *, missing_ok: bool = False) -> None:
        """Delete the config of a run; its parts and its statistics stay. As `delete_config`."""
        self.delete_config("run", run_name, missing_ok=missing_ok)

    # Tasks

    def store_task_config(
        self,
        task_config: TaskConfig,
        ignore: Collection[str] | None = None,
        *,
        if_exists: IfExists = "error",
        force: bool = False,
    ) -> None:
        """Store a task. One that is the same may be there already: that changes nothing.

        Parameters
        ----------
        task_config : TaskConfig or mapping
            Also its document.
        ignore : collection of str, optional
            Fields in which the two may differ, dotted for those inside. Only compared.
        if_exists : {"error", "replace", "keep"}
            What to do with one of this name that differs.
        force : bool
            Whether to replace it even if runs have it as a part.

        Raises
        ------
        DuplicateNameError
            If another one has the name; the text says in which fields they differ.
        DecodeError
            If it would not come back as it is; the text names the fields.
        InUseError
            If it is to be replaced and runs have it as a part, unless *force*.
        """
        self._store(task_config, TaskConfig, ignore, if_exists, force=force)

    def retrieve_task_config(self, task_name: str, *, strict: bool = True) -> TaskConfig:
        """Return the task of a name. Raises as `retrieve_run_config`."""
        return self._retrieve(TaskConfig, task_name, strict=strict)

    def retrieve_task_config_names(self) -> list[str]:
        """Return the names of all tasks."""
        return self._names("task")

    def delete_task_config(self, task_name: str, *, missing_ok: bool = False) -> None:
        """Delete a task. As `delete_config`."""
        self.delete_config("task", task_name, missing_ok=missing_ok)

    # Architectures

    def store_architecture_config(
        self,
        architecture_config: ArchitectureConfig,
        ignore: Collection[str] | None = None,
        *,
        if_exists: IfExists = "error",
        force: bool = False,
    ) -> None:
        """Store an architecture. As `store_task_config`."""
        self._store(architecture_config, ArchitectureConfig, ignore, if_exists, force=force)

    def retrieve_architecture_config(
        self, architecture_name: str, *, strict: bool = True
    ) -> ArchitectureConfig:
        """Return the architecture of a name. Raises as `retrieve_run_config`."""
        return self._retrieve(ArchitectureConfig, architecture_name, strict=strict)

    def retrieve_architecture_config_names(self) -> list[str]:
        """Return the names of all architectures."""
        return self._names("architecture")

    def delete_architecture_config(self, architecture_name: str, *, missing_ok: bool = False) -> None:
        """Delete an architecture. As `delete_config`."""
        self.delete_config("architecture", architecture_name, missing_ok=missing_ok)

    # Trainers

    def store_trainer_config(
        self,
        trainer_config: TrainerConfig,
        ignore: Collection[str] | None = None,
        *,
        if_exists: IfExists = "error",
        force: bool = False,
    ) -> None:
        """Store a trainer. As `store_task_config`."""
        self._store(trainer_config, TrainerConfig, ignore, if_exists, force=force)

    def retrieve_trainer_config(self, trainer_name: str, *, strict: bool = True) -> TrainerConfig:
        """Return the trainer of a name. Raises as `retrieve_run_config`."""
        return self._retrieve(TrainerConfig, trainer_name, strict=strict)

    def retrieve_trainer_config_names(self) -> list[str]:
        """Return the names of all trainers."""
        return self._names("trainer")

    def delete_trainer_config(self, trainer_name: str, *, missing_ok: bool = False) -> None:
        """Delete a trainer. As `delete_config`."""
        self.delete_config("trainer", trainer_name, missing_ok=missing_ok)

    # Datasplits

    def store_datasplit_config(
        self,
        datasplit_config: DataSplitConfig,
        ignore: Collection[str] | None = None,
        *,
        if_exists: IfExists = "error",
        force: bool = False,
    ) -> None:
        """Store a datasplit. As `store_task_config`."""
        self._store(datasplit_config, DataSplitConfig, ignore, if_exists, force=force)

    def retrieve_datasplit_config(self, datasplit_name: str, *, strict: bool = True) -> DataSplitConfig:
        """Return the datasplit of a name. Raises as `retrieve_run_config`."""
        return self._retrieve(DataSplitConfig, datasplit_name, strict=strict)

    def retrieve_datasplit_config_names(self) -> list[str]:
        """Return the names of all datasplits."""
        return self._names("datasplit")

    def delete_datasplit_config(self, datasplit_name: str, *, missing_ok: bool = False) -> None:
        """Delete a datasplit. As `delete_config`."""
        self.delete_config("datasplit", datasplit_name, missing_ok=missing_ok)

    # Datasets

    def store_dataset_config(
        self,
        dataset_config: DatasetConfig,
        ignore: Collection[str] | None = None,
        *,
        if_exists: IfExists = "error",
        force: bool = False,
    ) -> None:
        """Store a dataset. As `store_task_config`."""
        self._store(dataset_config, DatasetConfig, ignore, if_exists, force=force)

    def retrieve_dataset_config(self, dataset_name: str, *, strict: bool = True) -> DatasetConfig:
        """Return the dataset of a name. Raises as `retrieve_run_config`."""
        return self._retrieve(DatasetConfig, dataset_name, strict=strict)

    def retrieve_dataset_config_names(self) -> list[str]:
        """Return the names of all datasets."""
        return self._names("dataset")

    def delete_dataset_config(self, dataset_name: str, *, missing_ok: bool = False) -> None:
        """Delete a dataset. As `delete_config`."""
        self.delete_config("dataset", dataset_name, missing_ok=missing_ok)

    # Arrays

    def store_array_config(
        self,
        array_config: ArrayConfig,
        ignore: Collection[str] | None = None,
        *,
        if_exists: IfExists = "error",
        force: bool = False,
    ) -> None:
        """Store an array. As `store_task_config`."""
        self._store(array_config, ArrayConfig, ignore, if_exists, force=force)

    def retrieve_array_config(self, array_name: str, *, strict: bool = True) -> ArrayConfig:
        """Return the array of a name. Raises as `retrieve_run_config`."""
        return self._retrieve(ArrayConfig, array_name, strict=strict)

    def retrieve_array_config_names(self) -> list[str]:
        """Return the names of all arrays."""
        return self._names("array")

    def delete_array_config(self, array_name: str, *, missing_ok: bool = False) -> None:
        """Delete an array. As `delete_config`."""
        self.delete_config("array", array_name, missing_ok=missing_ok)

    # How all of them are stored and retrieved

    def _store(
        self,
        config: Config,
        base: type[Config],
        ignore: Collection[str] | None,
        if_exists: IfExists,
        *,
        force: bool = False,
        parts: Sequence[tuple[str, Config]] = (),
    ) -> None:
        """Store a config, and with it parts of it, which are given with the path to each."""
        if isinstance(ignore, str):
            raise TypeError(f"ignore= takes a list of fields, not the string {ignore!r}")
        if if_exists not in {"error", "replace", "keep"}:
            raise ValueError(f"if_exists is 'error', 'replace' or 'keep', not {if_exists!r}")
        config, ignored = _config_of(base, config), frozenset(ignore or ())
        inside_it = [given_of(part, ignored_inside(path, ignored)) for path, part in parts]
        *others, given = distinct([*inside_it, given_of(config, ignored)])

        def checked() -> list[Write]:
            return self._checked(given, others, if_exists, force=force)

        self._write(checked(), checked)

    def _checked(
        self, given: Given, parts: Sequence[Given], if_exists: IfExists, *, force: bool
    ) -> list[Write]:
        """Return what there is to write, or raise."""
        kind, name = given.kind, given.name
        stored = self._load(kind, name)
        different = {} if stored is None else given.differences_from(stored)
        if different and if_exists == "keep":
            return []
        if different and if_exists == "error":
            raise DuplicateNameError(
                f"another {kind} config is stored under the name {name!r}: they differ in {shown(different)}. Give it "
                "another name, or say if_exists='replace' or 'keep'"
            )
        run = stored if if_exists == "replace" else None
        writes = [write for part in parts if (write := self._checked_part(part, run, name)) is not None]
        if different and not force:
            self._refuse_in_use(kind, name, "replace")
        if different or stored is None:
            writes.append(Write(kind, name, given.document, replaces=stored is not None))
        return writes

    def _checked_part(self, part: Given, run: Any, run_name: str) -> Write | None:
        """Return how a part is to be written; *run* is the document of the stored run that is replaced, if one is."""
        kind, name = part.kind, part.name
        stored = self._load(kind, name)
        if stored is None:
            return Write(kind, name, part.document, replaces=False)
        different = part.differences_from(stored)
        if not different:
            return None
        if part_name(run, kind) != name:
            raise DuplicateNameError(
                f"another {kind} config is stored under the name {name!r}: they differ in {shown(different)}. Nothing "
                f"was stored: give it another name, or call store_{kind}_config with if_exists='replace' first"
            )
        self._refuse_in_use(kind, name, "replace", by_others_than=run_name)
        return Write(kind, name, part.document, replaces=True)

    def _retrieve(self, base: type[ConfigT], name: str, *, strict: bool) -> ConfigT:
        check_name(name)
        document = self._load(base.kind, name)
        if document is None:
            raise self._not_found(base.kind, name)
        try:
            return _restored(base, document, name)
        except DecodeError as error:
            if strict:
                raise
            log.warning("%s: it is returned as it is stored", error)
            return cast("ConfigT", document)

    def _not_found(self, kind: str, name: str) -> ConfigNotFoundError:
        return ConfigNotFoundError(f"no {kind} config {name!r} is stored in {self}")

    def _refuse_in_use(self, kind: str, name: str, what: str, *, by_others_than: str | None = None) -> None:
        runs = self._run_names({kind: {name}}) if kind in PARTS else []
        if runs := [run for run in runs if run != by_others_than]:
            more = f" and {len(runs) - 10} more" if len(runs) > 10 else ""
            raise InUseError(
                f"the {kind} config {name!r} is part of the runs {', '.join(map(repr, runs[:10]))}{more}: {what} it "
                "when they are deleted"
            )


def _restored(base: type[ConfigT], document: Any, name: str) -> ConfigT:
    """Return the config that is stored under a name, or raise DecodeError."""
    config = restore(base, document)
    if config.name != name:  # as of a file that was copied by hand: its records would be the other's
        raise DecodeError(
            f"what is stored as the {base.kind} config {name!r} says that its name is {config.name!r}: give it the "
            "name that it is stored under, or the other way round"
        )
    return config


def _config_of(base: type[ConfigT], given: Any) -> ConfigT:
    """Return what a caller has given as a config: a document will do."""
    if isinstance(given, Mapping):
        return restore(base, given)
    if not isinstance(given, base):
        raise TypeError(f"{given!r:.200} is a {type(given).__name__}, and no {base.__name__}")
    return given


def _names_of(part: str, names: Collection[str]) -> Collection[str]:
    if isinstance(names, str):
        raise TypeError(f"{part}_names takes a list of names, not the string {names!r}")
    return names
