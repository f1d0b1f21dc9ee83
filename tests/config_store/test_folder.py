"""Configs as YAML files: what people write by hand, what DaCapo wrote, and what others put into the folder."""

import os

import pytest
import yaml

from entropic import ConfigNotFoundError, DecodeError, DuplicateNameError, InvalidContainerError
from entropic.config_store import FileConfigStore
from tests.support.config_cases import ONE_OF_EACH, Distances, Gunpowder, Volume, run
from tests.support.processes import run_together


@pytest.fixture
def store(tmp_path):
    return FileConfigStore(tmp_path)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_folders_are_made_and_named_by_kind(store, tmp_path):
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "architectures", "arrays", "datasets", "datasplits", "runs", "tasks", "trainers", "users",
    ]  # fmt: skip
    assert store.tasks == tmp_path / "tasks"
    assert repr(store) == f"FileConfigStore({str(tmp_path)!r})"


def test_file_is_what_a_person_would_write(store, tmp_path):
    store.store_task_config(Distances(name="my task/β", clip=2.5))

    (name,) = files(tmp_path)
    assert name == "tasks/my task%2F%CE%B2.yaml"
    assert (tmp_path / name).read_text() == "__type__: Distances\nname: my task/β\nclip: 2.5\n"


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_file_that_was_written_by_hand_is_read(store, tmp_path, suffix):
    text = '{"__type__": "Gunpowder", "name": "by hand", "rate": 1e-4}' if suffix == ".json" else (
        "# the rate of the paper\n__type__: Gunpowder\nname: by hand\nrate: 1e-4\n"
    )  # fmt: skip
    (tmp_path / "trainers" / f"by hand{suffix}").write_text(text)

    assert store.retrieve_trainer_config_names() == ["by hand"]
    assert store.retrieve_trainer_config("by hand") == Gunpowder(name="by hand", rate=1e-4)
    store.store_trainer_config(Gunpowder(name="by hand", rate=1e-4))
    store.delete_trainer_config("by hand")
    assert files(tmp_path) == []


def test_file_of_dacapos_is_read_as_it_is(store, tmp_path):
    text = yaml.dump({"__type__": "Volume", "name": "räw", "path": "p", "voxel_size": (4, 4, 4)})
    assert "!!python/tuple" in text
    (tmp_path / "arrays" / "räw.yaml").write_text(text)

    assert store.retrieve_array_config_names() == ["räw"]
    assert store.retrieve_array_config("räw") == Volume(name="räw", path="p", voxel_size=(4, 4, 4))
    store.store_array_config(Volume(name="räw", path="new"), if_exists="replace")
    assert files(tmp_path) == ["arrays/r%C3%A4w.yaml"]
    assert store.retrieve_array_config_names() == ["räw"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "__type__: Distances\nname: x\nclip: fast\n",
            "the task config 'x' cannot be read: clip: Input should be a valid",
        ),
        ("__type__: Distances\nname: x\nclpi: 1\n", "clpi: Extra inputs are not permitted"),
        ("__type__: Distances\n", "name: Field required"),
        ("__type__: Distanecs\nname: x\n", "no class 'Distanecs' of task configs is defined here, only"),
        ("name: [1\n", r"x\.yaml' is no YAML: .*line 2"),
        ("- 1\n- 2\n", "a task config cannot be read: Input should be"),
        ("", "no task config 'x' is stored"),
        ("!!python/object/apply:os.system ['false']\n", "is no YAML: could not determine a constructor"),
        ("a: &a [*a]\n", "cannot be read"),
        ("name: x\nclip: 1.0\nclip: 2.0\n", r"is no YAML: the key 'clip' is there twice .*line 3"),
    ],
)
def test_file_with_a_mistake_says_what_is_wrong_and_where(store, tmp_path, text, error):
    (tmp_path / "tasks" / "x.yaml").write_text(text)

    with pytest.raises((DecodeError, ConfigNotFoundError), match=error):
        store.retrieve_task_config("x")
    assert (tmp_path / "tasks" / "x.yaml").read_text() == text


def test_file_that_was_copied_under_another_name_is_told_from_its_original(store, tmp_path):
    store.store_task_config(Distances(name="x", clip=1.0))
    copied = tmp_path / "tasks" / "y.yaml"
    copied.write_bytes((tmp_path / "tasks" / "x.yaml").read_bytes())

    with pytest.raises(
        DecodeError, match="as the task config 'y' says that its name is 'x': give it the name"
    ):
        store.retrieve_task_config("y")
    assert store.retrieve_task_config("y", strict=False)["name"] == "x"
    assert store.retrieve_task_config("x").clip == 1.0


