"""Progress on stderr: bars on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import IO, Any, cast

from vdsm_bench.cli.context import note
from vdsm_bench.runs.reporting import Reporter

#: seconds between two plain lines of one task
_INTERVAL = 10.0


class PlainReporter:
    """One line per message; at most one line per task and ten seconds, and one when it ends.

    A task that goes back begins anew: it is the next cell's, of the same name.
    """

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._done: dict[str, int] = {}

    def say(self, text: str) -> None:
        """Prints a line."""
        note(text)

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Prints a line now and then, with rate and remaining time."""
        now = time.monotonic()
        if done < self._done.get(task, 0):
            del self._started[task], self._shown[task]
        self._done[task] = done
        began, first = self._started.setdefault(task, (now, done))
        if done < total and now - self._shown.get(task, now - 2 * _INTERVAL) < _INTERVAL:
            return
        self._shown[task] = now
        figures = f"  {detail}" if detail else ""
        rate = (done - first) / (now - began) if now > began else 0.0
        left = f"  {rate:.1f}/s, {(total - done) / rate:.0f} s left" if rate > 0 else ""
        note(f"{task}  {done}/{total}{left}{figures}")


class _Unheard:
    """A stream whose terminal may go while rich draws on it, from a thread of its own too."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class BarReporter:
    """Bars with rate and remaining time, drawn by rich; one that goes back begins anew.

    As of a line in a pipe: what nobody sees any more, because the terminal has gone, stops no work.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining
        from rich.table import Column

        self.console = Console(file=cast(IO[str], _Unheard(sys.stderr)))
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            Remaining(),
            TextColumn(
                "{task.fields[rate]} {task.fields[detail]}",
                style="dim",
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        self.console.print(text, markup=False, highlight=False)

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Moves or opens the bar of a task."""
        if task not in self._tasks:
            self._tasks[task] = self.bars.add_task(task, total=total, rate="", detail="")
        number = self._tasks[task]
        bar = next(each for each in self.bars.tasks if each.id == number)
        if done < bar.completed:
            self.bars.reset(number)
        rate = f"{bar.speed:.1f}/s" if bar.speed else ""
        self.bars.update(number, completed=done, total=total, rate=rate, detail=detail)


@contextlib.contextmanager
def reporter() -> Iterator[Reporter]:
    """Opens the reporter that fits where stderr goes, if anywhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield PlainReporter()
        return
    bars = BarReporter()
    with bars.bars:
        yield bars
