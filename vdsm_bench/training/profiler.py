"""Where a step's time goes: a few steps of every stage under torch's profiler."""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from vdsm_bench.contracts import Stage
from vdsm_bench.files import write_bytes
from vdsm_bench.training.recording import WARM_UP
from vdsm_bench.training.step import PHASES, StageStep
from vdsm_bench.training.trainer import Trainer

#: steps at first, and how often the profiler looks at one, each time after one more
_WARM_UP, _LOOKS = WARM_UP, 3
#: ranges: a step, and its phases in turn
_STEP, _FETCHING = "step", "fetching the batch"
_PHASES = (_FETCHING, *PHASES)
#: the group of phases, and what ranges take beside the operations in them
_PHASE, _PYTHON = "phases", "Python between operations"


def _named(names: str) -> str:
    """Returns a pattern of the operations with one of these names, in place or not."""
    return rf"^(aten::)?_*({names})_*$"


#: group -> names of operations, and what names of kernels contain; the first that fits counts
_GROUPS = {
    "optimiser": r"[aA]dam|^Optimizer|multi_tensor|^aten::_foreach|linalg_vector_norm",
    # what surrounds the operations proper, and those that only make views
    "Python and dispatch": rf"^{_PYTHON}$|^(torch::)?autograd::|^\w*Backward\d*$|^_[A-Z][a-z]|"
    + _named(
        r"(new_)?empty\w*|as_strided|(unsafe_)?view(_as\w*)?|reshape\w*|slice|select|transpose|m?[tT]|"
        r"adjoint|expand(_as)?|broadcast_\w+|permute|move(dim|axis)|narrow|unbind|unfold|detach|"
        r"alias|(un)?squeeze|lift_fresh|result_type|resize|(unsafe_)?(chunk|split\w*)|(un)?flatten|"
        r"diagonal|to|contiguous|resolve_\w+"
    ),
    "recurrent nets": r"lstm|gru|rnn|LSTM|GRU|RNN",
    "random numbers": r"distribution_|philox|dropout|"
    + _named(r"rand\w*|(log_)?normal\w*|uniform|bernoulli\w*|multinomial|exponential"),
    "convolutions": r"conv(?!ert)|im2col|col2im|winograd|fprop|dgrad|wgrad|^_band_product$",
    "matrix products": r"gemm|gemv|cutlass|nvjet|splitK|dot_kernel|"
    + _named(
        r"\w*mm|(linalg_)?matmul|\w*mv|v?dot|(mkldnn_|bi)?linear\w*|einsum|outer|tensordot|"
        r"\w*attention\w*"
    ),
    "reductions and norms": r"reduce|Reduce|Scan|softmax|SoftMax|pool|_norm_|\bbn_|"
    + _named(
        r"(nan)?(sum|mean)|sum_to_size|(std|var)(_mean)?|prod|a?(max|min)|aminmax|arg(max|min)|"
        r"any|all|count_nonzero|log(cum)?sumexp|cum\w+|(linalg_)?norm|nll_loss\w*|"
        r"\w*(batch|layer|group|instance|weight|rms)_norm\w*"
    ),
    "copies and element-wise": r"elementwise|Memcpy|Memset|CatArray|index|gather|scatter|copy|"
    r"fill|upsample|_pad|^_(add_up|cut)$|"  # the last are kernels of the decoder
    r"^aten::_*(clone|cat|stack|embedding|masked|where|slice|select|unfold|repeat|flip|roll|tri[lu]|"
    r"(new_)?(zeros?|ones|full)|arange|linspace|pad|r?sub|add|addc?(mul|div)|mul|div|remainder|neg|"
    r"exp[2m]?1?|log\d?|log1p|log(add|_sigmoid)\w*|r?sqrt|pow|square|reciprocal|(hard|log)?sigmoid|"
    r"tanh|a?(sin|cos|tan)h?|hard\w+|softplus|\w*relu\d?|[a-z]?elu|glu|silu|threshold|erf\w*|"
    r"cl[ai]mp?|abs|sgn|sign|lerp|maximum|minimum|round|floor|ceil|is(finite|nan|inf)|nan_to_num|"
    r"logical|bitwise|eq|ne|gt|ge|lt|le|(smooth_)?(mse|l1)_loss|binary_cross_entropy)(_\w*)?$",
}
_REST = "the rest"


@dataclass(frozen=True)
class Operation:
    """One kind of operation, or a phase of the step.

    Attributes:
        name: as torch calls it.
        group: as in the table.
        calls: of a step.
        seconds: of a step: an operation's own time, without that of the operations which it
            calls; all the time of a phase.
    """

    name: str
    group: str
    calls: int
    seconds: float


class _Work:
    """A stage's step that tells when its batch has been fetched.

    Args:
        work: the step.
        fetched: called before it is taken.
    """

    def __init__(self, work: StageStep, fetched: Callable[[], None]) -> None:
        self.stage, self._work, self._fetched = work.stage, work, fetched

    def take(self, *batch: Any) -> None:
        """Takes the step."""
        self._fetched()
        self._work.take(*batch)


