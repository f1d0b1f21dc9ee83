from __future__ import annotations

import argparse
import math
import re
import signal
import sqlite3
import sys
from pathlib import Path

import distributed
import pytest

from entropic import cli, demo

BEST = {"alpha": 0.48, "beta": 0.0238, "gamma": 0.94, "delta": 0.0276}
WHOLE = {"ALPHAS": demo.ALPHAS, "GAMMAS": demo.GAMMAS}
SMALL = {"ALPHAS": demo.ALPHAS[::6], "GAMMAS": demo.GAMMAS[::4]}  # the best fit of the whole grid is in it
N_SETS = 25


def invariant(params, hare, lynx):
    """What the model conserves along each of its orbits."""
    return (
        params["delta"] * hare
        - params["gamma"] * math.log(hare)
        + params["beta"] * lynx
        - params["alpha"] * math.log(lynx)
    )


def result_times(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "results").glob("*.h5")}


def query(out, sql):
    connection = sqlite3.connect(out / "lynx_hare.sqlite3")
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def put(grid, patch):
    for name, values in grid.items():
        patch.setattr(demo, name, values)


@pytest.fixture(autouse=True)
def small_grid(monkeypatch):
    put(SMALL, monkeypatch)


@pytest.fixture
def whole_grid(small_grid, monkeypatch):
    put(WHOLE, monkeypatch)
    return len(WHOLE["ALPHAS"]) * len(WHOLE["GAMMAS"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a demo that was run once, serially."""
    with pytest.MonkeyPatch.context() as patch:
        put(SMALL, patch)
        return demo.run_demo(tmp_path_factory.mktemp("demo") / "out", None, serial=True)


def test_record_when_read_has_the_published_figures():
    record = demo.read_record()

    assert record.year == tuple(range(1900, 1921))
    assert (record.hare[0], record.hare[3], record.hare[-1]) == (30.0, 77.4, 24.7)
    assert (record.lynx[0], record.lynx[4], record.lynx[-1]) == (4.0, 59.4, 8.6)


def test_grid_equilibria_are_the_averages_of_the_record(whole_grid):
    record = demo.read_record()

    sets = demo.grid()

    assert len(sets) == whole_grid == 500
    assert len({(values["alpha"], values["gamma"]) for values in sets}) == whole_grid
    for values in sets:
        assert values["gamma"] / values["delta"] == pytest.approx(sum(record.hare) / 21, rel=1e-4)
        assert values["alpha"] / values["beta"] == pytest.approx(sum(record.lynx) / 21, rel=1e-4)


def test_simulate_at_the_equilibrium_stays_there():
    hare0, lynx0 = BEST["gamma"] / BEST["delta"], BEST["alpha"] / BEST["beta"]

    model = demo.simulate({**BEST, "hare0": hare0, "lynx0": lynx0})

    assert model.hare == pytest.approx([hare0] * len(model.year), rel=1e-12)
    assert model.lynx == pytest.approx([lynx0] * len(model.year), rel=1e-12)


def test_simulate_far_from_the_equilibrium_conserves_the_invariant():
    model = demo.simulate(BEST)

    values = [invariant(BEST, hare, lynx) for hare, lynx in zip(model.hare, model.lynx, strict=True)]
    assert max(model.hare) / min(model.hare) > 5
    assert values == pytest.approx([values[0]] * len(values), rel=1e-9)


def test_simulate_close_to_the_equilibrium_swings_with_the_linear_period():
    hare0, lynx0 = BEST["gamma"] / BEST["delta"], BEST["alpha"] / BEST["beta"]

    model = demo.simulate({**BEST, "hare0": hare0 * 1.001, "lynx0": lynx0})

    above = [hare > hare0 for hare in model.hare]
    falls = [model.year[i] for i in range(1, len(above)) if above[i - 1] and not above[i]]
    assert falls[1] - falls[0] == pytest.approx(2 * math.pi / math.sqrt(0.48 * 0.94), abs=2 / 24)


def test_runner_writes_what_it_simulated_with_units_and_parameters(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "run.h5"

    returned = demo.fit_lynx_hare({**BEST, "hare0": 34.0, "id": "run", "result_file": str(path)})

    with h5py.File(path) as file:
        assert {name: file[name].attrs["units"] for name in file} == {
            "year": "year",
            "hare": "thousand pelts",
            "lynx": "thousand pelts",
        }
        assert {name: file.attrs[name] for name in BEST} == BEST
        assert (file.attrs["hare0"], file.attrs["lynx0"], file.attrs["substeps"]) == (34.0, 4.0, 20)
        assert file.attrs["alpha_units"] == "1/year"
        assert file["hare"][0] == 34.0
        assert file["year"][-1] == 1920.0
        record = demo.read_record()
        squares = (file["hare"][::24] - record.hare) ** 2 + (file["lynx"][::24] - record.lynx) ** 2
    assert returned == {"rmse": pytest.approx(math.sqrt(squares.sum() / 42))}


def test_runner_with_populations_out_of_range_still_returns(tmp_path):
    params = {**BEST, "hare0": 1e200, "lynx0": 1e200, "result_file": str(tmp_path / "run.h5")}

    returned = demo.fit_lynx_hare(params)

    assert not math.isfinite(returned["rmse"])


def test_demo_when_finished_has_a_row_and_a_file_for_each_set(finished):
    rows = query(finished, "SELECT alpha, gamma, result_file FROM lynx_hare_fits")

    assert sorted(row[:2] for row in rows) == sorted((s["alpha"], s["gamma"]) for s in demo.grid())
    assert {Path(row[2]).name for row in rows} == set(result_times(finished))


def test_demo_best_fit_follows_the_record(finished):
    best = query(finished, demo.BEST_FITS_SQL)

    assert len(best) == 5
    assert best[0][4] == pytest.approx(3.893, abs=1e-3)
    assert best[0][4] == query(finished, "SELECT min(rmse) FROM lynx_hare_fits")[0][0]


def test_demo_picture_shows_both_species(finished):
    image = pytest.importorskip("matplotlib.image")

    pixels = image.imread(finished / "lynx_hare.png")[:, :, :3]

    assert pixels.shape == (960, 2300, 3)
    for colour in demo.COLOURS.values():
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(pixels[:, :1250] - rgb).max(axis=2) < 0.02).sum() > 1000


def test_demo_when_run_again_computes_nothing_and_says_so(finished, capsys):
    before = result_times(finished)

    demo.run_demo(finished, None, serial=True)

    printed = capsys.readouterr().out
    assert f"0 runs: all {N_SETS} were computed before" in printed
    assert result_times(finished) == before


def test_demo_without_matplotlib_says_how_to_install_it(finished, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    picture = finished / "lynx_hare.png"
    drawn_at = picture.stat().st_mtime_ns

    status = demo.main(argparse.Namespace(out=finished, db_url=None, serial=True))

    assert status == 0
    assert "python -m pip install matplotlib" in capsys.readouterr().out
    assert picture.stat().st_mtime_ns == drawn_at


@pytest.mark.slow
def test_demo_on_dask_computes_each_set_once_and_says_where_everything_is(tmp_path, capsys):
    url = f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}"

    out = demo.run_demo(tmp_path / "out", url, serial=False)

    printed = capsys.readouterr().out
    assert f"{N_SETS} runs of {N_SETS}" in printed
    assert f"0 runs: all {N_SETS} answered from the cache" in printed
    assert all(str(place) in printed for place in (url, out / "results", out / "lynx_hare.png"))
    assert len(result_times(out)) == N_SETS
    assert {path.name for path in out.iterdir()} == {"results", "lynx_hare.png"}


@pytest.mark.slow
def test_ctrl_c_reaches_no_worker_of_the_demo():
    def is_blocked():
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    with demo._local_cluster() as client:
        blocked = client.run(is_blocked)

    assert set(blocked.values()) == {True}
    assert not is_blocked()


def test_cluster_that_does_not_start_names_the_way_without_one(tmp_path, monkeypatch, capsys):
    def refused(**arguments):
        raise RuntimeError("Cluster failed to start: no socket for you")

    monkeypatch.setattr(distributed, "LocalCluster", refused)

    status = cli.main(["demo", "--out", str(tmp_path / "out")])

    assert status == 1
    assert re.search(r"^entropic: .*no socket for you\. .* --serial$", capsys.readouterr().err)


def test_demo_python_lines_when_typed_find_the_best_fits(finished, capsys):
    demo.run_demo(finished, None, serial=True)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()[-4:]]
    names = {}

    exec("\n".join(lines[:3]), names)
    found = eval(lines[3], names)

    assert [fit.rmse for fit in found] == sorted(fit.rmse for fit in found)
    assert len(found) == query(finished, "SELECT count(*) FROM lynx_hare_fits WHERE rmse < 5")[0][0] > 0


@pytest.mark.slow
def test_demo_of_the_whole_grid_finds_the_same_fit_as_the_small_one(whole_grid, tmp_path):
    out = demo.run_demo(tmp_path / "out", None, serial=True)

    assert query(out, "SELECT count(*) FROM lynx_hare_fits") == [(whole_grid,)]
    assert query(out, demo.BEST_FITS_SQL)[0][4] == pytest.approx(3.893, abs=1e-3)


@pytest.mark.slow
def test_demo_on_a_server_computes_each_set_once(whole_grid, server_url, tmp_path, capsys):
    demo.run_demo(tmp_path / "out", server_url, serial=True)
    demo.run_demo(tmp_path / "out", server_url, serial=True)

    printed = capsys.readouterr().out
    assert f"{whole_grid} runs of {whole_grid}" in printed
    assert f"0 runs: all {whole_grid} were computed before" in printed


def test_arguments_when_none_are_given_have_the_documented_defaults():
    parser = argparse.ArgumentParser()

    demo.add_arguments(parser)

    assert vars(parser.parse_args([])) == {"serial": False, "db_url": None, "out": Path("entropic-demo")}
    given = parser.parse_args(["--serial", "--db-url", "sqlite://", "--out", "x"])
    assert vars(given) == {"serial": True, "db_url": "sqlite://", "out": Path("x")}
