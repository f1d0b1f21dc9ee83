"""What tells a component from all others: its type, version, parameters and inputs, the same in every process."""

import collections
import hashlib
import itertools
import json
import os
import subprocess
import sys
from decimal import Decimal
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from entropic import UnhashableParamError
from entropic.datastore import hash_state, join_with_underscores
from entropic.datastore.components import (
    MOST,
    chain_of,
    filter_digests,
    full_type,
    parameter_digests,
    state_of,
)
from tests.support.component_cases import Component, Filter, Source, chain
from tests.support.scripts import run_script
from tests.support.strategies import json_scalars


class ParameterSet(dict):
    """Of the kind that components have: names with dots, and where it was read from."""

    def __init__(self, values, url=None):
        super().__init__({k: ParameterSet(v) if isinstance(v, dict) else v for k, v in values.items()})
        self._url = url

    def __getattr__(self, name):
        return self[name]


def component(name="lab.C", **given):
    return SimpleNamespace(**{"full_type": name, "version": "0.1", "parameters": {}, "input": None, **given})


# join_with_underscores


class C(Component):
    __module__ = "__main__"


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"a": 1, "b": 2}, "__main__.C-r0.1_{'a'_1_'b'_2}"),
        ({"x": {"y": [1, 2], "z": "a/b c"}}, "__main__.C-r0.1_{'x'_{'y'_1_2_'z'_'a_b_c'}}"),
        ({}, "__main__.C-r0.1_{}"),
    ],
)
def test_key_in_words_is_that_of_the_reference(parameters, key):
    one = C(parameters, version=0.1)

    assert join_with_underscores(one) == key
    assert join_with_underscores(C(parameters, one, version=0.1)) == key + key
    assert join_with_underscores(C(parameters, [one, one], version=0.1)) == 3 * key


def test_key_in_words_gives_different_states_one_key():
    assert join_with_underscores(C({"a": "1 2"})) == join_with_underscores(C({"a": "1_2"}))
    assert hash_state(C({"a": "1 2"})) != hash_state(C({"a": "1_2"}))


def test_key_in_words_of_a_long_chain_is_refused_before_it_takes_the_memory(monkeypatch):
    monkeypatch.setattr("entropic.datastore.components.LARGEST", 10_000)
    assert len(join_with_underscores(chain(100)[-1])) > 5000

    with pytest.raises(ValueError, match="has more than 10000 characters, as it has those of all inputs"):
        join_with_underscores(chain(500)[-1])


# hash_state


def test_key_is_the_digest_of_a_document_that_anybody_can_write():
    below = component("lab.B", version=2, parameters={"b": [1, 2.5, None, "ß"]})
    one = component("lab.C", parameters={"z": 0.1, "a": True}, input=[below])

    def digest(document):
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    inner = digest({"type": "lab.B", "version": "2", "parameters": {"b": [1, 2.5, None, "ß"]}, "inputs": []})
    outer = digest(
        {"type": "lab.C", "version": "0.1", "parameters": {"z": 0.1, "a": True}, "inputs": [inner]}
    )
    assert (hash_state(below), hash_state(one)) == (inner, outer)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@given(
    st.dictionaries(
        names, json_scalars.filter(lambda v: not isinstance(v, str) or v.isprintable()), min_size=2
    )
)
@settings(max_examples=30)
def test_order_of_parameters_does_not_count(parameters):
    turned = dict(reversed(parameters.items()))

    assert hash_state(component(parameters=parameters)) == hash_state(component(parameters=turned))
    nested = [component(parameters={"x": given}) for given in (parameters, turned, ParameterSet(parameters))]
    assert len(set(map(hash_state, nested))) == 1


def test_equal_texts_that_are_other_objects_have_one_key():
    text = "".join(["a", "b"])

    assert hash_state(component(parameters={"x": text, "y": text})) == hash_state(
        component(parameters={"x": "ab", "y": "".join(["a", "b"])})
    )


VALUES = [
    1, 1.0, True, "1", "1.0", None, "None", [1], (1,), {"a": 1}, {"a": 1.0}, {}, [], (), 0.1 + 0.2, 0.3, 1e-13, 2e-13,
    0.0, Decimal(1), b"1", "b'1'", float("nan"), float("inf"), -float("inf"), "nan", {1}, range(3), [0, 1, 2],
    np.arange(3), np.arange(3.0), {1: 2}, {"1": 2}, 2**70, -0.0,
]  # fmt: skip


