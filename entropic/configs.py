"""What an experiment is made of: configs that users subclass with fields of their own.

A config is a pydantic model with a name, and belongs to one kind: run, task, architecture, trainer, datasplit, dataset
or array. Its document is JSON with the class's name as ``__type__``, at every depth; it is made a config again by a
class that is defined here, never by importing a name that stands in a document. Other pydantic models in a field have
no ``__type__``: they come back as what the field is declared with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError
from pydantic_core import PydanticSerializationError, core_schema

from entropic.disk.names import check_name
from entropic.errors import DecodeError

__all__ = [
    "KINDS",
    "ArchitectureConfig",
    "ArrayConfig",
    "Config",
    "DataSplitConfig",
    "DatasetConfig",
    "RunConfig",
    "StartConfig",
    "TaskConfig",
    "TrainerConfig",
    "full_name",
    "restore",
]

TYPE = "__type__"

_classes: dict[str, dict[str, list[type[Typed]]]] = {}  # by kind and name: two only where one must be renamed


Name = Annotated[str, AfterValidator(check_name)]


class Typed(BaseModel):
    """What documents call by the name of its class.

    Attributes
    ----------
    kind : str
        Among classes of one kind names are unique. A class without one may be of any kind.
    """

    # By name, too: documents call a field by its own name, whatever alias the constructor takes.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants", populate_by_name=True)

    kind: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        for name in cls.model_fields:
            if owners := [one for one in cls.__mro__ if one.__module__ == __name__ and name in vars(one)]:
                raise TypeError(
                    f"{full_name(cls)} has a field {name!r}, which is what each {owners[0].__name__} has anyway: give "
                    "the field another name"
                )
        if cls.kind:
            same = _classes.setdefault(cls.kind, {}).setdefault(_own_type(cls), [])
            same[:] = [one for one in same if full_name(one) != full_name(cls)] + [cls]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        schema = handler(source)

        def resolved(value: Any, validate: Any) -> Any:
            if not isinstance(value, Mapping) or TYPE not in value:
                return validate(value)
            class_ = _class(cls, value[TYPE])
            # Documents of earlier releases have computed fields.
            left_out = {TYPE, *class_.__pydantic_decorators__.computed_fields}
            rest = {name: item for name, item in value.items() if name not in left_out}
            if class_ is cls:
                return validate(rest)
            if cls not in class_.__mro__:
                raise ValueError(f"{value[TYPE]!r} is no {cls.__name__}")
            return class_.model_validate(rest)

        def dumped(value: Any, dump: Any, info: Any) -> dict[str, Any]:
            class_ = type(value)
            if class_ is cls:
                return {TYPE: _type_of(cls), **dump(value)}
            # A field is declared with one of the kinds, and holds a subclass with more fields.
            document: dict[str, Any] = class_.__pydantic_serializer__.to_python(
                value, mode=info.mode, round_trip=info.round_trip
            )
            return document

        serialised = core_schema.wrap_serializer_function_ser_schema(dumped, schema=schema, info_arg=True)
        return core_schema.no_info_wrap_validator_function(resolved, schema, serialization=serialised)


class Config(Typed):
    """What all configs have; subclass one of the kinds.

    Attributes
    ----------
    kind : str
        ``"run"``, ``"task"`` and so on: among configs of one kind names are unique.

    Notes
    -----
    In documents a class is called by its name. A class that is defined again, in a notebook, takes the place of the
    former one. Of two classes of one kind and name, in different modules, one needs a ``__type__`` of its own. A field
    that is called as an attribute or method that each config has is a TypeError where the class is defined.
    """

    name: Name

    def __str__(self) -> str:
        return str(self.name)

    def verify(self) -> tuple[bool, str]:
        """Return whether the config makes sense, and why it does not; for subclasses. No store asks."""
        return True, f"No validation for this {type(self).__name__}"

    def document(self) -> dict[str, Any]:
        """Return the config as JSON holds it: equal configs have one document, in whatever order a set is.

        Raises
        ------
        DecodeError
            If no document could say of which class it is, as another class has the same name.
        pydantic_core.PydanticSerializationError
            If a field holds what JSON cannot.
        """
        try:
            document = self.model_dump(mode="json", round_trip=True)
        except PydanticSerializationError as error:
            if isinstance(error.__cause__, DecodeError):
                raise error.__cause__ from None
            raise
        _sort_sets(self, document)
        return document


def _sort_sets(value: Any, document: Any) -> None:
    """Sort in *document* what is a set in *value*: sets of strings have another order in each process."""
    if isinstance(value, RootModel):
        value = value.root
    if isinstance(document, list) and isinstance(value, list | tuple | Set) and len(value) == len(document):
        for inner, item in zip(value, document, strict=True):
            _sort_sets(inner, item)
        if isinstance(value, Set):
            document.sort(key=lambda item: json.dumps(item, sort_keys=True))
    elif isinstance(document, dict) and isinstance(value, Mapping):
        for inner, item in zip(value.values(), document.values(), strict=False):  # JSON has other keys
            _sort_sets(inner, item)
    elif isinstance(document, dict):
        aliases = {
            name: field.serialization_alias
            for name, field in getattr(type(value), "model_fields", {}).items()
        }
        for name, inner in getattr(value, "__dict__", {}).items():
            _sort_sets(inner, document.get(name, document.get(aliases.get(name))))


def _class(base: type[Typed], name: Any) -> type[Typed]:
    known = _classes.get(base.kind, {}) if base.kind else _of_any_kind(base)
    found = known.get(name, []) if isinstance(name, str) else []
    if not found:
        raise ValueError(
            f"no class {name!r} of {_plural(base.kind)} is defined here, only {', '.join(sorted(known))}: define or "
            "import it first"
        )
    _require_single(base.kind, name, found)
    return found[0]


def _of_any_kind(base: type[Typed]) -> dict[str, list[type[Typed]]]:
    found: dict[str, list[type[Typed]]] = {}
    for known in _classes.values():
        for name, classes in known.items():
            if fitting := [one for one in classes if issubclass(one, base)]:
                found[name] = [*found.get(name, []), *fitting]
    return found


def _type_of(class_: type[Typed]) -> str:
    if not class_.kind:
        raise DecodeError(f"{class_.__name__} is of no kind: subclass one of the kinds, such as TaskConfig")
    name = _own_type(class_)
    try:
        _require_single(class_.kind, name, _classes[class_.kind][name])
    except ValueError as error:
        raise DecodeError(str(error)) from None
    return name


def _require_single(kind: str, name: str, found: list[type[Typed]]) -> None:
    if len(found) > 1:
        raise ValueError(
            f"{name!r} is the name of {len(found)} classes of {_plural(kind)}, {', '.join(map(full_name, found))}: "
            f"give one of them another name, or a {TYPE} of its own"
        )


def _plural(kind: str) -> str:
    return f"{kind} configs".strip()


def _own_type(class_: type[Typed]) -> str:
    return str(vars(class_).get(TYPE, class_.__name__))


def full_name(class_: type) -> str:
    """Return what a class is called in every process that defines it."""
    module = "__main__" if class_.__module__ == "__mp_main__" else class_.__module__
    return f"{module}.{class_.__qualname__}"


class TaskConfig(Config):
    """What is to be learned, and how it is scored."""

    kind: ClassVar[str] = "task"


class ArchitectureConfig(Config):
    """A network."""

    kind: ClassVar[str] = "architecture"


class TrainerConfig(Config):
    """How a network is trained."""

    kind: ClassVar[str] = "trainer"


class ArrayConfig(Config):
    """An array of data."""

    kind: ClassVar[str] = "array"


class DatasetConfig(Config):
    """A set of data.

    Parameters
    ----------
    weight : int
        How often it is drawn from, against the others.
    """

    kind: ClassVar[str] = "dataset"

    weight: int = 1

    def __hash__(self) -> int:
        return hash(self.name)


class DataSplitConfig(Config):
    """Which data are trained on, and which validated on."""

    kind: ClassVar[str] = "datasplit"


class StartConfig(Typed):
    """The run whose best weights another one starts from; subclass it for fields of your own.

    Parameters
    ----------
    run : str
    criterion : str
        By which they were best.
    """

    kind: ClassVar[str] = "start"

    run: Name
    criterion: str


class RunConfig(Config):
    """A training: the parts that it is made of, and how long it goes on.

    Parameters
    ----------
    repetition : int or None
        Which of several trainings that differ in nothing else.
    num_iterations : int or None
        When to stop.
    validation_interval : int
        Iterations between validations.
    snapshot_interval : int or None
        Iterations between snapshots of the arrays; None for none.
    """

    kind: ClassVar[str] = "run"

    architecture_config: ArchitectureConfig | None = None
    task_config: TaskConfig | None = None
    trainer_config: TrainerConfig | None = None
    datasplit_config: DataSplitConfig | None = None
    repetition: int | None = None
    num_iterations: int | None = None
    batch_size: int = Field(default=1, ge=1)
    num_workers: int = Field(default=0, ge=0)
    validation_interval: int = Field(default=1000, ge=1)
    snapshot_interval: int | None = Field(default=None, ge=1)
    start_config: StartConfig | None = None
    learning_rate: float = 1e-3

    @property
    def train_until(self) -> int | None:
        """Another name of `num_iterations`."""
        return self.num_iterations

    def parts(self) -> list[Config]:
        """Return the configs that the run is made of, those that are given."""
        every = [self.architecture_config, self.task_config, self.trainer_config, self.datasplit_config]
        return [part for part in every if part is not None]


KINDS: dict[str, type[Config]] = {
    one.kind: one
    for one in (
        RunConfig,
        TaskConfig,
        ArchitectureConfig,
        TrainerConfig,
        DataSplitConfig,
        DatasetConfig,
        ArrayConfig,
    )
}

ConfigT = TypeVar("ConfigT", bound=Config)


def restore(base: type[ConfigT], document: Any) -> ConfigT:
    """Return the config of which *document* is the document.

    Parameters
    ----------
    base : type
        Of its kind; also the class of a document without ``__type__``.

    Raises
    ------
    DecodeError
        If a class is not defined here, or a field is missing, unknown or of another type; the text names each.
    """
    try:
        return base.model_validate(document)
    except ValidationError as error:
        lines = [
            f"{_place(one['loc'])}{one['msg']}"
            for one in error.errors(include_url=False, include_input=False)
        ]
        name = document.get("name") if isinstance(document, Mapping) else None
        what = f"the {base.kind} config {name!r}" if name else f"a {base.kind} config"
        raise DecodeError(f"{what} cannot be read: {'; '.join(lines)}") from error


def _place(steps: tuple[int | str, ...]) -> str:
    # Of a field that may be None or one of several, pydantic names the choice, too.
    names = [
        step for step in steps if not (isinstance(step, str) and ("function-wrap" in step or "[" in step))
    ]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in names)
    return f"{path.removeprefix('.')}: " if path else ""
