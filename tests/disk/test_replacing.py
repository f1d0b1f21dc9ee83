"""Folders that take the place of others, and what a kill leaves."""

import json
import os
import signal
import time

import pytest

from entropic import ResultFileError
from entropic.disk import replacing
from entropic.process.identity import this_process
from tests.support.kill_steps import killing_at

PLACE = "box/in/it"


@pytest.fixture(params=["at once", "one after the other"])
def how(request, monkeypatch):
    """Whether the system can let two folders change places."""
    if request.param == "one after the other":
        monkeypatch.setattr(replacing, "_system_call", lambda: None)
    return request.param


@pytest.fixture
def above(tmp_path):
    """A folder in which there is one at the place."""
    fill(tmp_path / PLACE, "former")
    return tmp_path


def fill(folder, text):
    folder.mkdir(parents=True)
    folder.joinpath("text").write_text(text)


def replace(above, allow=lambda: None):
    with replacing.beside(above, PLACE) as own:
        fill(own / replacing.NEW, "new")
        replacing.put(own, PLACE, allow)


def killed(monkeypatch, above, step):
    """Replace the folder in a child, which dies before its rename or exchange of this number; return whether it did."""
    if (child := os.fork()) == 0:
        counted = killing_at(step)
        for owner, name in ((os, "rename"), (replacing, "_swap"), (replacing, "_clear")):
            setattr(owner, name, counted(getattr(owner, name)))
        replace(above)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folder_takes_the_place_of_another(above, how):
    replace(above)

    assert (above / PLACE / "text").read_text() == "new"
    assert left_in(above) == ["box"]


def test_folder_that_may_not_give_way_stays(above, how):
    def refuse():
        raise ValueError("stays")

    with pytest.raises(ValueError, match="stays"):
        replace(above, refuse)

    assert (above / PLACE / "text").read_text() == "former"
    assert left_in(above) == ["box"]


def test_killed_at_any_step_one_of_the_two_is_there_once_somebody_looks(tmp_path, how, monkeypatch):
    seen, is_killed = [], True
    while is_killed:
        above = tmp_path / str(len(seen))
        fill(above / PLACE, "former")
        is_killed = killed(monkeypatch, above, len(seen))
        assert (left_in(above) != ["box"]) is is_killed

        assert replacing.recover(above) is False

        seen.append((above / PLACE / "text").read_text())
        assert left_in(above) == ["box"]
    assert {*seen} == {"former", "new"}
    assert seen == sorted(seen)


def test_what_was_put_aside_does_not_replace_what_came_later(above, monkeypatch):
    monkeypatch.setattr(replacing, "_system_call", lambda: None)
    step = 0
    while (above / PLACE).exists():  # until one is killed between the two renames
        assert killed(monkeypatch, above, step)
        step += 1
        if (above / PLACE).exists():
            replacing.recover(above)
    fill(above / PLACE, "later")

    replacing.recover(above)

    assert (above / PLACE / "text").read_text() == "later"
    assert left_in(above) == ["box"]


def leave(above, process, place=PLACE, former=False):
    own = above / replacing._own_name()
    own.mkdir()
    own.joinpath("note.json").write_text(json.dumps({"process": process, "place": place}))
    if former:
        fill(own / "former", "put aside")
    return own


@pytest.mark.parametrize("former", [False, True])
def test_what_a_living_process_makes_is_left_alone(above, former):
    own = leave(above, this_process().as_dict(), former=former)

    assert replacing.recover(above) is former
    assert own.is_dir()


@pytest.mark.parametrize("kind", ["of another host", "without a note"])
def test_what_may_be_anybodys_is_kept_for_a_week(above, kind):
    own = leave(above, this_process().as_dict() | {"owner": "0" * 32, "boot": "elsewhere", "host": "other"})
    if kind == "without a note":
        own.joinpath("note.json").write_text("{")

    replacing.recover(above)
    assert own.is_dir()

    old = time.time() - replacing.LOST_S - 1
    for path in (own / "note.json", own):
        os.utime(path, (old, old))
    replacing.recover(above)
    assert left_in(above) == ["box"]


@pytest.mark.parametrize("place", ["../outside", "box/../../outside", "", "box//it"])
def test_note_that_leads_elsewhere_brings_nothing_back(tmp_path, place):
    above = tmp_path / "above"
    above.mkdir()
    ended = this_process().as_dict() | {"owner": "0" * 32, "pid": 2**22 + 1}
    leave(above, ended, place, former=True)

    replacing.recover(above)

    assert left_in(tmp_path) == ["above"]
    assert left_in(above) == []


def test_what_cannot_be_removed_is_not_said_to_be(above, monkeypatch, caplog):
    ended = this_process().as_dict() | {"owner": "0" * 32, "pid": 2**22 + 1}
    own = leave(above, ended)
    with monkeypatch.context() as patch:
        patch.setattr(replacing, "remove_at", lambda *args, **options: None)  # as of another user's

        replacing.recover(above)
        assert own.is_dir()
        assert caplog.text == ""

    replacing.recover(above)
    assert "was left by a process that has ended: removed" in caplog.text


def test_folder_is_read_again_if_it_was_replaced(above, how):
    texts = []

    def read():
        texts.append((above / PLACE / "text").read_text())
        if len(texts) < 3:
            replace(above)
        return texts[-1]

    assert replacing.read_unreplaced(above / PLACE, read) == "new"
    assert texts == ["former", "new", "new"]


def test_folder_that_is_replaced_all_the_time_is_an_error(above):
    with pytest.raises(ResultFileError, match="was replaced 20 times while it was read"):
        replacing.read_unreplaced(above / PLACE, lambda: replace(above))


def test_error_of_a_folder_that_stays_is_raised_at_once(above):
    for place in (PLACE, "absent"):
        with pytest.raises(ZeroDivisionError):
            replacing.read_unreplaced(above / place, lambda: 1 // 0)