def test_values_that_a_computation_can_tell_apart_have_keys_of_their_own():
    keys = [hash_state(component(parameters={"x": value})) for value in VALUES]

    assert len(set(keys)) == len(VALUES)
    assert keys == [hash_state(component(parameters={"x": value})) for value in VALUES]


def test_scalars_of_numpy_are_the_numbers_that_they_hold():
    for one, other in ((np.float64(0.1), 0.1), (np.int32(3), 3), (np.bool_(True), True)):
        assert hash_state(component(parameters={"x": one})) == hash_state(component(parameters={"x": other}))


@pytest.mark.parametrize("kind", [dict, ParameterSet, collections.OrderedDict, collections.UserDict])
def test_any_mapping_of_parameters_is_one(kind):
    one = component(parameters=kind({"x": {"y": [1, 2]}}))

    assert hash_state(one) == hash_state(component(parameters={"x": {"y": [1, 2]}}))


def test_each_part_of_a_state_is_in_its_key():
    base = component()
    others = [
        component("lab.D"),
        component(version="0.2"),
        component(parameters={"a": 1}),
        component(input=component()),
        component(input=[component(), component()]),
        component(input=component(version="0.2")),
        component(input=[component("a"), component("b")]),
        component(input=[component("b"), component("a")]),
    ]

    assert len({hash_state(one) for one in (base, *others)}) == 1 + len(others)
    assert hash_state(component(input=[component()])) == hash_state(component(input=(component(),)))
    assert hash_state(component(input=[])) == hash_state(base)
    assert (
        hash_state(component(version=0.1))
        == hash_state(base)
        == hash_state(component(version=np.float64(0.1)))
    )


def test_what_several_components_share_is_looked_at_once():
    """By ways there are 2**200 of the first."""
    one = Component({"n": 0})
    for number in range(200):
        one = Component({"n": number}, [one, one])

    assert len(hash_state(one)) == 64
    assert len(chain_of(one, hash_state)) == 201


# What a component is


def test_type_is_what_the_component_says_or_its_class_and_module():
    assert full_type(component("lab.C")) == "lab.C"
    assert full_type(Source()) == "tests.support.component_cases.Source"
    module = ModuleType("lab.tools")
    assert full_type(module) == "lab.tools"


@pytest.mark.parametrize("how", [["{}"], pytest.param(["-m", "experiment"], marks=pytest.mark.slow)], ids=str)
def test_type_in_a_script_is_that_of_its_file_however_it_is_started(tmp_path, how):
    (tmp_path / "experiment.py").write_text(
        "import sys\nfrom entropic.datastore import components\n"
        "from entropic.datastore import hash_state, join_with_underscores\n"
        "class C:\n    version, parameters, input = 1, {'s': {'a', 'b', 'c'}, 'x': 1e-13}, None\n"
        "name = components.full_type\n"
        "print(name(C()), name(sys.modules[__name__]), join_with_underscores(C()).partition('-')[0], hash_state(C()))\n"
    )
    command = [sys.executable, *(part.format(tmp_path / "experiment.py") for part in how)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path, env={"PYTHONHASHSEED": "7"}
    )

    same = component("experiment.C", version=1, parameters={"x": 1e-13, "s": {"c", "b", "a"}})
    assert done.stdout.split() == ["experiment.C", "experiment", "__main__.C", hash_state(same)]


SPAWNS = """
import cloudpickle, multiprocessing, pathlib, sys
from entropic.datastore import components, hash_state, join_with_underscores

class C:
    version, parameters, input = 1, {"x": 1.5}, None

def told(one):
    return components.full_type(one), hash_state(one), join_with_underscores(one)

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(told, [C()]) == told(C())
    pathlib.Path("sent").write_bytes(cloudpickle.dumps(C()))
"""
RECEIVES = """
import pathlib, pickle
from entropic.datastore import hash_state, join_with_underscores

one = pickle.loads(pathlib.Path("sent").read_bytes())
print(join_with_underscores(one))
try:
    hash_state(one)
except TypeError as error:
    print(error)
one.full_type = "experiment.C"
print(hash_state(one))
"""


