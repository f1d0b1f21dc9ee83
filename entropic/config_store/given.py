"""What a caller gives to be stored: the document is made and checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import PydanticSerializationError

from entropic.config_store.compare import differences, require_readable, shown
from entropic.configs import KINDS, Config, restore
from entropic.disk.names import check_name
from entropic.errors import DecodeError, DuplicateNameError

__all__ = ["Given", "distinct", "given_of"]


@dataclass(frozen=True)
class Given:
    """A config that is to be stored."""

    kind: str
    name: str
    document: dict[str, Any]
    ignored: frozenset[str]
    """Paths at which one that is stored may differ; ``""`` for all of it."""

    def differences_from(self, stored: Any) -> dict[str, tuple[Any, Any]]:
        """Return where the document of a stored one differs."""
        return differences(_as_stored_now(self.kind, stored), self.document, self.ignored)


def given_of(config: Config, ignored: frozenset[str]) -> Given:
    """Return a config as it is to be stored, or raise."""
    check_name(config.name)  # of a config that was made without validation
    try:
        document = config.document()
    except PydanticSerializationError as error:
        raise DecodeError(
            f"the {config.kind} config {config.name!r} cannot be written: {', '.join(_unwritable('', config))}: "
            f"{error}. Nothing was stored"
        ) from error
    require_readable(config, document)
    return Given(config.kind, config.name, document, ignored)


def _unwritable(path: str, model: Any) -> Iterator[str]:
    """Yield which fields JSON cannot hold, as pydantic does not say."""
    for name in type(model).model_fields:
        try:
            model.model_dump(mode="json", include={name}, warnings=False)
        except PydanticSerializationError:
            inner = getattr(model, name, None)
            is_model = hasattr(type(inner), "model_fields")
            yield from _unwritable(f"{path}{name}.", inner) if is_model else [f"{path}{name}"]


def distinct(configs: Sequence[Given]) -> list[Given]:
    """Return each config once: a dataset may be trained on and validated on."""
    found: dict[tuple[str, str], Given] = {}
    for one in configs:
        former = found.get((one.kind, one.name), one)
        if different := differences(former.document, one.document):
            raise DuplicateNameError(
                f"two {one.kind} configs that are to be stored have the name {one.name!r}: they differ in "
                f"{shown(different, 'in one', 'in the other')}. Give one of them another name"
            )
        found[one.kind, one.name] = replace(one, ignored=former.ignored | one.ignored)
    return list(found.values())


def _as_stored_now(kind: str, document: Any) -> Any:
    """Return the document that a stored config would have now: with fields that were added since, at their defaults."""
    try:
        return restore(KINDS[kind], document).document()
    except DecodeError:
        return document
