"""A power cut: the recorder of what a process does to a folder, and a file system that forgets what was not synced.

`record` runs a command under strace and returns every change that it made below a folder, with its syncs, in their
order. `Disk.after` is what is there when the power goes after some of them: of each file the pages that were not
synced, and of each folder the names that were not, may have reached the disk or not, whatever else has.

What is synced is what was done before the sync began. A rename is done or it is not, as on every file system with a
journal; and as on those, a new file that was synced has its name.
"""

import os
import random
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

PAGE = 4096
_ROOT = 0  # inode of the folder itself
_NOT_KEPT = "-shm"  # SQLite's shared memory, which is mapped, and made anew by who opens the database first


@dataclass(frozen=True)
class Op:
    """One change or sync.

    Attributes
    ----------
    kind : str
        ``make`` (a file), ``mkdir``, ``link``, ``rename``, ``remove`` of a name; ``write``, ``truncate`` of a file;
        ``sync`` of either; ``say``: what the process told the test.
    inode : int
        What it is about.
    names : tuple of (int, str)
        The names that it changes, each with its folder: of a rename the old one first.
    since : int
        Of a sync: how many operations came before it began.
    """

    kind: str
    inode: int
    names: tuple[tuple[int, str], ...] = ()
    at: int = 0
    data: bytes = b""
    since: int = 0


@dataclass
class Disk:
    """The operations on a folder, oldest first, and what is there after some of them."""

    ops: list[Op] = field(default_factory=list)

    def after(
        self, count: int, chance: random.Random | None = None, *, data: float = 0.5, names: float = 0.5
    ) -> "Tree":
        """Return what is there after *count* operations: of a process that was killed all, of a power cut what is kept.

        Parameters
        ----------
        chance : Random, optional
            Draws what a power cut keeps. Default: nothing is lost.
        data, names : float
            The share of files whose unsynced pages, and of folders whose unsynced names, may be lost at all.
        """
        ops = self.ops[:count]
        if chance is None:
            return Tree.of(enumerate(ops), {})
        synced = self._synced(ops)
        may_lose: dict[tuple[str, int], bool] = {}
        kept_names = self._kept_names(ops, synced, chance, names)
        pages: dict[int, set[int]] = {}
        done = []
        for number, op in enumerate(ops):
            if op.kind in {"sync", "say"}:
                continue
            if number in synced:
                done.append((number, op))
            elif op.kind in {"write", "truncate"}:
                if not may_lose.setdefault(("data", op.inode), chance.random() < data):
                    done.append((number, op))
                elif op.kind == "truncate":
                    if chance.random() < 0.5:
                        done.append((number, op))
                else:
                    first, last = op.at // PAGE, (op.at + len(op.data) - 1) // PAGE
                    pages[number] = {page for page in range(first, last + 1) if chance.random() < 0.5}
                    done.append((number, op))
            elif number in kept_names:
                done.append((number, op))
        return Tree.of(done, pages)

    @staticmethod
    def _synced(ops: Sequence[Op]) -> set[int]:
        """Return the numbers of the operations that no power cut takes back."""
        last: dict[int, int] = {}
        for op in ops:
            if op.kind == "sync":
                last[op.inode] = max(last.get(op.inode, 0), op.since)
        synced = set()
        for number, op in enumerate(ops):
            if op.kind in {"write", "truncate"}:
                is_synced = number < last.get(op.inode, 0)
            else:
                # By its folder, or, of a name that it got, by the file itself.
                by = [folder for folder, _ in op.names] + (
                    [op.inode] if op.kind in {"make", "link", "rename"} else []
                )
                is_synced = any(number < last.get(inode, 0) for inode in by)
            if is_synced:
                synced.add(number)
        return synced

    @staticmethod
    def _kept_names(ops: Sequence[Op], synced: set[int], chance: random.Random, share: float) -> set[int]:
        """Draw which unsynced names reached the disk: in each folder the first of them, in their order."""
        by_folder: defaultdict[int, list[int]] = defaultdict(list)
        for number, op in enumerate(ops):
            if number not in synced:
                for folder in {folder for folder, _ in op.names}:
                    by_folder[folder].append(number)
        lost: set[int] = set()
        for numbers in by_folder.values():
            if chance.random() < share:
                lost.update(numbers[chance.choice([0, chance.randint(0, len(numbers))]) :])
        return {number for numbers in by_folder.values() for number in numbers} - lost


