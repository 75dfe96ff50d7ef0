"""What the command line does with datasets: list, prepare, check, preview, open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsm_bench.errors import DataError, UsageError, VdsmBenchError
from vdsm_bench.registry import Registry
from vdsm_bench.runs.places import dataset_to_use, is_prepared
from vdsm_bench.runs.reporting import Reporter, Silent

if TYPE_CHECKING:
    from vdsm_bench.data.store import ClipStore


def open_store(
    table: Registry, name: str, data_dir: Path | None, reporter: Reporter
) -> ClipStore:
    """Opens a dataset's clip store; an embedded dataset is drawn on first use.

    Raises:
        DataError: not prepared, or damaged; says how to prepare it.
    """
    from vdsm_bench.data.locate import data_root, open_dataset

    return open_dataset(
        table,
        name,
        data_root(data_dir),
        progress=lambda done, total: reporter.progress(f"prepare {name}", done, total),
        log=reporter.say,
    )


def dataset_states(table: Registry, data_dir: Path | None) -> list[dict[str, Any]]:
    """Returns every dataset with its state, JSON-able; one that is damaged breaks no other."""
    return [_state(table, name, data_dir) for name in table.names("datasets")]


def _state(table: Registry, name: str, data_dir: Path | None) -> dict[str, Any]:
    from vdsm_bench.data.locate import data_root
    from vdsm_bench.data.store import ClipStore

    state: dict[str, Any] = {
        "name": name,
        "summary": table.peek("datasets", name).summary,
        "prepared": False,
        "state": "not prepared",
        "licence": None,
    }
    try:
        card = table.factory("datasets", name)().card
        state["summary"], state["licence"] = card.summary, card.licence
        state["access"], state["source"] = card.access, card.source
        if card.access == "embedded":
            state["state"] = "drawn on first use"
        if is_prepared(data_dir, name):
            folder = data_root(data_dir).path / name
            store = ClipStore.open(folder)
            size = sum(file.stat().st_size for file in folder.iterdir())
            height, width, channels = store.image_shape
            state["prepared"] = True
            state["clips"], state["bytes"], state["folder"] = len(store), size, str(folder)
            state["state"] = (
                f"prepared: {len(store)} clips of {height}x{width}x{channels}, "
                f"{len(set(store.identities.tolist()))} identities, {size / 1e6:.0f} MB"
            )
        elif dataset_to_use(table, name, data_dir) != name:
            used = dataset_to_use(table, name, data_dir)
            state["state"] = f"not prepared; {used} stands in for it"
    except VdsmBenchError as error:
        state["state"] = f"damaged: {error.message}"
    return state


def prepare_dataset(
    table: Registry,
    name: str,
    data_dir: Path | None,
    *,
    source: Path | None,
    reporter: Reporter | None = None,
) -> Path:
    """Writes the clip store of a dataset; one that is there and sound stays.

    Raises:
        DataError: the source is missing or damaged, or there is a damaged store in the way.
        UsageError: an imported dataset without ``source``.
    """
    from vdsm_bench.data.locate import data_root
    from vdsm_bench.data.store import ClipStore

    listener: Reporter = reporter if reporter is not None else Silent()
    dataset = table.factory("datasets", name)()
    folder: Path = data_root(data_dir).path / name
    if folder.exists():
        try:
            ClipStore.open(folder).verify()
        except DataError as error:
            raise DataError(error.message, hint=f"rm -r {folder}   (then prepare again)") from error
        listener.say(f"{name}: prepared already, checksums are right")
        return folder
    if dataset.card.access == "import" and source is None:
        raise UsageError(
            f"{name} is imported from files that you have.",
            hint=f"vdsm-bench data prepare {name} --from FOLDER",
        )
    dataset.prepare(
        folder,
        source=source,
        progress=lambda done, total: listener.progress(f"prepare {name}", done, total),
    )
    return folder


def check_dataset(
    table: Registry, name: str, data_dir: Path | None, *, say: Callable[[str], None]
) -> list[str]:
    """Checks checksums and the disjointness of every split; returns what was found in order.

    Raises:
        DataError: missing, damaged, or splits that overlap.
    """
    from vdsm_bench.data.splits import check_disjoint, make_splits

    store = open_store(table, name, data_dir, _Lines(say))
    store.verify()
    lines = [f"{store.name}: {len(store)} clips, checksums are right"]
    for rule in ("clips", "identities", "cells"):
        splits = make_splits(store, rule)
        check_disjoint(store, splits)
        counts = ", ".join(f"{part} {len(rows)}" for part, rows in splits.parts().items())
        lines.append(f"split {rule}: disjoint ({counts})")
    return lines


def preview_dataset(
    table: Registry,
    name: str,
    data_dir: Path | None,
    path: Path,
    *,
    say: Callable[[str], None],
) -> None:
    """Writes a contact sheet as PNG."""
    from vdsm_bench.data.preview import write_preview

    write_preview(open_store(table, name, data_dir, _Lines(say)), path)


class _Lines(Silent):
    """Says lines, shows no bars."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def say(self, text: str) -> None:
        self._say(text)
