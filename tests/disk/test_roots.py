"""The marker of a results folder: on the disk when it has been written."""

from pathlib import Path

import pytest

from entropic.disk import roots
from entropic.disk.roots import Marker
from tests.support.disk_order import disk_order

MINE = Marker("root", "database", "table")


@pytest.mark.parametrize("replace", [False, True])
def test_marker_and_its_name_are_on_the_disk_when_it_was_written(tmp_path: Path, replace):
    """Without a marker no run can be made until the folder is adopted."""
    with disk_order() as order:
        roots.write_marker(tmp_path, MINE, replace=replace)

    (content,) = {path for what, path in order if what == "synced"} - {str(tmp_path)}
    assert Path(content).name.startswith(roots.MARKER)
    steps = [one for one in order if one[0] in {"synced", "renamed"}]
    assert steps == [
        ("synced", content),
        ("renamed", str(tmp_path / roots.MARKER)),
        ("synced", str(tmp_path)),
    ]
