"""How long the command line takes to answer, each time in a process of its own.

``python -m benchmarks.start`` times the import of the package, ``--help``, ``list``, ``show``,
``status`` (of a folder without runs) and a dry run, beside a Python that does nothing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import machine
from benchmarks.history import describe, record, table

COMMANDS = {
    "python, nothing": ["-c", "pass"],
    "import vdsm_bench": ["-c", "import vdsm_bench"],
    "import vdsm_bench.contracts": ["-c", "import vdsm_bench.contracts"],
    "vdsm-bench --help": ["-m", "vdsm_bench", "--help"],
    "vdsm-bench list": ["-m", "vdsm_bench", "list"],
    "vdsm-bench show models/vdsm": ["-m", "vdsm_bench", "show", "models/vdsm"],
    "vdsm-bench status": ["-m", "vdsm_bench", "status"],
    "vdsm-bench run --dry-run": [
        *("-m", "vdsm_bench", "run", "--model", "vdsm", "--dataset", "mug", "--dry-run")
    ],
}


def measure(repeats: int) -> list[dict[str, Any]]:
    """Times every command, in turn; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    work: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats + 1):
            for name, arguments in COMMANDS.items():
                before, started = os.times(), time.perf_counter()
                subprocess.run(
                    [sys.executable, *arguments], cwd=folder, capture_output=True, check=True
                )
                seconds[name].append(time.perf_counter() - started)
                after = os.times()
                work[name].append(
                    after.children_user + after.children_system
                    - before.children_user - before.children_system
                )  # fmt: skip
    return [
        {
            "command": name,
            "seconds": round(statistics.median(seconds[name][1:]), 4),
            "least": round(min(seconds[name][1:]), 4),
            "processor_seconds": round(statistics.median(work[name][1:]), 4),
        }
        for name in COMMANDS
    ]


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the page: a line for each command of every run, the newest first."""
    rows = [
        (
            run["date"][:16], run["commit"], run["machine"]["processor"], row["command"],
            *(f"{row[name]:.2f}" for name in ("seconds", "least", "processor_seconds")),
        )
        for run in runs for row in run["rows"]
    ]  # fmt: skip
    head = ("date", "commit", "processor", "command", "median, s", "least, s", "processor, s")
    return "\n".join([
        "# Answers of the command line", "", f"`{runs[0]['command']}`", "",
        describe(runs[0]), "", table(head, rows),
    ])  # fmt: skip


def main() -> None:
    """Measures, prints, and adds the run to the history."""
    parser = machine.options(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    repeats = machine.at_least_once(given.repeats)
    machine.prepare(given.device, given.threads)
    rows = measure(repeats)
    about = machine.describe(given.device)
    record("start", {"rows": rows}, about=about, out=given.out, render=render)


if __name__ == "__main__":
    machine.run(main)
