import sys
from types import SimpleNamespace

import pytest
import torch

from vdsm_bench import kernels

NAME = "vdsm_bench.decoders.overlap_kernels"
HERE = torch.device("cpu")


def test_where_triton_is_missing_torchs_operators_do_it_and_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    with pytest.warns(RuntimeWarning, match=r"Triton does not work here: ModuleNotFoundError"):
        assert kernels._checked.__wrapped__(NAME, HERE) is None


def test_kernels_that_do_not_sum_are_not_used(monkeypatch):
    def check(device):
        raise ArithmeticError("its sums are wrong")

    monkeypatch.setitem(sys.modules, NAME, SimpleNamespace(check=check))
    with pytest.warns(RuntimeWarning, match="ArithmeticError: its sums are wrong"):
        assert kernels._checked.__wrapped__(NAME, HERE) is None


def test_a_full_gpu_is_no_reason_to_do_without(monkeypatch):
    def check(device):
        raise torch.OutOfMemoryError

    monkeypatch.setitem(sys.modules, NAME, SimpleNamespace(check=check))
    with pytest.raises(torch.OutOfMemoryError):
        kernels._checked.__wrapped__(NAME, HERE)


@pytest.mark.parametrize(
    ("gpu", "kind", "there"),
    [(True, torch.float32, True), (True, torch.bfloat16, True), (True, torch.float64, False),
     (True, torch.float16, False), (False, torch.float32, False)],
)  # fmt: skip
def test_kernels_are_for_two_types_on_a_gpu(gpu, kind, there, monkeypatch):
    monkeypatch.setattr(kernels, "_checked", lambda module, device: "kernels")
    tensor = SimpleNamespace(is_cuda=gpu, dtype=kind, device="a GPU")
    assert kernels.kernels_for(NAME, tensor) == ("kernels" if there else None)
