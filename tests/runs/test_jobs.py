"""What a receipt and a failure say: which lines are sound, where a result lies, and whose error it is."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from entropic.disk.files import digest_of
from entropic.disk.staged import Staged
from entropic.runs.jobs import Failure, Receipt
from tests.support.hostile import LINE


def receipt(content: Path | None = None, **fields) -> Receipt:
    made = Receipt.from_line(
        {**LINE, "record_id": "k", "attempt": "0123456789abcdef" * 2, "name": "k.txt", **fields}
    )
    if content is None:
        return made
    return Receipt(
        **{
            **{name: getattr(made, name) for name in made.__slots__},
            "staged": Staged("k.txt", *digest_of(content)),
        }
    )


@pytest.mark.parametrize("field", ["owner", "host", "worker", "batch_job"])
def test_text_of_a_line_is_as_long_as_its_column_at_most(field):
    longest = 32 if field == "owner" else 255

    assert receipt(where={field: "x" * longest}).where == {field: "x" * longest}
    with pytest.raises(TypeError, match="'where'"):
        receipt(where={field: "x" * (longest + 1)})


def test_document_is_as_deep_as_others_can_go_through():
    def nested(depth: int) -> dict[str, object]:
        document: dict[str, object] = {"n": 1}
        for level in range(depth - 1):
            document = {"a": [document]} if level == 7 else {"a": document}
        return document

    assert receipt(stored=nested(255)).stored == nested(255)
    with pytest.raises(TypeError, match="'stored'"):
        receipt(stored=nested(256))


def test_line_of_before_has_no_documents_of_what_was_returned():
    assert "spelled" not in LINE
    assert receipt().spelled == {}
    assert receipt(spelled={"a": {"__entropic__": "bytes", "value": "eA=="}}).spelled.keys() == {"a"}
    for wrong in ([], {"a": 5}, {"a": {}}, {"a": {"__entropic__": None}}, {"a": None}):
        with pytest.raises(TypeError, match="'spelled'"):
            receipt(spelled=wrong)


@pytest.mark.parametrize(
    ("fields", "final", "other"),
    [
        ({}, "k.txt", "k-01234567.txt"),
        ({"name": "written.npy"}, "k.npy", "k-01234567.npy"),
        ({"name": "k"}, "k", "k-01234567"),
        ({"name": "k", "is_folder": True}, "k-01234567", "k-01234567"),
    ],
)
def test_name_of_a_result_begins_with_its_key_and_a_folders_has_its_attempt(fields, final, other):
    assert (receipt(**fields).final_name, receipt(**fields).other_name) == (final, other)


def test_result_is_known_by_its_bytes_under_either_name(tmp_path):
    (tmp_path / "staged").write_text("result")
    made = receipt(tmp_path / "staged")
    nowhere = made.placed(tmp_path)
    (tmp_path / "k.txt").write_text("another's")
    (tmp_path / "k-01234567.txt").write_text("result")
    beside = made.placed(tmp_path)
    (tmp_path / "k.txt").write_text("result")

    assert (nowhere, beside, made.placed(tmp_path)) == (None, "k-01234567.txt", "k.txt")


@pytest.mark.parametrize("place", ["gone", "file/below", "circle", "fifo", "other", "empty"])
def test_result_is_not_where_no_run_can_have_written_it(tmp_path, place):
    (tmp_path / "file").write_text("result")
    (tmp_path / "other").write_text("Result")
    (tmp_path / "empty").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "fifo")
    made = receipt(tmp_path / "file")

    assert made.is_at(tmp_path / "file")
    assert not made.is_at(tmp_path / place)


def test_disk_that_fails_does_not_make_a_finished_run_one_that_never_was(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("result")
    made = receipt(tmp_path / "file")

    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "open", fail)

    with pytest.raises(OSError, match="Input/output error"):
        made.is_at(tmp_path / "file")


def failure(error: BaseException | None) -> Failure:
    return Failure(
        "k", "a", {}, "ValueError", "no", "Traceback", 0.0, 0.0, {"host": "node7", "pid": 42}, error
    )


def test_error_that_has_travelled_says_where_it_was_raised_and_is_the_same_each_time():
    arrived = pickle.loads(pickle.dumps(failure(ValueError("no"))))

    error = arrived.error()

    assert arrived.error() is error
    assert error.args == ("no",)
    assert error.__notes__ == ["Raised on node7, process 42:\nTraceback"]


def test_error_of_this_process_is_itself_and_one_that_is_unknown_is_told_of():
    own = ValueError("no")

    assert failure(own).error() is own
    assert not hasattr(own, "__notes__")
    assert repr(failure(None).error()) == "RuntimeError('ValueError: no')"
