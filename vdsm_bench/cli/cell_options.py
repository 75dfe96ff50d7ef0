"""Which cells a command is about: models, datasets, seeds, settings, or a suite of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vdsm_bench.cli.context import Session, complete_names, note

if TYPE_CHECKING:
    from vdsm_bench.runs.cell import Cell

_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "models": (("--model",), {
        "multiple": True, "metavar": "NAME[KEY=VALUE,...]",
        "shell_complete": complete_names("models"),
        "help": "Model; may be given several times."}),
    "datasets": (("--dataset",), {
        "multiple": True, "metavar": "NAME", "shell_complete": complete_names("datasets"),
        "help": "Dataset; may be given several times."}),
    "suite": (("--suite",), {
        "metavar": "NAME|FILE", "shell_complete": complete_names("suites"),
        "help": "A list of cells; other options take the place of what it says."}),
    "only": (("--only",), {
        "multiple": True, "metavar": "PATTERN",
        "help": "Variants of the suite, like 'lr-*'; may be given several times."}),
    "preset": (("--preset",), {
        "metavar": "NAME", "shell_complete": complete_names("presets"),
        "help": "Size of the experiment (default small)."}),
    "seeds": (("--seeds",), {
        "metavar": "0,1,2",
        "help": "Seeds (default 0; leaderboard --suite: all there are)."}),
    "config_file": (("--config",), {
        "type": click.Path(dir_okay=False, path_type=Path),
        "help": "YAML file with the sections of --set."}),
    "assignments": (("--set",), {
        "multiple": True, "metavar": "KEY=VALUE",
        "help": "One setting, for example data.frames=10 or training.sequence.epochs=5."}),
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The options as they were given; what was not is None or empty."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    suite: str | None
    only: tuple[str, ...]
    preset: str | None
    seeds: str | None
    config_file: Path | None
    assignments: tuple[str, ...]

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [_OPTIONS[f.name][0][0] for f in fields(self) if getattr(self, f.name)]

    @property
    def typed(self) -> str:
        """The options as they are typed, for a command that takes the same."""
        parts: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            given = value if isinstance(value, tuple) else () if value is None else (value,)
            parts += [word for one in given for word in (_OPTIONS[each.name][0][0], str(one))]
        return shlex.join(parts)

    def layers(self) -> list[dict[str, Any]]:
        """Returns the settings that were given, lowest first."""
        from vdsm_bench.notation import parse_assignments, read_config_file

        files = [] if self.config_file is None else [read_config_file(self.config_file)]
        return [*files, parse_assignments(self.assignments)]

    def cells(self, session: Session, layers: Sequence[Mapping[str, Any]]) -> list[Cell]:
        """Resolves the cells.

        Raises:
            UsageError: an unknown name, key or value anywhere, or something is missing.
        """
        from vdsm_bench.errors import UsageError
        from vdsm_bench.runs.suites import Suite, load_suite, plan_suite

        table = session.catalogue()
        if self.suite is not None:
            suite = load_suite(table, self.suite)
        elif self.only:
            raise UsageError("--only chooses variants of a suite.", hint="--suite NAME")
        elif not (self.models and self.datasets):
            missing = "--dataset" if self.models else "--model"
            raise UsageError(f"{missing} is missing.", hint="vdsm-bench list   (what there is)")
        else:
            suite = Suite(models=list(self.models), datasets=list(self.datasets))
        for name in self.datasets:
            if "," in name:
                several = " ".join(f"--dataset {one.strip()}" for one in name.split(","))
                raise UsageError("--dataset takes one name, and may be repeated.", hint=several)
        given = {
            "models": list(self.models) or suite.models,
            "datasets": [stand_in(name, session) for name in self.datasets or suite.datasets],
            "preset": self.preset or suite.preset,
            "seeds": suite.seeds if self.seeds is None else parse_seeds(self.seeds),
        }
        chosen = suite.model_copy(update=given)
        return plan_suite(table, chosen, only=self.only, layers=layers)


def cell_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; they arrive together, as ``asked``."""

    @wraps(command)
    def gathered(*arguments: Any, **values: Any) -> Any:
        asked = Asked(**{field.name: values.pop(field.name) for field in fields(Asked)})
        return command(*arguments, asked=asked, **values)

    for name, (flags, settings) in reversed(_OPTIONS.items()):
        gathered = click.option(*flags, name, **settings)(gathered)
    return gathered


def stand_in(name: str, session: Session) -> str:
    """Returns the dataset to use for a name; says so where it is a stand-in (DESIGN §6)."""
    from vdsm_bench.data.locate import data_root, dataset_to_use

    used = dataset_to_use(session.catalogue(), name, data_root(session.data_dir))
    if used != name:
        note(
            f"{name}: nothing is configured for it, so this runs on its stand-in {used}; rows say "
            f"{used}.\n  for the real clips: vdsm-bench data prepare {name} --from FOLDER"
        )
    return used


def parse_seeds(text: str) -> list[int]:
    """Parses ``0,1,2``.

    Raises:
        UsageError: not a list of whole numbers from 0.
    """
    from vdsm_bench.errors import UsageError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--seeds wants whole numbers from 0, like 0,1,2; got '{text}'.")
    return [int(part) for part in parts]
