"""One judge in its folder: weights, and a card of what is known about it."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from vdsm_bench.config import JudgeChoice, JudgeSettings, content_key
from vdsm_bench.contracts import ClipShape, Factor, LabelledClips
from vdsm_bench.errors import DataError, ProtocolError
from vdsm_bench.evaluators.judge import JUDGE_VERSION, NeuralJudge
from vdsm_bench.evaluators.judge_examination import (
    CORRUPTIONS,
    Calibration,
    Examination,
    clips_digest,
    corrupted,
    examine,
    pixel_digests,
)
from vdsm_bench.evaluators.judge_networks import build_network
from vdsm_bench.evaluators.judge_training import EpochProgress, TrainedJudge, train_judge
from vdsm_bench.files import hold, move_aside, read_json, sync_folder, write_bytes, write_json

_WEIGHTS, _CARD = "weights.safetensors", "card.json"
_AGAIN = "rm -r {}   (the next run trains the judge anew)"


@dataclass(frozen=True)
class JudgeClips:
    """The real clips of one protocol: what judges learn from, and what examines them.

    Attributes:
        train: nothing else is trained on.
        validation: chooses the epoch.
        test: held-out clips of the first gate and, corrupted, of the last.
        cells: clips of identity x action cells that are not in ``train``, or None.
    """

    train: LabelledClips
    validation: LabelledClips
    test: LabelledClips
    cells: LabelledClips | None = None

    @cached_property
    def train_digest(self) -> str:
        """Digest of pixels and labels of the training clips."""
        return clips_digest(self.train)

    @cached_property
    def leaks(self) -> Mapping[str, int]:
        """Held-out clips that are, pixel for pixel, among those a judge learns from."""
        seen = {*pixel_digests(self.train), *pixel_digests(self.validation)}
        held_out = {"test": self.test, "cells": self.cells}
        counts = {
            name: sum(digest in seen for digest in pixel_digests(part))
            for name, part in held_out.items()
            if part is not None
        }
        return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class JudgeCard:
    """What is known about a judge; it stands beside the weights as ``card.json``.

    Attributes:
        version: :data:`~vdsm_bench.evaluators.judge.JUDGE_VERSION` it was trained by.
        settings: architecture, seed and what else it was trained by.
        shape: ``[T, C, H, W]`` of the training clips.
        factors: what it judges: name, kind, classes.
        unscorable: factors that are left out, with the reason.
        n_train: training clips.
        train_digest: digest of pixels and labels of the training clips.
        epoch: the epoch that was kept, counted from 0.
        history: figures per epoch.
        examinations: ``validation`` (chose the epoch), ``test``, where there are such clips
            ``cells`` (identity x action cells that were not trained on), and the test clips
            corrupted: ``blur``, ``resize``, ``shift``.
        weights_sha256: digest of the weights' file; filled in by :func:`save_judge`.
    """

    version: int
    settings: Mapping[str, Any]
    shape: Sequence[int]
    factors: Sequence[Mapping[str, Any]]
    unscorable: Mapping[str, str]
    n_train: int
    train_digest: str
    epoch: int
    history: Sequence[Mapping[str, float]]
    examinations: Mapping[str, Examination] = field(default_factory=dict)
    weights_sha256: str = ""

    @property
    def choice(self) -> JudgeChoice:
        """Its architecture and seed."""
        return JudgeChoice(self.settings["architecture"], self.settings["seed"])


def judge_key(
    settings: JudgeSettings, data: Mapping[str, Any], choice: JudgeChoice | None = None
) -> str:
    """Returns the hash that names a judge's folder.

    Neither the floors nor its fellows are part of it: a judge is the same judge whatever is asked
    of it, and whoever judges beside it.

    Args:
        settings: the judges' settings.
        data: JSON-able facts that fix the training clips: dataset fingerprint, split, size, frames.
        choice: architecture and seed; the first of the settings if None.
    """
    trained_by = settings.training(choice or settings.choices[0])
    return content_key({"version": JUDGE_VERSION, "settings": trained_by, "data": dict(data)})


def obtain_judge(
    folder: Path,
    clips: JudgeClips,
    *,
    factors: Sequence[Factor],
    settings: JudgeSettings,
    choice: JudgeChoice | None = None,
    unscorable: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
    progress: EpochProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[NeuralJudge, JudgeCard]:
    """Loads the judge of a folder, or trains, examines and saves it there; asks no gate.

    Of two processes one trains, the other waits and loads.

    Args:
        folder: ``<runs>/judges/<dataset>/<protocol>-<hash8>``, see :func:`judge_key`.
        clips: what it learns from and is examined on.
        factors: the dataset's factors.
        settings: the judges' settings.
        choice: architecture and seed; the first of the settings if None.
        unscorable: factors that cannot be judged, with the reason.
        device: where it runs.
        progress: called after every epoch.
        say: told whom it waits for, where another process trains this judge.

    Raises:
        DataError: damaged judge folder, or labels that do not fit the clips.
        ProtocolError: a held-out clip is among the clips it learns from, or the judge that lies
            there learnt from other clips than ``clips.train``.
    """
    with hold(folder, f"the judge {folder}", say=say):
        _set_aside_what_is_no_judge(folder)
        if folder.exists():
            judge, card = load_judge(folder, device)
            _refuse_another_school(card, clips, folder)
            return judge, card
        for leftover in folder.parent.glob(f".{folder.name}-*"):  # of a killed run
            shutil.rmtree(leftover, ignore_errors=True)
        if clips.leaks:
            counts = ", ".join(f"{count} of '{name}'" for name, count in clips.leaks.items())
            raise ProtocolError(
                f"The judge failed the disjoint gate: held-out clips ({counts}) are training or "
                "validation clips, pixel for pixel. Nothing is scored.",
                hint=f"vdsm-bench data check {folder.parent.name}   (which clips, in which split)",
            )
        left_out = dict(unscorable or {})
        choice = choice or settings.choices[0]
        trained = train_judge(
            clips.train,
            clips.validation,
            factors=[factor for factor in factors if factor.name not in left_out],
            settings=settings,
            choice=choice,
            device=device,
            progress=progress,
        )
        card = _card(trained, settings.training(choice), clips, left_out)
        return trained.judge, save_judge(trained.judge, card, folder)


def _set_aside_what_is_no_judge(folder: Path) -> None:
    """Controls alone are of a run that scored them while its judge was moved aside."""
    if folder.exists() and not {_WEIGHTS, _CARD} & {path.name for path in folder.iterdir()}:
        move_aside(folder)


def _refuse_another_school(card: JudgeCard, clips: JudgeClips, folder: Path) -> None:
    """Lets no judge speak that learnt from anything but this protocol's training clips."""
    if card.train_digest != clips.train_digest:
        raise ProtocolError(
            f"The judge {folder} failed the training gate: the {card.n_train} clips it learnt from "
            f"are not the {len(clips.train)} training clips of this protocol. Nothing is scored.",
            hint=_again(folder),
        )


