"""What a worker does: one attempt per job, noted before it is reported, and never a run that is finished already."""

import json
import logging
import os
import pickle
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from entropic.disk import files, roots, sidecars, staging
from entropic.disk.roots import Marker
from entropic.errors import ResultFileError, ResultFileMissingError, ResultsDirUnavailableError
from entropic.leases import held
from entropic.process.identity import this_process
from entropic.runs.attempts import Work, require_runner
from entropic.runs.inside import inside_of
from entropic.runs.jobs import Failure, Job, NotBegun, Receipt
from tests.support.counting import append_line
from tests.support.processes import outcomes_of, run_together
from tests.support.protocol_cases import MARKER, kill_self


class TwoArguments(Exception):
    """Pickles, and cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")

    def __reduce__(self):  # its own: what Dask does to exceptions, once it is imported, mends the plain one
        return type(self), self.args


class HoldsALock(Exception):
    """Does not pickle at all."""

    def __init__(self) -> None:
        super().__init__("held")
        self.generator = (n for n in range(3))


def job(record_id: str = "k1", **fields) -> Job:
    return Job(record_id, f"{record_id}.txt", {"a": 1.5}, {"a": 1.5}, **fields)


def write(params):
    """The plain runner: leaves a line for each call next to the results folder."""
    path = Path(params["result_file"])
    append_line(path.parents[4] / "calls.log", params["id"])
    path.write_text(f"result of {params['a']}")
    return {"rmse": 0.5}


def calls(root: Path) -> list[str]:
    log = root.parent / "calls.log"
    return log.read_text().split() if log.exists() else []


def work(root: Path, runner=write, **fields) -> Work:
    return Work(runner, str(root), MARKER, **fields)


def run_one(root: Path, runner=write, **fields):
    (outcome,) = work(root, runner)([job(**fields)])
    return outcome


def lines(root: Path) -> list[dict]:
    return [line for folder in sidecars.process_folders(root) for line in sidecars.read_sidecar(folder).lines]


# One attempt


@pytest.mark.parametrize("runner", [None, 5, "simulate.py"])
def test_runner_that_cannot_be_called_is_refused(runner):
    with pytest.raises(TypeError, match="runner must be a function of one dict, not"):
        require_runner(runner)


async def later(params): ...


def bit_by_bit(params):
    yield params


async def bit_by_bit_later(params):
    yield params


class Later:
    async def __call__(self, params): ...


@pytest.mark.parametrize("runner", [later, bit_by_bit, bit_by_bit_later, Later(), partial(later, {})])
def test_runner_that_returns_what_is_still_to_be_run_is_refused(runner):
    with pytest.raises(TypeError, match="is still to be run"):
        require_runner(runner)


def test_finished_run_is_staged_noted_and_reported(root):
    receipt = run_one(root, custom={"note": "mine"}, replaces="ab" * 32)

    (line,) = lines(root)
    assert receipt.path(root).read_text() == "result of 1.5"
    assert (line["database"], line["table"], line["record_id"]) == ("database", "table", "k1")
    assert (line["attempt"], line["sha256"]) == (receipt.attempt, files.digest_of(receipt.path(root))[1])
    assert (line["stored"], line["custom"], line["returned"]) == ({"a": 1.5}, {"note": "mine"}, {"rmse": 0.5})
    assert line["replaces"] == "ab" * 32
    assert Receipt.from_line(line) == receipt


def test_nothing_is_written_outside_the_state_folder(root):
    run_one(root)

    assert sorted(os.listdir(root)) == [roots.STATE, roots.MARKER]


def test_line_is_on_the_disk_before_the_work_is_reported(root):
    (outcome,) = outcomes_of(work_and_die, [(root,)])

    assert outcome.exitcode == -9
    assert [line["record_id"] for line in lines(root)] == ["k1"]


def work_and_die(root: Path) -> None:
    run_one(root)
    kill_self()


def test_runner_gets_a_copy_of_the_parameters_with_id_and_path(root):
    seen = []

    def runner(params):
        seen.append(dict(params))
        params.clear()
        Path(seen[0]["result_file"]).write_text("x")

    given = job()
    work(root, runner)([given])

    assert given.params == {"a": 1.5}
    assert seen[0].keys() == {"a", "id", "result_file"}
    assert seen[0]["id"] == "k1"
    assert Path(seen[0]["result_file"]).name == "k1.txt"


def test_exception_of_one_job_does_not_end_the_others(root):
    def runner(params):
        if params["id"] == "bad":
            raise ValueError("no")
        Path(params["result_file"]).write_text("x")

    outcomes = work(root, runner)([job("one"), job("bad"), job("two")])

    assert [type(outcome) for outcome in outcomes] == [Receipt, Failure, Receipt]
    assert [line["record_id"] for line in lines(root)] == ["one", "two"]


def test_failure_tells_type_message_traceback_and_where(root):
    def runner(params):
        raise ValueError("no solution")

    failure = run_one(root, runner)

    assert (failure.error_type, failure.message) == ("ValueError", "no solution")
    assert "in runner" in failure.traceback
    assert failure.where["pid"] == os.getpid()
    assert failure.where["owner"] == this_process().owner
    assert failure.error().__notes__ == ["while running k1 with a=1.5"]


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), (259, 3), (0, 0), (None, None), ("no", None)])
def test_sys_exit_in_a_runner_is_a_failure(root, code, exit_code):
    def runner(params):
        raise SystemExit(code)

    failure = run_one(root, runner)

    assert (failure.error_type, failure.exit_code, failure.is_deep) == ("SystemExit", exit_code, False)


@pytest.mark.parametrize("asking", ["entropic.store", "entropic.functions.memoized"])
def test_run_that_is_too_deep_says_so_if_it_asked_for_others(root, asking):
    def ask(name):
        namespace = {"__name__": name}
        exec("def ask():\n    raise RecursionError('maximum depth')", namespace)
        namespace["ask"]()

    deep = run_one(root, lambda params: ask(asking))
    own = run_one(root, lambda params: ask("somebody's"))

    assert (deep.is_deep, own.is_deep) == (True, False)
    said = [any("too many runs were inside" in note for note in one.error().__notes__) for one in (deep, own)]
    assert said == [True, False]


def test_run_is_named_by_its_function_or_class(root):
    seen = []

    def seeing(params):
        seen.append(inside_of()[-1])
        write(params)

    class Seeing:
        def __call__(self, params):
            seeing(params)

    def memoized(params):
        seeing(params)

    memoized.__wrapped__ = write
    for key, runner in (("k1", seeing), ("k2", Seeing()), ("k3", memoized)):
        run_one(root, runner, record_id=key)

    assert [str(run) for run in seen] == [f"{name}(a=1.5)" for name in ("seeing", "Seeing", "write")]
    assert [run.mark for run in seen] == [("root", key) for key in ("k1", "k2", "k3")]


def test_outcomes_of_keys_that_this_process_holds_are_noted_one_by_one(root):
    keeper = SimpleNamespace(name="", is_open=True, lends=True)
    marks = [(MARKER.root, key) for key in ("k1", "k2")]
    for mark in marks:
        held.offer(mark, keeper, "token", None)
    noted = []

    def runner(params):
        noted.append([held.find(mark).outcome for mark in marks])
        write(params)

    outcomes = work(root, runner, holder=this_process().as_dict())([job("k1"), job("k2"), job("k3")])
    noted.append([held.find(mark).outcome for mark in marks])
    held.withdraw(marks, keeper)

    assert noted == [[None, None], [outcomes[0], None], [outcomes[0], outcomes[1]]]
    assert [type(one) for one in outcomes] == [Receipt, Receipt, NotBegun]


@pytest.mark.parametrize("strikes", [False, True])
def test_run_of_a_chunk_knows_what_is_left_of_it_and_may_keep_it_from_being_begun(root, strikes):
    left = []

    def runner(params):
        chunk = inside_of()[-1].chunk
        left.append(chunk.left())
        chunk.is_struck = strikes and params["id"] == "k2"
        write(params)

    jobs = [job(key) for key in ("k1", "k2", "k3", "k4")]
    outcomes = work(root, runner, sweep="s")(jobs)

    assert left == [["k2", "k3", "k4"], ["k3", "k4"], *([] if strikes else [["k4"], []])]
    kinds = [Receipt, Receipt, *([NotBegun] if strikes else [Receipt]) * 2]
    assert [(type(one), one.record_id) for one in outcomes] == list(
        zip(kinds, ("k1", "k2", "k3", "k4"), strict=True)
    )


def test_interrupt_in_a_runner_is_not_swallowed_and_empties_the_slot(root):
    def runner(params):
        Path(params["result_file"]).write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_one(root, runner)

    assert [p.name for p in root.rglob("*.txt")] == []
    assert lines(root) == []


def test_failed_run_leaves_no_file_and_no_line(root):
    def runner(params):
        Path(params["result_file"]).write_text("half")
        raise ValueError

    run_one(root, runner)

    assert [p.name for p in root.rglob("*.txt")] == []
    assert lines(root) == []


def test_runner_that_writes_nothing_fails_and_names_the_path(root):
    failure = run_one(root, lambda params: None)

    assert isinstance(failure.error(), ResultFileMissingError)
    assert "k1.txt" in failure.message


def test_runner_that_writes_two_files_fails_and_keeps_them(root):
    def runner(params):
        Path(params["result_file"]).write_text("one")
        Path(params["result_file"]).with_name("two").write_text("two")

    failure = run_one(root, runner)

    assert isinstance(failure.error(), ResultFileError)
    assert sorted(
        p.read_text() for p in (root / roots.STATE / roots.QUARANTINE).rglob("*") if p.is_file()
    ) == [
        "one",
        "two",
    ]


# What a run leaves behind, and the next one

FIRST, SECOND = "0123456789abcdef", "fedcba9876543210"


class LeavesBehind:
    """Writes in time but for the first key, of which something writes when the second one has begun."""

    def __init__(self, *, late: str, raises: bool, second: str | None) -> None:
        self.late, self.raises, self.second = late, raises, second
        self.go, self.child = "", None

    def __call__(self, params):
        path = Path(params["result_file"])
        if params["id"] == FIRST:
            self.go = str(path.parents[4] / "go")
            late = path.with_name(self.late)
            wait = f"while [ ! -e '{self.go}' ]; do sleep 0.01; done; echo late > '{late}'"
            self.child = subprocess.Popen(["sh", "-c", wait], stderr=subprocess.DEVNULL)
            if self.raises:
                self.child.wait(timeout=0.01)
            path.write_text("first")
            return
        Path(self.go).touch()
        self.child.wait(timeout=20)
        if self.second is not None:
            path.with_name(self.second).write_text("second")


@pytest.mark.parametrize("sweep", ["", "s"])
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("second", [f"{SECOND}.txt", None])
def test_what_a_run_left_behind_writes_late_is_not_the_next_ones(root, sweep, raises, second):
    runner = LeavesBehind(late=f"{FIRST}.txt.part", raises=raises, second=second)
    task = work(root, runner, sweep=sweep)

    first, found = (
        (task([job(FIRST)]) + task([job(SECOND)])) if not sweep else task([job(FIRST), job(SECOND)])
    )

    assert isinstance(first, Failure if raises else Receipt)
    if second is None:
        assert isinstance(found.error(), ResultFileMissingError)
    else:
        assert found.path(root).read_text() == "second"


@pytest.mark.parametrize("raises", [False, True])
def test_late_file_of_any_name_is_never_taken_for_the_next_ones(root, raises):
    runner = LeavesBehind(late="out.txt", raises=raises, second=None)

    _, found = work(root, runner, sweep="s")([job(FIRST), job(SECOND)])

    assert isinstance(found.error(), ResultFileMissingError if raises else ResultFileError)


def test_runs_whose_files_have_names_of_their_own_find_no_other_in_their_slots(root):
    slots = []

    def runner(params):
        slots.append(Path(params["result_file"]).parent)
        slots[-1].joinpath("out.txt").write_text(params["id"])

    outcomes = work(root, runner, sweep="s")([job("one"), job("two"), job("three")])

    assert [outcome.path(root).read_text() for outcome in outcomes] == ["one", "two", "three"]
    assert len(set(slots)) == 3


def test_returned_value_that_json_cannot_hold_is_left_out_with_a_warning(root, caplog):
    def runner(params):
        write(params)
        return {"rmse": np.float64(0.5), "model": object()}

    with caplog.at_level(logging.WARNING, "entropic.runs.attempts"):
        receipt = run_one(root, runner)

    assert receipt.returned == {"rmse": 0.5}
    assert ["'model'" in record.getMessage() for record in caplog.records] == [True]


def test_returned_names_are_text_and_what_has_too_many_digits_is_left_out(root, caplog):
    def runner(params):
        write(params)
        return {("a", 1): 1, None: 2, b"x": 3, "large": [10**5000], 10**5000: 4, "\ud800": 1j, "rmse": 2**70}

    receipt = run_one(root, runner)

    assert receipt.returned == {"('a', 1)": 1, "None": 2, "b'x'": 3, "rmse": 2**70}
    assert [line["returned"] for line in lines(root)] == [receipt.returned]
    assert caplog.text.count("which is left out: JSON cannot hold") == 2
    assert "half of a surrogate pair" in caplog.text


def test_results_folder_that_a_worker_does_not_see_is_said_plainly(tmp_path):
    with pytest.raises(ResultsDirUnavailableError) as caught:
        work(tmp_path / "elsewhere")([job()])

    assert str(tmp_path / "elsewhere") in str(caught.value)
    assert "share" in str(caught.value)
    assert not (tmp_path / "elsewhere").exists()


def test_results_folder_of_another_table_is_not_written_to(tmp_path):
    roots.write_marker(tmp_path, Marker("root", "database", "another"))

    with pytest.raises(ResultsDirUnavailableError):
        work(tmp_path)([job()])

    assert os.listdir(tmp_path) == [roots.MARKER]


def test_no_job_is_begun_while_the_stop_file_is_there(root):
    stop = root / "stop"

    def runner(params):
        stop.touch()
        return write(params)

    outcomes = work(root, runner, stop=str(stop))([job("k1"), job("k2")])

    assert [outcome.record_id for outcome in outcomes] == ["k1"]
    assert calls(root) == ["k1"]


# A run that is finished already


def run_elsewhere(root: Path) -> str:
    return run_one(root).attempt


def test_finished_run_of_another_process_is_taken_instead_of_running(root):
    (attempt,) = run_together(run_elsewhere, [(root,)])

    receipt = run_one(root)

    assert receipt.attempt == attempt
    assert calls(root) == ["k1"]


def test_finished_run_that_is_taken_gets_the_custom_data_of_this_call(root):
    run_together(run_elsewhere, [(root,)])

    receipt = run_one(root, custom={"note": "now"})

    assert receipt.custom == {"note": "now"}


def test_finished_run_is_not_taken_when_the_call_is_to_run(root):
    run_together(run_elsewhere, [(root,)])

    run_one(root, look=False)

    assert calls(root) == ["k1", "k1"]


@pytest.mark.parametrize("damage", [b"damaged", b"result of 1.6", None], ids=["size", "content", "gone"])
def test_finished_run_whose_file_was_damaged_is_run_again(root, damage):
    run_together(run_elsewhere, [(root,)])
    (staged,) = root.rglob("k1.txt")
    if damage is None:
        staged.unlink()
    else:
        staged.write_bytes(damage)

    receipt = run_one(root)

    assert calls(root) == ["k1", "k1"]
    assert receipt.path(root).read_text() == "result of 1.5"


@pytest.mark.parametrize(
    "change",
    [{"database": "x"}, {"table": "x"}, {"record_id": "k2"}, {"sha256": None}, {"stored": None}],
    ids=lambda change: next(iter(change)),
)
def test_line_that_is_not_of_this_key_or_cannot_be_read_is_not_taken(root, change):
    run_together(run_elsewhere, [(root,)])
    (folder,) = sidecars.process_folders(root)
    (line,) = sidecars.read_sidecar(folder).lines
    (folder / sidecars.SIDECAR).write_text(json.dumps({**line, **change}) + "\n")

    run_one(root)

    assert calls(root) == ["k1", "k1"]


def test_line_without_a_table_is_not_taken(root):
    folder = root / roots.STATE / "strange"
    folder.mkdir(parents=True)
    (folder / sidecars.SIDECAR).write_text('{"record_id": "k1", "attempt": "a"}\n')

    run_one(root)

    assert calls(root) == ["k1"]


def test_task_of_a_sweep_that_is_run_again_here_takes_what_it_finished(root):
    task = work(root, sweep="sweep1")
    first = task([job("k1"), job("k2")])

    second = task([job("k1"), job("k2"), job("k3")])

    assert second[:2] == first
    assert calls(root) == ["k1", "k2", "k3"]


# Travelling


def test_task_of_a_sweep_that_is_run_again_takes_what_was_committed_meanwhile(root):
    (first,) = work(root, sweep="s")([job()])
    staging.move(first.path(root), root / first.final_name)

    (again,) = work(root, sweep="s")([job()])

    assert again == first
    assert calls(root) == ["k1"]


def test_result_of_another_sweep_that_was_committed_is_not_taken(root):
    # It was committed, so whoever asks again has deleted its row.
    (first,) = work(root, sweep="s")([job()])
    staging.move(first.path(root), root / first.final_name)

    (again,) = work(root, sweep="t")([job()])

    assert again.attempt != first.attempt
    assert calls(root) == ["k1", "k1"]


def test_work_and_jobs_travel_by_pickle(root):
    (outcome,) = pickle.loads(pickle.dumps(work(root)))(pickle.loads(pickle.dumps([job()])))

    assert pickle.loads(pickle.dumps(outcome)) == outcome


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("k"), ResultFileMissingError("gone")])
def test_exception_that_pickles_arrives_as_itself_with_its_notes(root, error):
    error.add_note("seen at dawn")

    def runner(params):
        raise error

    failure = pickle.loads(pickle.dumps(run_one(root, runner)))

    arrived = failure.error()
    assert type(arrived) is type(error)
    assert arrived.args == error.args
    assert arrived.__notes__[:2] == ["seen at dawn", "while running k1 with a=1.5"]
    assert "in runner" in arrived.__notes__[-1]


@pytest.mark.parametrize(
    ("error", "said"),
    [(TwoArguments(1, 2), "did not survive pickling"), (HoldsALock(), "does not pickle")],
)
def test_exception_that_does_not_survive_pickling_arrives_as_a_runtime_error(root, error, said, caplog):
    def runner(params):
        raise error

    with caplog.at_level(logging.DEBUG, "entropic.process.raised"):
        failure = pickle.loads(pickle.dumps(run_one(root, runner)))
        arrived = failure.error()

    assert said in caplog.text
    assert type(arrived) is RuntimeError
    assert str(arrived) == f"{type(error).__qualname__}: {error}"
    assert "in runner" in arrived.__notes__[-1]
    assert failure.error() is arrived


def test_long_parameters_are_cut_in_the_note(root):
    def runner(params):
        raise ValueError

    (failure,) = work(root, runner)([Job("k", "k.txt", {}, {"text": "x" * 5000})])

    assert len(failure.error().__notes__[0]) < 600
