"""What can be wrong with a clip store, looked for in one go: bytes, labels, balance, leaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vdsm_bench.contracts import Factor, Integers, Report
from vdsm_bench.data.splits import Rule, check_disjoint, make_splits, rules_of
from vdsm_bench.data.store import ClipStore
from vdsm_bench.errors import DataError

#: examples named per finding
_EXAMPLES = 5
#: a class with this many times fewer clips than another is worth a note
_LOPSIDED = 3


def check_store(
    store: ClipStore, *, progress: Callable[[str, int, int], None] | None = None
) -> Report:
    """Reads every byte of a store.

    Args:
        store: opened, so its labels are in range and its small files match their checksums.
        progress: called with what is done, how much of it, and of how much.

    Raises:
        DataError: the frames do not match their checksum; nothing else is worth a look then.
    """
    say = progress or _say_nothing
    store.verify(progress=lambda done, total: say("checksums, MB", *_megabytes(done, total)))
    report = Report([f"{store.name}: {len(store)} clips, checksums are right, labels in range"])
    for factor in store.factors:
        _weigh(factor, store.labels[factor.name], report)
    cells = np.stack([store.identities, store.motions], axis=1)
    people, moves = combination_names(store, "static"), combination_names(store, "dynamic")
    count_cells(report, people, moves, cells)
    digests = []
    for index in range(len(store)):
        digests.append(store.digest_of(index))
        say("duplicates", index + 1, len(store))
    _find_twins(store, digests, report)
    own = store.card.get("split", "clips")
    if own not in rules_of(store):
        report.problems.append(
            f"its own split is '{own}', but it was made from labels without a column 'split'"
        )
    for rule in rules_of(store):
        _prove_split(store, rule, digests, report)
    return report


def combination_names(store: ClipStore, kind: str) -> list[str]:
    """Returns the name of every combination of the static or of the dynamic factors.

    In the order of ``store.identities`` or ``store.motions``; a factor that names the
    combinations alone (as many classes as combinations) stands for all of them.
    """
    of = store.identities if kind == "static" else store.motions
    _, first = np.unique(of, return_index=True)
    factors = [factor for factor in store.factors if factor.kind == kind]
    alone = [one for one in factors if len(np.unique(store.labels[one.name])) == len(first)]
    chosen = alone[:1] or factors
    return [
        " ".join(factor.classes[int(store.labels[factor.name][clip])] for factor in chosen) or "all"
        for clip in first
    ]


def _weigh(factor: Factor, labels: Integers, report: Report) -> None:
    """Counts the clips of every class."""
    counts = np.bincount(labels, minlength=len(factor.classes))
    report.counts[factor.name] = dict(zip(factor.classes, counts.tolist(), strict=True))
    what = f"factor {factor.name} ({factor.kind}): {len(counts)} classes"
    if np.count_nonzero(counts) == 1:
        only = factor.classes[int(labels[0])]
        report.notes.append(f"factor {factor.name}: all clips are {only}; it is not scored")
    few, many = int(counts.argmin()), int(counts.argmax())
    if counts[few] == counts[many]:
        report.lines.append(f"{what}, {counts[few]} clips each")
        return
    report.lines.append(
        f"{what}, {counts[few]} to {counts[many]} clips "
        f"(fewest {factor.classes[few]}, most {factor.classes[many]})"
    )
    empty = [name for name, count in report.counts[factor.name].items() if not count]
    if empty:
        report.notes.append(f"factor {factor.name}: no clip of {_some(empty)}")
    elif counts[many] >= _LOPSIDED * counts[few]:
        report.notes.append(
            f"factor {factor.name}: unbalanced, {factor.classes[many]} has {counts[many]} clips "
            f"and {factor.classes[few]} {counts[few]}; look at scores per class"
        )


def count_cells(
    report: Report, people: Sequence[str], moves: Sequence[str], cells: Integers
) -> None:
    """Counts the clips of every identity and action, and notes which are missing.

    Args:
        report: gets the counts.
        people: names of the identities.
        moves: names of the actions.
        cells: identity and action of every clip ``[n, 2]``.
    """
    table = np.zeros((len(people), len(moves)), dtype=np.int64)
    np.add.at(table, tuple(cells.T), 1)
    report.cells = {
        who: dict(zip(moves, row, strict=True))
        for who, row in zip(people, table.tolist(), strict=True)
    }
    if not len(cells):
        return
    filled = table[table > 0]
    few, many = filled.min(), filled.max()
    each = f"{few}" if few == many else f"{few} to {many}"
    report.lines.append(
        f"identity x action: {len(filled)} of {table.size} combinations have clips, {each} each"
    )
    for column, move in enumerate(moves):
        missing = [who for who, count in zip(people, table[:, column], strict=True) if not count]
        if missing:
            report.notes.append(f"missing {move}: {_some(missing)}")


def _find_twins(store: ClipStore, digests: list[bytes], report: Report) -> None:
    first: dict[bytes, int] = {}
    twins = []
    for index, digest in enumerate(digests):
        other = first.setdefault(digest, index)
        if other != index:
            twins.append((other, index))
    if not twins:
        report.lines.append("duplicates: no two clips are the same, pixel for pixel")
        return
    pairs = _some([f"{one} = {other}" for one, other in twins])
    report.notes.append(f"duplicates: {len(twins)} clips are there already: {pairs}")
    torn = [
        f"{one} = {other} ({factor.name}: {factor.classes[labels[one]]}, "
        f"{factor.classes[labels[other]]})"
        for one, other in twins
        for factor in store.factors
        if (labels := store.labels[factor.name])[one] != labels[other]
    ]
    if torn:
        report.notes.append(f"the same pixels have different labels: {_some(torn)}")


def _prove_split(store: ClipStore, rule: Rule, digests: list[bytes], report: Report) -> None:
    default = store.card.get("split", "clips") == rule
    try:
        splits = make_splits(store, rule)
    except DataError as error:
        (report.problems if default else report.notes).append(f"split {rule}: {error.message}")
        return
    try:
        check_disjoint(store, splits, digests)
    except DataError as error:
        report.problems.append(f"split {rule}: {error.message}")
        return
    parts = ", ".join(f"{part} {len(rows)}" for part, rows in splits.parts().items())
    report.lines.append(f"split {rule}{' (default)' if default else ''}: disjoint ({parts})")
    if splits.unscorable and default:
        report.notes.append(
            f"split {rule}: held-out clips have classes that train never shows, so no score for "
            f"{', '.join(splits.unscorable)}"
        )


def _some(items: list[str]) -> str:
    """Lists a few of many."""
    rest = f" and {len(items) - _EXAMPLES} more" if len(items) > _EXAMPLES else ""
    return ", ".join(items[:_EXAMPLES]) + rest


def cells_table(cells: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Draws clips per identity and action as aligned lines; a dot is none."""
    moves = list(next(iter(cells.values()), {}))
    left = max(map(len, cells), default=0)
    lines = [" ".join([" " * left, *moves])]
    for who, row in cells.items():
        numbers = [(str(row[move]) if row[move] else ".").rjust(len(move)) for move in moves]
        lines.append(" ".join([who.ljust(left), *numbers]))
    return lines


def _megabytes(*sizes: int) -> list[int]:
    return [-(-size // 1_000_000) for size in sizes]


def _say_nothing(what: str, done: int, total: int) -> None:
    """Drops it."""
