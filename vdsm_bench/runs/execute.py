"""From resolved configurations to rows: reuse, continue or train, then judge and score."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vdsm_bench.config import PRECISIONS, CellConfig
from vdsm_bench.contracts import VideoModel
from vdsm_bench.devices import choose_device, prepare_process
from vdsm_bench.errors import (
    CollapsedError,
    DataError,
    DivergedError,
    VdsmBenchError,
    refusal,
)
from vdsm_bench.files import hold, move_aside, write_json
from vdsm_bench.registry import Registry
from vdsm_bench.runs.adoption import adopt_training, trained_as
from vdsm_bench.runs.alarm import CollapseAlarm, settling
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import Cell, CellKey, auto_reason, cell_key, cell_path, changes
from vdsm_bench.runs.controls import obtain_controls
from vdsm_bench.runs.datasets import open_store
from vdsm_bench.runs.environment import describe_environment
from vdsm_bench.runs.folder import CellFolder, read_cell
from vdsm_bench.runs.media import write_media
from vdsm_bench.runs.models import build_model
from vdsm_bench.runs.monitor import AT_THE_END, Monitor
from vdsm_bench.runs.pairs_table import write_pairs
from vdsm_bench.runs.precision import Choice, choose_precision
from vdsm_bench.runs.profiling import profile_cell
from vdsm_bench.runs.protocol import ScoringProtocol
from vdsm_bench.runs.reporting import Reporter
from vdsm_bench.runs.row import describe_row, supervision_of
from vdsm_bench.runs.scores import add_scores, finished_row, lacking
from vdsm_bench.training.trainer import Trainer

_UNSEEN = (
    "--judge-looks: the judge looked at nothing here, because the model had been trained before, "
    "makes no clips, or is shown too few"
)
#: what a cell is called that an error stopped, where it is not "failed"
_STATES: dict[type, str] = {DivergedError: "diverged", CollapsedError: "collapsed"}


@dataclass(frozen=True)
class RunContext:
    """What all cells of one call share.

    Attributes:
        table: the catalogue.
        runs_dir: where cells and judges live.
        data_dir: where clip stores live; None if the user named no place.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        fresh: start over; old folders are moved aside.
        wait: wait for another process that works on a cell, or refuse.
        reporter: told what happens.
        precision: ``auto``, ``32`` or ``bf16``.
        profile: also find out where a step goes.
        stop_on_collapse: stop training a cell that makes no use of a code.
        judge_looks: have the judge score the transfers of every look at a model in training.
    """

    table: Registry
    runs_dir: Path
    data_dir: Path | None
    device: str
    fresh: bool
    wait: bool
    reporter: Reporter
    precision: str = "auto"
    profile: bool = False
    stop_on_collapse: bool = False
    judge_looks: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    Attributes:
        label: the cell, as in messages.
        state: its final state.
        folder: its folder, or None where it was refused before it had one.
        metrics: the row of a finished cell.
        reused: whether it had been finished before.
        pictures: files under ``media``.
        error: why there is no row.
        exit_code: the error's, or 0.
    """

    label: str
    state: str
    folder: Path | None = None
    metrics: dict[str, Any] | None = None
    reused: bool = False
    pictures: tuple[Path, ...] = ()
    error: str | None = None
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """Returns everything, JSON-able."""
        return {
            "cell": self.label,
            "state": self.state,
            "reused": self.reused,
            "folder": None if self.folder is None else str(self.folder),
            "pictures": [str(path) for path in self.pictures],
            "error": self.error,
            "metrics": self.metrics,
        }


@dataclass
class Desk:
    """Benches that are open, so that the cells of one call share clips and judges.

    Attributes:
        begun: folders that this call has worked in: ``--fresh`` starts none of them over twice.
    """

    context: RunContext
    device: str
    begun: set[Path] = field(default_factory=set)
    _benches: dict[str, Bench] = field(default_factory=dict)

    def bench(self, config: CellConfig) -> Bench:
        """Opens and splits the clips that a configuration asks for."""
        data, part = config.data, config.evaluation.part
        key = f"{data.model_dump_json()} {part}"
        if key not in self._benches:
            context = self.context
            store = open_store(context.table, data.dataset, context.data_dir, context.reporter)
            for oldest in list(self._benches)[:-1]:  # each may hold gibibytes of clips
                del self._benches[oldest]
            self._benches[key] = Bench.of(store, data, part)
        return self._benches[key]

    def place(
        self, cell: Cell, bench: Bench, protocol: ScoringProtocol
    ) -> tuple[CellKey, CellFolder]:
        """Returns the key of a cell and the folder where it lives."""
        context = self.context
        key = cell_key(context.table, cell.config, data=bench.key, protocol=protocol.key)
        return key, CellFolder(cell_path(context.runs_dir, cell, key.key))

    def settle(self, cell: Cell, bench: Bench, protocol: ScoringProtocol) -> tuple[Cell, Choice]:
        """Returns the cell in the precision that it is trained in, and why it is that one."""
        context = self.context
        folders = {each: self.place(cell.at(each), bench, protocol)[1] for each in PRECISIONS}
        choice = choose_precision(
            context.precision,
            cell,
            table=context.table,
            bench=bench,
            device=self.device,
            runs_dir=context.runs_dir,
            folders=folders,
            reporter=context.reporter,
        )
        return cell.at(choice.used), choice

    def profile(self, folder: CellFolder, cell: Cell, bench: Bench) -> None:
        """Writes where a step of a cell goes, if that was asked for, and says it."""
        context = self.context
        if context.profile:
            text = profile_cell(
                folder.path / "profile", cell, table=context.table, bench=bench, device=self.device
            )
            context.reporter.say(f"{text}\nprofile: {folder.path / 'profile'}")


