"""Store in a real Jupyter kernel: models and runners in `__main__`, cells run twice, a restart."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_event_loop

ROOT = Path(__file__).parents[2]

MODEL = """
from entropic import Base, Mapped, Store, output, param
from pathlib import Path
import os

class Sim(Base):
    __tablename__ = "sims"
    n: Mapped[int]
    x: Mapped[float] = param(default=0.5)
    square: Mapped[float | None] = output()

def simulate(params):
    with open("log", "a") as log:
        log.write(f"{params['n']} {os.getpid()}\\n")
    Path(params["result_file"]).write_text(str(params["n"] * SCALE))
    return {"square": params["n"] ** 2.0}

SCALE = 10
store = Store(simulate, Sim, "results", ".txt")
"""


class Kernel:
    """A kernel in a folder; `run` gives what a cell printed and showed, and raises what it raised."""

    def __init__(self, folder):
        self.folder = folder
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(
            cwd=str(folder),
            extra_arguments=[f"--IPKernelApp.exec_lines=import sys; sys.path.insert(0, {str(ROOT)!r})"],
        )
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code, timeout_s=90.0):
        request = self.client.execute(code, stop_on_error=False)
        deadline, shown = time.monotonic() + timeout_s, []
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"the cell did not end; it showed {shown}") from None
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                shown.append(content["text"])
            elif kind in {"display_data", "execute_result", "update_display_data"}:
                shown.append(content["data"].get("text/plain", ""))
            elif kind == "error":
                raise RuntimeError("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return "".join(shown)

    def restart(self):
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=60)

    def interrupt_when(self, condition):
        while not condition():
            time.sleep(0.05)
        os.kill(self.manager.provisioner.pid, signal.SIGINT)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.context.destroy()
        ensure_event_loop().close()  # the one that the blocking calls made

    def ran(self):
        """Return what was run, and by how many processes."""
        log = self.folder / "log"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return sorted(int(n) for n, _ in lines), {pid for _, pid in lines}


@pytest.fixture
def kernel(tmp_path) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


@pytest.mark.slow
def test_notebook_sweeps_with_workers_and_hits_after_a_restart(kernel):
    kernel.run(MODEL)
    kernel.run(MODEL)
    sweep = "result = store.sweep(({'n': n} for n in range(12)), workers=2)\n"
    shown = kernel.run(sweep)
    facts = "print([r.n for r in result], sum(r.square for r in result), open(result[3].result_file).read())"
    first = kernel.run(facts)
    ran, processes = kernel.ran()
    own = kernel.run("print(os.getpid())").strip()

    kernel.restart()
    kernel.run(MODEL)
    again = kernel.run(sweep)
    second = kernel.run(facts)

    assert "12/12" in shown
    assert "12 done" in shown
    assert first == f"{list(range(12))} 506.0 30\n"
    assert (ran, own in processes) == (list(range(12)), False)
    assert "12 cached" in again
    assert second == first
    assert kernel.ran()[0] == ran


@pytest.mark.slow
def test_notebook_runs_the_runner_as_it_was_defined_last(kernel):
    kernel.run(MODEL)
    kernel.run("store.sweep([{'n': 1}], workers=1, progress=False)")

    quiet = kernel.run(MODEL.replace("SCALE = 10", "SCALE = 100"))
    kernel.run("result = store.sweep([{'n': 1}, {'n': 2}], workers=1, progress=False)")

    assert quiet == ""
    assert kernel.run("print([open(r.result_file).read() for r in result])") == "['10', '200']\n"


@pytest.mark.slow
def test_notebook_sweeps_on_a_dask_client(kernel, dask_client):
    kernel.run(MODEL.replace('open("log"', f'open("{kernel.folder}/log"'))
    kernel.run(f"from distributed import Client; client = Client({dask_client.scheduler.address!r})")

    shown = kernel.run("result = store.sweep(({'n': n} for n in range(20)), client)")

    assert "20/20" in shown
    assert kernel.run("print([r.n for r in result])") == f"{list(range(20))}\n"
    ran, processes = kernel.ran()
    assert ran == list(range(20))
    assert processes <= {str(pid) for pid in dask_client.run(lambda: __import__("os").getpid()).values()}
    kernel.run("client.close()")


HOLDING = (
    MODEL.replace("def simulate(params):", "def simulate(params):\n    hold(params['n'])")
    + """
import time

