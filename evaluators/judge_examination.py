"""How a judge does on real clips it never saw: accuracy, confusion, calibration, corruptions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from vdsm_bench.contracts import Floats, Integers, Judge, LabelledClips
from vdsm_bench.evaluators.outputs import batches
from vdsm_bench.evaluators.pairs import check_labels, choose_clips

#: bins of equal width between 0 and 1 by which confidences are compared with accuracies
CALIBRATION_BINS = 15
#: clips that are corrupted, at most
_CORRUPTED_CLIPS = 1000
_BATCH = 64


@dataclass(frozen=True)
class Calibration:
    """Whether a judge is as often right as it is sure (Guo et al., ICML 2017).

    Attributes:
        ece: expected calibration error, the mean over clips of |accuracy - confidence| of their
            bin; 0 is best.
        counts: clips per bin of the confidence (the largest probability), bins of equal width.
        confidence: mean confidence per bin, None where it is empty.
        accuracy: share of right answers per bin, None where it is empty.
    """

    ece: float
    counts: Sequence[int]
    confidence: Sequence[float | None]
    accuracy: Sequence[float | None]


@dataclass(frozen=True)
class Examination:
    """How a judge does on real clips it was not trained on; everything is per factor.

    Attributes:
        n: clips.
        accuracy: share of right labels.
        class_accuracy: mean over the classes that occur of the share of right labels among their
            clips. A judge that always gives one answer gets 1 / classes, however often that
            answer is right.
        confusion: rows are labels, columns are answers, entries are clips.
        calibration: confidence against accuracy.
    """

    n: int
    accuracy: Mapping[str, float]
    class_accuracy: Mapping[str, float]
    confusion: Mapping[str, Sequence[Sequence[int]]]
    calibration: Mapping[str, Calibration]


def examine(judge: Judge, clips: LabelledClips) -> Examination:
    """Judges labelled real clips.

    Raises:
        DataError: labels missing or out of range, or no clips.
    """
    n = check_labels(clips.labels, judge.factors, "examination of the judge")
    said = [judge.predict(clips.clips(rows)) for rows in batches(n, _BATCH)]
    accuracy, class_accuracy, confusion, calibration = {}, {}, {}, {}
    for factor in judge.factors:
        values = np.concatenate([part[factor.name] for part in said])
        guess, label = values.argmax(1), np.asarray(clips.labels[factor.name])
        table = np.zeros((len(factor.classes), len(factor.classes)), dtype=np.int64)
        np.add.at(table, (label, guess), 1)
        occur = table.sum(1) > 0
        accuracy[factor.name] = float((guess == label).mean())
        class_accuracy[factor.name] = float((table.diagonal()[occur] / table.sum(1)[occur]).mean())
        confusion[factor.name] = table.tolist()
        calibration[factor.name] = calibrate(np.exp(values.max(1)), guess == label)
    return Examination(n, accuracy, class_accuracy, confusion, calibration)


def calibrate(confidence: Floats, right: np.ndarray) -> Calibration:
    """Sorts answers into bins of their confidence and compares it with how often they are right.

    Args:
        confidence: probability of the given answer, in [0, 1], ``[N]``.
        right: whether the answer is right, bool ``[N]``.
    """
    # rounding may put the exponential of a log-probability a little above 1
    place = np.minimum(
        (confidence.clip(0, 1) * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1
    )
    counts = np.bincount(place, minlength=CALIBRATION_BINS)
    sure = np.bincount(place, weights=confidence, minlength=CALIBRATION_BINS)
    hits = np.bincount(place, weights=right.astype(float), minlength=CALIBRATION_BINS)
    return Calibration(
        ece=float(np.abs(hits - sure).sum() / len(confidence)),
        counts=counts.tolist(),
        confidence=_per_bin(sure, counts),
        accuracy=_per_bin(hits, counts),
    )


def _per_bin(total: np.ndarray, counts: np.ndarray) -> list[float | None]:
    pairs = zip(total.tolist(), counts.tolist(), strict=True)
    return [value / count if count else None for value, count in pairs]


# --- corruptions that keep every label ----------------------------------------------------------


def blur(clip: Tensor) -> Tensor:
    """Takes the 3 x 3 mean of every frame of ``[B, T, C, H, W]``, edges repeated."""
    return _of_frames(clip, lambda frames: functional.avg_pool2d(_padded(frames, 1), 3, stride=1))


def coarsen(clip: Tensor) -> Tensor:
    """Scales every frame of ``[B, T, C, H, W]`` to three quarters of its size and back."""

    def there_and_back(frames: Tensor) -> Tensor:
        height, width = frames.shape[2:]
        small = functional.interpolate(
            frames,
            (round(height * 0.75), round(width * 0.75)),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        return functional.interpolate(
            small, (height, width), mode="bilinear", align_corners=False
        ).clamp(0, 1)

    return _of_frames(clip, there_and_back)


def shift(clip: Tensor) -> Tensor:
    """Moves every frame of ``[B, T, C, H, W]`` down and right by 1/16 of its size (1 at least)."""
    height, width = clip.shape[3:]
    reach = max(1, min(height, width) // 16)
    return _of_frames(clip, lambda frames: _padded(frames, reach)[:, :, :height, :width])


CORRUPTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "blur": blur,
    "resize": coarsen,
    "shift": shift,
}


def corrupted(clips: LabelledClips, name: str) -> LabelledClips:
    """Returns (at most 1,000 of) the clips, corrupted, with the labels they keep."""
    rows = choose_clips(len(clips), _CORRUPTED_CLIPS)
    return LabelledClips(
        lambda chosen: CORRUPTIONS[name](clips.clips(rows[chosen])),
        {factor: np.asarray(labels)[rows] for factor, labels in clips.labels.items()},
    )


def _padded(frames: Tensor, reach: int) -> Tensor:
    return functional.pad(frames, (reach, reach, reach, reach), mode="replicate")


def _of_frames(clip: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    return change(clip.flatten(0, 1)).reshape(clip.shape)


# --- which clips a judge has seen ---------------------------------------------------------------


def pixel_digests(clips: LabelledClips) -> list[bytes]:
    """Computes a digest of the 8-bit pixels of every clip; equal clips have equal digests."""
    return [
        hashlib.blake2b(clip.tobytes(), digest_size=16).digest()
        for rows in batches(len(clips), _BATCH)
        for clip in _eight_bit(clips, rows)
    ]


def clips_digest(clips: LabelledClips) -> str:
    """Computes one digest of clips and labels, in their order: what a judge was trained on."""
    whole = hashlib.blake2b(digest_size=16)
    for digest in pixel_digests(clips):
        whole.update(digest)
    for name in sorted(clips.labels):
        whole.update(name.encode() + np.asarray(clips.labels[name], dtype=np.int64).tobytes())
    return whole.hexdigest()


def _eight_bit(clips: LabelledClips, rows: Integers) -> np.ndarray:
    found: np.ndarray = clips.clips(rows).mul(255).round().clamp(0, 255).byte().cpu().numpy()
    return found
