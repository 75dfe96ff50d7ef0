"""What the program sets for itself, and what it says of the machine."""

import pytest
import torch

from vdsm_bench.devices import has_bf16, prepare_process


@pytest.fixture
def capabilities(monkeypatch):
    def pretend(**there):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there)

    before = torch.get_float32_matmul_precision()
    yield pretend
    torch.set_float32_matmul_precision(before)


def test_float32_is_never_rounded_to_bfloat16_unasked(capabilities):
    capabilities(avx512_bf16=True, amx_bf16=False)
    prepare_process()
    assert torch.get_float32_matmul_precision() == "medium"
    capabilities(avx512_bf16=True, amx_bf16=True)
    prepare_process()
    assert torch.get_float32_matmul_precision() == "high"


def test_float32_products_are_float32_here():
    prepare_process()
    a, b = (torch.randn(300, 300, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    exact = a.double() @ b.double()
    assert ((a @ b).double() - exact).abs().max() / exact.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("there", "answer"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"bf16": True}, True),
     ({"avx512_bf16": False, "avx512_f": True}, False), ({}, False)],
)  # fmt: skip
def test_which_chips_have_bfloat16(capabilities, there, answer):
    capabilities(**there)
    assert has_bf16("cpu") is answer
    assert has_bf16("mps") is False
