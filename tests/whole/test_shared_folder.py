"""A results folder that real users share: whose finished runs are taken, and what nobody can do to another."""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from entropic import Store, hash_params
from entropic.disk.sidecars import process_folders, read_sidecar
from entropic.runs import publishing
from tests.support import hostile
from tests.support import protocol_cases as cases
from tests.support.hostile import FOLDERS, Target
from tests.support.processes import ProcessesFailedError
from tests.support.protocol_cases import Place, Sim
from tests.support.users import ALICE, BOB, GROUP, UNINVITED, User, give, place_for_all

OWNER = 47009
NAMES = [plant.__name__ for plant in FOLDERS]


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    with place_for_all() as folder:
        yield folder


@pytest.fixture
def lab() -> Iterator[Place]:
    """A folder of a group, in which each member may write, with a results folder of its own."""
    with place_for_all() as folder:
        for path in (folder / "lab", folder / "lab" / "results", folder / "lab" / "results" / ".entropic"):
            path.mkdir()
            give(path, OWNER, GROUP)
            path.chmod(0o2775)
        (folder / "lab" / "runs.sqlite3").touch()
        give(folder / "lab" / "runs.sqlite3", OWNER, GROUP, 0o664)  # SQLite itself would make it for one user
        yield Place(f"sqlite:///{folder / 'lab' / 'runs.sqlite3'}", folder / "lab")


# What is planted there by another user


def open_all(base: Path) -> None:
    for name in NAMES:
        place_in(base, name).store()


def place_in(base: Path, name: str) -> Place:
    return Place(f"sqlite:///{base / name / 'runs.sqlite3'}", base / name)


def use_all(base: Path) -> dict[str, dict[str, Any]]:
    return {name: use(place_in(base, name)) for name in NAMES}


def use(place: Place) -> dict[str, Any]:
    victim = place.folder / "victim"
    before = hostile.snapshot(victim)
    took_s, store = hostile.seconds_of(place.store)
    try:
        text = Path(store.run_or_retrieve({"a": 1.0}).result_file).read_text()
    except Exception as error:
        text = str(error)
    recovered = store.recover()
    store.check(checksum=True, fix=True)
    is_same = hostile.snapshot(victim) == before
    return {"took_s": took_s, "text": text, "recovered": recovered, "is_same": is_same}


@pytest.fixture(scope="module")
def used(base: Path) -> dict[str, dict[str, Any]]:
    """What Bob saw of each folder in which Alice, whose group was invited, had planted something."""
    for plant in FOLDERS:
        folder = base / plant.__name__
        folder.mkdir()
        give(folder, BOB.uid, GROUP, 0o775)
    BOB.does(open_all, base)
    for plant in FOLDERS:
        folder = base / plant.__name__
        target = Target(folder / "results", hostile.make_victim(folder))
        plant(target)
        hostile.make_old(target.root)
        give(target.victim, BOB.uid, GROUP)
        give(target.state, ALICE.uid, GROUP, 0o664)
        (folder / "results").chmod(0o2775)
    return BOB.does(use_all, base)


@pytest.mark.parametrize("plant", FOLDERS, ids=lambda plant: plant.__name__)
def test_nothing_of_the_one_who_opens_is_touched_and_the_store_works(used, plant):
    seen = used[plant.__name__]

    assert seen["is_same"]
    assert seen["took_s"] < 10
    assert seen["recovered"] == 0
    assert (
        "is a link" in seen["text"] if plant in hostile.REFUSED_TO_RUN else seen["text"] == "version 1 of 1.0"
    )


# Whose folders are believed


@dataclass(frozen=True)
class Case:
    """Modes of results folder, `.entropic` and a process's folder, whose it is, and whether Bob believes it."""

    name: str
    is_believed: bool
    uid: int = ALICE.uid
    root: int = 0o2775
    state: int = 0o2775
    folder: int = 0o2775
    gids: tuple[int, int, int] = (GROUP, GROUP, GROUP)


