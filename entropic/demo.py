"""The demo: a predator-prey model fitted to a real record, by a few hundred runs through a `Store`.

The record is the Hudson's Bay Company's pelts of snowshoe hare and Canadian lynx, 1900-1920. The model is
that of Lotka and Volterra, with hares *h* and lynx *l* in thousands of pelts and time in years::

    dh/dt = alpha h - beta h l        dl/dt = -gamma l + delta h l

Over a full cycle the averages of *h* and *l* are the equilibrium (gamma/delta, alpha/beta). The record spans
two cycles, so its averages give beta and delta, and the sweep only has to cover the plane of alpha and gamma.

`LynxHareFit` and `fit_lynx_hare` stand at module level because workers import them from here.
"""

from __future__ import annotations

import csv
import math
import signal
import time
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import resources
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import URL
from sqlalchemy.orm import Mapped

from entropic.errors import ClusterError
from entropic.model.base import Base, output, param
from entropic.sql.urls import parse_url, shown
from entropic.store import Store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

__all__ = [
    "LynxHareFit",
    "Pelts",
    "add_arguments",
    "draw",
    "fit_lynx_hare",
    "grid",
    "main",
    "read_record",
    "run_demo",
    "simulate",
]

ALPHAS = tuple(round(0.36 + 0.01 * i, 2) for i in range(25))
GAMMAS = tuple(round(0.70 + 0.03 * i, 2) for i in range(20))

# The start is that of a free fit, rounded: taking the first year's own 30.0 hares would trust it above the others.
DEFAULTS = {"hare0": 35.0, "lynx0": 4.0, "substeps": 20}

SAVED_PER_YEAR = 24

PELTS, RATE, RATE_PER_PELTS = "thousand pelts", "1/year", "1/(year * thousand pelts)"
UNITS = {"alpha": RATE, "beta": RATE_PER_PELTS, "gamma": RATE, "delta": RATE_PER_PELTS}
START_UNITS = {"hare0": PELTS, "lynx0": PELTS}

# Okabe and Ito's blue and vermilion: told apart by any eye.
COLOURS = {"hare": "#0072B2", "lynx": "#D55E00"}

BEST_FITS_SQL = (
    "SELECT alpha, beta, gamma, delta, rmse, result_file\n"
    "FROM lynx_hare_fits WHERE rmse IS NOT NULL ORDER BY rmse LIMIT 5;"
)

OUT_HELP = "folder for results and picture (default: ./entropic-demo)"


class LynxHareFit(Base):
    """One set of Lotka-Volterra parameters and how far it is from the record."""

    __tablename__ = "lynx_hare_fits"

    alpha: Mapped[float] = param(comment=f"growth of the hares, {RATE}")
    beta: Mapped[float] = param(comment=f"hares lost to lynx, {RATE_PER_PELTS}")
    gamma: Mapped[float] = param(comment=f"death of the lynx, {RATE}")
    delta: Mapped[float] = param(comment=f"growth of the lynx on hares, {RATE_PER_PELTS}")
    hare0: Mapped[float] = param(default=DEFAULTS["hare0"], comment=f"hares in the first year, {PELTS}")
    lynx0: Mapped[float] = param(default=DEFAULTS["lynx0"], comment=f"lynx in the first year, {PELTS}")
    substeps: Mapped[int] = param(default=DEFAULTS["substeps"], comment=f"steps per 1/{SAVED_PER_YEAR} year")
    rmse: Mapped[float | None] = output(comment=f"root mean square error of both species, {PELTS}")


class Pelts(NamedTuple):
    """Hares and lynx over the years, in thousands of pelts: the record's or a model's."""

    year: tuple[float, ...]
    hare: tuple[float, ...]
    lynx: tuple[float, ...]


@cache
def read_record() -> Pelts:
    """Return the record that comes with the package, one figure a year."""
    path = resources.files("entropic") / "data" / "hudson_bay_lynx_hare.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    return Pelts(*(tuple(float(row[name]) for row in rows) for name in Pelts._fields))


