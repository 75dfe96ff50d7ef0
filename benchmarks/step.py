"""How long one optimisation step takes, beside the same step in plain loops.

``python -m benchmarks.step`` times loss, gradients and Adam of each stage of VDSM at the paper's
settings (preset ``paper``; random clips), of the program and of :mod:`benchmarks.naive`, which has
the structure of the authors' release:

* ``stock``: each in a process of its own, in turn. The plain form has torch as it is installed,
  the program has the settings it gives itself (:func:`vdsm_bench.devices.prepare_process`).
* ``same``: both in one process with the program's allocator, in turn, because much of what the
  release spends is page faults. Left out on a GPU, which has one allocator.

``ratio`` is that of the medians. Operations are those of the formula in :mod:`benchmarks.costs`;
the peak is that of a square product in the program's process, in the precision that is used. In a
bf16 step experts are blended and recurrent nets run in float32: ``of the peaks of what is used``
holds each product against the peak of its own precision. ``at the peaks`` is the ratio of a step
that were nothing but these products, each at its peak.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks import machine
from benchmarks.costs import least_bytes, operations
from benchmarks.forms import NAIVE, Task
from benchmarks.history import describe, device_name, record, table
from benchmarks.machine import at_least_once, known
from benchmarks.naive import check_plain
from benchmarks.worker import Taken, Worker
from vdsm_bench.config import PRECISIONS
from vdsm_bench.devices import choose_device

STAGES = ("pretrain", "sequence")
_TIMES = (
    "setting", "stage", "precision", "plain loops, s", "program, s", "ratio", "goal",
    "at the peaks",
)  # fmt: skip
#: ratios that are aimed at with two cores, by arrangement, and with a GPU
_GOALS = {
    "stock": {"sprites": {"pretrain": 25, "sequence": 45}, "mug": {"pretrain": 11, "sequence": 16}},
    "same": {"sprites": {"pretrain": 5, "sequence": 11}, "mug": {"pretrain": 5, "sequence": 11}},
}
_GOAL_ON_CUDA = 100
_COUNTS = (
    "setting", "stage", "GFLOP (decoder, encoder, blend, RNN)", "GB at least", "GFLOP/s",
    "share of the matmul peak", "of the peaks of what is used", "peak memory, GB",
    "plain loops, GB",
)  # fmt: skip
_HISTORY = (
    "date", "commit", "device", "threads", "setting", "stage", "precision", "program, s",
    "ratio (stock)", "ratio (same)", "GFLOP", "share of peak", "peak, GFLOP/s",
)  # fmt: skip
_PEAKS = {"32": "float32", "bf16": "bfloat16"}
#: parts of a step that are float32 in every precision
_FULL = ("blend", "rnn")


def measure(
    task: Task, precisions: Sequence[str], repeats: int, threads: int | None, *, naive: bool
) -> list[dict[str, Any]]:
    """Times one stage, in the arrangements of its device; returns a row for each precision.

    Args:
        task: what is timed.
        precisions: of the program.
        repeats: steps of each form in each arrangement.
        threads: of torch; its default if None.
        naive: whether plain loops are timed too.
    """
    forms = [NAIVE, *precisions] if naive else list(precisions)
    taken = {}
    with ExitStack() as stack:
        workers = {}
        for form in forms:
            worker = Worker(task, [form], as_program=form != NAIVE, threads=threads)
            workers[form] = stack.enter_context(worker)
        taken["stock"] = _take_turns(workers, repeats)
        facts = {form: worker.facts(form) for form, worker in workers.items()}
    if naive and task.device == "cpu":
        with Worker(task, forms, as_program=True, threads=threads) as both:
            taken["same"] = _take_turns(dict.fromkeys(forms, both), repeats)
    return [_row(task, precision, taken, facts) for precision in precisions]


def _take_turns(workers: dict[str, Worker], repeats: int) -> dict[str, list[Taken]]:
    taken: dict[str, list[Taken]] = {form: [] for form in workers}
    for _ in range(repeats):
        for form, worker in workers.items():
            taken[form].append(worker.step(form))
    return taken


def _row(
    task: Task, precision: str, taken: dict[str, dict[str, list[Taken]]], facts: dict[str, Any]
) -> dict[str, Any]:
    vdsm = task.model()
    pairs = task.settings.pairs
    parts = operations(vdsm, task.clip, task.stage, pairs=pairs)
    compared = {name: compare(times, precision) for name, times in taken.items()}
    speed = sum(parts.values()) / compared["stock"]["program"]["median"] / 1e9
    mine = facts[precision]
    peak = mine["matmul_gflops"][_PEAKS[precision]]
    forms = {"program": mine} | ({"naive": facts[NAIVE]} if NAIVE in facts else {})
    return {
        "setting": task.dataset,
        "stage": task.stage,
        "preset": task.preset,
        "precision": precision,
        "clips": list(task.clip),
        "experts": vdsm.identity_dim,
        **compared,
        "gflop": {name: round(value / 1e9, 3) for name, value in parts.items()},
        "gflop_issued": _giga(forms, "operations"),
        "gbytes_at_least": round(least_bytes(vdsm, task.clip, task.stage, pairs=pairs) / 1e9, 3),
        "gbytes_of_operands": _giga(forms, "bytes"),
        "gflops": round(speed, 2),
        "matmul_gflops": {form: found["matmul_gflops"] for form, found in forms.items()},
        "share_of_peak": round(speed / peak, 4),
        "peak_memory_gb": _giga(forms, "peak_memory"),
        "machine": mine["machine"],
    }


def _giga(forms: dict[str, Any], what: str) -> dict[str, float]:
    return {form: round(found[what] / 1e9, 3) for form, found in forms.items() if what in found}


def compare(taken: dict[str, list[Taken]], precision: str) -> dict[str, Any]:
    """Returns the program's times and, where there are any, those of plain loops and the ratio."""
    found: dict[str, Any] = {"program": _summary(taken[precision])}
    if NAIVE in taken:
        found["naive"] = _summary(taken[NAIVE])
        for name, by in (("ratio", "median"), ("ratio_of_minima", "min")):
            found[name] = round(found["naive"][by] / found["program"][by], 2)
    return found


