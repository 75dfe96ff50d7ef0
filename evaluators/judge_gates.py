"""The gates: what a judge has to prove on real clips before it may score anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vdsm_bench.config import JudgeSettings
from vdsm_bench.errors import ProtocolError
from vdsm_bench.evaluators.judge_examination import CORRUPTIONS, Examination

#: examination to the setting that holds its floor
FLOORS = {
    "test": "floor",
    "cells": "cells_floor",
    **dict.fromkeys(CORRUPTIONS, "corruptions_floor"),
}
#: gates that no constant answer may pass, however common its class is; of ``cells`` the clips are
#: to show two classes, which sets of fewer than six combinations cannot spare
_BY_CLASS = ("test", "cells")


@dataclass(frozen=True)
class Gate:
    """One gate of one judge.

    Attributes:
        name: ``test``, ``cells``, ``blur``, ``resize`` or ``shift``.
        floor: what every factor has to reach.
        setting: the setting that holds the floor.
        n: real clips it was asked about.
        found: value per factor; of ``test`` and ``cells`` the lower of the share of right clips
            and its mean over classes.
    """

    name: str
    floor: float
    setting: str
    n: int
    found: Mapping[str, float]

    @property
    def failed(self) -> dict[str, float]:
        """The factors below the floor."""
        return {factor: value for factor, value in self.found.items() if value < self.floor}

    @property
    def lowest(self) -> float:
        """The value of the worst factor."""
        return min(self.found.values())


def gates(examinations: Mapping[str, Examination], settings: JudgeSettings) -> list[Gate]:
    """Returns every gate that a judge was examined for."""
    return [
        _gate(name, examinations[name], setting, settings)
        for name, setting in FLOORS.items()
        if name in examinations
    ]


def _gate(name: str, found: Examination, setting: str, settings: JudgeSettings) -> Gate:
    values = dict(found.accuracy)
    if name in _BY_CLASS:
        values = {factor: min(v, found.class_accuracy[factor]) for factor, v in values.items()}
    return Gate(name, getattr(settings, setting), setting, found.n, values)


def ask_gates(judges: Mapping[str, Mapping[str, Examination]], settings: JudgeSettings) -> None:
    """Lets judges speak only if every one is right on real clips it never saw.

    Accuracy per factor on held-out test clips against ``floor``; on identity x action cells that
    were held out of its training against ``cells_floor`` (a judge whose action head leans on the
    identity passes the first and fails the second); on blurred, coarsened and shifted test clips
    against ``corruptions_floor`` (a judge that reads blur as a class would score a blurry model
    for its blur).

    Args:
        judges: what each judge is called, and its examinations.
        settings: the floors.

    Raises:
        ProtocolError: a factor is below its floor; names judge, gate, factor, value and floor.
    """
    failed = [
        (name, gate)
        for name, examinations in judges.items()
        for gate in gates(examinations, settings)
        if gate.failed
    ]
    if failed:
        text = "; ".join(_told(name if len(judges) > 1 else "", gate) for name, gate in failed)
        setting = failed[0][1].setting
        raise ProtocolError(
            f"{text}. Nothing is scored.",
            hint=f"--set judge.epochs={2 * settings.epochs} (train longer), or state a lower "
            f"bar with --set judge.{setting}=...",
        )


def _told(name: str, gate: Gate) -> str:
    factors: Sequence[str] = [f"'{factor}' {value:.3f}" for factor, value in gate.failed.items()]
    who = f"The judge {name}".rstrip()
    return (
        f"{who} failed the {gate.name} gate: {', '.join(factors)} on {gate.n} real held-out clips, "
        f"floor {gate.floor:.3f}"
    )
