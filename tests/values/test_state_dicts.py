"""State dicts come back as they were: structure, keys, types and bits, with torch and without."""

import hashlib
import importlib.util
import json
import math
import os
import sys
from collections import OrderedDict, defaultdict
from enum import Enum
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from entropic.errors import DecodeError
from entropic.values import untrusted
from entropic.values.documents import require_same
from entropic.values.state_dicts import StatesFile, encode_states, save_states
from tests.support.processes import run_together

ARRAYS = [
    np.arange(6, dtype="f4").reshape(2, 3),
    np.arange(3, dtype=">f8"),
    np.arange(24).reshape(2, 3, 4)[:, ::2, 1:],
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(2.5),
    np.zeros((0, 3)),
    np.array([True, False]),
    np.array([1 + 2j], "c8"),
    np.array([np.nan, np.inf, -0.0], "f2"),
    np.array([2**64 - 1], "u8"),
    np.array(["ä", "bc"]),
    np.array(["2020-01-01"], "M8[us]"),
    np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    np.array([1.5], np.longdouble),
]
STRUCTURES = [
    {},
    OrderedDict(a=1, b=OrderedDict()),
    {0: {"step": np.float32(3)}, 1: {}},
    {"1": "text", 1: "number", None: None, 2.5: True, (0, 1): False},
    {"betas": (0.9, 0.999), "foreach": None, "amsgrad": False, "params": [0, 1], "lr": 1e-3},
    {"empty": [], "none": (), "nested": [(1, [2, {}])]},
    {"inf": math.inf, "big": 2**100, "bytes": b"\0\xff", "text": "β\n", "z": 1j},
    {"__entropic__": "tuple", "value": 1},
    {"": 1, ".": 2, "a/b": 3},
]


def there_and_back(tmp_path, state):
    path = str(tmp_path / "states.h5")
    size, sha256 = save_states(encode_states({"model": state}), path)
    octets = (tmp_path / "states.h5").read_bytes()
    assert (size, sha256) == (len(octets), hashlib.sha256(octets).hexdigest())
    file = StatesFile(path)
    try:
        return file.read()["model"]
    finally:
        file.close()


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_array_comes_back_with_its_type_and_bits(tmp_path, array):
    require_same(there_and_back(tmp_path, {"w": array})["w"], array)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_structure_comes_back_with_its_keys_and_types(tmp_path, structure):
    back = there_and_back(tmp_path, structure)

    require_same(back, structure)
    assert list(back) == list(structure)


def test_arrays_of_names_that_hdf5_does_not_take_do_not_meet(tmp_path):
    state = {
        name: np.full(2, n)
        for n, name in enumerate(["a.b", "a/b", "", ".", "..", "#0", "x" * 2000, "a\0b", "ä"])
    }
    state |= {"a": {"b": np.full(2, 100)}, 1: np.full(2, 101), "1": np.full(2, 102)}

    require_same(there_and_back(tmp_path, state), state)


def test_datasets_have_the_names_of_what_they_hold(tmp_path):
    path = str(tmp_path / "states.h5")
    states = {
        "model": OrderedDict([("layer.0.weight", np.ones(3))]),
        "optimizer": {"state": {0: {"exp_avg": np.ones(3)}}},
    }
    save_states(encode_states(states), path)

    with h5py.File(path) as file:
        names = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        assert sorted(names) == ["__document__", "model/layer.0.weight", "optimizer/state.0.exp_avg"]
        assert file["model/layer.0.weight"][()].tolist() == [1, 1, 1]


def test_other_mappings_come_back_as_dicts_and_arrays_in_files_as_plain_ones(tmp_path):
    mapped = np.memmap(tmp_path / "m", "f4", "w+", shape=(2,))

    back = there_and_back(tmp_path, {"state": defaultdict(dict, {0: mapped})})

    assert type(back["state"]) is dict
    assert type(back["state"][0]) is np.ndarray


class Model:
    pass


class Array(np.ndarray):
    pass


class Color(Enum):
    RED = 1


