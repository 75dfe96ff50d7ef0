"""Results that stay: one JSON file per run, and a Markdown page made from all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from vdsm_bench.errors import DataError
from vdsm_bench.files import now, read_json, write_json, write_text

#: what is measured, before anything is: a commit made meanwhile is another
_COMMIT = machine.commit()
#: makes the body of a page from runs, newest first
Render = Callable[[Sequence[dict[str, Any]]], str]


def record(
    name: str, results: dict[str, Any], *, about: dict[str, Any], out: Path, render: Render
) -> None:
    """Prints a run, adds it to the history and makes the page anew.

    Runs that cannot be read or shown, as those of another version, are left out and named.

    Args:
        name: of the benchmark: ``out/name/DATE-COMMIT.json`` and ``out/name.md``.
        results: what was measured, JSON-able.
        about: the machine; see :func:`benchmarks.machine.describe`.
        out: folder of all results.
        render: writes the page.
    """
    run = {
        "date": now(),
        "commit": _COMMIT,
        "command": " ".join(["python -m", f"benchmarks.{name}", *_options()]),
        "machine": about,
        **results,
    }
    stamp = run["date"].replace(":", "").partition("+")[0]
    print(render([run]), flush=True)
    write_json(out / name / f"{stamp}-{run['commit'].rstrip('+')}.json", run)
    runs = []
    for path in sorted((out / name).glob("*.json"), reverse=True):
        try:
            found = read_json(path)
            render([found])
        except (DataError, LookupError, TypeError, ValueError, AttributeError) as error:
            print(f"{path} is left out of the page: {error!r}", file=sys.stderr)
        else:
            runs.append(found)
    write_text(out / f"{name}.md", render(runs).rstrip() + "\n")


def _options() -> list[str]:
    """Returns the options that were typed, without the place of the results."""
    given = list(sys.argv[1:])
    while "--out" in given:
        at = given.index("--out")
        del given[at : at + 2]
    return [option for option in given if not option.startswith("--out=")]


def describe(run: dict[str, Any]) -> str:
    """Returns one line on where and when a run was made."""
    facts = dict(run["machine"])
    words = [facts.pop("processor"), f"{facts.pop('cores')} cores"]
    memory = facts.pop("memory_gb", None)
    words += [" ".join(facts.pop("flags", [])), f"{memory} GB" if memory else ""]
    words += [f"{key.replace('_', ' ')} {value}" for key, value in facts.items()]
    return f"{run['date']}, commit {run['commit']}: {', '.join(word for word in words if word)}."


def device_name(about: dict[str, Any]) -> str:
    """Returns what computed: the GPU, or the processor."""
    return str(about["processor"] if about["device"] == "cpu" else about["device"])


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
