"""A trained judge at work: one clip at a time, so that no clip's company changes its verdict."""

from __future__ import annotations

import torch
from torch import Tensor

from vdsm_bench.contracts import ClipShape, Factor, Floats, Predictions, check_clip
from vdsm_bench.errors import ContractError
from vdsm_bench.evaluators.judge_networks import JudgeNetwork

#: raised whenever the same settings and clips would give another judge
JUDGE_VERSION = 2


class NeuralJudge:
    """A trained judge; see :class:`vdsm_bench.contracts.Judge`.

    Args:
        network: the trained network; it is put into evaluation mode and frozen.
        shape: shape of the clips it was trained on; T may differ.
        device: where it runs.
    """

    def __init__(self, network: JudgeNetwork, shape: ClipShape, device: torch.device) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.shape = shape
        self.device = device

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The factors it judges."""
        return self.network.factors

    def predict(self, clips: Tensor) -> Predictions:
        """Computes log-probabilities ``[B, classes]`` per factor.

        Every clip is judged by itself: in larger batches sums are taken in another order, and
        the last digits (about 1e-6) would depend on how many clips were asked about at once.
        On a CPU this costs a quarter to two thirds more time at 32 px.

        Args:
            clips: ``[B, T, C, H, W]`` in [0, 1].

        Raises:
            ContractError: no clips, NaN, values outside [0, 1], or another frame size.
        """
        if len(clips) == 0:
            raise ContractError("judge: there are no clips to judge.")
        check_clip(clips, "judge")
        expected = (self.shape.channels, self.shape.height, self.shape.width)
        if tuple(clips.shape[2:]) != expected:
            raise ContractError(
                f"judge: it was trained on frames {list(expected)}, got {list(clips.shape[2:])}."
            )
        parts: dict[str, list[Tensor]] = {factor.name: [] for factor in self.factors}
        with torch.inference_mode():
            for place in range(len(clips)):
                clip = (
                    clips[place : place + 1]
                    .to(self.device, torch.float32, copy=True)
                    .contiguous()
                    .clamp_(0, 1)
                )
                for name, logits in self.network(clip).items():
                    parts[name].append(torch.log_softmax(logits.double(), dim=1))
        found: dict[str, Floats] = {
            name: torch.cat(part).cpu().numpy() for name, part in parts.items()
        }
        return found
