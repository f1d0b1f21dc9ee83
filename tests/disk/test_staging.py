"""A process's own folder: what of it is on the disk by name, and who may use a slot."""

from pathlib import Path

import pytest

from entropic.disk import roots, sidecars
from entropic.disk.roots import Marker
from entropic.disk.staging import Staging, move
from tests.support.disk_order import disk_order


@pytest.fixture
def root(tmp_path: Path) -> Path:
    roots.write_marker(tmp_path, Marker("root", "database", "table"))
    return tmp_path


def line(record_id: str = "k", attempt: str = "a1") -> dict[str, str]:
    return {"record_id": record_id, "attempt": attempt}


def test_names_of_the_state_folder_and_of_the_processs_own_are_on_the_disk_before_a_slot_is_used(root):
    """Else a power cut takes the folder with all its synced lines."""
    staging = Staging(root, "process", {"pid": 1})

    with disk_order() as order:
        slot = staging.take()

    names = [one for one in order if one[0] in {"made", "synced"}]
    assert names == [
        ("made", str(root / ".entropic")),
        ("synced", str(root)),
        ("made", str(root / ".entropic" / "process")),
        ("synced", str(root / ".entropic")),
        ("made", str(slot)),
    ]


def test_second_line_after_a_new_slot_makes_that_slots_name_survive(root):
    staging = Staging(root, "process", {"pid": 1})
    staging.take()
    staging.append(line())
    staging.take()

    with disk_order() as order:
        staging.append(line(attempt="a2"))

    assert ("synced", str(staging.folder)) in order


@pytest.mark.parametrize("error", [PermissionError(13, "refused"), OSError(28, "No space left on device")])
def test_move_that_the_disk_refuses_raises_its_error_and_leaves_both(root, monkeypatch, error):
    (root / "new").write_text("new")
    (root / "final").write_text("old")
    real = sidecars.os.replace

    def refuse(source, target, **folders):
        if Path(source).name == "new":
            raise error
        real(source, target, **folders)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refuse)
        with pytest.raises(OSError, match=r"refused|No space") as caught:
            move(root / "new", root / "final")

    assert caught.value is error
    assert ((root / "new").read_text(), (root / "final").read_text()) == ("new", "old")
    assert not (root / roots.STATE).exists()
