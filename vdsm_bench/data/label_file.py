"""labels.csv: one line per clip, a column ``file``, one column per factor, and maybe ``split``."""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vdsm_bench.data.clip_files import CLIPS, IMAGES, entries, natural
from vdsm_bench.data.store import PARTS
from vdsm_bench.errors import DataError, UsageError, suggest

FILE, SPLIT = "file", "split"
_PART_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
#: a label seen once is suspicious beside one this near that is seen this often
_NEAR, _OFTEN = 0.7, 2
_FACTOR = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")


@dataclass(frozen=True)
class Odd:
    """Something that is not as it should be.

    Attributes:
        where: the file, or the line of labels.csv.
        why: a sentence about it.
    """

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass(frozen=True)
class Row:
    """One clip as its owner labelled it.

    Attributes:
        file: path in the folder, with forward slashes.
        labels: class name per factor.
        part: ``train``, ``validation``, ``test``, or None.
    """

    file: str
    labels: Mapping[str, str]
    part: str | None = None


@dataclass(frozen=True)
class Labels:
    """What a labels file says.

    Attributes:
        rows: the clips, in the order of the file.
        odd: lines that were left out, and why.
        unused: columns that are no factor.
        listed: every file that the table names, also in lines that were left out.
    """

    rows: tuple[Row, ...]
    odd: tuple[Odd, ...]
    unused: tuple[str, ...]
    listed: frozenset[str]


def read_labels(path: Path, source: Path, factors: Sequence[str], trust: bool = False) -> Labels:
    """Reads a labels file.

    Args:
        path: the file: UTF-8, separated by commas, semicolons or tabs.
        source: folder of the clips.
        factors: names of the columns that are factors.
        trust: take labels that look like slips of the pen as they are.

    Raises:
        DataError: missing, no text, or without a column ``file``.
        UsageError: a factor that is no column.
    """
    header, lines = _read_table(path, source, factors)
    _check_columns(path, header, factors)
    on_disk = _on_disk(source, lines)
    rows: dict[str, tuple[int, Row]] = {}
    odd: list[Odd] = []
    listed: set[str] = set()
    contradicted: set[str] = set()
    for number, cells in lines:
        line = f"{path.name}, line {number}"
        row, problem = _row(header, cells, factors)
        if row is not None:
            composed = unicodedata.normalize("NFC", row.file)
            row = replace(row, file=on_disk.get(composed, row.file))
            listed.add(row.file)
            first = rows.get(row.file)
            if problem is None and first is not None:
                same = first[1] == row
                contradicted |= set() if same else {row.file}
                problem = f"{row.file} is in line {first[0]} too, " + (
                    "with the same labels" if same else "with other labels"
                )
        if problem is not None or row is None:
            odd.append(Odd(line, problem or "is empty"))
        else:
            rows[row.file] = number, row
    kept = {name: pair for name, pair in rows.items() if name not in contradicted}
    if not trust:
        slips = dict(_slips(path, list(kept.values()), factors))
        odd += slips.values()
        kept = {name: pair for name, pair in kept.items() if name not in slips}
    unused = tuple(name for name in header if name not in (FILE, SPLIT, *factors))
    return Labels(tuple(row for _, row in kept.values()), tuple(odd), unused, frozenset(listed))


def unlabelled(source: Path, listed: frozenset[str], labels: Path) -> tuple[list[Odd], list[str]]:
    """Looks for clips without a label.

    Returns:
        The clips that no line of the table names (an unlisted folder of images counts as one), and
        the names of files that are no clips.
    """
    odd: list[Odd] = []
    others: list[str] = []
    above = {str(parent) for name in listed for parent in PurePosixPath(name).parents}
    todo, seen = [source], {source.resolve()}
    while todo:
        folder = todo.pop()
        images = []
        for entry in entries(folder):
            name = entry.relative_to(source).as_posix()
            if name in listed or entry == labels:
                continue
            if entry.is_dir():
                if entry.resolve() not in seen:  # a link may lead back
                    todo.append(entry)
                    seen.add(entry.resolve())
            elif entry.suffix.lower() in IMAGES:
                images.append(name)
            elif entry.suffix.lower() in CLIPS:
                odd.append(Odd(name, f"is not in {labels.name}"))
            else:
                others.append(name)
        place = folder.relative_to(source).as_posix()
        if images and folder != source and place not in above:
            odd.append(Odd(place, f"is not in {labels.name} (a folder of {len(images)} images)"))
        else:
            odd += [Odd(name, f"is not in {labels.name}") for name in images]
    return sorted(odd, key=lambda one: natural(one.where)), sorted(others, key=natural)


