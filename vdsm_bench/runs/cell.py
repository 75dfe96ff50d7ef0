"""What makes a cell the same cell: its key, its name and its folder. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vdsm_bench.config import (
    PRECISIONS,
    CellConfig,
    Precision,
    canonical_json,
    content_key,
    resolve,
)
from vdsm_bench.registry import Registry, split_part
from vdsm_bench.runs.folder import CellRecord, scan_cells
from vdsm_bench.signatures import checked_value

#: settings that change no number but by rounding, and those of scores beside the row's own
NO_NUMBER = {"evaluation": ("batch_size", "scores")}
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Cell:
    """One cell as asked for, before its data has been opened.

    Attributes:
        config: the resolved configuration.
        instance: canonical model instance name.
        variant: what a suite calls its settings, or None.
    """

    config: CellConfig
    instance: str
    variant: str | None = None

    @property
    def label(self) -> str:
        """``dataset/model/preset-seed<k>``: how the cell is called in messages."""
        config = self.config
        where = f"{config.data.dataset}/{self.instance}/{config.preset}-seed{config.seed}"
        return where if self.variant is None else f"{where} ({self.variant})"

    def at(self, precision: Precision) -> Cell:
        """Returns the same cell trained in another precision."""
        return replace(self, config=self.config.model_copy(update={"precision": precision}))

    def with_seed(self, seed: int) -> Cell:
        """Returns the same cell under another seed."""
        return replace(self, config=self.config.model_copy(update={"seed": seed}))

    def asking(self, score: str) -> Cell:
        """Returns the same cell asked for one more dear score, where it is not asked for yet."""
        scores = self.config.evaluation.scores
        if score in (split_part(each)[0] for each in scores):
            return self
        evaluation = self.config.evaluation.model_copy(update={"scores": [*scores, score]})
        return replace(self, config=self.config.model_copy(update={"evaluation": evaluation}))


@dataclass(frozen=True)
class CellKey:
    """Everything a cell's numbers depend on, and its hashes.

    Attributes:
        inputs: configuration, component targets, data and protocol; nothing about paths,
            devices or the order of flags.
    """

    inputs: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Hash of the cell."""
        return content_key(self.inputs)

    @property
    def group(self) -> str:
        """Hash of all but the seed: cells that may be averaged share it."""
        without = {**self.inputs, "config": {**self.inputs["config"], "seed": None}}
        return content_key(without)


def plan_cells(
    table: Registry,
    *,
    models: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int],
    preset: str,
    layers: Sequence[Mapping[str, Any]] = (),
) -> list[Cell]:
    """Resolves every model x dataset x seed; nothing is built.

    Raises:
        UsageError: an unknown name, key or value anywhere.
    """
    cells = []
    for dataset in dict.fromkeys(datasets):
        for model in dict.fromkeys(models):
            for seed in dict.fromkeys(seeds):
                config = resolve(
                    table, model=model, dataset=dataset, preset=preset, seed=seed, layers=layers
                )
                cells.append(Cell(config, config.instance(table)))
    return cells


def complete_part(table: Registry, kind: str, value: Any) -> dict[str, Any]:
    """Returns a component with its target, version and every argument, nested parts included.

    A number is written in one way, so that a model that is given 10 for 10.0 is the same.
    """
    name, given = split_part(value)
    entry = table.get(kind, name)
    arguments, annotations = {**entry.defaults, **given}, entry.annotations()
    for key, argument in arguments.items():
        if key in entry.parts:
            arguments[key] = complete_part(table, entry.parts[key], argument)
        elif key in annotations:
            arguments[key] = checked_value(annotations[key], key, argument, f"{kind}/{name}")
    versioned = {} if entry.version == 1 else {"version": entry.version}
    return {"name": name, "target": entry.target, "arguments": arguments, **versioned}


def cell_key(
    table: Registry, config: CellConfig, *, data: Mapping[str, Any], protocol: Mapping[str, Any]
) -> CellKey:
    """Computes the key of a cell.

    Args:
        table: the catalogue; defaults that are not stated in the configuration count too.
        config: the resolved configuration.
        data: content hash of the clips and key of the splits.
        protocol: key of the judge and versions of the scores.
    """
    tree = complete(table, config)
    return CellKey({"config": tree, "data": dict(data), "protocol": dict(protocol)})