class Tree:
    """Folders and files with what they hold."""

    def __init__(self) -> None:
        self.folders: dict[int, dict[str, int]] = {_ROOT: {}}
        self.files: dict[int, bytearray] = {}

    @classmethod
    def of(cls, ops: "Sequence[tuple[int, Op]] | enumerate[Op]", pages: dict[int, set[int]]) -> "Tree":
        """Make it by *ops*, each with its number; of a write in *pages* only those reached the disk."""
        tree = cls()
        for number, op in ops:
            tree.do(op, pages.get(number))
        return tree

    def do(self, op: Op, pages: set[int] | None = None) -> None:
        """Do one operation, as far as what it builds on is there."""
        if op.kind == "write":
            content = self.files.setdefault(op.inode, bytearray())
            for start, part in _by_page(op.at, op.data):
                if pages is None or start // PAGE in pages:
                    content.extend(bytes(max(0, start - len(content))))
                    content[start : start + len(part)] = part
        elif op.kind == "truncate":
            content = self.files.setdefault(op.inode, bytearray())
            content.extend(bytes(max(0, op.at - len(content))))
            del content[op.at :]
        elif op.kind == "remove":
            self._forget(op)
        elif op.names:
            if op.kind == "mkdir":
                self.folders.setdefault(op.inode, {})
            if op.kind == "rename":
                self._forget(op)
            folder, name = op.names[-1]
            self.folders.setdefault(folder, {})[name] = op.inode

    def _forget(self, op: Op) -> None:
        folder, name = op.names[0]
        if self.folders.get(folder, {}).get(name) == op.inode:
            del self.folders[folder][name]

    def contents(self, folder: int = _ROOT, above: str = "") -> dict[str, bytes | None]:
        """Return what can be reached, by path: the bytes of a file, None for a folder."""
        found: dict[str, bytes | None] = {}
        for name, inode in self.folders.get(folder, {}).items():
            path = f"{above}{name}"
            if inode in self.folders:
                found[path] = None
                found |= self.contents(inode, f"{path}/")
            else:
                found[path] = bytes(self.files.get(inode, b""))
        return found

    def write(self, root: Path) -> None:
        """Make *root*, with all of it."""
        root.mkdir(parents=True)
        for path, content in self.contents().items():
            if content is None:
                (root / path).mkdir()
            else:
                (root / path).write_bytes(content)


