"""The window on a backend that answers when the test says so: what is in flight together, and what becomes of it."""

import logging
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from entropic.runs.jobs import WorkerDied
from entropic.sweeps import window
from entropic.sweeps.backends.base import Backend
from entropic.sweeps.chunks import Reply
from entropic.sweeps.window import BackendLost, dispatch
from tests.support.sweep_cases import Caller, crashed, double, expected, key


class Scripted(Backend):
    """Answers when so many chunks are in flight as the next number of *rounds* says; *answers* are not doubling."""

    def __init__(self, rounds, answers=None, *, slots=2):
        self.rounds = list(rounds)
        self.answers = {job: list(one) for job, one in (answers or {}).items()}
        self.count = slots
        self.submitted = []
        self.flying = {}
        self.looks = 0

    def slots(self):
        self.looks += 1
        assert self.looks < 100, f"the window waits for what is not to come, after {self.submitted}"
        if self.rounds and len(self.flying) == self.rounds[0]:
            del self.rounds[0]
            self.answer()
        return self.count

    def submit(self, jobs):
        future = Future()
        self.submitted.append(list(jobs))
        self.flying[future] = jobs
        return future

    def answer(self):
        for future, jobs in list(self.flying.items()):
            del self.flying[future]
            special = self.answers.get(jobs[0])
            answer = special.pop(0) if special else Reply(double(jobs), 0.1)
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def withdraw(self):
        """Give back all but what the slots are at, and answer that."""
        queued = list(self.flying)[self.count :]
        for future in queued:
            del self.flying[future]
            future.cancel()
        del self.rounds[0]
        self.answer()
        return queued

    def stop(self, idle):
        self.answer()
        return []

    def close(self):
        pass


@pytest.fixture(autouse=True)
def one_job_a_chunk(monkeypatch):
    monkeypatch.setattr(window, "_POLL_S", 0.01)
    monkeypatch.setattr(window._Pace, "size", lambda pace: 1)


def test_outcomes_that_arrive_with_the_death_of_a_worker_are_handed_over():
    caller, told = Caller(range(4)), []
    backend = Scripted([4, 1, 1], {1: [WorkerDied("killed")], 2: [WorkerDied("killed", at=0)]})

    caller.run(backend, died=lambda job, error: told.append(job))

    assert sorted(caller.outcomes) == expected(range(4))
    assert caller.commits == [2, 1, 1]
    assert backend.submitted[4:] == [[1], [2]]  # one at a time
    assert told == []  # the executor does not say which worker died with what


@pytest.mark.parametrize(("isolates", "beside"), [(True, [[1], [4], [5], [6]]), (False, [[1]])])
def test_others_run_beside_what_is_tried_again_where_its_death_would_be_known(isolates, beside):
    caller, told = Caller(range(7)), []
    backend = Scripted(
        [4, len(beside), *([] if isolates else [3])],
        {1: [WorkerDied("killed"), WorkerDied("killed again")]},
    )
    backend.isolates = isolates

    caller.run(backend, died=lambda job, error: told.append((job, str(error))))

    assert backend.submitted[4 : 4 + len(beside)] == beside
    assert sorted(caller.outcomes) == sorted([(1, "crashed"), *double([0, 2, 3, 4, 5, 6])], key=key)
    assert told == ([(1, "killed")] if isolates else [])


def test_death_that_may_be_anothers_is_not_told():
    caller, told = Caller(range(4)), []
    backend = Scripted([4, 1], {1: [WorkerDied("broken", at=0, is_shared=True)]})
    backend.isolates = True

    caller.run(backend, died=lambda job, error: told.append(job))

    assert sorted(caller.outcomes) == expected(range(4))
    assert told == []


def test_jobs_of_a_chunk_whose_worker_died_at_one_are_run_without_suspicion(monkeypatch):
    monkeypatch.setattr(window._Pace, "size", lambda pace: 3)
    caller = Caller(range(3))
    backend = Scripted([2, 1, 1], {0: [WorkerDied("killed", at=1)]}, slots=1)

    caller.run(backend)

    assert backend.submitted == [[0, 1], [2], [1], [0]]
    assert sorted(caller.outcomes) == expected(range(3))


def test_job_whose_chunk_was_lost_may_lose_one_worker_alone_before_it_is_given_up(monkeypatch):
    """Nobody knows at which job of the chunk the first one died."""
    monkeypatch.setattr(window._Pace, "size", lambda pace: 3)
    caller = Caller(range(3))
    backend = Scripted([2, 1, 1, 1], {0: [WorkerDied("killed"), WorkerDied("killed again")]}, slots=1)

    caller.run(backend)

    assert backend.submitted[0] == [0, 1]
    assert sorted(caller.outcomes) == expected(range(3))


