"""What a step has to compute and to move, counted: by formula, and by watching torch's operators.

The formula counts the products and convolutions of VDSM as the paper writes it (a multiply-add
is two operations), however they are carried out; it leaves out the blur and everything element by
element. The watchers count what a step really issues, inside autograd functions too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vdsm_bench.models.vdsm.model import VDSM

_ADAM_BYTES = 28  # weight, gradient and two moments are read, three of them written, 4 bytes each


def operations(
    vdsm: VDSM, clip: tuple[int, ...], stage: str, *, pairs: bool = False
) -> dict[str, float]:
    """Returns the floating-point operations of one step's loss and gradients, by part.

    Args:
        vdsm: with the mixture of experts and the convolutions of the paper.
        clip: ``(B, T, C, H, W)`` of the batch.
        stage: ``pretrain`` or ``sequence``; in ``sequence`` the encoder has seen the frames before
            the first step and experts are not trained, but unless the identity is frozen the
            blended weights need gradients, for s.
        pairs: whether clips are joined of two halves, which may have weights of their own.
    """
    b, t, _, height, width = _as_weighed(vdsm, clip, stage, pairs)
    pretrain = stage == "pretrain"
    weighed = pretrain or not vdsm.identity_frozen  # whether blended weights get gradients
    first, *banks = [bank.shape for bank in _banks(vdsm)]
    k_z, channels = vdsm.pose_dim, first[-2]
    per_clip = 2 * vdsm.identity_dim * 16 * channels
    per_frame = 2 * k_z * 16 * channels
    for index, (inside, _, _, outside, _) in enumerate(banks):
        per_frame += 2 * (4 * 2**index) ** 2 * inside * 16 * outside
    weights = sum(bank.numel() for bank in _banks(vdsm))
    rnn = 0
    if not pretrain:
        lstm, cells = vdsm.motion_encoder.rnn, vdsm.roll_out.cells
        matrices = [p.numel() for p in lstm.parameters() if p.ndim == 2]
        matrices += [p.numel() for p in cells.parameters() if p.ndim == 2]
        rnn = 3 * 2 * b * t * sum(matrices)
    return {
        "decoder": (3.0 if weighed else 2.0) * b * (t * per_frame + per_clip),
        "encoder": float(b * t * _encoder(vdsm, height, width)) if pretrain else 0.0,
        "blend": 2.0 * b * weights * (3 if pretrain else 2 if weighed else 1),
        "rnn": float(rnn),
    }


def _as_weighed(
    vdsm: VDSM, clip: tuple[int, ...], stage: str, pairs: bool
) -> tuple[int, int, int, int, int]:
    """Returns the shape of what has blended weights of its own: a clip, or half of a joined one."""
    b, t, channels, height, width = clip
    if stage == "pretrain" and pairs and vdsm.identity_from == "partner":
        b, t = 2 * b, t // 2
    return b, t, channels, height, width


def least_bytes(vdsm: VDSM, clip: tuple[int, ...], stage: str, *, pairs: bool = False) -> float:
    """Returns the bytes that one float32 step moves at the very least.

    Experts are read forward and backward, and every trained parameter's gradient is written once
    and Adam read and written; a clip's blended weights, the decoder's pictures and in ``pretrain``
    the encoder's are written and read once in each direction. Arguments are those of
    :func:`operations`.
    """
    b, t, _, height, width = _as_weighed(vdsm, clip, stage, pairs)
    banks = [bank for bank in _banks(vdsm)]
    experts = sum(bank.numel() for bank in banks)
    (player,) = next(s for s in vdsm.stages() if s.name == stage).players
    trained = sum(parameter.numel() for parameter in player.parameters)
    blended = b * experts // vdsm.identity_dim
    pictures = sum(b * t * (4 * 2**i) ** 2 * bank.shape[-2] for i, bank in enumerate(banks))
    seen = sum(b * t * size * c.out_channels for c, size, _ in _convolutions(vdsm, height, width))
    read = 2 * seen if stage == "pretrain" else 0
    activations = 2 * 4 * (2 * blended + 2 * pictures + read)
    return float(2 * 4 * experts + (4 + _ADAM_BYTES) * trained + activations)


def _banks(vdsm: VDSM) -> list[Tensor]:
    decoder: Any = vdsm.decoder
    return list(decoder.weights)


def _convolutions(vdsm: VDSM, height: int, width: int) -> Iterator[tuple[nn.Conv2d, int, bool]]:
    """Yields the paper's convolutions, the pixels they write per frame, and whether they see it."""
    for encoder in (vdsm.encoder, vdsm.pose_encoder):
        sides = height, width
        for convolution in [] if encoder is None else encoder.modules():
            if isinstance(convolution, nn.Conv2d):
                first = sides == (height, width)
                stride, padding = convolution.stride[0], int(convolution.padding[0])
                sides = tuple((side + 2 * padding - 4) // stride + 1 for side in sides)
                yield convolution, sides[0] * sides[1], first


def _encoder(vdsm: VDSM, height: int, width: int) -> int:
    found = 0
    for convolution, pixels, first in _convolutions(vdsm, height, width):
        passes = 2 if first else 3  # nobody asks for the clip's gradient
        found += passes * 2 * pixels * convolution.weight.numel()
    return found


@dataclass
class Watched:
    """What was issued while watching: operations of products, and bytes of operands."""

    operations: float = 0.0
    bytes: float = 0.0


@contextmanager
def watching() -> Iterator[Watched]:
    """Counts what torch issues inside the block."""
    watched = Watched()
    recurrent = {
        torch.ops.aten.mkldnn_rnn_layer: _mkldnn_layer,
        torch.ops.aten.mkldnn_rnn_layer_backward: lambda *a, **k: 2 * _mkldnn_layer(*a, **k),
        torch.ops.aten._cudnn_rnn: _cudnn,
        torch.ops.aten._cudnn_rnn_backward: lambda *a, **k: 2 * _cudnn(*a, **k),
    }
    counter = FlopCounterMode(display=False, custom_mapping=recurrent)
    mover = _Moved()
    with counter, mover:
        yield watched
    watched.operations, watched.bytes = float(counter.get_total_flops()), mover.bytes


def _mkldnn_layer(inputs: Any, w_input: Any, w_hidden: Any, *_: Any, **__: Any) -> int:
    steps = inputs[0] * inputs[1]
    return int(2 * steps * (w_input[0] * w_input[1] + w_hidden[0] * w_hidden[1]))


def _cudnn(inputs: Any, weights: Any, *_: Any, **__: Any) -> int:
    return int(2 * inputs[0] * inputs[1] * sum(w[0] * w[1] for w in weights if len(w) == 2))


class _Moved(TorchDispatchMode):
    """Adds up operands read and results written, as if no cache kept any of them."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not func.is_view and not _reserves(func):
            given = {**dict(zip(_names(func), args, strict=False)), **kwargs}
            filled = {name for name in given if name in _written(func, filled=True)}
            read = _bytes(value for name, value in given.items() if name not in filled)
            written = _bytes(given[name] for name in _written(func) if name in given)
            self.bytes += read + (written or _bytes([result]))
        return result


def _reserves(func: Any) -> bool:
    """Whether an operator but sets memory aside."""
    return "empty" in func._schema.name.partition("::")[2].split("_")


def _names(func: Any) -> list[str]:
    return [argument.name for argument in func._schema.arguments]


def _written(func: Any, *, filled: bool = False) -> list[str]:
    """Returns the arguments an operator writes to; with ``filled`` those it does not read."""
    return [
        argument.name
        for argument in func._schema.arguments
        if argument.alias_info is not None
        and argument.alias_info.is_write
        and (argument.kwarg_only or not filled)
    ]


def _bytes(values: Iterable[Any]) -> int:
    return sum(_size(leaf) for leaf in tree_leaves(list(values)))


def _size(leaf: Any) -> int:
    if not isinstance(leaf, Tensor):
        return 0
    return min(leaf.nbytes, leaf.untyped_storage().nbytes())


def matmul_peak(device: str, dtype: str, rounds: int = 8) -> float:
    """Returns the best GFLOP/s of a square product: 2048^3 on a CPU, 8192^3 on a GPU."""
    import time

    from benchmarks.machine import synchronise

    side = 8192 if device == "cuda" else 2048
    left, right = (
        torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2)
    )
    best = float("inf")
    for _ in range(rounds):
        synchronise(device)
        started = time.perf_counter()
        torch.mm(left, right)
        synchronise(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best / 1e9
