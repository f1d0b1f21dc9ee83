"""Write a database and results with the published entropic 2.3.0, as its users did.

Run it where 2.3.0 is installed, with the folder to fill: ``python make.py FOLDER``. The tests read what it left here,
and what it writes anew; `PARAMS` says what was asked for under each name. Nothing of entropic is imported with it.
"""

import enum
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


class Method(enum.Enum):
    """2.3.0 hashed the value and stored the text of the member, ``Method.RK4``."""

    RK4 = "rk4"


class Solver(enum.StrEnum):
    """2.3.0 hashed and stored the value."""

    EULER = "euler"


PARAMS: dict[str, dict[str, Any]] = {
    "plain": {"n": 10, "dt": 0.01, "method": "rk4"},
    "noisy": {"n": 10, "dt": 0.1 + 0.2, "method": "rk4"},
    "tiny": {"n": 10, "dt": 1e-13, "method": "rk4"},
    "int-for-float": {"n": 10, "dt": 1, "method": "rk4"},
    "default-given": {"n": 11, "dt": 0.01, "method": "rk4", "beta": 0.0},
    "default-left-out": {"n": 12, "dt": 0.01, "method": "rk4"},
    "not-the-default": {"n": 13, "dt": 0.01, "method": "rk4", "beta": 0.5},
    "none-given": {"n": 14, "dt": 0.01, "method": "rk4", "label": None},
    "unicode": {"n": 15, "dt": 0.01, "method": "rk4", "label": "Δt → 0"},
    "str-enum": {"n": 16, "dt": 0.01, "method": Solver.EULER},
    "enum": {"n": 17, "dt": 0.01, "method": Method.RK4},
    "path": {"n": 18, "dt": 0.01, "method": "rk4", "label": Path("meshes/fine.msh")},
    "numpy-float": {"n": 19, "dt": np.float64(0.25), "method": "rk4"},
    "numpy-int": {"n": np.int64(20), "dt": 0.01, "method": "rk4"},
    "tuple": {"n": 21, "dt": 0.01, "method": "rk4", "shape": (2, 3)},
    "custom": {"n": 22, "dt": 0.01, "method": "rk4"},
    "explicit-id": {"id": "by-hand", "n": 23, "dt": 0.01, "method": "rk4"},
    "registered": {"n": 24, "dt": 0.01, "method": "measured"},
    "gone": {"n": 25, "dt": 0.01, "method": "rk4"},
    "swept-1": {"n": 30, "dt": 0.5, "method": "rk4"},
    "swept-2": {"n": 31, "dt": 0.5, "method": "rk4"},
}

CUSTOM_DATA = {"git_sha": "abc123", "tags": ["first", "second"], "elapsed_seconds": 1.5}


def write_result(params: dict[str, Any]) -> None:
    """Write the number that tells whose result a file is: the runner."""
    Path(params["result_file"]).write_text(f"n = {params['n']}\n", encoding="utf-8")


def main(folder: Path) -> None:
    """Fill *folder*: ``runs.sqlite3``, ``results/``, ``external/`` and ``ids.json``, the id under each name."""
    from sqlalchemy import JSON

    from entropic import Base, Mapped, Store, mapped_column

    class Run(Base):
        __tablename__ = "runs"

        n: Mapped[int]
        dt: Mapped[float]
        method: Mapped[str]
        beta: Mapped[float] = mapped_column(default=0.0)
        label: Mapped[str | None]
        shape: Mapped[list | None] = mapped_column(JSON)

    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # the paths in the rows are relative, as the default of 2.3.0 made them
    store = Store(write_result, Run, "./results", file_suffix=".txt", db_url="sqlite:///runs.sqlite3")
    ids = {}
    for name, params in PARAMS.items():
        if name == "registered":
            Path("external").mkdir(exist_ok=True)
            Path("external/measured.dat").write_text("n = 24\n", encoding="utf-8")
            ids[name] = store.register(params, "external/measured.dat", operator="B. Meyer").id
        elif name.startswith("swept"):
            (record,) = store.sweep([params])
            ids[name] = record.id
        else:
            ids[name] = store.run_or_retrieve(params, **(CUSTOM_DATA if name == "custom" else {})).id
    Path(store.retrieve(PARAMS["gone"]).result_file).unlink()
    Path("ids.json").write_text(json.dumps(ids, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