def run_cells(cells: Sequence[Cell], context: RunContext) -> list[Outcome]:
    """Runs cells one after the other; one that fails is recorded and does not stop the others.

    Raises:
        KeyboardInterrupt: the cell at work is left resumable, the rest untouched.
    """
    prepare_process()
    desk = Desk(context, choose_device(context.device))
    return [_run_guarded(cell, desk) for cell in cells]


def _run_guarded(cell: Cell, desk: Desk) -> Outcome:
    folder: CellFolder | None = None
    try:
        bench = desk.bench(cell.config)
        protocol = ScoringProtocol(desk.context.table, bench, cell.config, desk.device)
        cell, choice = desk.settle(cell, bench, protocol)
        key, place = desk.place(cell, bench, protocol)
        context = desk.context
        with hold(place.path, cell.label, wait=context.wait, say=context.reporter.say):
            fresh = context.fresh and place.path.exists() and place.path not in desk.begun
            say = partial(_note, cell, place, desk)
            row = partial(finished_row, place, protocol, context.runs_dir, context.reporter, say)
            if not fresh and (reused := row()) is not None:
                desk.profile(place, cell, bench)
                if lacking(protocol, reused):
                    model = build_model(context.table, bench, cell, follow=True)
                    reused = add_scores(
                        reused, place, model, protocol, desk.device, context.runs_dir, cell.label,
                        context.reporter,
                    )  # fmt: skip
                return _done(cell, place, reused, reused_row=True)
            # what can be refused is refused before it has a folder and costs hours
            goes_on = place.checkpoint_file.exists() and not fresh
            model = build_model(context.table, bench, cell, follow=goes_on)
            _ = protocol.request, protocol.asked
            if fresh:
                context.reporter.say(
                    f"{cell.label}: the old folder is now {move_aside(place.path)}"
                )
            desk.begun.add(place.path)
            folder = place
            _open_folder(place, cell, key, choice, desk)
            desk.profile(place, cell, bench)
            metrics = _work(cell, key, place, bench, protocol, desk, model)
            return _done(cell, place, metrics, reused_row=False)
    except Exception as problem:
        error = refusal(problem)
        traced = "" if folder is None or error is problem else folder.log_traceback()
        if error is not None:
            state = _STATES.get(type(error), "failed")
            error.message += traced
            return _failed(cell, folder, state, str(error), error.exit_code, error.message)
        if folder is None:
            traceback.print_exc()
        text = f"{type(problem).__name__}: {problem}{traced}"
        return _failed(cell, folder, "failed", text, VdsmBenchError.exit_code, text)
    except BaseException:  # Ctrl-C or SIGTERM: say so in the folder, then let it pass
        if folder is not None:
            _interrupt(folder)
        raise


def _open_folder(folder: CellFolder, cell: Cell, key: CellKey, choice: Choice, desk: Desk) -> None:
    before = read_cell(folder.path).config or {}
    known = before.get("precision")  # what `auto` began stays its own, whoever goes on with it
    content = {
        "key": key.key,
        "group": key.group,
        "fresh": desk.context.fresh or before.get("fresh") is True,
        "instance": cell.instance,
        "config": cell.config.model_dump(mode="json"),
        "changes": changes(desk.context.table, cell.config),
        "precision": known if known and auto_reason(before) else choice.as_json(),
        "inputs": dict(key.inputs),
    }
    write_json(folder.config_file, content)
    if not folder.weights_file.exists():  # else it says where the cell was trained
        write_json(folder.path / "env.json", describe_environment(desk.device))
    folder.write_status("planned")
    said = f"precision {choice.used} ({choice.reason})"
    folder.log(f"started on {desk.device}, {said}")
    desk.context.reporter.say(f"{cell.label}: {said}")


