import numpy as np
import pytest

from entropic.errors import ParameterError
from entropic.sweeps.grids import expand_grid


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


@pytest.mark.parametrize("values", ["euler", b"raw", 3, np.array(3.0)])
def test_expand_grid_with_a_bare_value_says_to_wrap_it(values):
    with pytest.raises(ParameterError, match=r"grid\['solver'\].*wrap it in a list"):
        expand_grid({"solver": values})


def test_expand_grid_of_a_list_raises():
    with pytest.raises(ParameterError, match="maps each parameter"):
        expand_grid([("a", [1])])
