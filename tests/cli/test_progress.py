import errno
import io
import sys

import pytest
from rich.console import Console

from vdsm_bench.cli import progress
from vdsm_bench.cli.progress import BarReporter, PlainReporter, reporter


def test_a_pipe_gets_few_plain_lines(capsys, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    plain = PlainReporter()
    for step in range(1, 31):
        plain.progress("train fit", step, 30, "loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 5
    assert lines[0].startswith("train fit  1/30")
    assert lines[-1].startswith("train fit  30/30")
    assert "1.0/s" in lines[1]
    assert all("loss 0.5" in line and "\x1b" not in line for line in lines)


def test_the_next_cell_of_the_same_task_has_a_rate_of_its_own(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    plain = PlainReporter()
    for pace in (1.0, 4.0):
        for step in range(1, 31):
            plain.progress("train fit", step, 30)
            now[0] += pace
        now[0] += 1000.0  # judged, drawn
    first, second = capsys.readouterr().err.split("train fit  1/30\n")[1:]
    assert "30/30  1.0/s, 0 s left" in first
    assert second.splitlines()[0] == "train fit  4/30  0.2/s, 104 s left"
    assert second.splitlines()[-1] == "train fit  30/30  0.2/s, 0 s left"


def test_a_bar_of_the_next_cell_is_not_finished():
    bars = BarReporter()
    bars.console = bars.bars.live.console = Console(file=io.StringIO(), width=100)
    for step in (1, 2, 3, 1):
        bars.progress("train fit", step, 3)
    (task,) = bars.bars.tasks
    assert (task.completed, task.finished) == (1, False)


def test_a_terminal_gets_one_bar_per_task_and_no_markup_surprises():
    bars = BarReporter()
    bars.console = bars.bars.live.console = Console(file=io.StringIO(), width=100)
    bars.say("a path like [bold]x[/bold] stays as it is")
    for step in (1, 2, 3):
        bars.progress("train fit", step, 3, "loss 0.5")
    bars.progress("judge", 1, 2)
    assert [(task.description, task.completed) for task in bars.bars.tasks] == [
        ("train fit", 3),
        ("judge", 1),
    ]
    assert "[bold]x[/bold]" in bars.console.file.getvalue()


def test_where_stderr_is_no_terminal_lines_are_plain():
    with reporter() as listener:
        assert isinstance(listener, PlainReporter)


class Gone(io.StringIO):
    """A terminal that goes away."""

    there = True

    def isatty(self):
        return True

    def write(self, text):
        if not self.there:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("at_the_start", [True, False])
def test_a_terminal_that_has_gone_stops_no_work(monkeypatch, at_the_start):
    terminal = Gone()
    terminal.there = not at_the_start
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    before = sys.stdout
    with reporter() as listener:
        assert isinstance(listener, BarReporter)
        terminal.there = False
        for step in (1, 2, 3, 1, 2):
            listener.say("a cell begins")
            listener.progress("train fit", step, 3)
            listener.bars.refresh()  # what rich's own thread does
    assert (sys.stdout, sys.stderr) == (before, terminal)


def test_mistakes_under_bars_are_told():
    with pytest.raises(OSError, match="a disk"), reporter():
        raise OSError("a disk")


def test_where_stderr_is_closed_lines_are_plain_and_go_nowhere(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with reporter() as listener:
        assert isinstance(listener, PlainReporter)
        listener.say("nobody hears this")
        listener.progress("train fit", 1, 3)
