import sys
import traceback

import pytest

from entropic.process.raised import note_on, pickled, text_of, traceback_of, unpickled
from entropic.process.termination import Terminated
from tests.support.peculiar_errors import Frozen, Noted, Speechless


class Refusing(Exception):
    def __setattr__(self, name, value):
        raise AttributeError(name)


class Text(Exception):
    def __reduce__(self):
        return str, ("no exception",)


class Exit(Exception):
    def __reduce__(self):
        return sys.exit, (3,)


@pytest.mark.parametrize("error", [ValueError("x"), Frozen(1), Refusing("x"), Noted("x")])
def test_note_stands_on_whatever_lets_it_be_put_there_once(error):
    for text in ("first", "second", "first"):
        note_on(error, text)

    assert error.__notes__ == ["first", "second"]


def test_note_that_cannot_be_put_anywhere_is_left_out():
    error = ValueError("x")
    error.__notes__ = 3

    note_on(error, "first")

    assert error.__notes__ == 3


def test_exception_that_cannot_say_what_it_is_is_named():
    assert text_of(Speechless()) == "<str() failed with SystemExit>"
    assert "Speechless" in traceback_of(Speechless())


def test_traceback_that_cannot_be_shown_tells_what_can(monkeypatch):
    def fail(*_):
        raise SystemExit

    monkeypatch.setattr(traceback, "format_exception", fail)
    try:
        raise Frozen(1)
    except Frozen as error:
        shown = traceback_of(error)

    assert "raise Frozen(1)" in shown
    assert shown.endswith("Frozen: <cannot be shown: SystemExit>\n")


@pytest.mark.parametrize("error", [Text("x"), Exit("x"), Frozen(1)])
def test_exception_that_does_not_come_out_of_pickle_as_one_has_not_survived(error):
    assert unpickled(pickled(error)) is None


def test_exception_survives_with_its_notes():
    error = OSError(5, "Input/output error")
    note_on(error, "first")

    found = unpickled(pickled(error))

    assert (type(found), found.args, found.__notes__) == (OSError, error.args, ["first"])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_interrupt_is_nobodys_answer(kind):
    class Slow(Exception):
        def __str__(self):
            raise kind

    with pytest.raises(kind):
        text_of(Slow())
