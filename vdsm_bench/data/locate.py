"""Where clip stores live, how one is opened or made, and when a stand-in is used (DESIGN §6)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsm_bench.errors import ContractError, DataError
from vdsm_bench.registry import NAME, Entry, Registry

if TYPE_CHECKING:
    from vdsm_bench.contracts import VideoDataset
    from vdsm_bench.data.store import ClipStore

#: names the data folder where ``--data-dir`` does not
VARIABLE = "VDSM_BENCH_DATA"
#: what the card of a user's own set says beside what every card does (see ``data/folder.py``)
KIND, FOLDER, MADE_WITH = "kind", "folder", "made_with"
#: what says how one import is done, and not what the set is: not taken over by the next
OF_ONE_IMPORT = {"leave_out_odd": False, "trust_labels": False}
_OWN_TARGET = "vdsm_bench.data.folder:FolderDataset"

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class DataRoot:
    """The folder of the clip stores.

    Attributes:
        path: the folder; need not exist.
        named: whether the user named it; then nothing stands in for what is not there.
    """

    path: Path
    named: bool

    def store(self, name: str) -> Path:
        """Returns the folder of one dataset's store."""
        return self.path / name

    def has(self, name: str) -> bool:
        """Tells whether something is stored under this name, sound or not, or set aside."""
        return self.store(name).is_dir() or _aside(self.store(name)).is_dir()


def data_root(explicit: Path | None = None) -> DataRoot:
    """Finds the data folder: the option, then ``VDSM_BENCH_DATA``, then the user's data folder."""
    if explicit is not None:
        return DataRoot(explicit, named=True)
    if os.environ.get(VARIABLE):
        return DataRoot(Path(os.environ[VARIABLE]), named=True)
    from platformdirs import user_data_path

    return DataRoot(user_data_path("vdsm-bench") / "data", named=False)


def with_own_datasets(table: Registry, root: DataRoot) -> Registry:
    """Returns the catalogue with the user's own sets: stores whose card says they are one.

    A set of the catalogue keeps its name; what lies in its place is looked at when it is opened.
    """
    known = set(table.names("datasets"))
    cards = sorted(root.path.glob("*/card.json")) if root.path.is_dir() else []
    found = {path.parent.name: path for path in cards if NAME.fullmatch(path.parent.name)}
    for path in cards:  # set aside by a replacement that goes on, or was killed
        name = path.parent.name.removeprefix(".").removesuffix(".old")
        if path.parent == _aside(root.store(name)) and NAME.fullmatch(name):
            found.setdefault(name, path)
    entries = [_own_entry(name, found[name]) for name in sorted(found) if name not in known]
    return table.extended(entry for entry in entries if entry is not None)


def own_entry(name: str, arguments: Mapping[str, Any], card: Mapping[str, Any]) -> Entry:
    """Returns the catalogue's entry of a user's own set.

    Args:
        name: its name.
        arguments: every argument of ``FolderDataset``.
        card: its card, as far as there is one.
    """
    return Entry(
        kind="datasets",
        name=name,
        summary=str(card.get("summary", "")),
        target=_OWN_TARGET,
        defaults=dict(arguments),
        settings={"split": card["split"]} if card.get("split") else {},
        origin=f"{name}/card.json",
    )


def is_own(entry: Entry) -> bool:
    """Tells whether a dataset is the user's own."""
    return entry.target == _OWN_TARGET


def _own_entry(name: str, path: Path) -> Entry | None:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card.get(KIND) != FOLDER:
            return None
        return own_entry(name, {**card[MADE_WITH], **OF_ONE_IMPORT}, card)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        damage = DataError(
            f"The clip store {path.parent} is damaged: {path.name} does not read ({error}).",
            hint=f"remove {path.parent}, and: vdsm-bench data prepare {name} --from FOLDER ...",
        )

    def refuse() -> Any:
        raise damage

    return Entry("datasets", name, "damaged", origin=str(path), loader=refuse)


def build_dataset(table: Registry, name: str) -> VideoDataset:
    """Builds a dataset from its registry entry, to use all cores.

    Raises:
        UsageError: no such dataset.
        DataError: the user's own set, made by another version in another way, or renamed.
        ContractError: a card of the catalogue has another name; rows would say that one.
    """
    from vdsm_bench.devices import cores

    try:
        dataset: VideoDataset = table.factory("datasets", name)()
    except TypeError as error:
        if not is_own(table.get("datasets", name)):
            raise
        raise DataError(
            f"The card of {name} says that it was made in a way that is not known here: {error}.",
            hint=f"vdsm-bench data prepare {name} --replace --from FOLDER --static person ...",
        ) from error
    dataset.processes = cores()
    if dataset.card.name != name:
        if is_own(table.get("datasets", name)):
            raise _renamed(name, dataset.card.name)
        raise ContractError(f"The card of datasets/{name} says '{dataset.card.name}'.")
    return dataset


def megabytes(dataset: VideoDataset) -> str:
    """Returns how much a dataset's files weigh, for messages."""
    return f"{sum(file.size for file in dataset.downloads) / 1e6:.1f} MB"


def dataset_to_use(table: Registry, name: str, root: DataRoot) -> str:
    """Returns the name itself, or its stand-in where nothing was configured for it.

    Raises:
        UsageError: no such dataset.
    """
    stand_in = table.get("datasets", name).settings.get("stand_in")
    if stand_in is None or root.named or root.has(name):
        return name
    return str(stand_in)


def open_dataset(
    table: Registry,
    name: str,
    root: DataRoot,
    *,
    progress: Progress | None = None,
    log: Say | None = None,
) -> ClipStore:
    """Opens a dataset's store; embedded datasets are drawn on first use.

    Args:
        table: the catalogue.
        name: registry name.
        root: where the stores are.
        progress: called with (clips done, clips in all) while a store is made.
        log: told what is done in the user's stead (stand-in, first drawing, waiting).

    Returns:
        The store; where a stand-in is used its ``name`` is that of the stand-in.

    Raises:
        UsageError: no such dataset.
        DataError: an imported dataset that is not there, or a damaged store.
    """
    say = log or _say_nothing
    used = dataset_to_use(table, name, root)
    if used != name:
        say(
            f"No {name} in {root.path}: using the stand-in {used}; its rows say {used}. "
            f"Your own files: vdsm-bench data prepare {name} --from FOLDER"
        )
    if root.store(used).exists():
        return _opened(table, used, root)
    if root.has(used):
        return prepare_dataset(table, used, root, log=log)
    lacking = missing_files(table, used, root)
    if lacking is not None:
        raise lacking
    say(f"Making {used} in {root.store(used)} (once).")
    return prepare_dataset(table, used, root, progress=progress, log=log)


def missing_files(table: Registry, name: str, root: DataRoot) -> DataError | None:
    """Returns why a dataset cannot be had as things are, and what to do; None where it can.

    No frame is read, so one that is damaged is not noticed.

    Raises:
        UsageError: no such dataset.
    """
    if root.store(name).is_dir():
        try:
            _identified(table, name, root)
        except DataError as damage:
            return damage
    if root.has(name) or table.get("datasets", name).settings.get("embedded"):
        return None
    dataset = build_dataset(table, name)
    if dataset.card.access == "download":
        return DataError(
            f"{name} is not in {root.path}.",
            hint=f"vdsm-bench data prepare {name}   (downloads {megabytes(dataset)}; "
            "--from FOLDER where you have the files)",
        )
    if dataset.card.access == "import":
        return DataError(
            f"{name} is not in {root.path}; it is made from files that you have.",
            hint=f"vdsm-bench data prepare {name} --from FOLDER   ({dataset.card.source})",
        )
    return None


def prepare_dataset(
    table: Registry,
    name: str,
    root: DataRoot,
    *,
    source: Path | None = None,
    replace: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
    fetched: Progress | None = None,
    log: Say | None = None,
) -> ClipStore:
    """Makes a dataset's store, or returns the one that is there.

    Two processes that prepare the same dataset take turns; the second finds it ready.

    Args:
        table: the catalogue.
        name: registry name.
        root: where the stores are.
        source: the user's files; where it is None, those of a ``download`` dataset are fetched.
        replace: make it anew; the old store is kept until the new one is whole.
        processes: how many may draw at once, all cores if None; changes no byte.
        progress: called with (clips done, clips in all).
        fetched: called with (bytes fetched, bytes in all).
        log: told when another process has to be waited for.

    Raises:
        UsageError: no such dataset.
        DataError: source missing or damaged, an existing store that is damaged, or no space.
    """
    from filelock import Timeout

    from vdsm_bench.data.store_writer import store_lock

    dataset, folder = build_dataset(table, name), root.store(name)
    dataset.processes = processes or dataset.processes
    lock = store_lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        (log or _say_nothing)(f"Another process is preparing {name}; waiting for it.")
        lock.acquire()
    try:
        _put_back(folder)
        if not folder.exists() or replace:
            files = _source(dataset, source, fetched, log or _say_nothing)
            if folder.exists():
                _replace(dataset, folder, files, progress)
            else:
                dataset.prepare(folder, source=files, progress=progress)
        return _opened(table, name, root)
    except DataError as error:
        if error.hint is None and source is not None:
            error.hint = "mend it, then the same command again"
        raise
    finally:
        lock.release()


def _source(
    dataset: VideoDataset, source: Path | None, fetched: Progress | None, say: Say
) -> Path | None:
    """Returns the folder a dataset is made from; downloads it where the user named none.

    Raises:
        DataError: what the user named is no folder, or the download failed.
    """
    if source is not None:
        check_source(source, dataset.card.name)
    if source is not None or dataset.card.access != "download":
        return source
    from vdsm_bench.data.download import cache_folder, fetch

    name = dataset.card.name
    folder = cache_folder(dataset.downloads_of or name)
    say(f"{name}: its files ({megabytes(dataset)}) are fetched to {folder} (once).")
    return fetch(name, dataset.downloads, folder, progress=fetched)


def check_source(source: Path, name: str) -> None:
    """Refuses what cannot hold a dataset's files.

    Raises:
        DataError: what the user named is no folder.
    """
    if not source.is_dir():
        raise DataError(
            f"{source} is no folder; {name} is read from a folder.",
            hint="--from FOLDER, with the folder that holds the files",
        )


def _opened(table: Registry, name: str, root: DataRoot) -> ClipStore:
    """Opens a store that is what its card says, and what its folder is called.

    A row must say nothing of damaged frames, nor another dataset's name.
    """
    store = _identified(table, name, root)
    store.verify_once()
    return store


def _identified(table: Registry, name: str, root: DataRoot) -> ClipStore:
    """Opens a store without a look at its frames; it is the one that its folder is called."""
    from vdsm_bench.data.store import ClipStore

    store = ClipStore.open(root.store(name))
    if store.name != name:
        raise _renamed(name, store.name)
    if store.card.get(KIND) == FOLDER and not is_own(table.get("datasets", name)):
        raise DataError(
            f"{store.folder} holds a set of your own, but {name} is a set of the catalogue.",
            hint=f"make yours anew under another name, and remove {store.folder}",
        )
    return store


def _renamed(folder: str, name: str) -> DataError:
    return DataError(
        f"The folder {folder} holds {name}, not {folder}.",
        hint=f"rename the folder to {name}, and type the command with {name}",
    )


def _replace(
    dataset: VideoDataset, folder: Path, source: Path | None, progress: Progress | None
) -> None:
    from vdsm_bench.data.store import check_nothing_else

    aside = _aside(folder)
    check_nothing_else(folder)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    try:
        dataset.prepare(folder, source=source, progress=progress)
    except BaseException:  # also Ctrl-C: whatever stopped it, the old store comes back
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Puts back what a replacement that was killed half-way has set aside."""
    from vdsm_bench.data.store import CARD, check_nothing_else

    aside = _aside(folder)
    if (aside / CARD).is_file() and not (folder / CARD).is_file():
        if folder.exists():
            check_nothing_else(folder)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _say_nothing(message: str) -> None:
    """Drops a message."""
