"""The small process that extends the claims of the process that started it.

It is run as a script, by its path: nothing of entropic or SQLAlchemy is imported, and the database's driver only when
there is something to do, so it is there in milliseconds. Runners may hold their interpreter's lock for hours; this
process has a lock of its own. It ends when its standard input does, or when it finds itself with another parent.

It is told in lines of JSON on standard input. The first is ``{"parent": pid, "path": […]}``, with the search path for
modules. After it, to keep the claims of one table, ``{"hold": name, "driver": …, "args": …, "kwargs": …, "before": […],
"statement": …, "parameters": …, "every_s": …}``, and ``{"rest": name}`` to stop. It answers, on standard output,
``{"ready": true}``, and for each beat ``{"name": …, "error": null}`` or what went wrong, which is then tried again
sooner.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

SOONER = 4  # a beat that failed is tried again after this fraction of the interval
LOOK_S = 2.0  # between two looks at whether the parent is still there
ERROR_LENGTH = 500


def say(message: dict[str, Any]) -> None:
    """Tell the parent, unless it has not listened for so long that the pipe is full: to wait would end the beat."""
    line = json.dumps(message).encode() + b"\n"
    # A pipe takes so short a line as a whole or not at all.
    with suppress(BlockingIOError):
        os.write(sys.stdout.fileno(), line)


def beat(order: dict[str, Any]) -> None:
    """Connect, extend the claims, and let go of the connection: it would be idle until the next beat."""
    driver = importlib.import_module(order["driver"])
    connection = driver.connect(*order["args"], **order["kwargs"])
    try:
        cursor = connection.cursor()
        for statement in order["before"]:
            cursor.execute(statement)
        cursor.execute(order["statement"], order["parameters"])
        connection.commit()
    finally:
        connection.close()


def keep(order: dict[str, Any], ended: threading.Event) -> None:
    """Beat until *ended*; the first time after one interval, as the claims are new."""
    pause_s = order["every_s"]
    while not ended.wait(pause_s):
        try:
            beat(order)
        except Exception as error:
            pause_s = order["every_s"] / SOONER
            say({"name": order["hold"], "error": f"{type(error).__name__}: {error}"[:ERROR_LENGTH]})
        else:
            pause_s = order["every_s"]
            say({"name": order["hold"], "error": None})


def leave_with(parent: int) -> None:
    """End when *parent* has ended: a child that it forked may still hold our standard input open."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(0)


def main() -> None:
    """Do as the lines on standard input say, until they end."""
    # The terminal's Ctrl-C and a batch system's signal go to the whole group: the parent decides what they mean.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(sys.stdout.fileno(), False)
    told = json.loads(sys.stdin.readline())
    sys.path[:] = told["path"]
    threading.Thread(target=leave_with, args=(told["parent"],), daemon=True).start()
    say({"ready": True})
    held: dict[str, threading.Event] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "rest" in order:
            held.pop(order["rest"]).set()
            continue
        held[order["hold"]] = threading.Event()
        threading.Thread(target=keep, args=(order, held[order["hold"]]), daemon=True).start()
    os._exit(0)  # whatever a thread is waiting for


if __name__ == "__main__":
    main()