def profile_stage(trainer: Trainer, stage: Stage, trace: Path) -> list[Operation]:
    """Takes a few steps from the middle of a stage; weights and moments change.

    The last one counts. What a profiler keeps of a step lies in holes of the heap into which
    gradients then no longer fit. With several steps in one profile half of the time at full
    width is page faults, which no other step has; here the steps between absorb them.

    On CUDA the time is that of the device's kernels, else that of the processor.

    Args:
        trainer: of a model that is thrown away.
        stage: one of its stages.
        trace: Chrome trace to write, ``.json.gz``.

    Returns:
        The phases of the step in turn, then every operation, dearest first.
    """
    settings = trainer.settings[stage.name]
    n_steps = settings.epochs * settings.batches_per_epoch
    on_cuda = trainer.fabric.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        work = trainer.begin(stage)
        for number in range(_WARM_UP):
            trainer.take(work, (n_steps // 2 + number) % n_steps)
        for number in range(_WARM_UP, _WARM_UP + 2 * _LOOKS, 2):
            trainer.take(work, (n_steps // 2 + number) % n_steps)
            with profile(activities=activities, acc_events=True) as seen:
                _take(trainer, work, (n_steps // 2 + number + 1) % n_steps)
                if on_cuda:
                    torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / trace.name
        seen.export_chrome_trace(str(written))
        write_bytes(trace, written.read_bytes())
    events = seen.events() or ()
    return [*_phases(events, on_cuda), *_operations(seen.key_averages(), on_cuda)]


def _take(trainer: Trainer, work: StageStep, step: int) -> None:
    """Takes a step in a range of its own; all before the step's work is fetching the batch."""
    with record_function(_STEP), ExitStack() as fetching:
        fetching.enter_context(record_function(_FETCHING))
        trainer.take(cast(StageStep, _Work(work, fetching.close)), step)


def _phases(events: Iterable[Any], on_cuda: bool) -> list[Operation]:
    """Returns what ran while the host was in each phase, whatever thread it was launched from."""
    ranges, launches = [], []
    for event in events:
        if event.is_user_annotation:
            # its mirror on the device, from its first kernel to its last, is no phase
            if event.name in _PHASES and event.device_type.name == "CPU":
                ranges.append(event)
        elif event.kernels:
            taken = sum(kernel.duration for kernel in event.kernels)
            launches.append((event.time_range.start, taken))
    microseconds, calls = defaultdict[str, float](float), defaultdict[str, int](int)
    for each in ranges:
        start, end = each.time_range.start, each.time_range.end
        inside = (taken for at, taken in launches if start <= at < end)
        microseconds[each.name] += sum(inside) if on_cuda else end - start
        calls[each.name] += 1
    return [
        Operation(name, _PHASE, calls[name], microseconds[name] / 1e6)
        for name in _PHASES
        if name in calls
    ]


def _operations(events: Iterable[Any], on_cuda: bool) -> list[Operation]:
    found, python = [], 0.0
    for event in events:
        if on_cuda == (event.device_type.name == "CPU"):
            continue
        if on_cuda and event.is_user_annotation:
            continue  # spans kernels that are counted themselves
        taken = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        seconds = taken / 1e6
        if event.key in (_STEP, *_PHASES):
            python += seconds
        elif seconds > 0:
            found.append(Operation(event.key, group_of(event.key), event.count, seconds))
    if python > 0:
        found.append(Operation(_PYTHON, group_of(_PYTHON), 1, python))
    return sorted(found, key=lambda each: -each.seconds)


def group_of(name: str) -> str:
    """Returns the group of an operation or kernel."""
    for group, pattern in _GROUPS.items():
        if re.search(pattern, name):
            return group
    return _REST


def table_of(stage: str, found: Sequence[Operation], top: int = 12) -> str:
    """Returns where a step goes as Markdown: phases, groups with shares, then the dearest."""
    operations = [each for each in found if each.group != _PHASE]
    total = sum(each.seconds for each in operations) or 1.0
    lines = [
        f"### {stage}: {1e3 * total:.1f} ms per step under the profiler",
        "",
        *_phase_table([each for each in found if each.group == _PHASE], total),
        "",
        "| group | share | ms | calls |",
        "|---|---:|---:|---:|",
    ]
    by_group = {
        group: [each for each in operations if each.group == group] for group in [*_GROUPS, _REST]
    }
    for group, members in sorted(
        by_group.items(), key=lambda item: -sum(each.seconds for each in item[1])
    ):
        seconds, calls = sum(e.seconds for e in members), sum(e.calls for e in members)
        lines.append(f"| {group} | {seconds / total:.1%} | {1e3 * seconds:.2f} | {calls:.0f} |")
    lines += ["", "| operation | group | share | ms | calls |", "|---|---|---:|---:|---:|"]
    lines += [
        f"| `{each.name[:60]}` | {each.group} | {each.seconds / total:.1%} | "
        f"{1e3 * each.seconds:.2f} | {each.calls:.0f} |"
        for each in operations[:top]
    ]
    return "\n".join(lines) + "\n"


def _phase_table(phases: Sequence[Operation], total: float) -> list[str]:
    """Returns the lines on a step's phases, of a step of so many seconds."""
    if not any(each.name in PHASES for each in phases):
        return ["The step is a replayed CUDA graph, whose phases cannot be told apart."]
    rows = [(each.name, each.seconds) for each in phases]
    rows.append(("between them", max(0.0, total - sum(seconds for _, seconds in rows))))
    return ["| phase | share | ms |", "|---|---:|---:|"] + [
        f"| {name} | {seconds / total:.1%} | {1e3 * seconds:.2f} |" for name, seconds in rows
    ]
