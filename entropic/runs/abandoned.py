"""Whose a process's folder is, and whether anybody is still at work there.

A folder says which process writes in it, and for which one that works. It is given up only when both are surely gone,
or have been silent for a lease: what does not say whose it is, in a form that can be believed, is never cleared away.
"""

from __future__ import annotations

import time
from typing import Any

from entropic.disk.files import newest_change
from entropic.disk.sidecars import Sidecar, clear_away, is_blank, process_folders, read_sidecar
from entropic.process.identity import Process, this_process
from entropic.runs.holding import Keys

__all__ = ["clear_abandoned", "is_abandoned", "is_at_work", "is_nameless"]

_PROCESS_FIELDS = {"owner": 32, "host": 255, "boot": 255, "started": 255}  # text, and how long it can be


def is_at_work(sidecar: Sidecar) -> bool:
    """Whether both who writes here and who commits it are surely alive: no need to read on."""
    here = this_process()
    writer = _process(sidecar.process)
    holder = _process(sidecar.process["holder"]) if sidecar.process.get("holder") else writer
    if writer is None or holder is None or holder.owner == here.owner:
        return False
    return all(process.is_alive() for process in (writer, holder))


def clear_abandoned(keys: Keys) -> None:
    """Clear away the folders of processes that have ended, where nothing is staged: all that they had was notes."""
    for folder in process_folders(keys.root):
        sidecar = read_sidecar(folder)
        if not sidecar.lines and not sidecar.malformed and is_abandoned(keys, sidecar):
            clear_away(folder)


def is_abandoned(keys: Keys, sidecar: Sidecar) -> bool:
    """Whether nobody writes to a folder any more: its process is dead or, where that cannot be seen, silent.

    Silent is who has written nothing for a lease, and holds no claim that is alive, nor does the process for which it
    works: a run of an hour may write at its end only. A folder that does not say whose it is, is nobody's to give up,
    unless nothing is in it: a kill came as it was made, or removed.
    """
    writer = _process(sidecar.process)
    if writer is None:
        return is_blank(sidecar.folder) and _is_old(sidecar, keys.claims.lease_s)
    is_alive = writer.is_alive()
    if is_alive is not None:
        return not is_alive
    if not _is_old(sidecar, keys.claims.lease_s):
        return False
    holder = _process(sidecar.process.get("holder"))
    return not keys.claims.has_live(process.owner for process in (writer, holder) if process is not None)


def _is_old(sidecar: Sidecar, age_s: float) -> bool:
    try:
        return time.time() - newest_change(sidecar.folder) > age_s
    except OSError:
        return False


def is_nameless(sidecar: Sidecar) -> bool:
    """Whether there is something in a process's folder, and it does not say in a form to be believed whose it is."""
    return _process(sidecar.process) is None and not is_blank(sidecar.folder)


def _process(values: Any) -> Process | None:
    """Return the process that a folder names; None if it says so in no form that can be believed."""
    if not isinstance(values, dict):
        return None
    texts = {name: values.get(name) for name in _PROCESS_FIELDS}
    pid = values.get("pid")
    if type(pid) is not int or not 0 < pid < 1 << 31:
        return None
    if not all(isinstance(text, str) and len(text) <= _PROCESS_FIELDS[name] for name, text in texts.items()):
        return None
    return Process(pid=pid, **texts)  # type: ignore[arg-type]
