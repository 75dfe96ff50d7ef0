"""A model, its parts, a dataset and a score of another package, through entry points."""

import csv
import io
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.plugin.install import install

CALL = "import sys; from vdsm_bench.cli.main import main; main(sys.argv[1:])"


@pytest.fixture
def bench(run_python, tmp_path):
    packages = install(tmp_path / "packages")

    def call(*arguments, expect=0):
        return run_python(
            CALL,
            *arguments,
            expect=expect,
            PYTHONPATH=str(packages),
            VDSM_BENCH_RUNS=str(tmp_path / "runs"),
            VDSM_BENCH_DATA=str(tmp_path / "data"),
        )

    return call


def test_what_another_package_declares_trains_and_gets_a_row(bench):
    assert "toy-squares" in bench("list", "datasets").stdout
    shown = json.loads(bench("show", "models/toy", "--json").stdout)
    assert shown["declared in"].startswith("toy-zoo")
    assert shown["defaults"] == {"encoder": "toy-linear", "code": 6}

    run = ("run", "--model", "toy", "--dataset", "toy-squares", "--preset", "smoke", "--json")
    (first,) = json.loads(bench(*run).stdout)
    assert (first["state"], first["reused"]) == ("done", False)
    metrics = first["metrics"]
    assert metrics["training_steps"] == {"fit": 4}
    assert metrics["split"] == "clips"
    assert 0 < metrics["scores"]["toy_brightness"]["value"] < 1
    assert metrics["scores"]["dynamic_accuracy"]["n"] == 24
    assert metrics["protocol"]["metrics"]["toy_brightness"] == 1

    (row, *controls) = csv.DictReader(io.StringIO(bench("leaderboard", "--csv").stdout))
    assert (row["slot"], row["dataset"], row["model"]) == ("native", "toy-squares", "toy")
    assert float(row["toy_brightness"]) == metrics["scores"]["toy_brightness"]["value"]
    (copied,) = [control for control in controls if control["model"] == "copy-identity-clip"]
    assert 0 < float(copied["toy_brightness"]) < 1
    assert "real-test" in {control["model"] for control in controls}


def test_a_wrong_argument_of_it_is_refused_with_a_suggestion(bench):
    answer = bench("run", "--model", "toy[cod=3]", "--dataset", "toy-squares", expect=2)
    assert "did you mean 'code'" in answer.stderr


def test_a_decoder_of_another_package_is_trained_inside_vdsm(bench):
    run = ("run", "--model", "vdsm", "--dataset", "toy-squares", "--preset", "smoke", "--json")
    (cell,) = json.loads(bench(*run, "--set", "model.decoder=toy-picture[features=8]").stdout)
    assert cell["state"] == "done"
    assert cell["metrics"]["model"] == "vdsm[decoder=toy-picture[features=8]]"
    assert cell["metrics"]["scores"]["mse"]["n"] == 24
    weights = load_file(Path(cell["folder"]) / "checkpoints" / "model.safetensors")
    own = {name: value for name, value in weights.items() if name.startswith("model/decoder.")}
    assert set(own) == {f"model/decoder.{layer}.{what}" for layer in ("inner", "outer")
                        for what in ("weight", "bias")}  # fmt: skip
    assert own["model/decoder.inner.weight"].shape == (8, 8 + 4)  # the preset's pose and identity
    assert own["model/decoder.outer.bias"].abs().max() > 0  # it starts at 0
