"""The judges' networks: two architectures that share nothing but their two views of a clip.

Deviation from the judges of the literature, which have one frame CNN for all heads: dynamic
factors are read from frames minus the clip's mean frame, static ones from the frames themselves.
A judge that sees the person while it judges the action learns persons' actions by heart: with one
CNN, action accuracy on drawn faces was .72 on held-out clips and .13 on held-out identity x action
cells (chance .17); with the mean frame taken away, 1.00 on both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vdsm_bench.contracts import ClipShape, Factor
from vdsm_bench.errors import DataError, suggest

#: frames, evenly spaced, from which the static factors are read
_STILL_FRAMES = 4


class JudgeNetwork(nn.Module, ABC):
    """Clips ``[B, T, C, H, W]`` in [0, 1] to logits ``[B, classes]`` per factor; any T.

    Args:
        factors: what is judged.
        shape: C, H and W of the clips, H and W at least 8; T may differ.
        base: channels of the first convolution.
    """

    #: lengths of the features of the frames and of their changes, in units of ``base``
    still_units, moved_units = 4, 8

    def __init__(self, factors: Sequence[Factor], shape: ClipShape, base: int) -> None:
        super().__init__()
        self.factors = tuple(factors)
        # A list, not a ModuleDict: a factor may be called "type" or "items".
        self.heads = nn.ModuleList(
            nn.Linear(
                base * (self.still_units if factor.kind == "static" else self.moved_units),
                len(factor.classes),
            )
            for factor in self.factors
        )

    @abstractmethod
    def _still(self, frames: Tensor) -> Tensor:
        """Returns features of the frames ``[B, t, C, H, W]``, about in [-0.5, 0.5]."""

    @abstractmethod
    def _moved(self, changes: Tensor) -> Tensor:
        """Returns features of what changes ``[B, T, C, H, W]``, about in [-0.5, 0.5]."""

    def features(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the static heads read and what the dynamic ones read, each ``[B, F]``."""
        time = clip.shape[1]
        chosen = torch.linspace(0, time - 1, min(time, _STILL_FRAMES)).round().long()
        still = self._still(clip[:, chosen.to(clip.device)] - 0.5)
        # Twice the difference: about the spread of the frames that the other net sees.
        return still, self._moved(2 * (clip - clip.mean(1, keepdim=True)))

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Returns the logits per factor."""
        return self.read(*self.features(clip))

    def read(self, still: Tensor, moved: Tensor) -> dict[str, Tensor]:
        """Returns the logits per factor from the features of frames and of motion."""
        return {
            factor.name: head(still if factor.kind == "static" else moved)
            for factor, head in zip(self.factors, self.heads, strict=True)
        }


class RecurrentNetwork(JudgeNetwork):
    """``cnn-gru``: a CNN per frame, then a bidirectional GRU (protocol notes 1.2.3 and 3)."""

    def __init__(self, factors: Sequence[Factor], shape: ClipShape, base: int) -> None:
        super().__init__(factors, shape, base)
        feature = base * 4
        self.still = _frame_network(shape, base, feature)
        self.moving = _frame_network(shape, base, feature)
        self.motion = nn.GRU(feature, feature // 2, batch_first=True, bidirectional=True)

    def _still(self, frames: Tensor) -> Tensor:
        return _features(self.still, frames).mean(1)

    def _moved(self, changes: Tensor) -> Tensor:
        states, last = self.motion(_features(self.moving, changes))
        return torch.cat([states.mean(1), last.transpose(0, 1).flatten(1)], dim=1)


class VolumeNetwork(JudgeNetwork):
    """``cnn-3d``: convolutions over space and time, no recurrence; half as wide, as dear."""

    def __init__(self, factors: Sequence[Factor], shape: ClipShape, base: int) -> None:
        super().__init__(factors, shape, base)
        narrow = max(1, base // 2)
        # Who it is does not depend on the order of frames; what they do has a first and a second
        # half.
        self.still = _volume_network(shape, narrow, halves=1, feature=base * self.still_units)
        self.moving = _volume_network(shape, narrow, halves=2, feature=base * self.moved_units)

    def _still(self, frames: Tensor) -> Tensor:
        found: Tensor = self.still(frames.transpose(1, 2))
        return found

    def _moved(self, changes: Tensor) -> Tensor:
        found: Tensor = self.moving(changes.transpose(1, 2))
        return found


ARCHITECTURES: dict[str, type[JudgeNetwork]] = {
    "cnn-gru": RecurrentNetwork,
    "cnn-3d": VolumeNetwork,
}


def build_network(
    architecture: str, factors: Sequence[Factor], shape: ClipShape, *, base: int
) -> JudgeNetwork:
    """Builds a network with fresh weights from torch's global generator.

    Raises:
        DataError: an unknown architecture (a card of another program).
    """
    if architecture not in ARCHITECTURES:
        raise DataError(
            f"There is no judge '{architecture}'{suggest(architecture, ARCHITECTURES)}; "
            f"known: {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[architecture](factors, shape, base)


def _layers(shape: ClipShape, base: int) -> tuple[list[tuple[int, int, int]], int]:
    """Returns (channels before, after, stride) of the convolutions, and the pixels that are left.

    From 48 px on the first kernel strides by 4: the cost per frame stays that of 32 px.
    """
    strides = [4 if min(shape.height, shape.width) >= 48 else 2, 2, 2]
    sizes = [base, base * 3 // 2, base * 2]
    rows, columns = shape.height, shape.width
    for stride in strides:
        rows, columns = -(-rows // stride), -(-columns // stride)
    before = [shape.channels, *sizes[:-1]]
    return list(zip(before, sizes, strides, strict=True)), rows * columns


def _frame_network(shape: ClipShape, base: int, feature: int) -> nn.Module:
    layers: list[nn.Module] = []
    convolutions, pixels = _layers(shape, base)
    for before, after, stride in convolutions:
        kernel = 2 * stride - 1
        layers += [
            nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, *_flat(convolutions[-1][1] * pixels, feature))


def _volume_network(shape: ClipShape, base: int, *, halves: int, feature: int) -> nn.Module:
    layers: list[nn.Module] = []
    convolutions, pixels = _layers(shape, base)
    for before, after, stride in convolutions:
        kernel = 2 * stride - 1
        layers += [
            nn.Conv3d(
                before,
                after,
                (3, kernel, kernel),
                (1, stride, stride),
                (1, kernel // 2, kernel // 2),
                bias=False,
            ),
            nn.BatchNorm3d(after),
            nn.ReLU(),
        ]
    layers.append(nn.AdaptiveAvgPool3d((halves, None, None)))
    return nn.Sequential(*layers, *_flat(convolutions[-1][1] * pixels * halves, feature))


def _flat(size: int, feature: int) -> list[nn.Module]:
    return [
        nn.Flatten(),
        nn.Linear(size, feature, bias=False),
        nn.BatchNorm1d(feature),
        nn.ReLU(),
    ]


def _features(network: nn.Module, clip: Tensor) -> Tensor:
    """Returns features ``[B, T, feature]`` of every frame."""
    # Convolutions of this size run nearly twice as fast with channels last.
    frames = clip.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    found: Tensor = network(frames)
    return found.reshape(*clip.shape[:2], -1)
