"""What every store of configs does."""

import math
import re
from contextlib import contextmanager

import pytest
from pydantic import BaseModel, SecretStr

from entropic import ConfigNotFoundError, DecodeError, DuplicateNameError, InUseError, configs
from entropic.config_store import ConfigStore, FileConfigStore, SQLConfigStore
from entropic.config_store.interface import Write
from entropic.configs import RunConfig, StartConfig
from tests.support.config_cases import (
    DOCUMENT_OF_BEFORE,
    OF_BEFORE,
    ONE_OF_EACH,
    OTHER,
    Augmented,
    Descent,
    Distances,
    Gunpowder,
    Pair,
    TrainValidate,
    UNet,
    Volume,
    run,
)
from tests.support.databases import database_of, empty

KINDS = list(ONE_OF_EACH)
PARTS = ["task", "architecture", "trainer", "datasplit"]


@pytest.fixture(scope="module", params=["files", "sqlite-file", "postgresql", "mysql"])
def kept(request, tmp_path_factory):
    """A store for all tests: on a server tables are dear."""
    if request.param == "files":
        yield None
        return
    with database_of(request, tmp_path_factory.mktemp("configs")) as database:
        yield SQLConfigStore(database)
        database.dispose()


@pytest.fixture
def store(kept, tmp_path):
    if kept is None:
        return FileConfigStore(tmp_path / "configs")
    empty(kept.database, "entropic_config_parts", "entropic_configs")
    return kept


def names(store, kind):
    return getattr(store, f"retrieve_{kind}_config_names")()


def put(store, config, *args, **options):
    return getattr(store, f"store_{config.kind}_config")(config, *args, **options)


def get(store, kind, name):
    return getattr(store, f"retrieve_{kind}_config")(name)


def everything(store):
    """Return all that is stored, by kind and name."""
    return {(kind, name): get(store, kind, name) for kind in [*KINDS, "run"] for name in names(store, kind)}


# One config


@pytest.mark.parametrize("kind", KINDS)
def test_config_comes_back_as_its_own_class(store, kind):
    config = ONE_OF_EACH[kind]
    assert names(store, kind) == []

    assert put(store, config) is None

    back = get(store, kind, config.name)
    assert back == config
    assert type(back) is type(config)
    assert names(store, kind) == [config.name]


@pytest.mark.parametrize("kind", KINDS)
def test_same_config_again_changes_nothing(store, kind):
    put(store, ONE_OF_EACH[kind])
    assert put(store, ONE_OF_EACH[kind].model_copy(deep=True)) is None
    assert everything(store) == {(kind, ONE_OF_EACH[kind].name): ONE_OF_EACH[kind]}


