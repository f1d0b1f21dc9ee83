"""Configs: documents of users' own classes, and back by classes that are defined here."""

import copy
import enum
import json
import math
import pickle
import types
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    RootModel,
    ValidationError,
    computed_field,
    create_model,
)
from pydantic_core import PydanticSerializationError

from entropic import DecodeError
from entropic.configs import (
    KINDS,
    ArchitectureConfig,
    ArrayConfig,
    Config,
    DatasetConfig,
    DataSplitConfig,
    RunConfig,
    StartConfig,
    TaskConfig,
    TrainerConfig,
    restore,
)


class Mode(enum.Enum):
    FAST = "fast"


class ZarrArray(ArrayConfig):
    path: Path
    voxel_size: tuple[int, int, int] = (8, 8, 8)


class Cropped(ArrayConfig):
    source: ArrayConfig


class RawDataset(DatasetConfig):
    raw: ArrayConfig
    masks: dict[str, ArrayConfig] = Field(default_factory=dict)


class Split(DataSplitConfig):
    train: list[DatasetConfig]
    validate_on: list[DatasetConfig] = Field(default_factory=list)


class Affinities(TaskConfig):
    threshold: float = 0.5
    mode: Mode = Mode.FAST
    since: datetime | None = None


class Network(ArchitectureConfig):
    channels: list[int]


class Adam(TrainerConfig):
    rate: float


def split():
    raw = ZarrArray(name="raw", path="/data/a.zarr")
    cropped = Cropped(name="cropped", source=Cropped(name="inner", source=raw))
    return Split(
        name="split",
        train=[RawDataset(name="d", raw=raw, masks={"m": cropped}), DatasetConfig(name="plain", weight=3)],
    )


def run(**fields):
    parts = {
        "task_config": Affinities(name="task", since=datetime(2026, 1, 2, 12, tzinfo=UTC)),
        "architecture_config": Network(name="net", channels=[12, 24]),
        "trainer_config": Adam(name="trainer", rate=1e-4),
        "datasplit_config": split(),
    }
    return RunConfig(name="run", num_iterations=100, **{**parts, **fields})


def all_types(value):
    """Return every ``__type__`` in a document."""
    if isinstance(value, list):
        return [one for item in value for one in all_types(item)]
    if not isinstance(value, dict):
        return []
    own = [value["__type__"]] if "__type__" in value else []
    return own + all_types(list(value.values()))


def test_document_is_json_and_names_the_class_at_every_depth():
    document = run().document()

    assert json.loads(json.dumps(document)) == document
    assert next(iter(document)) == "__type__"
    named = ["RunConfig", "Affinities", "Network", "Adam", "Split", "RawDataset", "DatasetConfig"]
    assert sorted(all_types(document)) == sorted([*named, "ZarrArray", "ZarrArray", "Cropped", "Cropped"])
    array = document["datasplit_config"]["train"][0]["raw"]
    assert array == {"__type__": "ZarrArray", "name": "raw", "path": "/data/a.zarr", "voxel_size": [8, 8, 8]}
    assert document["task_config"]["mode"] == "fast"


@pytest.mark.parametrize("make", [run, split, lambda: run(datasplit_config=None, start_config=None)])
def test_config_comes_back_as_it_was(make):
    config = make()
    back = restore(KINDS[config.kind], json.loads(json.dumps(config.document())))

    assert back == config
    assert type(back) is type(config)
    assert back.document() == config.document()


def test_start_names_a_run_and_a_criterion():
    config = run(start_config=StartConfig(run="before", criterion="f1"))

    assert config.document()["start_config"]["__type__"] == "StartConfig"
    assert restore(RunConfig, config.document()).start_config == StartConfig(run="before", criterion="f1")


def test_start_is_of_its_own_class():
    class Best(StartConfig):
        freeze: int = 0

    config = run(start_config=Best(run="before", criterion="f1", freeze=3))

    assert restore(RunConfig, config.document()).start_config == Best(run="before", criterion="f1", freeze=3)


def test_start_of_before_starts_had_a_type_is_read():
    document = run(start_config=StartConfig(run="before", criterion="f1")).document()
    del document["start_config"]["__type__"]

    assert restore(RunConfig, document).start_config == StartConfig(run="before", criterion="f1")


def test_computed_field_is_not_in_the_document_and_one_that_is_there_does_no_harm():
    class Doubling(TaskConfig):
        a: int = 1

        @computed_field
        @property
        def twice(self) -> int:
            return 2 * self.a

    assert Doubling(name="x").document() == {"__type__": "Doubling", "name": "x", "a": 1}
    assert restore(TaskConfig, {"__type__": "Doubling", "name": "x", "a": 3, "twice": 6}) == Doubling(
        name="x", a=3
    )
    inside = RunConfig(name="r", task_config=Doubling(name="x", a=3))
    assert restore(RunConfig, inside.document()) == inside