def test_name_that_looks_like_the_file_of_another_is_not_taken_for_that(store):
    store.store_task_config(Distances(name="a/b", clip=1.0))
    with pytest.raises(ConfigNotFoundError):
        store.delete_task_config("a%2Fb")
    store.store_task_config(Distances(name="a%2Fb", clip=2.0))

    assert [store.retrieve_task_config(name).clip for name in ("a/b", "a%2Fb")] == [1.0, 2.0]
    assert store.retrieve_task_config_names() == ["a%2Fb", "a/b"]


def test_key_that_is_merged_from_elsewhere_may_be_given_again(store, tmp_path):
    text = "many:\n  a: {b: &b {<<: {clip: 1.0}, clip: 2.0}}\n  c: {<<: *b, name: 1, '1': 2, 1: 3}\n"
    (tmp_path / "tasks" / "x.yaml").write_text(text)

    found = store.retrieve_task_config("x", strict=False)
    assert found == {"many": {"a": {"b": {"clip": 2.0}}, "c": {"clip": 2.0, "name": 1, "1": 2, 1: 3}}}


def test_time_in_a_file_is_what_its_field_says(store, tmp_path):
    class Dated(Distances):
        label: str

    (tmp_path / "tasks" / "x.yaml").write_text("__type__: Dated\nname: x\nlabel: 2026-01-02\n")

    assert store.retrieve_task_config("x") == Dated(name="x", label="2026-01-02")


def test_what_is_no_config_is_not_listed(store, tmp_path):
    for name in (".DS_Store", ".hidden.yaml", "notes.txt", "x", "~backup.yaml~"):
        (tmp_path / "tasks" / name).touch()
    (tmp_path / "tasks" / "folder.yaml").mkdir()

    assert store.retrieve_task_config_names() == []


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder"])
def test_what_is_no_regular_file_is_neither_followed_nor_replaced(store, tmp_path, kind):
    outside, path = tmp_path / "outside", tmp_path / "tasks" / "t1.yaml"
    outside.write_text("__type__: Distances\nname: t1\n")
    make = {"link": lambda: path.symlink_to(outside), "dangling link": lambda: path.symlink_to("nowhere"),
            "fifo": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]  # fmt: skip
    make()

    for act in (
        store.retrieve_task_config,
        store.delete_task_config,
        lambda _: store.store_task_config(ONE_OF_EACH["task"]),
    ):
        with pytest.raises(InvalidContainerError, match=r"t1\.yaml' is no regular file"):
            act("t1")
    assert store.retrieve_task_config_names() == []
    assert os.path.lexists(path)
    assert outside.read_text() == "__type__: Distances\nname: t1\n"


def test_file_where_a_folder_is_wanted_is_named(tmp_path):
    (tmp_path / "tasks").touch()
    with pytest.raises(NotADirectoryError, match=r"tasks' is a file, where a folder of configs is wanted"):
        FileConfigStore(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        FileConfigStore(tmp_path / "tasks" / "below")


def test_name_that_no_file_can_have_is_refused_and_nothing_is_written(store, tmp_path):
    with pytest.raises(ValueError, match="is too long"):
        store.store_task_config(Distances(name="β" * 60))
    assert files(tmp_path) == []


def test_write_that_fails_leaves_what_was_there(store, tmp_path, monkeypatch):
    store.store_task_config(Distances(name="t1"))
    before = (tmp_path / "tasks" / "t1.yaml").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        store.store_task_config(Distances(name="t1", clip=1.0), if_exists="replace")

    assert files(tmp_path) == ["tasks/t1.yaml"]
    assert (tmp_path / "tasks" / "t1.yaml").read_bytes() == before


def _store(folder, number):
    try:
        FileConfigStore(folder).store_run_config(run(num_iterations=number))
    except DuplicateNameError:
        return None
    return number


def test_of_several_processes_that_store_one_name_one_does(tmp_path):
    stored = run_together(_store, [(tmp_path, number) for number in range(6)])

    (winner,) = [number for number in stored if number is not None]
    assert FileConfigStore(tmp_path).retrieve_run_config("r1") == run(num_iterations=winner)


@pytest.mark.slow
def test_of_several_processes_that_store_the_same_all_succeed(tmp_path):
    assert run_together(_store, [(tmp_path, 7)] * 6) == [7] * 6
    assert len(files(tmp_path)) == 5
