"""Suites: named lists of cells, a base and variants of it. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import Field

from vdsm_bench.config import Settings, validate
from vdsm_bench.errors import UsageError, suggest
from vdsm_bench.notation import read_config_file
from vdsm_bench.registry import Registry
from vdsm_bench.runs.cell import Cell, plan_cells

#: the variant that changes nothing
BASE = "base"


class Variant(Settings):
    """One named change of the base.

    Attributes:
        summary: one line.
        change: the sections of ``--set``, as an ablation's change.
        datasets: further changes by dataset, over ``change``; a dataset also takes those of the
            one it is ``like``.
    """

    summary: str = ""
    change: dict[str, Any] = Field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Suite(Settings):
    """A list of cells: models x datasets x seeds, each as it is and in every variant.

    Attributes:
        summary: one line.
        models: instances, ``name`` or ``name[key=value,...]``.
        datasets: names.
        preset: of all cells.
        seeds: of all cells.
        settings: sections of ``--set`` that hold for all cells, the base included.
        ablations: names of registered ablations, which are variants too.
        variants: by name.
    """

    summary: str = ""
    models: list[str] = Field(min_length=1)
    datasets: list[str] = Field(min_length=1)
    preset: str = "small"
    seeds: list[int] = Field([0], min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    ablations: list[str] = Field(default_factory=list)
    variants: dict[str, Variant] = Field(default_factory=dict)

    def everything(self, table: Registry) -> dict[str, Variant]:
        """Returns the base, the ablations and the variants, by name.

        Raises:
            UsageError: an unknown ablation, or a name twice.
        """
        found = {BASE: Variant(summary="as the preset has it")}
        for name in self.ablations:
            entry = table.get("ablations", name)
            found[name] = Variant(summary=entry.summary, change=dict(entry.settings["change"]))
        twice = sorted(found.keys() & self.variants.keys())
        if twice:
            raise UsageError(f"The suite has two variants called '{twice[0]}'; rename one.")
        return {**found, **self.variants}


def load_suite(table: Registry, name: str) -> Suite:
    """Reads a suite of the catalogue, or of a file (a path with a ``/``, or to a ``.yaml``).

    Raises:
        UsageError: there is none, or it does not read.
    """
    if "/" in name or name.endswith((".yaml", ".yml", ".json")):
        content = read_config_file(Path(name))
        return validate(
            Suite, content, f"the suite {name}", hint="vdsm-bench show suites/recipe   (the form)"
        )
    entry = table.get("suites", name)
    return validate(Suite, {"summary": entry.summary, **entry.settings}, f"suites/{name}")


def plan_suite(
    table: Registry,
    suite: Suite,
    *,
    only: Sequence[str] = (),
    layers: Sequence[Mapping[str, Any]] = (),
) -> list[Cell]:
    """Resolves every cell of a suite, seed by seed, so that each seed is whole early.

    Args:
        table: the catalogue.
        suite: which cells.
        only: patterns (``lr-*``) of variants; all if there are none.
        layers: what the user gave; it wins over what the suite says.

    Raises:
        UsageError: an unknown name, key or value anywhere, or a pattern that fits no variant.
    """
    cells = []
    variants = suite.everything(table)
    _check_datasets(table, variants)
    for name, variant in _chosen(variants, only).items():
        for dataset in dict.fromkeys(suite.datasets):
            try:
                found = plan_cells(
                    table,
                    models=suite.models,
                    datasets=[dataset],
                    seeds=suite.seeds,
                    preset=suite.preset,
                    layers=[suite.settings, *_layers(table, variant, dataset), *layers],
                )
            except UsageError as error:
                if name == BASE:
                    raise
                raise UsageError(f"Variant '{name}': {error.message}", hint=error.hint) from error
            cells += [replace(cell, variant=None if name == BASE else name) for cell in found]
    order = {seed: number for number, seed in enumerate(dict.fromkeys(suite.seeds))}
    return sorted(cells, key=lambda cell: order[cell.config.seed])


def _chosen(variants: Mapping[str, Variant], only: Sequence[str]) -> dict[str, Variant]:
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in variants):
            raise UsageError(
                f"--only {pattern} fits no variant{suggest(pattern, variants)}; "
                f"variants: {', '.join(variants)}."
            )
    return {
        name: variant
        for name, variant in variants.items()
        if not only or any(fnmatchcase(name, pattern) for pattern in only)
    }


def _check_datasets(table: Registry, variants: Mapping[str, Variant]) -> None:
    known = table.names("datasets")
    known += [table.peek("datasets", name).settings.get("like") or name for name in known]
    for name, variant in variants.items():
        for dataset in variant.datasets:
            if dataset not in known:
                raise UsageError(
                    f"Variant '{name}': there is no '{dataset}' among the datasets"
                    f"{suggest(dataset, known)}.",
                    hint="vdsm-bench list datasets",
                )


def _layers(table: Registry, variant: Variant, dataset: str) -> Iterator[Mapping[str, Any]]:
    yield variant.change
    like = table.get("datasets", dataset).settings.get("like")
    for name in dict.fromkeys((like, dataset)):
        yield variant.datasets.get(name, {}) if name else {}
