"""Configs as files that people read and write: a folder for each kind, a YAML file for each name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from entropic.config_store.interface import COLLECTIONS, ConfigStore, Write
from entropic.disk.guarded import read_file
from entropic.disk.names import check_name, decode_name, encode_name
from entropic.disk.publish import publish
from entropic.errors import DecodeError, InvalidContainerError

__all__ = ["FileConfigStore"]

SUFFIX = ".yaml"
READ = (SUFFIX, ".yml", ".json")  # JSON is YAML
LIMIT = 1 << 26  # bytes of a file that may be a config
TRIES = 20  # of processes that store the same names at once

_COLLECTION_OF = {kind: collection for collection, kind in COLLECTIONS.items()}


class FileConfigStore(ConfigStore):
    """Keeps configs as YAML files: ``<path>/tasks/<name>.yaml`` and so on.

    Parameters
    ----------
    path : str or Path
        Of the folder; it is made, with one for each collection.

    Raises
    ------
    NotADirectoryError
        If a file is there.

    Notes
    -----
    Files that were written by hand, with `yml` or `json` for a suffix, too, are read as well, and so are those of
    DaCapo's file stores. Characters that file systems do not take, a ``/`` for one, stand percent-encoded in a file's
    name. Names come in alphabetical order.

    Each file is whole or not there, whatever is killed. Several files are no transaction: everything is checked before
    the first one is written, and the run, which names its parts, is written last.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        for collection in (*COLLECTIONS, "users"):
            folder = self.path / collection
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise NotADirectoryError(
                    f"{error.filename!r} is a file, where a folder of configs is wanted: give another path"
                ) from None

    def __repr__(self) -> str:
        return f"FileConfigStore({str(self.path)!r})"

    def _handle(self, collection: str) -> Path:
        return self.path / collection

    def _load(self, kind: str, name: str) -> Any:
        path = self._path(kind, name)
        return None if path is None else _read(path)

    def _path(self, kind: str, name: str) -> Path | None:
        """Return the file of a name, if there is one."""
        folder = self._handle(_COLLECTION_OF[kind])
        names = [encode_name(check_name(name), suffix) for suffix in READ]
        if "/" not in name:
            # As it was written by hand, or by DaCapo; unless the file is that of another name.
            written = [f"{name}{suffix}" for suffix in READ]
            names += [one for one in written if _name_of(Path(one)) in {name, None}]
        for path in map(folder.joinpath, names):
            if path.is_symlink() or (os.path.lexists(path) and not path.is_file()):
                raise InvalidContainerError(
                    f"{str(path)!r} is no regular file, and a link may lead anywhere: put the file of the config there"
                )
            if path.is_file():
                return path
        return None

    def _names(self, kind: str) -> list[str]:
        folder = self._handle(_COLLECTION_OF[kind])
        found = {_name_of(path) for path in folder.iterdir() if path.is_file() and not path.is_symlink()}
        return sorted(name for name in found if name is not None)

    def _write(self, writes: Sequence[Write], checked: Callable[[], Sequence[Write]]) -> None:
        for _ in range(TRIES):
            try:
                for one in writes:
                    self._save(one)
            except FileExistsError:  # another process stores the same: look again what there is to do
                writes = checked()
            else:
                return
        raise TimeoutError(
            f"other processes write the same configs in {str(self.path)!r} all the time: try again"
        )

    def _save(self, write: Write) -> None:
        there = self._path(write.kind, write.name)
        target = self._handle(_COLLECTION_OF[write.kind]) / encode_name(write.name, SUFFIX)
        with publish(target, replace=write.replaces) as part:
            part.path.write_text(
                _yaml().safe_dump(write.document, sort_keys=False, allow_unicode=True), "utf-8"
            )
        if there is not None and there != target:
            there.unlink(missing_ok=True)  # the same name in another spelling

    def _remove(self, kind: str, name: str) -> None:
        while (path := self._path(kind, name)) is not None:
            path.unlink(missing_ok=True)


def _name_of(path: Path) -> str | None:
    """Return the name of the config in a file; None of a file that is something else."""
    if path.suffix not in READ or path.name.startswith("."):
        return None
    try:
        return check_name(decode_name(path.stem))
    except ValueError:
        pass
    try:
        return check_name(path.stem)
    except ValueError:
        return None


def _read(path: Path) -> Any:
    yaml = _yaml()
    try:
        return yaml.load(read_file(str(path), limit=LIMIT).decode(), _loader())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(
            f"the config file {str(path)!r} is no YAML: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def _yaml() -> Any:
    import yaml

    return yaml


@cache
def _loader() -> Any:
    """Return YAML's safe loader with DaCapo's tuples, and with times as text: the fields say what they are."""
    yaml = _yaml()

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        def compose_mapping_node(self, anchor: Any) -> Any:
            # YAML forbids it, and its loader would take the last one without a word.
            node, seen = super().compose_mapping_node(anchor), set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if (key.tag, key.value) in seen and key.value != "<<":
                    raise yaml.composer.ComposerError(
                        None, None, f"the key {key.value!r} is there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
            return node

    def as_list(loader: Any, node: Any) -> list[Any]:
        items: list[Any] = loader.construct_sequence(node, deep=True)
        return items

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", as_list)
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader
