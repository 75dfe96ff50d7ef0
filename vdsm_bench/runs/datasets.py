"""What the command line does with datasets: open, list, show, prepare, check."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsm_bench.data.locate import (
    OF_ONE_IMPORT,
    DataRoot,
    build_dataset,
    check_source,
    data_root,
    dataset_to_use,
    is_own,
    open_dataset,
    own_entry,
    prepare_dataset,
)
from vdsm_bench.errors import DataError, UsageError, VdsmBenchError, suggest
from vdsm_bench.registry import NAME, Registry
from vdsm_bench.runs.reporting import Reporter

if TYPE_CHECKING:
    from vdsm_bench.contracts import Report
    from vdsm_bench.data.store import ClipStore


def open_store(table: Registry, name: str, data_dir: Path | None, reporter: Reporter) -> ClipStore:
    """Opens a dataset's clip store; an embedded dataset is drawn on first use.

    Raises:
        DataError: not prepared, or damaged; says how to prepare it.
    """
    return open_dataset(
        table,
        name,
        data_root(data_dir),
        progress=lambda done, total: reporter.progress(f"prepare {name}", done, total),
        log=reporter.say,
    )


def table_for(
    table: Registry, name: str, given: Mapping[str, Any], root: DataRoot, *, replace: bool
) -> Registry:
    """Returns the catalogue with the user's own set as they want it made.

    Args:
        table: the catalogue, with the sets that are there.
        name: a dataset of the catalogue, or what the own set shall be called.
        given: what the user named: arguments of ``FolderDataset``, or those that a dataset of the
            catalogue takes too.
        root: where the stores are.
        replace: whether a set that is there may be made otherwise.

    Raises:
        UsageError: an unknown name and nothing given, arguments that the dataset does not take,
            or others than those that a set which is there was made with.
    """
    known = name in table.names("datasets")
    if not given:
        if known:
            return table
        raise UsageError(
            f"There is no '{name}' among the datasets{suggest(name, table.names('datasets'))}.",
            hint=f"vdsm-bench list datasets; or, of your own clips: vdsm-bench data prepare {name} "
            "--from FOLDER --static person --dynamic action",
        )
    _check_name(name)
    before: dict[str, Any] = {}
    if known:
        entry = table.get("datasets", name)
        if not is_own(entry):
            refused = ", ".join(
                f"--{key.replace('_', '-')}" for key in given.keys() - entry.defaults
            )
            if refused:
                raise UsageError(
                    f"{name} is a set of the catalogue and does not take {refused}.",
                    hint="choose another name for your own clips",
                )
            if root.has(name) and not replace:
                options = ", ".join(f"--{key.replace('_', '-')}" for key in given)
                raise UsageError(
                    f"{name} is there already; {options} would change nothing.",
                    hint="add --replace to make it anew",
                )
            entry = dataclasses.replace(entry, defaults={**entry.defaults, **given})
            return table.extended([entry])
        before = dict(entry.defaults)
    from vdsm_bench.data.folder import FolderDataset

    wanted = {"static": (), "dynamic": (), **before, **given, "name": name}
    arguments = json.loads(json.dumps(dataclasses.asdict(FolderDataset(**wanted))))
    changed = [k for k, v in arguments.items() if k not in OF_ONE_IMPORT and before.get(k) != v]
    if before and changed and not replace:
        what = ", ".join(f"{key} {before.get(key)}" for key in changed)
        raise UsageError(
            f"{name} is there already, made with {what}.",
            hint="add --replace to make it anew, or choose another name",
        )
    return table.extended([own_entry(name, arguments, {})])


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        slug = "-".join(re.findall("[a-z0-9]+", name.lower())) or "my-set"
        raise UsageError(
            f"'{name}' cannot be the name of a set: names are lower-case letters (a to z) and "
            "digits, with - between them.",
            hint=f"the same command with {slug}",
        )


def prepare_store(
    table: Registry,
    name: str,
    data_dir: Path | None,
    *,
    source: Path | None,
    replace: bool,
    reporter: Reporter,
    processes: int | None = None,
) -> Path:
    """Writes the clip store of a dataset, or proves the one that is there.

    Raises:
        DataError: the source is missing or damaged, or the store that is there is.
    """
    root = data_root(data_dir)
    there = root.has(name) and not replace
    store = prepare_dataset(
        table,
        name,
        root,
        source=source,
        replace=replace,
        processes=processes,
        progress=lambda done, total: reporter.progress(f"prepare {name}", done, total),
        fetched=lambda done, total: reporter.progress(f"download {name}", done, total, "bytes"),
        log=reporter.say,
    )
    if there:
        store.verify()
        reporter.say(f"{name} was prepared already; its checksums are right.")
        if source is not None:
            reporter.say(f"{source} was not read; --replace makes {name} anew from it.")
    else:
        for text in _said_of(store):
            reporter.say(text)
    return store.folder


def _said_of(store: ClipStore) -> list[str]:
    """Returns what there is to say of a new store: what was left out, what to look at."""
    from vdsm_bench.data.splits import make_splits

    said = [f"left out: {text}" for text in store.card.get("left_out", ())]
    said += [f"note: {text}" for text in store.card.get("notes", ())]
    try:
        make_splits(store, store.card.get("split", "clips"))
    except DataError as error:
        said.append(f"warning: {error.message}")
    lengths = store.lengths
    said.append(
        f"{store.name}: {len(store)} clips of {lengths.min()} to {lengths.max()} frames, "
        f"{store.identities.max() + 1} identities, {store.motions.max() + 1} motions"
    )
    return said


def dataset_states(table: Registry, data_dir: Path | None) -> list[dict[str, Any]]:
    """Returns every dataset with its state, JSON-able; one that is damaged breaks no other."""
    root = data_root(data_dir)
    return [dataset_state(table, name, root) for name in table.names("datasets")]


def dataset_state(table: Registry, name: str, root: DataRoot) -> dict[str, Any]:
    """Returns what a dataset is and whether it is there, JSON-able; being damaged is a state."""
    state: dict[str, Any] = {
        "name": name,
        "summary": table.peek("datasets", name).summary,
        "prepared": False,
        "state": "not prepared",
        "licence": None,
    }
    try:
        card = build_dataset(table, name).card
        state.update(
            licence=card.licence, access=card.access, source=card.source, megabytes=card.megabytes
        )
        used = dataset_to_use(table, name, root)
        if root.store(name).is_dir():
            state.update(_of_store(root.store(name)))
        elif card.access == "embedded":
            state["state"] = "drawn on first use"
        elif card.access == "download":
            state["state"] = f"not prepared: vdsm-bench data prepare {name}"
        elif used != name:
            state["state"] = f"not prepared; {used} stands in for it"
        else:
            state["state"] = f"not prepared: vdsm-bench data prepare {name} --from FOLDER"
    except VdsmBenchError as error:
        state["state"] = f"damaged: {error.message}"
    return state


def _of_store(folder: Path) -> dict[str, Any]:
    from vdsm_bench.data.store import ClipStore

    store = ClipStore.open(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    height, width, channels = store.image_shape
    identities = len(set(store.identities.tolist()))
    return {
        "prepared": True,
        "state": f"prepared: {len(store)} clips of {height}x{width}x{channels}, "
        f"{identities} identities",
        "folder": str(folder),
        "clips": len(store),
        "identities": identities,
        "bytes": size,
        "megabytes": round(size / 1e6, 1),
    }


def describe_dataset(table: Registry, name: str, data_dir: Path | None) -> dict[str, Any]:
    """Returns all that is known of a dataset without reading its frames, JSON-able.

    Raises:
        UsageError: no such dataset.
    """
    from vdsm_bench.data.store import ClipStore

    entry, root = table.get("datasets", name), data_root(data_dir)
    state = dataset_state(table, name, root)
    if entry.defaults:
        state["arguments"] = dict(entry.defaults)
    state["split"] = entry.settings.get("split", "clips")
    if not state["prepared"]:
        return state
    store = ClipStore.open(root.store(name))
    kept = ("split", "frame_rate", "protocol", "content_sha256", "left_out", "notes")
    state.update({key: store.card[key] for key in kept if store.card.get(key) is not None})
    state["frame size"] = "x".join(map(str, store.image_shape))
    state["frames per clip"] = [int(store.lengths.min()), int(store.lengths.max())]
    state["factors"] = {
        factor.name: {"kind": factor.kind, "classes": list(factor.classes)}
        for factor in store.factors
    }
    return state


def check_dataset(table: Registry, name: str, data_dir: Path | None, reporter: Reporter) -> Report:
    """Looks for everything that can be wrong with a dataset's store.

    Raises:
        DataError: missing, or its bytes are not those that were written.
    """
    from vdsm_bench.data.check import check_store

    store = open_store(table, name, data_dir, reporter)
    return check_store(
        store,
        progress=lambda what, done, total: reporter.progress(
            f"check {store.name}: {what}", done, total
        ),
    )


def survey_files(table: Registry, name: str, source: Path, reporter: Reporter) -> Report:
    """Says what the user's files hold, before anything is made from them.

    Raises:
        UsageError: no such dataset, or one that has no such check.
        DataError: no such folder, or the files are not of this dataset at all.
    """
    check_source(source, name)
    try:
        report = build_dataset(table, name).survey(
            source, progress=lambda done, total: reporter.progress(f"look at {source}", done, total)
        )
    except DataError as error:
        error.hint = error.hint or "mend it, or name another folder with --from"
        raise
    if report is None:
        raise UsageError(
            f"{name} has no check of files before they are imported; preparing it checks them.",
            hint=f"vdsm-bench data prepare {name} --from {shlex.quote(str(source))}",
        )
    return report
