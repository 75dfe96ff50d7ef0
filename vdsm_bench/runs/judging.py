"""The judges of a dataset, asked for by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdsm_bench.config import CellConfig
from vdsm_bench.devices import choose_device, prepare_process
from vdsm_bench.files import hold, move_aside, write_json
from vdsm_bench.registry import Registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.controls import obtain_controls
from vdsm_bench.runs.datasets import open_store
from vdsm_bench.runs.protocol import GatedJudge, ScoringProtocol, tool
from vdsm_bench.runs.reporting import Reporter

#: who an audit asks, unless it is told otherwise
AUDIT_JUDGES = {"judge": {"architectures": ["cnn-gru", "cnn-3d"], "seeds": [0, 1, 2]}}


def open_protocol(
    table: Registry, config: CellConfig, *, data_dir: Path | None, device: str, reporter: Reporter
) -> ScoringProtocol:
    """Opens the clips of a configuration and says how they are scored.

    Args:
        table: the catalogue.
        config: whose data, judge and evaluation settings count.
        data_dir: where clip stores live.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        reporter: told what happens.

    Raises:
        DataError: the data is missing or damaged.
    """
    prepare_process()
    store = open_store(table, config.data.dataset, data_dir, reporter)
    bench = Bench.of(store, config.data, config.evaluation.part)
    return ScoringProtocol(table, bench, config, choose_device(device))


def judge_of(
    protocol: ScoringProtocol, runs_dir: Path, *, fresh: bool, reporter: Reporter
) -> GatedJudge:
    """Loads or trains the judges of a protocol, and scores the controls with them.

    Args:
        protocol: which clips, which judges.
        runs_dir: where judges live.
        fresh: train them anew; the old folders are moved aside.
        reporter: told what happens.

    Raises:
        ProtocolError: a judge failed a gate.
        DataError: data or judge damaged.
    """
    keys = dict.fromkeys([*protocol.judge_keys, protocol.judge_hash])
    folders = [protocol.judge_folder(runs_dir, key) for key in keys]
    for folder in folders if fresh else []:
        with hold(folder, f"the judge {folder}", say=reporter.say):
            if folder.exists():
                reporter.say(f"the old judge is now {move_aside(folder)}")
    judge = protocol.obtain_judge(runs_dir, reporter)
    obtain_controls(protocol, judge, reporter)
    return judge


def audit_of(
    protocol: ScoringProtocol, runs_dir: Path, *, retrain: bool, reporter: Reporter
) -> dict[str, Any]:
    """Says whether a protocol can be trusted: gates, agreement and controls; trains no model.

    The answer is kept beside the controls as ``audit.json``.

    Args:
        protocol: which clips, which judges.
        runs_dir: where judges live.
        retrain: also train every judge anew and compare the weights.
        reporter: told what happens.

    Raises:
        ProtocolError: a judge failed a gate.
        DataError: data or judge damaged.
    """
    judge = judge_of(protocol, runs_dir, fresh=False, reporter=reporter)
    rows = obtain_controls(protocol, judge, reporter)
    found = tool(protocol.table, "audit")(
        protocol.judge_clips, protocol.request, judge.card, protocol.judge_settings, rows
    )
    if retrain:
        found["checks"] += _retrained(protocol, judge, reporter)
    answer = {
        "dataset": protocol.bench.store.name,
        "folder": str(judge.folder),
        "trusted": all(check["passed"] for check in found["checks"]),
        **found,
        "judge": judge.summary(),
        "controls": rows,
        "pairs": len(protocol.request.pairs),
        "clips": len(protocol.request.test),
    }
    write_json(judge.folder / "audit.json", {**answer, "folder": judge.folder.name})
    return answer


def _retrained(
    protocol: ScoringProtocol, judge: GatedJudge, reporter: Reporter
) -> list[dict[str, Any]]:
    checks = []
    for name, card in judge.card.cards.items():

        def progress(done: int, total: int, figures: Mapping[str, float], name: str = name) -> None:
            reporter.progress(f"retrain {name}", done, total)

        alike = tool(protocol.table, "retrains_alike")(
            card,
            protocol.judge_clips,
            protocol.judge_settings,
            device=protocol.device,
            progress=progress,
        )
        wanted = "the weights that the training clips alone give on this machine"
        checks.append(
            {
                "name": f"{name}, trained anew",
                "value": float(alike),
                "wanted": wanted,
                "passed": alike,
            }
        )
    return checks