def grid() -> list[dict[str, float]]:
    """Return the demo's parameter sets: each alpha with each gamma; beta and delta follow from the record."""
    record = read_record()
    hare_mean, lynx_mean = mean(record.hare), mean(record.lynx)

    def at(alpha: float, gamma: float) -> dict[str, float]:
        beta, delta = round(alpha / lynx_mean, 6), round(gamma / hare_mean, 6)
        return {"alpha": alpha, "beta": beta, "gamma": gamma, "delta": delta}

    return [at(alpha, gamma) for alpha in ALPHAS for gamma in GAMMAS]


def simulate(params: Mapping[str, Any]) -> Pelts:
    """Integrate the model over the years of the record, by the classical Runge-Kutta method.

    Parameters
    ----------
    params : mapping
        The parameters of `LynxHareFit`; those with a default may be left out.

    Returns
    -------
    Pelts
        `SAVED_PER_YEAR` points a year, both ends included.
    """
    values = {**DEFAULTS, **params}
    alpha, beta, gamma, delta = (values[name] for name in UNITS)
    substeps = values["substeps"]
    years = read_record().year
    n_saved = round((years[-1] - years[0]) * SAVED_PER_YEAR)
    step = 1.0 / (SAVED_PER_YEAR * substeps)

    def slope(hare: float, lynx: float) -> tuple[float, float]:
        return (alpha - beta * lynx) * hare, (delta * hare - gamma) * lynx

    hare, lynx = values["hare0"], values["lynx0"]
    hares, lynxes = [hare], [lynx]
    for _ in range(n_saved):
        for _ in range(substeps):
            h1, l1 = slope(hare, lynx)
            h2, l2 = slope(hare + step / 2 * h1, lynx + step / 2 * l1)
            h3, l3 = slope(hare + step / 2 * h2, lynx + step / 2 * l2)
            h4, l4 = slope(hare + step * h3, lynx + step * l3)
            hare += step / 6 * (h1 + 2 * h2 + 2 * h3 + h4)
            lynx += step / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
        hares.append(hare)
        lynxes.append(lynx)
    times = (years[0] + i / SAVED_PER_YEAR for i in range(n_saved + 1))
    return Pelts(tuple(times), tuple(hares), tuple(lynxes))


def fit_lynx_hare(params: dict[str, Any]) -> dict[str, float]:
    """Simulate one parameter set, write it as HDF5 and return its error: the demo's runner.

    Parameters
    ----------
    params : dict
        The parameters of `LynxHareFit`, and where to write, ``result_file``.

    Returns
    -------
    dict
        ``rmse``: root mean square difference from the record over both species and all years, in thousands of
        pelts.
    """
    import h5py

    values = {**DEFAULTS, **params}
    record, model = read_record(), simulate(values)
    differences = [
        computed - recorded
        for computed_all, recorded_all in ((model.hare, record.hare), (model.lynx, record.lynx))
        for computed, recorded in zip(computed_all[::SAVED_PER_YEAR], recorded_all, strict=True)
    ]
    rmse = math.hypot(*differences) / math.sqrt(len(differences))
    with h5py.File(params["result_file"], "w") as file:
        for name, unit in (("year", "year"), ("hare", PELTS), ("lynx", PELTS)):
            file[name] = getattr(model, name)
            file[name].attrs["units"] = unit
        file.attrs["title"] = "Lotka-Volterra model of the Hudson's Bay Company's hare and lynx pelts"
        for name, unit in {**UNITS, **START_UNITS}.items():
            file.attrs[name] = values[name]
            file.attrs[f"{name}_units"] = unit
        file.attrs["substeps"] = values["substeps"]
        file.attrs["rmse"] = rmse
        file.attrs["rmse_units"] = PELTS
    return {"rmse": rmse}