def _card(
    trained: TrainedJudge,
    settings: Mapping[str, Any],
    clips: JudgeClips,
    unscorable: Mapping[str, str],
) -> JudgeCard:
    judge, shape = trained.judge, trained.judge.shape
    asked = {"validation": clips.validation, "test": clips.test, "cells": clips.cells}
    asked |= {name: corrupted(clips.test, name) for name in CORRUPTIONS}
    return JudgeCard(
        version=JUDGE_VERSION,
        settings=settings,
        shape=[shape.frames, shape.channels, shape.height, shape.width],
        factors=[asdict(factor) for factor in judge.factors],
        unscorable=unscorable,
        n_train=trained.n_train,
        train_digest=trained.train_digest,
        epoch=trained.epoch,
        history=trained.history,
        examinations={
            name: examine(judge, part) for name, part in asked.items() if part is not None
        },
    )


def save_judge(judge: NeuralJudge, card: JudgeCard, folder: Path) -> JudgeCard:
    """Writes weights and card; the folder appears whole or not at all.

    Returns:
        The card as it was written, with the digest of the weights.

    Raises:
        DataError: the folder exists.
    """
    _set_aside_what_is_no_judge(folder)
    if folder.exists():
        raise DataError(f"The judge folder {folder} exists already.", hint=_again(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        weights = weights_of(judge)
        card = replace(card, weights_sha256=_digest(weights))
        write_bytes(temporary / _WEIGHTS, weights)
        write_json(temporary / _CARD, asdict(card))
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide it from colleagues
        temporary.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return card


def weights_of(judge: NeuralJudge) -> bytes:
    """Returns the weights as the content of a safetensors file."""
    state = judge.network.state_dict()
    return save({key: value.cpu().contiguous() for key, value in state.items()})


def load_card(folder: Path) -> JudgeCard:
    """Reads the card of a judge's folder.

    Raises:
        DataError: it is missing or damaged, or another version of the program wrote it.
    """
    path = folder / _CARD
    try:
        content = read_json(path)
        examinations = {
            name: _examination(found) for name, found in content.pop("examinations").items()
        }
        card = JudgeCard(**content, examinations=examinations)
    except (DataError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"The judge's card {path} does not read: {error}.", hint=_again(folder)
        ) from error
    if card.version != JUDGE_VERSION:
        raise DataError(
            f"{path} is of judge version {card.version}; this program needs {JUDGE_VERSION}.",
            hint=_again(folder),
        )
    return card


def _examination(found: dict[str, Any]) -> Examination:
    calibration = {name: Calibration(**values) for name, values in found.pop("calibration").items()}
    return Examination(**found, calibration=calibration)


def load_judge(folder: Path, device: torch.device | str = "cpu") -> tuple[NeuralJudge, JudgeCard]:
    """Reads a judge and its card; nothing is unpickled.

    Raises:
        DataError: a file is missing or damaged, or weights and card do not belong together.
    """
    card = load_card(folder)
    path = folder / _WEIGHTS
    try:
        weights = path.read_bytes()
        if _digest(weights) != card.weights_sha256:
            raise ValueError("they are not the ones its card was written for")
        shape = ClipShape(*card.shape)
        with torch.random.fork_rng(devices=[]):  # loading a judge moves no global generator
            network = build_network(
                card.settings["architecture"],
                [Factor(f["name"], f["kind"], tuple(f["classes"])) for f in card.factors],
                shape,
                base=card.settings["width"],
            )
        network.load_state_dict(load(weights))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DataError(
            f"The judge's weights {path} do not load: {first}.", hint=_again(folder)
        ) from error
    return NeuralJudge(network, shape, torch.device(device)), card


def retrains_alike(
    card: JudgeCard,
    clips: JudgeClips,
    settings: JudgeSettings,
    *,
    device: torch.device | str = "cpu",
    progress: EpochProgress | None = None,
) -> bool:
    """Trains a judge anew and says whether its weights are those of the card, bit for bit.

    It is the proof that a judge learnt from the training clips and nothing else; the same
    machine and libraries give the same bits, another machine need not.
    """
    trained = train_judge(
        clips.train,
        clips.validation,
        factors=[Factor(f["name"], f["kind"], tuple(f["classes"])) for f in card.factors],
        settings=settings,
        choice=card.choice,
        device=device,
        progress=progress,
    )
    return _digest(weights_of(trained.judge)) == card.weights_sha256


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _again(folder: Path) -> str:
    return _AGAIN.format(shlex.quote(str(folder)))
