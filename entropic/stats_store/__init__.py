"""Where the statistics of trainings are kept: by the name of the run, and appended to."""

from entropic.stats_store.hdf5 import FileStatsStore
from entropic.stats_store.interface import BestScore, StatsStore
from entropic.stats_store.sql import SQLStatsStore

__all__ = ["BestScore", "FileStatsStore", "SQLStatsStore", "StatsStore"]
