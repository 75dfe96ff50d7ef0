"""Finds what would make the host wait for a device, on a machine that has none."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
#: what needs a tensor's values on the host
ASKS = {
    ATEN._local_scalar_dense.default,  # item, bool, float, tolist of one
    ATEN.equal.default,
    ATEN.masked_select.default,
    ATEN.nonzero.default,
}


class HostWaits(TorchDispatchMode):
    """Lists the operations that would wait: values asked for, and numbers made into tensors.

    ``torch.tensor(number, device=...)`` copies from the host's pageable memory: torch awaits it.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        number = function is ATEN.lift_fresh.default and made.numel()
        masked = function is ATEN.index.Tensor and any(
            index is not None and index.dtype is torch.bool for index in args[1]
        )
        if function in ASKS or number or masked:
            self.found.append(str(function))
        return made