def test_type_in_a_script_is_the_same_in_the_processes_that_it_starts_or_is_refused(tmp_path):
    (tmp_path / "experiment.py").write_text(SPAWNS)
    (tmp_path / "worker.py").write_text(RECEIVES)
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "experiment.py"], check=True, cwd=tmp_path, env=environment)
    worker = [sys.executable, "worker.py"]
    done = subprocess.run(worker, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True)

    key, refusal, digest = done.stdout.splitlines()
    assert key == "__main__.C-r1_{'x'_1.5}"
    assert (
        "nobody can tell in this process which script or notebook the class C is of: give it a full_type"
        in refusal
    )
    assert digest == hash_state(component("experiment.C", version=1, parameters={"x": 1.5}))


SWEEPS = """
import pathlib, threading
from entropic import Base, Mapped, Store
from entropic.datastore import hash_state

class Told(Base):
    __tablename__ = "told"
    n: Mapped[int]

class C:
    version, parameters, input = 1, {"x": 1.5}, None

def tell(params):
    keys = [hash_state(C())]
    thread = threading.Thread(target=lambda: keys.append(hash_state(C())))
    thread.start()
    thread.join()
    pathlib.Path(params["result_file"]).write_text(" ".join(keys))

if __name__ == "__main__":
    store = Store(tell, Told, "results", ".txt", "sqlite:///told.sqlite3")
    here, there = store.run({"n": 1}), store.sweep([{"n": 2}], workers=1, progress=False)[0]
    print(*(pathlib.Path(record.result_file).read_text() for record in (here, there)))
"""


def test_type_in_a_script_is_the_same_in_the_processes_of_a_sweep(tmp_path):
    (tmp_path / "experiment.py").write_text(SWEEPS)
    done = run_script(tmp_path / "experiment.py")

    expected = hash_state(component("experiment.C", version=1, parameters={"x": 1.5}))
    assert done.stdout.split() == [expected] * 4, done.stderr


def test_module_can_be_a_component():
    module = ModuleType("lab.tools")
    module.version, module.parameters, module.input = "3", {"a": 1}, None

    assert hash_state(module) == hash_state(component("lab.tools", version="3", parameters={"a": 1}))
    assert join_with_underscores(module) == "lab.tools-r3_{'a'_1}"


class First:
    class Stage(Component):
        pass


class Second:
    class Stage(Component):
        pass


def stage():
    class Stage(Component):
        pass

    return Stage


def test_classes_of_one_name_in_others_are_told_apart():
    kinds = [First.Stage, Second.Stage, stage()]

    assert {full_type(kind()) for kind in kinds} == {f"{__name__}.Stage"}
    assert len({hash_state(kind()) for kind in kinds}) == 3
    assert hash_state(First.Stage()) == hash_state(component(f"{__name__}.First.Stage"))
    for kind in kinds:
        kind.full_type = "lab.Stage"
    assert {hash_state(kind()) for kind in kinds} == {hash_state(component("lab.Stage"))}


def test_class_can_be_a_component():
    class One(Component):
        version, parameters, input = "3", {"a": 1}, None

    class Two(One):
        pass

    assert full_type(One) == full_type(One())
    assert hash_state(One) != hash_state(Two)
    assert join_with_underscores(One) == f"{__name__}.One-r3_{{'a'_1}}"


class Failing(Component):
    @property
    def version(self):
        raise AttributeError("the version of what?")

    @version.setter
    def version(self, value):
        pass


@pytest.mark.parametrize("generator", [hash_state, join_with_underscores])
@pytest.mark.parametrize("missing", ["parameters", "input", "version"])
def test_what_lacks_an_attribute_is_no_component(generator, missing):
    one = component()
    delattr(one, missing)

    with pytest.raises(AttributeError, match=f"is no component, for it has no attribute '{missing}'"):
        generator(one)
    with pytest.raises(AttributeError, match=r"no attribute '(parameters|input)'"):
        generator(component(input=["text"]))
    with pytest.raises(AttributeError, match="the version of what"):
        generator(Failing())


