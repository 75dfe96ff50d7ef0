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
    """Goes off when the last three looks at a model all show a code of no use.

    Looks of the first stage count from the share of its epochs on that the model asks for
    (``settles``); those of later stages count all for the identity code, and from half of the
    epochs on for that of the movement, which may be new there. No label enters.

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
        self._idle = tool(table, "idle_code")
        self._moving = {stage.name: stage.moving for stage in stages}
        self._armed = {first: math.ceil(model.settles * training[first].epochs)}
        self._half = {name: math.ceil(0.5 * settings.epochs) for name, settings in training.items()}

    def __call__(self, stage: str, looks: Sequence[Mapping[str, Any]]) -> CollapsedError | None:
        """Returns the error to stop with, or None.

        Args:
            stage: being trained.
            looks: the figures of its epochs so far, in their order.
        """
        first = max(self._armed.get(stage, 0), len(looks) - LOOKS)
        reasons = [
            self._idle(figures, self._moving[stage] if epoch >= self._half[stage] else None)
            for epoch, figures in enumerate(looks[first:], start=first)
        ]
        if len(reasons) < LOOKS or None in reasons:
            return None
        return CollapsedError(
            f"Training has collapsed: {reasons[-1]}, and so in the last {LOOKS} epochs, up to "
            f"epoch {len(looks)} of stage '{stage}'.",
            hint="the same command without --stop-on-collapse   (trains on from here)",
        )
