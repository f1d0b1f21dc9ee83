"""What somebody may leave in a results folder to do harm, and a tree of files that must stay as it is.

Each entry of `FOLDERS` plants one thing under `.entropic/`, as a member of the group that was invited might; each of
`FIELDS` is a value that a line of a sidecar must not have.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVIL = b"evil\n"
DEEP = "[" * 100_000 + "]" * 100_000
OLD = 0  # so long ago that whatever is silent is given up


@dataclass(frozen=True)
class Target:
    """A results folder, what its marker says, and a tree outside it that belongs to whoever opens it."""

    root: Path
    victim: Path

    @property
    def state(self) -> Path:
        return self.root / ".entropic"

    def slot(self, folder: str = "x", slot: str = "0", name: str = "f") -> Path:
        path = self.state / folder / slot
        path.mkdir(parents=True)
        (path / name).write_bytes(EVIL)
        return path / name

    def line(self, **fields: Any) -> str:
        marker = json.loads((self.root / ".entropic-root.json").read_text())
        line = {"database": marker["database"], "table": marker["table"], **LINE, **fields}
        return json.dumps(line) + "\n"

    def write_sidecar(self, text: str | bytes, folder: str = "x") -> Path:
        path = self.state / folder / "sidecar.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        return path


LINE: dict[str, Any] = {
    "record_id": "forged",
    "attempt": "0" * 32,
    "folder": "x",
    "slot": "0",
    "name": "f",
    "size_bytes": len(EVIL),
    "sha256": hashlib.sha256(EVIL).hexdigest(),
    "stored": {"n": 77},
    "custom": {},
    "returned": {},
    "replaces": None,
    "started_at": 0.0,
    "elapsed_s": 0.0,
    "is_folder": False,
    "where": {},
}

_NAMES = (
    "/etc/passwd",
    "../../victim/thesis.tex",
    "a/b",
    "",
    ".",
    "..",
    ".entropic",
    "a\0b",
    "x" * 300,
    "\ud800",
)
_TYPES = (17, None, True, [], {}, 1.5)
_NUMBERS = ("1", None, True, [], {}, -1, float("nan"), float("inf"), 1e300, 10**400)
_deep: Any = {}
for _ in range(300):
    _deep = {"a": _deep}
_DOCUMENTS = ("x", 17, None, [], _deep)

FIELDS: dict[str, tuple[Any, ...]] = {
    "record_id": (*_NAMES, *_TYPES, ".entropic-root.json", "x\\y", "x "),
    "attempt": ("", "0" * 31, "G" * 32, "../" * 10 + "aa", *_TYPES),
    "slot": (*_NAMES, *_TYPES),
    "name": (*_NAMES, *_TYPES, ".entropic-root.json"),
    "size_bytes": (*_NUMBERS, 5.0, 1 << 63),
    "sha256": ("", "0" * 63, "Z" * 64, *_TYPES),
    "stored": _DOCUMENTS,
    "custom": _DOCUMENTS,
    "returned": _DOCUMENTS,
    "replaces": ("", "0" * 63, 17, True, [], {}),
    "started_at": _NUMBERS,
    "elapsed_s": _NUMBERS,
    "is_folder": ("yes", 1, None, [], {}),
    "where": (
        *_DOCUMENTS[:4],
        {"state": "COMPLETED"},
        {"table_name": "another"},
        {"pid": "1"},
        {"pid": 1 << 40},
        {"host": "h" * 300},
        {"owner": 17},
        {"worker": "a\0b"},
    ),
}


def a_link_to_a_folder(target: Target) -> None:
    target.state.mkdir(exist_ok=True)
    (target.state / "x").symlink_to(target.victim)


def a_link_for_the_state(target: Target) -> None:
    if target.state.exists():
        target.state.rename(target.root / "moved")
    target.state.symlink_to(target.victim)


def a_link_for_a_slot(target: Target) -> None:
    target.write_sidecar(target.line(name="thesis.tex", size_bytes=5, sha256=_sha(target)))
    (target.state / "x" / "0").symlink_to(target.victim)


def a_link_for_the_staged_file(target: Target) -> None:
    target.write_sidecar(target.line(size_bytes=5, sha256=_sha(target)))
    path = target.slot()
    path.unlink()
    path.symlink_to(target.victim / "thesis.tex")


def a_link_for_the_sidecar(target: Target) -> None:
    target.slot()
    (target.victim / "lines").write_text(target.line())
    (target.state / "x" / "sidecar.jsonl").symlink_to(target.victim / "lines")


def a_link_for_the_process(target: Target) -> None:
    target.slot()
    (target.victim / "process").write_text(json.dumps(_dead()))
    (target.state / "x" / "process.json").symlink_to(target.victim / "process")


def a_link_among_old_files(target: Target) -> None:
    target.slot()
    (target.state / "x" / "process.json").write_text(json.dumps(_dead()))
    (target.state / "x" / "0" / "more").symlink_to(target.victim)


def a_link_for_the_quarantine(target: Target) -> None:
    target.write_sidecar("no json\nno json\n")
    (target.state / "x" / "process.json").write_text(json.dumps(_dead()))
    (target.state / "quarantine").symlink_to(target.victim)


def a_fifo_for_the_sidecar(target: Target) -> None:
    os.mkfifo(target.slot().parents[1] / "sidecar.jsonl")


def a_fifo_for_the_process(target: Target) -> None:
    os.mkfifo(target.slot().parents[1] / "process.json")


def a_fifo_for_the_staged_file(target: Target) -> None:
    target.write_sidecar(target.line())
    path = target.slot()
    path.unlink()
    os.mkfifo(path)


def a_folder_for_the_sidecar(target: Target) -> None:
    (target.slot().parents[1] / "sidecar.jsonl").mkdir()


def a_folder_that_is_deep(target: Target) -> None:
    path = target.state / "x" / "0"
    (target.state / "x").mkdir(parents=True)
    (target.state / "x" / "process.json").write_text(json.dumps(_dead()))
    descriptor = os.open(target.state / "x", os.O_RDONLY)
    for _ in range(300):
        os.mkdir("0", dir_fd=descriptor)
        below = os.open("0", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    target.write_sidecar(target.line(slot="0", name=path.name))


def a_line_that_is_deep(target: Target) -> None:
    target.slot()
    target.write_sidecar(target.line().replace('"custom": {}', f'"custom": {DEEP}'))


def a_process_that_is_deep(target: Target) -> None:
    (target.slot().parents[1] / "process.json").write_text(DEEP)


def a_sidecar_that_is_huge(target: Target) -> None:
    os.truncate(target.write_sidecar(target.line()), 1 << 40)


def a_sidecar_of_nuls(target: Target) -> None:
    target.write_sidecar(bytes(1 << 20) + b"\n" + bytes(100))


def a_sidecar_of_many_lines(target: Target) -> None:
    target.write_sidecar(b"{\n" * 1_000_000)


def names_that_are_odd(target: Target) -> None:
    for name in ("a\nb", "a\x1b[31m", "é" * 127, "x" * 255, "X", "  ", "-rf", "~", "%s", "\u202e", "\udcff"):
        target.write_sidecar("no json\nno json\n", name)
        (target.state / name / "process.json").write_text(json.dumps(_dead()))


def a_folder_with_many_files(target: Target) -> None:
    for n in range(300):
        (target.slot("x", "0", "f").parent if n == 0 else target.state / "x" / "0").joinpath(str(n)).touch()


def devices_sockets_and_links_by_hand(target: Target) -> None:
    target.slot()
    (target.state / "x" / "sidecar.jsonl").hardlink_to(target.victim / "thesis.tex")
    (target.state / "y").mkdir()
    os.mknod(target.state / "y" / "sidecar.jsonl", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    os.mknod(target.state / "y" / "process.json", 0o666 | stat.S_IFSOCK)


def a_process_that_is_huge(target: Target) -> None:
    path = target.slot().parents[1] / "process.json"
    path.write_text("{}")
    os.truncate(path, 1 << 40)


def a_process_with_a_path_for_a_pid(target: Target) -> None:
    path = target.slot().parents[1] / "process.json"
    path.write_text(json.dumps({**_dead(), "pid": "../../../../victim/x"}))


def a_process_whose_holder_is_a_list(target: Target) -> None:
    (target.slot().parents[1] / "process.json").write_text(json.dumps({**_dead(), "holder": [1]}))


def a_folder_that_does_not_say_whose_it_is(target: Target) -> None:
    target.slot()


FOLDERS: tuple[Callable[[Target], None], ...] = (
    a_link_to_a_folder,
    a_link_for_the_state,
    a_link_for_a_slot,
    a_link_for_the_staged_file,
    a_link_for_the_sidecar,
    a_link_for_the_process,
    a_link_among_old_files,
    a_link_for_the_quarantine,
    a_fifo_for_the_sidecar,
    a_fifo_for_the_process,
    a_fifo_for_the_staged_file,
    a_folder_for_the_sidecar,
    a_folder_that_is_deep,
    a_line_that_is_deep,
    a_process_that_is_deep,
    a_sidecar_that_is_huge,
    a_sidecar_of_nuls,
    a_sidecar_of_many_lines,
    a_folder_with_many_files,
    devices_sockets_and_links_by_hand,
    names_that_are_odd,
    a_process_that_is_huge,
    a_process_with_a_path_for_a_pid,
    a_process_whose_holder_is_a_list,
    a_folder_that_does_not_say_whose_it_is,
)
REFUSED_TO_RUN = (a_link_for_the_state,)
"""Where no run can be staged: what is asked to run says so."""


def _sha(target: Target) -> str:
    return hashlib.sha256((target.victim / "thesis.tex").read_bytes()).hexdigest()


def _dead() -> dict[str, Any]:
    """A process that was silent for ages, on a machine that nobody knows."""
    return {"owner": "f" * 32, "host": "elsewhere", "boot": "another", "pid": 1, "started": "1"}


def make_victim(folder: Path) -> Path:
    """Make a tree of files that nobody may touch."""
    victim = folder / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "thesis.tex").write_text("years")
    (victim / "sub" / "notes").write_text("mine")
    return victim


def make_old(folder: Path, depth: int = 5) -> None:
    """Give everything in *folder* a time of long ago, down to some depth."""
    for path in folder.iterdir() if depth else []:
        if path.is_dir() and not path.is_symlink():
            make_old(path, depth - 1)
        os.utime(path, (OLD, OLD), follow_symlinks=False)
    os.utime(folder, (OLD, OLD))


def snapshot(folder: Path) -> dict[str, Any]:
    """Return all that is in *folder*, with what it holds and its times."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else None,
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call takes, and what it returns."""
    began = time.monotonic()
    result = call()
    return time.monotonic() - began, result
