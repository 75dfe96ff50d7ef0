"""Where clip stores live, and which dataset stands in for one that was never configured."""

from __future__ import annotations

from pathlib import Path

from vdsm_bench.registry import Registry


def data_root(data_dir: Path | None) -> Path:
    """Returns the folder of the clip stores: the one the user named, or the user's data folder."""
    if data_dir is not None:
        return data_dir
    from platformdirs import user_data_path

    return user_data_path("vdsm-bench") / "data"


def is_prepared(data_dir: Path | None, dataset: str) -> bool:
    """Tells whether a dataset has a clip store, by its card alone."""
    return (data_root(data_dir) / dataset / "card.json").is_file()


def dataset_to_use(table: Registry, name: str, data_dir: Path | None) -> str:
    """Returns the dataset that a name stands for (DESIGN §6).

    A stand-in is used only where the user named no data folder and the store is missing.

    Raises:
        UsageError: no such dataset.
    """
    replacement = table.get("datasets", name).settings.get("stand_in")
    if replacement is None or data_dir is not None or is_prepared(data_dir, name):
        return name
    return str(replacement)
