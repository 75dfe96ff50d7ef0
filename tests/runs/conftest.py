"""A bench small enough to train on in a test: the toy zoo on its squares."""

import pytest
import torch

from tests.plugin.toy_zoo.encoder import ToyLinear
from tests.plugin.toy_zoo.model import ToyAutoencoder
from tests.plugin.toy_zoo.squares import ToySquares
from vdsm_bench.contracts import Codes
from vdsm_bench.registry import load_registry
from vdsm_bench.runs.cell import plan_cells
from vdsm_bench.runs.execute import RunContext, run_cells


class Diverging(ToyAutoencoder):
    """Its loss is NaN in the second epoch."""

    def _loss(self, batch, progress):
        losses = super()._loss(batch, progress)
        factor = float("nan") if progress.epoch == 1 else 1.0
        return type(losses)(losses.total * factor)


class Broken(ToyAutoencoder):
    """It has a bug."""

    def _loss(self, batch, progress):
        raise ZeroDivisionError("a bug in the model")


class Collapsed(ToyAutoencoder):
    """Its identity code says nothing."""

    def encode(self, clip):
        codes = super().encode(clip)
        return Codes(torch.zeros_like(codes.identity), codes.motion)


class EncodeOnly(ToyAutoencoder):
    """It cannot generate."""

    capabilities = frozenset({"encode"})


class Told(ToyAutoencoder):
    """It is told the action."""

    supervision = "action-labels"


@pytest.fixture(scope="session")
def table():
    table = load_registry()
    table.register("encoders", "toy-linear")(ToyLinear)
    table.register("datasets", "toy-squares")(ToySquares)
    for name, model in {
        "toy": ToyAutoencoder,
        "diverging": Diverging,
        "broken": Broken,
        "collapsed": Collapsed,
        "encode-only": EncodeOnly,
        "told": Told,
    }.items():
        table.register("models", name)(model)
    return table


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    ToySquares().prepare(folder / "toy-squares")
    return folder


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
def bench(table, data_dir, shared_runs):
    """Runs cells of the toy zoo; returns their outcomes and what was said."""

    def call(*models, seeds=(0,), layer=None, runs_dir=shared_runs, fresh=False, wait=True):
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
        )
        return run_cells(cells, context), listener

    return call
