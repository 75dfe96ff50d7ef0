"""Where a step's time goes: a few steps of every stage under torch's profiler."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from vdsm_bench.contracts import Stage
from vdsm_bench.files import write_bytes
from vdsm_bench.training.recording import WARM_UP
from vdsm_bench.training.trainer import Trainer

#: steps before the profiler looks, a recorded one among them, and while it does
_WARM_UP, _STEPS = WARM_UP + 1, 3
_STEP = "step"
#: group -> names of operations and of kernels; the first that fits counts
_GROUPS = {
    "optimiser": r"adam|Optimizer|multi_tensor|_foreach|linalg_vector_norm",
    # what surrounds the operations proper, and those that only make views
    "Python and dispatch": rf"^{_STEP}$|^autograd::|AccumulateGrad|Backward\d*$|^_[A-Z]|resolve_|"
    r"empty|as_strided|view|reshape|slice|select$|transpose|::t$|expand|permute|narrow|unbind|"
    r"detach|alias|squeeze|lift_fresh|result_type|resize_|chunk|split|flatten|aten::to$",
    "recurrent nets": r"lstm|gru|rnn|LSTM|GRU|RNN",
    "random numbers": r"normal_|::randn?\b|randint|uniform|bernoulli|dropout|philox|distribution",
    "convolutions": r"conv|im2col|col2im|winograd",
    "matrix products": r"\b(ba?dd|add)?b?mm\b|matmul|gemm|linear$|cutlass|\b(dot|mv)\b",
    "copies and element-wise": r"copy|clone|contiguous|::cat|stack|fill_|zero|ones|full|pad|index|"
    r"gather|scatter|add|sub|mul|div|neg|exp|log|sqrt|pow|square|sigmoid|tanh|softplus|relu|clamp|"
    r"where|abs|sgn|sign|maximum|minimum|elementwise|Memcpy|Memset|::(eq|ne|gt|ge|lt|le)_?\b",
}
_REST = "the rest"


@dataclass(frozen=True)
class Operation:
    """One kind of operation: its own time, without that of the operations which it calls.

    Attributes:
        name: as torch calls it.
        group: as in the table.
        calls: per step.
        seconds: per step.
    """

    name: str
    group: str
    calls: float
    seconds: float


def profile_stage(trainer: Trainer, stage: Stage, trace: Path) -> list[Operation]:
    """Takes a few steps from the middle of a stage; weights and moments change.

    On CUDA the time is that of the device's kernels, else that of the processor.

    Args:
        trainer: of a model that is thrown away.
        stage: one of its stages.
        trace: Chrome trace to write, ``.json.gz``.

    Returns:
        Every operation, dearest first.
    """
    settings = trainer.settings[stage.name]
    n_steps = settings.epochs * settings.batches_per_epoch
    on_cuda = trainer.fabric.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        work = trainer.begin(stage)
        for number in range(_WARM_UP):
            trainer.take(work, (n_steps // 2 + number) % n_steps)
        with profile(activities=activities, acc_events=True) as seen:
            for number in range(_STEPS):
                with record_function(_STEP):
                    trainer.take(work, (n_steps // 2 + _WARM_UP + number) % n_steps)
            if on_cuda:
                torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / trace.name
        seen.export_chrome_trace(str(written))
        write_bytes(trace, written.read_bytes())
    return _operations(seen.key_averages(), on_cuda)


def _operations(events: Any, on_cuda: bool) -> list[Operation]:
    found = []
    for event in events:
        if on_cuda == (event.device_type.name == "CPU"):
            continue
        taken = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        if taken > 0:
            seconds = taken / 1e6 / _STEPS
            found.append(Operation(event.key, group_of(event.key), event.count / _STEPS, seconds))
    return sorted(found, key=lambda each: -each.seconds)


def group_of(name: str) -> str:
    """Returns the group of an operation or kernel."""
    for group, pattern in _GROUPS.items():
        if re.search(pattern, name):
            return group
    return _REST


def table_of(stage: str, operations: Sequence[Operation], top: int = 12) -> str:
    """Returns where a step goes as Markdown: groups with their shares, then the dearest."""
    total = sum(each.seconds for each in operations) or 1.0
    lines = [
        f"### {stage}: {1e3 * total:.1f} ms per step under the profiler",
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
