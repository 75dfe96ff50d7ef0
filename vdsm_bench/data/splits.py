"""Splits: what is held out, computed from labels and a seed, stored nowhere.

Rules: ``clips`` holds out clips within every identity x action cell, ``identities`` holds out
whole identities, ``cells`` holds out identity x action cells of known identities; ``given`` is
what the owner of the clips wrote down. Under every rule some further cells of training identities
are kept from everyone (``Splits.cells``): on them a judge has to prove that it reads identity and
action apart. Under no rule are clips that were cut from one recording taken apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from vdsm_bench.config import content_key
from vdsm_bench.data.store import PARTS, ClipStore, IntArray
from vdsm_bench.errors import DataError, UsageError, suggest
from vdsm_bench.seeding import generator

Rule = Literal["clips", "identities", "cells", "given"]
#: of the key's form; other indices make another key by themselves
VERSION = 1
#: share of identity x action cells that only the judge's gate sees
GATE_SHARE = 0.09
#: cells that the gate needs: one alone shows one action of one person, which a constant may answer
_LEAST_GATE = 2
_TEST = {"clips": 0.25, "identities": 0.10, "cells": 0.10}
#: identities that ``test`` needs under the rule ``identities``: a transfer has two
_LEAST_TESTED = 2
_VALIDATION = {"clips": 0.10, "identities": 0.05, "cells": 0.05}
#: Li and Mandt's list: with this seed of NumPy's legacy generator, the first 1000 of the permuted
#: characters are for training, the other 296 for testing
_LI_MANDT, _LI_MANDT_SEED, _LI_MANDT_TRAIN = "sprites-1296", 423, 1000


@dataclass(frozen=True)
class Splits:
    """Clip indices, int64, sorted, disjoint.

    Attributes:
        train: clips to train on.
        validation: clips to choose an epoch on.
        test: clips to score.
        cells: clips of identity x action cells of training identities, for the judge's gate only.
        rule: what ``test`` holds out.
        unscorable: factors with held-out classes that never occur in ``train`` (an identity
            factor under the rule ``identities``): no judge can score them.
        constant: factors of which only one class occurs: there is nothing to tell.
        content_key: short hex digest of dataset content, rule and indices.
    """

    train: IntArray
    validation: IntArray
    test: IntArray
    cells: IntArray
    rule: Rule
    unscorable: tuple[str, ...]
    constant: tuple[str, ...]
    content_key: str

    def parts(self) -> dict[str, IntArray]:
        """Returns the four index arrays by name."""
        return {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "cells": self.cells,
        }


def make_splits(store: ClipStore, rule: Rule, seed: int = 0) -> Splits:
    """Splits a dataset.

    Args:
        store: the clips.
        rule: ``clips``, ``identities``, ``cells`` or ``given``.
        seed: the protocol's seed; Li and Mandt's published list of characters ignores it.

    Raises:
        UsageError: an unknown rule, or ``given`` where nothing was.
        DataError: too few clips, identities or cells for the rule.
    """
    if rule not in get_args(Rule):
        raise UsageError(
            f"There is no split rule '{rule}'{suggest(rule, get_args(Rule))}; "
            f"known: {', '.join(get_args(Rule))}."
        )
    cell_of = _cells_of(store)
    if rule == "identities":
        parts = _by_identity(store, seed)
    elif rule == "clips":
        parts = {"train": np.arange(len(store))}
    elif rule == "given":
        parts = _as_given(store, cell_of, seed)
    else:
        parts = _by_cell(store, cell_of, seed)
    # a given split may test cells that are trained on; those cannot be the gate's
    own = ~np.isin(cell_of[parts["train"]], cell_of[_held_out(parts)])
    draw = generator(seed, "split", rule, "gate")
    train, gate = _take_cells(
        store, parts["train"][own], cell_of, GATE_SHARE, draw, least=_LEAST_GATE
    )
    train = np.concatenate([train, parts["train"][~own]])
    if rule == "clips":
        parts = _by_clip(store, train, cell_of, _TEST["clips"], seed, store.identities[gate])
        train = parts["train"]
    result = {**parts, "train": train, "cells": gate}
    for name, indices in result.items():
        if not len(indices) and name != "cells":
            raise DataError(
                f"{store.name} is too small to be split by {rule}: nothing is left for {name}.",
                hint=f"vdsm-bench data prepare {store.name} --replace ...   (of more clips)",
            )
    result = {name: np.sort(indices) for name, indices in result.items()}
    key = content_key(
        [VERSION, store.content_hash, rule, {key: part.tolist() for key, part in result.items()}]
    )
    return Splits(
        **result,
        rule=rule,
        unscorable=_unscorable(store, result["train"], _held_out(result)),
        constant=tuple(f.name for f in store.factors if np.ptp(store.labels[f.name]) == 0),
        content_key=key,
    )


def check_disjoint(
    store: ClipStore, splits: Splits, digests: Sequence[bytes] | None = None
) -> None:
    """Proves that a split holds out what its rule says.

    Checks index sets, identities and cells, and compares the pixels of all clips across parts.

    Args:
        store: the clips.
        splits: how they are split.
        digests: of every clip (:meth:`ClipStore.digest_of`), where they are known already.

    Raises:
        DataError: parts overlap, or a clip of one part is also in another, pixel for pixel.
    """
    cell_of, identities = _cells_of(store), store.identities
    parts = splits.parts()
    everything = np.concatenate(list(parts.values()))
    if len(np.unique(everything)) != len(everything):
        raise DataError(f"{store.name}: the parts of the split share clips.")
    if len(everything) and (everything.min() < 0 or everything.max() >= len(store)):
        raise DataError(f"{store.name}: the split names clips that do not exist.")
    for name in ("train", "validation", "test"):
        _refuse_overlap(store, "cells", cell_of, "cell", parts["cells"], parts[name])
    if not np.isin(identities[splits.cells], identities[splits.train]).all():
        raise DataError(f"{store.name}: a held-out cell belongs to no training identity.")
    if splits.rule == "identities":
        for left, right in (("train", "test"), ("train", "validation"), ("validation", "test")):
            _refuse_overlap(store, left, identities, "identity", parts[left], parts[right])
    if splits.rule == "cells":
        for left, right in (("train", "test"), ("train", "validation"), ("validation", "test")):
            _refuse_overlap(store, left, cell_of, "cell", parts[left], parts[right])
    for left, right in itertools.combinations(parts, 2):
        _refuse_overlap(store, left, store.recordings, "recording", parts[left], parts[right])
    _refuse_duplicates(store, parts, digests)


def rules_of(store: ClipStore) -> tuple[Rule, ...]:
    """Returns the rules by which a dataset can be split."""
    return tuple(rule for rule in get_args(Rule) if rule != "given" or store.parts is not None)


def _held_out(parts: Mapping[str, IntArray]) -> IntArray:
    held = [rows for name, rows in parts.items() if name != "train"]
    return np.concatenate(held) if held else np.zeros(0, np.int64)


def _as_given(store: ClipStore, cell_of: IntArray, seed: int) -> dict[str, IntArray]:
    """Returns the owner's parts; where they gave no validation, some of train becomes that."""
    if store.parts is None:
        raise UsageError(
            f"{store.name} was made without a split of its own, so it cannot be split as given.",
            hint="--set data.split=clips, identities or cells; or a column 'split' in its labels",
        )
    parts = {name: np.flatnonzero(store.parts == place) for place, name in enumerate(PARTS)}
    if not len(parts["validation"]):
        cut = _by_clip(store, parts["train"], cell_of, 0.0, seed)
        parts |= {"train": cut["train"], "validation": cut["validation"]}
    return parts


