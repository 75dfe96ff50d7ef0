"""Which device a cell runs on, and the settings that let torch use it well."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsm_bench.errors import UsageError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: glibc's mallopt parameters
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
#: how the threads of a step wait for each other; whoever sets one of these knows better
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
#: seconds over which a machine is watched, and how many cores short of the threads count as busy
_WATCHED, _SHORT = 0.2, 0.3
DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> str:
    """Returns ``cuda``, ``mps`` or ``cpu``.

    Args:
        name: one of :data:`DEVICES`; ``auto`` takes the first that is there, in that order.

    Raises:
        UsageError: unknown, or not on this machine.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, present in there.items() if present)
    if name not in there:
        raise UsageError(f"There is no device '{name}'; known: {', '.join(DEVICES)}.")
    if not there[name]:
        raise UsageError(f"This machine has no '{name}' device.", hint="--device auto")
    return name


def describe_device(device: str) -> dict[str, Any]:
    """Returns what the speed of a device depends on, JSON-able; no name of a host, no path."""
    import torch

    if device == "cuda":
        return {"device": device, "name": torch.cuda.get_device_name()}
    return {
        "device": device,
        "name": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
    }


def has_bf16(device: str) -> bool:
    """Returns whether a device multiplies bfloat16 by instructions of its own."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities() if device == "cpu" else {}
    return any(there for name, there in found.items() if name.endswith("bf16"))


def prepare_environment() -> None:
    """Sets what torch reads from the environment once, when it is loaded; changes no number.

    Where other processes leave fewer cores free than there are threads, threads wait for each
    other asleep. By default they spin, and then two threads wait for a third process's turn to
    end at each of a step's thousand barriers. On an idle machine waking them would cost more.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _WAITING):
        return
    threads = os.environ.get("OMP_NUM_THREADS", "")
    wanted = int(threads) if threads.isdecimal() else cores()
    if wanted > 1 and (free := free_cores()) is not None and free < wanted - _SHORT:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def cores() -> int:
    """Returns how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_cores() -> float | None:
    """Returns the cores that are idle or this process's own just now; None where nobody says."""
    try:
        before = _idle_ticks()
        started, own = time.monotonic(), time.process_time()
        time.sleep(_WATCHED)
        idle = (_idle_ticks() - before) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return (idle + time.process_time() - own) / (time.monotonic() - started)


def _idle_ticks() -> int:
    """Returns how long all cores have been idle or waited for a disk (Linux)."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=6)
    return int(fields[4]) + int(fields[5])


def matmul_rate(dtype: str, *, size: int = 1024, rounds: int = 5) -> float:
    """Returns the best rate of square matrix products on the processor, in GFLOP/s.

    Args:
        dtype: ``float32`` or ``bfloat16``.
        size: rows and columns.
        rounds: how many products are timed, after one that is not.
    """
    import torch

    factor = torch.ones(size, size, dtype=getattr(torch, dtype))
    best = float("inf")
    for _ in range(rounds + 1):
        started = time.perf_counter()
        factor @ factor
        best = min(best, time.perf_counter() - started)
    return 2e-9 * size**3 / best


def prepare_process() -> None:
    """Sets what a training process wants from the CPU; does nothing to any number's meaning.

    * Keeps the heap's pages (glibc): a step frees and takes back hundreds of megabytes, and
      page faults cost more than its arithmetic otherwise.
    * Lets float32 products go through oneDNN, which uses the chip's full vector width. That is
      torch's "medium", still float32 arithmetic on an x86 chip without matrix units for bfloat16;
      on one with them, and on an ARM chip that has bfloat16, it is left out, because it would
      round to bfloat16 unasked.
    * Flushes numbers below the smallest normal float to zero, in threads that start afterwards
      too: a unit that has all but died makes nothing else, and a chip takes them several times as
      slowly.
    * On CUDA, lets them round their factors to TF32, as convolutions do there anyway, and has
      convolutions add up in one order, so that the same seed gives the same weights.
    """
    import numpy as np
    import torch

    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
    for real in (np.float32, np.float64):
        np.finfo(real)  # kept from now on; older NumPy warns where it first asks afterwards
    torch.set_flush_denormal(True)
    capabilities = torch.cpu.get_capabilities()
    rounds = capabilities.get("amx_bf16", False) or capabilities.get("bf16", False)
    torch.set_float32_matmul_precision("high" if rounds else "medium")
    torch.backends.cudnn.deterministic = True


def launch_fabric(device: str) -> Fabric:
    """Returns Lightning Fabric on one device in float32."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    # named, or Fabric takes a batch system's tasks for its own and wants one device for each
    alone = LightningEnvironment()
    return Fabric(accelerator=device, devices=1, precision="32-true", plugins=alone)
