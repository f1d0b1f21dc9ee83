"""What a type checker makes of the public names: checked by ``mypy --strict``, never run."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
from sqlalchemy import create_engine, make_url

from entropic import (
    AlreadyExistsError,
    Base,
    Database,
    DuplicateNameError,
    Mapped,
    Store,
    SweepResult,
    expand_grid,
    hash_params,
    mapped_column,
    memoize,
    output,
    param,
    register_codec,
    register_loader,
)
from entropic.datastore import ComponentState, DataItem, DataStore, hash_state, join_with_underscores
from entropic.functions.memoized import Memoizer


class Sim(Base):
    __tablename__ = "typing_sim"

    n: Mapped[int]
    dt: Mapped[float] = param(default=0.1)
    label: Mapped[str | None] = mapped_column(default=None)
    rmse: Mapped[float | None] = output()


def write(params: dict[str, Any]) -> None:
    Path(params["result_file"]).touch()


def measure(params: dict[str, Any]) -> dict[str, float]:
    return {"rmse": 0.0}


def one_run() -> None:
    database = Database("sqlite://")
    store = Store(write, Sim, "results", ".h5", database)
    assert_type(store, Store[Sim])
    assert_type(Store(measure, Sim, Path("results"), db_url="sqlite:///x.sqlite3", lease_s=60.0), Store[Sim])
    assert_type(Store(write, Sim, db_url=create_engine("sqlite://")), Store[Sim])
    assert_type(Store(write, Sim, db_url=make_url("sqlite://"), wait_timeout_s=None), Store[Sim])

    record = store.run_or_retrieve({"n": 1}, campaign="may")
    assert_type(record, Sim)
    assert_type(record.n, int)
    assert_type(record.dt, float)
    assert_type(record.label, str | None)
    assert_type(record.rmse, float | None)
    assert_type(record.id, str)
    assert_type(record.result_file, str)
    assert_type(record.custom_data, dict[str, Any])
    assert_type(store.run({"n": 1}), Sim)
    assert_type(store.retrieve({"n": 1}), Sim | None)
    assert_type(store.register({"n": 1}, "x.h5", overwrite=True, source="laboratory"), Sim)
    assert_type(store.register({"n": 1}, Path("x.h5")), Sim)
    assert_type(store.delete({"n": 1}, True), bool)
    assert_type(store.delete(hash="0123456789abcdef"), bool)
    assert_type(store.records(Sim.n > 1, Sim.rmse < 0.1, order_by=Sim.rmse, limit=3, label="a"), list[Sim])
    assert_type(store.count(Sim.n > 1, n=2), int)
    assert_type(store.recover(), int)
    assert_type(store.annotate({"n": 1}, note="seen"), Sim)
    store.close()
    assert_type(store.failures()[0].params, dict[str, Any])


def many_runs(store: Store[Sim]) -> None:
    swept = store.sweep(
        expand_grid({"n": [1, 2], "dt": [0.1]}), workers=2, on_error="continue", progress=False
    )
    assert_type(swept, SweepResult[Sim])
    assert_type(swept[0], Sim)
    assert_type(swept.align([{"n": 1}]), list[Sim | None])
    assert_type(swept.failed[0].exception, BaseException | None)
    assert_type([one.dt for one in store.sweep({"n": n} for n in range(3))], list[float])
    assert_type(store.sweep({"n": [1, 2], "dt": np.array([0.1])}), SweepResult[Sim])
    assert_type(bare.sweep(range(3)), SweepResult[Any])


def functions_and_mistakes(store: Store[Sim]) -> None:
    assert_type(expand_grid({"n": [1, 2]}), list[dict[str, Any]])
    assert_type(hash_params({"n": 1}), str)
    assert_type(DuplicateNameError("x").message, str)
    assert_type(AlreadyExistsError("x").args, tuple[Any, ...])

    store.run_or_retrieve(1)  # type: ignore[arg-type]
    store.sweep([{"n": 1}], on_error=1)  # type: ignore[arg-type]
    Store(write, dict)  # type: ignore[type-var]


@memoize
def bare(n: int, dt: float = 0.1) -> float:
    return n * dt


@memoize(
    results_dir="results",
    db_url="sqlite://",
    table="fits",
    ignore=["log"],
    outputs={"rmse": float},
    inline_bytes=0,
)
def fit(degree: int, log: str = "") -> dict[str, float]:
    return {"rmse": 1.0 / degree}


lab = memoize(db_url=Database("sqlite://"), lease_s=60.0, wait_timeout_s=None)


@lab
def spectrum(n: int) -> np.ndarray:
    return np.zeros(n)


def memoized_functions() -> None:
    assert_type(bare(1, dt=0.2), float)
    assert_type(bare.run(1), float)
    assert_type(bare.retrieve(1), float | None)
    assert_type(bare.delete(n=1), bool)
    assert_type(bare.store, Store[Base])
    assert_type(bare.model, type[Any])
    assert_type(fit.model.rmse, Any)
    assert_type(fit.clear(), int)
    assert_type(bare.sweep([{"n": 1}], workers=2), SweepResult[Any])
    assert_type(bare.records(bare.model.id == "x", limit=1), list[Any])
    assert_type(fit(3), dict[str, float])
    assert_type(lab, Memoizer)
    assert_type(lab(ignore=["log"]), Memoizer)
    assert_type(spectrum(3), np.ndarray)

    bare("1")  # type: ignore[arg-type]
    bare(1, step=2)  # type: ignore[call-arg]
    bare()  # type: ignore[call-arg]
    memoize(results_dir=1)  # type: ignore[call-overload]


def files(record: Sim) -> None:
    assert_type(record.load(verify=True), Any)
    assert_type(record.open(), Any)
    register_loader(".raw", lambda path: Path(path).read_bytes())
    register_codec(Sim, ".sim", save=lambda sim, path: Path(path).touch(), load=lambda path: Sim())


def components(component: Any) -> None:
    store = DataStore("sqlite://", Path("data"), join_with_underscores, lease_s=60.0)
    assert_type(store.store(component, "spikes", [1, 2], if_exists="verify"), None)
    assert_type(store.compute_once(component, "rates", lambda: 1.5), float)
    assert_type(store.has(component, "spikes"), bool)
    assert_type(store.list_contents(full_type="lab.Source", parameters={"rate": 8.0}), list[DataItem])
    assert_type(store.ancestors(component), list[ComponentState])
    assert_type(store.delete(component, dependents=True), int)
    assert_type(store.prune(max_bytes=10), list[DataItem])
    assert_type(hash_state(component), str)
