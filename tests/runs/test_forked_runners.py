"""A runner that forks: its child ends where the runner does, and all that follows is the parent's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import atexit, os, sys
from pathlib import Path
from entropic import Base, Mapped, Store

class Forking(Base):
    __tablename__ = "forking"
    how: Mapped[str]

class Odd(BaseException):
    pass

def leave(how):
    if how == "raise":
        raise ValueError("of the child's")
    if how == "raise odd":
        raise Odd
    if how.startswith("exit"):
        sys.exit({"exit": None, "exit 3": 3, "exit text": "said so"}[how])

def run(params):
    pid = os.fork()
    if pid == 0:
        print("child:", params["how"])
        return leave(params["how"])
    _, status = os.waitpid(pid, 0)
    Path(params["result_file"]).write_text(str(os.waitstatus_to_exitcode(status)))

if __name__ == "__main__":
    atexit.register(print, "the script ends", flush=True)
    store = Store(run, Forking, "results", ".txt", "sqlite:///forking.sqlite3")
    sets = [{"how": how} for how in ("return", "raise", "raise odd", "exit", "exit 3", "exit text")]
    print("begun", flush=True)
    if sys.argv[1] == "single":
        records = [store.run_or_retrieve(one) for one in sets]
    else:
        records = store.sweep(sets, workers=2 if sys.argv[1] == "workers" else None, progress=False)
    print({r.how: Path(r.result_file).read_text() for r in records})
    print(store.failures(), store.database.read(lambda c: c.exec_driver_sql("SELECT * FROM entropic_claims").all()))
"""


@pytest.mark.parametrize(
    "where",
    [
        "single",
        pytest.param("serial", marks=pytest.mark.slow),
        pytest.param("workers", marks=pytest.mark.slow),
    ],
)
def test_child_that_comes_out_of_a_runner_ends_there(tmp_path, where):
    (tmp_path / "script.py").write_text(SCRIPT)

    done = subprocess.run(
        [sys.executable, "script.py", where], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    lines = done.stdout.splitlines()
    status = {"return": "0", "raise": "1", "raise odd": "1", "exit": "0", "exit 3": "3", "exit text": "1"}
    assert done.returncode == 0, done.stderr
    assert [line for line in lines if not line.startswith("child: ")] == [
        "begun", str(status), "[] []", "the script ends"
    ]  # fmt: skip
    assert sorted(line for line in lines if line.startswith("child: ")) == sorted(
        f"child: {how}" for how in status
    )
    assert "ValueError: of the child's" in done.stderr
    assert "said so" in done.stderr
