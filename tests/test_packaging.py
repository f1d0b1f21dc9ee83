"""What a user installs: everything the code needs is in the wheel, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    """Paths inside the wheel, built from the source distribution as a package index would get it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_has_the_files_that_code_reads(wheel_names):
    needed = {
        "entropic/py.typed",
        "entropic/alembic.ini",
        "entropic/migrations/env.py",
        "entropic/migrations/script.py.mako",
        "entropic/data/hudson_bay_lynx_hare.csv",
    }

    assert needed - wheel_names == set()


def test_wheel_has_every_module_and_every_revision(wheel_names):
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "entropic").rglob("*.py")}
    revisions = {
        "entropic/" + path.relative_to(ROOT).as_posix()
        for path in (ROOT / "migrations/versions").glob("*.py")
    }

    assert revisions
    assert (modules | revisions) - wheel_names == set()


def test_wheel_has_nothing_but_the_package(wheel_names):
    folders = {name.partition("/")[0] for name in wheel_names}

    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"entropic"}