@pytest.mark.parametrize(
    "alias", [{"alias": "learningRate"}, {"validation_alias": AliasChoices("lr", "learningRate")},
              {"serialization_alias": "lr"}],
    ids="-".join,
)  # fmt: skip
def test_document_calls_a_field_by_its_name_whatever_its_alias(alias):
    class Aliased(TrainerConfig):
        rate: float = Field(0.1, **alias)

    by = "rate" if "serialization_alias" in alias else "learningRate"
    config = Aliased(**{"name": "x", by: 0.5})

    assert config.rate == 0.5
    assert config.document() == {"__type__": "Aliased", "name": "x", "rate": 0.5}
    assert restore(TrainerConfig, config.document()) == config


def test_field_may_hold_a_config_of_any_kind():
    class Holder(TaskConfig):
        anything: Config | None = None

    for inside in (ZarrArray(name="a", path="p"), DatasetConfig(name="d", weight=3)):
        config = Holder(name="x", anything=inside)
        assert restore(TaskConfig, config.document()) == config
    with pytest.raises(
        DecodeError, match=r"no class 'NowhereDefined' of configs is defined here, only .*Adam"
    ):
        restore(
            TaskConfig,
            {"__type__": "Holder", "name": "x", "anything": {"__type__": "NowhereDefined", "name": "a"}},
        )
    with pytest.raises(DecodeError, match="Config is of no kind: subclass one of the kinds"):
        Config(name="a").document()


@pytest.mark.parametrize("rate", [math.nan, math.inf, -math.inf, -0.0, 1e-300])
def test_every_number_comes_back(rate):
    config = Adam(name="t", rate=rate)

    assert repr(restore(TrainerConfig, config.document()).rate) == repr(rate)


def test_document_of_before_a_field_was_added_has_its_default():
    document = Affinities(name="old").document()
    del document["threshold"]

    assert restore(TaskConfig, document) == Affinities(name="old")


def test_document_without_a_type_is_of_the_kinds_own_class():
    assert restore(RunConfig, {"name": "r", "num_iterations": 3}) == RunConfig(name="r", num_iterations=3)


class Letters(RootModel[frozenset[str]]):
    pass


class Sets(BaseModel):
    words: set[str]
    called: set[str] = Field(alias="named")
    model_config = {"serialize_by_alias": True, "populate_by_name": True}


@dataclass
class Pair:
    left: set[str]


class OfSets(TaskConfig):
    words: set[str]
    inside: list[Sets]
    by_key: dict[int, set[str]]
    pairs: tuple[Pair, ...]
    letters: Letters
    deep: frozenset[frozenset[str]]
    numbers: set[float]


def of_sets(words):
    return OfSets(
        name="x",
        words=words,
        inside=[Sets(words=words, called=words)],
        by_key={2: words, 1: words},
        pairs=(Pair(set(words)),),
        letters=words,
        deep=[words, words[:2]],
        numbers=[2.0, math.inf, 0.5],
    )


def test_sets_are_sorted_in_documents():
    letters = list("abcdefghij")
    document = of_sets(letters).document()

    assert document["words"] == document["letters"] == letters
    assert (document["inside"][0]["words"], *document["inside"][0].values()) == (letters,) * 3
    assert document["by_key"] == {"2": letters, "1": letters}
    assert document["pairs"] == [{"left": letters}]
    assert document["deep"] == [letters, ["a", "b"]]
    assert document["numbers"] == [0.5, 2.0, math.inf]
    assert restore(TaskConfig, document) == of_sets(letters)
    back = restore(TaskConfig, {**document, "words": letters[::-1]})
    assert back.document() == document


# Which class


def defined(name, module="notebook", base=TaskConfig, **body):
    """Define a class of configs as a module of this name would."""
    body = {"__module__": module, "__qualname__": name, **body}
    return types.new_class(name, (base,), exec_body=lambda namespace: namespace.update(body))


def test_cell_that_runs_again_replaces_its_class():
    former = defined("OfACell", __annotations__={"a": int}, a=1)
    again = defined("OfACell", __annotations__={"a": int, "b": int}, a=1, b=2)

    back = restore(TaskConfig, former(name="x", a=5).document())

    assert type(back) is again
    assert (back.a, back.b) == (5, 2)


def test_second_class_of_a_name_is_an_error_when_it_would_be_stored_or_restored():
    one = defined("TwoModules", module="one")
    document = one(name="x").document()
    two = defined("TwoModules", module="two")

    for act in (lambda: one(name="x").document(), lambda: two(name="x").document()):
        with pytest.raises(DecodeError, match=r"is the name of 2 classes .*one\.TwoModules, two\.TwoModules"):
            act()
    with pytest.raises(DecodeError, match="give one of them another name, or a __type__ of its own"):
        restore(TaskConfig, document)


def test_class_with_a_type_of_its_own_is_found_by_that():
    one = defined("Own", module="one")
    two = defined("Own", module="two", __type__="TheOther")

    assert type(restore(TaskConfig, one(name="x").document())) is one
    assert two(name="x").document()["__type__"] == "TheOther"
    assert type(restore(TaskConfig, two(name="x").document())) is two