BELIEVED = (
    Case("own", True, BOB.uid, 0o755, 0o755, 0o755),
    Case("of the owner", True, OWNER, 0o755, 0o755, 0o755),
    Case("of another", False, ALICE.uid, 0o755, 0o755, 0o755),
    Case("of root", False, 0, 0o755, 0o755, 0o755),
    Case("of the group", True),
    Case("of the group, a folder of one's own", False, folder=0o2755),
    Case("of the group, which may not write in the state", False, state=0o2755),
    Case("of the group, which may not write in the root", False, root=0o2755),
    Case("of the group, and of the world", False, folder=0o2777),
    Case("of the group, in a state for the world", False, state=0o2777),
    Case("of the group, in a root for the world", False, root=0o2777),
    Case("of another group", False, gids=(GROUP, GROUP, UNINVITED)),
    Case("of another group in the state", False, gids=(GROUP, UNINVITED, UNINVITED)),
    Case("own, in a root for the world", True, BOB.uid, root=0o777),
    Case("own, for the world", True, BOB.uid, folder=0o777),
    Case("of the owner, in a root for the world", False, OWNER, root=0o1777),
    Case("of the owner, in a state for the world", False, OWNER, state=0o1777),
    Case("of the owner, for the world", False, OWNER, folder=0o777),
)


def believed_in(base: Path) -> dict[str, bool]:
    return {case.name: bool(list(process_folders(base / case.name))) for case in BELIEVED}


@pytest.fixture(scope="module")
def believed() -> Iterator[dict[str, bool]]:
    with place_for_all() as base:
        for case in BELIEVED:
            root = base / case.name
            folder = root / ".entropic" / "x"
            folder.mkdir(parents=True)
            owners = zip((root, root / ".entropic", folder), (OWNER, OWNER, case.uid), case.gids, strict=True)
            for path, uid, gid in owners:
                give(path, uid, gid)
            for path, mode in ((root, case.root), (root / ".entropic", case.state), (folder, case.folder)):
                path.chmod(mode)
        yield BOB.does(believed_in, base)


@pytest.mark.parametrize("case", BELIEVED, ids=lambda case: case.name)
def test_folder_is_believed_by_its_owner_and_modes(believed, case):
    assert believed[case.name] is case.is_believed


def test_line_of_another_in_a_folder_of_ones_own_is_not_believed(base):
    root = base / "mixed"
    folder = root / ".entropic" / "x"
    folder.mkdir(parents=True)
    (folder / "sidecar.jsonl").write_text(json.dumps(hostile.LINE) + "\n")
    (folder / "process.json").write_text("{}")
    give(root, BOB.uid, GROUP)
    own = len(BOB.does(lines_in, folder))
    give(folder / "sidecar.jsonl", ALICE.uid, GROUP)

    lines = BOB.does(lines_in, folder)

    assert (own, lines) == (1, [])


def lines_in(folder: Path) -> list[Any]:
    return read_sidecar(folder).lines


# Runs that were finished and not committed


def finish_and_die(place: Place, user: User) -> None:
    with pytest.raises(ProcessesFailedError, match="exit code -9"):
        user.does(cases.run_until, place, "line written", {"a": 1.5})


def open_and_look(place: Place) -> tuple[int, list[str], list[str]]:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("entropic").addHandler(handler)
    store = place.store()
    findings = [finding.sentence for finding in store.check() if finding.kind == "not-believed"]
    return store.count(), said, findings


def test_run_of_another_user_is_left_to_that_user_and_said(lab):
    alice = replace(ALICE, umask=0o022)
    bob = replace(BOB, umask=0o002)
    bob.does(open_and_look, lab)
    finish_and_die(lab, alice)

    count, said, findings = bob.does(open_and_look, lab)
    after = ALICE.does(open_and_look, lab)

    assert count == 0
    assert len([text for text in said if "not believed" in text]) == 1
    assert len(findings) == 1
    for text in [*said, *findings]:
        assert f"uid {ALICE.uid}" in text
        assert "invite the group" in text
    assert after[0] == 1