def looped():
    state = {}
    state["self"] = state
    return state


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"a": {"b": Model()}}, r"model\[a\]\[b\] cannot be stored: it is a .*Model\. Weights are arrays"),
        ({"a": [print]}, r"model\[a\]\[0\] cannot be stored: it is a builtin_function"),
        ({"a": np.array([None])}, r"of the type object"),
        ({"a": np.ma.masked_array([1.0], [True])}, "its mask would be lost"),
        ({"a": np.ones((1, 2)).view(np.matrix)}, r"model\[a\] .* numpy\.matrix \(a subclass may carry more"),
        ({"a": np.zeros(2, [("x", "i4")]).view(np.recarray)}, r"recarray \(a subclass may carry more"),
        ({"a": np.ones(2).view(Array)}, r"\.Array \(a subclass may carry more"),
        ({Model(): 1}, r"model cannot be stored: it is a .*Model"),
        ({"a": Color.RED}, r"model\[a\] cannot be stored: it is a .*Color"),
        ({"a": {1, 2}}, r"model\[a\] cannot be stored: it is a set"),
        (looped(), "contains itself"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_its_place(state, text):
    with pytest.raises(TypeError, match=text):
        encode_states({"model": state})


# Tensors, without torch


class Tensor:
    """As much of a tensor of torch's as is asked for."""

    def __init__(self, values, dtype="torch.float32", error=None):
        self.values, self.dtype, self.error = values, dtype, error

    def detach(self):
        return self

    cpu = contiguous = detach

    def numpy(self):
        if self.error:
            raise self.error
        return self.values

    def view(self, dtype):
        return Tensor(self.values.view(dtype), dtype)


BITS = np.array([0x3F80, 0x7FC1, 0x8000, 0xFF80], "u2")  # 1, a NaN of its own, -0, -inf
TORCH = SimpleNamespace(
    int16="i2",
    uint8="u1",
    bfloat16="bf16",
    float8_e5m2="e5m2",
    from_numpy=lambda values: Tensor(values, "made"),
)


def stored_bits(tmp_path, monkeypatch):
    path = str(tmp_path / "states.h5")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", TORCH)
        state = {
            "w": Tensor(BITS, "torch.bfloat16"),
            "eight": Tensor(np.array([1, 255], "u1"), "torch.float8_e5m2"),
            "f": Tensor(np.ones(2, "f4")),
        }
        save_states(encode_states({"model": state}), path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return StatesFile(path)


def test_tensors_come_back_as_arrays_where_torch_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    tensor = Tensor(np.arange(6, dtype="f4").reshape(2, 3))

    require_same(there_and_back(tmp_path, {"w": tensor})["w"], tensor.values)


def test_tensors_come_back_as_tensors_where_torch_is_loaded(tmp_path, monkeypatch):
    file = stored_bits(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "torch", TORCH)
    viewed = []
    monkeypatch.setattr(Tensor, "view", lambda self, dtype: viewed.append((self.values, dtype)) or self)

    back = file.read()["model"]

    assert back["f"].dtype == "made"
    assert back["f"].values.tolist() == [1, 1]
    assert [(values.tolist(), dtype) for values, dtype in viewed] == [
        (BITS.view("i2").tolist(), "bf16"),
        ([1, 255], "e5m2"),
    ]
    file.close()


def test_bfloat16_comes_back_as_that_of_ml_dtypes_bit_by_bit(tmp_path, monkeypatch):
    ml_dtypes = pytest.importorskip(
        "ml_dtypes", reason="the types that NumPy does not have are those of ml_dtypes"
    )
    file = stored_bits(tmp_path, monkeypatch)

    back = file.read()["model"]
    (tmp_path / "again").mkdir()
    again = there_and_back(tmp_path / "again", {"w": back["w"]})["w"]
    listed = file.listed()["model"]["w"]

    for found in (back["w"], again, listed.load(), listed[:]):
        assert found.dtype == ml_dtypes.bfloat16
        assert found.view("u2").tolist() == BITS.tolist()
    assert listed.dtype == "bfloat16"
    assert back["eight"].dtype == ml_dtypes.float8_e5m2
    file.close()


def test_bfloat16_with_neither_torch_nor_ml_dtypes_says_what_to_install(tmp_path, monkeypatch):
    file = stored_bits(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)

    with pytest.raises(
        ImportError, match=r"'model/w' is of the type bfloat16.*import torch.*pip install ml_dtypes"
    ):
        file.read()
    assert file.listed()["model"]["f"].load().tolist() == [1, 1]  # the others can be read
    file.close()


@pytest.mark.parametrize("error", [TypeError("sparse"), RuntimeError("meta")])
def test_tensor_without_values_is_refused_by_its_place(error):
    with pytest.raises(
        TypeError, match=rf"model\[w\] cannot be stored: it is a .*Tensor \(float32: {error}\)"
    ):
        encode_states({"model": {"w": Tensor(None, error=error)}})


def test_versions_of_modules_are_kept(tmp_path):
    state, inner = OrderedDict(w=np.ones(2)), OrderedDict()
    state._metadata = OrderedDict([("", {"version": 1}), ("norm", {"version": 2})])
    inner._metadata = {"": {"version": 3}}
    state[0] = [inner]

    back = there_and_back(tmp_path, state)

    assert back._metadata == state._metadata
    assert type(back._metadata) is OrderedDict
    assert back[0][0]._metadata == inner._metadata


class Named(dict):
    _metadata = "of another kind"


def test_dict_of_a_class_comes_back_as_a_dict(tmp_path):
    back = there_and_back(tmp_path, {"a": Named(b=1)})

    assert back == {"a": {"b": 1}}
    assert type(back["a"]) is dict


def test_system_that_takes_few_bytes_at_a_time_gets_all(tmp_path, monkeypatch):
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, bytes(data)[:7], offset))
    monkeypatch.setattr(os, "preadv", lambda file, parts, offset: read(file, [parts[0][:5]], offset))
    array = np.arange(100.0).reshape(10, 10)

    require_same(there_and_back(tmp_path, {"w": array})["w"], array)


