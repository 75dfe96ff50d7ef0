"""What a measurement depends on (the machine, without its name, and the commit), and options."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from vdsm_bench.devices import choose_device, describe_device
from vdsm_bench.errors import UsageError, VdsmBenchError, suggest

ROOT = Path(__file__).parents[1]
_FLAGS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")


def describe(device: str) -> dict[str, Any]:
    """Returns processor, memory, versions, threads and device, JSON-able."""
    import torch

    has = torch.cpu.get_capabilities()
    processor = describe_device("cpu")
    found: dict[str, Any] = {
        "processor": processor["name"],
        "flags": [flag for flag in _FLAGS if has.get(flag)],
        "cores": processor["cores"],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": describe_device(device)["name"] if device == "cuda" else device,
    }
    if device == "cuda":
        found["device_memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9)
    return found


def commit() -> str:
    """Returns the commit that is measured, with a ``+`` where files but results differ from it."""
    try:
        named, changed = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
            for words in (
                ["describe", "--always", "--exclude=*"],
                ["status", "--porcelain", "--", ".", ":!benchmarks/results"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return named.stdout.strip() + ("+" if changed.stdout.strip() else "")


def synchronise(device: str) -> None:
    """Waits for what the device has been told to do."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def options(about: str | None) -> argparse.ArgumentParser:
    """Returns a parser of what every benchmark takes: device, threads and where results go.

    Args:
        about: the benchmark's docstring, of which the first line is shown.
    """
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=None, help="of the CPU; torch's default")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results"
    )
    return parser


def prepare(device: str, threads: int | None) -> None:
    """Sets the number of threads, after a look for the device.

    Raises:
        UsageError: the device is not on this machine, or there is no such number of threads.
    """
    import torch

    choose_device(device)
    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)


def check_threads(threads: int | None) -> None:
    """Refuses a number of threads that torch cannot have.

    Raises:
        UsageError: fewer than one.
    """
    if threads is not None:
        at_least("--threads", threads, 1)


def run(main: Callable[[], None]) -> None:
    """Runs a benchmark's main function; what the user can mend is said, with its exit code."""
    try:
        main()
    except VdsmBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def known(option: str, given: str, names: Collection[str]) -> list[str]:
    """Returns what an option names, comma-separated.

    Args:
        option: as it is typed.
        given: what was typed after it.
        names: that there are.

    Raises:
        UsageError: one of them is not there.
    """
    wanted = given.split(",")
    for name in wanted:
        if name not in names:
            wrong = f"{option}: there is no {name!r}{suggest(name, names)}."
            raise UsageError(wrong, hint=f"{option} {','.join(names)}")
    return wanted


def at_least(option: str, given: int, least: int) -> int:
    """Returns the number that was given for an option.

    Raises:
        UsageError: it is too small.
    """
    if given < least:
        raise UsageError(f"{option} {given}: must be {least} or more.", hint=f"{option} {least}")
    return given


def at_least_once(repeats: int) -> int:
    """Returns how often something is timed; raises as :func:`at_least`."""
    return at_least("--repeats", repeats, 1)
