"""Seeds per purpose: one number from the user, independent streams for each use.

Every stream is a pure function of ``(seed, purpose, indices)``; nothing is drawn
from a stream that lives across steps. A resumed run therefore needs no saved
generator state to continue bit for bit.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, purpose: str, *indices: int | str) -> int:
    """Derives a 63-bit seed for one purpose (``data``, ``init``, ``train``, ``judge``, ``sample``).

    Args:
        seed: the user's seed.
        purpose: what the stream is for; different purposes never share numbers.
        indices: position inside the purpose, for example stage name and step.
    """
    text = "/".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *indices: int | str) -> np.random.Generator:
    """Returns a NumPy generator for one purpose; see :func:`derive_seed`."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, purpose, *indices)))
