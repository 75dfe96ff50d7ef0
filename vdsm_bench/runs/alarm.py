"""When training stops because a code has collapsed (``--stop-on-collapse``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import VideoModel
from vdsm_bench.errors import CollapsedError
from vdsm_bench.registry import Registry
from vdsm_bench.runs.protocol import tool

#: looks (epochs) in a row that have to show a code of no use
LOOKS = 3


class CollapseAlarm:
    """Goes off when the last three looks at a model show the same code to be of no use.

    In the first stage looks count from the share of its epochs on that the model asks for
    (``settles``). The code of the movement, which a stage may have to learn anew, counts in every
    stage from half of its epochs on, or where those are few, in its last three. No label enters.

    Args:
        table: where the judgement of one look comes from.
        model: whose training is watched.
        training: its stages' settings.
    """

    def __init__(
        self, table: Registry, model: VideoModel, training: Mapping[str, StageSettings]
    ) -> None:
        stages = model.stages()
        first = stages[0].name
        self._idle = tool(table, "idle_codes")
        self._moving = {stage.name: stage.moving for stage in stages}
        self._armed = {first: math.ceil(model.settles * training[first].epochs)}
        self._half = {
            name: min(math.ceil(0.5 * settings.epochs), max(0, settings.epochs - LOOKS))
            for name, settings in training.items()
        }

    def __call__(self, stage: str, looks: Sequence[Mapping[str, Any]]) -> CollapsedError | None:
        """Returns the error to stop with, or None.

        Args:
            stage: being trained.
            looks: the figures of its epochs so far, in their order.
        """
        armed, moving = self._armed.get(stage, 0), self._moving[stage]
        for code, first in {"identity": armed, moving: max(armed, self._half[stage])}.items():
            last = looks[first:][-LOOKS:]
            reasons = [reason for each in last if (reason := self._idle(each, moving).get(code))]
            if len(reasons) == LOOKS:
                return self._error(stage, len(looks), reasons[-1])
        return None

    def _error(self, stage: str, epoch: int, reason: str) -> CollapsedError:
        return CollapsedError(
            f"Training has collapsed: {reason}, and so in the last {LOOKS} epochs, up to epoch "
            f"{epoch} of stage '{stage}'.",
            hint="the same command without --stop-on-collapse   (trains on from here)",
        )
