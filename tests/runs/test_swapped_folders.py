"""A folder of ours that somebody has put a link in the place of, between a look at it and its use."""

import os
from pathlib import Path

import pytest

from entropic import ResultFileError, ResultsDirUnavailableError, Store
from entropic.disk.staged import stage
from entropic.disk.staging import Staging
from entropic.process.identity import this_process
from entropic.runs.attempts import Work
from entropic.sweeps.backends.task_notes import NotedWork
from entropic.sweeps.backends.tickets import TicketedWork
from tests.support.hostile import make_victim, snapshot
from tests.support.protocol_cases import MARKER, Place, Sim

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    made = make_victim(tmp_path)
    (made / "sub" / "link").symlink_to(made / "thesis.tex")
    return made


def swap(folder: Path, victim: Path) -> None:
    folder.rename(folder.with_name(f"{folder.name}-moved"))
    folder.symlink_to(victim)


@pytest.mark.parametrize(
    "use",
    [
        lambda staging: staging.take(),
        lambda staging: staging.touch("stop-sweep"),
        lambda staging: staging.append({"record_id": "k", "attempt": "a"}),
    ],
    ids=["take", "touch", "append"],
)
def test_nothing_is_made_where_a_link_for_our_folder_leads(root, victim, use):
    staging = Staging(root, "process", {"pid": 1})
    staging.take()
    swap(staging.folder, victim)
    before = snapshot(victim)

    with pytest.raises((ResultsDirUnavailableError, OSError)):
        use(staging)

    assert snapshot(victim) == before


def test_link_for_our_folder_is_named_before_anything_runs(root, victim):
    staging = Staging(root, "process", {"pid": 1})
    staging.take()
    swap(staging.folder, victim)

    with pytest.raises(ResultsDirUnavailableError, match=r"is a link.*remove it"):
        staging.take()


def test_slot_that_is_a_link_is_not_staged_or_cleared(root, victim):
    staging = Staging(root, "process", {"pid": 1})
    slot = staging.take()
    swap(slot, victim / "sub")
    before = snapshot(victim)

    with pytest.raises(OSError, match=r"link|directory"):
        stage(slot, "link")
    staging.retire(slot, clear=True)

    assert staging.take() != slot
    assert snapshot(victim) == before


def test_runs_own_link_is_copied_with_its_times(root, victim):
    slot = Staging(root, "process", {"pid": 1}).take()
    os.utime(victim / "thesis.tex", (7, 7))
    (slot / "k").symlink_to(os.path.relpath(victim / "thesis.tex", slot))

    stage(slot, "k")

    assert not (slot / "k").is_symlink()
    assert (slot / "k").read_text() == "years"
    assert (slot / "k").stat().st_mtime == 7


@ROOT_ONLY
def test_link_that_another_user_made_is_not_copied(root, victim):
    slot = Staging(root, "process", {"pid": 1}).take()
    (slot / "k").symlink_to(victim / "thesis.tex")
    os.lchown(slot / "k", 4711, -1)

    with pytest.raises(ResultFileError, match="uid 4711"):
        stage(slot, "k")

    assert (slot / "k").is_symlink()


@pytest.mark.parametrize("class_", [TicketedWork, NotedWork])
def test_chunks_are_noted_in_no_folder_that_a_link_leads_to(root, victim, class_):
    work = Work(print, str(root), MARKER, "s", holder=this_process().as_dict())
    tasks = root / ".entropic" / "tasks-s"
    tasks.parent.mkdir()
    tasks.symlink_to(victim)
    before = snapshot(victim)

    backend = class_(work)
    if class_ is TicketedWork:
        assert not backend.issue("task")
        assert not backend.take("thesis.tex")
    else:
        assert backend.for_task("task")([]) == []
        assert backend.death("thesis.tex") is None

    assert snapshot(victim) == before


def test_state_folder_that_is_swapped_during_a_run_leads_nowhere(tmp_path, sqlite_url, victim):
    place = Place(sqlite_url, tmp_path)
    state = place.results / ".entropic"

    def swap_state(params):
        Path(params["result_file"]).write_text("result")
        swap(state, victim)

    before = snapshot(victim)
    with pytest.raises(OSError, match=r"link|directory"):
        Store(swap_state, Sim, place.results, ".txt", db_url=sqlite_url).run_or_retrieve({"a": 1.0})

    assert snapshot(victim) == before
