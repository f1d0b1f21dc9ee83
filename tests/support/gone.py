"""What a process that is gone has left under a results folder, and the claims it held: written here byte for byte.

No process is started and killed for it, and no code under test writes it.
"""

import atexit
import hashlib
import json
import subprocess
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from entropic import hash_params
from entropic.process.identity import Process, this_process
from tests.support.process_states import started_at
from tests.support.protocol_cases import Place

NO_PID = 1 << 30  # beyond what any kernel gives


def dead() -> Process:
    """A process of this host that has ended."""
    here = this_process()
    return Process(uuid4().hex, here.host, here.boot, NO_PID, "1")


def living() -> Process:
    """Another process of this host that is alive, and did not start this one."""
    here, pid = this_process(), _sleeping()
    return Process(uuid4().hex, here.host, here.boot, pid, started_at(pid))


@cache
def _sleeping() -> int:
    process = subprocess.Popen(["sleep", "infinity"], start_new_session=True)
    atexit.register(process.wait)
    atexit.register(process.kill)
    return process.pid


def elsewhere() -> Process:
    """A process of another host, of which nobody here can tell whether it lives."""
    return Process(uuid4().hex, "elsewhere", "of another host", 4711, "1")


@dataclass
class Left:
    """The folder of *process*: finished runs in slots, each with its line in the sidecar."""

    place: Place
    process: Process = field(default_factory=dead)
    holder: Process | None = None
    sweep: str = ""
    slots: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        holder = (self.holder or self.process).as_dict()
        says = json.dumps({**self.process.as_dict(), "holder": holder})
        (self.folder / "process.json").write_text(says)

    @property
    def folder(self) -> Path:
        name = f"{self.process.owner}-{self.sweep}" if self.sweep else self.process.owner
        return self.place.results / ".entropic" / name

    @property
    def sidecar(self) -> Path:
        return self.folder / "sidecar.jsonl"

    def write(self, text: str) -> None:
        """Append a line to the sidecar, whatever it says."""
        with self.sidecar.open("a") as file:
            file.write(text + "\n")

    def finish(self, a: float, version: str, *, replaces: str | None = None, **changes: Any) -> Path:
        """Leave a finished run of a `protocol_cases.Sim`; return where its file waits, if it has one."""
        key = hash_params({"a": a})
        content = self.place.runner(version).result(a)
        slot = self.folder / str(self.slots)
        self.slots += 1
        slot.mkdir()
        in_row = self.place.in_row
        if not in_row:
            (slot / f"{key}.txt").write_bytes(content)
        marker = json.loads((self.place.results / ".entropic-root.json").read_text())
        line = {
            "database": marker["database"],
            "table": marker["table"],
            "record_id": key,
            "attempt": uuid4().hex,
            "folder": self.folder.name,
            "slot": slot.name,
            "name": None if in_row else f"{key}.txt",
            "value": content.decode() if in_row else None,
            "size_bytes": len(content),
            "sha256": digest(content),
            "stored": {"a": a, "b": 0},
            "custom": {},
            "returned": {"version": version},
            "replaces": replaces,
            "started_at": time.time() - 100,
            "elapsed_s": 0.5,
            "is_folder": False,
            "where": {**_where(self.process), "worker": None, "batch_job": None},
        }
        self.write(json.dumps({**line, **changes}))
        return slot / f"{key}.txt"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _where(process: Process) -> dict[str, Any]:
    return {"owner": process.owner, "host": process.host, "pid": process.pid}


def claim(place: Place, key: str, process: Process, *, left_s: float) -> None:
    """Let *process* hold the claim on *key*, whose lease is over in *left_s* seconds."""
    now = time.time()
    values = {
        "table_name": place.table,
        "record_id": key,
        "token": uuid4().hex,
        "acquired_at": now - 100,
        "expires_at": now + left_s,
        **process.as_dict(),
    }
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    place.sql(f"INSERT INTO entropic_claims ({names}) VALUES ({marks})", **values)