def _cells_of(store: ClipStore) -> IntArray:
    return store.identities * (int(store.motions.max()) + 1) + store.motions


def _by_identity(store: ClipStore, seed: int) -> dict[str, IntArray]:
    identities, first = np.unique(store.identities, return_index=True)
    draw = generator(seed, "split", "identities")
    if store.name == _LI_MANDT:
        order = np.random.RandomState(_LI_MANDT_SEED).permutation(len(identities))
        train, test = order[:_LI_MANDT_TRAIN], order[_LI_MANDT_TRAIN:]
    else:
        share = _TEST["identities"]
        test = _hold_out(store, identities, first, share, draw, least=_LEAST_TESTED)
        train = np.setdiff1d(identities, test)
    held = _hold_out(store, train, first[train], _VALIDATION["identities"], draw)
    groups = {"train": np.setdiff1d(train, held), "validation": held, "test": test}
    return {
        name: np.flatnonzero(np.isin(store.identities, group)) for name, group in groups.items()
    }


def _hold_out(
    store: ClipStore,
    candidates: IntArray,
    first: IntArray,
    share: float,
    draw: np.random.Generator,
    least: int = 1,
) -> IntArray:
    """Picks identities at random so that every class of every static attribute keeps one.

    A factor that is a name of the identity (as many classes as identities) cannot keep its
    classes and does not bind. A share of all, but no fewer than ``least``, as far as that goes.
    """
    labels = [
        store.labels[factor.name][first] for factor in store.factors if factor.kind == "static"
    ]
    attributes = [column for column in labels if len(np.unique(column)) < len(candidates)]
    left = [np.bincount(column) for column in attributes]
    wanted = max(least, round(share * len(candidates)))
    taken: list[int] = []
    for place in draw.permutation(len(candidates)):
        if len(taken) == wanted:
            break
        if all(count[column[place]] > 1 for column, count in zip(attributes, left, strict=True)):
            for column, count in zip(attributes, left, strict=True):
                count[column[place]] -= 1
            taken.append(candidates[place])
    return np.asarray(taken, dtype=np.int64)


