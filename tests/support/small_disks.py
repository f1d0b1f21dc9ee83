"""A small file system of its own, which tests fill, or make read-only."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE_BYTES = 4 << 20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount one at a new folder, or skip where that is not allowed."""
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command, so no small disk can be made")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Let nothing be written to it."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


def fill(disk: Path, *, but_for: int = 0) -> None:
    """Write to the disk until nothing more goes onto it, then make room for so many bytes."""
    path = disk / "filler"
    with path.open("ab", buffering=0) as file:
        block = bytes(1 << 16)
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]
        file.truncate(file.tell() - but_for)


def free(disk: Path) -> None:
    """Make room again."""
    (disk / "filler").unlink()
