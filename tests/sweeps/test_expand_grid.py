import numpy as np
import pandas as pd
import pytest

from entropic.errors import ParameterError
from entropic.sweeps.grids import expand_grid, parameter_sets


def test_expand_grid_gives_product_order():
    grid = expand_grid({"a": [1, 2], "b": (x for x in "xy"), "c": [None]})

    assert grid == [
        {"a": 1, "b": "x", "c": None},
        {"a": 1, "b": "y", "c": None},
        {"a": 2, "b": "x", "c": None},
        {"a": 2, "b": "y", "c": None},
    ]


def test_expand_grid_takes_numpy_arrays():
    grid = expand_grid({"x": np.array([1.5, 2.5]), "n": range(2)})

    assert [(p["x"], p["n"]) for p in grid] == [(1.5, 0), (1.5, 1), (2.5, 0), (2.5, 1)]


@pytest.mark.parametrize(
    "values",
    ["euler", b"raw", 3, np.array(3.0), {"tol": 0.1}, pd.DataFrame({"a": [1, 2]})],
    ids=["text", "bytes", "number", "no dimensions", "dict", "frame"],
)
def test_expand_grid_with_a_bare_value_says_to_wrap_it(values):
    with pytest.raises(ParameterError, match=r"grid\['solver'\].*wrap it in a list"):
        expand_grid({"solver": values})


@pytest.mark.parametrize("value", [{"tol": 0.1}, pd.DataFrame({"a": [1, 2]})], ids=["dict", "frame"])
def test_sweep_takes_the_names_in_a_dict_or_a_frame_for_no_values(value):
    """They would run: a sweep over one table would be one over the names of its columns."""
    with pytest.raises(ParameterError, match="is one parameter set"):
        parameter_sets({"data": value}, ["data"])
    with pytest.raises(ParameterError, match=r"grid\['data'\].*wrap it in a list"):
        parameter_sets({"n": [1, 2], "data": value}, ["n", "data"])
    assert len(list(parameter_sets({"n": [1, 2], "data": [value]}, ["n", "data"]))) == 2


def test_expand_grid_of_a_list_raises():
    with pytest.raises(ParameterError, match="maps each parameter"):
        expand_grid([("a", [1])])


def test_one_dict_that_a_generator_changes_and_yields_again_is_many_sets():
    def drawn():
        params = {"scale": 0.5}
        for n in range(3):
            params["n"] = n
            yield params

    assert list(parameter_sets(drawn(), ["scale", "n"])) == [{"scale": 0.5, "n": n} for n in range(3)]
