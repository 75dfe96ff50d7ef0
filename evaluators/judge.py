"""A trained judge at work: it sees every distinct clip once, in blocks of one and the same size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vdsm_bench.contracts import ClipShape, Factor, Floats, Predictions, check_clip
from vdsm_bench.errors import ContractError
from vdsm_bench.evaluators.judge_networks import JudgeNetwork

#: raised whenever the same settings and clips would give another judge
JUDGE_VERSION = 2
#: clips in one pass of the network: always so many, so that sums are always taken in one order
_TOGETHER = 16
#: clips whose verdicts are kept; a verdict is a few kilobytes
_REMEMBERED = 20_000


class Verdict(NamedTuple):
    """What was made of one clip: log-probabilities ``[classes of all factors]``, features."""

    logs: Floats
    features: npt.NDArray[np.float32]


class NeuralJudge:
    """A trained judge; see :class:`vdsm_bench.contracts.Judge`.

    A clip that was judged before is told from its pixels and not judged again: real clips, the
    copies that controls hand back, and clips that several evaluators ask about.

    Args:
        network: the trained network; it is put into evaluation mode and frozen.
        shape: shape of the clips it was trained on; T may differ.
        device: where it runs.
    """

    def __init__(self, network: JudgeNetwork, shape: ClipShape, device: torch.device) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.shape = shape
        self.device = device
        self._known: dict[bytes, Verdict] = {}

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The factors it judges."""
        return self.network.factors

    def predict(self, clips: Tensor) -> Predictions:
        """Computes log-probabilities ``[B, classes]`` per factor.

        No digit depends on a clip's company: blocks are filled up to one size, and a clip's place
        in its block changes nothing. Batches of other sizes differ by about 1e-6.

        Args:
            clips: ``[B, T, C, H, W]`` in [0, 1].

        Raises:
            ContractError: no clips, NaN, values outside [0, 1], or another frame size.
        """
        logs = np.stack([verdict.logs for verdict in self._verdicts(clips)])
        ends = np.cumsum([len(factor.classes) for factor in self.factors])
        parts = np.split(logs, ends[:-1], axis=1)
        return {factor.name: part for factor, part in zip(self.factors, parts, strict=True)}

    def features(self, clips: Tensor) -> Floats:
        """Computes what the heads read of motion and of frames, ``[B, D]``; see :meth:`predict`."""
        return np.stack([verdict.features for verdict in self._verdicts(clips)]).astype(np.float64)

    def _verdicts(self, clips: Tensor) -> list[Verdict]:
        if len(clips) == 0:
            raise ContractError("judge: there are no clips to judge.")
        check_clip(clips, "judge")
        expected = (self.shape.channels, self.shape.height, self.shape.width)
        if tuple(clips.shape[2:]) != expected:
            raise ContractError(
                f"judge: it was trained on frames {list(expected)}, got {list(clips.shape[2:])}."
            )
        clean = clips.detach().to("cpu", torch.float32).contiguous().clamp(0, 1)
        digests = [hashlib.sha256(clip.data).digest() for clip in clean.numpy()]
        new = {digest: row for row, digest in enumerate(digests) if digest not in self._known}
        found = dict(zip(new, self._judge(clean, list(new.values())), strict=True))
        answer = [found[d] if d in found else self._known[d] for d in digests]
        if len(self._known) + len(found) <= _REMEMBERED:
            self._known |= found
        return answer

    def _judge(self, clips: Tensor, rows: Sequence[int]) -> list[Verdict]:
        """Shows the network the clips of the rows, in blocks that are filled up with the last."""
        verdicts: list[Verdict] = []
        for start in range(0, len(rows), _TOGETHER):
            some = list(rows[start : start + _TOGETHER])
            block = clips[some + some[-1:] * (_TOGETHER - len(some))]
            with torch.inference_mode():
                still, moved = self.network.features(block.to(self.device))
                logits = self.network.read(still, moved)
                logs = torch.cat(
                    [torch.log_softmax(v.cpu().double(), 1) for v in logits.values()], 1
                )
            kinds = {factor.kind for factor in self.factors}
            seen = [f for f, kind in ((moved, "dynamic"), (still, "static")) if kind in kinds]
            features = torch.cat(seen, dim=1).cpu().numpy()
            verdicts += [Verdict(*pair) for pair in zip(logs.numpy(), features, strict=True)][
                : len(some)
            ]
        return verdicts
