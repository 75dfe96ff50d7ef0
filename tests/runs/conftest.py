"""A bench small enough to train on in a test: the toy zoo on its squares."""

import pytest

from vdsm_bench.runs.cell import plan_cells
from vdsm_bench.runs.execute import RunContext, run_cells


@pytest.fixture(scope="session")
def shared_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


class Listener:
    """Keeps what was said."""

    def __init__(self):
        self.lines, self.tasks = [], []

    def say(self, text):
        self.lines.append(text)

    def progress(self, task, done, total, detail=""):
        self.tasks.append((task, done, total, detail))


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def bench(table, data_dir, shared_runs):
    """Runs cells of the toy zoo; returns their outcomes and what was said."""

    def call(
        *models, seeds=(0,), layer=None, runs_dir=shared_runs, fresh=False, wait=True,
        precision="32", profile=False, stop_on_collapse=False,
        judge_looks=False,
    ):  # fmt: skip
        listener = Listener()
        cells = plan_cells(
            table,
            models=models or ["toy"],
            datasets=["toy-squares"],
            seeds=seeds,
            preset="smoke",
            layers=[layer or {}],
        )
        context = RunContext(
            table=table,
            runs_dir=runs_dir,
            data_dir=data_dir,
            device="cpu",
            fresh=fresh,
            wait=wait,
            reporter=listener,
            precision=precision,
            profile=profile,
            stop_on_collapse=stop_on_collapse,
            judge_looks=judge_looks,
        )
        return run_cells(cells, context), listener

    return call