def trained(make_model, dtype):
    import torch

    torch.manual_seed(1)
    model = make_model().to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.8, 0.99))
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3, dtype=dtype)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def torch_there_and_back(folder):
    """Train two networks, store them, and go on with copies: both must do the same."""
    import torch
    from torch import nn

    from entropic.weights_store import LocalWeightsStore

    def make_model():
        return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))

    store = LocalWeightsStore(folder)
    for dtype in (torch.float32, torch.bfloat16):
        model, optimizer = trained(make_model, dtype)
        run = SimpleNamespace(name=str(dtype), model=model, optimizer=optimizer)
        store.store_weights(run, 3)
        found = store.retrieve_weights(run, 3, verify=True)
        for name, value in model.state_dict().items():
            assert torch.equal(found.model[name], value), name
            assert found.model[name].dtype == value.dtype
        assert found.model._metadata == model.state_dict()._metadata
        assert found.optimizer["param_groups"] == optimizer.state_dict()["param_groups"]

        copy = make_model().to(dtype)
        other = SimpleNamespace(name=run.name, model=copy, optimizer=torch.optim.AdamW(copy.parameters()))
        store.load_weights(other, 3)
        for one in (run, other):
            one.optimizer.zero_grad()
            one.model(torch.ones(4, 3, dtype=dtype)).square().mean().backward()
            one.optimizer.step()
        for name, value in model.state_dict().items():
            assert torch.equal(copy.state_dict()[name], value), name
    return True


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_network_of_torch_and_its_optimizer_go_there_and_back(tmp_path):
    """In a process of its own: what was a tensor is one where torch is loaded, also in the tests that follow."""
    assert run_together(torch_there_and_back, [(tmp_path,)], timeout_s=300) == [True]


# Files that somebody else has made


