"""The bar of a sweep, drawn by tqdm: what is done, cached, failed and waiting, and the rate of the runs."""

from __future__ import annotations

import sys
import warnings
from types import TracebackType
from typing import Any, Self

__all__ = ["ProgressBar", "progress_bar"]

_REDRAW_S = 0.1


def progress_bar(total: int | None, enabled: bool | None = None) -> ProgressBar:
    """Return a bar for *total* parameter sets, to be used in a `with` statement.

    Parameters
    ----------
    total
        None if it is not known.
    enabled
        None draws it in a terminal and in a notebook, and nowhere else.
    """
    if enabled is None:
        enabled = _is_terminal() or _is_notebook()
    return ProgressBar(_make_bar(total) if enabled else None)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False  # there is none, as of a daemon; or it was closed, or is a program's own


def _is_notebook() -> bool:
    # Asked without importing it: outside IPython nobody has.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _make_bar(total: int | None) -> Any:
    with warnings.catch_warnings():
        # Without ipywidgets tqdm warns and draws a text bar, which is what a reader of the notebook wants to see.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        return tqdm(total=total, mininterval=_REDRAW_S, unit="run", dynamic_ncols=True, leave=True)


class ProgressBar:
    """Counts what a sweep has done, and shows it if there is a bar to show it on.

    Attributes
    ----------
    done, cached, failed : int
        Parameter sets that were run, found and failed so far.
    waiting : int
        Parameter sets that others are running just now.
    """

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar
        self.done = self.cached = self.failed = self.waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._describe()
            self._bar.refresh()
            self._bar.close()

    def add(self, *, done: int = 0, cached: int = 0, failed: int = 0) -> None:
        """Count parameter sets that have come to their end."""
        self.done += done
        self.cached += cached
        self.failed += failed
        if self._bar is None:
            return
        # What was found counts as progress but not for the rate, which says how long the runs will take.
        self._bar.initial += cached
        self._bar.last_print_n += cached
        self._bar.n += cached
        self._describe()
        self._bar.update(done + failed)

    def wait_for(self, waiting: int) -> None:
        """Say how many parameter sets others are running just now."""
        self.waiting = waiting
        if self._bar is not None:
            self._describe()
            self._bar.update(0)

    def _describe(self) -> None:
        counts = {"done": self.done, "cached": self.cached, "failed": self.failed, "waiting": self.waiting}
        shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        self._bar.set_postfix_str(shown, refresh=False)
