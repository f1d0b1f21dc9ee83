"""The power is cut in the middle: after what strace saw of real runs, less what was not synced, a Store has it all."""

import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from entropic.errors import ResultsDirUnavailableError
from tests.support import power_cases
from tests.support.power_cuts import Disk, record
from tests.support.servers import MEMORY, ROOM

pytestmark = pytest.mark.slow

CUTS = 70  # of a scenario; there are three
# Of files and of folders that lose what was not synced.
SHARES = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where that has room: what is synced is told by strace, and costs nothing there."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM:
        yield tmp_path
        return
    with TemporaryDirectory(dir=MEMORY, prefix="entropic-power-cuts-") as made:
        yield Path(made)


def recorded(scenario: str, folder: Path, *faults: str) -> Disk:
    root = folder / "disk"
    root.mkdir()
    command = [sys.executable, "-m", "tests.support.power_cases", scenario, str(root), *faults]
    disk = record(command, root, folder / "log")
    shutil.rmtree(root)  # of two databases of one uuid one would be a copy
    return disk


def cuts(disk: Disk, folder: Path, count: int) -> Iterator[tuple[int, list[str]]]:
    """Cut the power *count* times; yield after how many operations, and what is wrong or lost."""
    chance = random.Random(1)
    for number in range(count):
        at = chance.randint(1, len(disk.ops))
        said = [op.data.decode().strip() for op in disk.ops[:at] if op.kind == "say"]
        former, place = folder / f"committed-{number}", folder / f"cut-{number}"
        expected = power_cases.committed(disk.after(at), former)
        assert expected.keys() >= set(said), "what a call has returned is committed"
        data, names = SHARES[number % len(SHARES)]
        disk.after(at, chance, data=data, names=names).write(place)
        yield at, power_cases.wrong_or_lost(place, expected)
        shutil.rmtree(place)
        shutil.rmtree(former)


@pytest.mark.parametrize("scenario", [one.__name__ for one in power_cases.SCENARIOS])
def test_whenever_the_power_is_cut_nothing_is_wrong_and_nothing_committed_is_lost(scenario, folder):
    disk = recorded(scenario, folder)

    found = {at: problems for at, problems in cuts(disk, folder, CUTS) if problems}

    assert found == {}


@pytest.mark.parametrize("fault", power_cases.FAULTS)
def test_sync_that_is_left_out_is_noticed(fault, folder):
    """Each of these is needed, and the test above sees what it looks for: without one of them it fails."""
    scenario, _ = power_cases.FAULTS[fault]
    disk = recorded(scenario, folder, fault)

    assert is_noticed(disk, folder)


def is_noticed(disk, folder):
    try:
        # Up to the first that shows it; which ones would depends on the order in which this run happened to write.
        return any(problems for _, problems in cuts(disk, folder, 10 * CUTS))
    except ResultsDirUnavailableError:  # no Store opens
        return True


def test_move_that_is_not_made_again_is_noticed(folder, monkeypatch):
    disk = recorded("emptied", folder)
    power_cases.leave_out_moves(monkeypatch)

    assert is_noticed(disk, folder)