def run_demo(out: Path, db_url: str | None, serial: bool) -> Path:
    """Run the demo and say what it does.

    Parameters
    ----------
    out : Path
        Folder for the results, the picture and, unless *db_url* is given, the database; made if absent.
        What an earlier demo left there is used.
    db_url : str or None
        Database instead of a SQLite file in *out*.
    serial : bool
        Run in this process instead of on a local Dask cluster.

    Returns
    -------
    Path
        *out*, absolute.
    """
    out = out.expanduser().resolve()
    out.mkdir(parents=True, exist_ok=True)
    url = parse_url(db_url) if db_url else URL.create("sqlite", database=str(out / "lynx_hare.sqlite3"))
    store = Store(fit_lynx_hare, LynxHareFit, results_dir=out / "results", db_url=url)
    record = read_record()
    print(
        "A Lotka-Volterra model of hare and lynx, fitted to the Hudson's Bay Company's pelts, "
        f"{record.year[0]:.0f}-{record.year[-1]:.0f}"
    )
    fits = _sweep_twice(store, serial=serial)
    best = _show_best(store)
    picture = _show_picture(fits, best, out / "lynx_hare.png")
    _show_places(store, picture)
    return out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options to *parser*."""
    parser.add_argument("--serial", action="store_true", help="run in this process, without Dask")
    parser.add_argument("--db-url", metavar="URL", help="SQLAlchemy URL (default: a SQLite file in DIR)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("entropic-demo"), help=OUT_HELP)


def main(args: argparse.Namespace) -> int:
    """Run the demo as the command line asks and return the exit status."""
    run_demo(args.out, args.db_url, args.serial)
    return 0


def _sweep_twice(store: Store[LynxHareFit], *, serial: bool) -> Sequence[LynxHareFit]:
    place = "in this process" if serial else "on a local Dask cluster"
    n_sets = len(ALPHAS) * len(GAMMAS)
    print(f"\n[1/5] Sweep {n_sets} parameter sets ({len(ALPHAS)} alphas x {len(GAMMAS)} gammas) {place}")
    start = time.perf_counter()
    with nullcontext() if serial else _local_cluster() as client:
        if client is not None:
            print(f"      {len(client.nthreads())} workers started in {time.perf_counter() - start:.1f} s")
        fits, n_runs, seconds = _sweep(store, client)
    if n_runs:
        print(f"      {n_runs} runs of {len(fits)} in {seconds:.1f} s, an HDF5 file and a row each")
    else:
        print(f"      0 runs: all {len(fits)} were computed before; read from the cache in {seconds:.2f} s")

    print("\n[2/5] The same sweep again")
    fits, n_runs, seconds = _sweep(store, None)
    print(f"      {n_runs} runs: all {len(fits)} answered from the cache in {seconds:.2f} s")
    return fits


def _sweep(store: Store[LynxHareFit], client: Any) -> tuple[Sequence[LynxHareFit], int, float]:
    """Return the grid's records, how many of them were computed now, and the seconds it took."""
    former = {fit.id: fit.created_at for fit in store.records()}
    start = time.perf_counter()
    fits = store.sweep(grid(), client)
    seconds = time.perf_counter() - start
    return fits, sum(former.get(fit.id) != fit.created_at for fit in fits), seconds


