"""Accuracies as pure functions of what the judge says (DESIGN §7; protocol notes 5).

Everywhere ``said`` maps a factor to the judge's classes ``[N]`` and ``labels`` to the true ones.
A *row* is a clip for consistency and a pair (A, B) for transfers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vdsm_bench.contracts import Factor, Floats, Integers, Predictions
from vdsm_bench.errors import ProtocolError

Said = Mapping[str, Integers]


def classes(predictions: Predictions) -> dict[str, Integers]:
    """Turns log-probabilities ``[N, C]`` into classes ``[N]`` per factor.

    Raises:
        ProtocolError: NaN among them.
    """
    for name, values in predictions.items():
        if np.isnan(values).any():
            raise ProtocolError(f"The judge's log-probabilities of '{name}' hold NaN.")
    return {name: np.asarray(v.argmax(axis=1), dtype=np.int64) for name, v in predictions.items()}


def agreement(first: Said, second: Said, names: Sequence[str]) -> Floats:
    """Computes 1 where two columns of classes agree in every named factor, else 0; ``[N]``.

    With the judge's word on real and on regenerated clips this is consistent accuracy; with the
    labels of B in the dynamic factors, dynamic accuracy; with those of A in the static ones,
    identity accuracy; with those of the other clip of the pair, a leak.

    Raises:
        ProtocolError: no factor is named, or the lengths differ.
    """
    if not names:
        raise ProtocolError("Agreement over no factor at all has no value.")
    lengths = {len(said[name]) for said in (first, second) for name in names}
    if len(lengths) != 1:
        raise ProtocolError(f"Agreement needs equal numbers of rows, got {sorted(lengths)}.")
    equal = np.stack([first[name] == second[name] for name in names])
    return np.asarray(equal.all(axis=0), dtype=np.float64)


def at(labels: Said, rows: Integers) -> dict[str, Integers]:
    """Picks rows of every factor's labels."""
    return {name: np.asarray(values)[rows] for name, values in labels.items()}


def differing(labels: Said, pairs: Integers, names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Says for which pairs A and B differ in at least one of the named factors, bool ``[P]``."""
    same = agreement(at(labels, pairs[:, 0]), at(labels, pairs[:, 1]), names)
    return np.equal(same, 0)


def chance(said: Said, wanted: Said, names: Sequence[str]) -> dict[str, float]:
    """Computes what would be scored without looking, all named factors at once.

    Returns:
        ``permutation``: the expected share if these very answers were dealt out to the rows at
        random, sum_c p_c q_c with p the shares of the wanted classes and q those of the answers
        (combinations of classes, where several factors are named);
        ``labels``: the same for answers drawn from the wanted classes, sum_c p_c^2;
        ``majority``: the best constant answer, max_c p_c.
    """
    table = np.concatenate(
        [np.stack([column[name] for name in names], axis=1) for column in (wanted, said)]
    )
    joint = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
    n = len(joint) // 2
    size = int(joint.max()) + 1
    p = np.bincount(joint[:n], minlength=size) / n
    q = np.bincount(joint[n:], minlength=size) / n
    return {
        "permutation": float(p @ q),
        "labels": float(p @ p),
        "majority": float(p.max()),
    }


def histogram(said: Said, factors: Sequence[Factor]) -> dict[str, list[int]]:
    """Counts the judge's answers per class; a constant judge is consistent and shows up here."""
    return {
        factor.name: np.bincount(said[factor.name], minlength=len(factor.classes)).tolist()
        for factor in factors
        if factor.name in said
    }


def transferred_reality(
    real: Said, pairs: Integers, factors: Sequence[Factor]
) -> dict[str, Integers]:
    """Puts together what the judge says of the real clips of every pair: the real-test ceiling.

    Static factors as judged on A, dynamic ones as judged on B; no transfer can be expected to be
    judged better than the real clips themselves.
    """
    return {
        factor.name: real[factor.name][pairs[:, 0 if factor.kind == "static" else 1]]
        for factor in factors
        if factor.name in real
    }