@pytest.mark.parametrize("kind", KINDS)
def test_other_config_of_a_name_is_an_error_that_says_where_they_differ(store, kind):
    put(store, ONE_OF_EACH[kind])
    field = {"task": "clip", "architecture": "channels", "trainer": "rate", "datasplit": "train",
             "dataset": "raw.name", "array": "path"}[kind]  # fmt: skip

    with pytest.raises(DuplicateNameError, match=f"differ in {re.escape(field)} ") as caught:
        put(store, OTHER[kind])

    assert caught.value.message == str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert get(store, kind, ONE_OF_EACH[kind].name) == ONE_OF_EACH[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_config_that_is_absent_is_every_documented_error(store, kind):
    for act in (
        lambda: get(store, kind, "absent"),
        lambda: getattr(store, f"delete_{kind}_config")("absent"),
        lambda: store.delete_config(kind, "absent"),
    ):
        with pytest.raises(ConfigNotFoundError, match=f"no {kind} config 'absent' is stored in") as caught:
            act()
        for documented in (KeyError, ValueError, FileNotFoundError):
            assert isinstance(caught.value, documented)
    getattr(store, f"delete_{kind}_config")("absent", missing_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_deleted_config_is_gone_and_can_be_another_one(store, kind):
    put(store, ONE_OF_EACH[kind])
    getattr(store, f"delete_{kind}_config")(ONE_OF_EACH[kind].name)

    assert names(store, kind) == []
    put(store, OTHER[kind])
    assert get(store, kind, OTHER[kind].name) == OTHER[kind]


@pytest.mark.parametrize(
    "collection", ["runs", "tasks", "architectures", "trainers", "datasplits", "datasets", "arrays"]
)
def test_collection_is_what_delete_config_takes(store, collection):
    kind = collection[:-1]
    put(
        store,
        run() if kind == "run" else ONE_OF_EACH[kind],
        **({"store_parts": False} if kind == "run" else {}),
    )

    store.delete_config(getattr(store, f"{kind}s"), "r1" if kind == "run" else ONE_OF_EACH[kind].name)

    assert everything(store) == {}


@pytest.mark.parametrize("foreign", [None, 3, "tsaks", object(), "users"])
def test_what_is_no_collection_is_refused(store, foreign):
    with pytest.raises(TypeError, match=r"is no collection of this store: pass store\.runs"):
        store.delete_config(foreign, "t1")


def test_ignored_fields_are_only_compared(store):
    put(store, ONE_OF_EACH["task"])

    assert put(store, OTHER["task"], ["clip"]) is None
    assert get(store, "task", "t1") == ONE_OF_EACH["task"]

    with pytest.raises(DuplicateNameError):
        put(store, OTHER["task"], ["name"])
    with pytest.raises(TypeError, match="not the string 'clip'"):
        put(store, OTHER["task"], "clip")


@pytest.mark.parametrize("store_parts", [True, False])
def test_ignored_field_may_lie_inside(store, store_parts):
    put(store, run())
    other = run(task_config=Distances(name="t1", clip=7.0))

    for ignored in (["task_config.clip"], ["task_config"]):
        assert put(store, other, ignored, store_parts=store_parts) is None
    for ignored in (
        [],
        ["clip"],
        ["task_config.clip.x"],
        ["task_config.cli"],
        ["task"],
        ["trainer_config.clip"],
    ):
        with pytest.raises(DuplicateNameError, match=r"clip \(5\.0 stored, 7\.0 given\)"):
            put(store, other, ignored, store_parts=store_parts)
    assert (get(store, "run", "r1"), get(store, "task", "t1")) == (run(), ONE_OF_EACH["task"])


@pytest.mark.parametrize(
    "ignored", ["datasplit_config.train[0].raw.path", "datasplit_config.train[0].raw", "datasplit_config"]
)
def test_ignored_field_may_lie_in_an_array_of_a_dataset(store, ignored):
    def of(path):
        pair = Pair(name="d", raw=Volume(name="v", path=path))
        return run(datasplit_config=TrainValidate(name="s", train=[pair]))

    put(store, of("one"), recursive=True)
    put(store, of("two"), [ignored], recursive=True)

    assert get(store, "array", "v").path == "one"
    with pytest.raises(DuplicateNameError, match="path"):
        put(store, of("two"), ["datasplit_config.train[1].raw.path"], recursive=True)


@pytest.mark.parametrize(
    ("stored", "given", "is_same"), [(math.nan, math.nan, True), (1.0, 1, True), (0.0, math.nan, False)]
)
def test_numbers_are_compared_by_value_and_nan_is_nan(store, stored, given, is_same):
    put(store, Gunpowder(name="n", rate=stored))
    if is_same:
        put(store, Gunpowder(name="n", rate=given))
    else:
        with pytest.raises(DuplicateNameError, match="rate"):
            put(store, Gunpowder(name="n", rate=given))
    assert repr(get(store, "trainer", "n").rate) == repr(float(stored))


@pytest.mark.parametrize(
    ("stored", "given"), [({}, {"a": None}), ({"a": None}, {}), ({"a": {}}, {"a": {"b": None}})]
)
def test_none_is_not_the_same_as_nothing(store, stored, given):
    put(store, Augmented(name="x", options=stored))

    with pytest.raises(DuplicateNameError, match=r"options\.a.*nothing"):
        put(store, Augmented(name="x", options=given))
    put(store, Augmented(name="x", options=given), if_exists="replace")
    assert get(store, "trainer", "x").options == given


def test_what_is_there_is_replaced_or_kept_if_that_is_said(store):
    put(store, ONE_OF_EACH["task"])
    put(store, OTHER["task"], if_exists="keep")
    assert get(store, "task", "t1").clip == 5.0
    put(store, OTHER["task"], if_exists="replace")
    assert get(store, "task", "t1").clip == 6.0
    assert names(store, "task") == ["t1"]
    with pytest.raises(ValueError, match="'error', 'replace' or 'keep', not 'overwrite'"):
        put(store, OTHER["task"], if_exists="overwrite")


def test_config_of_another_kind_is_refused(store):
    with pytest.raises(TypeError, match="is a UNet, and no TaskConfig"):
        store.store_task_config(UNet(name="a"))
    assert everything(store) == {}


def test_document_that_cannot_be_read_is_given_as_it_is_if_that_is_asked(store, caplog):
    class Gone(Distances):
        """A class that another process has not defined."""

    put(store, Gone(name="g", clip=3.0))
    with forgotten(Gone):
        with pytest.raises(DecodeError, match="no class 'Gone' of task configs is defined here"):
            store.retrieve_task_config("g")
        found = store.retrieve_task_config("g", strict=False)

    assert found == {"__type__": "Gone", "name": "g", "clip": 3.0}
    assert "no class 'Gone'" in caplog.text


@contextmanager
def forgotten(class_):
    """Let a class of configs be defined nowhere."""
    known = configs._classes[class_.kind]
    kept = known.pop(class_.__name__)
    try:
        yield
    finally:
        known[class_.__name__] = kept


def test_document_will_do_for_a_config(store):
    store.store_run_config(
        {"name": "run_0", "task_config": {"__type__": "Distances", "name": "t", "clip": 2}}
    )
    store.store_architecture_config({"name": "a"})

    assert get(store, "run", "run_0") == RunConfig(name="run_0", task_config=Distances(name="t", clip=2.0))
    assert names(store, "task") == ["t"]
    assert names(store, "architecture") == ["a"]
    with pytest.raises(DecodeError, match="nme"):
        store.store_run_config({"nme": "run_1"})
    assert names(store, "run") == ["run_0"]


@pytest.mark.parametrize("name", ["", ".", "..", "/abs", "../t1", "a/../b", "nul\0", "\ud800", "x" * 256])
def test_name_that_would_leave_the_store_is_refused(store, name):
    put(store, ONE_OF_EACH["task"])
    for act in (store.retrieve_task_config, store.delete_task_config):
        with pytest.raises(ValueError, match="a name"):
            act(name)
    with pytest.raises(ValueError, match="a name"):
        store.store_task_config(Distances.model_construct(name=name))
    assert names(store, "task") == ["t1"]


@pytest.mark.parametrize(
    "name", ["a/b", "ünïcode β", "with space", "a.b.c", "CON", "-", "%41", "x" * 200, "a:b*?", "None"]
)
def test_every_other_name_is_kept(store, name):
    put(store, Distances(name=name))
    assert names(store, "task") == [name]
    assert get(store, "task", name).name == name
    store.delete_task_config(name)
    assert names(store, "task") == []


def test_field_that_was_added_with_a_default_makes_no_other_config(store):
    class Grows(Distances):
        """As it was."""

    put(store, Grows(name="g"))

    class Grows(Distances):  # type: ignore[no-redef]
        """With a field more."""

        more: int = 3

    put(store, Grows(name="g"))
    assert get(store, "task", "g") == Grows(name="g")
    with pytest.raises(DuplicateNameError, match="more"):
        put(store, Grows(name="g", more=4))


class Momentum(Descent):
    beta: float = 0.9


class BestStart(StartConfig):
    freeze: int = 0


class Secret(Distances):
    token: SecretStr


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (Augmented(name="x", descent=Momentum(beta=0.5)), r"descent \(Momentum\(.*\) would be Descent\("),
        (Augmented(name="x", options={"a": {"b": (1, 2)}}), r"options\.a\.b \(\(1, 2\) would be \[1, 2\]\)"),
        (Secret(name="x", token="a"), "token "),
        (Distances.model_construct(name="x", clip="far"), "clip: Input should be a valid number"),
        (run(trainer_config=Augmented(name="x", options={"k": object()})), r"written: options: Unable to serialize"),
        (run(trainer_config=Augmented(name="x", options={"k": b"k"})), r"options\.k \(b'k' would be 'k'\)"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_config_that_would_come_back_as_another_is_refused_and_nothing_stored(store, config, place):
    with pytest.raises(DecodeError, match=f"{place}.*Nothing was stored"):
        put(store, config)
    assert everything(store) == {}


def test_run_may_start_from_a_class_of_its_own(store):
    put(store, RunConfig(name="r", start_config=BestStart(run="a", criterion="f1", freeze=3)))

    assert get(store, "run", "r").start_config == BestStart(run="a", criterion="f1", freeze=3)
    with pytest.raises(DuplicateNameError, match=r"start_config\.freeze \(3 stored, 4 given\)"):
        put(store, RunConfig(name="r", start_config=BestStart(run="a", criterion="f1", freeze=4)))


def test_document_of_the_first_release_is_read_and_counts_as_the_same(store):
    written = [Write("run", "before", DOCUMENT_OF_BEFORE, replaces=False)]
    store._write(written, lambda: written)

    assert get(store, "run", "before") == OF_BEFORE
    put(store, OF_BEFORE, store_parts=False)
    with pytest.raises(
        DuplicateNameError, match=r"differ in start_config\.criterion \('f1' stored, 'f2' given\)\. "
    ):
        put(store, OF_BEFORE.model_copy(update={"start_config": StartConfig(run="first", criterion="f2")}))


# Runs


def test_run_is_stored_with_its_parts(store):
    put(store, run())

    assert {kind: names(store, kind) for kind in [*KINDS, "run"]} == {
        "task": ["t1"], "architecture": ["a1"], "trainer": ["g1"], "datasplit": ["s1"], "dataset": [], "array": [],
        "run": ["r1"],
    }  # fmt: skip
    assert get(store, "run", "r1") == run()
    assert put(store, run()) is None


def test_nothing_is_stored_if_a_part_has_the_name_of_another(store):
    put(store, OTHER["trainer"])
    before = everything(store)

    with pytest.raises(DuplicateNameError, match="another trainer config is stored under the name 'g1'"):
        put(store, run())

    assert everything(store) == before


def test_run_that_differs_is_an_error_unless_the_field_is_ignored(store):
    put(store, run())

    with pytest.raises(DuplicateNameError, match=r"num_iterations \(100 stored, 200 given\)"):
        put(store, run(num_iterations=200))
    with pytest.raises(DuplicateNameError, match="repetition"):
        put(store, run(repetition=1))
    assert put(store, run(num_iterations=200), ignore=["num_iterations"]) is None
    assert get(store, "run", "r1").num_iterations == 100


def test_parts_are_left_out_if_that_is_said_and_what_is_inside_them_stored_if_that_is(store):
    put(store, run("alone"), store_parts=False)
    assert sum(len(names(store, kind)) for kind in KINDS) == 0

    put(store, run("with all"), recursive=True)
    assert {kind: names(store, kind) for kind in KINDS} == {
        "task": ["t1"], "architecture": ["a1"], "trainer": ["g1"], "datasplit": ["s1"], "dataset": ["d1"],
        "array": ["v1", "v2"],
    }  # fmt: skip
    assert type(get(store, "dataset", "d1")) is Pair
    assert type(get(store, "array", "v2")) is Volume


class Both(TrainValidate):
    validate_on: list[Pair]


class Bundle(BaseModel):
    pair: Pair


class Bundled(Distances):
    bundle: Bundle


def test_dataset_that_occurs_twice_is_stored_once(store):
    pair = Pair(name="d", raw=Volume(name="v"))
    split = Both(name="both", train=[pair], validate_on=[pair.model_copy(deep=True)])
    put(store, RunConfig(name="r", datasplit_config=split), recursive=True)

    assert (names(store, "dataset"), names(store, "array")) == (["d"], ["v"])
    assert get(store, "run", "r").datasplit_config == split


@pytest.mark.parametrize("if_exists", ["error", "replace", "keep"])
def test_two_datasets_of_one_name_that_differ_are_an_error_and_nothing_is_stored(store, if_exists):
    one, other = (Pair(name="d", raw=Volume(name=name)) for name in "vw")
    split = Both(name="both", train=[one], validate_on=[other])

    with pytest.raises(
        DuplicateNameError, match=r"two dataset configs .* 'd': they differ in raw\.name \('v' in one"
    ):
        put(store, RunConfig(name="r", datasplit_config=split), recursive=True, if_exists=if_exists)
    assert everything(store) == {}


def test_dataset_in_a_model_that_is_no_config_is_stored_with_the_rest(store):
    task = Bundled(name="t", bundle=Bundle(pair=Pair(name="d", raw=Volume(name="v"))))
    put(store, RunConfig(name="r", task_config=task), recursive=True)

    assert (names(store, "dataset"), names(store, "array")) == (["d"], ["v"])


def test_run_without_parts_is_a_run(store):
    put(store, RunConfig(name="bare"))
    assert get(store, "run", "bare") == RunConfig(name="bare")
    assert store.retrieve_run_config_names(task_names=["t1"]) == []


@pytest.fixture
def filtered(store):
    """Runs f0(t1, a1), f1(t2, a1), f2(t2, a2) and one without parts."""
    for name, task, architecture in (("f0", "t1", "a1"), ("f1", "t2", "a1"), ("f2", "t2", "a2")):
        put(store, run(name, task_config=Distances(name=task), architecture_config=UNet(name=architecture)))
    put(store, RunConfig(name="f3"))
    return store


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["f0", "f1", "f2", "f3"]),
        ({"task_names": ["t2"]}, ["f1", "f2"]),
        ({"task_names": ["t2"], "architecture_names": ["a1"]}, ["f1"]),
        ({"task_names": ["t1", "t2"]}, ["f0", "f1", "f2"]),
        ({"task_names": []}, []),
        ({"trainer_names": {"g1"}, "datasplit_names": ("s1", "absent")}, ["f0", "f1", "f2"]),
        ({"trainer_names": ["absent"]}, []),
    ],
)
def test_names_of_runs_are_filtered_by_their_parts(filtered, filters, expected):
    assert filtered.retrieve_run_config_names(**filters) == expected


