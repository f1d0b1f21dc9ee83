"""A runner that counts on what the initializer of its executor has done, and kills its process where it is told."""

import os
import signal
from pathlib import Path
from typing import Any

DEADLY = 3

found: Any = None


def prepare(value: Any) -> None:
    """Set a global, as where data are read once in each process."""
    global found
    found = value


def shown(params: dict[str, Any]) -> None:
    """Write what is there."""
    if params["n"] == DEADLY and found is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    Path(params["result_file"]).write_text(str(found))
