"""A class in `__main__` is of the script that defines it, whatever the process runs that is asked."""

import sys
import threading
from types import ModuleType

import cloudpickle
import pytest

from entropic.process import scripts
from entropic.process.scripts import module_of, name_of_main, sent_by


@pytest.fixture(autouse=True)
def main(monkeypatch):
    """The main module of a process that runs a script, and was sent nothing."""
    made = ModuleType("__main__")
    made.__file__ = "/lab/worker.py"
    monkeypatch.setattr(scripts, "_senders", set())
    monkeypatch.setitem(sys.modules, "__main__", made)
    monkeypatch.delitem(sys.modules, "__mp_main__", raising=False)
    return made


def defined(name="C", module="__main__"):
    return type(name, (), {"__module__": module})


def sent(name="C"):
    """A class as cloudpickle makes it of one of another process."""
    kind = defined(name)
    cloudpickle.dumps(kind)
    return kind


def test_class_of_a_module_or_of_the_script_is_of_that(main):
    assert module_of(threading.Thread) == "threading"
    main.C = defined()
    with sent_by("experiment"):
        assert module_of(main.C) == "worker"
    assert module_of(defined("Unbound")) == "worker"
    assert name_of_main() == "worker"


def test_notebook_has_no_name(main):
    del main.__file__

    assert module_of(defined()) == module_of(sent()) == name_of_main() == "__main__"


def test_class_that_comes_with_a_chunk_is_of_the_script_that_sent_it(main):
    main.C = defined()
    with sent_by("experiment"):
        assert module_of(sent()) == name_of_main() == "experiment"
        with sent_by("other"):
            assert module_of(sent()) == "other"
    assert name_of_main() == "worker"


def test_thread_of_a_run_knows_the_sender_as_long_as_there_was_one():
    told = []

    def tell():
        try:
            told.append(module_of(sent()))
        except TypeError as error:
            told.append(str(error))

    for name in ("experiment", "other"):
        with sent_by(name):
            thread = threading.Thread(target=tell)
            thread.start()
            thread.join()

    assert told[0] == "experiment"
    assert (
        "nobody can tell in this process which script or notebook the class C is of: give it a full_type"
        in told[1]
    )


def test_class_that_was_sent_otherwise_is_told_by_its_file_or_not_at_all(tmp_path):
    with pytest.raises(TypeError, match="which script or notebook the class C is of"):
        module_of(sent())
    script = tmp_path / "experiment.py"
    script.write_text("class C:\n    def method(self):\n        pass\n")
    names = {"__name__": "__main__"}
    exec(compile(script.read_text(), str(script), "exec"), names)

    assert module_of(names["C"]) == "experiment"