@contextmanager
def _local_cluster() -> Iterator[Any]:
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    # Ctrl-C is for this process: workers that it ended, too, would print a screen of tracebacks each.
    resource_tracker.ensure_running()  # it unblocks the signals of the thread that starts it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        # The dashboard on any free port: where its usual one is taken, Dask warns.
        cluster = LocalCluster(n_workers=min(CPU_COUNT, 4), threads_per_worker=1, dashboard_address=":0")
    except (OSError, RuntimeError) as error:  # as where no process may listen
        raise ClusterError(
            f"the local Dask cluster did not start: {error}. To do without it, say --serial"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with cluster, Client(cluster) as client:
        yield client


def _show_best(store: Store[LynxHareFit]) -> LynxHareFit:
    print("\n[3/5] The best five fits: parameters and errors are columns, so this is SQL")
    print("".join(f"          {line}\n" for line in BEST_FITS_SQL.splitlines()))
    best = store.records(LynxHareFit.rmse.is_not(None), order_by=LynxHareFit.rmse, limit=5)
    print("      " + "".join(f"{name:>9}" for name in (*UNITS, "rmse")) + "  result file")
    for fit in best:
        values = [fit.alpha, fit.beta, fit.gamma, fit.delta, fit.rmse]
        print("      " + "".join(f"{value:9.4f}" for value in values) + f"  {Path(fit.result_file).name}")
    print(f"      (alpha, gamma: {RATE}; beta, delta: {RATE_PER_PELTS}; rmse: {PELTS})")
    return best[0]


def _show_picture(fits: Sequence[LynxHareFit], best: LynxHareFit, path: Path) -> Path | None:
    print("\n[4/5] Picture: the record against the best fit, and the error over the plane of alpha and gamma")
    if find_spec("matplotlib") is None:
        print("      Skipped: matplotlib is not installed. To draw it:  python -m pip install matplotlib")
        return None
    start = time.perf_counter()
    draw(fits, best, path)
    print(f"      drawn in {time.perf_counter() - start:.1f} s")
    return path


def _show_places(store: Store[LynxHareFit], picture: Path | None) -> None:
    url = shown(store.database.url)
    print("\n[5/5] Where everything is")
    print(f"      database   {url}, table {LynxHareFit.__tablename__}")
    print(f"      results    {store.results_dir}, an HDF5 file per run, named by its row's id")
    if picture:
        print(f"      picture    {picture}")
    print("      Next: run the same command again, nothing will be computed; or go on in Python:\n")
    print("          from entropic import Store")
    print("          from entropic.demo import LynxHareFit, fit_lynx_hare")
    print(f"          store = Store(fit_lynx_hare, LynxHareFit, {str(store.results_dir)!r}, db_url={url!r})")
    print("          store.records(LynxHareFit.rmse < 5, order_by=LynxHareFit.rmse)")


def draw(fits: Sequence[LynxHareFit], best: LynxHareFit, path: Path) -> None:
    """Draw the record with *best*, and the errors of *fits* over alpha and gamma, as a PNG at *path*."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Figure, not pyplot: no window system is looked for, and no state is left behind.
    with rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11.5, 4.8), dpi=200, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.45, 1))
        _draw_years(left, best)
        _draw_plane(right, fits, best)
        figure.savefig(path)


def _draw_years(axes: Any, best: LynxHareFit) -> None:
    import h5py

    record = read_record()
    with h5py.File(best.result_file) as file:
        years = file["year"][:]
        model = {name: file[name][:] for name in COLOURS}
    for (name, colour), marker in zip(COLOURS.items(), ("o", "^"), strict=True):
        axes.plot(years, model[name], color=colour, linewidth=2, label=f"{name}, model")
        axes.plot(
            record.year,
            getattr(record, name),
            marker,
            color=colour,
            markersize=7,
            markeredgecolor="white",
            label=f"{name}, record",
        )
    axes.set(xlim=(1899.5, 1920.5), ylim=(0, 95), xlabel="year", ylabel="pelts (thousands)")
    axes.set(xticks=range(1900, 1921, 5), yticks=range(0, 81, 20))
    axes.set_title("Hudson's Bay Company pelts and the best fit", loc="left", fontweight="bold")
    axes.legend(frameon=False, ncols=2, loc="upper center", columnspacing=3)


def _draw_plane(axes: Any, fits: Sequence[LynxHareFit], best: LynxHareFit) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm

    alphas, gammas = (sorted({getattr(fit, name) for fit in fits}) for name in ("alpha", "gamma"))
    errors = np.full((len(gammas), len(alphas)), np.nan)
    for fit in fits:
        errors[gammas.index(fit.gamma), alphas.index(fit.alpha)] = np.nan if fit.rmse is None else fit.rmse
    # The valley is narrow and the slopes are long: on a linear scale most of the colours go to the slopes.
    mesh = axes.pcolormesh(alphas, gammas, errors, cmap="cividis_r", norm=LogNorm(), shading="nearest")
    lines = axes.contour(alphas, gammas, errors, levels=[6, 10, 15, 20, 25], colors=["black", *["white"] * 4])
    axes.clabel(lines, fmt="%g", fontsize=9)
    axes.plot(best.alpha, best.gamma, "*", color=COLOURS["lynx"], markeredgecolor="white", markersize=18)
    axes.annotate(
        f"best: {best.rmse:.1f}",
        (best.alpha, best.gamma),
        xytext=(14, 14),
        textcoords="offset points",
        bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "none", "alpha": 0.9},
    )
    axes.set(xlabel=r"$\alpha$, growth of the hares (1/year)", ylabel=r"$\gamma$, death of the lynx (1/year)")
    axes.set_title(f"Error of {len(fits)} runs", loc="left", fontweight="bold")
    bar = axes.figure.colorbar(mesh, ax=axes, label="rms error (thousand pelts)", pad=0.02, format="%g")
    bar.set_ticks([4, 6, 10, 15, 20, 25])
    bar.minorticks_off()