@pytest.mark.parametrize("generator", [hash_state, join_with_underscores])
def test_components_that_are_inputs_of_each_other_are_refused(generator):
    one, two, three = Component(), Filter(), Source()
    one.input, two.input, three.input = two, [Component({"n": 1}), three], one

    for any_of_them in (one, two, three, Component({}, one)):
        with pytest.raises(ValueError, match="recurrent input"):
            generator(any_of_them)


class Anew(Component):
    @property
    def input(self):
        return Anew()

    @input.setter
    def input(self, value):
        pass


def test_inputs_without_end_are_refused(monkeypatch):
    assert MOST >= 100_000
    monkeypatch.setattr("entropic.datastore.components.MOST", 1000)

    with pytest.raises(ValueError, match="depends on more than 1000 components"):
        hash_state(Anew())


class Strange:
    pass


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"parameters": None}, TypeError, "the parameters of lab.C are a mapping of names to values, not None"),
        ({"parameters": {"a": [Strange()]}}, UnhashableParamError, r"parameters of lab.C: \['a'\]\[0\] is a .*Strange"),
        ({"parameters": {"a": "\ud800"}}, UnhashableParamError, r"\['a'\] is no valid Unicode"),
        ({"parameters": {"a": "x" * (1 << 20)}}, ValueError, "give an array, of which a digest is kept"),
        ({"version": None}, TypeError, "the version of lab.C is text or a number, not None"),
        ({"version": ""}, ValueError, "the version of lab.C has 1 to 255 characters, not 0"),
        ({"version": True}, TypeError, "text or a number"),
        ({"full_type": "x" * 256}, ValueError, "the full_type of a component has 1 to 255 characters, not 256"),
        ({"full_type": "a\0"}, ValueError, "has no NUL"),
        ({"full_type": Strange}, TypeError, "the full_type of a component is text"),
    ],
    ids=itertools.count(),  # an object and a megabyte have no name of their own
)  # fmt: skip
def test_component_that_cannot_be_told_is_refused(given, error, text):
    with pytest.raises(error, match=text):
        hash_state(component(**given))


def test_parameters_that_contain_themselves_are_refused():
    parameters = {}
    parameters["a"] = parameters

    with pytest.raises(UnhashableParamError, match="contain themselves"):
        hash_state(component(parameters=parameters))


# States


def test_state_by_itself_is_the_last_of_its_chain():
    components = chain(5)
    for generator in (hash_state, join_with_underscores):
        states = chain_of(components[-1], generator)

        assert [state.document["n"] for state in states] == [0, 1, 2, 3, 4]
        alone = state_of(components[-1], generator)
        assert (alone.key, alone.digest, alone.identity) == (
            states[-1].key,
            states[-1].digest,
            states[-1].identity,
        )
        assert states[-1].inputs == (states[-2],)
        assert alone.key == generator(components[-1])
        assert alone.digest == hashlib.sha256(alone.key.encode()).hexdigest()


@pytest.mark.parametrize(
    ("key", "error"), [(3, TypeError), ("", ValueError), (b"k", TypeError), ("x" * (1 << 21), ValueError)]
)
def test_key_generator_must_give_a_text(key, error):
    with pytest.raises(error, match="a key"):
        state_of(component(), lambda one: key)


leaves = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.booleans(), max_size=3)


@given(st.dictionaries(st.sampled_from("abc"), leaves | st.integers(0, 2), max_size=3),
       st.dictionaries(st.sampled_from("abc"), leaves | st.integers(0, 2), max_size=2))  # fmt: skip
@example({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}})
@example({"a": {}}, {"a": {}})
@example({"a": {"b": 1}}, {"a": {}})
def test_parameters_are_found_by_some_of_them(parameters, wanted):
    def fits(found, asked):
        return all(
            name in found
            and (
                (isinstance(found[name], dict) and fits(found[name], value))
                if isinstance(value, dict) and value
                else (type(found[name]), found[name]) == (type(value), value)
            )
            for name, value in asked.items()
        )

    document = state_of(component(parameters=parameters), hash_state).document

    assert (filter_digests(wanted) <= parameter_digests(document)) is fits(parameters, wanted)
