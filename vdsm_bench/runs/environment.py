"""env.json: the machine and versions a cell ran on. No number depends on it by design."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("torch", "numpy", "pyro-ppl", "timm", "lightning-fabric", "antialiased-cnns")


def describe_environment(device: str) -> dict[str, Any]:
    """Returns versions, processor and device, JSON-able."""
    import torch

    from vdsm_bench import __version__

    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "vdsm-bench": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "threads_wait": os.environ.get("OMP_WAIT_POLICY"),
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else None,
    }