def _summary(times: Sequence[Taken]) -> dict[str, float]:
    seconds = [taken.seconds for taken in times]
    work = statistics.median(taken.processor_seconds for taken in times)
    figures = {
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "processor_seconds": work,
    }
    return {name: round(value, 6) for name, value in figures.items()}


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the page: the newest runs in full, then a line for each stage of every run.

    Of a device, which may be a processor, the newest run and those that have what it lacks: a
    stage, or plain loops beside it.
    """
    lines = ["# One optimisation step", ""]
    shown: dict[str, set[str]] = {}
    for run in runs:
        named = {f"{_name(row)} {row['stage']}": "naive" in row["stock"] for row in run["rows"]}
        stages = {*named, *(f"{stage} beside" for stage, beside in named.items() if beside)}
        device = device_name(run["machine"])
        if device not in shown or stages - shown[device]:
            lines += _in_full(run)
            shown.setdefault(device, set()).update(stages)
    if len(runs) > 1:
        rows = [_line(run, row) for run in runs for row in run["rows"]]
        lines += ["## Every run", "", table(_HISTORY, rows), ""]
    return "\n".join(lines)


def _in_full(run: dict[str, Any]) -> list[str]:
    lines = [f"`{run['command']}`", "", describe(run), ""]
    for arrangement, title in (
        ("stock", "Plain loops as torch is installed, the program as it sets itself up"),
        ("same", "Both on the program's allocator, in one process"),
    ):
        rows = [
            [
                *_times(row, row[arrangement]),
                _goal(row, run["machine"]["device"], arrangement),
                _at_the_peaks(row, row[arrangement]),
            ]
            for row in run["rows"]
            if arrangement in row
        ]
        if rows:
            lines += [f"{title} (median, from min to max):", "", table(_TIMES, rows), ""]
    return [*lines, table(_COUNTS, [_counts(row) for row in run["rows"]]), ""]


def _name(row: dict[str, Any]) -> str:
    preset = "" if row["preset"] == "paper" else f" ({row['preset']})"
    return f"{row['setting']}{preset}"


def _times(row: dict[str, Any], found: dict[str, Any]) -> list[str]:
    def span(form: str) -> str:
        times = found.get(form)
        if times is None:
            return ""
        return f"{times['median']:.3g} ({times['min']:.3g}-{times['max']:.3g})"

    return [
        _name(row),
        row["stage"],
        row["precision"],
        span("naive"),
        span("program"),
        _ratio(found),
    ]


def _goal(row: dict[str, Any], device: str, arrangement: str) -> str:
    if row["preset"] != "paper":
        return ""
    if device != "cpu":
        return str(_GOAL_ON_CUDA)
    return str(_GOALS[arrangement].get(row["setting"], {}).get(row["stage"], ""))


def _ratio(found: dict[str, Any] | None) -> str:
    return f"{found['ratio']:.1f}" if found and "ratio" in found else ""


def _at_the_peaks(row: dict[str, Any], found: dict[str, Any]) -> str:
    """Returns the ratio that there would be if products took all the time, at their peaks."""
    return f"{found['naive']['median'] / _seconds_at_peaks(row):.1f}" if "naive" in found else ""


def _seconds_at_peaks(row: dict[str, Any]) -> float:
    """Returns what the step's products take at the measured rate of their own precision, s."""
    peaks = row["matmul_gflops"]["program"]
    return sum(
        part / float(peaks["float32"] if name in _FULL else _peak(row))
        for name, part in row["gflop"].items()
    )


