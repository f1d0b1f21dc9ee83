"""Where a process's options stand: in the environment, in the project's file and in the user's own.

The project's file is ``entropic.toml``, or the table ``[tool.entropic]`` of ``pyproject.toml``. It is looked for beside
the script or notebook and in the folders above, up to one with a ``pyproject.toml`` or ``.git``; then from the working
directory in the same way. `entropic.options` says what the options mean; here they are only found and read.

A folder that this process may not look into has no file for it: `os.path` says so, where pathlib raises. A home may be
somebody else's, as under ``sudo`` or ``su``.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["FILE", "NAMES", "PREFIX", "VARIABLE", "Settings", "find_settings"]

PREFIX = "ENTROPIC_"
NAMES = ("type", "runs_base_dir", "db_url", "results_dir", "lease_s", "wait_timeout_s")
"""Of all options: other variables of the environment are something else."""

VARIABLE = f"{PREFIX}OPTIONS_FILE"  # names the project's file, instead of looking for one
FILE = "entropic.toml"
PROJECT = "pyproject.toml"
LIMIT = 1 << 20  # bytes of a file that may have options


class Settings(NamedTuple):
    """Options from one place.

    Attributes
    ----------
    values : dict
        By name, as they stand there.
    place : str
        Where they stand, for people.
    folder : Path or None
        What relative paths among them are relative to; None for the working directory.
    is_personal : bool
        Whether it is the user's own file, which says nothing of where results are.
    """

    values: dict[str, Any]
    place: str
    folder: Path | None
    is_personal: bool


def find_settings() -> list[Settings]:
    """Return the options that stand somewhere, the place that counts most first; none where there is no place.

    Raises
    ------
    ValueError
        If a file is no TOML, or may not be read; or if another user has left it in a folder where all may write.
    FileNotFoundError
        If the file that the environment names is not there.
    """
    found = [_environment()]
    project = _project_file()
    if project is not None:
        found.append(Settings(_table(project), str(project), project.parent, is_personal=False))
    personal = _personal_file()
    if personal is not None and personal != project:
        found.append(Settings(_table(personal), str(personal), personal.parent, is_personal=True))
    return [one for one in found if one.values]


def _environment() -> Settings:
    given = {name: os.environ.get(PREFIX + name.upper()) for name in NAMES}
    values = {name: value for name, value in given.items() if value}
    place = ", ".join(PREFIX + name.upper() for name in values)
    return Settings(values, place, None, is_personal=False)


def _project_file() -> Path | None:
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"{VARIABLE} names {str(path)!r}, and there is no such file: unset or mend it"
            )
        return path
    starts = [*_main_folders(), _working_directory()]
    return next(
        (path for start in starts if start for folder in _upwards(start) for path in _files(folder)), None
    )


def _main_folders() -> Iterator[Path]:
    """Yield the folder of the script or notebook that this process runs; none of a program that is installed."""
    main = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    file = main.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or main.get("__file__")
    if file and os.path.isabs(path := os.path.abspath(file)) and os.path.exists(path):
        folder = Path(path).parent
        if not folder.is_relative_to(sys.prefix):
            yield folder


def _working_directory() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # it was removed
        return None


def _upwards(start: Path) -> Iterator[Path]:
    for folder in (start, *start.parents):
        yield folder
        if os.path.exists(folder / PROJECT) or os.path.exists(folder / ".git"):
            return


def _files(folder: Path) -> Iterator[Path]:
    own, project = folder / FILE, folder / PROJECT
    if os.path.isfile(own):
        path = own
    elif os.path.isfile(project) and _has_table(project):
        path = project
    else:
        return
    if (stranger := _stranger(path)) is not None:
        raise ValueError(
            f"the options in {str(path)!r} are of uid {stranger}, and in that folder everybody may write: whoever did "
            "might lead this process to any database. If they are to count, name the file in ENTROPIC_OPTIONS_FILE, or "
            f"let only those write there who are to say so; else put an {FILE} of your own beside the script"
        )
    yield path


def _has_table(project: Path) -> bool:
    try:
        with project.open("rb") as file:
            return b"tool.entropic" in file.read(LIMIT)
    except OSError:  # what it says is not for us
        return False


def _stranger(path: Path) -> int | None:
    """Return whose a file is that anybody may have put there: not our own, nor root's."""
    uid = os.lstat(path).st_uid
    is_open = os.stat(path.parent).st_mode & stat.S_IWOTH
    return uid if is_open and uid not in {os.geteuid(), 0} else None


def _table(path: Path) -> dict[str, Any]:
    """Return the options in a file."""
    import tomllib

    try:
        with path.open("rb") as file:
            document = tomllib.loads(file.read(LIMIT).decode())
    except (ValueError, PermissionError) as error:
        raise ValueError(f"the options in {str(path)!r} cannot be read: {error}") from None
    if path.name != PROJECT:
        return document
    table = document.get("tool", {}).get("entropic", {})
    return dict(table) if isinstance(table, dict) else {"tool.entropic": table}  # which is no option


def _personal_file() -> Path | None:
    """Return the user's own file; None if there is none, or nobody knows where it would be, as in some containers."""
    base = os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    path = Path(base, "entropic", FILE)
    return None if base.startswith("~") or not os.path.isfile(path) else path