def hold(n):
    Path("held").touch()
    while n == 5 and not Path("go").exists():
        time.sleep(0.05)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "call", ["store.run_or_retrieve({'n': 5})", "store.sweep([{'n': 5}], progress=False)"]
)
def test_notebook_says_who_holds_a_key_that_it_waits_for(kernel, call):
    script = kernel.folder / "script.py"
    script.write_text(HOLDING + "\nstore.run_or_retrieve({'n': 5})\n")
    holder = subprocess.Popen(
        [sys.executable, str(script)], cwd=kernel.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        while not (kernel.folder / "held").exists():
            time.sleep(0.05)
        kernel.run(HOLDING)
        threading.Timer(10.0, (kernel.folder / "go").touch).start()
        shown = kernel.run(call + "\nprint('done')")
        holder.wait(60)
    finally:
        holder.kill()
        holder.wait()

    assert f"process {holder.pid} on " in shown
    assert re.search(r"wait.*, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", shown)
    assert shown.endswith("done\n")
    assert kernel.ran()[0] == [5]


@pytest.mark.slow
def test_notebook_without_progress_shows_nothing(kernel):
    kernel.run(MODEL)

    assert kernel.run("result = store.sweep([{'n': 1}, {'n': 2}], progress=False)") == ""


@pytest.mark.slow
def test_notebook_when_interrupted_keeps_what_is_finished(kernel):
    slow = MODEL.replace("    return {", "    import time; time.sleep(0.3)\n    return {")
    kernel.run(slow)
    interrupter = threading.Thread(target=kernel.interrupt_when, args=(lambda: len(kernel.ran()[0]) >= 4,))
    interrupter.start()

    with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
        kernel.run("store.sweep(({'n': n} for n in range(200)), workers=2)")
    interrupter.join()
    ran = kernel.ran()[0]
    stored = int(kernel.run("print(store.count())"))

    assert 1 <= stored <= len(ran) < 20
    kernel.run(f"result = store.sweep(({{'n': n}} for n in {sorted(set(ran))}), progress=False)")
    assert len(kernel.ran()[0]) == len(ran) + len(set(ran)) - stored


MEMOIZED = """
import numpy as np
from entropic import expand_grid, memoize

@memoize
def simulate(n: int, dt: float = 0.5) -> np.ndarray:
    with open(LOG, "a") as log:
        log.write(f"{n} {__import__('os').getpid()}\\n")
    return SCALE * np.arange(n) * dt

SCALE = 2
"""


@pytest.fixture
def memoized(kernel):
    return MEMOIZED.replace("LOG", repr(str(kernel.folder / "log")))


def test_notebook_memoizes_and_hits_when_its_cells_run_again_or_after_a_restart(kernel, memoized):
    kernel.run(memoized)
    first = kernel.run("print(simulate(4), simulate(4, 0.5), simulate(n=4))")
    quiet = kernel.run(memoized)
    second = kernel.run("print(simulate(4), simulate(4, 0.5), simulate(n=4))")
    kernel.restart()
    kernel.run(memoized)
    third = kernel.run("print(simulate(4), simulate(4, 0.5), simulate(n=4))")

    assert first == second == third == "[0. 1. 2. 3.] [0. 1. 2. 3.] [0. 1. 2. 3.]\n"
    assert quiet == ""
    assert kernel.ran()[0] == [4]


@pytest.mark.slow
def test_notebook_sweeps_a_memoized_function_with_workers_and_on_dask(kernel, memoized, dask_client):
    kernel.run(memoized)
    kernel.run(f"from distributed import Client; client = Client({dask_client.scheduler.address!r})")

    kernel.run(
        "grid = expand_grid({'n': range(10), 'dt': [0.5, 1.0]})\n"
        "simulate.sweep(grid[:10], workers=2, fallback='raise')\n"
        "result = simulate.sweep(grid, client, fallback='raise')"
    )

    assert kernel.run("print(sum(r.load().sum() for r in result))") == "360.0\n"
    assert (
        kernel.run("print(len(result.to_frame()), client.submit(simulate, 3, 1.0).result())")
        == "20 [0. 2. 4.]\n"
    )
    ran, processes = kernel.ran()
    assert ran == sorted([*range(10), *range(10)])
    assert kernel.run("print(__import__('os').getpid())").strip() not in processes
    kernel.run("client.close()")


@pytest.mark.slow
def test_notebook_with_an_edited_body_keeps_the_results_and_says_so_once(kernel, memoized):
    kernel.run("import logging; logging.basicConfig(level='WARNING', format='%(message)s')")
    kernel.run(memoized + "\nsimulate(4)")
    kernel.run(memoized.replace("* dt", "* dt + 0.0"))

    shown = kernel.run("print(simulate(4), simulate(4))")

    assert (
        len(
            re.findall(
                r"rows of simulate_\w+ that were computed by another version of the runner: 1, ", shown
            )
        )
        == 1
    )
    assert "[0. 1. 2. 3.] [0. 1. 2. 3.]\n" in shown
    assert kernel.ran()[0] == [4]


@pytest.mark.slow
def test_notebook_with_a_parameter_added_keeps_every_hit(kernel, memoized):
    kernel.run(memoized + "\nfor n in range(5): simulate(n)")

    kernel.run(memoized.replace("dt: float = 0.5", "dt: float = 0.5, noise: float = 0.0"))
    shown = kernel.run("print([simulate(n).size for n in range(5)], simulate(2, noise=1.0).size)")

    assert shown.endswith("[0, 1, 2, 3, 4] 2\n")
    assert kernel.ran()[0] == [0, 1, 2, 2, 3, 4]
    assert kernel.run("print(list(simulate.to_frame()['noise']))") == "[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]\n"


FIRST_HOUR = """
import enum, dataclasses
from entropic import Base, Mapped, Store, memoize

class Sim(Base):
    __tablename__ = "sims"
    n: Mapped[int]

class Scheme(enum.Enum):
    EULER = 1
    RK4 = 4

@dataclasses.dataclass
class Point:
    x: float
"""


@pytest.mark.slow
def test_notebook_of_a_first_hour_with_cells_run_again_misspellings_and_small_things(kernel):
    """What somebody new does, cell by cell, each of them twice; what is shown is one line that says what works."""
    kernel.run(FIRST_HOUR)
    kernel.run(
        "store = Store(lambda p: open(p['result_file'], 'w').close(), Sim, 'sims', '.txt', 'sqlite:///s.sqlite3')\n"
        "store.sweep({'n': range(5)}, progress=False)\nformer = Sim"
    )
    kernel.run(
        "@memoize(outputs={'rmse': float})\n"
        "def fit(point: Point, scheme: Scheme = Scheme.EULER, limit: int = 3, xmin: float = 0.0) -> dict:\n"
        "    'Fit.'\n"
        "    return {'rmse': point.x + (scheme is Scheme.RK4)}\n"
        "fit(Point(1.0), Scheme.RK4); fit(Point(2.0))"
    )
    kernel.run(FIRST_HOUR)

    for model in ("Sim", "former"):
        asked = "[r.n for r in store.records(M.n > 2)], store.count(M.n > 2), len(store.to_frame(M.n > 2))"
        assert kernel.run(f"print({asked.replace('M', model)})") == "[3, 4] 2 2\n"
    hits = "fit(Point(1.0), Scheme.RK4)['rmse'], fit(Point(2.0))['rmse'], len(fit.records())"
    assert kernel.run(f"print({hits}, fit.records(limit=3)[0].rmse)") == "2.0 2.0 2 2.0\n"
    assert (
        kernel.run("print(fit(Point(3.0), Scheme.RK4)['rmse'], len(fit.records(scheme=Scheme.RK4)))")
        == "4.0 2\n"
    )

    for cell, words in {
        "fit(Point(1.0), scheem=3)": "did you mean 'scheme'",
        "fit.sweep([{'point': Point(1.0)}], 4)": "workers=4",
        "memoize(outputs=['a'])": "outputs={'a': float}",
        "memoize(db_url='my.sqlite3')(fit.__wrapped__)": "sqlite:///my.sqlite3",
        "@memoize\ndef g(load: float) -> float: return load": "call it 'load_'",
        "store.records(order_by='m')": "no column 'm' to order by",
    }.items():
        with pytest.raises(RuntimeError, match=re.escape(words)):
            kernel.run(cell)

    assert "RK4" in kernel.run("print(fit.records())")
    assert kernel.run("help(fit)").count("Fit.") == 1
    assert kernel.run("print(list(fit.to_frame())[:5])") == "['point', 'scheme', 'limit', 'xmin', 'rmse']\n"
    assert kernel.run("print(store.annotate({'n': 1}, seen=1).custom_data['seen'])") == "1\n"
    assert kernel.run("print(fit.clear(), fit.records()); store.close()") == "3 []\n"


VALUES = """
from typing import NamedTuple
import pandas as pd
from entropic import memoize

class Fit(NamedTuple):
    slope: float

@memoize
def result(kind: str) -> dict[str, Fit | pd.DataFrame] | None:
    print("computed")
    return {"fit": Fit(1.5), "frame": pd.DataFrame({"u": pd.Series([2**70, (1, 2)], dtype=object)})}

@memoize
def single(n: int, m: int = 1) -> int:
    return n * m
"""


@pytest.mark.slow
def test_notebook_of_values_sweeps_and_another_signature(kernel):
    kernel.run(VALUES)
    look = "value = result('a'); print(type(value['fit']) is Fit, value['frame']['u'].tolist())"
    first = kernel.run(look)
    kernel.run(VALUES)

    assert first == "computed\nTrue [1180591620717411303424, (1, 2)]\n"
    assert kernel.run(look) == "True [1180591620717411303424, (1, 2)]\n"

    for sets in ("{'n': [1, 2]}", "pd.DataFrame({'n': [1, 2]})", "[{'n': 1}, {'n': 2}]"):
        assert kernel.run(f"print([r.load() for r in single.sweep({sets}, progress=False)])") == "[1, 2]\n"

    grown = VALUES.replace("m: int = 1", "m: int = 1, k: int = 1")
    assert kernel.run(f"{grown}\nprint(single(1), len(single.records()))").endswith("\n1 2\n")
    kernel.run(VALUES.replace("m: int = 1", "m: int = 2"))
    with pytest.raises(RuntimeError, match="another table"):
        kernel.run("single(1)")
    with pytest.raises(RuntimeError, match="can be read once only"):
        kernel.run("@memoize\ndef lazy(n: int):\n    return map(str, range(n))\nlazy(2)")
    lost = kernel.run("print(lazy.store.failures()[0].message)")

    assert "is not lost" in lost
