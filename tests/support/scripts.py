"""Scripts that run to their end, each in a new process that need not import the library first."""

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from tests.support.processes import forkserver


def run_script(path: Path, *arguments: Any, timeout_s: float = 120.0) -> "subprocess.CompletedProcess[str]":
    """Do what ``python path arguments`` does in the script's folder, in a child of the warm server.

    The script is the module ``__main__`` of a process that has imported the library and nothing else of the tests'.
    How Python itself starts, with its options and variables, is not tested so.
    """
    command = [str(path), *map(str, arguments)]
    with TemporaryDirectory(prefix="entropic-script-") as folder, _process(command, Path(folder)) as process:
        process.join(timeout_s)
        if process.exitcode is None:
            raise subprocess.TimeoutExpired(command, timeout_s)
        out, error = ((Path(folder) / name).read_text() for name in ("out", "error"))
        return subprocess.CompletedProcess(command, process.exitcode, out, error)


def run_text(text: str, folder: Path, *arguments: Any) -> "subprocess.CompletedProcess[str]":
    """Write *text* to a script in *folder*, and run that."""
    path = folder / "script.py"
    path.write_text(text)
    return run_script(path, *arguments)


@contextmanager
def _process(command: list[str], outputs: Path) -> Iterator[Any]:
    process = forkserver().Process(target=_run, args=(command, outputs, dict(os.environ)))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def _run(command: list[str], outputs: Path, environment: dict[str, str]) -> None:
    for name, stream in (("out", sys.stdout), ("error", sys.stderr)):
        descriptor = os.open(outputs / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    script = Path(command[0])
    os.chdir(script.parent)
    sys.argv = command
    sys.path.insert(0, str(script.parent))
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = str(script)
    try:
        exec(compile(script.read_text(), script, "exec"), main.__dict__)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None
    finally:
        # A child of multiprocessing's leaves out what an interpreter does at its end.
        threading._shutdown()
        atexit._run_exitfuncs()
