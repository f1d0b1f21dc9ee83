"""With what code a process runs: a digest of the runner's source, and the git commit."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import subprocess
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropic.process.forked_locks import ForkedLock

__all__ = ["CodeState", "code_label", "git_state", "source_folder"]

GIT_TIMEOUT_S = 5.0


_parsing = ForkedLock()  # CPython 3.11 fails now and then where two threads make trees at once


def code_label(function: Callable[..., Any]) -> str | None:
    """Return a digest of a function's source, or None where it cannot be read.

    Comments, docstrings and formatting do not count: the digest is of the abstract syntax tree, with annotations as
    they are written. What the function calls does not count either. Nor do the decorators, if *function* says so
    by an attribute ``is_undecorated``: it is then what they were given.
    """
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    target = inspect.unwrap(target)
    if not inspect.isroutine(target) and not inspect.isclass(target):
        target = type(target)
    try:
        with _parsing.held():  # getsource() of a class makes a tree as well
            tree = ast.parse(textwrap.dedent(inspect.getsource(target)))
    except (OSError, TypeError, SyntaxError):
        return None
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    if getattr(function, "is_undecorated", False) and isinstance(tree.body[0], ast.FunctionDef):
        tree.body[0].decorator_list = []
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def source_folder(function: Callable[..., Any]) -> str:
    """Return the folder of the file that defines *function*; the working directory where there is no such file."""
    try:
        return str(Path(inspect.getsourcefile(inspect.unwrap(function)) or ".").resolve().parent)
    except TypeError:
        return "."


@functools.lru_cache(maxsize=8)
def git_state(folder: str) -> tuple[str | None, bool | None]:
    """Return the commit that is checked out in *folder* and whether there are changes to it; Nones outside git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit.strip(), bool(_git(folder, "status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(folder: str, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=GIT_TIMEOUT_S
    ).stdout


@dataclass(frozen=True, slots=True)
class CodeState:
    """With what code a store runs: digest of the runner's source, and git's word, each None if unknown."""

    label: str | None
    commit: str | None = None
    is_dirty: bool | None = None