def test_what_nobody_has_begun_is_given_back_when_those_at_work_wait_for_others():
    caller, back = Caller(range(6)), []
    backend = Scripted([None, 2, 2])

    def give_back(jobs):
        back.append(sorted(jobs))
        caller.jobs += jobs

    dispatch(
        caller.take,
        caller.finish,
        backend,
        key=key,
        crashed=crashed,
        left=caller.left,
        idle=lambda: not back,
        give_back=give_back,
    )

    assert back == [[2, 3]]
    assert sorted(caller.outcomes) == expected(range(6))
    assert max(map(len, backend.submitted)) == 1


def test_nothing_is_given_back_while_nobody_waits():
    caller, back, asked = Caller(range(4)), [], []
    backend = Scripted([])

    def idle():
        asked.append(True)
        backend.answer()
        return False

    caller.run(backend, idle=idle, give_back=back.append)

    assert sorted(caller.outcomes) == expected(range(4))
    assert (bool(asked), back) == (True, [])


def test_all_that_ends_while_the_window_is_stopped_is_handed_over():
    caller = Caller(range(9))
    backend = Scripted([], {0: [WorkerDied("killed")]})

    def take(n, *, wait):
        if caller.next:
            raise RuntimeError("the database is gone")
        return caller.take(n - 1, wait=wait)

    with pytest.raises(RuntimeError, match="the database is gone"):
        dispatch(take, caller.finish, backend, key=key, crashed=crashed)

    assert sorted(caller.outcomes) == expected([1, 2])


def test_backend_that_is_lost_gives_all_back_that_has_no_outcome():
    caller = Caller(range(6))
    backend = Scripted([4], {1: [OSError("gone")], 2: [WorkerDied("killed", at=0)]})

    with pytest.raises(BackendLost) as lost:
        caller.run(backend)

    assert lost.value.remaining == [1]
    assert sorted(caller.outcomes) == [(0, 0), (2, "crashed"), (3, 6)]


def test_chunk_that_was_cut_short_hands_over_what_had_ended(monkeypatch):
    monkeypatch.setattr(window._Pace, "size", lambda pace: 3)
    caller, cause = Caller(range(3)), OSError("full")
    backend = Scripted([2], {0: [Reply(double([0]), 0.1, cause)]}, slots=1)

    with pytest.raises(BackendLost) as lost:
        caller.run(backend)

    assert backend.submitted == [[0, 1], [2]]
    assert (lost.value.remaining, lost.value.cause) == ([1], cause)
    assert sorted(caller.outcomes) == expected([0, 2])


def test_what_is_to_end_the_sweep_ends_it_once_all_that_has_ended_is_handed_over(monkeypatch):
    monkeypatch.setattr(window._Pace, "size", lambda pace: 2)
    caller, told = Caller(range(8)), []
    last = Reply(double([2]), 0.1, KeyboardInterrupt("a worker's"), is_last=True)
    backend = Scripted([4], {0: [OSError("gone")], 2: [last]})

    with pytest.raises(KeyboardInterrupt, match="a worker's"):
        caller.run(backend, abort=lambda: told.append("abort"))

    assert told == ["abort"]
    assert sorted(caller.outcomes) == expected([2, 4, 5, 6, 7])


def test_what_has_killed_a_worker_is_given_up_when_the_backend_is_lost_with_it():
    caller = Caller(range(2))
    backend = Scripted([2, 1], {1: [WorkerDied("killed", at=0), OSError("gone")]})

    with pytest.raises(BackendLost) as lost:
        caller.run(backend)

    assert lost.value.remaining == []
    assert sorted(caller.outcomes) == [(0, 0), (1, "crashed")]


# No workers


def test_sweep_without_workers_says_so_after_a_while_and_then_now_and_then(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(window, "time", SimpleNamespace(monotonic=lambda: now[0]))
    drought = window._Drought()

    said = []
    with caplog.at_level(logging.INFO, "entropic"):
        for second, slots in [
            (100, 0),
            (104, 0),
            (105, 0),
            (106, 0),
            (164, 0),
            (165, 0),
            (166, 2),
            (200, 0),
            (205, 0),
        ]:
            now[0] = float(second)
            caplog.clear()
            drought.look(slots)
            said += [(second, record.levelname, record.getMessage()[:21]) for record in caplog.records]

    assert said == [
        (105, "WARNING", "No workers for 5 s: t"),
        (165, "INFO", "No workers for 65 s: "),
        (205, "WARNING", "No workers for 5 s: t"),
    ]
