"""The controls of a run: the label oracle of a drawn set, and gates that cannot be asked."""

import dataclasses

import numpy as np

from tests.plugin.toy_zoo.squares import ToySquares
from vdsm_bench.data.clips import evaluation_clips
from vdsm_bench.data.store import ClipStore
from vdsm_bench.files import read_json
from vdsm_bench.runs.protocol import ScoringProtocol


def test_a_drawn_set_has_its_oracle(bench, data_dir, tmp_path, monkeypatch):
    """It draws who the first clip shows, in what the second one does: no control does better."""
    store = ClipStore.open(data_dir / "toy-squares")

    def render_transfer(self, identity_of, motion_of, **window):
        found = [
            np.flatnonzero(
                (store.identities == store.identities[who]) & (store.motions == store.motions[what])
            )[0]
            for who, what in zip(identity_of, motion_of, strict=True)
        ]
        clips = evaluation_clips(store, found, **window)
        return clips.mul(255).round().byte().movedim(2, -1).numpy()

    monkeypatch.setattr(ToySquares, "render_transfer", render_transfer)
    learns = {"judge": {"epochs": 30, "width": 16}}
    bench(layer=learns, runs_dir=tmp_path)
    (path,) = tmp_path.glob("judges/*/*/controls-*.json")
    rows = {row["name"]: row["scores"] for row in read_json(path)["rows"]}
    found = {
        name: [scores[f"{code}_accuracy"]["value"] for code in ("identity", "dynamic", "transfer")]
        for name, scores in rows.items()
    }
    assert min(found["label-oracle"]) > 0.9
    assert found["copy-identity-clip"][1] < found["label-oracle"][1] - 0.3
    assert found["copy-motion-clip"][0] < found["label-oracle"][0] - 0.3


def test_a_gate_that_cannot_be_asked_is_said_and_stands_in_the_row(bench, monkeypatch, tmp_path):
    whole = ScoringProtocol.judge_clips.func
    monkeypatch.setattr(
        ScoringProtocol,
        "judge_clips",
        property(lambda self: dataclasses.replace(whole(self), cells=None)),
    )
    (outcome,), listener = bench(runs_dir=tmp_path)
    assert outcome.metrics["judge"]["not_asked"] == ["cells"]
    assert "the gate on such clips was not asked" in "\n".join(listener.lines)
