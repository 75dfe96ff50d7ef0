"""Where a step goes: files that parse, and a cell whose numbers do not know of it."""

import gzip
import json

import pytest
from safetensors.torch import load_file

from vdsm_bench.files import read_json
from vdsm_bench.runs.folder import CellFolder
from vdsm_bench.training.profiler import Operation, group_of, table_of
from vdsm_bench.training.trainer import Trainer


def weights_of(outcome):
    return load_file(CellFolder(outcome.folder).weights_file)


def test_a_profiled_cell_has_the_numbers_and_the_key_of_one_that_is_not(bench, tmp_path):
    (plain,), _ = bench(runs_dir=tmp_path / "a")
    (profiled,), listener = bench(runs_dir=tmp_path / "b", profile=True)
    assert profiled.folder.name == plain.folder.name
    assert profiled.metrics["scores"] == plain.metrics["scores"]
    for key, value in weights_of(plain).items():
        assert value.equal(weights_of(profiled)[key])
    journals = [(each.folder / "train.jsonl").read_text() for each in (plain, profiled)]
    assert journals[0] == journals[1]
    folder = profiled.folder / "profile"
    assert {path.name for path in folder.iterdir()} == {
        "fit.trace.json.gz", "profile.json", "profile.md",
    }  # fmt: skip
    events = json.loads(gzip.decompress((folder / "fit.trace.json.gz").read_bytes()))["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("step") == 3
    assert "aten::addmm" in names
    (text,) = (line for line in listener.lines if "matrix products" in line)
    assert (folder / "profile.md").read_text() in text
    operations = {
        each["name"]: each for each in read_json(folder / "profile.json")["stages"]["fit"]
    }
    assert operations["aten::addmm"]["group"] == "matrix products"
    assert operations["aten::addmm"]["calls"] == 4  # encoder, two codes, decoder
    assert not (plain.folder / "profile").exists()


def test_a_finished_cell_is_profiled_without_training(bench, tmp_path, monkeypatch):
    (first,), _ = bench(runs_dir=tmp_path)
    monkeypatch.setattr(Trainer, "train", None)
    before = weights_of(first)
    (again,), listener = bench(runs_dir=tmp_path, profile=True)
    assert again.reused
    assert again.metrics == first.metrics
    assert (again.folder / "profile" / "profile.md").exists()
    assert all(value.equal(weights_of(again)[key]) for key, value in before.items())


@pytest.mark.parametrize(
    ("name", "group"),
    {
        "aten::mm": "matrix products",
        "aten::bmm": "matrix products",
        "aten::addmm": "matrix products",
        "aten::baddbmm": "matrix products",
        "sm90_xmma_gemm_bf16bf16_bf16f32": "matrix products",
        "aten::mkldnn_convolution": "convolutions",
        "aten::convolution_backward": "convolutions",
        "aten::mkldnn_rnn_layer": "recurrent nets",
        "aten::_thnn_fused_lstm_cell": "recurrent nets",
        "aten::_fused_adam_": "optimiser",
        "Optimizer.step#Adam.step": "optimiser",
        "aten::normal_": "random numbers",
        "aten::randn": "random numbers",
        "aten::native_dropout": "random numbers",
        "aten::copy_": "copies and element-wise",
        "aten::leaky_relu_backward": "copies and element-wise",
        "aten::add_": "copies and element-wise",
        "step": "Python and dispatch",
        "_Upconvolution": "Python and dispatch",
        "autograd::engine::evaluate_function: MmBackward0": "Python and dispatch",
        "aten::view": "Python and dispatch",
        "aten::sum": "the rest",
    }.items(),
)
def test_operations_are_grouped_by_what_they_do(name, group):
    assert group_of(name) == group


def test_the_table_adds_up_and_begins_with_the_dearest():
    operations = [
        Operation("aten::mm", "matrix products", 4, 0.006),
        Operation("aten::bmm", "matrix products", 2, 0.003),
        Operation("aten::copy_", "copies and element-wise", 10, 0.001),
    ]
    lines = table_of("fit", operations, top=2).splitlines()
    assert lines[0] == "### fit: 10.0 ms per step under the profiler"
    assert lines[4] == "| matrix products | 90.0% | 9.00 | 6 |"
    assert lines[5] == "| copies and element-wise | 10.0% | 1.00 | 10 |"
    assert lines[-2:] == [
        "| `aten::mm` | matrix products | 60.0% | 6.00 | 4 |",
        "| `aten::bmm` | matrix products | 30.0% | 3.00 | 2 |",
    ]