def complete(table: Registry, config: CellConfig) -> dict[str, Any]:
    """Returns :func:`comparable` with the model's parts, defaults and versions stated."""
    model = {"name": config.model.name, **config.model.arguments}
    return {**comparable(config), "model": complete_part(table, "models", model)}


def comparable(config: CellConfig) -> dict[str, Any]:
    """Returns the configuration as a tree without what changes no number.

    Float32 is left out too, so that cells from before there was a choice keep their keys.
    """
    tree = config.model_dump(mode="json")
    if tree["precision"] == "32":
        del tree["precision"]
    for section, keys in NO_NUMBER.items():
        for key in keys:
            tree[section].pop(key)
    return tree


def changes(table: Registry, config: CellConfig) -> dict[str, Any]:
    """Returns what leaves the preset beside the model's arguments, by dotted key.

    The arguments are not among it: they are in the instance's name.
    """
    model, recipe = config.model.name, config.model.recipe
    usual = resolve(
        table,
        model=model if recipe is None else f"{model}[recipe={recipe}]",
        dataset=config.data.dataset,
        preset=config.preset,
    )
    mine, theirs = (
        {key: value for key, value in comparable(each).items() if key not in ("model", "seed")}
        for each in (config, usual)
    )
    known = dict(_dotted(theirs))
    return {key: value for key, value in _dotted(mine) if key not in known or value != known[key]}


def _dotted(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def cell_path(runs_dir: Path, cell: Cell, key: str) -> Path:
    """Returns the folder of a native cell; see :func:`cell_folder`."""
    return cell_folder(runs_dir, cell.config, instance=cell.instance, key=key)


def cell_folder(runs_dir: Path, config: CellConfig, *, instance: str, key: str) -> Path:
    """Returns ``<runs>/cells/<dataset>/<model instance>/<preset>-seed<k>-<hash8>``."""
    leaf = f"{config.preset}-seed{config.seed}-{key}"
    return runs_dir / "cells" / config.data.dataset / folder_name(instance) / leaf


def folder_name(instance: str) -> str:
    """Returns a name every file system takes: no separators, no more than 100 characters."""
    name = re.sub(r"[^A-Za-z0-9._,=\[\]-]", "_", instance)
    if name == instance and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}~{content_key(instance)}"


class KnownCells:
    """The cells under a runs folder, found by their configuration without opening their data.

    Args:
        table: the catalogue; cells of another version of a component are not found.
        runs_dir: where cells live.
    """

    def __init__(self, table: Registry, runs_dir: Path) -> None:
        self._table = table
        self._by_seed: dict[str, dict[int, CellRecord]] = {}
        found = scan_cells(runs_dir)
        for record in sorted(found, key=lambda each: each.status.time if each.status else ""):
            # of two that differ in their data alone the newer is kept
            if record.config is not None:
                tree = record.config["inputs"]["config"]
                self._by_seed.setdefault(_but_for_seed(tree), {})[tree["seed"]] = record

    def find(self, config: CellConfig, asked: str | None) -> CellRecord | None:
        """Returns the cell that is meant where this precision (None: any) is asked for, or None."""
        return self.seeds(config, asked).get(config.seed)

    def seeds(self, config: CellConfig, asked: str | None = None) -> dict[int, CellRecord]:
        """Returns the cells of a configuration under whatever seed, by seed.

        Args:
            config: the configuration; its precision does not count.
            asked: ``32``, ``bf16``, or ``auto`` for what that chose before; without it all
                count, of two the one that ``auto`` chose.
        """
        found: dict[int, CellRecord] = {}
        for precision in PRECISIONS:
            tree = complete(self._table, config.model_copy(update={"precision": precision}))
            for seed, record in self._by_seed.get(_but_for_seed(tree), {}).items():
                chosen = auto_reason(record.config or {}) is not None
                fits = chosen if asked == "auto" else asked in (precision, None)
                if fits and (chosen or seed not in found):
                    found[seed] = record
        return dict(sorted(found.items()))


def auto_reason(content: Mapping[str, Any]) -> str | None:
    """Returns why ``auto`` chose the precision of a cell, or None where it did not.

    Cells from before there was a choice count as chosen.

    Args:
        content: the cell's ``config.json``.
    """
    choice = content.get("precision", {"asked": "auto", "reason": "as this cell was begun"})
    if not isinstance(choice, dict) or choice.get("asked") != "auto":
        return None
    return str(choice.get("reason"))


def _but_for_seed(tree: Mapping[str, Any]) -> str:
    return canonical_json({**tree, "seed": None})
