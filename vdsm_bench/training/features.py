"""What a stage's frozen parts make of the frames, computed once and not in every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vdsm_bench.config import Precision, StageSettings
from vdsm_bench.contracts import Stage
from vdsm_bench.data.clips import may_stay, to_unit

#: frames that are read at once
_TOGETHER, _TOGETHER_ON_CUDA = 256, 4096


@runtime_checkable
class FrameHolder(Protocol):
    """A sampler that knows all frames it draws from, and tells which of them a batch shows."""

    @property
    def n_frames(self) -> int:
        """How many there are."""

    def some_frames(self, first: int, end: int) -> Tensor:
        """Returns those from ``first`` up to ``end``: uint8 ``[n, C, H, W]``, on the device."""

    def rows(
        self, stage: str, step: int, batch_size: int, pairs: bool, frames: int | None = None
    ) -> Tensor:
        """Returns which of all frames a batch shows ``[batch_size, frames]``."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Returns the context in which losses are computed.

    It is not Fabric's own bf16, which rounds the clip too, and with it the targets of the loss.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@dataclass(frozen=True)
class KnownFeatures:
    """The features of all frames that a stage is shown.

    Attributes:
        stage: its name.
        settings: how it is trained.
        holder: of the frames.
        table: a row for each of them ``[N, F]``.
    """

    stage: str
    settings: StageSettings
    holder: FrameHolder
    table: Tensor

    def batch(self, step: int) -> Tensor:
        """Returns those of a step's frames ``[B, T, F]``."""
        rows = _rows(self.stage, self.settings, self.holder, step)
        return self.table.index_select(0, rows.view(-1)).view(*rows.shape, -1)


def known_features(
    stage: Stage,
    settings: StageSettings,
    sampler: object,
    device: torch.device,
    precision: Precision,
) -> KnownFeatures | None:
    """Computes the features of all frames.

    Returns:
        None where the stage has none, where the sampler does not tell its frames, where the stage
        is shown fewer than there are, and where features of all take more memory than may be kept
        (:func:`~vdsm_bench.data.clips.may_stay`).
    """
    if stage.features is None or not isinstance(sampler, FrameHolder):
        return None
    n_frames = sampler.n_frames
    shown = _rows(stage.name, settings, sampler, 0).numel()
    if n_frames > shown * settings.epochs * settings.batches_per_epoch:
        return None
    together = _TOGETHER_ON_CUDA if device.type == "cuda" else _TOGETHER
    with torch.no_grad(), autocast(device, precision):
        one = stage.features(to_unit(sampler.some_frames(0, 1)))
        if not may_stay(one.nbytes * n_frames, str(device)):
            return None
        table = one.new_empty(n_frames, *one.shape[1:])  # no second one beside it
        for first in range(0, n_frames, together):
            end = min(first + together, n_frames)
            table[first:end] = stage.features(to_unit(sampler.some_frames(first, end)))
    return KnownFeatures(stage.name, settings, sampler, table)


def _rows(stage: str, settings: StageSettings, holder: FrameHolder, step: int) -> Tensor:
    return holder.rows(stage, step, settings.batch_size, settings.pairs, settings.frames)
