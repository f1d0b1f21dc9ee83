"""What every store of weights does, and what weights are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from entropic.values.state_dicts import StatesFile

__all__ = ["Weights", "WeightsStore"]


class Weights:
    """The state dicts of a model and its optimiser.

    Parameters
    ----------
    model_state_dict, optimizer_state_dict : mapping
        Arrays, tensors and scalars, nested in dicts, lists and tuples.

    Attributes
    ----------
    model, optimizer : mapping
        The same.

    Notes
    -----
    Weights that were retrieved with *lazy* have a file open: `close` it, or use them in a ``with`` statement.
    """

    def __init__(self, model_state_dict: Any, optimizer_state_dict: Any = None) -> None:
        self.model = model_state_dict
        self.optimizer = optimizer_state_dict
        self._file: StatesFile | None = None

    def close(self) -> None:
        """Close the file of weights that were retrieved with *lazy*: what was not read by then cannot be."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class WeightsStore(ABC):
    """Keeps the weights of runs by iteration, and which of them were the best.

    Notes
    -----
    A run or data set is given by its name, or as an object that has a `name`.
    """

    @abstractmethod
    def latest_iteration(self, run: Any) -> int | None:
        """Return the highest iteration of a run of which there are weights; None if there are none."""

    @abstractmethod
    def store_weights(self, run: Any, iteration: int, weights: Any = None) -> None:
        """Store the weights of a run: *weights*, or those that *run* has now."""

    @abstractmethod
    def retrieve_weights(self, run: Any, iteration: int) -> Weights:
        """Return the weights of a run, or raise `WeightsNotFoundError`."""

    @abstractmethod
    def remove(self, run: Any, iteration: int) -> None:
        """Remove the weights of a run, or raise `WeightsNotFoundError`."""

    @abstractmethod
    def store_best(self, run: Any, iteration: int, dataset: Any, criterion: str) -> bool:
        """Note that weights are the best on a data set by a criterion, or raise `WeightsNotFoundError`."""

    @abstractmethod
    def retrieve_best(self, run: Any, dataset: Any, criterion: str) -> int:
        """Return the iteration of the best weights, or raise `BestNotFoundError`."""

    def load_weights(self, run: Any, iteration: int) -> None:
        """Put stored weights into the model and the optimiser of *run*, by their ``load_state_dict``.

        Raises
        ------
        WeightsNotFoundError
            If there are none.
        """
        weights = self.retrieve_weights(run, iteration)
        run.model.load_state_dict(weights.model)
        if weights.optimizer is not None:
            run.optimizer.load_state_dict(weights.optimizer)

    def load_best(self, run: Any, dataset: Any, criterion: str) -> None:
        """Put the best weights into the model and the optimiser of *run*.

        Raises
        ------
        BestNotFoundError
            If nobody has said which are the best.
        """
        self.load_weights(run, self.retrieve_best(run, dataset, criterion))
