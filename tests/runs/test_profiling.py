"""Where a step goes: files that parse, and a cell whose numbers do not know of it."""

import gzip
import json
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from vdsm_bench.files import read_json
from vdsm_bench.runs.folder import CellFolder
from vdsm_bench.training import profiler
from vdsm_bench.training.profiler import Operation, group_of, table_of
from vdsm_bench.training.trainer import Trainer

PHASES = ["fetching the batch", "loss", "backward", "clipping and optimiser"]
PYTHON = "Python between operations"


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
    assert all(names.count(name) == 1 for name in ["step", *PHASES])
    assert "aten::addmm" in names
    (text,) = (line for line in listener.lines if "matrix products" in line)
    assert (folder / "profile.md").read_text() in text
    found = {each["name"]: each for each in read_json(folder / "profile.json")["stages"]["fit"]}
    assert found["aten::addmm"]["group"] == "matrix products"
    assert found["aten::addmm"]["calls"] == 4  # encoder, two codes, decoder
    assert [name for name, each in found.items() if each["group"] == "phases"] == PHASES
    step = sum(each["dur"] for each in events if each.get("name") == "step") / 1e6
    own = sum(each["seconds"] for each in found.values() if each["group"] != "phases")
    assert own == pytest.approx(step, rel=0.1)  # a step's, not that of all that were looked at
    for name in PHASES:
        took = sum(each["dur"] for each in events if each.get("name") == name) / 1e6
        assert found[name]["seconds"] == pytest.approx(took, rel=0.01)
    assert sum(found[name]["seconds"] for name in PHASES) < step  # none within another
    assert not (plain.folder / "profile").exists()


def test_a_finished_cell_is_profiled_without_training(bench, tmp_path, monkeypatch):
    (first,), _ = bench(runs_dir=tmp_path)
    monkeypatch.setattr(Trainer, "train", None)
    taken, take = [], Trainer.take

    def told(trainer, work, step):
        settings = trainer.settings["fit"]
        taken.append((step, settings.epochs * settings.batches_per_epoch))
        take(trainer, work, step)

    monkeypatch.setattr(Trainer, "take", told)
    before = weights_of(first)
    (again,), listener = bench(runs_dir=tmp_path, profile=True)
    assert again.reused
    assert again.metrics == first.metrics
    assert (again.folder / "profile" / "profile.md").exists()
    assert all(value.equal(weights_of(again)[key]) for key, value in before.items())
    # from the middle on: schedules have begun by then
    assert [step for step, _ in taken] == [(n // 2 + at) % n for at, (_, n) in enumerate(taken)]
    assert len(taken) == 9


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
        "aten::linalg_vector_norm": "optimiser",
        PYTHON: "Python and dispatch",
        "_Upconvolution": "Python and dispatch",
        "autograd::engine::evaluate_function: MmBackward0": "Python and dispatch",
        "torch::autograd::AccumulateGrad": "Python and dispatch",
        "aten::view": "Python and dispatch",
        "aten::slice": "Python and dispatch",
        "aten::select": "Python and dispatch",
        "aten::transpose": "Python and dispatch",
        "aten::as_strided_": "Python and dispatch",
        "detach": "Python and dispatch",
        "aten::index_select": "copies and element-wise",
        "aten::masked_select": "copies and element-wise",
        "aten::slice_backward": "copies and element-wise",
        "aten::select_backward": "copies and element-wise",
        "aten::_to_copy": "copies and element-wise",
        "aten::_index_put_impl_": "copies and element-wise",
        "aten::threshold_backward": "copies and element-wise",
        "aten::upsample_nearest2d": "copies and element-wise",
        "aten::exp_": "copies and element-wise",
        "aten::maximum": "copies and element-wise",
        "Memcpy HtoD (Pinned -> Device)": "copies and element-wise",
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>": (
            "copies and element-wise"
        ),
        "_add_up": "copies and element-wise",
        "_band_product": "convolutions",
        "aten::conv_transpose2d": "convolutions",
        "sm80_xmma_fprop_implicit_gemm_f32f32": "convolutions",
        "aten::multinomial": "random numbers",
        "aten::einsum": "matrix products",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float>": "matrix products",
        "aten::sum": "reductions and norms",
        "aten::mean": "reductions and norms",
        "aten::max": "reductions and norms",
        "aten::_softmax": "reductions and norms",
        "aten::_log_softmax_backward_data": "reductions and norms",
        "aten::native_batch_norm_backward": "reductions and norms",
        "aten::max_pool2d_with_indices": "reductions and norms",
        "aten::_adaptive_avg_pool2d_backward": "reductions and norms",
        "aten::cumsum": "reductions and norms",
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>": (
            "reductions and norms"
        ),
        "aten::sort": "the rest",
        "aten::item": "the rest",
    }.items(),
)
def test_operations_are_grouped_by_what_they_do(name, group):
    assert group_of(name) == group


