"""What a step's loss came to, kept on the device until somebody looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """What a meter shows.

    Attributes:
        sound: steps recorded before the first one that was not finite; all, if there was none.
        figures: of the last step, or of the first that was not finite.
    """

    sound: int
    figures: Mapping[str, float]


class Meter:
    """Keeps the figures of the latest step on the device: only reading them waits for it.

    From the first step on that is not finite, it keeps the figures of that one. All it does per
    step is done in place, so that the work of a step can be recorded and repeated.

    Args:
        device: where the steps are taken.
    """

    def __init__(self, device: torch.device) -> None:
        self._names: tuple[str, ...] = ()
        self._count = torch.zeros((), device=device)  # float32, exact up to 16 million steps
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._kept = torch.zeros(0, device=device)

    def record(self, figures: Mapping[str, Tensor], watched: Mapping[str, Tensor]) -> None:
        """Records one step.

        Args:
            figures: scalars, shown by :meth:`read`.
            watched: scalars that have to be finite, shown too, in place of others of their names.
        """
        others = {name: value for name, value in figures.items() if name not in watched}
        shown = {**others, **watched}
        scalars = [value.detach().to(self._count).reshape(()) for value in shown.values()]
        values = torch.stack(scalars)
        if self._names != tuple(shown):
            self._names = tuple(shown)
            self._kept = torch.full_like(values, float("nan"))
        self._kept.copy_(torch.where(self._finite, values, self._kept))
        self._finite.logical_and_(values[len(shown) - len(watched) :].isfinite().all())
        self._count.add_(self._finite)

    def read(self) -> Reading:
        """Waits for the device and returns what was recorded."""
        count, *values = torch.cat([self._count.view(1), self._kept]).tolist()
        return Reading(int(count), dict(zip(self._names, values, strict=True)))
