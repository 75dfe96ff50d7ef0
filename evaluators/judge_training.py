"""Training of the judge: real training clips only, epoch chosen on real validation clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vdsm_bench.config import JudgeChoice, JudgeSettings
from vdsm_bench.contracts import ClipShape, Factor, Integers, LabelledClips, check_clip
from vdsm_bench.errors import DataError, DivergedError, ProtocolError
from vdsm_bench.evaluators.judge import NeuralJudge
from vdsm_bench.evaluators.judge_examination import clips_digest
from vdsm_bench.evaluators.judge_networks import JudgeNetwork, build_network
from vdsm_bench.evaluators.pairs import check_labels
from vdsm_bench.seeding import derive_seed, generator

#: called with (epochs done, epochs in all, figures of the epoch)
EpochProgress = Callable[[int, int, Mapping[str, float]], None]
#: share of the steps over which the learning rate rises
_WARM_UP = 0.1


@dataclass(frozen=True)
class TrainedJudge:
    """A judge and how it came about.

    Attributes:
        judge: the network of the epoch that was kept.
        history: figures per epoch: training loss; validation loss and mean accuracy, if any.
        epoch: the epoch that was kept, counted from 0.
        n_train: clips it was trained on.
        train_digest: digest of their pixels and labels.
    """

    judge: NeuralJudge
    history: tuple[Mapping[str, float], ...]
    epoch: int
    n_train: int
    train_digest: str


def train_judge(
    train: LabelledClips,
    validation: LabelledClips | None,
    *,
    factors: Sequence[Factor],
    settings: JudgeSettings,
    choice: JudgeChoice | None = None,
    device: torch.device | str = "cpu",
    progress: EpochProgress | None = None,
) -> TrainedJudge:
    """Trains a judge; the epoch with the best mean accuracy on validation clips is kept.

    Same settings and clips give the same weights on the same machine; no global generator is
    moved. Augmentation keeps labels: small shifts, brightness, blur; nothing is mirrored.

    Args:
        train: real training clips.
        validation: real clips that choose the epoch; where there are none the last one is kept.
        factors: what is judged; leave out factors that cannot be scored.
        settings: epochs, batch size, learning rate, width.
        choice: architecture and seed; the first of the settings if None.
        device: where it is trained.
        progress: called after every epoch.

    Raises:
        DataError: labels missing, of unequal length or out of range; fewer than two clips.
        DivergedError: the loss became NaN or infinite.
        ProtocolError: no factor can be judged.
    """
    if not factors:
        raise ProtocolError("No factor can be judged: every one is unscorable.")
    n = check_labels(train.labels, factors, "judge, training clips")
    if validation is not None:
        check_labels(validation.labels, factors, "judge, validation clips")
    if n < 2:
        raise DataError(f"The judge needs at least two training clips, got {n}.")
    first = train.clips(np.zeros(1, dtype=np.int64))
    check_clip(first, "judge, training clips")
    shape = ClipShape(*first.shape[1:])
    device = torch.device(device)
    choice = choice or settings.choices[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(choice.seed, "judge", "init"))
        network = build_network(choice.architecture, factors, shape, base=settings.width).to(device)
    history, best, epoch = _fit(network, train, validation, settings, choice.seed, progress)
    network.load_state_dict(best)
    judge = NeuralJudge(network, shape, device)
    return TrainedJudge(judge, tuple(history), epoch, n, clips_digest(train))


def augment(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """Shifts, lightens and blurs every clip a little, all its frames alike.

    Args:
        clip: ``[B, T, C, H, W]`` in [0, 1].
        rng: draws one shift (up to 1/16 of the size), gain (±3 %), offset (±0.015) and blur (a
            blend with the 3 x 3 mean, for half of the clips) per clip.

    Returns:
        ``[B, T, C, H, W]`` in [0, 1].
    """
    batch, _, _, height, width = clip.shape
    reach = max(1, height // 16), max(1, width // 16)
    shift = np.stack([rng.integers(2 * r + 1, size=batch) for r in reach], axis=1)
    gain, offset = rng.uniform(0.97, 1.03, batch), rng.uniform(-0.015, 0.015, batch)
    blur = rng.uniform(-1, 1, batch).clip(0)
    out = torch.empty_like(clip, memory_format=torch.contiguous_format)
    # One after the other: all steps of a clip find it in the processor's cache.
    for source, place, (row, left), light, lift, soft in zip(
        clip, out, shift.tolist(), gain.tolist(), offset.tolist(), blur.tolist(), strict=True
    ):
        frames = source.flatten(0, 1)
        if soft:
            frames = torch.lerp(frames, _local_mean(frames), soft)
        # A repeated edge is what a camera a little aside would show.
        padded = functional.pad(frames, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
        seen = padded[:, row : row + height, left : left + width]
        torch.mul(seen, light, out=place.view_as(frames)).add_(lift).clamp_(0, 1)
    return out


def _local_mean(frames: Tensor) -> Tensor:
    """Returns the mean over 3 x 3 pixels ``[N, H, W]``, at the border over those that there are.

    ``avg_pool2d`` gives the same bits and takes five times as long on a CPU.
    """
    _, height, width = frames.shape
    around = functional.pad(torch.cat([frames, torch.ones_like(frames[:1])]), (1, 1, 1, 1))
    parts = [around[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total[:-1] / total[-1]


def _fit(
    network: JudgeNetwork,
    train: LabelledClips,
    validation: LabelledClips | None,
    settings: JudgeSettings,
    seed: int,
    progress: EpochProgress | None,
) -> tuple[list[Mapping[str, float]], dict[str, Tensor], int]:
    # two clips at least, since some layers normalise over a batch
    batches = max(1, min(math.ceil(len(train) / settings.batch_size), len(train) // 2))
    device = next(network.parameters()).device
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _rate(settings.epochs * batches))
    history: list[Mapping[str, float]] = []
    best: dict[str, Tensor] = {}
    best_mark, kept = (-1.0, -math.inf), 0
    for epoch in range(settings.epochs):
        rng = generator(seed, "judge", "epoch", epoch)
        network.train()
        total = 0.0
        for rows in np.array_split(rng.permutation(len(train)), batches):
            clip = augment(train.clips(rows).to(device, torch.float32), rng)
            loss = _loss(network(clip), train.labels, rows)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        if not math.isfinite(total):
            raise DivergedError(
                f"The judge's loss is {total} in epoch {epoch}: training clips are not finite or "
                "the learning rate is too high.",
                hint="--set judge.learning_rate=0.0003",
            )
        figures, mark = {"loss": total / len(train)}, (float(epoch), 0.0)
        if validation is not None:
            accuracy, loss_there = _validate(network, validation, settings.batch_size, device)
            figures |= {"validation_loss": loss_there, "validation_accuracy": accuracy}
            mark = accuracy, -loss_there
        history.append(figures)
        if mark > best_mark:
            best_mark, kept = mark, epoch
            best = {key: value.clone() for key, value in network.state_dict().items()}
        if progress is not None:
            progress(epoch + 1, settings.epochs, figures)
    return history, best, kept


def _rate(steps: int) -> Callable[[int], float]:
    """Linear rise, then half a cosine down to nothing: a short training ends settled."""
    warm = max(1, round(_WARM_UP * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return factor


def _loss(logits: Mapping[str, Tensor], labels: Mapping[str, Integers], rows: Integers) -> Tensor:
    """Computes the sum over factors of the cross-entropies, each a mean over clips, in nats."""
    return torch.stack(
        [
            functional.cross_entropy(
                values, torch.as_tensor(labels[name][rows], dtype=torch.int64).to(values.device)
            )
            for name, values in logits.items()
        ]
    ).sum()


def _validate(
    network: JudgeNetwork, clips: LabelledClips, batch_size: int, device: torch.device
) -> tuple[float, float]:
    """Returns mean accuracy over factors and mean loss."""
    network.eval()
    right, loss = 0.0, 0.0
    with torch.inference_mode():
        for start in range(0, len(clips), batch_size):
            rows = np.arange(start, min(start + batch_size, len(clips)))
            logits = network(clips.clips(rows).to(device, torch.float32))
            loss += _loss(logits, clips.labels, rows).item() * len(rows)
            for name, values in logits.items():
                guess = values.argmax(1).cpu().numpy()
                right += float((guess == clips.labels[name][rows]).sum())
    return right / (len(clips) * len(network.factors)), loss / len(clips)
