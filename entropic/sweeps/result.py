"""What a sweep is asked for, and what comes back of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from entropic.diagnosis.history import FailedRun
from entropic.display.frames import frame_of
from entropic.display.text import Listing
from entropic.model.base import Base
from entropic.process.patience import Patience
from entropic.sweeps.grids import ParameterSets, parameter_sets

if TYPE_CHECKING:
    import pandas

__all__ = ["SweepOptions", "SweepResult"]

ModelT = TypeVar("ModelT", bound=Base)


class SweepResult(Listing[ModelT]):
    """The records of a sweep, in input order, one per distinct key.

    Attributes
    ----------
    failed : list of FailedRun
        One for each key whose run failed, in input order.
    """

    def __init__(
        self,
        records: Mapping[str, ModelT],
        failed: Sequence[FailedRun],
        *,
        key_of: Callable[[Mapping[str, Any]], str],
        parameters: Sequence[str],
        names: Callable[[bool | None], Sequence[str]],
    ) -> None:
        super().__init__(records.values())
        self.failed: list[FailedRun] = Listing(failed)
        self._by_key = records
        self._key_of = key_of
        self._parameters = parameters
        self._names = names

    def align(self, params: ParameterSets) -> list[ModelT | None]:
        """Return one entry for each of *params*: its record, or None where the run failed or was not part of this.

        They are given as to the sweep: dicts, a grid, a frame, or values of the only parameter.
        """
        return [self._by_key.get(self._key_of(one)) for one in parameter_sets(params, self._parameters)]

    def to_frame(self, bookkeeping: bool | None = None) -> pandas.DataFrame:
        """Return the records as a `pandas.DataFrame`: a row each, a column per attribute.

        Parameters
        ----------
        bookkeeping : bool, optional
            As for `Store.to_frame`.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return frame_of(self, self._names(bookkeeping))


@dataclass(frozen=True)
class SweepOptions:
    """Where a sweep runs and what it does about failures."""

    patience: Patience
    client: Any = None
    workers: int | None = None
    executor: Executor | None = None
    on_error: str = "raise"
    fallback: str = "serial"
    progress: bool | None = None
    missing: str = "raise"
    retries: int = 0
    threads_per_run: int = 1

    def __post_init__(self) -> None:
        given = [f"{name}=" for name in ("client", "workers", "executor") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} exclude each other: give one, or none to run in this process"
            )
        if self.client is not None:
            _require_client(self.client)
        if self.executor is not None:
            _require_executor(self.executor)
        for name in ("workers", "threads_per_run"):
            number = getattr(self, name)
            number = 1 if number is None and name == "workers" else number
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be an int of at least 1, not {number!r}")
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise ValueError(f"retries must be an int of at least 0, not {self.retries!r}")
        for name, allowed in (
            ("on_error", ("raise", "continue")),
            ("fallback", ("serial", "raise")),
            ("missing", ("raise", "rerun")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")


def _require_client(client: Any) -> None:
    if hasattr(client, "nthreads") and not isinstance(client, type):
        return
    given, way = repr(client), "connect one, as in distributed.Client(...)"
    if isinstance(client, int | float):
        way = f"for that many processes say workers={client!r}"
    elif isinstance(client, str):
        way = f"connect one, as in distributed.Client({client!r})"
    elif isinstance(client, type):
        given = f"the class {client.__name__}"
    elif isinstance(client, Executor):
        given, way = f"a {type(client).__name__}", "give an executor as executor="
    elif hasattr(client, "scheduler_address"):
        given, way = f"a {type(client).__name__}", "give that one's client, cluster.get_client()"
    raise TypeError(f"the second argument of a sweep is a Dask client, not {given}: {way}")


def _require_executor(executor: Any) -> None:
    is_client = hasattr(executor, "nthreads")
    if callable(getattr(executor, "submit", None)) and not isinstance(executor, type) and not is_client:
        return
    given, way = f"a {type(executor).__name__}", "make one, as in ProcessPoolExecutor(4); or say workers=4"
    if isinstance(executor, type):
        given, way = f"the class {executor.__name__}", f"make one, as in {executor.__name__}(4)"
    elif is_client:
        given, way = "a Dask client", "give it as client="
    raise TypeError(f"executor= is an executor, as concurrent.futures has them, not {given}: {way}")
