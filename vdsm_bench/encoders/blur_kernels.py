"""A BlurPool along one side of pictures, as a Triton kernel: a matrix that is zero but for a band.

See :mod:`vdsm_bench.encoders.blurred_stack`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vdsm_bench.encoders.blurred_stack import Band

#: numbers that one program writes, and how long its runs are
_BLOCK, _RUN = 2048, 256


@triton.jit  # type: ignore[untyped-decorator]
def _band_product(  # type: ignore[no-untyped-def]
    given, result, matrix, down, right, L, OUT, RUN, step, per, before,
    WIDTH: tl.constexpr, PLACES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    # a program writes PLACES places along the side of one row, WIDE numbers of each
    row = tl.program_id(0).to(tl.int64)
    i, b = (
        tl.program_id(1) * PLACES + tl.arange(0, PLACES),
        tl.program_id(2) * WIDE + tl.arange(0, WIDE),
    )
    inside = (i < OUT)[:, None] & (b < RUN)[None, :]
    start = tl.minimum(tl.maximum(i * step // per - before, 0), L - WIDTH)
    total = tl.zeros((PLACES, WIDE), tl.float32)
    for k in tl.static_range(WIDTH):
        weight = tl.load(matrix + i * down + (start + k) * right, mask=i < OUT, other=0.0)
        place = given + row * (L * RUN) + (start + k)[:, None] * RUN + b[None, :]
        total += weight[:, None] * tl.load(place, mask=inside, other=0.0).to(tl.float32)
    place = result + row * (OUT * RUN) + i[:, None] * RUN + b[None, :]
    tl.store(place, total, mask=inside)


def band_product(given: Tensor, matrix: Tensor, band: Band) -> Tensor:
    """Computes matrix x for every x of ``[A, L, B]``.

    Args:
        given: the x, contiguous.
        matrix: ``[O, L]``, float32.
        band: where the matrix may differ from zero.

    Returns:
        ``[A, O, B]``; sums are float32 whatever the type of the x.
    """
    outer, length, run = given.shape
    out = len(matrix)
    result = given.new_empty(outer, out, run)
    wide = min(_RUN, triton.next_power_of_2(run))
    places = min(max(1, _BLOCK // wide), triton.next_power_of_2(out))
    grid = (outer, triton.cdiv(out, places), triton.cdiv(run, wide))
    _band_product[grid](
        given, result, matrix, *matrix.stride(), length, out, run, band.step, band.per, band.before,
        WIDTH=band.width, PLACES=places, WIDE=wide,
    )  # fmt: skip
    return result


def check(device: torch.device) -> None:
    """Sees whether kernels run and sum what they should.

    Raises:
        ArithmeticError: they run, and their sums are wrong.
    """
    given = torch.arange(40.0).view(2, 5, 4)
    matrix = torch.tensor([[1.0, 2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 4.0, 5.0, 0.0], [0, 0, 0, 6.0, 7]])
    for side in (matrix, matrix.t()):
        x = given[:, : side.shape[1]].contiguous()
        made = band_product(x.to(device), side.to(device), Band.of(side))
        if not torch.equal(made.cpu(), side @ x):
            raise ArithmeticError("its sums are wrong")