@pytest.mark.parametrize("part", PARTS)
def test_single_string_is_no_filter(filtered, part):
    with pytest.raises(TypeError, match=f"{part}_names takes a list of names, not the string 't1'"):
        filtered.retrieve_run_config_names(**{f"{part}_names": "t1"})


@pytest.mark.parametrize("part", PARTS)
def test_part_of_a_run_is_neither_deleted_nor_replaced(store, part):
    put(store, run("first"))
    put(store, run("second"), store_parts=False)
    name = ONE_OF_EACH[part].name

    with pytest.raises(
        InUseError, match=f"the {part} config '{name}' is part of the runs 'first', 'second': delete it"
    ):
        getattr(store, f"delete_{part}_config")(name)
    with pytest.raises(InUseError, match="replace it when they are deleted"):
        put(store, OTHER[part], if_exists="replace")
    put(store, OTHER[part], if_exists="replace", force=True)
    assert get(store, part, name) == OTHER[part]
    assert get(store, "run", "first") == run("first")  # a run keeps what it was made of

    store.delete_run_config("first")
    store.delete_run_config("second")
    getattr(store, f"delete_{part}_config")(name)
    assert names(store, part) == []


@pytest.mark.parametrize("part", ["task", "datasplit"])
def test_new_run_with_a_part_that_has_the_name_of_another_is_an_error_whatever_is_said_of_runs(store, part):
    put(store, OTHER[part])
    before = everything(store)

    for if_exists in ("error", "replace", "keep"):
        with pytest.raises(
            DuplicateNameError, match=f"another {part} config .*call store_{part}_config with if_e"
        ):
            put(store, run(), if_exists=if_exists)
        assert everything(store) == before


