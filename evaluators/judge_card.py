"""The judge's card: how good it is on real clips it never saw, its gates, and its folder."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from vdsm_bench.config import JudgeSettings, content_key
from vdsm_bench.contracts import ClipShape, Factor, LabelledClips
from vdsm_bench.errors import DataError, ProtocolError
from vdsm_bench.evaluators.judge import JUDGE_VERSION, JudgeNetwork, NeuralJudge
from vdsm_bench.evaluators.judge_training import EpochProgress, TrainedJudge, train_judge
from vdsm_bench.evaluators.pairs import check_labels
from vdsm_bench.files import hold, read_json, sync_folder, write_bytes, write_json

_WEIGHTS, _CARD = "weights.safetensors", "card.json"
_AGAIN = "rm -r {}   (the next run trains the judge anew)"


@dataclass(frozen=True)
class Examination:
    """How a judge does on real clips it was not trained on.

    Attributes:
        n: clips.
        accuracy: share of right labels per factor.
        confusion: per factor, rows are labels, columns are answers, entries are clips.
    """

    n: int
    accuracy: Mapping[str, float]
    confusion: Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True)
class JudgeCard:
    """What is known about a judge; it stands beside the weights as ``card.json``.

    Attributes:
        version: :data:`~vdsm_bench.evaluators.judge.JUDGE_VERSION` it was trained by.
        settings: its :class:`~vdsm_bench.config.JudgeSettings`.
        shape: ``[T, C, H, W]`` of the training clips.
        factors: what it judges: name, kind, classes.
        unscorable: factors that are left out, with the reason.
        n_train: training clips.
        epoch: the epoch that was kept, counted from 0.
        history: figures per epoch.
        examinations: ``validation`` (chose the epoch), ``test`` and, where there are such clips,
            ``cells`` (identity x action cells that were not trained on).
        weights_sha256: digest of the weights' file; filled in by :func:`save_judge`.
    """

    version: int
    settings: Mapping[str, Any]
    shape: Sequence[int]
    factors: Sequence[Mapping[str, Any]]
    unscorable: Mapping[str, str]
    n_train: int
    epoch: int
    history: Sequence[Mapping[str, float]]
    examinations: Mapping[str, Examination] = field(default_factory=dict)
    weights_sha256: str = ""


def examine(judge: NeuralJudge, clips: LabelledClips, batch_size: int = 64) -> Examination:
    """Judges labelled real clips.

    Raises:
        DataError: labels missing or out of range, or no clips.
    """
    n = check_labels(clips.labels, judge.factors, "examination of the judge")
    guesses: dict[str, list[np.ndarray]] = {factor.name: [] for factor in judge.factors}
    for start in range(0, n, batch_size):
        rows = np.arange(start, min(start + batch_size, n), dtype=np.int64)
        for name, values in judge.predict(clips.clips(rows)).items():
            guesses[name].append(values.argmax(1))
    accuracy, confusion = {}, {}
    for factor in judge.factors:
        guess, label = np.concatenate(guesses[factor.name]), clips.labels[factor.name]
        table = np.zeros((len(factor.classes), len(factor.classes)), dtype=np.int64)
        np.add.at(table, (label, guess), 1)
        accuracy[factor.name] = float((guess == label).mean())
        confusion[factor.name] = table.tolist()
    return Examination(n, accuracy, confusion)


def gate(card: JudgeCard, settings: JudgeSettings) -> None:
    """Lets a judge speak only if it is right on real clips it never saw.

    Two gates: accuracy per factor on held-out test clips against ``floor``, and on identity x
    action cells that were held out of its training against ``cells_floor`` (a judge whose action
    head leans on the identity passes the first and fails the second).

    Raises:
        ProtocolError: a factor is below its floor; names gate, factor, value and floor.
    """
    for name, floor, key in (
        ("test", settings.floor, "floor"),
        ("cells", settings.cells_floor, "cells_floor"),
    ):
        found = card.examinations.get(name)
        if found is None:
            continue
        failed = [
            f"'{factor}' {value:.3f}" for factor, value in found.accuracy.items() if value < floor
        ]
        if failed:
            raise ProtocolError(
                f"The judge failed the {name} gate: {', '.join(failed)} on {found.n} real held-out "
                f"clips, floor {floor:.3f}. Nothing is scored.",
                hint="--set judge.epochs=30 (train it longer), or state a lower bar with "
                f"--set judge.{key}=...",
            )


def judge_key(settings: JudgeSettings, data: Mapping[str, Any]) -> str:
    """Returns the hash that names a judge's folder.

    The floors are no part of it: a judge is the same judge whatever is asked of it.

    Args:
        settings: the judge's settings.
        data: JSON-able facts that fix the training clips: dataset fingerprint, split, size, frames.
    """
    trained_by = settings.model_dump(exclude={"floor", "cells_floor"})
    return content_key({"version": JUDGE_VERSION, "settings": trained_by, "data": dict(data)})


def obtain_judge(
    folder: Path,
    *,
    train: LabelledClips,
    validation: LabelledClips,
    test: LabelledClips,
    factors: Sequence[Factor],
    settings: JudgeSettings,
    cells: LabelledClips | None = None,
    unscorable: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
    progress: EpochProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[NeuralJudge, JudgeCard]:
    """Loads the judge of a folder, or trains, examines and saves it there; then asks the gates.

    A judge that fails its gate is kept with its card, so that it can be looked at and the refusal
    costs nothing the second time. Of two processes one trains, the other waits and loads.

    Args:
        folder: ``<runs>/judges/<dataset>/<protocol>-<hash8>``, see :func:`judge_key`.
        train: real training clips; nothing else is trained on.
        validation: chooses the epoch.
        test: held-out real clips of the first gate.
        factors: the dataset's factors.
        settings: the judge's settings.
        cells: clips of identity x action cells that are not in ``train``, or None.
        unscorable: factors that cannot be judged, with the reason.
        device: where it runs.
        progress: called after every epoch.
        say: told whom it waits for, where another process trains this judge.

    Raises:
        DataError: damaged judge folder, or labels that do not fit the clips.
        ProtocolError: the judge failed a gate.
    """
    with hold(folder, f"the judge {folder}", say=say):
        if folder.exists():
            judge, card = load_judge(folder, device)
        else:
            for leftover in folder.parent.glob(f".{folder.name}-*"):  # of a killed run
                shutil.rmtree(leftover, ignore_errors=True)
            left_out = dict(unscorable or {})
            trained = train_judge(
                train,
                validation,
                factors=[factor for factor in factors if factor.name not in left_out],
                settings=settings,
                device=device,
                progress=progress,
            )
            judge = trained.judge
            card = _card(trained, settings, len(train), left_out, validation, test, cells)
            save_judge(judge, card, folder)
    gate(card, settings)
    return judge, card


def _card(
    trained: TrainedJudge,
    settings: JudgeSettings,
    n_train: int,
    unscorable: Mapping[str, str],
    validation: LabelledClips,
    test: LabelledClips,
    cells: LabelledClips | None,
) -> JudgeCard:
    judge, shape = trained.judge, trained.judge.shape
    asked = {"validation": validation, "test": test, "cells": cells}
    return JudgeCard(
        version=JUDGE_VERSION,
        settings=settings.model_dump(),
        shape=[shape.frames, shape.channels, shape.height, shape.width],
        factors=[asdict(factor) for factor in judge.factors],
        unscorable=unscorable,
        n_train=n_train,
        epoch=trained.epoch,
        history=trained.history,
        examinations={
            name: examine(judge, clips) for name, clips in asked.items() if clips is not None
        },
    )


def save_judge(judge: NeuralJudge, card: JudgeCard, folder: Path) -> None:
    """Writes weights and card; the folder appears whole or not at all.

    Raises:
        DataError: the folder exists.
    """
    if folder.exists():
        raise DataError(f"The judge folder {folder} exists already.", hint=_again(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        state = {key: value.cpu().contiguous() for key, value in judge.network.state_dict().items()}
        weights = save(state)
        card = replace(card, weights_sha256=_digest(weights))
        write_bytes(temporary / _WEIGHTS, weights)
        write_json(temporary / _CARD, asdict(card))
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide it from colleagues
        temporary.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load_card(folder: Path) -> JudgeCard:
    """Reads the card of a judge's folder.

    Raises:
        DataError: it is missing or damaged, or another version of the program wrote it.
    """
    path = folder / _CARD
    try:
        content = read_json(path)
        examinations = {
            name: Examination(**found) for name, found in content.pop("examinations").items()
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
            network = JudgeNetwork(
                [Factor(f["name"], f["kind"], tuple(f["classes"])) for f in card.factors],
                channels=shape.channels,
                height=shape.height,
                width=shape.width,
                base=card.settings["width"],
            )
        network.load_state_dict(load(weights))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DataError(
            f"The judge's weights {path} do not load: {first}.", hint=_again(folder)
        ) from error
    return NeuralJudge(network, shape, torch.device(device)), card


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _again(folder: Path) -> str:
    return _AGAIN.format(shlex.quote(str(folder)))
