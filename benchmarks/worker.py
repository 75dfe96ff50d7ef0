"""A process that takes steps on command, so that two settings of a process can take turns."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.forms import FORMS, NAIVE, Step, Task
from vdsm_bench.errors import CellError
from vdsm_bench.training import recording

#: steps of the program before the first that counts (the last of them is recorded as a CUDA
#: graph), and of plain loops; the first is watched
WARM_UP, WARM_UP_NAIVE = recording.WARM_UP + 1, 2
#: steps that are timed together on a GPU, where the program's do not wait for each other
BLOCK = 20


def block(device: str, form: str = "") -> int:
    """Returns how many steps of a form are timed together."""
    return BLOCK if device == "cuda" and form != NAIVE else 1


class Taken(NamedTuple):
    """What a step took: seconds by the wall clock, and of processors in all threads."""

    seconds: float
    processor_seconds: float


def timed(step: Step, device: str, steps: int = 1) -> Taken:
    """Takes steps by the clock; returns what one took.

    Args:
        step: takes one.
        device: has nothing left to do before and after.
        steps: how many.
    """
    machine.synchronise(device)
    started, worked = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    machine.synchronise(device)
    return Taken((time.perf_counter() - started) / steps, (time.process_time() - worked) / steps)


class Worker:
    """A process that has built one or more forms of a task; used as a context.

    Args:
        task: what it steps.
        forms: keys of :data:`benchmarks.forms.FORMS`.
        as_program: whether the process is set up as the program sets up its own (allocator,
            matrix products), or is left as Python and torch start it.
        threads: of torch; its default if None.
    """

    def __init__(
        self, task: Task, forms: Sequence[str], *, as_program: bool, threads: int | None
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, self._there = context.Pipe()
        arguments = (self._there, task, tuple(forms), as_program, threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)

    def __enter__(self) -> Worker:
        self._process.start()
        self._there.close()  # so that the end of the process is the end of what can be read
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.join()

    def step(self, form: str) -> Taken:
        """Takes one step by the clock; on a CPU after one that is not timed."""
        taken: Taken = self._ask(("step", form))
        return taken

    def facts(self, form: str) -> dict[str, Any]:
        """Returns what was counted of a form, the peak of memory and of matrix products."""
        found: dict[str, Any] = self._ask(("facts", form))
        return found

    def _ask(self, request: tuple[str, str]) -> Any:
        try:
            self._here.send(request)
            answer = self._here.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise CellError(
                f"The measuring process ended by itself ({self._process.exitcode}); -9 means that "
                "the machine ran out of memory.",
                hint="one setting and stage at a time: --settings mug --stages pretrain",
            ) from None
        if isinstance(answer, str):
            raise RuntimeError(f"the measuring process failed:\n{answer}")
        return answer


def _serve(connection: Connection, *arguments: Any) -> None:
    try:
        _take_orders(connection, *arguments)
    except Exception:
        connection.send(traceback.format_exc())


def _take_orders(
    connection: Connection,
    task: Task,
    forms: tuple[str, ...],
    as_program: bool,
    threads: int | None,
) -> None:
    from benchmarks.costs import matmul_peak, watching
    from vdsm_bench.devices import prepare_process

    machine.prepare(task.device, threads)
    if as_program:
        prepare_process()
    steps = {form: FORMS[form](task) for form in forms}
    _forget_peak()
    counted: dict[str, dict[str, float]] = {}
    for form, step in steps.items():
        if form == NAIVE and task.device == "cuda":
            # a hundred thousand small operations, the same as on a CPU: watching each of them
            # would keep a GPU waiting for minutes
            step()
            counted[form] = {}
        else:
            with watching() as watched:
                step()
            counted[form] = {"operations": watched.operations, "bytes": watched.bytes}
        for _ in range((WARM_UP_NAIVE if form == NAIVE else WARM_UP) - 1):
            step()
    while True:
        order, form = connection.recv()
        if order == "facts":
            memory = peak_memory(task.device)
            peak = {name: matmul_peak(task.device, name) for name in ("float32", "bfloat16")}
            machine_facts = machine.describe(task.device)
            connection.send({
                **counted[form], "peak_memory": memory, "matmul_gflops": peak,
                "machine": machine_facts,
            })  # fmt: skip
            continue
        if task.device == "cpu":  # which has cooled down while the others took their turns
            steps[form]()
        connection.send(timed(steps[form], task.device, block(task.device, form)))


def _forget_peak() -> None:
    """Lets the peak of resident memory start anew (Linux), so that building does not count."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def peak_memory(device: str) -> int:
    """Returns the peak of resident memory in bytes; on a GPU that of its own memory."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