def _counts(row: dict[str, Any]) -> list[str]:
    parts = row["gflop"]
    detail = ", ".join(f"{value:.3g}" for value in parts.values())
    memory = row["peak_memory_gb"]
    return [
        _name(row),
        row["stage"],
        f"{sum(parts.values()):.3g} ({detail})",
        f"{row['gbytes_at_least']:.3g}",
        f"{row['gflops']:.3g}",
        f"{row['share_of_peak']:.0%} of {_peak(row):.0f} ({row['precision']})",
        f"{_seconds_at_peaks(row) / row['stock']['program']['median']:.0%}",
        f"{memory['program']:.2f}",
        f"{memory['naive']:.2f}" if "naive" in memory else "",
    ]


def _line(run: dict[str, Any], row: dict[str, Any]) -> list[str]:
    about = run["machine"]
    return [
        run["date"][:16],
        run["commit"],
        device_name(about),
        about["threads"],
        _name(row),
        row["stage"],
        row["precision"],
        f"{row['stock']['program']['median']:.3g}",
        _ratio(row["stock"]),
        _ratio(row.get("same")),
        f"{sum(row['gflop'].values()):.3g}",
        f"{row['share_of_peak']:.0%}",
        f"{_peak(row):.0f}",
    ]


def _peak(row: dict[str, Any]) -> float:
    """Returns the measured rate of products in the row's precision, GFLOP/s."""
    return float(row["matmul_gflops"]["program"][_PEAKS[row["precision"]]])


def main() -> None:
    """Measures, prints, and adds the run to the history."""
    parser = machine.options(__doc__)
    parser.add_argument("--settings", default="sprites,mug", help="datasets, comma-separated")
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated")
    parser.add_argument("--preset", default="paper", help="of the sizes")
    parser.add_argument("--precision", default="32", help="of the program; 32, bf16 or both")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each form")
    parser.add_argument("--no-naive", action="store_true", help="the program's step alone")
    given = parser.parse_args()
    choose_device(given.device)
    precisions = known("--precision", given.precision, PRECISIONS)
    stages, repeats = known("--stages", given.stages, STAGES), at_least_once(given.repeats)
    tasks = [
        Task(setting, stage, given.preset, given.device)
        for setting in given.settings.split(",")
        for stage in stages
    ]
    machine.check_threads(given.threads)
    for task in tasks:  # what can be refused is, before anything is timed
        _ = task.config
    for task in [] if given.no_naive else tasks:
        check_plain(task.model())
    rows = []
    for task in tasks:
        print(f"{task.dataset} {task.stage}", file=sys.stderr, flush=True)
        found = measure(task, precisions, repeats, given.threads, naive=not given.no_naive)
        for row in found:  # at once: a run that is cut off has not measured for nothing
            print(f"  {row['precision']}: {json.dumps(row['stock'])}", file=sys.stderr, flush=True)
        rows += found
    about = [row.pop("machine") for row in rows][0]
    record("step", {"rows": rows}, about=about, out=given.out, render=render)


if __name__ == "__main__":
    machine.run(main)
