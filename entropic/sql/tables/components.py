"""Components that were computed with, what each of them got its input from, and which data of theirs are kept.

Not imported with the other tables: a plain Store has no use for them. A component's state has the same row in every
process: by the digest of its key.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from entropic.sql.columns import LONG_TEXT, ByteString, LibraryBase

__all__ = [
    "ComponentInputRow",
    "ComponentParameterRow",
    "ComponentStateRow",
    "ComponentTypeRow",
    "DataFileRow",
    "DataItemRow",
]

STATE = "entropic_component_states.id"


class ComponentTypeRow(LibraryBase):
    """A class of components, in one version of its source code."""

    __tablename__ = "entropic_component_types"

    id: Mapped[int] = mapped_column(primary_key=True)
    full_type: Mapped[str] = mapped_column(ByteString(255))
    version: Mapped[str] = mapped_column(ByteString(255))

    __table_args__ = (UniqueConstraint("full_type", "version"),)


class ComponentStateRow(LibraryBase):
    """A component: its type, its parameters and, in rows of their own, its inputs."""

    __tablename__ = "entropic_component_states"

    id: Mapped[int] = mapped_column(primary_key=True)
    """Greater than those of its inputs."""
    type_id: Mapped[int] = mapped_column(ForeignKey("entropic_component_types.id"), index=True)
    key: Mapped[str] = mapped_column(LONG_TEXT)
    """What the key generator made; what is not ASCII is escaped as in JSON."""
    key_digest: Mapped[str] = mapped_column(ByteString(64), unique=True)
    identity: Mapped[str] = mapped_column(ByteString(64))
    """Digest of type, version, parameters and inputs: it tells two components that a generator gives one key."""
    parameters: Mapped[str] = mapped_column(LONG_TEXT)
    """JSON, keys sorted."""
    parameters_url: Mapped[str | None] = mapped_column(LONG_TEXT)
    created_at: Mapped[datetime]


class ComponentParameterRow(LibraryBase):
    """A parameter of a component, by a digest of its name, in parts, and its value: by it components are found."""

    __tablename__ = "entropic_component_parameters"

    state_id: Mapped[int] = mapped_column(ForeignKey(STATE), primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(ByteString(64), primary_key=True)

    __table_args__ = (Index(None, "digest"),)


class ComponentInputRow(LibraryBase):
    """One of the inputs of a component."""

    __tablename__ = "entropic_component_inputs"

    state_id: Mapped[int] = mapped_column(ForeignKey(STATE), primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    input_state_id: Mapped[int] = mapped_column(ForeignKey(STATE), index=True)


class DataFileRow(LibraryBase):
    """A file with data: the row is what makes it visible."""

    __tablename__ = "entropic_data_files"

    name: Mapped[str] = mapped_column(ByteString(255), primary_key=True)
    """Relative to the folder of the store; never used again."""
    is_whole: Mapped[bool]
    """False in a row that is only waited with, and that nobody sees."""


class DataItemRow(LibraryBase):
    """The data that a component has under the name of an attribute: in the row, or in a file."""

    __tablename__ = "entropic_data_items"

    state_id: Mapped[int] = mapped_column(ForeignKey(STATE), primary_key=True, autoincrement=False)
    attribute: Mapped[str] = mapped_column(ByteString(255), primary_key=True)
    writing: Mapped[str] = mapped_column(ByteString(32))
    """uuid of the call that stored it."""
    codec: Mapped[str] = mapped_column(ByteString(16))
    """``"json"`` or ``"hdf5"``."""
    payload: Mapped[str | None] = mapped_column(LONG_TEXT)
    """Of ``"json"``, as `entropic.values.payloads` writes it."""
    file_name: Mapped[str | None] = mapped_column(
        ByteString(255), ForeignKey("entropic_data_files.name"), index=True
    )
    sha256: Mapped[str] = mapped_column(ByteString(64))
    size_bytes: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (Index(None, "updated_at"),)
