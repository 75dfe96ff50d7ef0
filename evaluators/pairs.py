"""The fixed pair list: identity of A, motion of B; the same for every model of a dataset."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np

from vdsm_bench.contracts import Factor, FactorKind, Integers, LabelledClips
from vdsm_bench.errors import DataError, ProtocolError
from vdsm_bench.seeding import generator

#: raised whenever the same labels would give other pairs or other clips
PAIRS_VERSION = 1
#: clips per action that enter the enumeration of one action pair
_LARGEST_GROUP = 400


def joint_classes(
    labels: Mapping[str, Integers], factors: Sequence[Factor], kind: FactorKind
) -> Integers:
    """Numbers the combinations of all factors of one kind.

    Args:
        labels: class indices ``[N]`` per factor.
        factors: the dataset's factors.
        kind: ``static`` for identity, ``dynamic`` for the action.

    Returns:
        ``[N]``: equal numbers for equal combinations, in sorted order of the combinations.

    Raises:
        ProtocolError: there is no factor of this kind.
    """
    chosen = [factor.name for factor in factors if factor.kind == kind]
    if not chosen:
        raise ProtocolError(f"The dataset has no {kind} factor; transfers cannot be scored.")
    table = np.stack([labels[name] for name in chosen], axis=1)
    return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def check_labels(labels: Mapping[str, Integers], factors: Sequence[Factor], where: str) -> int:
    """Checks that every factor has one label per clip, in range; returns the number of clips.

    Raises:
        DataError: a factor without labels, unequal lengths, no clips, or a label out of range.
    """
    lengths = set()
    for factor in factors:
        if factor.name not in labels:
            raise DataError(f"{where}: no labels for the factor '{factor.name}'.")
        column = np.asarray(labels[factor.name])
        if column.ndim != 1 or not np.issubdtype(column.dtype, np.integer):
            raise DataError(
                f"{where}: labels of '{factor.name}' must be integers [N], got {column.dtype} "
                f"{list(column.shape)}."
            )
        lengths.add(len(column))
        if len(column) and not (column.min() >= 0 and column.max() < len(factor.classes)):
            raise DataError(
                f"{where}: labels of '{factor.name}' must lie in 0..{len(factor.classes) - 1}, "
                f"got {column.min()}..{column.max()}."
            )
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"{where}: every factor needs one label per clip, got {sorted(lengths)}.")
    return int(lengths.pop())


def telling_factors(factors: Sequence[Factor], unscorable: Container[str]) -> list[Factor]:
    """Returns the factors in which pairs have to differ: those a judge can tell, of either kind.

    Two pictures of one digit are two identities, but where the judge reads the digit alone, a copy
    of B would pass for the identity of A. Where no factor of a kind can be judged, all of it count.
    """
    told = {factor.kind for factor in factors if factor.name not in unscorable}
    return [f for f in factors if f.name not in unscorable or f.kind not in told]


def choose_clips(n: int, count: int) -> Integers:
    """Chooses at most ``count`` of n clips, evenly likely, in ascending order; always the same."""
    if n <= count:
        return np.arange(n, dtype=np.int64)
    rng = generator(PAIRS_VERSION, "clips", n, count)
    return np.sort(rng.permutation(n)[:count]).astype(np.int64)


def subset(source: LabelledClips, rows: Integers) -> LabelledClips:
    """Returns some of the clips with their labels, numbered anew from 0."""
    return LabelledClips(
        clips=lambda chosen: source.clips(rows[chosen]),
        labels={
            name: np.asarray(values, dtype=np.int64)[rows] for name, values in source.labels.items()
        },
        recordings=None if source.recordings is None else source.recordings[rows],
    )


def pair_list(labels: Mapping[str, Integers], factors: Sequence[Factor], count: int) -> Integers:
    """Draws the pairs (A, B): different identity and different action, none twice.

    Every ordered pair of actions gets the same number of pairs, as far as the clips allow. The list
    is a function of labels, count and :data:`PAIRS_VERSION` alone.

    Args:
        labels: class indices ``[N]`` per factor.
        factors: the factors that tell clips apart, see :func:`telling_factors`; identity is all
            static ones, action all dynamic ones.
        count: wanted length; fewer where fewer exist.

    Returns:
        Row numbers ``[P, 2]``, 1 <= P <= count.

    Raises:
        DataError: labels missing or out of range.
        ProtocolError: no two clips differ in both identity and action.
    """
    check_labels(labels, factors, "pair list")
    identity = joint_classes(labels, factors, "static")
    action = joint_classes(labels, factors, "dynamic")
    rng = generator(PAIRS_VERSION, "pairs", count)
    groups = [np.flatnonzero(action == value) for value in range(action.max() + 1)]
    groups = [rng.permutation(group)[:_LARGEST_GROUP] for group in groups]
    strata = [
        _stratum(groups[first], groups[second], identity, rng, count)
        for first in range(len(groups))
        for second in range(len(groups))
        if first != second
    ]
    strata = [rows for rows in strata if len(rows)]
    if not strata:
        raise ProtocolError(
            "No two of the clips differ in both identity and action "
            f"({', '.join(factor.name for factor in factors)}); transfers cannot be scored.",
            hint="hold out more clips, or choose another split (--set data.split=clips)",
        )
    # Round robin over the action pairs: as even as can be, whatever the group sizes.
    order = rng.permutation(len(strata))
    turn = np.concatenate([np.arange(len(rows)) for rows in strata])
    place = np.concatenate([np.full(len(rows), order[i]) for i, rows in enumerate(strata)])
    return np.concatenate(strata)[np.lexsort((place, turn))][:count]


def _stratum(
    first: Integers,
    second: Integers,
    identity: Integers,
    rng: np.random.Generator,
    count: int,
) -> Integers:
    """Returns at most ``count`` pairs of one action pair, in random order."""
    rows, columns = np.nonzero(identity[first][:, None] != identity[second][None, :])
    chosen = rng.permutation(len(rows))[:count]
    return np.stack([first[rows[chosen]], second[columns[chosen]]], axis=1).astype(np.int64)
