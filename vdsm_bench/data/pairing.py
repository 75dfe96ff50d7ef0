"""Identity pairs: which two clips show the same identity, in takes of their own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vdsm_bench.data.store import IntArray


class Pairing:
    """Who may be whose partner: a clip of the same identity, of another recording if there is one.

    Args:
        identities: of the clips ``[n]``.
        recordings: that they were cut from ``[n]``.

    Attributes:
        alone: how many identities have one recording only.
    """

    def __init__(self, identities: IntArray, recordings: IntArray) -> None:
        self._order = np.lexsort((recordings, identities))
        self._rank = np.argsort(self._order)
        # clips of one recording are neighbours in the order, and those of one identity are
        _, takes = np.unique(np.stack([identities, recordings]), axis=1, return_inverse=True)
        self._start, self._size = _stretches(identities, self._order)
        self._take_start, self._take_size = _stretches(takes.reshape(-1), self._order)
        whole = self._take_size == self._size
        self.alone = len(np.unique(identities[whole]))
        # of the one recording there is, all but the clip itself may be its partner
        self._take_start = np.where(whole, self._rank, self._take_start)
        self._take_size = np.where(whole, 1, self._take_size)

    def partners(self, first: IntArray, uniform: npt.NDArray[np.float64]) -> IntArray:
        """Returns a partner for each of these clips, by uniform numbers in [0, 1)."""
        start, size, own = self._start[first], self._size[first], self._take_size[first]
        others = size - own
        pick = (uniform * np.maximum(others, 1)).astype(np.int64)
        pick += own * ((pick >= self._take_start[first] - start) & (others > 0))
        partners: IntArray = self._order[start + pick]
        return partners


def _stretches(groups: IntArray, order: IntArray) -> tuple[IntArray, IntArray]:
    """Returns where in an order the group of every clip begins, and how many clips it has."""
    ordered = groups[order]
    start = np.searchsorted(ordered, groups, side="left")
    return start, np.searchsorted(ordered, groups, side="right") - start
