"""Options: where an experiment's records are kept, for whoever does not say so at each store.

They come from arguments, the environment, the project's file and the user's own, in this order. A place is a matter of
the project: the user's own file has only how long to wait.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from entropic.display.hints import did_you_mean
from entropic.process.patience import LEASE_S
from entropic.process.settings import Settings, find_settings

__all__ = ["Options"]

PATHS = ("runs_base_dir", "results_dir")
PERSONAL = frozenset({"lease_s", "wait_timeout_s"})
_RELATIVE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:|~)([^?]+)(.*)", re.DOTALL)


class Options(BaseModel):
    """Where an experiment's records are kept.

    What is not given as an argument is taken from the environment (``ENTROPIC_TYPE``, ``ENTROPIC_DB_URL`` and so on),
    else from the project's ``entropic.toml`` or ``[tool.entropic]`` in its ``pyproject.toml``, else from the user's
    ``~/.config/entropic/entropic.toml``. The project's file is looked for beside the script or notebook and in the
    folders above, up to one with a ``pyproject.toml`` or ``.git``, then from the working directory;
    ``ENTROPIC_OPTIONS_FILE`` names another. Relative paths in a file are relative to it.

    Parameters
    ----------
    type : {"sql", "files"}
        Whether configs and statistics are rows or files.
    runs_base_dir : Path
        The folder of weights and arrays, and with ``"files"`` of configs and statistics.
    db_url : str
        The database: of everything with ``"sql"``, and of memoized functions.
    results_dir : Path
        The folder of memoized functions' results.
    lease_s, wait_timeout_s : float
        As for `Store`.

    Raises
    ------
    ValueError
        If a name or value is none of these; the text says where it stands.

    Notes
    -----
    Read when it is made; what changes in a file later is not seen. A file is not written, nor is the environment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: Literal["sql", "files"] = "sql"
    runs_base_dir: Path = Path("runs")
    db_url: str = Field(default="sqlite:///db.sqlite3", repr=False)  # a password may be in it
    results_dir: Path = Path("results")
    lease_s: float = Field(default=LEASE_S, gt=0, allow_inf_nan=False)
    wait_timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    def __init__(self, **given: Any) -> None:
        places = dict.fromkeys(given, "an argument")
        values = dict(given)
        _require_known(given, "an argument")
        for settings in find_settings():
            for name, value in _checked(settings).items():
                if name not in values:
                    values[name], places[name] = value, settings.place
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(
                "; ".join(_shown(one, places) for one in error.errors(include_url=False))
            ) from None

    def model_post_init(self, context: Any) -> None:
        """Make paths absolute: the working directory may be another one later."""
        for name in PATHS:
            # Of a frozen model: it is not seen by anybody yet.
            self.__dict__[name] = Path(getattr(self, name)).expanduser().absolute()
        self.__dict__["db_url"] = _absolute(self.db_url, Path.cwd())


def _checked(settings: Settings) -> dict[str, Any]:
    """Return the values of a place, paths absolute."""
    _require_known(settings.values, settings.place)
    if settings.is_personal and (wrong := sorted(settings.values.keys() - PERSONAL)):
        raise ValueError(
            f"{settings.place} sets {', '.join(wrong)}: where results are is a matter of each project, or one project "
            f"would find another's. Put it into an entropic.toml beside the script; your own file has only "
            f"{' and '.join(sorted(PERSONAL))}"
        )
    if settings.folder is None:
        return settings.values
    values = dict(settings.values)
    for name in PATHS:
        if isinstance(values.get(name), str):
            values[name] = settings.folder / Path(values[name]).expanduser()
    if isinstance(values.get("db_url"), str):
        values["db_url"] = _absolute(values["db_url"], settings.folder)
    return values


def _absolute(url: str, folder: Path) -> str:
    """Return a URL of a SQLite file with an absolute path."""
    found = _RELATIVE_FILE.fullmatch(url)
    return url if found is None else f"{found[1]}{folder / found[2]}{found[3]}"


def _require_known(values: dict[str, Any], place: str) -> None:
    known = list(Options.model_fields)
    for name in values:
        if name not in known:
            hint = did_you_mean(str(name), known) or "."
            raise ValueError(f"{place}: there is no option {name!r}{hint} There are: {', '.join(known)}")


def _shown(error: Any, places: dict[str, str]) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    return f"the option {name} ({places.get(name, 'by default')}): {error['msg']}"