def _by_page(at: int, data: bytes) -> list[tuple[int, bytes]]:
    cuts = [at, *range((at // PAGE + 1) * PAGE, at + len(data), PAGE), at + len(data)]
    return [(start, data[start - at : stop - at]) for start, stop in pairwise(cuts)]


# What a process does


_CALLS = (
    "open,openat,creat,lseek,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,copy_file_range,"
    "sendfile,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,fsync,"
    "fdatasync,sync_file_range,syncfs,sync,msync"
)
_OPTIONS = [
    "-f",
    "--seccomp-bpf",
    "-y",
    "-xx",
    "-s",
    str(1 << 26),
    "-e",
    f"trace={_CALLS}",
    "-e",
    "signal=none",
]
SAY = "said-to-the-test"  # a file beside the folder: each write to it is an operation ``say``

_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_ARGUMENT = re.compile(r'"([^"]*)"(?:\.\.\.)?|(?:AT_FDCWD|(\d+))<([^>]*)>(\(deleted\))?|([^,\s][^,]*)')


def require_strace() -> str:
    """Return where strace is; skip the test, and say what is absent, where it cannot be used."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed, so what a process syncs cannot be recorded")
    tried = subprocess.run([strace, *_OPTIONS, "-o", os.devnull, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"strace may not trace processes here: {tried.stderr.strip()[-200:]}")
    return strace


def record(command: Sequence[str], root: Path, log: Path) -> Disk:
    """Run *command* to its end and return what it, and its children, did below the empty folder *root*.

    Raises
    ------
    AssertionError
        If it failed; or if what was recorded does not lead to what is there: some way to write was not understood.
    """
    strace = require_strace()
    done = subprocess.run(
        [strace, *_OPTIONS, "-o", str(log), *command],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    disk = _Reader(root).read(log)
    found: dict[str, bytes | None] = {}
    for path in sorted(root.rglob("*")):
        if not path.name.endswith(_NOT_KEPT):
            found[str(path.relative_to(root))] = None if path.is_dir() else path.read_bytes()
    assert disk.after(len(disk.ops)).contents() == found
    return disk


class _Reader:
    """Reads strace's log: which call changed what."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._disk = Disk()
        self._tree = Tree()  # as the process sees it
        self._next = _ROOT + 1
        self._places: dict[tuple[int, str], int] = {}  # by inode and descriptor: where the next write goes
        self._appends: set[tuple[int, str]] = set()

    def read(self, log: Path) -> Disk:
        begun: dict[str, tuple[str, str, int]] = {}
        with log.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                since = len(self._disk.ops)
                if match := _BEGUN.match(line):
                    pid, name, text = match.groups()
                    begun[pid] = name, text, since
                    continue
                if match := _RESUMED.match(line):
                    pid, name, rest = match.groups()
                    name, text, since = begun.pop(pid)
                    line = f"{pid} {name}({text}{rest}"
                if match := _LINE.match(line):
                    _, name, text, result, path = match.groups()
                    if int(result) >= 0:
                        self._call(name, text, int(result), path or "", since)
        return self._disk

    def _call(self, name: str, text: str, result: int, opened: str, since: int) -> None:
        arguments = _arguments(text)
        if name in {"open", "openat", "creat"}:
            self._open(arguments, result, _decoded(opened))
        elif name == "lseek":
            self._with_file(arguments, lambda inode, fd: self._places.__setitem__((inode, fd), result))
        elif name in {"write", "pwrite64"}:
            self._write(name, arguments, result)
        elif name == "ftruncate":
            size = int(arguments[1].text)
            self._with_file(arguments, lambda inode, _: self._add(Op("truncate", inode, at=size)))
        elif name in {"fsync", "fdatasync"}:
            inode = self._inode(arguments[0].path)
            if inode is not None:
                self._add(Op("sync", inode, since=since))
        elif name in {"mkdir", "mkdirat"}:
            self._make("mkdir", _joined(arguments))
        elif name in {"rename", "renameat", "renameat2"}:
            self._rename(*_two_paths(arguments))
        elif name in {"link", "linkat"}:
            self._link(*_two_paths(arguments))
        elif name in {"unlink", "unlinkat", "rmdir"}:
            self._remove(_joined(arguments))
        else:
            touched = [argument for argument in arguments if self._is_ours(argument.path)]
            assert not touched, f"{name} of {touched} was not understood"

    def _is_ours(self, path: str) -> bool:
        is_below = path.startswith(f"{self._root}/") or path == self._root
        return is_below and not path.endswith(_NOT_KEPT)

    def _place(self, path: str) -> tuple[int, str] | None:
        """Return folder and name of a path, if the folder is known."""
        if not self._is_ours(path) or path == self._root:
            return None
        above, _, name = path.rpartition("/")
        folder = self._inode(above)
        return None if folder is None else (folder, name)

    def _inode(self, path: str) -> int | None:
        if not self._is_ours(path):
            return None
        inode = _ROOT
        for name in path[len(self._root) :].split("/"):
            if name:
                if name not in self._tree.folders.get(inode, {}):
                    return None
                inode = self._tree.folders[inode][name]
        return inode

    def _add(self, op: Op) -> None:
        self._disk.ops.append(op)
        self._tree.do(op)

    def _make(self, kind: str, path: str) -> None:
        place = self._place(path)
        if place is not None:
            self._add(Op(kind, self._next, (place,)))
            self._next += 1

    def _open(self, arguments: "list[_Argument]", descriptor: int, path: str) -> None:
        flags = next(one.text for one in arguments if one.text.startswith("O_"))
        if self._inode(path) is None:
            if "O_CREAT" not in flags:
                return
            self._make("make", path)
        inode = self._inode(path)
        if inode is None:
            return
        if "O_TRUNC" in flags and self._tree.files.get(inode):
            self._add(Op("truncate", inode))
        key = (inode, str(descriptor))
        self._places[key] = 0
        self._appends.discard(key)
        if "O_APPEND" in flags:
            self._appends.add(key)

    def _with_file(self, arguments: "list[_Argument]", do: Callable[[int, str], object]) -> None:
        inode = None if arguments[0].is_deleted else self._inode(arguments[0].path)
        if inode is not None and inode not in self._tree.folders:
            do(inode, arguments[0].text)

    def _write(self, name: str, arguments: "list[_Argument]", count: int) -> None:
        data = arguments[1].data[:count]
        if arguments[0].path.endswith(f"/{SAY}"):
            self._add(Op("say", -1, data=data))
            return

        def do(inode: int, fd: str) -> None:
            key = (inode, fd)
            at = len(self._tree.files.get(inode, b"")) if key in self._appends else self._places.get(key, 0)
            if name == "pwrite64":
                at = int(arguments[3].text)
            else:
                self._places[key] = at + count
            self._add(Op("write", inode, at=at, data=data))

        self._with_file(arguments, do)

    def _rename(self, source: str, target: str) -> None:
        inode, old, new = self._inode(source), self._place(source), self._place(target)
        assert (inode is None) == (new is None), f"{source} was renamed to {target}, of which one is outside"
        if inode is not None and old is not None and new is not None:
            self._add(Op("rename", inode, (old, new)))

    def _link(self, source: str, target: str) -> None:
        inode, new = self._inode(source), self._place(target)
        if inode is not None and new is not None:
            self._add(Op("link", inode, (new,)))

    def _remove(self, path: str) -> None:
        inode, place = self._inode(path), self._place(path)
        if inode is not None and place is not None:
            self._add(Op("remove", inode, (place,)))


@dataclass(frozen=True)
class _Argument:
    text: str = ""
    path: str = ""
    data: bytes = b""
    is_deleted: bool = False


def _decoded(text: str) -> str:
    return os.fsdecode(bytes.fromhex(text.replace("\\x", ""))) if text.startswith("\\x") else text


def _arguments(text: str) -> list[_Argument]:
    found = []
    for match in _ARGUMENT.finditer(text):
        string, descriptor, path, deleted, other = match.groups()
        if string is not None:
            data = bytes.fromhex(string.replace("\\x", ""))
            found.append(_Argument(data=data, path=os.fsdecode(data)))
        elif other is not None:
            found.append(_Argument(text=other.strip()))
        else:
            found.append(_Argument(descriptor or "AT_FDCWD", _decoded(path), is_deleted=deleted is not None))
    return found


def _joined(arguments: list[_Argument]) -> str:
    """Return the path that the first arguments name: one, or one from a folder."""
    if arguments[0].text:
        return os.path.normpath(os.path.join(arguments[0].path, arguments[1].path))
    return os.path.normpath(arguments[0].path)


def _two_paths(arguments: list[_Argument]) -> tuple[str, str]:
    size = 2 if arguments[0].text else 1
    return _joined(arguments[:size]), _joined(arguments[size:])
