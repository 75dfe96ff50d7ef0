"""Which device a cell runs on, and the settings that let torch use it well."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import TYPE_CHECKING, Any

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


def prepare_process() -> None:
    """Sets what a training process wants from the CPU; does nothing to any number's meaning.

    * Keeps the heap's pages (glibc): a step frees and takes back hundreds of megabytes, and
      page faults cost more than its arithmetic otherwise.
    * Lets float32 products go through oneDNN, which uses the chip's full vector width. That is
      torch's "medium", still float32 arithmetic on a chip without matrix units for bfloat16; on
      one with them it is left out, because it would round to bfloat16 unasked.
    * On CUDA, lets them round their factors to TF32, as convolutions do there anyway.
    """
    import torch

    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
    rounds = torch.cpu.get_capabilities().get("amx_bf16", False)
    torch.set_float32_matmul_precision("high" if rounds else "medium")


def launch_fabric(device: str) -> Fabric:
    """Returns Lightning Fabric on one device in float32."""
    from lightning_fabric import Fabric

    return Fabric(accelerator=device, devices=1, precision="32-true")
