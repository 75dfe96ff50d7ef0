"""The judge of a dataset, asked for by itself."""

from __future__ import annotations

from pathlib import Path

from vdsm_bench.config import CellConfig
from vdsm_bench.devices import choose_device, prepare_process
from vdsm_bench.files import move_aside
from vdsm_bench.registry import Registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.controls import obtain_controls
from vdsm_bench.runs.datasets import open_store
from vdsm_bench.runs.protocol import GatedJudge, ScoringProtocol
from vdsm_bench.runs.reporting import Reporter


def judge_of(
    table: Registry,
    config: CellConfig,
    *,
    runs_dir: Path,
    data_dir: Path | None,
    device: str,
    fresh: bool,
    reporter: Reporter,
) -> GatedJudge:
    """Loads or trains the judge of a configuration's clips, and scores the controls with it.

    Args:
        table: the catalogue.
        config: whose data, judge and evaluation settings count.
        runs_dir: where judges live.
        data_dir: where clip stores live.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        fresh: train it anew; the old folder is moved aside.
        reporter: told what happens.

    Raises:
        ProtocolError: it failed a gate.
        DataError: data or judge damaged.
    """
    prepare_process()
    store = open_store(table, config.data.dataset, data_dir, reporter)
    protocol = ScoringProtocol(table, Bench.of(store, config.data), config, choose_device(device))
    folder = protocol.judge_folder(runs_dir)
    if fresh and folder.exists():
        reporter.say(f"the old judge is now {move_aside(folder)}")
    judge = protocol.obtain_judge(runs_dir, reporter)
    obtain_controls(protocol, judge, reporter)
    return judge