def test_type_of_its_own_is_not_that_of_a_subclass():
    base = defined("Base", __type__="Renamed")
    sub = defined("Sub", base=base)

    assert sub(name="x").document()["__type__"] == "Sub"


def test_same_name_in_two_kinds_is_no_conflict():
    task, trainer = defined("Both"), defined("Both", base=TrainerConfig)

    assert type(restore(TaskConfig, task(name="x").document())) is task
    assert type(restore(TrainerConfig, trainer(name="x").document())) is trainer


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            {"__type__": "Affinitis", "name": "x"},
            "no class 'Affinitis' of task configs is defined here, only Affinities",
        ),
        (
            {"__type__": "os.system", "name": "x"},
            "no class 'os.system' of task configs is defined here, only Affinities",
        ),
        ({"__type__": "Network", "name": "x"}, "no class 'Network' of task configs"),
        ({"__type__": ["Affinities"], "name": "x"}, "no class"),
        ({"__type__": "Affinities"}, "a task config cannot be read: name: Field required"),
        (
            {"__type__": "Affinities", "name": "x", "treshold": 1},
            "the task config 'x' cannot be read: treshold: Extra",
        ),
        (
            {"__type__": "Affinities", "name": "x", "threshold": "low"},
            "threshold: Input should be a valid number",
        ),
        ({"__type__": "Affinities", "name": "../x"}, "name: .*a name is no path"),
        ([1], "a task config cannot be read: Input should be"),
        (None, "a task config cannot be read: Input should be"),
    ],
)
def test_document_that_cannot_be_read_says_which_field_and_why(document, text):
    with pytest.raises(DecodeError, match=text) as caught:
        restore(TaskConfig, document)
    assert isinstance(caught.value, ValueError)


def test_trouble_deep_inside_is_named_with_its_place():
    document = run().document()
    document["datasplit_config"]["train"][0]["masks"]["m"]["source"]["source"]["__type__"] = "Gone"

    with pytest.raises(
        DecodeError, match=r"datasplit_config\.train\[0\]\.masks\.m\.source\.source: .*no class 'Gone'"
    ):
        restore(RunConfig, document)


def test_config_of_another_class_than_the_field_wants_is_refused():
    class Narrow(DataSplitConfig):
        only: RawDataset

    document = {"__type__": "Narrow", "name": "n", "only": DatasetConfig(name="d").document()}
    with pytest.raises(DecodeError, match="'DatasetConfig' is no RawDataset"):
        restore(DataSplitConfig, document)


def test_field_that_json_cannot_hold_is_an_error():
    class Holds(TaskConfig):
        anything: object

    with pytest.raises(PydanticSerializationError):
        Holds(name="x", anything=object()).document()


# Names and the rest


@pytest.mark.parametrize("name", ["a", "ünï cödé", "a/b", "a.b", "x" * 255, " "])
def test_names_that_stores_can_keep(name):
    assert TaskConfig(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", "/a", "..", ".", "a/../b", "a//b", "a/", "nul\0", "\ud800", "x" * 256, None, 3]
)
def test_names_that_stores_cannot_keep(name):
    with pytest.raises(ValidationError, match="name"):
        TaskConfig(name=name)


def test_run_has_its_parts_and_its_defaults():
    config = run()
    assert [part.name for part in config.parts()] == ["net", "task", "trainer", "split"]
    assert RunConfig(name="empty").parts() == []
    assert (config.train_until, config.batch_size, config.validation_interval) == (100, 1, 1000)
    assert str(config) == "run"
    assert config.verify() == (True, "No validation for this RunConfig")


@pytest.mark.parametrize("field", ["batch_size", "validation_interval", "snapshot_interval"])
def test_numbers_that_make_no_sense_are_refused(field):
    with pytest.raises(ValidationError, match=field):
        RunConfig(name="x", **{field: 0})


@pytest.mark.filterwarnings("ignore:Field name:UserWarning")
@pytest.mark.parametrize(
    ("base", "name"),
    [
        (TaskConfig, "kind"), (TaskConfig, "document"), (TaskConfig, "verify"), (StartConfig, "kind"),
        (RunConfig, "parts"), (RunConfig, "train_until"),
    ],
)  # fmt: skip
def test_field_that_has_the_name_of_what_each_config_has_is_refused(base, name):
    text = f"Shadow has a field '{name}', which is what each .*Config has anyway: give the field another name"
    with pytest.raises(TypeError, match=text):
        create_model("Shadow", __base__=base, __module__=__name__, **{name: (str, ...)})

    with pytest.raises(DecodeError, match="no class 'Shadow'"):
        restore(base, {"__type__": "Shadow", "name": "x"})


def test_datasets_of_one_name_have_one_hash():
    assert hash(DatasetConfig(name="d")) == hash(DatasetConfig(name="d", weight=2))


@pytest.mark.parametrize("through", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_configs_are_copied_and_pickled(through):
    assert through(run()) == run()
