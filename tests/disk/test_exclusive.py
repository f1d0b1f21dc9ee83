"""A whole file under a name that nobody has, with hard links and where there are none."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from entropic import Base, Mapped, Store
from entropic.disk.exclusive import put_new
from entropic.stats import TrainingIterationStats, TrainingStats
from entropic.stats_store import FileStatsStore


class Portable(Base):
    __tablename__ = "portable"
    n: Mapped[int]


def write(params):
    Path(params["result_file"]).write_text(str(params["n"]))


@pytest.fixture(params=[None, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP], ids=str)
def linking(request, monkeypatch):
    """Hard links, or what a file system says that has none, such as exFAT."""

    def link(source, *rest, **options):
        raise OSError(request.param, os.strerror(request.param), str(source))

    if request.param is not None:
        monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("linking")
def test_file_has_its_new_name(tmp_path):
    (tmp_path / "own").write_text("whole")

    put_new(tmp_path / "own", tmp_path / "name")

    assert (tmp_path / "name").read_text() == "whole"


@pytest.mark.usefixtures("linking")
def test_name_that_is_taken_stays_and_so_does_the_file(tmp_path):
    (tmp_path / "own").write_text("whole")
    (tmp_path / "name").write_text("there")

    with pytest.raises(FileExistsError):
        put_new(tmp_path / "own", tmp_path / "name")

    assert [(tmp_path / name).read_text() for name in ("own", "name")] == ["whole", "there"]


@pytest.mark.usefixtures("linking")
def test_of_many_at_once_one_gets_the_name(tmp_path):
    def ask(number):
        own = tmp_path / f"own-{number}"
        own.write_text(str(number))
        try:
            put_new(own, tmp_path / "name")
        except FileExistsError:
            return None
        return str(number)

    with ThreadPoolExecutor(8) as pool:
        got = [one for one in pool.map(ask, range(40)) if one is not None]

    assert got == [(tmp_path / "name").read_text()]


def test_error_that_is_no_want_of_links_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        put_new(tmp_path / "own", tmp_path / "name")

    assert not (tmp_path / "name").exists()


@pytest.mark.usefixtures("linking")
def test_stores_work_whether_there_are_links_or_none(tmp_path):
    store = Store(write, Portable, tmp_path / "results", ".txt", f"sqlite:///{tmp_path / 'runs.sqlite3'}")
    statistics = FileStatsStore(tmp_path)
    for number in (1, 2):
        store.run({"n": 1})
        statistics.store_training_stats("run", TrainingStats([TrainingIterationStats(0, number, 0.1)]))
    store.sweep([{"n": n} for n in range(4)], progress=False)
    store.close()

    assert store.count() == 4
    assert not store.check(checksum=True)
    assert statistics.retrieve_training_stats("run").iteration_stats[0].loss == 2