def _note(cell: Cell, folder: CellFolder, desk: Desk, text: str) -> None:
    folder.log(text)
    desk.context.reporter.say(f"{cell.label}: {text}")


def _trainer(
    cell: Cell, folder: CellFolder, bench: Bench, desk: Desk, model: VideoModel, monitor: Monitor
) -> Trainer:
    config = cell.config
    alarm = CollapseAlarm(desk.context.table, model, config.training)
    sampler = bench.sampler(config.seed, desk.device)
    paired = {name for name, stage in config.training.items() if stage.pairs}
    cautions = bench.cautions(config.training, sampler.alone)
    for caution in (*cautions, *model.idle_arguments(paired)):
        _note(cell, folder, desk, f"warning: {caution}")
    return Trainer(
        model,
        config.training,
        sampler,
        folder=folder.path,
        seed=config.seed,
        device=desk.device,
        precision=config.precision,
        on_epoch=monitor.on_epoch,
        alarm=alarm if desk.context.stop_on_collapse else None,
        progress=desk.context.reporter.progress,
        say=partial(_note, cell, folder, desk),
    )


def _work(
    cell: Cell,
    key: CellKey,
    folder: CellFolder,
    bench: Bench,
    protocol: ScoringProtocol,
    desk: Desk,
    model: VideoModel,
) -> dict[str, Any]:
    context, config = desk.context, cell.config
    context.reporter.say(f"{cell.label}: {folder.path}")
    donor = adopt_training(folder, key)
    if donor is not None:
        _note(cell, folder, desk, f"trained already, as {donor}; its training is taken over")
    settled = settling(model, config.training)
    monitor = Monitor(bench, protocol, folder, desk.device, settling=settled)
    trainer = _trainer(cell, folder, bench, desk, model, monitor)
    # the judge before the model: where it fails its gates, nothing has been trained in vain
    folder.write_status("judging")
    judging = time.monotonic()
    judge = protocol.obtain_judge(context.runs_dir, context.reporter)
    obtain_controls(protocol, judge, context.reporter)
    if context.judge_looks:
        monitor.ask(judge)
    judged = time.monotonic() - judging
    folder.write_status("training")
    summary = trainer.train()
    if context.judge_looks and not monitor.judged:
        _note(cell, folder, desk, _UNSEEN)
    model.eval()
    health = Monitor(bench, protocol, folder, desk.device, AT_THE_END).at_the_end(model)
    if health.warning is not None:
        _note(cell, folder, desk, f"warning: {health.warning}")
    folder.write_status("scoring", note=health.warning)
    started = time.monotonic()
    evaluation = protocol.evaluate(model, judge, {**protocol.evaluators, **protocol.asked})
    write_pairs(folder.path, protocol, evaluation.per_pair)
    write_media(folder.media, model, bench, device=desk.device)
    metrics = {
        **describe_row(config, key, bench, slot="native", model=cell.instance),
        "supervision": supervision_of(model, config.training),
        "precision": config.precision,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training_seconds": round(summary.seconds, 3),
        "training_steps": dict(summary.steps),
        "training_step": dict(summary.manners),
        "trained_as": trained_as(folder),
        "collapsed": health.collapsed,
        "note": health.warning,
        "health": health.figures,
        "judge": judge.summary(),
        **protocol.said_in_row(),
        "judging_seconds": round(judged, 3),
        "scoring_seconds": round(time.monotonic() - started, 3),
        **evaluation.as_json(),
    }
    write_json(folder.metrics_file, metrics)
    folder.write_status("done", note=health.warning)
    folder.log("done")
    return metrics


def _done(cell: Cell, folder: CellFolder, metrics: dict[str, Any], *, reused_row: bool) -> Outcome:
    return Outcome(
        label=cell.label,
        state="done",
        folder=folder.path,
        metrics=metrics,
        reused=reused_row,
        pictures=tuple(sorted(folder.media.glob("*.[pg][ni][gf]"))),
    )


def _failed(
    cell: Cell, folder: CellFolder | None, state: Any, text: str, code: int, reason: str
) -> Outcome:
    if folder is not None:
        with contextlib.suppress(OSError, DataError):  # a full disk takes no note of its fullness
            folder.log(f"{state}: {text}")
            last = folder.read_status()
            folder.write_status(state, stage=last.stage, epoch=last.epoch, note=reason)
    return Outcome(
        label=cell.label,
        state=state,
        folder=None if folder is None else folder.path,
        error=text,
        exit_code=code,
    )


def _interrupt(folder: CellFolder) -> None:
    with contextlib.suppress(OSError, DataError):
        last = folder.read_status()
        if last.state == "done":  # the row is there: what is interrupted is the telling of it
            return
        folder.write_status("interrupted", stage=last.stage, epoch=last.epoch, note=last.note)
        folder.log("interrupted")
