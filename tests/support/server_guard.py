"""Run as a program: wait for the end of the process that started it, then end what runs on a folder, and remove it.

A database server is a daemon: it outlives a pytest that is killed, and then nobody stops it. Polling the parent's id
needs no pipe, whose other end the children of the tests would inherit and keep open.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

POLL_S = 0.2


def users_of(folder: str) -> list[int]:
    """Return the other processes whose command lines name *folder*."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if folder.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def main(parent: int, folder: str) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    # Whoever is at it may be making the server still, and a program of PostgreSQL starts the next: until none is left.
    while users := users_of(folder):
        for pid in users:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)  # to a PostgreSQL server: stop at once, and all that it started
        time.sleep(POLL_S)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
