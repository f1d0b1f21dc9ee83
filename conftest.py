"""Run the Python blocks of README.md and docs/ as tests, each page in a folder of its own."""

import doctest
import gc
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser


def in_a_fresh_folder(namespace: dict[str, Any]) -> None:
    """Leave the checkout, since the examples write databases and results where they run."""
    namespace["__name__"] = "__main__"  # what a page defines pickles as if typed into a notebook
    namespace["former_folder"] = os.getcwd()
    namespace["folder"] = tempfile.TemporaryDirectory(prefix="entropic-docs-")
    os.chdir(namespace["folder"].name)


def back(namespace: dict[str, Any]) -> None:
    """Return, and remove what the examples wrote."""
    os.chdir(namespace["former_folder"])
    namespace["folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    setup=in_a_fresh_folder,
    teardown=back,
).pytest()


@pytest.fixture(autouse=True)
def no_class_is_collected_in_a_doctest(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep models of former tests: where one goes while a doctest looks through linecache, that is a KeyError."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    gc.disable()
    yield
    gc.enable()
