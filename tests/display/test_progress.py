import io
import sys
import time
from types import SimpleNamespace

import pytest

from entropic.display.progress import ProgressBar, progress_bar


def test_progress_bar_off_counts_without_tqdm(capsys):
    with progress_bar(10, enabled=False) as bar:
        bar.add(done=2, failed=1)
        bar.wait_for(3)

    assert (bar.done, bar.failed, bar.waiting) == (2, 1, 3)
    assert capsys.readouterr().err == ""


def test_progress_bar_by_default_is_off_without_a_terminal(capsys):
    with progress_bar(10) as bar:
        bar.add(done=10)

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("stream", ["none", "closed", "writes only"])
def test_progress_bar_by_default_is_off_where_nothing_is_shown(monkeypatch, stream):
    closed = io.StringIO()
    closed.close()
    streams = {"none": None, "closed": closed, "writes only": SimpleNamespace(write=len)}
    monkeypatch.setattr(sys, "stderr", streams[stream])

    with progress_bar(2) as bar:
        bar.add(done=1)

    assert (bar.done, bar._bar) == (1, None)


def test_progress_bar_shows_the_counts(capsys):
    with progress_bar(10, enabled=True) as bar:
        bar.add(cached=6)
        bar.add(done=3, failed=1)

    shown = capsys.readouterr().err
    assert "10/10" in shown
    assert "3 done, 6 cached, 1 failed" in shown


def test_progress_bar_rate_leaves_out_what_was_cached():
    with progress_bar(1000, enabled=True) as bar:
        bar.add(cached=900)
        time.sleep(0.15)
        bar.add(done=1)
        facts = bar._bar.format_dict

    assert facts["n"] - facts["initial"] == 1
    assert isinstance(bar, ProgressBar)
