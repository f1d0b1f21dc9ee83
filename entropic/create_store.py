"""The stores that the options name, and what concerns all of them: where a run goes on, and that it goes as a whole."""

from __future__ import annotations

from contextlib import AbstractContextManager

from entropic.array_store import LocalArrayStore
from entropic.config_store import ConfigStore, FileConfigStore, SQLConfigStore
from entropic.errors import ConfigNotFoundError, InUseError
from entropic.leases.trainings import TrainingClaim, claim_training
from entropic.options import Options
from entropic.sql.database import Database
from entropic.stats_store import FileStatsStore, SQLStatsStore, StatsStore
from entropic.weights_store import LocalWeightsStore

__all__ = [
    "claim_run",
    "create_array_store",
    "create_config_store",
    "create_stats_store",
    "create_weights_store",
    "delete_run",
    "resume_point",
]


def create_config_store(options: Options | None = None) -> ConfigStore:
    """Return the store of configs: rows in ``db_url``, or files in ``runs_base_dir/configs``.

    Parameters
    ----------
    options : Options, optional
        Default: read now, from the environment and the files.

    Raises
    ------
    ValueError
        If an option is unknown or has no such value, or the database is one in memory.
    """
    options = options or Options()
    if options.type == "files":
        return FileConfigStore(options.runs_base_dir / "configs")
    return SQLConfigStore(_database(options))


def create_stats_store(options: Options | None = None) -> StatsStore:
    """Return the store of statistics: rows in ``db_url``, or files in ``runs_base_dir/stats``.

    Parameters and errors as of `create_config_store`.
    """
    options = options or Options()
    if options.type == "files":
        return FileStatsStore(options.runs_base_dir / "stats")
    return SQLStatsStore(_database(options))


def create_weights_store(options: Options | None = None) -> LocalWeightsStore:
    """Return the store of weights: files in ``runs_base_dir``, with rows in ``db_url`` or in a file beside them.

    Parameters and errors as of `create_config_store`.
    """
    options = options or Options()
    return LocalWeightsStore(options.runs_base_dir, None if options.type == "files" else _database(options))


def create_array_store(options: Options | None = None) -> LocalArrayStore:
    """Return the store of arrays, in ``runs_base_dir``. Parameters and errors as of `create_config_store`."""
    return LocalArrayStore((options or Options()).runs_base_dir)


def claim_run(
    run_name: str, options: Options | None = None, *, wait_timeout_s: float | None = 0.0
) -> AbstractContextManager[TrainingClaim]:
    """Train a run in a ``with`` block, and let nobody else do so.

    Parameters
    ----------
    options : Options, optional
        As of `create_config_store`; its `lease_s` is that of the claim.
    wait_timeout_s : float or None
        How long to wait for another trainer; None for as long as it takes.

    Returns
    -------
    context manager
        Gives a `TrainingClaim`, whose `require()` inside a checkpoint's transaction says whether the run is still ours.

    Raises
    ------
    ClaimTimeoutError
        On entering, if another process trains the run.
    """
    options = options or Options()
    return claim_training(
        _database(options), run_name, lease_s=options.lease_s, wait_timeout_s=wait_timeout_s
    )


def resume_point(run_name: str, options: Options | None = None) -> int:
    """Return how many iterations of a run need not be trained again: of these there are statistics and weights.

    Parameters
    ----------
    options : Options, optional
        As of `create_config_store`.

    Returns
    -------
    int
        0 if the training begins anew. Else there are weights of this iteration, and losses up to it.

    Notes
    -----
    Where weights were not stored in one transaction with the statistics, these may reach further. A training that
    passes them before it is stored again is appended to them, and losses of the former attempt stay in between: store
    first what is kept, ``losses.delete_after(resume_point(run))``, which replaces them; of 0 iterations there is
    nothing to keep, and `delete_training_stats` does that.
    """
    options = options or Options()
    # A subsample has the last iteration, which is all that counts of what may be a million.
    trained = create_stats_store(options).retrieve_training_stats(run_name, subsample=True).trained_until()
    return max(
        (one for one in create_weights_store(options).iterations(run_name) if one <= trained), default=0
    )


def delete_run(
    run_name: str,
    options: Options | None = None,
    *,
    configs: ConfigStore | None = None,
    stats: StatsStore | None = None,
    weights: LocalWeightsStore | None = None,
    arrays: LocalArrayStore | None = None,
    force: bool = False,
) -> None:
    """Delete all that there is of a run: its config, statistics, weights and arrays. Its parts stay.

    Parameters
    ----------
    options : Options, optional
        As of `create_config_store`.
    configs, stats, weights, arrays : optional
        Stores that have it. Default: each as the options say.
    force : bool
        Whether to delete it even if another run starts from its weights.

    Raises
    ------
    InUseError
        If another run starts from its weights, unless *force*; the text names the runs. Nothing was deleted.
    ClaimTimeoutError
        If it is being trained. Nothing was deleted.
    ConfigNotFoundError
        If no store has anything of it.

    Notes
    -----
    With rows, those of all stores on one database go in one transaction, and files after it; arrays of a delete that
    was killed go with the next one. With files nothing holds them together: the config goes last, so that what is left
    can be deleted again.
    """
    options = options or Options()
    configs = create_config_store(options) if configs is None else configs
    stats = create_stats_store(options) if stats is None else stats
    weights = create_weights_store(options) if weights is None else weights
    arrays = create_array_store(options) if arrays is None else arrays
    if not force:
        _refuse_in_use(configs, run_name)
    database: Database = next(one.database for one in (configs, stats, weights) if hasattr(one, "database"))
    with claim_training(database, run_name, lease_s=options.lease_s, wait_timeout_s=0.0):

        def work() -> int:
            count = stats.delete_training_stats(run_name) + stats.delete_validation_scores(run_name)
            count += stats.delete_metrics(run_name)
            count += weights.remove_run(run_name)
            count += run_name in configs.retrieve_run_config_names()
            configs.delete_run_config(run_name, missing_ok=True)
            return count

        count = database.atomically(work)
        count += arrays.remove_run(run_name) + weights.remove_exported(run_name)
    if not count:
        raise ConfigNotFoundError(
            f"there is nothing of a run {run_name!r} in {configs}, nor in {weights.basedir}"
        )


def _database(options: Options) -> Database:
    if options.type == "files":
        return create_weights_store(options).database
    database = Database(options.db_url)
    if database.is_memory:  # what one store writes no other would find
        raise ValueError(
            f"the option db_url is {options.db_url!r}, a database in memory, of which each store would have one of its "
            "own: name a file, or make the stores yourself and give all of them one Database"
        )
    return database


def _refuse_in_use(configs: ConfigStore, run_name: str) -> None:
    starting = configs.runs_that_start_from(run_name)
    if starting:
        more = f" and {len(starting) - 10} more" if len(starting) > 10 else ""
        raise InUseError(
            f"the weights of the run {run_name!r} are what the runs {', '.join(map(repr, starting[:10]))}{more} start "
            "from. Nothing was deleted: delete those first, or say force=True"
        )
