"""Rows of models that live elsewhere: their clips come as a file, all else is as for a native one.

A file is scored in one go, so its folder is written only when the row is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdsm_bench.config import CellConfig
from vdsm_bench.contracts import Outputs
from vdsm_bench.devices import choose_device, prepare_process
from vdsm_bench.errors import UsageError
from vdsm_bench.files import hold, move_aside, write_json
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import CellKey, cell_folder, changes, comparable
from vdsm_bench.runs.controls import obtain_controls
from vdsm_bench.runs.datasets import open_store
from vdsm_bench.runs.environment import describe_environment
from vdsm_bench.runs.execute import Outcome, RunContext
from vdsm_bench.runs.folder import CellFolder, read_cell, scan_cells
from vdsm_bench.runs.media import write_pair_strips
from vdsm_bench.runs.pairs_table import write_pairs
from vdsm_bench.runs.predictions import Predictions, read_predictions, write_template
from vdsm_bench.runs.protocol import ScoringProtocol, tool
from vdsm_bench.runs.row import describe_row
from vdsm_bench.runs.scores import (
    add_to_row,
    lacking,
    of_other_judges,
    without_dear_scores,
)

_LONGEST = 100


@dataclass(frozen=True)
class Declared:
    """What the row says of the model behind a file; options win over what the file states.

    Attributes:
        name: name of the row.
        supervision: what the model was told beside pixels (``none``, ``action-labels`` ...).
        citation: where it is described, or None.
    """

    name: str
    supervision: str
    citation: str | None

    @classmethod
    def of(cls, options: Mapping[str, str | None], file: Mapping[str, str]) -> Declared:
        """Takes options first, then the file.

        Raises:
            UsageError: no name or no supervision, or a text that fits no row or terminal.
        """
        told = {**file, **{key: text for key, text in options.items() if text is not None}}
        for key, usual in (("name", "my-model"), ("supervision", "none")):
            text = told.get(key, "").strip()
            no_folder = key == "name" and not text.strip(".")
            if not text or len(text) > _LONGEST or not text.isprintable() or no_folder:
                what = "says no" if not text else "has a row-breaking"
                raise UsageError(
                    f"The file {what} '{key}' (one line of 1 to {_LONGEST} characters, not dots "
                    "alone).",
                    hint=f"--{key} {usual}",
                )
        citation = " ".join(told.get("citation", "").split()) or None
        if citation is not None and not citation.isprintable():
            raise UsageError(
                f"The citation holds what cannot be printed: {ascii(citation)}.",
                hint="--citation 'A. Author, Title, 2020'",
            )
        return cls(told["name"].strip(), told["supervision"].strip(), citation)


def template_of(config: CellConfig, context: RunContext, folder: Path) -> list[Path]:
    """Writes the request of a protocol; see :func:`predictions.write_template`."""
    return write_template(folder, _protocol(config, context))


def score_file(
    path: Path, config: CellConfig, context: RunContext, options: Mapping[str, str | None]
) -> Outcome:
    """Scores a file of predictions to a row of the slot ``external``.

    Args:
        path: the file.
        config: whose data, judge, evaluation and seed count; its model does not.
        context: where things live.
        options: ``name``, ``supervision`` and ``citation``, each a text or None.

    Raises:
        DataError, ContractError, ProtocolError: the file, see ``predictions.read_predictions``;
            or the judge failed a gate.
        UsageError: no name or supervision; or the row exists and came from other clips, or that
            of another seed from the same.
    """
    protocol = _protocol(config, context)
    predictions = read_predictions(path, protocol)
    declared = Declared.of(options, predictions.texts)
    key = _key(config, protocol, declared)
    folder = CellFolder(cell_folder(context.runs_dir, config, instance=declared.name, key=key.key))
    label = f"{config.data.dataset}/{declared.name}/{config.preset}-seed{config.seed}"
    with hold(folder.path, label, wait=context.wait, say=context.reporter.say):
        row = None if context.fresh else _scored_before(folder, label, predictions, declared)
        if row is None:
            _check_new(context.runs_dir, folder, key, predictions)
        if row is not None and lacking(protocol, row):
            protocol.obtain_judge(context.runs_dir, context.reporter)
        if row is not None and of_other_judges(row, protocol, context.runs_dir):
            context.reporter.say(
                f"{label}: other judges scored it before: it is scored again"
                f"{without_dear_scores(row, protocol)}"
            )
            row = None
        reused = row is not None and not lacking(protocol, row)
        if row is None:
            row = _score(path, config, context, protocol, predictions, declared, key, folder)
        elif not reused:
            row = _add(row, context, protocol, predictions, folder)
    return Outcome(
        label=label,
        state="done",
        folder=folder.path,
        metrics=row,
        reused=reused,
        pictures=tuple(sorted(folder.media.glob("*.png"))),
    )


def _protocol(config: CellConfig, context: RunContext) -> ScoringProtocol:
    prepare_process()
    store = open_store(context.table, config.data.dataset, context.data_dir, context.reporter)
    bench = Bench.of(store, config.data, config.evaluation.part)
    return ScoringProtocol(context.table, bench, config, choose_device(context.device))


def _key(config: CellConfig, protocol: ScoringProtocol, declared: Declared) -> CellKey:
    tree = comparable(config)
    for section in ("model", "training"):  # the file's model is its own
        tree.pop(section)
    inputs = {
        "slot": "external",
        "name": declared.name,
        "supervision": declared.supervision,
        "config": tree,
        "data": dict(protocol.bench.key),
        "protocol": dict(protocol.key),
    }
    return CellKey(inputs)


def _scored_before(
    folder: CellFolder, label: str, predictions: Predictions, declared: Declared
) -> dict[str, Any] | None:
    row = read_cell(folder.path).metrics
    if row is None:
        return None
    if (row.get("clips_digest"), row.get("citation")) != (predictions.digest, declared.citation):
        raise UsageError(
            f"{label} was scored before, from other clips or with another citation "
            f"({folder.path}).",
            hint="--seed K for another training of the same model, --name for another model, "
            "--fresh to replace the row",
        )
    return row


def _check_new(runs_dir: Path, folder: CellFolder, key: CellKey, predictions: Predictions) -> None:
    """Checks that no other seed's row came from the same clips: it would count as a training.

    Raises:
        UsageError: one did.
    """
    for record in scan_cells(runs_dir):
        row = record.metrics
        if row is None or record.path.absolute() == folder.path.absolute():
            continue
        if (row["group"], row.get("clips_digest")) == (key.group, predictions.digest):
            raise UsageError(
                f"{record.label} was scored from the same clips: they are no other training.",
                hint=f"the file of this training, or --seed {row['seed']}; if that row is the "
                f"mistake, remove its folder: {record.path}",
            )


def _add(
    row: Mapping[str, Any],
    context: RunContext,
    protocol: ScoringProtocol,
    predictions: Predictions,
    folder: CellFolder,
) -> dict[str, Any]:
    """Adds the scores that the row lacks; those it has stay."""
    outputs = _outputs(protocol, predictions)
    return add_to_row(row, outputs, folder, protocol, context.runs_dir, context.reporter)


def _outputs(protocol: ScoringProtocol, predictions: Predictions) -> Outputs:
    outputs: Outputs = tool(protocol.table, "rendered")(**predictions.sources, name="the file")
    return outputs


def _score(
    path: Path,
    config: CellConfig,
    context: RunContext,
    protocol: ScoringProtocol,
    predictions: Predictions,
    declared: Declared,
    key: CellKey,
    folder: CellFolder,
) -> dict[str, Any]:
    evaluators = {**protocol.evaluators, **protocol.asked}
    judge = protocol.obtain_judge(context.runs_dir, context.reporter)
    obtain_controls(protocol, judge, context.reporter)
    started = time.monotonic()
    outputs = _outputs(protocol, predictions)
    evaluation = protocol.evaluate(outputs, judge, evaluators)
    metrics = {
        **describe_row(config, key, protocol.bench, slot="external", model=declared.name),
        "supervision": declared.supervision,
        "citation": declared.citation,
        "file": path.name,
        "clips_digest": predictions.digest,
        "training_seconds": None,
        "collapsed": None,
        "note": None,
        "judge": judge.summary(),
        **protocol.said_in_row(),
        "scoring_seconds": round(time.monotonic() - started, 3),
        **evaluation.as_json(),
    }
    content = {
        "key": key.key,
        "group": key.group,
        "slot": "external",
        "instance": declared.name,
        "config": dict(key.inputs["config"]),
        "inputs": dict(key.inputs),
        "changes": {
            name: value
            for name, value in changes(context.table, config).items()
            if not name.startswith("training.")
        },
    }
    if context.fresh and folder.path.exists():
        context.reporter.say(f"{declared.name}: the old folder is now {move_aside(folder.path)}")
    folder.write_status("scoring")  # pairs of these judges must not stand beside scores of others
    write_json(folder.config_file, content)
    write_json(folder.path / "env.json", describe_environment(protocol.device))
    write_pairs(folder.path, protocol, evaluation.per_pair)
    write_pair_strips(folder.media, protocol.request, outputs)
    write_json(folder.metrics_file, metrics)
    folder.write_status("done")
    folder.log(f"scored from {path.name}")
    return metrics
