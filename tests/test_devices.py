"""What the program sets for itself, and what it says of the machine."""

import os
from pathlib import Path

import pytest
import torch

from vdsm_bench import devices
from vdsm_bench.devices import free_cores, has_bf16, matmul_rate, prepare_process


@pytest.fixture
def capabilities(monkeypatch):
    def pretend(**there):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there)

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic
    yield pretend
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.deterministic = before[1]


def test_float32_is_never_rounded_to_bfloat16_unasked(capabilities):
    capabilities(avx512_bf16=True, amx_bf16=False)
    prepare_process()
    assert torch.get_float32_matmul_precision() == "medium"
    capabilities(avx512_bf16=True, amx_bf16=True)
    prepare_process()
    assert torch.get_float32_matmul_precision() == "high"
    capabilities(sve=True, bf16=False)
    prepare_process()
    assert torch.get_float32_matmul_precision() == "medium"
    capabilities(sve=True, bf16=True)  # as torch calls it on ARM
    prepare_process()
    assert torch.get_float32_matmul_precision() == "high"


def test_convolutions_of_a_gpu_add_up_in_one_order(capabilities):
    torch.backends.cudnn.deterministic = False
    prepare_process()
    assert torch.backends.cudnn.deterministic


def test_no_float64_is_made_on_a_device_that_may_have_none():
    """Apple's has none: what is added up in float64 goes home first."""
    root = Path(devices.__file__).parents[1]
    sources = [
        path for name in ("vdsm_bench", "evaluators") for path in (root / name).rglob("*.py")
    ]
    assert sources
    assert [path.name for path in sources if ".double().cpu()" in path.read_text()] == []


def test_float32_products_are_float32_here():
    prepare_process()
    a, b = (torch.randn(300, 300, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    exact = a.double() @ b.double()
    assert ((a @ b).double() - exact).abs().max() / exact.abs().max() < 1e-5


def test_numbers_too_small_for_a_normal_float_become_zero_in_every_thread(run_python):
    code = """
import warnings, torch
from vdsm_bench.devices import prepare_process
torch.set_num_threads(4)
def left():
    return int(torch.count_nonzero(torch.full((4_000_000,), 1e-40) * 0.5))
prepare_process()
assert left() == 0, left()
warnings.simplefilter("error")
import numpy
numpy.finfo(numpy.float32).smallest_subnormal, numpy.finfo(float), numpy.finfo(numpy.float64)
"""
    run_python(code, OMP_NUM_THREADS="4")
    run_python(code.replace("\nprepare_process()", "") + "prepare_process()", expect=1)


@pytest.mark.parametrize(
    ("there", "answer"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"bf16": True}, True),
     ({"avx512_bf16": False, "avx512_f": True}, False), ({}, False)],
)  # fmt: skip
def test_which_chips_have_bfloat16(capabilities, there, answer):
    capabilities(**there)
    assert has_bf16("cpu") is answer
    assert has_bf16("mps") is False


WAITING = """
import os, sys
from vdsm_bench import devices
devices.free_cores = lambda: float(sys.argv[1])
if sys.argv[2] == "late":
    sys.modules["torch"] = sys
devices.prepare_environment()
print(os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("free", "environment", "answer"),
    [
        ("1.1", {"OMP_NUM_THREADS": "2"}, "PASSIVE"),
        ("1.9", {"OMP_NUM_THREADS": "2"}, "None"),
        ("0.1", {"OMP_NUM_THREADS": "1"}, "None"),
        ("0.1", {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ("0.1", {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "9"}, "None"),
    ],
)
def test_threads_sleep_while_they_wait_only_where_the_machine_is_busy(
    run_python, free, environment, answer
):
    assert run_python(WAITING, free, "early", **environment).stdout.strip() == answer


PREPARED = """
import importlib, sys
from vdsm_bench.cli.main import run_cli

name, *words = sys.argv[1:]

def prepared():
    print("torch" in sys.modules)
    raise SystemExit(0)

importlib.import_module(f"vdsm_bench.cli.{name}_command").prepare_environment = prepared
run_cli([name, *words])
"""


@pytest.mark.parametrize(
    "words",
    [
        "run --model vdsm --dataset mug-synthetic",
        "judge train mug-synthetic",
        "judge audit mug-synthetic",
        "score clips.npz --dataset mug-synthetic",
        "transfer --dataset mug-synthetic",
    ],
)
def test_every_command_that_computes_settles_how_threads_wait_before_torch(run_python, words):
    assert run_python(PREPARED, *words.split()).stdout == "False\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no cores can be kept from it")
def test_threads_are_as_many_as_the_cores_that_the_process_may_use(run_python):
    narrow = "import os\nos.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    many = "import os\nos.sched_getaffinity = lambda pid: range(2)\n"
    assert run_python(narrow + WAITING, "1.0", "early", OMP_NUM_THREADS="").stdout == "None\n"
    assert run_python(many + WAITING, "1.0", "early", OMP_NUM_THREADS="").stdout == "PASSIVE\n"


def test_a_batch_systems_tasks_are_not_the_programs(monkeypatch):
    """One cell is trained on one device, whatever the job around it may hold."""
    for name, value in {"JOB_ID": "1", "NTASKS": "4", "JOB_NAME": "job"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    fabric = devices.launch_fabric("cpu")
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert fabric.device.type == "cpu"


def test_what_torch_has_read_already_is_not_set(run_python):
    assert run_python(WAITING, "0.1", "late", OMP_NUM_THREADS="2").stdout.strip() == "None"


def test_free_cores_are_those_that_idle_and_ones_own(monkeypatch):
    ticks = iter([1000, 1000 + 3 * os.sysconf("SC_CLK_TCK")])
    monkeypatch.setattr(devices, "_idle_ticks", lambda: next(ticks))
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(devices.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(devices.time, "process_time", lambda: 0.5)
    assert free_cores() == pytest.approx(1.5)


def test_where_nobody_says_how_busy_the_machine_is_nothing_is_guessed(monkeypatch):
    def refuse():
        raise FileNotFoundError

    monkeypatch.setattr(devices, "_idle_ticks", refuse)
    assert free_cores() is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rates_of_matrix_products_are_rates(dtype):
    assert 0 < matmul_rate(dtype, size=64, rounds=1) < 1e6
