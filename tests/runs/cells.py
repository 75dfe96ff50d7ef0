"""Cell folders as a finished run leaves them, without running anything."""

from pathlib import Path

from vdsm_bench.config import resolve
from vdsm_bench.files import write_json
from vdsm_bench.registry import Entry, Registry
from vdsm_bench.runs.cell import Cell, cell_key, cell_path, changes
from vdsm_bench.runs.folder import CellFolder


def small_table() -> Registry:
    """Returns a catalogue that does not move when the zoo grows."""
    table = Registry()
    stages = {"pretrain": {"epochs": 2}, "sequence": {"epochs": 3}}
    defaults = {"encoder": "conv", "decoder": "mixture", "pose_dim": 30, "motion_dim": 50}
    parts = {"encoder": "encoders", "decoder": "decoders"}
    table.add(Entry("models", "toy", "A model.", "m:Toy", defaults, parts, {"stages": stages}))
    table.add(Entry("encoders", "conv", "An encoder.", "m:Conv", {"width": 8}))
    table.add(Entry("decoders", "mixture", "A decoder.", "m:Mixture"))
    table.add(Entry("decoders", "single", "A decoder.", "m:Single"))
    for name in ("faces", "sprites"):
        table.add(Entry("datasets", name, "Clips.", "m:Clips", settings={"split": "clips"}))
    table.add(Entry("presets", "small", "Small."))
    return table


TABLE = small_table()
PROTOCOL = {"judge": "feedbeef", "metrics": {"dynamic_accuracy": 1}}


def make_cell(runs_dir: Path, *, seed: int = 0, model: str = "toy", layers=(), **known):
    """Writes a finished cell with made-up scores; ``known`` overrides fields of the row."""
    config = resolve(TABLE, model=model, dataset="faces", seed=seed, layers=layers)
    cell = Cell(config, config.instance(TABLE))
    key = cell_key(TABLE, config, data={"content": "c", "splits": "s"}, protocol=PROTOCOL)
    folder = CellFolder(cell_path(runs_dir, cell, key.key))
    write_json(
        folder.config_file,
        {
            "key": key.key,
            "group": key.group,
            "instance": cell.instance,
            "config": config.model_dump(mode="json"),
            "inputs": dict(key.inputs),
            "changes": changes(TABLE, config),
        },
    )
    write_json(
        folder.metrics_file,
        {
            "schema": 1,
            "slot": "native",
            "dataset": "faces",
            "model": cell.instance,
            "preset": config.preset,
            "seed": seed,
            "split": "clips",
            "image_size": config.data.image_size,
            "frames": config.data.frames,
            "supervision": "none",
            "group": key.group,
            "protocol": PROTOCOL,
            "judge": {"lowest_accuracy": 0.97},
            "collapsed": False,
            "training_seconds": 90.0,
            "long": [{"metric": "identity_accuracy", "factor": "hair", "value": 0.5 + 0.1 * seed}],
            "scores": {
                "consistent_accuracy": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 100},
                "dynamic_accuracy": {"value": 0.9 + 0.02 * seed, "low": 0.8, "high": 1.0, "n": 100},
                "transfer_accuracy": {"reason": "the model cannot generate"},
            },
            **known,
        },
    )
    folder.write_status("done")
    return folder
