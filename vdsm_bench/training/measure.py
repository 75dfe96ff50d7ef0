"""How long a step takes in either precision, measured on a model that is thrown away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from threadpoolctl import threadpool_limits

from vdsm_bench.config import PRECISIONS, Precision, StageSettings
from vdsm_bench.contracts import Batch, ClipShape, Progress, Stage, VideoModel
from vdsm_bench.errors import is_lack_of_memory
from vdsm_bench.training.step import freeze
from vdsm_bench.training.trainer import PlayerLoss, stages_of

#: each precision is measured between so many times, fewer where SECONDS have passed
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 30
_SECONDS = 0.6


@dataclass(frozen=True)
class Timing:
    """Least seconds of loss and gradients of one batch.

    Attributes:
        stage: the stage that trains for the most steps.
        seconds: by precision; infinite where the model cannot be computed in it.
    """

    stage: str
    seconds: Mapping[Precision, float]


def longest_stage(model: VideoModel, settings: Mapping[str, StageSettings]) -> Stage:
    """Returns the stage of the most steps.

    Raises:
        UsageError: a stage has no settings.
    """
    return max(stages_of(model, settings), key=lambda each: _n_steps(settings[each.name]))


def time_precisions(
    model: VideoModel,
    settings: Mapping[str, StageSettings],
    shape: ClipShape,
    *,
    device: str,
) -> Timing:
    """Takes the precisions in turn, several times after one round of warm-up.

    Seconds are the processor's, of one thread: a busy machine stretches those least, while
    threads that spin as they wait for each other would count as work. On CUDA they are those in
    which the device computes: there a small step waits for the calls that launch it, which a
    captured step no longer does.

    Args:
        model: thrown away afterwards, its buffers and gradients change.
        settings: how each stage is trained.
        shape: of the clips; their pixels are noise here.
        device: where the model is to be trained.
    """
    stage = longest_stage(model, settings)
    chosen, half = settings[stage.name], _n_steps(settings[stage.name]) // 2
    progress = Progress(chosen.epochs // 2, chosen.epochs, half, 2 * half)
    if stage.schedule is not None:
        progress = replace(progress, scheduled=stage.schedule(progress))
    model = model.to(device).train()
    freeze(model, stage)
    frames = chosen.frames or shape.frames
    size = (chosen.batch_size, frames, shape.channels, shape.height, shape.width)
    clip = torch.rand(size, generator=torch.Generator()).to(device)
    seconds: dict[Precision, float] = {}

    def once(precision: Precision) -> None:
        loss = PlayerLoss(model, precision)
        for player in stage.players:
            total, _ = loss(Batch(clip, chosen.pairs), stage.name, player.name, progress)
            total.backward()
            if precision != "32" and not math.isfinite(total.item()):
                raise ArithmeticError
        model.zero_grad(set_to_none=True)

    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), threadpool_limits(1, user_api="openmp"):
        started = time.perf_counter()
        for number in range(_MOST_ROUNDS + 1):
            for precision in PRECISIONS:
                if seconds.get(precision) == math.inf:
                    continue
                taken = _timed(once, precision, device)
                best = math.inf if number <= 1 else seconds[precision]  # the first warms up
                seconds[precision] = taken if taken == math.inf else min(best, taken)
            if number == 0:
                started = time.perf_counter()
            elif number >= _LEAST_ROUNDS and time.perf_counter() - started > _SECONDS:
                break
    return Timing(stage.name, seconds)


def _n_steps(settings: StageSettings) -> int:
    return settings.epochs * settings.batches_per_epoch


def _timed(once: Callable[[Precision], None], precision: Precision, device: str) -> float:
    try:
        return _device_seconds(once, precision) if device == "cuda" else _seconds(once, precision)
    except (RuntimeError, ArithmeticError) as error:
        if precision == "32" or is_lack_of_memory(error):
            raise
        return math.inf  # an operation that has no bfloat16, or a loss that leaves its range


def _seconds(once: Callable[[Precision], None], precision: Precision) -> float:
    started = time.process_time()
    once(precision)
    return time.process_time() - started


def _device_seconds(once: Callable[[Precision], None], precision: Precision) -> float:
    # without acc_events torch warns that the last of several profiling cycles alone is kept
    activities = [torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    started = time.perf_counter()
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        once(precision)
        torch.cuda.synchronize()
        passed = time.perf_counter() - started
    seen = float(sum(event.self_device_time_total for event in profile.key_averages())) / 1e6
    return seen or passed  # where another profiler holds the counters this one sees nothing