def test_the_table_adds_up_and_begins_with_phases_then_the_dearest():
    found = [
        *(Operation(name, "phases", 1, seconds) for name, seconds in zip(
            PHASES, (0.001, 0.002, 0.0035, 0.003), strict=True
        )),
        Operation("aten::mm", "matrix products", 4, 0.006),
        Operation("aten::bmm", "matrix products", 2, 0.003),
        Operation("aten::copy_", "copies and element-wise", 10, 0.001),
    ]  # fmt: skip
    lines = table_of("fit", found, top=2).splitlines()
    assert lines[0] == "### fit: 10.0 ms per step under the profiler"
    assert lines[4:9] == [
        "| fetching the batch | 10.0% | 1.00 |",
        "| loss | 20.0% | 2.00 |",
        "| backward | 35.0% | 3.50 |",
        "| clipping and optimiser | 30.0% | 3.00 |",
        "| between them | 5.0% | 0.50 |",
    ]
    assert lines[12] == "| matrix products | 90.0% | 9.00 | 6 |"
    assert lines[13] == "| copies and element-wise | 10.0% | 1.00 | 10 |"
    assert lines[-2:] == [
        "| `aten::mm` | matrix products | 60.0% | 6.00 | 4 |",
        "| `aten::bmm` | matrix products | 30.0% | 3.00 | 2 |",
    ]


def test_a_replayed_graph_has_no_phases_and_the_table_says_so():
    found = [Operation(PHASES[0], "phases", 1, 0.001), Operation("mm", "the rest", 1, 0.001)]
    text = table_of("fit", found)
    assert "replayed CUDA graph" in text
    assert "| phase |" not in text
    assert PHASES[0] not in text


def _event(name, start, end, *, device="CPU", kernels=(), annotation=False):
    return SimpleNamespace(
        name=name,
        key=name,
        count=3,
        device_type=SimpleNamespace(name=device),
        is_user_annotation=annotation,
        time_range=SimpleNamespace(start=start, end=end),
        kernels=[SimpleNamespace(duration=duration) for duration in kernels],
        self_device_time_total=0 if device == "CPU" else end - start,
        self_cpu_time_total=end - start,
    )


#: as torch tells them, in microseconds: ranges have a mirror on the device
ON_CUDA = [
    _event("step", 0, 300, annotation=True),
    _event("loss", 0, 100, annotation=True),
    _event("backward", 100, 200, annotation=True, kernels=[900]),
    _event("aten::mm", 10, 20, kernels=[30, 6]),
    _event("MmBackward0", 110, 120, kernels=[60]),  # launched by autograd's own thread
    _event("aten::copy_", 250, 260, kernels=[9]),
    _event("backward", 50, 950, device="CUDA", annotation=True),
    _event("gemm", 40, 136, device="CUDA"),
]


def test_on_a_gpu_a_phase_is_the_kernels_launched_in_it():
    loss, backward = profiler._phases(ON_CUDA, on_cuda=True)
    assert (loss.name, backward.name) == ("loss", "backward")
    assert (loss.seconds, backward.seconds) == pytest.approx((36e-6, 60e-6))


def test_ranges_are_no_operations():
    (gemm,) = profiler._operations(ON_CUDA, on_cuda=True)
    assert (gemm.name, gemm.calls) == ("gemm", 3)
    assert gemm.seconds == pytest.approx(96e-6)
    operations = profiler._operations(ON_CUDA, on_cuda=False)
    found = {each.name: each for each in operations}
    assert set(found) == {PYTHON, "aten::mm", "MmBackward0", "aten::copy_"}
    assert found[PYTHON].seconds == pytest.approx(500e-6)
    assert operations[0].name == PYTHON
