"""Which run is this? From the parameters that a user gives to the key of a row, and back.

A `Parameters` knows a model's columns. `identify` brings given values to the columns' types, fills in defaults, and
hashes what is not at its default; `differences` tells whether a row is the one that was asked for. The key of a row
is a function of its columns alone, so a key can be made anew from the table.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import JSON, Column, Dialect, inspect

from entropic.disk.names import safe_name
from entropic.display.hints import did_you_mean
from entropic.errors import HashCollisionError, ParameterError, UnhashableParamError
from entropic.model.base import JSON_DEFAULT, TYPED_CONTENTS, Base, is_output, reserved_of
from entropic.model.coercion import (
    NOT_NULLABLE,
    Caster,
    caster,
    holds,
    is_float,
    kind_of,
    require_held,
    require_levels,
    within,
)
from entropic.model.identities import Documented, Identity
from entropic.model.outputs import Outputs
from entropic.model.portable import dumper, loader
from entropic.model.refused import Refused
from entropic.sql.capacity import Capacity
from entropic.sql.columns import FiniteJSON, GoneMember
from entropic.values.hashing import NoForm, canonical, digest, hash_params, normalise, rounded_apart
from entropic.values.parameter_documents import (
    NOTHING_ELSE,
    BadValue,
    Document,
    Documents,
    Sources,
    alike,
    as_former,
    key_form,
    rebuild,
)

__all__ = ["KEY_RULE", "NO_ROW", "Param", "Parameters"]

KEY_RULE = 1  # registered per table: which rule made its keys

# Relative; looser than the 12 digits of a key, tighter than any single-precision column.
FLOAT_TOLERANCE = 1e-9

_ABSENT: Any = object()
NO_ROW: Any = object()  # instead of a value to look for: no row can have it


@dataclass(frozen=True, slots=True)
class Param:
    """How the values of one parameter are typed, hashed and compared."""

    name: str
    column: Column[Any]
    cast: Caster
    form: Callable[[Any], Any]
    default: Any  # typed; _ABSENT where there is none
    default_form: Any
    is_plain: bool  # the typed value is its own normal form, but for the rounding of floats
    contents: Caster | None  # of a JSON parameter: types what is inside
    capacity: Capacity | None  # of a column that holds less than the model says
    sources: Sources  # of the default


class Parameters:
    """The parameters of one model, on one dialect.

    Parameters
    ----------
    model : type
        Subclass of `entropic.Base`.
    dialect : sqlalchemy.Dialect
        Of the engine that the rows go to: what a column can hold depends on it.
    suffix : str
        Of the results' names: an explicit ``id`` must leave room for it.
    capacities : mapping
        By column, of a table that is there and holds less than the model says.

    Attributes
    ----------
    outputs : Outputs
        The columns that are none.

    Raises
    ------
    ParameterError
        If a column's default is not a value of the column.
    """

    def __init__(
        self,
        model: type[Base],
        dialect: Dialect,
        suffix: str = "",
        capacities: Mapping[str, Capacity] | None = None,
    ) -> None:
        self.model = model
        self.suffix = suffix
        self.capacities = dict(capacities or {})
        self._dialect = dialect
        self._reserved = reserved_of(model)
        attributes = [a for a in inspect(model).column_attrs if a.key not in self._reserved]
        self._name = model.__entropic__.title or model.__name__
        self._ignored = model.__entropic__.ignored
        self._has_former_keys = not model.__entropic__.is_derived
        self._columns: dict[str, Any] = {a.key: a.columns[0] for a in attributes}
        self._keys: dict[str, str] = {name: column.key for name, column in self._columns.items()}
        outputs = {name: column for name, column in self._columns.items() if is_output(column)}
        self._params = {
            name: self._make(name, column, dialect)
            for name, column in self._columns.items()
            if name not in outputs
        }
        self.outputs = Outputs(self._name, outputs, dialect, {*self._reserved, *self._params})
        self._defaults = {name: p.default for name, p in self._params.items() if p.default is not _ABSENT}
        self._dump = {name: dumper(p.column) for name, p in self._params.items()}
        self._load = {name: loader(p.column) for name, p in self._params.items()}
        self._required = self._params.keys() - self._defaults.keys()
        self._documents = frozenset(name for name, p in self._params.items() if p.contents is not None)
        self._default_sources = {
            name: p.sources for name, p in self._params.items() if p.sources is not NOTHING_ELSE
        }

    @property
    def names(self) -> list[str]:
        """The parameters, in the order of the model."""
        return list(self._params)

    @property
    def params(self) -> Mapping[str, Param]:
        """How each parameter is typed and hashed, in the order of the model."""
        return self._params

    @property
    def dialect(self) -> Dialect:
        """That of the rows."""
        return self._dialect

    @property
    def ignored(self) -> frozenset[str]:
        """What may be given besides, and identifies nothing."""
        return self._ignored

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters that have a key default, each with it as its column holds it."""
        return dict(self._defaults)

    def typed_filters(self, equals: Mapping[str, Any]) -> dict[str, Any]:
        """Return values to compare columns with, typed as `identify` types parameters.

        Raises
        ------
        ParameterError
            If the model has no such column, it cannot hold the value, or it is JSON, which SQL cannot compare.

        Notes
        -----
        `NO_ROW` stands for what the column cannot hold: some databases call it an error to ask for it.
        """
        typed = {}
        for name, value in equals.items():
            column = self._columns.get(name)
            if column is None and name not in self._reserved:
                raise self._unknown(name)
            if name == "custom_data" or (column is not None and isinstance(column.type, JSON | FiniteJSON)):
                raise ParameterError(
                    f"{self._name}.{name} is JSON, which SQL cannot compare: select the records by other columns and "
                    "filter them in Python"
                )
            typed[name] = self._filter(name, inspect(self.model).column_attrs[name].columns[0], value)
        return typed

    def _filter(self, name: str, column: Any, value: Any) -> Any:
        enum_class = getattr(column.type, "enum_class", None)
        if isinstance(value, list | tuple | set):
            raise ParameterError(
                f"{self._name}.{name} is compared with one value, not with {value!r:.80}; one of several is a "
                f"condition, as in records(Model.{name}.in_([...]))"
            )
        is_name = isinstance(value, str) and not isinstance(value, enum.Enum) and enum_class is not None
        if is_name and value not in column.type.enums:
            value = GoneMember(enum_class, value)  # type: ignore[arg-type]
        is_gone = isinstance(value, GoneMember) and enum_class is not None
        try:
            typed = value if is_gone else caster(column, self._dialect)(value)
        except (Refused, UnhashableParamError) as reason:
            raise self._unfit(name, reason) from reason.__cause__
        capacity = self.capacities.get(column.name)
        is_held = typed is None or capacity is None or holds(capacity, column, self._dialect, typed)
        return typed if is_held else NO_ROW

    def dump(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return typed *values* as JSON can hold them; `load` gives them back."""
        return {name: self._dump[name](value) for name, value in values.items()}

    def load(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the typed values of what `dump` made; names that the model has no more are left out."""
        load = self._load
        values = {**self._defaults, **{name: load[name](stored[name]) for name in stored if name in load}}
        return {name: values[name] for name in self._params if name in values}

    def for_people(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `dump` made as it was given; documents stay where only the caller has the classes or arrays."""
        values = self.load(stored)
        for name in self._documents & values.keys():
            with suppress(KeyError):
                values[name] = rebuild(values[name], NOTHING_ELSE)
        return values

    def by_column(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values by the key of their column in the table instead of by attribute name."""
        return {self._keys[name]: value for name, value in values.items()}

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return what the database remembers of the model: per parameter its type and, if it has one, its default.

        Of what identifies nothing it remembers just that: the rows may be runs at any value of it.
        """
        described: dict[str, dict[str, Any]] = {
            name: {"type": kind_of(p.column)}
            | ({} if p.default is _ABSENT else {"default": _speakable(p.default_form)})
            for name, p in self._params.items()
        }
        return described | {name: {"ignored": True} for name in sorted(self._ignored)}

    def identify(self, params: Mapping[str, Any], *, complete: bool = True) -> Identity:
        """Type *params*, fill in defaults, and make the key.

        Parameters
        ----------
        params : mapping
            Reserved names are harmless; an ``id`` is the key, verbatim.
        complete : bool
            Whether every parameter must be known, as for a run. Without, an ``id`` alone will do.

        Raises
        ------
        ParameterError
            If a name is unknown, a required one is missing, or a value does not fit its column.
        UnhashableParamError
            If a value has no stable hash.
        """
        if type(params) is not dict:
            self._require_mapping(params)
        values = dict(self._defaults)
        forms: dict[str, Any] = {}
        originals: dict[str, Any] = {}
        members: dict[str, str] = {}
        ignored: dict[str, Any] = {}
        json = Documented(dict(self._default_sources), self._has_former_keys)
        for name, value in params.items():
            p = self._params.get(name)
            if p is None:
                if name in self._ignored:
                    ignored[name] = value
                elif name not in self._reserved:
                    raise self._unknown(name)
                continue
            if p.contents is not None:
                values[name], form = json.add(name, self.document(p, value, json.documents))
            else:
                try:
                    typed = values[name] = p.cast(value)
                except (Refused, UnhashableParamError) as reason:
                    raise self._unfit(name, reason) from reason.__cause__
                form = p.form(typed)
                if typed is not value or not p.is_plain or (type(form) is float and _is_apart(typed, form)):
                    json.has_changed = True
                    if isinstance(value, enum.Enum):
                        if type(typed) is str:
                            members[name] = str(value)
                        elif isinstance(typed, enum.Enum):
                            # Of the class as it is now, with which the runner compares it.
                            originals[name] = value
            if p.default is not _ABSENT and _same(form, p.default_form, p.is_plain):
                json.has_changed = True
                members.pop(name, None)
            else:
                forms[name] = form
        if (complete or "id" not in params) and not self._required <= values.keys():
            raise self._incomplete(values)
        given, former = None, None
        if "id" in params:
            given = frozenset(name for name in params if name in self._params)
            key = self._explicit(params["id"])
        else:
            key = digest(forms)
            former = self._former_key(params, key) if json.has_changed and json.is_former else None
        return Identity(
            key,
            former,
            values,
            given,
            json.sources,
            originals,
            members,
            ignored,
            self._documents,
            json.has_tuples,
        )

    def _require_mapping(self, params: Any) -> None:
        if not isinstance(params, Mapping):
            name = next(iter(self._params), "n")
            raise ParameterError(
                f"the parameters of {self._name} are a dict by name, as in {{{name!r}: ...}}, not {params!r:.200}"
            )

    def _explicit(self, given: Any) -> str:
        if given is None or (isinstance(given, float) and math.isnan(given)):  # which a frame has for None
            raise ParameterError(
                f"the id of {self._name} is {given!r}: leave it out, for the key of the parameters, or give a text"
            )
        key = safe_name(str(given), self.suffix)
        capacity = self.capacities.get("id")
        if capacity is not None and (reason := capacity.refusal(key, key)) is not None:
            raise ParameterError(f"the id {key!r} {reason}")
        return key

    def document(self, p: Param, value: Any, documents: Documents) -> Document:
        """Return the document of a JSON parameter; None is NULL."""
        if value is None and not p.column.nullable:
            raise ParameterError(f"{self._name}.{p.name} is None, {NOT_NULLABLE}")
        try:
            document = documents.of(value if value is None else p.contents(value))  # type: ignore[misc]
            if p.capacity is not None:
                require_held(p.capacity, document.stored)
            require_levels(document.stored, self._dialect)
        except (Refused, BadValue) as reason:
            raise ParameterError(f"{self._name}.{p.name}{_place(reason)} {reason}") from reason.__cause__
        except NoForm as reason:
            raise UnhashableParamError(
                f"{self._name}.{p.name}{_place(reason)} {reason}"
            ) from reason.__cause__
        return document

    def _unfit(self, name: str, reason: Refused | UnhashableParamError) -> Exception:
        if isinstance(reason, UnhashableParamError):
            return UnhashableParamError(f"{self._name}.{name}: {reason}")
        return ParameterError(f"{self._name}.{name} {reason}")

    def _former_key(self, params: Mapping[str, Any], key: str) -> str | None:
        try:
            former = hash_params(params)
        except UnhashableParamError:  # 2.3 would have taken its str(), which identifies nothing
            return None
        return None if former == key else former

    def differences(
        self, identity: Identity, row: Mapping[str, Any], *, is_former: bool = False
    ) -> dict[str, tuple[Any, Any]]:
        """Return, for each parameter in which *row* is not *identity*, both values: asked for, stored.

        Parameters
        ----------
        is_former : bool
            Whether the published release wrote the row, which has lists for tuples.
        """
        different = {}
        values, given = identity.values, identity.given
        for name, p in self._params.items():
            if given is not None and name not in given:
                continue
            wanted, stored = values[name], row[name]
            if p.is_plain and wanted == stored:
                continue
            if stored is not None and identity.members.get(name) == stored:
                continue
            if is_former and p.contents is not None:
                wanted = as_former(wanted)
            if not self.is_equal(p, wanted, stored):
                different[name] = (wanted, stored)
        return different

    def is_equal(self, p: Param, wanted: Any, stored: Any) -> bool:
        """Whether a typed value and that of a row are one run's, for parameter *p*."""
        if stored is None:
            # A row from before the column was added holds NULL: the run that it was is the one at the default.
            return wanted is None or (
                p.default is not _ABSENT and _same(p.form(wanted), p.default_form, p.is_plain)
            )
        if wanted is None:
            return False
        if p.contents is not None:
            return alike(wanted, stored)
        if isinstance(wanted, float) and isinstance(stored, float):
            is_close = math.isclose(wanted, stored, rel_tol=FLOAT_TOLERANCE, abs_tol=0.0)
            return is_close or rounded_apart(wanted) == rounded_apart(stored)
        try:
            typed = p.cast(stored)
        except (Refused, UnhashableParamError):
            return False
        return canonical(p.form(wanted)) == canonical(p.form(typed))

    def verify(self, identity: Identity, row: Mapping[str, Any]) -> None:
        """Raise `HashCollisionError` unless *row*, found under the key, is *identity*."""
        if different := self.differences(identity, row):
            what = "; ".join(f"{n}: asked for {a!r}, stored {b!r}" for n, (a, b) in different.items())
            raise HashCollisionError(
                f"the row {identity.id!r} of {self.model.__tablename__!r} holds other parameters ({what}). "
                "Nothing was run or changed. If the row was edited by hand, mend or delete it; "
                "else give one of the two an id of its own."
            )

    def _make(self, name: str, column: Column[Any], dialect: Dialect) -> Param:
        capacity = self.capacities.get(column.name)
        cast = within(capacity, column, dialect)
        plain = is_float(column) or _is_plain(column)
        form: Callable[[Any], Any] = _float_form if is_float(column) else _itself if plain else _form
        if kind_of(column) == "enum":
            form = _name_of
        contents: Caster | None = None
        if kind_of(column) == "json":
            typed_contents = column.info.get(TYPED_CONTENTS)
            contents = typed_contents(dialect) if typed_contents else _itself
            form = key_form
        p = Param(name, column, cast, form, _ABSENT, _ABSENT, plain, contents, capacity, NOTHING_ELSE)
        if column.default is not None and column.default.is_scalar:
            default = column.default.arg  # type: ignore[attr-defined]
            return self._with_default(p, column.info.get(JSON_DEFAULT, default))
        if column.default is None and column.server_default is None and column.nullable:
            return replace(p, default=None, default_form=form(None))
        return p

    def _with_default(self, p: Param, value: Any) -> Param:
        if p.contents is None:
            try:
                default = p.cast(value)
            except Refused as reason:
                raise ParameterError(f"the default of {self._name}.{p.name} {reason}") from None
            return replace(p, default=default, default_form=p.form(default))
        documents = Documents()
        try:
            document = self.document(p, value, documents)
        except (ParameterError, UnhashableParamError) as error:
            raise type(error)(f"the default of {error}") from None
        sources = NOTHING_ELSE if document.is_plain else documents.sources
        return replace(p, default=document.stored, default_form=document.key, sources=sources)

    def _unknown(self, name: str) -> ParameterError:
        if name in self.outputs.names:
            return ParameterError(
                f"{self._name}.{name} is an output: the runner returns it, it cannot be given as a parameter"
            )
        hint = did_you_mean(name, self._params) or "."
        return ParameterError(
            f"{self._name} has no parameter {name!r}{hint} It has: {', '.join(self._params)}."
        )

    def _incomplete(self, values: Mapping[str, Any]) -> ParameterError:
        missing = [name for name in self._params if name not in values]
        return ParameterError(
            f"{self._name} needs {', '.join(map(repr, missing))}, which "
            f"{'was' if len(missing) == 1 else 'were'} not given and ha{'s' if len(missing) == 1 else 've'} "
            f"no default. It has: {', '.join(self._params)}."
        )


def _is_plain(column: Column[Any]) -> bool:
    """Whether a value of *column* is its own normal form."""
    return kind_of(column) in {"int", "str", "bool"}


def _itself(value: Any) -> Any:
    return value


def _float_form(value: float | None) -> float | None:
    return None if value is None else rounded_apart(value)


def _is_apart(number: float, form: float) -> bool:
    """Whether the published release 2.3, which rounds to 12 decimals, gives a number another form."""
    # The two agree where a decimal moves it by less than 1e-9 of itself.
    return not abs(number) >= 1e-3 and form != round(number, 12)


def _form(value: Any) -> Any:
    return normalise(value, rounded_apart)


def _name_of(value: Any) -> Any:
    """Return the name of a member, which is the choice: its value may be another one tomorrow."""
    return getattr(value, "name", value)


def _same(form: Any, default_form: Any, is_plain: bool) -> bool:
    # What is one as JSON is equal; but True is 1, and 1.0 is 1, where they are equal only.
    return bool(form == default_form) and (is_plain or canonical(form) == canonical(default_form))


def _speakable(form: Any) -> Any:
    """Return a default's normal form as JSON can hold it."""
    return str(form) if isinstance(form, float) and not math.isfinite(form) else form


def _place(reason: Refused | NoForm) -> str:
    """Return the way to what was refused within a value; of one that contains itself the beginning."""
    steps = reason.steps[::-1]
    return "".join(steps if len(steps) <= 20 else [*steps[:20], "..."])
