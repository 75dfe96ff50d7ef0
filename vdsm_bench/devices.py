"""Which device a cell runs on, and the settings that let torch use it well."""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING

from vdsm_bench.errors import UsageError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: glibc's mallopt parameters
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
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


def prepare_process() -> None:
    """Sets what a training process wants from the CPU; does nothing to any number's meaning.

    * Keeps the heap's pages (glibc): a step frees and takes back hundreds of megabytes, and
      page faults cost more than its arithmetic otherwise.
    * Lets float32 products go through oneDNN, which uses the chip's full vector width; on a
      chip without matrix units this is still float32 arithmetic.
    """
    import torch

    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
    torch.set_float32_matmul_precision("medium")


def launch_fabric(device: str) -> Fabric:
    """Returns Lightning Fabric on one device in float32."""
    from lightning_fabric import Fabric

    return Fabric(accelerator=device, devices=1, precision="32-true")
