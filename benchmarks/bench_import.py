"""What `import entropic` costs, as a whole process: against `import sqlalchemy.orm`."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from benchmarks.harness import Table, compare, main

DEFAULTS = {"rounds": 9}

_CODE = {
    "import sqlalchemy.orm": "import sqlalchemy.orm",
    "import entropic": "import entropic",
    "nothing": "pass",
}


def run(*, rounds: int) -> list[Table]:
    """Compare processes that import and end."""
    cases = {name: partial(_run, code) for name, code in _CODE.items()}
    return [compare("Import, whole process", cases, rounds=rounds)]


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    main("import", run, __doc__, **DEFAULTS)
