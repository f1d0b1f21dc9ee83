"""Values as text that fits a screen, whatever they are."""

import pytest

from entropic.display.text import Listing, printed, short


class Broken:
    def __repr__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10**5000, "0x"),
        ({"a": [10**5000, "x"]}, "{'a': [0x"),
        (Broken(), "<Broken instance at "),
        ([Broken()], "[<Broken instance at "),
        ({"a": 1}, "{'a': 1}"),
    ],
    ids=["int", "dict with an int", "broken", "list with a broken one", "plain"],
)
def test_value_of_which_python_makes_no_text_is_printed_in_brief(value, text):
    assert printed(value).startswith(text)
    assert short(value).startswith(text)
    assert repr(Listing([value])).startswith(f"[{text}")
