"""What is watched while a model trains: mixing weights, leaks, collapse; it decides nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vdsm_bench.contracts import (
    Codes,
    Floats,
    Integers,
    LabelledClips,
    VideoModel,
    check_clip,
    check_codes,
    check_posteriors,
)
from vdsm_bench.errors import ContractError
from vdsm_bench.runs.alarm import Settling, ended_worse
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.folder import CellFolder
from vdsm_bench.runs.judged_looks import JudgedLooks
from vdsm_bench.runs.protocol import GatedJudge, ScoringProtocol, tool
from vdsm_bench.seeding import generator
from vdsm_bench.training.journal import JOURNAL, read_looks

#: clips that are looked at after an epoch, and once at the end: validation clips, and training
#: clips where those are too few
EVERY_EPOCH, AT_THE_END = 128, 512
#: with fewer identities among validation clips, half of those looked at are training clips: a swap
#: within one identity changes nothing
_LEAST_IDENTITIES = 4
#: so many of them are regenerated with their own identity code and with another clip's
_SWAPPED_EVERY_EPOCH, _SWAPPED_AT_THE_END = 8, 32
#: clips that are encoded at once: at the paper's size 512 would take 16 GB; on a GPU, where a look
#: is mostly waiting for calls, as many as an epoch's look has
_TOGETHER, _TOGETHER_ON_CUDA = 32, EVERY_EPOCH
#: standard errors by which a probe must beat chance
_MARGIN = 2.0
Probes = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Health:
    """Whether a model's codes say anything.

    Attributes:
        figures: of the fixed clips, as in train.jsonl and on the progress line.
        collapsed: whether the model makes nothing of the identity code, or keeps nothing in that
            of the movement; None where it cannot encode.
        warning: said in the log, in the status and in the row, or None.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    collapsed: bool | None = None
    warning: str | None = None