def _by_cell(store: ClipStore, cell_of: IntArray, seed: int) -> dict[str, IntArray]:
    draw = generator(seed, "split", "cells")
    everything = np.arange(len(store))
    rest, test = _take_cells(store, everything, cell_of, _TEST["cells"], draw)
    train, validation = _take_cells(store, rest, cell_of, _VALIDATION["cells"], draw)
    return {"train": train, "validation": validation, "test": test}


def _take_cells(
    store: ClipStore,
    clips: IntArray,
    cell_of: IntArray,
    share: float,
    draw: np.random.Generator,
    least: int = 1,
) -> tuple[IntArray, IntArray]:
    """Takes a share of the identity x action cells, spread evenly over identities and actions.

    Every identity keeps at least half of its cells (and one), every action at least one identity.
    No fewer than ``least`` cells, but at most a third of few: of two people and two actions, two
    cells less would leave each person one action of their own.

    Returns:
        The remaining clips and the clips of the taken cells.
    """
    cells, first = np.unique(cell_of[clips], return_index=True)
    owner, action = store.identities[clips][first], store.motions[clips][first]
    own_cells = {int(who): np.flatnonzero(owner == who) for who in np.unique(owner)}
    in_action = np.bincount(action)
    taken_of_action = np.zeros_like(in_action)
    taken: list[int] = []
    wanted = max(1, round(share * len(cells)), min(least, len(cells) // 3))
    for turn in range(max(map(len, own_cells.values()), default=0)):
        for who in draw.permutation(sorted(own_cells)):
            mine = own_cells[int(who)]
            if len(taken) == wanted or (turn + 1) * 2 > len(mine):
                continue
            spare = in_action - taken_of_action > 1
            open_cells = [
                place
                for place in draw.permutation(mine)
                if place not in taken and spare[action[place]]
            ]
            if open_cells:
                best = min(open_cells, key=lambda place: taken_of_action[action[place]])
                taken_of_action[action[best]] += 1
                taken.append(best)
    held = np.isin(cell_of[clips], cells[taken])
    return clips[~held], clips[held]


def _by_clip(
    store: ClipStore,
    clips: IntArray,
    cell_of: IntArray,
    test_share: float,
    seed: int,
    gated: Sequence[int] | IntArray = (),
) -> dict[str, IntArray]:
    """Holds out a share of every cell's recordings: systematic sampling along the cells.

    The only recording of a class, of anything, is for training: no judge could score it. So is one
    of every identity in ``gated``, of which the gate has cells: those are of people known by then.
    """
    draw = generator(seed, "split", "clips")
    recordings, first = np.unique(store.recordings[clips], return_index=True)
    shuffled = draw.permutation(clips[first])
    ordered = shuffled[np.argsort(cell_of[shuffled], kind="stable")]
    rest, test = _every(ordered, test_share)
    train, validation = _every(rest, _VALIDATION["clips"] / (1 - test_share))
    taken = {"train": train, "validation": validation, "test": test}
    columns = [store.labels[factor.name] for factor in store.factors]
    needed = [*((labels, labels[ordered]) for labels in columns), (store.identities, gated)]
    for labels, wanted in needed:
        for label in np.setdiff1d(wanted, labels[taken["train"]]):
            (one, *_) = ordered[labels[ordered] == label]
            taken = {name: rows[rows != one] for name, rows in taken.items()}
            taken["train"] = np.append(taken["train"], one)
    return {
        name: clips[np.isin(store.recordings[clips], store.recordings[rows])]
        for name, rows in taken.items()
    }


def _every(items: IntArray, share: float) -> tuple[IntArray, IntArray]:
    steps = np.floor(np.arange(len(items) + 1) * share + 1e-9)
    held = np.diff(steps) > 0
    return items[~held], items[held]


def _unscorable(store: ClipStore, train: IntArray, held_out: IntArray) -> tuple[str, ...]:
    """Names factors by classes that training never shows, in validation too: it chooses judges."""
    return tuple(
        factor.name
        for factor in store.factors
        if not np.isin(store.labels[factor.name][held_out], store.labels[factor.name][train]).all()
    )


def _refuse_overlap(
    store: ClipStore, name: str, values: IntArray, what: str, one: IntArray, other: IntArray
) -> None:
    shared = np.intersect1d(values[one], values[other])
    if len(shared):
        raise DataError(
            f"{store.name}: {len(shared)} {what} numbers of '{name}' occur in another part of the "
            f"split too, for example {int(shared[0])}."
        )


def _refuse_duplicates(
    store: ClipStore, parts: Mapping[str, IntArray], digests: Sequence[bytes] | None
) -> None:
    seen: dict[bytes, tuple[str, int]] = {}
    twins = []
    for name, rows in parts.items():
        for index in rows.tolist():
            digest = store.digest_of(index) if digests is None else digests[index]
            part, other = seen.setdefault(digest, (name, index))
            if part != name:
                twins.append(f"{part} {other} = {name} {index}")
    if twins:
        raise DataError(
            f"{store.name}: {len(twins)} clips occur in two parts of the split, pixel for pixel "
            f"({', '.join(twins[:5])})."
        )
