"""What `import entropic` costs, as a whole process: against `import sqlalchemy.orm`.

The package loads most of itself when a name is first asked for, so what having `Store` or `memoize` costs stands below.
Both from bytecode, as pip installs them: the first round, which is not counted, compiles what is not compiled yet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

from benchmarks.harness import Table, compare, main

DEFAULTS = {"rounds": 9}

_CODE = {
    "import sqlalchemy.orm": "import sqlalchemy.orm",
    "import entropic": "import entropic",
    "from entropic import Base, Store": "from entropic import Base, Store",
    "from entropic import memoize": "from entropic import memoize",
    "nothing": "pass",
}


def run(*, rounds: int) -> list[Table]:
    """Compare processes that import and end."""
    cases = {name: partial(_run, code) for name, code in _CODE.items()}
    return [compare("Import, whole process", cases, rounds=rounds)]


def _run(code: str) -> None:
    keeps_bytecode = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=keeps_bytecode)


if __name__ == "__main__":
    main("import", run, __doc__, **DEFAULTS)