class Monitor:
    """Looks at a model after epochs, always on the same clips: of validation first.

    Args:
        bench: whose clips are looked at.
        protocol: where the quick probes come from.
        folder: of the cell; its status is kept up to date.
        device: where the model is.
        clips: how many clips are looked at.
        settling: epochs of a stage before which a code is not said to have collapsed, 0 by default.
    """

    def __init__(
        self,
        bench: Bench,
        protocol: ScoringProtocol,
        folder: CellFolder,
        device: str,
        clips: int = EVERY_EPOCH,
        settling: Mapping[str, Settling] | None = None,
    ) -> None:
        self._bench, self._protocol, self._folder = bench, protocol, folder
        self._settling = settling or {}
        self._device, self._count = device, clips
        self._judge: JudgedLooks | None = None
        self.judged = 0  # looks

    def ask(self, judge: GatedJudge) -> None:
        """From now on every look has the scores of transfers among its clips, too."""
        self._judge = JudgedLooks(self._protocol, judge, self._looked_at)

    @cached_property
    def _looked_at(self) -> LabelledClips:
        choose = tool(self._protocol.table, "choose_clips")
        splits, identities = self._bench.splits, self._bench.store.identities
        indices: Integers = splits.validation[choose(len(splits.validation), self._count)]
        if len(np.unique(identities[indices])) < _LEAST_IDENTITIES:
            half = choose(len(splits.validation), self._count // 2)
            indices = splits.validation[half]
        missing = self._count - len(indices)
        if missing > 0:
            more = splits.train[choose(len(splits.train), missing)]
            indices = np.concatenate([indices, more])
        return self._bench.clips(indices)

    @cached_property
    def _clips(self) -> Tensor:
        clips = self._looked_at.clips(np.arange(len(self._looked_at)))
        return clips.to(self._device)  # once: a look is shorter than sending them

    def on_epoch(self, stage: str, epoch: int, model: VideoModel) -> dict[str, Any]:
        """Returns the figures of one epoch; the model is in evaluation mode."""
        self._folder.write_status("training", stage=stage, epoch=epoch + 1)
        settled = self._settling.get(stage, Settling(0, 0))
        figures = self.look(model, stage, moves=epoch >= settled.moving).figures
        if "collapsed" in figures and epoch < settled.identity:
            return {**figures, "collapsed": None}
        return figures

    @torch.no_grad()
    def look(self, model: VideoModel, stage: str | None = None, *, moves: bool = True) -> Health:
        """Looks at a model in evaluation mode, at the end (``stage`` None) or while it trains.

        Where it does not move yet (``moves``), its movement is not said to have collapsed.

        Figures: how experts are mixed where there are any, how many nats each code holds of which
        clip it is (``identity_information`` ...) and in how many directions clips lie apart in it
        (``identity_directions`` ...), what swapping identity codes costs
        (``swap_gap``) and those of the movement (``motion_gap``), how far a pose moves that is
        drawn with another clip's identity and read again (``drift``), what the judge says of
        transfers if it is asked (:meth:`ask`; ``dynamic_accuracy`` ...), probes of every factor
        from every code beside chance (``probes``), and their means over static and dynamic factors
        (``action_from_identity`` and ``identity_from_motion`` are the leaks).
        """
        if "encode" not in model.capabilities or len(self._looked_at) < 3:
            return Health()
        codes, scales = self._codes(model, self._clips)
        figures: dict[str, Any] = {**self._mixing(model, codes), **self._held(codes, scales)}
        swap = None
        if "generate" in model.capabilities:
            swap, moved, drift = self._swap(model, codes, stage)
            figures["swap_gap"] = round(swap.gap, 4) + 0.0  # no -0
            figures["motion_gap"] = round(moved.gap, 4) + 0.0
            figures["drift"] = round(drift, 4)
            if self._judge is not None:
                figures.update(self._judge(partial(self._exchanged, model, codes, stage)))
                self.judged += 1
        probes = self._probes(codes)
        figures.update(self._means(probes))
        moving = next((each.moving for each in model.stages() if each.name == stage), "motion")
        idle = tool(self._protocol.table, "idle_codes")(figures, moving)
        still = idle.get(moving) if moves else None
        grounds = [idle["identity"]] if "identity" in idle else []
        if swap is not None and swap.collapsed:
            grounds = [_said(swap)]
        unread = self._unread(probes)
        collapsed = bool(grounds) or (swap is None and unread is not None)
        grounds += [unread] if unread is not None else []
        claim = "has collapsed" if collapsed else "is in doubt"
        said = [f"the identity code {claim}: {'; '.join(grounds)}"] if grounds else []
        if still is not None:
            said.append(f"training has collapsed: {still}")
        collapsed = collapsed or still is not None
        figures.update(collapsed=collapsed, probes=probes)
        return Health(figures, collapsed, "; ".join(said) or None)

    def at_the_end(self, model: VideoModel) -> Health:
        """Looks at a trained model in evaluation mode; also says if it has been a better one."""
        health = self.look(model)
        worse = ended_worse(read_looks(self._folder.path / JOURNAL))
        said = [each for each in (health.warning, worse) if each is not None]
        return replace(health, warning="; ".join(said) or None)

    def _codes(self, model: VideoModel, clips: Tensor) -> tuple[Codes, Codes | None]:
        """Returns clips' codes, and the scales of their posteriors where the model has such."""
        means: list[Codes] = []
        scales: list[Codes] = []
        together = _TOGETHER_ON_CUDA if self._device == "cuda" else _TOGETHER
        for part in torch.split(clips, together):
            found, name = model.posteriors(part), type(model).__name__
            if found is None:
                means.append(check_codes(model.encode(part), len(part), f"{name}.encode"))
                continue
            mean, scale = check_posteriors(found, len(part), f"{name}.posteriors")
            means.append(mean)
            scales.append(scale)
        return _joined(means), _joined(scales) if scales else None

    def _held(self, means: Codes, scales: Codes | None) -> dict[str, float]:
        """Returns how much each code tells of which clip it is of, and in how many directions.

        Without a label; in nats.

        The pose is that of one frame per clip, first to last in turn.
        """
        if scales is None:
            return {}
        found = {}
        for name in ("identity", "motion", "pose"):
            mean, scale = getattr(means, name), getattr(scales, name)
            if mean is None:
                continue
            if name == "pose":
                clip = torch.arange(len(mean))
                mean, scale = (each[clip, clip % each.shape[1]] for each in (mean, scale))
            known = mean.cpu().double().numpy(), scale.cpu().double().numpy()
            nats = tool(self._protocol.table, "code_information")(*known)
            found[f"{name}_information"] = round(nats, 4)
            found[f"{name}_directions"] = tool(self._protocol.table, "code_directions")(*known)
        return found

    def _mixing(self, model: VideoModel, codes: Codes) -> dict[str, Any]:
        weights = model.mixing_weights(codes.identity)
        if weights is None:
            return {}
        figures = tool(self._protocol.table, "mixing_figures")(weights.cpu().double().numpy())
        return {name: round(value, 4) for name, value in figures.items()}

    def _swap(self, model: VideoModel, codes: Codes, stage: str | None) -> tuple[Any, Any, float]:
        """Regenerates some clips with their own codes, and with one of another clip's.

        Without a label, always the same clips, by what the stage trains. Returns what another
        clip's identity costs, what its movement does, and how far the poses (of a model without,
        the motion codes) lie apart that are read again off clips and off those with another
        identity.
        """
        n = _SWAPPED_AT_THE_END if stage is None else _SWAPPED_EVERY_EPOCH
        order = generator(0, "swap", n).permutation(len(self._clips))[:n]
        other = np.roll(order, 1)
        asked = [_mixed(codes, *rows) for rows in ((order, order), (other, order), (order, other))]
        made = self._made(model, _joined(asked), stage)
        errors = (made - torch.cat([self._clips[order]] * 3)).square().flatten(1).mean(1)
        own, *swapped = (each.numpy() for each in errors.cpu().double().chunk(3))
        identity, motion = (tool(self._protocol.table, "swap_gap")(own, each) for each in swapped)
        read = np.split(_moving(self._codes(model, made[: 2 * len(order)])[0]), 2)
        drift = tool(self._protocol.table, "code_drift")(*read, _moving(codes))
        return identity, motion, drift

    def _made(self, model: VideoModel, codes: Codes, stage: str | None) -> Tensor:
        """Returns the clips of codes, by what a stage trains or, with none, as they are scored.

        Raises:
            ContractError: they are no clips of as many frames and pixels as those looked at.
        """
        t, where = self._clips.shape[1], f"{type(model).__name__}.generate"
        if stage is None:
            made = check_clip(model.generate(codes, t), where)
        else:
            where = f"{type(model).__name__}.regenerate"
            made = check_clip(model.regenerate(codes, t, stage), where)
        expected = [len(codes.identity), *self._clips.shape[1:]]
        if list(made.shape) != expected:
            raise ContractError(
                f"{where}: expected {expected}, got {list(made.shape)}.",
                hint="return a clip for each of the codes, n_frames long, its frames as large as "
                "those of the 'clip' that the model was built for",
            )
        return made

    def _exchanged(
        self,
        model: VideoModel,
        codes: Codes,
        stage: str | None,
        identity_of: Integers,
        motion_of: Integers,
    ) -> Tensor:
        """Returns clips with the identity of some rows and the movement of others."""
        return self._made(model, _mixed(codes, identity_of, motion_of), stage).cpu()

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

    def _unread(self, probes: Probes) -> str | None:
        """Returns that the identity code tells of no static factor, or None where it does."""
        names = self._names("static")
        if not names or any(self._beats_chance(probes[name]) for name in names):
            return None
        parts = [
            f"{name} {probes[name]['identity']:.2f} (chance {probes[name]['chance']:.2f})"
            for name in names
        ]
        return f"no static factor is read from it better than by chance: {', '.join(parts)}"

    def _beats_chance(self, row: dict[str, float]) -> bool:
        held_back = max(1, len(self._looked_at) // 3)
        error = math.sqrt(row["chance"] * (1 - row["chance"]) / held_back)
        return row["identity"] > row["chance"] + _MARGIN * error


def _said(swap: Any) -> str:
    return (
        "clips are regenerated with another clip's as well as with their own "
        f"(error {swap.gap:+.1%}, p = {swap.p:.2g} of a signed-rank test that it rises)"
    )


def _moving(codes: Codes) -> Floats:
    """Returns what a model reads of the movement, ``[N, K]``: poses where it has them."""
    moving = codes.motion if codes.pose is None else codes.pose.flatten(0, 1)
    return moving.cpu().double().numpy()


def _mixed(codes: Codes, identity_of: Integers, motion_of: Integers) -> Codes:
    """Returns the identity codes of some rows with what moves in others."""
    pose = None if codes.pose is None else codes.pose[motion_of]
    return Codes(codes.identity[identity_of], codes.motion[motion_of], pose)


def _joined(parts: Sequence[Codes]) -> Codes:
    poses = [part.pose for part in parts if part.pose is not None]
    return Codes(
        torch.cat([part.identity for part in parts]),
        torch.cat([part.motion for part in parts]),
        torch.cat(poses) if len(poses) == len(parts) else None,
    )
