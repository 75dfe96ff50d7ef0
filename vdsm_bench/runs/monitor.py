"""What is watched while a model trains: mixing weights, leaks, collapse; it decides nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vdsm_bench.contracts import Codes, Integers, LabelledClips, VideoModel
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.folder import CellFolder
from vdsm_bench.runs.protocol import ScoringProtocol, tool

#: clips that are looked at after every epoch, and once at the end: validation clips, and training
#: clips where those are too few; the first few of them are shown to the model's own diagnosis
EVERY_EPOCH, AT_THE_END, _DIAGNOSED = 128, 512, 64
#: standard errors by which a probe must beat chance
_MARGIN = 2.0
Probes = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Health:
    """Whether a model's identity code says anything.

    Attributes:
        figures: of the fixed clips, as in train.jsonl and on the progress line.
        collapsed: whether the identity code tells clips apart by nothing that can be seen here;
            None where the model cannot encode.
        warning: said in the log, in the status and in the row, or None.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    collapsed: bool | None = None
    warning: str | None = None


class Monitor:
    """Looks at a model after every epoch, always on the same clips: of validation first.

    Args:
        bench: whose clips are looked at.
        protocol: where the quick probes come from.
        folder: of the cell; its status is kept up to date.
        device: where the model is.
        clips: how many clips are looked at.
    """

    def __init__(
        self,
        bench: Bench,
        protocol: ScoringProtocol,
        folder: CellFolder,
        device: str,
        clips: int = EVERY_EPOCH,
    ) -> None:
        self._bench, self._protocol, self._folder = bench, protocol, folder
        self._device, self._count = device, clips

    @cached_property
    def _looked_at(self) -> LabelledClips:
        choose = tool(self._protocol.table, "choose_clips")
        splits = self._bench.splits
        indices: Integers = splits.validation[choose(len(splits.validation), self._count)]
        missing = self._count - len(indices)
        if missing > 0:
            more = splits.train[choose(len(splits.train), missing)]
            indices = np.concatenate([indices, more])
        return self._bench.clips(indices)

    @cached_property
    def _clips(self) -> Tensor:
        return self._looked_at.clips(np.arange(len(self._looked_at)))

    def on_epoch(self, stage: str, epoch: int, model: VideoModel) -> dict[str, Any]:
        """Returns the figures of one epoch; the model is in evaluation mode."""
        self._folder.write_status("training", stage=stage, epoch=epoch + 1)
        return self.look(model).figures

    @torch.no_grad()
    def look(self, model: VideoModel) -> Health:
        """Looks at a model in evaluation mode.

        Figures: the model's own (:meth:`VideoModel.diagnose`), probes of every factor from every
        code beside chance (``probes``), and their means over static and dynamic factors
        (``action_from_identity`` and ``identity_from_motion`` are the leaks).
        """
        if "encode" not in model.capabilities or len(self._looked_at) < 3:
            return Health()
        clips = self._clips.to(self._device)
        figures: dict[str, Any] = dict(model.diagnose(clips[:_DIAGNOSED]))
        codes = model.encode(clips)
        probes = self._probes(codes)
        figures.update(self._means(probes))
        warning = self._collapse(model, codes, probes)
        figures["collapsed"] = warning is not None
        figures["probes"] = probes
        return Health(figures, warning is not None, warning)

    def _probes(self, codes: Codes) -> Probes:
        table = self._protocol.table
        probes: Probes = tool(table, "quick_leaks")(
            tool(table, "code_views")(codes), self._looked_at.labels, self._bench.store.factors
        )
        return probes

    def _names(self, kind: str) -> list[str]:
        return [factor.name for factor in self._bench.store.factors if factor.kind == kind]

    def _means(self, probes: Probes) -> dict[str, float]:
        """Returns what each code tells of identity and action, with chance beside it."""
        means = {}
        for what, kind in (("identity", "static"), ("action", "dynamic")):
            rows = [probes[name] for name in self._names(kind)]
            for code in rows[0] if rows else ():
                key = f"{what}_chance" if code == "chance" else f"{what}_from_{code}"
                means[key] = round(float(np.mean([row[code] for row in rows])), 4)
        return means

    def _collapse(self, model: VideoModel, codes: Codes, probes: Probes) -> str | None:
        """Returns why the identity code counts as collapsed, or None."""
        weights = model.mixing_weights(codes.identity)
        if weights is not None:
            report = tool(self._protocol.table, "collapse_report")(weights.double().cpu().numpy())
            if report.collapsed:
                return (
                    "the identity code has collapsed: the mixing weights are the same for all "
                    f"clips (they share {report.mutual_information:.3f} nats with the clip, of "
                    f"{math.log(weights.shape[1]):.3f} possible)"
                )
        names = self._names("static")
        if names and not any(self._beats_chance(probes[name]) for name in names):
            return "the identity code has collapsed: " + _said(names, probes)
        return None

    def _beats_chance(self, row: dict[str, float]) -> bool:
        held_back = max(1, len(self._looked_at) // 3)
        error = math.sqrt(row["chance"] * (1 - row["chance"]) / held_back)
        return row["identity"] > row["chance"] + _MARGIN * error


def _said(names: Sequence[str], probes: Probes) -> str:
    parts = [f"{n} {probes[n]['identity']:.2f} (chance {probes[n]['chance']:.2f})" for n in names]
    return f"no static factor is read from it better than by chance: {', '.join(parts)}"