def forged(tmp_path, change):
    path = str(tmp_path / "states.h5")
    save_states(encode_states({"model": {"w": np.ones(10**5)}}), path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def with_document(change):
    def write(file):
        document = json.loads(bytes(file["__document__"][()]))
        change(document)
        del file["__document__"]
        file["__document__"] = np.frombuffer(json.dumps(document).encode(), "u1")

    return write


def at(*place):
    return with_document(lambda document: document["places"].update({"model/w": list(place)}))


def document_elsewhere(**options):
    def write(file):
        octets = file["__document__"][()]
        del file["__document__"]
        file.create_dataset("__document__", octets.shape, "u1", **options)

    return write


HOSTILE = {
    "external link": lambda f: f.__setitem__("model/x", h5py.ExternalLink("other.h5", "/w")),
    "soft link": lambda f: f.__setitem__("model/x", h5py.SoftLink("/model/w")),
    "beyond the end": at(10**6, "<f8", [10**5]),
    "larger than the file": at(0, "<f8", [10**12]),
    "of no size": at(0, "<f8", [-1, -1]),
    "before the file": at(-8, "<f8", [10]),
    "objects": at(0, "|O", [10]),
    "texts": at(0, "<U4", [10]),
    "fields": at(0, "f8,f8", [10]),
    "no place": at(),
    "no number": at("0", "<f8", [10]),
    "half a number": at(0.5, "<f8", [10]),
    "absent": with_document(lambda d: d["places"].clear()),
    "no places": with_document(lambda d: d.pop("places")),
    "external document": document_elsewhere(external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]),
    "document in chunks": document_elsewhere(chunks=(64,)),
    "no document": lambda f: f.__delitem__("__document__"),
    "document of something else": with_document(lambda d: d.clear()),
    "states that are none": with_document(lambda d: d.update(states=[])),
    "unknown type": with_document(
        lambda d: d["states"].update(model={"__entropic__": "pickle", "value": ""})
    ),
    "unknown kind": with_document(lambda d: d["kinds"].update({"model/w": ["torch", "bfloat17"]})),
    "another kind": with_document(lambda d: d["kinds"].update({"model/w": ["torch", "bfloat16"]})),
    "metadata of nothing": with_document(lambda d: d["metadata"].append([["model", "x"], 1])),
    "metadata of an array": with_document(lambda d: d["metadata"].append([["model", "w"], 1])),
    "metadata of no form": with_document(lambda d: d["metadata"].append(1)),
    "one array many times": with_document(
        lambda d: d["states"].update(model=[{"__entropic__": "array", "value": "model/w"}] * 1000)
    ),
}


def read(path):
    file = StatesFile(path)
    try:
        return file.read()
    finally:
        file.close()


@pytest.mark.parametrize("change", HOSTILE.values(), ids=list(HOSTILE))
def test_forged_file_is_refused(tmp_path, monkeypatch, change):
    monkeypatch.setattr(untrusted, "_FREE_BYTES", 1 << 20)
    path = forged(tmp_path, change)

    with pytest.raises(DecodeError):
        read(path)


def external(file, secret):
    file.create_dataset("model/w", (3,), "f8", external=[(secret, 0, 24)])


def virtual(file, secret):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(secret, "w", (3,))
    file.create_virtual_dataset("model/w", layout)


@pytest.mark.parametrize("make", [external, virtual])
def test_array_that_is_in_another_file_is_not_read(tmp_path, make):
    secret = str(tmp_path / "secret")
    with open(secret, "wb") as file:
        file.write(np.full(3, 7.0).tobytes())

    def replace(file):
        del file["model/w"]
        make(file, secret)

    found = read(forged(tmp_path, replace))["model"]["w"]

    assert found.shape == (10**5,)
    assert 7.0 not in found


def test_small_arrays_that_are_read_at_once_are_each_what_they_were(tmp_path):
    rng = np.random.default_rng(1)
    types = ["f8", "u1", "f4", "c16", "?", "i2"]
    state = {str(n): rng.integers(0, 2, rng.integers(0, 300_000)).astype(types[n % 6]) for n in range(100)}
    state["large"] = rng.random(2_000_000)

    back = there_and_back(tmp_path, state)

    require_same(back, state)
    for array in back.values():
        assert array.flags.writeable
        assert array.flags.aligned
    back["0"][:1] = 9
    assert back["6"].tolist() == state["6"].tolist()


def test_parts_of_arrays_are_those_of_numpy(tmp_path):
    path = str(tmp_path / "states.h5")
    state = {
        "w": np.arange(24).reshape(2, 3, 4),
        "none": np.zeros((0, 3)),
        "one": np.array(5.0),
        "b": np.array([True]),
    }
    save_states(encode_states({"model": state}), path)
    file = StatesFile(path)
    listed = file.listed()["model"]
    os.unlink(path)

    for name, key in [
        ("w", (1, slice(None, None, 2))),
        ("w", -1),
        ("w", [0, 0]),
        ("none", ...),
        ("one", ()),
        ("b", 0),
    ]:
        require_same(listed[name][key].tolist(), state[name][key].tolist())
    assert listed["w"][0].flags.writeable
    with pytest.raises(IndexError) as caught:
        listed["w"][2]
    file.close()
    assert caught.tb is not None  # which has what it was about
