"""Where the weights of trainings are kept: a file for each, and a row that makes it visible."""

from entropic.weights_store.interface import Weights, WeightsStore
from entropic.weights_store.local import LocalWeightsStore

__all__ = ["LocalWeightsStore", "Weights", "WeightsStore"]
