"""The example that trains networks: what it records, and that a kill costs it nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest

from entropic.create_store import create_config_store, create_stats_store, create_weights_store
from entropic.options import Options
from tests.support.waiting import wait_for

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "digits.py"
SMALL = ["--hidden", "8", "--learning-rates", "0.1", "0.03", "--epochs", "6"]


@pytest.fixture(scope="module", autouse=True)
def classes():
    """What the script defines: a config comes back as the class that it was."""
    pytest.importorskip("sklearn", reason="scikit-learn, which brings the digits, is not installed")
    return import_module("docs.examples.digits")


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--folder", str(folder), *SMALL, *arguments],
        check=True, capture_output=True, text=True, cwd=folder.parent, env={**os.environ, "MPLBACKEND": "Agg"},
    )  # fmt: skip


def recorded(folder):
    """Return all that is recorded of each run, as plain values."""
    options = Options(db_url=f"sqlite:///{folder}/digits.sqlite3", runs_base_dir=folder / "runs")
    configs, stats = create_config_store(options), create_stats_store(options)
    weights = create_weights_store(options)
    found = {}
    for name in configs.retrieve_run_config_names():
        best = weights.retrieve_best(name, "digits", "accuracy")
        found[name] = (
            configs.retrieve_run_config(name).document(),
            [(one.iteration, one.loss) for one in stats.retrieve_training_stats(name).iteration_stats],
            [(one.iteration, one.scores) for one in stats.retrieve_validation_iteration_scores(name)],
            weights.iterations(name),
            best,
            {
                key: array.tolist()
                for key, array in weights.retrieve_weights(name, best, verify=True).model.items()
            },
        )
    weights.database.dispose()
    return found


@pytest.mark.slow
def test_example_records_configs_losses_scores_and_weights(tmp_path):
    folder = tmp_path / "digits"
    done = run(folder, "--workers", "0")

    assert "2 trainings; the best, 8 hidden at 0.1, reads " in done.stdout
    assert (folder / "digits.png").stat().st_size > 20_000
    runs = recorded(folder)
    assert len(runs) == 2
    for name, (config, losses, scores, iterations, best, model) in runs.items():
        assert name.startswith("digits/")
        assert config["architecture_config"] == {"__type__": "Layers", "name": "8 hidden", "hidden": 8}
        assert [iteration for iteration, _ in losses] == list(range(6 * 43))
        assert [iteration for iteration, _ in scores] == [43 * epoch for epoch in range(1, 7)]
        assert losses[-1][1] < losses[0][1] / 2
        assert best in iterations
        assert 258 in iterations
        accuracy = dict(scores)[best][0][0][0]
        assert accuracy == max(one[0][0][0] for _, one in scores)
        assert {key: len(array) for key, array in model.items()} == {"w1": 64, "b1": 8, "w2": 8, "b2": 10}


def _checkpoints(folder):
    try:
        with closing(sqlite3.connect(f"file:{folder}/digits.sqlite3?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM entropic_weights").fetchone()[0]
    except sqlite3.Error:
        return 0


@pytest.mark.slow
def test_example_that_is_killed_ends_as_one_that_was_not(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    run(undisturbed, "--workers", "0")
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--folder", str(killed), *SMALL, "--workers", "2"],
        cwd=tmp_path, env={**os.environ, "MPLBACKEND": "Agg"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: _checkpoints(killed) >= 2, timeout_s=120)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run(killed, "--workers", "2")

    assert recorded(killed) == recorded(undisturbed)
