"""A checkpoint is one transaction over all stores and their files: whatever is killed when, it is all there or not."""

import signal

import pytest

from tests.support.checkpoint_cases import Experiment, checkpoint_until
from tests.support.processes import outcomes_of, run_together

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite-file", "postgresql", "mysql"])
def url(request):
    return request.getfixturevalue(
        {"sqlite-file": "sqlite_url", "postgresql": "postgres_url", "mysql": "mysql_url"}[request.param]
    )


def test_checkpoint_that_is_killed_at_any_step_is_all_there_or_not_at_all(url, tmp_path):
    experiment = Experiment(url, str(tmp_path))
    experiment.checkpoint(1)
    experiment.close()
    (steps,) = run_together(checkpoint_until, [(url, str(tmp_path), 2, None)])
    assert steps > 20

    former, was_committed = 2, []
    for step in range(1, steps + 1):
        number = former + 1
        (outcome,) = outcomes_of(checkpoint_until, [(url, str(tmp_path), number, step)])
        assert outcome.exitcode == -signal.SIGKILL

        experiment = Experiment(url, str(tmp_path))  # which clears away what the kill has left
        (state,) = {frozenset(found) for found in experiment.state().values()}
        assert state in ({former}, {number}), f"step {step}"
        was_committed.append(state == {number})
        files = experiment.files()
        assert len(files) == 1, f"step {step}: {files}"
        assert not experiment.store.check(checksum=True)
        experiment.close()
        (former,) = state

    # Up to the COMMIT nothing of it is there, and from then on all of it.
    assert was_committed == sorted(was_committed)
    assert not was_committed[0]
    assert was_committed[-1]