def test_run_of_a_group_that_was_invited_is_recovered(lab):
    alice, bob = replace(ALICE, umask=0o002), replace(BOB, umask=0o002)
    bob.does(open_and_look, lab)
    finish_and_die(lab, alice)

    count, said, findings = bob.does(open_and_look, lab)

    assert (count, findings) == (1, [])
    assert any("recovered" in text for text in said)


class Private:
    """A runner that writes what nobody else may read, as a program does that writes aside and renames."""

    def __call__(self, params: dict[str, Any]) -> None:
        path = Path(params["result_file"])
        path.write_text("private")
        path.chmod(0o600)


def private_store(place: Place) -> Store[Sim]:
    return Store(Private(), Sim, place.results, ".txt", place.url)


def finish_privately(place: Place) -> None:
    """Leave a run that is finished and not committed, and one that is."""
    store = private_store(place)
    store.run_or_retrieve({"a": 0.5})
    publishing.Publisher.publish = lambda *_: os._exit(9)  # type: ignore[method-assign]
    store.run_or_retrieve({"a": 1.5})


def go_on(place: Place) -> dict[str, Any]:
    store, seen = private_store(place), {}
    seen["sweep"] = [one.a for one in store.sweep([{"a": 2.5}, {"a": 3.5}], progress=False)]
    result = store.sweep([{"a": 1.5}, {"a": 4.5}], on_error="continue", progress=False)
    seen["failed"] = [(one.params["a"], one.error_type) for one in result.failed]
    for call in (store.run_or_retrieve, lambda params: store.recover()):
        with pytest.raises(PermissionError) as caught:
            call({"a": 1.5})
        seen.setdefault("notes", []).append("".join(caught.value.__notes__))
    seen["found"] = [finding.sentence for finding in store.check(fix=True) if finding.kind == "unfinished"]
    seen["again"] = store.run({"a": 0.5}).a
    return seen


def take_in(place: Place) -> tuple[list[float], str]:
    store = place.store()
    return sorted(one.a for one in store.records()), str(store.check())


def test_finished_run_that_only_its_user_may_read_is_not_run_again_and_in_nobodys_way(lab):
    alice, bob = replace(ALICE, umask=0o002), replace(BOB, umask=0o002)
    with pytest.raises(ProcessesFailedError, match="exit code 9"):
        alice.does(finish_privately, lab)

    seen = bob.does(go_on, lab)
    records, problems = alice.does(take_in, lab)

    assert seen["sweep"] == [2.5, 3.5]
    assert seen["failed"] == [(1.5, "PermissionError")]
    assert all("was finished by an earlier attempt" in text for text in (*seen["notes"], *seen["found"]))
    assert len(seen["found"]) == 1
    assert seen["again"] == 0.5
    assert records == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert problems == "no findings"


# A file that another user registered, in a folder of their own


def register_own(place: Place, path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o700)
    path.write_text("measured")
    place.store().register({"a": 1.0}, path)


def ask_for_it(place: Place) -> tuple[list[str], list[str], int]:
    store = place.store()
    said = []
    for ask in (
        lambda: store.run_or_retrieve({"a": 1.0}),
        lambda: store.retrieve({"a": 1.0}),
        lambda: store.sweep([{"a": 1.0}, {"a": 2.0}], progress=False),
    ):
        try:
            said.append(str(ask()))
        except OSError as error:
            said.append(f"{type(error).__name__} {error}")
    kinds = [finding.kind for finding in store.check(fix=True)]
    return said, kinds, store.count(a=1.0)


@pytest.mark.parametrize("is_recorded", [True, False], ids=["registered", "written by SQL"])
def test_file_that_may_not_be_looked_at_is_not_taken_for_one_that_is_gone(lab, is_recorded):
    alice, bob = replace(ALICE, umask=0o002), replace(BOB, umask=0o002)
    alice.does(open_and_look, lab)
    (lab.folder / "home").mkdir()
    give(lab.folder / "home", ALICE.uid, GROUP)
    path = lab.folder / "home" / "own" / f"{hash_params({'a': 1.0})}.txt"
    alice.does(register_own, lab, path)
    if not is_recorded:
        lab.sql("DELETE FROM entropic_files")

    said, kinds, count = bob.does(ask_for_it, lab)

    for text in said:
        assert text.startswith("PermissionError")
        assert str(path) in text
    assert kinds == ["corrupt-file"]
    assert count == 1
    assert alice.does(open_and_look, lab)[0] == 1


