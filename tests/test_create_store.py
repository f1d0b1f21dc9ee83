"""The stores that the options name."""

import pytest

from entropic.array_store import LocalArrayStore
from entropic.config_store import FileConfigStore, SQLConfigStore
from entropic.configs import TaskConfig
from entropic.create_store import create_array_store, create_config_store
from entropic.options import Options


@pytest.fixture
def options(tmp_path):
    def made(kind):
        return Options(
            type=kind, runs_base_dir=tmp_path / "runs", db_url=f"sqlite:///{tmp_path / 'e.sqlite3'}"
        )

    return made


def test_configs_are_rows_or_files(options, tmp_path):
    rows, files = create_config_store(options("sql")), create_config_store(options("files"))
    assert (type(rows), type(files)) == (SQLConfigStore, FileConfigStore)
    for store in (rows, files):
        store.store_task_config(TaskConfig(name="t"))
        assert store.retrieve_task_config_names() == ["t"]
    assert (tmp_path / "runs" / "configs" / "tasks" / "t.yaml").is_file()
    assert create_config_store(options("sql")).database.engine is rows.database.engine


def test_arrays_lie_below_the_folder_of_runs(options, tmp_path):
    store = create_array_store(options("sql"))
    assert type(store) is LocalArrayStore
    assert store.snapshot_container("r").container == tmp_path / "runs" / "r" / "snapshot.zarr"


def test_stores_without_options_are_those_that_the_file_names(tmp_path, monkeypatch):
    (tmp_path / "entropic.toml").write_text("type = 'files'\nruns_base_dir = 'here'")
    monkeypatch.chdir(tmp_path)
    create_config_store().store_task_config(TaskConfig(name="t"))
    assert (tmp_path / "here" / "configs" / "tasks" / "t.yaml").is_file()

    (tmp_path / "entropic.toml").write_text("type = 'mongo'")
    with pytest.raises(
        ValueError, match=r"the option type \(.*entropic\.toml\): Input should be 'sql' or 'files'"
    ):
        create_config_store()
