"""Our own kernels for GPUs, where they work; torch's operators do the same where they do not."""

from __future__ import annotations

import functools
import importlib
import warnings
from types import ModuleType

import torch
from torch import Tensor


def kernels_for(module: str, tensor: Tensor) -> ModuleType | None:
    """Returns a module of Triton kernels for a tensor, or None where torch's operators have to do.

    They do float32 and bfloat16 on a GPU, where Triton works.

    Args:
        module: its full name; its ``check(device)`` raises where what it computes is wrong.
        tensor: what they are to work on.
    """
    fits = tensor.is_cuda and tensor.dtype in (torch.float32, torch.bfloat16)
    return _checked(module, tensor.device) if fits else None


@functools.cache
def _checked(module: str, device: torch.device) -> ModuleType | None:
    try:
        kernels = importlib.import_module(module)
        kernels.check(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is: Triton, its compiler or the device
        warnings.warn(
            f"{module.split('.')[1]} run on torch's operators, which is slower, because Triton "
            f"does not work here: {type(error).__name__}: {str(error).partition(chr(10))[0]}",
            RuntimeWarning,
            stacklevel=4,
        )
        return None
    return kernels