def _read_table(
    path: Path, source: Path, factors: Sequence[str]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(
            f"There is no {path}. It says what the clips show: a line per clip, for example\n"
            + "\n".join(_example(source, factors)),
            hint="write it (a spreadsheet can save CSV), and type the command again",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} does not read: {error}.", hint="save it as CSV in UTF-8"
        ) from error
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    try:
        reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
        lines = []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
    if not lines:
        raise DataError(f"{path} is empty; its first line names the columns.")
    return lines[0][1], lines[1:]


def _example(source: Path, factors: Sequence[str]) -> Iterator[str]:
    yield "  " + ",".join([FILE, *factors])
    clips = [
        entry.name for entry in entries(source) if entry.is_dir() or entry.suffix.lower() in CLIPS
    ]
    for name in clips[:3]:
        yield "  " + ",".join([name, *(f"({factor})" for factor in factors)])


def _check_columns(path: Path, header: Sequence[str], factors: Sequence[str]) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if FILE not in header or twice:
        problem = f"names the column '{twice[0]}' twice" if twice else f"has no column '{FILE}'"
        raise DataError(
            f"{path} {problem}; its columns: {', '.join(header)}.",
            hint="the first line names the columns: file, one per factor, and split if you want",
        )
    for factor in factors:
        if factor not in header:
            raise UsageError(
                f"{path} has no column '{factor}'{suggest(factor, header)}; its columns: "
                f"{', '.join(header)}.",
                hint="--static and --dynamic name columns",
            )
        if not _FACTOR.fullmatch(factor) or factor in (FILE, SPLIT):
            why = (
                "that column has another meaning"
                if factor in (FILE, SPLIT)
                else "names are lower-case letters (a to z) and digits, with - or _ between them"
            )
            raise UsageError(
                f"'{factor}' cannot be the name of a factor: {why}.",
                hint=f"rename the column of {path.name}, for example to body-shape",
            )


def _row(
    header: Sequence[str], cells: Sequence[str], factors: Sequence[str]
) -> tuple[Row | None, str | None]:
    """Returns one line's clip, and what is wrong with it."""
    values = dict(zip(header, cells, strict=False))
    name = values.get(FILE, "").replace("\\", "/")
    if not name:
        return None, "names no file"
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        return None, f"{name} lies outside of the folder"
    # composed: on some keyboards an accent is a character of its own, and one person would be two
    labels = {factor: unicodedata.normalize("NFC", values.get(factor, "")) for factor in factors}
    row = Row(path.as_posix(), labels, _PART_NAMES.get(values.get(SPLIT, "").lower()))
    if len(cells) > len(header):
        return row, f"{name} has {len(cells)} values for {len(header)} columns"
    empty = [factor for factor, label in labels.items() if not label]
    if empty:
        return row, f"{name} has no {' and no '.join(empty)}"
    if SPLIT in header and row.part is None:
        given = values.get(SPLIT, "")
        return row, f"{name} is in the part '{given}'{suggest(given, PARTS)}; {', '.join(PARTS)}"
    return row, None


def _on_disk(source: Path, lines: Sequence[tuple[int, list[str]]]) -> dict[str, str]:
    """Returns names as they are on disk, where a Mac takes accents apart, by composed name.

    Empty where no line of the table has a letter beyond ASCII.
    """
    if all(cell.isascii() for _, cells in lines for cell in cells):
        return {}
    names = (path.relative_to(source).as_posix() for path in source.rglob("*"))
    return {unicodedata.normalize("NFC", name): name for name in names if not name.isascii()}


def _slips(
    path: Path, rows: Sequence[tuple[int, Row]], factors: Sequence[str]
) -> Iterator[tuple[str, Odd]]:
    """Yields files whose label looks like a slip of the pen: seen once, beside a frequent one."""
    for factor in factors:
        counts = Counter(row.labels[factor] for _, row in rows)
        for number, row in rows:
            label = row.labels[factor]
            near = _meant(label, counts)
            if near is not None:
                yield (
                    row.file,
                    Odd(
                        f"{path.name}, line {number}",
                        f"{row.file} has the {factor} '{label}', seen {_times(counts[label])}; "
                        f"is it '{near}', seen {_times(counts[near])}?",
                    ),
                )


def _meant(label: str, counts: Mapping[str, int]) -> str | None:
    """Returns the label that was probably meant, or None: numbers differ on purpose."""
    for other, count in counts.items():
        if other.casefold() == label.casefold() and (count, other) > (counts[label], label):
            return other
    if counts[label] > 1:
        return None
    bare = re.sub(r"\d+", "", label)
    often = [
        other
        for other, count in counts.items()
        if count >= _OFTEN and re.sub(r"\d+", "", other) != bare
    ]
    near = difflib.get_close_matches(label, often, n=1, cutoff=_NEAR)
    return near[0] if near else None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