@pytest.mark.parametrize("part", ["task", "datasplit"])
def test_run_is_replaced_with_the_part_that_it_is_made_of(store, part):
    put(store, run())
    changed = run(**{f"{part}_config": OTHER[part]})

    with pytest.raises(
        DuplicateNameError, match=f"another run config .*differ in {part}_config.*if_exists='replace'"
    ):
        put(store, changed)
    put(store, changed, if_exists="replace")

    assert get(store, "run", "r1") == changed
    assert get(store, part, OTHER[part].name) == OTHER[part]
    put(store, changed)


@pytest.mark.parametrize("part", ["task", "datasplit"])
def test_part_that_other_runs_have_too_is_not_replaced_with_a_run(store, part):
    for name in ("r1", "second"):
        put(store, run(name))
    before = everything(store)

    with pytest.raises(
        InUseError, match=f"the {part} config '.*' is part of the runs 'second': replace it when"
    ):
        put(store, run(num_iterations=7, **{f"{part}_config": OTHER[part]}), if_exists="replace")
    assert everything(store) == before


def test_part_that_the_replaced_run_had_not_is_not_replaced(store):
    put(store, run())
    put(store, Distances(name="free", clip=1.0))
    before = everything(store)

    with pytest.raises(DuplicateNameError, match="another task config is stored under the name 'free'"):
        put(store, run(task_config=Distances(name="free", clip=2.0)), if_exists="replace")
    assert everything(store) == before


def test_dataset_is_not_replaced_with_a_run_as_nobody_knows_who_has_it(store):
    put(store, run(), recursive=True)
    pair = Pair(name="d1", raw=Volume(name="v1", path="other"), gt=Volume(name="v2"))
    changed = run(datasplit_config=TrainValidate(name="s1", train=[pair]))
    before = everything(store)

    with pytest.raises(
        DuplicateNameError, match=r"another array config .*call store_array_config with if_exists"
    ):
        put(store, changed, recursive=True, if_exists="replace")
    assert everything(store) == before
    put(store, changed, if_exists="replace")
    assert get(store, "run", "r1") == changed


def test_kept_run_keeps_its_parts_and_nothing_is_stored(store):
    put(store, run())
    before = everything(store)

    put(
        store,
        run(task_config=Distances(name="t1", clip=9.0), trainer_config=Gunpowder(name="new")),
        if_exists="keep",
    )
    assert everything(store) == before

    put(store, run("second", num_iterations=3), if_exists="keep")
    assert get(store, "run", "second").num_iterations == 3


def test_interface_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        ConfigStore()