# A folder in which each may only remove what is theirs


def write_folder(params: dict[str, Any]) -> None:
    Path(params["result_file"]).mkdir()
    (Path(params["result_file"]) / "part").write_text(str(os.geteuid()))


def write_file(params: dict[str, Any]) -> None:
    Path(params["result_file"]).write_text(str(os.geteuid()))


def run_again(place: Place, runner: Any, suffix: str) -> dict[str, Any]:
    """Run a key that has a result perhaps, read it, look for trouble, and delete it with its file."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("entropic").addHandler(handler)
    store = Store(runner, cases.Sim, place.results, suffix, place.url)
    path = Path(store.run({"a": 1.0}).result_file)
    found = {
        "text": (path / "part" if path.is_dir() else path).read_text(),
        "findings": [finding.kind for finding in store.check(checksum=True, fix=True)],
        "is_intact": store.retrieve({"a": 1.0}, verify=True) is not None,
        "said": [text for text in said if "heartbeat" not in text],
    }
    store.close()
    found["left"] = len(list((place.results / ".entropic").iterdir()))
    return found


def delete(place: Place, runner: Any, suffix: str) -> tuple[int, list[str]]:
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("entropic").addHandler(handler)
    store = Store(runner, cases.Sim, place.results, suffix, place.url)
    deleted = store.delete({"a": 1.0}, remove_file=True)
    store.close()
    return deleted, said


@pytest.mark.parametrize(
    ("runner", "suffix"), [(write_file, ".txt"), (write_folder, "")], ids=["file", "folder"]
)
@pytest.mark.parametrize("mode", [0o3775, 0o1777], ids=["of a group", "of all"])
def test_result_of_another_user_in_a_sticky_folder_is_followed_by_one_of_ones_own(lab, runner, suffix, mode):
    lab.results.chmod(mode)
    (lab.folder / "runs.sqlite3").chmod(0o666)
    lab.folder.chmod(0o2777)
    alice, bob = replace(ALICE, umask=0), replace(BOB, umask=0)

    first = alice.does(run_again, lab, runner, suffix)
    second = bob.does(run_again, lab, runner, suffix)
    deleted, why = alice.does(delete, lab, runner, suffix)

    assert (first["text"], first["said"], first["findings"]) == (str(ALICE.uid), [], [])
    assert (second["text"], second["is_intact"]) == (str(BOB.uid), True)
    assert set(second["findings"]) <= {"stray-file"}
    assert second["left"] == 0
    assert [text for text in second["said"] if "was replaced and could not be removed" in text]
    assert deleted
    assert [text for text in why if "is yours to delete" in text]


def make_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def fill_folder(path: Path) -> None:
    path.mkdir()
    (path / "data").write_text("kept")


def register_and_delete(place: Place, path: Path) -> tuple[int, list[str]]:
    Store(write_file, cases.Sim, place.results, ".txt", place.url).register({"a": 1.0}, path)
    return delete(place, write_file, ".txt")


def test_registered_folder_that_another_user_has_files_in_is_said_to_stay(lab):
    lab.folder.chmod(0o2777)
    alice, bob = replace(ALICE, umask=0o022), replace(BOB, umask=0o002)
    bob.does(make_folder, lab.folder / "measured")
    alice.does(fill_folder, lab.folder / "measured" / "deep")

    deleted, said = bob.does(register_and_delete, lab, lab.folder / "measured")

    assert deleted
    assert [text for text in said if "removed by its owner only" in text]
    assert (lab.folder / "measured" / "deep" / "data").read_text() == "kept"
