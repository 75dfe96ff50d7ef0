"""When training stops because a code has collapsed (``--stop-on-collapse``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Stage, VideoModel
from vdsm_bench.errors import CollapsedError
from vdsm_bench.registry import Registry
from vdsm_bench.runs.protocol import tool
from vdsm_bench.training.journal import Look
from vdsm_bench.training.step import openings

#: looks in a row that have to show a code of no use
LOOKS = 3
#: a ``swap_gap`` that an end is measured by, and the share of it that is to be left
_USED, _LEFT = 0.1, 0.5
#: share of a stage after the first by whose end its own way of drawing clips shows who they are
_LEARNT_ANEW = 0.25


class Settling(NamedTuple):
    """The epochs of a stage that the codes of identity and movement have to come into use."""

    identity: int
    moving: int


def settling(model: VideoModel, training: Mapping[str, StageSettings]) -> dict[str, Settling]:
    """Returns the epochs of each stage that its codes have to come into use.

    In the first stage the model says how long that takes (``settles``). A later one may draw clips
    in a way that it has yet to learn; where its epochs are few, its last looks count all the same.
    The code of the movement, which a stage may have to learn anew, has half of every stage.

    Args:
        model: whose stages are trained.
        training: their settings.
    """
    first = model.stages()[0].name
    found = {}
    for name, settings in training.items():
        share = model.settles if name == first else _LEARNT_ANEW
        identity = math.ceil(share * settings.epochs)
        latest = max(0, settings.epochs - LOOKS)
        if name != first:
            identity = min(identity, latest)
        half = min(math.ceil(0.5 * settings.epochs), latest)
        found[name] = Settling(identity, max(identity, half))
    return found


class CollapseAlarm:
    """Goes off when the last three looks at a model show the same code to be of no use.

    Looks count where the code has settled (:func:`settling`). No label enters.

    Args:
        table: where the judgement of one look comes from.
        model: whose training is watched.
        training: its stages' settings.
    """

    def __init__(
        self, table: Registry, model: VideoModel, training: Mapping[str, StageSettings]
    ) -> None:
        self._idle = tool(table, "idle_codes")
        self._moving = {stage.name: stage.moving for stage in model.stages()}
        self._armed = settling(model, training)
        self._would_rise = {
            stage.name
            for stage in model.stages()
            if stage.name in training and _would_rise_again(stage, training[stage.name])
        }

    def __call__(self, stage: str, looks: Sequence[Look]) -> CollapsedError | None:
        """Returns the error to stop with, or None.

        Args:
            stage: being trained.
            looks: at it so far, in their order.
        """
        armed, moving = self._armed[stage], self._moving[stage]
        for code, first in {"identity": armed.identity, moving: armed.moving}.items():
            last = [look for look in looks if look.epoch >= first][-LOOKS:]
            found = [self._idle(look.figures, moving).get(code) for look in last]
            reasons = [reason for reason in found if reason]
            if len(reasons) == LOOKS:
                slower = code == moving and stage in self._would_rise
                return _error(stage, last[-1].epoch + 1, reasons[-1], slower=slower)
        return None


def ended_worse(looks: Sequence[Look]) -> str | None:
    """Says so where the last look makes far less use of the identity than an earlier one.

    Runs that end well have .99 of the largest ``swap_gap`` of their last stage, or all of it; one
    whose last step but thirty was a burst had .33, and half of its accuracy. What fell at once is
    called a burst. No label enters.

    Args:
        looks: of all training, in their order.
    """
    gaps = [
        (look.figures["swap_gap"], look.epoch + 1)
        for look in looks
        if look.stage == looks[-1].stage and "swap_gap" in look.figures
    ]
    best, epoch = max(gaps, default=(0.0, 0))
    if best < _USED or gaps[-1][0] >= _LEFT * best:
        return None
    last, before = gaps[-1][0], max(gap for gap, _ in gaps[-1 - LOOKS : -1])
    found = (
        f"exchanging identity codes costs {last:.3g} times the error at its last look, and "
        f"{best:.3g} after epoch {epoch} of the stage"
    )
    if last < _LEFT * before and before >= _USED:
        return (
            f"training ended in a burst: {found} (gradient_clip and cool_down of "
            f"training.{looks[-1].stage} keep bursts small)"
        )
    return f"training ended worse than it had been: {found}"


def _would_rise_again(stage: Stage, settings: StageSettings) -> bool:
    """Returns whether ``warm_up_again``, which is not set, would change the learning rate."""
    again = settings.model_copy(update={"warm_up_again": True})
    differ = len(openings(stage, again)) > len(openings(stage, settings))
    return differ and settings.warm_up > 0


def _error(stage: str, epoch: int, reason: str, *, slower: bool) -> CollapsedError:
    hint = "the same command without --stop-on-collapse   (trains on from here)"
    if slower:
        hint = (
            f"--set training.{stage}.warm_up_again=true   (another cell, whose learning rate rises "
            f"again when the code begins to learn), or {hint}"
        )
    return CollapsedError(
        f"Training has collapsed: {reason}, and so at the last {LOOKS} looks, up to epoch {epoch} "
        f"of stage '{stage}'.",
        hint=hint,
    )
