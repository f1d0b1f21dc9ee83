"""What is shown of a text from elsewhere, in logs, errors and reports."""

import logging
import os
import pickle
import re
from pathlib import Path

import pytest
from sqlalchemy import delete, update

import entropic
from entropic import DecodeError, Store
from entropic.printable import one_line, printable
from entropic.process.logs import get_logger
from entropic.sql.tables import FileRow
from tests.support.hostile import Target, make_victim
from tests.support.store_cases import PARAMS, Pendulum, Runner

FORGED = "\n2026-01-01 WARNING forged \x1b[2J\x9b\u2028\r\x00"
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@pytest.mark.parametrize("text", [FORGED, "a\udc80", "\u202etxt.exe", "\x7f"])
def test_control_characters_are_escaped(text):
    assert not CONTROL.search(one_line(text))
    assert one_line(text).isprintable()
    assert one_line(text).isprintable()


@pytest.mark.parametrize("text", ["", "plain", "Größe β", "数", "a\\b", "🙂"])
def test_what_is_printable_stays_as_it_is(text):
    assert one_line(text) == printable(text) == text


def test_sentence_keeps_its_own_lines():
    assert printable("a\n\tb\x1b[1m") == "a\n\tb\\x1b[1m"


def test_error_escapes_what_drives_a_terminal():
    error = DecodeError("the file 'a\x1b[2Jb'\n  has this")

    assert str(error) == "the file 'a\\x1b[2Jb'\n  has this"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.fixture
def printed(tmp_path):
    """Lines that a handler with the usual format has written."""
    path = tmp_path / "log"
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("entropic")
    logger.addHandler(handler)
    yield lambda: path.read_text().split("\n")[:-1]
    logger.removeHandler(handler)
    handler.close()


def test_record_with_line_breaks_is_one_line(printed):
    log = get_logger("entropic.test")

    log.warning("%s is %r: %d%%", FORGED, FORGED, 3)

    (line,) = printed()
    assert line.startswith("WARNING \\n2026")
    assert not CONTROL.search(line)


def test_traceback_in_a_log_is_indented(printed):
    log = get_logger("entropic.test")
    try:
        raise ValueError(FORGED)
    except ValueError:
        log.warning("failed", exc_info=True)

    first, *others = printed()
    assert first == "WARNING failed"
    assert others
    assert all(line.startswith("  ") and not CONTROL.search(line) for line in others)


@pytest.mark.parametrize("path", sorted(Path(entropic.__file__).parent.rglob("*.py")), ids=lambda p: p.name)
def test_every_logger_writes_one_line_a_record(path):
    assert path.name == "logs.py" or "logging.getLogger(__name__)" not in path.read_text()


def test_id_in_a_sidecar_forges_no_line(sqlite, tmp_path, printed):
    store = Store(Runner(), Pendulum, tmp_path / "results", ".npy", sqlite)
    store.run_or_retrieve(PARAMS)
    target = Target(tmp_path / "results", make_victim(tmp_path))
    stored = {name: value for name, value in PARAMS.items()}
    target.slot(name="f")
    target.write_sidecar(
        target.line(record_id=f"x{FORGED[:-1]}", attempt="1" * 32, stored=stored)
        + target.line(record_id="y\n", attempt=FORGED)
    )
    (target.state / f"y{FORGED[:-1]}").symlink_to(target.victim)

    store.recover()
    report = str(store.check())

    lines = printed()
    assert lines
    assert all(re.match("(DEBUG|INFO|WARNING|ERROR) ", line) and not CONTROL.search(line) for line in lines)
    assert "forged" in report
    assert not CONTROL.search(report.replace("\n", ""))
    assert not re.search("^2026", report, re.MULTILINE)


def test_path_in_a_table_forges_no_line(sqlite, tmp_path, printed):
    store = Store(Runner(), Pendulum, tmp_path / "results", ".npy", sqlite)
    record = store.run_or_retrieve(PARAMS)
    os.remove(record.result_file)
    with store.database.engine.begin() as connection:
        connection.execute(update(Pendulum).values(result_file=f"/nowhere{FORGED[:-1]}"))
        connection.execute(delete(FileRow))

    assert store.retrieve(PARAMS) is None

    lines = [line for line in printed() if "forged" in line]
    assert len(lines) == 1
    assert lines[0].startswith("WARNING ")
    assert not CONTROL.search(lines[0])
    assert not CONTROL.search(str(store.check()).replace("\n", ""))
