"""What this process holds: who may begin, take, end and give back a key, which tokens are known, who waits for whom."""

from dataclasses import dataclass, field
from multiprocessing import get_context

import pytest

from entropic.leases import held
from tests.support.processes import run_together

KEY = ("root", "key")


@dataclass(eq=False)
class Keeper:
    """One that notes what it hands over."""

    name: str = ""
    is_open: bool = True
    lends: bool = True
    gone: list[str] = field(default_factory=list)

    def settle(self, key: str) -> None: ...

    def hand_over(self, key: str) -> None:
        self.gone.append(key)

    def give_back(self) -> None: ...


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch):
    for name in ("_known", "_holds", "_inner", "_waits"):
        monkeypatch.setattr(held, name, {})


# Which tokens are known


@pytest.mark.parametrize(
    ("keeper", "is_known"), [(None, True), (Keeper(), True), (Keeper(is_open=False), False)]
)
def test_token_is_known_until_it_is_forgotten_or_its_keeper_gives_back(keeper, is_known):
    held.know(["token"], keeper)
    noted = held.is_known("token")
    held.forget(["token", "never known"])

    assert (noted, held.is_known("token")) == (is_known, False)


def test_token_of_a_key_that_was_taken_is_its_new_keepers():
    first, second = Keeper(), Keeper()
    held.know(["token"], first)
    held.offer(KEY, first, "token", "row")

    taken = held.take(KEY, second)
    first.is_open = False
    while_open = held.is_known("token")
    second.is_open = False

    assert (taken.keeper, taken.token, taken.row) == (second, "token", "row")
    assert first.gone == ["key"]
    assert held.find(KEY) is taken
    assert (while_open, held.is_known("token")) == (True, False)


# What becomes of a key


def test_key_is_begun_once_and_by_its_keeper_only():
    held.offer(KEY, Keeper("sweep"), "token", None)

    assert [held.begin(KEY, name) for name in ("another", "", "sweep", "sweep")] == [
        False,
        False,
        True,
        False,
    ]
    assert held.find(KEY).is_begun
    assert not held.begin(("root", "unknown"), "sweep")


def test_key_that_is_run_elsewhere_may_be_begun_again():
    held.offer(KEY, Keeper("sweep", lends=False), "token", None)

    assert [held.begin(KEY, name) for name in ("another", "sweep", "sweep")] == [False, True, True]
    assert not held.find(KEY).is_begun


@pytest.mark.parametrize("is_begun", [False, True])
@pytest.mark.parametrize("lends", [False, True])
@pytest.mark.parametrize("is_own", [False, True])
def test_key_is_taken_from_another_who_lends_it_and_has_not_begun(is_begun, lends, is_own):
    first, second = Keeper(lends=lends), Keeper()
    held.offer(KEY, first, "token", None)
    held.find(KEY).is_begun = is_begun

    taken = held.take(KEY, first if is_own else second)

    assert (taken is not None) == (lends and not is_begun and not is_own)
    assert held.find(KEY).keeper is (second if taken is not None else first)


def test_key_that_nobody_holds_is_not_taken():
    assert held.take(KEY, Keeper()) is None


@pytest.mark.parametrize(
    ("name", "lends", "is_noted"), [("sweep", True, True), ("another", True, False), ("sweep", False, False)]
)
def test_outcome_is_noted_for_the_keeper_who_runs_the_key_here(name, lends, is_noted):
    held.offer(KEY, Keeper("sweep", lends=lends), "token", None)

    held.end(KEY, name, "outcome")
    held.end(("root", "unknown"), name, "outcome")

    assert held.find(KEY).outcome == ("outcome" if is_noted else None)


@pytest.mark.parametrize("is_own", [False, True])
def test_key_is_to_be_begun_again_where_its_keeper_says_so(is_own):
    keeper = Keeper("sweep")
    held.offer(KEY, keeper, "token", None)
    held.begin(KEY, "sweep")
    held.end(KEY, "sweep", "outcome")

    held.reset(KEY, keeper if is_own else Keeper("sweep"))
    held.reset(("root", "unknown"), keeper)

    hold = held.find(KEY)
    assert (hold.is_begun, hold.outcome) == ((False, None) if is_own else (True, "outcome"))


@pytest.mark.parametrize(("only_free", "withdrawn"), [(False, ["free", "begun"]), (True, ["free"])])
def test_keys_are_withdrawn_by_their_keeper_and_what_was_begun_only_if_it_may_be(only_free, withdrawn):
    keeper, other = Keeper("sweep"), Keeper("other")
    for key, of in (("free", keeper), ("begun", keeper), ("another's", other)):
        held.offer(("root", key), of, key, None)
    held.begin(("root", "begun"), "sweep")
    marks = [("root", key) for key in ("free", "begun", "another's", "unknown")]

    assert held.withdraw(marks, keeper, only_free=only_free) == withdrawn
    assert [mark[1] for mark in marks if held.find(mark)] == [
        key for key in ("free", "begun", "another's") if key not in withdrawn
    ]


# Who waits for whom

A, B, C, D, E = (("root", name) for name in "abcde")


def test_circle_is_the_way_over_runs_inside_and_keys_that_are_waited_for():
    held.enter(A, B)
    held.wait_for(B, [E, C])
    held.wait_for(C, [B, D])

    assert held.circle(A, {D}) == [A, B, C, D]
    assert held.circle(C, {D, B}) == [C, B]
    assert held.circle(A, {A}) == []
    assert held.circle(D, {A}) == []


def test_run_waits_for_the_keys_that_it_named_last():
    held.wait_for(A, [B])
    held.wait_for(A, [C])
    last = held.circle(A, {B}), held.circle(A, {C})
    held.wait_for(A, [])
    held.wait_for(A, [])

    assert last == ([], [A, C])
    assert held.circle(A, {C}) == []
    assert not held._waits


def test_run_that_has_left_another_is_not_inside_it_any_more():
    held.enter(A, B)
    held.enter(A, C)
    held.leave(A, B)
    one_left = held.circle(A, {B}), held.circle(A, {C})
    held.leave(A, C)
    held.leave(A, C)

    assert one_left == ([], [A, C])
    assert held.circle(A, {C}) == []
    assert not held._inner


# A process that was forked


def known() -> tuple[bool, bool, list[held.Mark]]:
    return held.is_known("token"), held.find(KEY) is not None, held.circle(A, {B, C})


def known_to_a_child_and_its_parent() -> list[object]:
    held.know(["token"])
    held.offer(KEY, Keeper(), "token", None)
    held.enter(A, B)
    held.wait_for(A, [C])
    mine, its = get_context("fork").Pipe(duplex=False)
    child = get_context("fork").Process(target=lambda: its.send(known()))
    with held._lock:  # whoever has it in the parent cannot give it back in the child
        child.start()
    answer = mine.recv() if mine.poll(20) else "hangs"
    child.kill()
    child.join()
    return [answer, known()]


def test_child_holds_nothing_of_what_its_parent_does():
    (found,) = run_together(known_to_a_child_and_its_parent, [()])

    assert found == [(False, False, []), (True, True, [A, B])]
