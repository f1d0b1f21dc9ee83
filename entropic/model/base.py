"""What a table may look like: `Base`, `param`, `output`, and column types that hold on every database.

A user's model subclasses `Base`. Its columns are parameters, and in the key, unless declared with `output()`; four
reserved columns belong to the library. The library's own tables live on `LibraryBase`, with metadata of their own, so
that neither's migrations ever see the other's. The types in `TYPES` mean the same on SQLite, PostgreSQL, MySQL and
MariaDB: doubles, 64-bit integers, strings compared bytewise, UTC times to the microsecond, JSON without NaN.
"""

from __future__ import annotations

import enum
import inspect
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, ForwardRef, get_args, get_origin

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Enum,
    MetaData,
    String,
    Table,
    TextClause,
    false,
    literal,
    text,
    true,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import (
    ColumnProperty,
    DeclarativeBase,
    InspectionAttr,
    Mapped,
    MappedColumn,
    declared_attr,
    mapped_column,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import NullType, TypeEngine

from entropic.display.hints import did_you_mean
from entropic.display.text import short
from entropic.errors import ResultFileMissingError, SchemaError
from entropic.model.annotations import Kind, Unsupported, column_problem, kind_of, shown
from entropic.model.contents import contents_of
from entropic.model.redefined import replace_former
from entropic.model.tracked import TrackedDict
from entropic.sql.columns import (
    ID_LENGTH,
    LONG_TEXT,
    NAMING,
    TYPES,
    ByteString,
    Choice,
    FiniteJSON,
    UTCDateTime,
    exact_decimal,
)
from entropic.sql.limits import quote_columns
from entropic.sql.widths import SQLITE_DIGITS

__all__ = [
    "HIDING",
    "JSON_DEFAULT",
    "RECORDED",
    "RESERVED",
    "RESULT_VALUE",
    "TYPED_CONTENTS",
    "Base",
    "CallBase",
    "ModelOptions",
    "is_output",
    "output",
    "param",
    "reserved_of",
    "table_key",
]

RESERVED = ("id", "result_file", "created_at", "custom_data")
RESULT_VALUE = "result_value"

# Keys in Column.info.
OUTPUT = "entropic_output"
OWN_SERVER_DEFAULT = "entropic_server_default"  # which `param` made of the default, as for a typed column
JSON_DEFAULT = "entropic_default"  # the value of which the default of a JSON column is the document
TYPED_CONTENTS = "entropic_contents"  # of a JSON column: makes, for a dialect, what types the values in it

# What SQLAlchemy makes something of where a class has it, each a column being a SchemaItem.
_OF_ORM = (InspectionAttr, MappedColumn, SchemaItem, declared_attr)

# Attribute of a record that a Store returns: path, size and digest of its result.
RECORDED = "_entropic_recorded"


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What else there is to know of a model; all of it is for those that the library derives from a function.

    Attributes
    ----------
    title : str
        What messages call the model; empty for the name of its class.
    ignored : frozenset of str
        What may be given with the parameters and reaches the runner, but is neither in the key nor in the row.
    is_derived : bool
        Whether the library made the model: its table is the library's to alter, and no earlier release wrote to it.
    """

    title: str = ""
    ignored: frozenset[str] = frozenset()
    is_derived: bool = False


class Base(DeclarativeBase):
    """Base of the user's models: one table, one column a parameter, one row a result.

    Attributes
    ----------
    id : str
        Primary key: 16 hexadecimal digits, the hash of the parameters that are not at their default; or the
        ``id`` that was given.
    result_file : str
        Absolute path of the result as its writer saw it.
    created_at : datetime
        When the run ended; aware, UTC.
    custom_data : dict
        JSON; changes made in place are tracked. Not in the key.

    Raises
    ------
    SchemaError
        At class creation, if a reserved column is redefined, if a column would hide a method of the records, if an
        annotation, or a value beside one, makes no column, if there is a `column_property`, or if another class has the
        same table.

    Notes
    -----
    Defining a model again (same module, qualified name and table, as when a notebook's cell runs twice) replaces
    the old class. Records of the old class stay readable.
    """

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = TYPES
    __entropic__ = ModelOptions()

    if TYPE_CHECKING:
        id: Mapped[str]
        result_file: Mapped[str]
        created_at: Mapped[datetime]
        custom_data: Mapped[dict[str, Any]]
    else:  # without annotations, which SQLAlchemy would refuse to a model that is a MappedAsDataclass
        id = mapped_column(ByteString(ID_LENGTH), primary_key=True, sort_order=-4)
        result_file = mapped_column(LONG_TEXT, nullable=False, sort_order=-3)
        created_at = mapped_column(
            UTCDateTime(), insert_default=lambda: datetime.now(UTC), nullable=False, sort_order=-2
        )
        custom_data = mapped_column(
            TrackedDict.as_mutable(FiniteJSON()), insert_default=dict, nullable=False, sort_order=-1
        )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        _refuse_reserved(cls)
        _refuse_hiding(cls)
        _refuse_values(cls)
        _refuse_expressions(cls)
        replace_former(cls)
        documented = _documented(cls)
        of_users = cls.registry.type_annotation_map
        annotations = [kind.annotation for kind in documented.values() if kind.annotation not in of_users]
        cls.registry.update_type_annotation_map({one: FiniteJSON() for one in annotations})
        try:
            super().__init_subclass__(**kwargs)
        except BaseException as error:
            cls.registry._dispose_cls(cls)  # else the mended class would be warned of
            if isinstance(error, ArgumentError) and (problem := _annotation_problem(cls)):
                raise SchemaError(problem) from error
            raise
        if isinstance(table := cls.__dict__.get("__table__"), Table):
            quote_columns(table)
            _keep_values(table)
            _type_contents(cls, documented)

    def __repr__(self) -> str:
        # Of what is here: to ask for more, an attribute that has expired would go to the database.
        hidden = {*reserved_of(type(self))} - {"id"}
        names = [a.key for a in self.__mapper__.column_attrs if a.key not in hidden]
        shown = ", ".join(f"{name}={short(vars(self)[name])}" for name in names if name in vars(self))
        return f"{self.__entropic__.title or type(self).__name__}({shown})"

    def load(self, *, verify: bool = False) -> Any:
        """Return what the result file holds, read by its suffix.

        npy gives an array, npz and HDF5 dicts of arrays, zarr either, JSON what it says, CSV and parquet a DataFrame,
        netCDF a Dataset; `register_loader` adds suffixes. A memoized call's gives the value that the function returned,
        whether that is a file or stands in the row.

        Parameters
        ----------
        verify : bool
            Read the whole result first, and compare its size and SHA-256 with those of the run.

        Raises
        ------
        ResultFileMissingError
            If the file is not there, or there is no digest to *verify* it with.
        CorruptFileError
            If it is not what the run wrote, or was changed while it was verified and read.
        ValueError
            If there is no loader for its suffix.
        DecodeError
            If it claims to hold more than its bytes can, or leads to other files.
        ImportError
            If its loader needs a package that is not installed.
        """
        path, size, sha256 = vars(self).get(RECORDED, (self.result_file, None, None))
        recorded = None if sha256 is None else (size, sha256)
        if path is None:
            from entropic.values.row_texts import load_text

            return load_text(_text_of(self), recorded, record_id=self.id, verify=verify)
        from entropic.values.codecs import load

        return load(path, recorded, verify=verify)

    def open(self) -> Any:
        """Open the result file for reading, without reading all of it.

        HDF5 gives an `h5py.File`, npy an array that is mapped into memory, npz, parquet, netCDF and zarr what their
        libraries open; JSON and CSV a text file, any other suffix a binary one. A value that stands in the row is a
        text file in memory, of its typed JSON. Close what can be closed.

        Raises
        ------
        ResultFileMissingError
            If the file is not there.
        IsADirectoryError
            If it is a folder, and none of zarr's.
        ImportError
            If that needs a package that is not installed.
        """
        path = vars(self).get(RECORDED, (self.result_file,))[0]
        if path is None:
            from entropic.values.row_texts import open_text

            return open_text(_text_of(self))
        from entropic.values.codecs import open_file

        return open_file(path)

    def apply_patch(self, data: Mapping[str, Any]) -> None:
        """Change attributes from a mapping, as a partial update.

        Parameters
        ----------
        data : mapping
            ``None`` values are skipped. ``custom_data`` is merged: a key that is ``None`` in it is removed, ``{}``
            clears it, ``None`` leaves it.

        Raises
        ------
        AttributeError
            If a key is no column of the model, or ``id`` would change. Nothing is changed then.
        """
        columns = {attribute.key for attribute in self.__mapper__.column_attrs}
        if unknown := sorted(set(data) - columns):
            raise AttributeError(
                f"{type(self).__name__} has no column {', '.join(map(repr, unknown))}"
                f"{did_you_mean(unknown[0], columns)} It has: {', '.join(sorted(columns))}."
            )
        if data.get("id") not in (None, self.id):
            raise AttributeError(
                f"the id of a record cannot change (from {self.id!r} to {data['id']!r}): it is the key of its "
                "parameters. Run or register the other ones"
            )
        for key, value in data.items():
            if key == "custom_data":
                self._apply_custom_data_patch(value)
            elif value is not None:
                setattr(self, key, value)

    def _apply_custom_data_patch(self, patch: Mapping[str, Any] | None) -> None:
        if patch is None:
            return
        merged = {**(self.custom_data or {}), **patch} if patch else {}
        self.custom_data = {key: value for key, value in merged.items() if patch.get(key, value) is not None}


HIDING = frozenset(name for name in dir(Base) if name not in RESERVED and not name.startswith("__"))
"""Names that a column cannot have: it would hide what every record or model has."""


def param(*args: Any, **kwargs: Any) -> MappedColumn[Any]:
    """Declare a parameter: a column that is in the key unless it is at its default.

    Takes what `sqlalchemy.orm.mapped_column` takes.

    Parameters
    ----------
    default : scalar, optional
        The key default: giving this value and leaving the parameter out are one run. It becomes the server default
        too, so that the column can be added to a table with rows. A callable is no key default.

    Raises
    ------
    SchemaError
        If a default, or a type of Python's, is given without a name.

    Examples
    --------
    >>> class Decay(Base):
    ...     __tablename__ = "decay"
    ...     rate: Mapped[float]
    ...     noise: Mapped[float] = param(default=0.0)
    """
    _refuse_positional("param", args)
    default = kwargs.get("insert_default", kwargs.get("default"))
    if "server_default" not in kwargs and (clause := _server_default(default)) is not None:
        kwargs["server_default"] = clause
        kwargs["info"] = {**kwargs.get("info", {}), OWN_SERVER_DEFAULT: True}
    if getattr(kwargs.get("default"), "shape", ()):
        # SQLAlchemy compares the other one, which arrays refuse.
        kwargs["insert_default"] = kwargs.pop("default")
    return mapped_column(*args, **kwargs)


def output(*args: Any, **kwargs: Any) -> MappedColumn[Any]:
    """Declare an output: a nullable column that is not in the key, filled from the mapping that the runner returns.

    Takes what `sqlalchemy.orm.mapped_column` takes, and raises what `param` raises.

    Examples
    --------
    >>> class Fit(Base):
    ...     __tablename__ = "fit"
    ...     degree: Mapped[int]
    ...     rmse: Mapped[float | None] = output()
    """
    _refuse_positional("output", args)
    kwargs["nullable"] = True
    kwargs["info"] = {**kwargs.get("info", {}), OUTPUT: True}
    return mapped_column(*args, **kwargs)


def _text_of(record: Any) -> str:
    """Return the value that stands in the row of *record*."""
    text: str | None = getattr(record, RESULT_VALUE, None)
    if text is None:
        raise ResultFileMissingError(
            f"the row {record.id!r} has neither a result file nor a value: the next call runs it again"
        )
    return text


def _server_default(value: Any) -> ColumnElement[Any] | TextClause | str | None:
    """Return *value* as SQL where all databases agree on it; MySQL takes no default on BLOB, TEXT and JSON."""
    if isinstance(value, enum.Enum):
        return None  # the column knows what it makes of it
    if isinstance(value, bool):
        return true() if value else false()
    if isinstance(value, float):
        return text(repr(value)) if math.isfinite(value) else None
    if isinstance(value, int | Decimal):
        return text(str(value))
    if isinstance(value, str):
        return literal(value, String())
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    return None


def _refuse_positional(function: str, args: tuple[Any, ...]) -> None:
    for given in args:
        class_ = given if isinstance(given, type) else type(given)
        if given is not None and not issubclass(class_, str | TypeEngine | SchemaItem):
            raise SchemaError(
                f"{function}({given!r:.100}) makes no column: a default is given by name, as in param(default=...), "
                "and a type of Python's by the annotation, as in Mapped[float]"
            )


def is_output(column: Any) -> bool:
    """Whether *column* was declared with `output()`."""
    return bool(column.info.get(OUTPUT))


def _refuse_reserved(cls: type[Base]) -> None:
    for parent in cls.__mro__[: cls.__mro__.index(Base)]:
        if parent.__module__ == __name__:  # the library's own
            continue
        own = {**parent.__dict__, **inspect.get_annotations(parent)}
        taken = [name for name in RESERVED if name in own]
        taken += [
            value.column.name
            for value in parent.__dict__.values()
            if isinstance(value, MappedColumn) and value.column.name in RESERVED
        ]
        if taken:
            raise SchemaError(
                f"{parent.__qualname__} redefines {', '.join(sorted(set(taken)))}: the columns {', '.join(RESERVED)} "
                "are the library's. Give the attribute or column another name."
            )


def _refuse_hiding(cls: type[Base]) -> None:
    for parent in cls.__mro__[: cls.__mro__.index(Base)]:
        annotations = inspect.get_annotations(parent)
        hidden = sorted(
            name
            for name in HIDING
            if isinstance(parent.__dict__.get(name), MappedColumn) or _is_mapped(annotations.get(name))
        )
        if hidden:
            raise SchemaError(
                f"{parent.__qualname__} has the column {hidden[0]!r}, which would hide {hidden[0]!r} of its records. "
                f"Give the attribute another name, such as {hidden[0] + '_'!r}; its column may keep the name: "
                f"{hidden[0]}_: Mapped[...] = param({hidden[0]!r})"
            )


def _refuse_values(cls: type[Base]) -> None:
    """Refuse a plain value where a column is meant: SQLAlchemy would leave it out, and no key would have it."""
    for parent in cls.__mro__[: cls.__mro__.index(Base)]:
        if "__dataclass_fields__" in vars(parent):
            continue  # its attributes may be the defaults of its fields by now
        for name, annotation in inspect.get_annotations(parent).items():
            value = vars(parent).get(name)
            if value is None or isinstance(value, _OF_ORM) or not _is_mapped(annotation):
                continue
            is_uncalled = any(value is one for one in (param, output, mapped_column))
            meant = f"{value.__name__}()" if is_uncalled else f"param(default={value!r:.100})"
            raise SchemaError(
                f"{parent.__qualname__}.{name} = {value!r:.100} makes no column: write {name}: Mapped[...] = {meant}"
            )


def _refuse_expressions(cls: type[Base]) -> None:
    for parent in cls.__mro__[: cls.__mro__.index(Base)]:
        for name, value in vars(parent).items():
            if isinstance(value, ColumnProperty) and not isinstance(value.columns[0], Column):
                raise SchemaError(
                    f"{parent.__qualname__}.{name} is a column_property, which is no column of the table, so that no "
                    "record would have it: make it a property, or a hybrid_property to ask for it in SQL"
                )


def _is_mapped(annotation: Any) -> bool:
    return get_origin(annotation) is Mapped or (isinstance(annotation, str) and "Mapped[" in annotation)


def _documented(cls: type[Base]) -> dict[str, Kind]:
    """Return, of the columns that *cls* annotates, what those are that may hold documents, by attribute name."""
    found = {}
    for parent in reversed(cls.__mro__[: cls.__mro__.index(Base)]):
        for name, annotation in list(inspect.get_annotations(parent).items()):
            evaluated = _evaluated(parent, annotation)
            if get_origin(evaluated) is not Mapped:
                continue
            try:
                kind = kind_of(get_args(evaluated)[0])
            except Unsupported:
                continue
            if kind.is_json:
                found[name] = kind
                # SQLAlchemy 2.0 would read a string as dict['str', 'Any'].
                parent.__annotations__[name] = evaluated
    return found


def _annotation_problem(cls: type[Base]) -> str | None:
    """Say which annotation makes no column, and what would make one; None if it is not an annotation's fault."""
    for parent in cls.__mro__[: cls.__mro__.index(Base)]:
        for name, annotation in inspect.get_annotations(parent).items():
            if name.startswith("__") or not _wants_a_column(parent.__dict__.get(name)):
                continue
            evaluated = _evaluated(parent, annotation)
            if evaluated is Mapped:
                return f"{parent.__qualname__}.{name} is annotated as Mapped: say of what, as in {name}: Mapped[int]"
            if isinstance(evaluated, type):
                return (
                    f"{parent.__qualname__}.{name} is annotated as {shown(evaluated)}, which makes no column: write "
                    f"{name}: Mapped[{shown(evaluated)}], or ClassVar[{shown(evaluated)}] for what is none"
                )
            inner = get_args(evaluated)[0] if get_origin(evaluated) is Mapped else None
            if inner is None or isinstance(inner, ForwardRef) or inner in cls.registry.type_annotation_map:
                continue
            if reason := column_problem(inner):
                return (
                    f"{parent.__qualname__}.{name} is annotated as Mapped[{shown(inner)}], {reason}. Use a type such "
                    "as int, float, str, bool, datetime, an Enum, a Literal, list, dict, numpy.ndarray or a "
                    "dataclass; or give the column a SQLAlchemy type, as in param(sqlalchemy.String(80))"
                )
    return None


def _wants_a_column(value: Any) -> bool:
    """Whether an attribute of a class, None if it has none, is a column whose annotation says its type."""
    return value is None or (isinstance(value, MappedColumn) and isinstance(value.column.type, NullType))


def _evaluated(parent: type, annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    namespace = vars(sys.modules[parent.__module__]) if parent.__module__ in sys.modules else {}
    try:
        return eval(annotation, dict(namespace), dict(vars(parent)))
    except (NameError, AttributeError, SyntaxError, TypeError):
        return None  # of names that only type checkers see; SQLAlchemy reports what it needs itself


def _type_contents(cls: type[Base], documented: Mapping[str, Kind]) -> None:
    """Let the annotations of JSON columns type what is inside, if they say what that is: a bare `list` does not."""
    for attribute in cls.__mapper__.column_attrs:
        column: Any = attribute.columns[0]
        kind = documented.get(attribute.key)
        if kind is None or kind.annotation in (list, dict) or not isinstance(column.type, FiniteJSON | JSON):
            continue
        column.info.setdefault(TYPED_CONTENTS, partial(contents_of, kind.annotation))


def _keep_values(table: Table) -> None:
    """Let rows be read whose Enum members or Literal choices are gone, and decimals have more digits than doubles."""
    for column in table.columns:
        if type(column.type) is Enum:
            column.type = Choice(enum=column.type)
        elif isinstance(column.type, FiniteJSON | JSON):
            if column.info.get(OWN_SERVER_DEFAULT):
                column.server_default = None  # a bare text is no JSON
        else:
            column.type = exact_decimal(column.type, from_digits=SQLITE_DIGITS + 1)


def table_key(model: type[Any]) -> str:
    """Return the name under which the library knows a model's table: with its schema, where it has one."""
    return str(model.__table__.fullname)


def reserved_of(model: type[Base]) -> tuple[str, ...]:
    """Return the columns of *model* that are neither parameters nor outputs."""
    return (*RESERVED, RESULT_VALUE) if issubclass(model, CallBase) else RESERVED


class CallBase(Base):
    """Base of the models that the library derives from functions: small values stand in their rows.

    Of ``result_file`` and ``result_value``, typed JSON, each row has exactly one.
    """

    __abstract__ = True
    result_file = mapped_column(LONG_TEXT, nullable=True, sort_order=-3)
    result_value = mapped_column(LONG_TEXT, nullable=True, sort_order=-3)
