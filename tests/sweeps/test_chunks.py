"""What travels to a worker: parameters arrive as the key knows them."""

from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
import pytest

from entropic.sweeps.chunks import dump_jobs
from tests.support.memo_cases import memoized


@dataclass
class Image:
    pixels: Any


HARD = np.ma.array([1, 2], mask=[0, 1], hard_mask=True, fill_value=7)
WITHOUT = np.ma.array(np.ones((2, 3), order="F"))
MASKED = [
    HARD,
    WITHOUT,
    np.ma.array([1.0, 2.0], mask=[False, False]),
    np.ma.array([(1, "a")], mask=[(0, 1)], dtype=[("n", "i4"), ("s", "U2")], hard_mask=True),
    np.ma.array(5),
    np.ma.array(["2026"], mask=[True], dtype="M8[s]"),
]


def about(array: np.ma.MaskedArray) -> list[Any]:
    return [
        *(array.dtype, array.shape, array.flags.f_contiguous, str(array.data), str(array.mask)),
        *(array.mask is np.ma.nomask, array.hardmask, str(array.fill_value)),
    ]


def overwrite(a: np.ma.MaskedArray, b: Image) -> list:
    was = [array.mask is np.ma.nomask for array in (a, b.pixels)]
    a[:] = 0
    b.pixels[:] = 0
    return [a.tolist(), b.pixels.tolist(), was]


@pytest.mark.parametrize(
    "array", MASKED, ids=["hard", "no mask", "nothing masked", "fields", "scalar", "times"]
)
def test_masked_array_travels_whole_wherever_it_is(array):
    back, image = cloudpickle.loads(dump_jobs([array, Image([array])]))

    assert about(back) == about(image.pixels[0]) == about(array)
    assert back is image.pixels[0]


def test_worker_gets_the_masked_array_that_is_in_the_key(tmp_path):
    function = memoized(tmp_path, overwrite)
    sets = [{"a": HARD, "b": Image(WITHOUT)}, {"a": WITHOUT, "b": Image(HARD)}]
    expected = [function(**one) for one in sets]
    function.clear()

    results = function.sweep(sets, workers=1, progress=False)

    assert [record.load() for record in results] == expected
    assert expected[0] == [[0, None], [[0.0] * 3] * 2, [False, True]]
