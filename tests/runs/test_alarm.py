"""``--stop-on-collapse``: on training that really collapses, and on training that does not."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.models.tiny import CLIP, build
from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Factor, LabelledClips
from vdsm_bench.errors import CollapsedError, UsageError
from vdsm_bench.runs.alarm import LOOKS, CollapseAlarm, ended_worse, settling
from vdsm_bench.runs.folder import CellFolder, scan_cells
from vdsm_bench.runs.monitor import Monitor
from vdsm_bench.runs.protocol import tool
from vdsm_bench.training.journal import JOURNAL, Journal, Look, read_looks
from vdsm_bench.training.trainer import Trainer, is_looked_at

EPOCHS = 8
SETTINGS = {
    "pretrain": StageSettings(
        epochs=EPOCHS, batches_per_epoch=8, batch_size=8, learning_rate=4e-3, warm_up=8
    ),
    "sequence": StageSettings(epochs=6, batches_per_epoch=12, batch_size=8, learning_rate=1e-2),
}
#: a quarter of `pretrain` has the pose shut, and half of the rest does not count either
SETTLED = 5
#: of s, at the beginning and at the end; the large one drives q(s) to its prior
KEPT, EMPTIED = [0.02, 0.1], [1e5, 1e5]
#: a pose that begins as wide as its prior and is kept there by its KL, its encoder its own
POSELESS = {
    "seed": 0,
    "pose_scale": 1.0,
    "pose_kl": [300.0] * 4,
    "pose_shut": 0.0,
    "pose_encoder": "own",
}


def clips_of(colours, rng):
    """A bar that moves over a ground of one of three colours."""
    clips = torch.full((len(colours), CLIP.frames, 3, 16, 16), 0.1)
    for clip, colour, start in zip(clips, colours, rng.integers(0, 11, len(colours)), strict=True):
        clip[:, colour] = 0.8
        for t in range(CLIP.frames):
            clip[t, :, :, start + t] = 0.4
    return clips


class Colours:
    def batch(self, stage, step, batch_size, pairs, frames=None):
        rng = np.random.default_rng([len(stage), step])
        return clips_of(rng.integers(3, size=batch_size), rng)


def vdsm_of(identity_kl, **arguments):
    usual = {
        "seed": 4, "likelihood": "gaussian", "pixel_scale": 0.3, "temperature": [10.0, 10.0],
        "identity_slope": 1.0, "pose_shut": 0.25, "pose_scale": 0.3, "identity_kl": identity_kl,
        "decoder": {"start": "shared-base", "name": "mixture-of-experts", "widths": [8, 6]},
    }  # fmt: skip
    return build(**{**usual, **arguments})


def monitor_of(table, folder, model):
    rng = np.random.default_rng(0)
    colours = rng.integers(3, size=48)
    clips, labels = clips_of(colours, rng), {"colour": colours}

    def chosen(rows):
        return LabelledClips(lambda some: clips[rows][some], {"colour": labels["colour"][rows]})

    bench = SimpleNamespace(
        clips=chosen,
        splits=SimpleNamespace(validation=np.arange(48), train=np.arange(0)),
        store=SimpleNamespace(
            factors=(Factor("colour", "static", ("r", "g", "b")),), identities=np.arange(48)
        ),
    )
    folder.mkdir(exist_ok=True)
    return Monitor(
        bench, SimpleNamespace(table=table), CellFolder(folder), "cpu",
        settling=settling(model, SETTINGS),
    )  # fmt: skip


def trainer_of(table, folder, identity_kl, *, alarm, **arguments):
    model = vdsm_of(identity_kl, **arguments)
    monitor = monitor_of(table, folder, model)
    return Trainer(
        model,
        SETTINGS,
        Colours(),
        folder=folder,
        seed=0,
        on_epoch=monitor.on_epoch,
        alarm=CollapseAlarm(table, model, SETTINGS) if alarm else None,
    )


def figures_of(folder):
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [line["epoch_figures"] for line in lines if "epoch_figures" in line]


def test_training_that_does_not_collapse_is_never_stopped(table, tmp_path):
    trainer_of(table, tmp_path / "cell", KEPT, alarm=True).train()
    found = figures_of(tmp_path / "cell")
    assert len(found) == EPOCHS + 6
    said = [look["collapsed"] for look in found]
    assert said[:SETTLED] == [None] * SETTLED
    assert said[SETTLED:EPOCHS] == [False] * (EPOCHS - SETTLED)
    assert said[EPOCHS : EPOCHS + 2] == [None] * 2
    assert said[-LOOKS:] == [False] * LOOKS
    assert found[-1]["motion_information"] > 0.3
    assert found[EPOCHS - 1]["motion_gap"] > 0.1
    assert found[-1]["motion_gap"] > 0.1
    assert found[EPOCHS - 1]["swap_gap"] > 0.2
    assert found[EPOCHS - 1]["identity_information"] > 0.5
    assert found[EPOCHS - 1]["identity_directions"] > 0
    assert {"motion_information", "pose_information"} <= set(found[0])


@pytest.mark.parametrize(
    ("idle", "said"),
    [
        ("motion", [None] * 2 + [False] + [True] * 3),
        ("identity", [None] * 2 + [True] * 4),
    ],
)
def test_a_code_is_not_said_to_have_collapsed_before_it_counts(
    table, tmp_path, monkeypatch, idle, said
):
    """Of the six epochs of `sequence` two do not count for the identity, three for the motion."""
    monkeypatch.setattr(
        "vdsm_bench.runs.monitor.tool",
        lambda table, name: (
            (lambda figures, moving: {idle: "idle"}) if name == "idle_codes" else tool(table, name)
        ),
    )
    used = SimpleNamespace(gap=0.5, collapsed=False)
    monkeypatch.setattr(Monitor, "_swap", lambda *_: (used, used, 0.0))
    model = vdsm_of(KEPT).eval()
    monitor = monitor_of(table, tmp_path, model)
    found = [monitor.on_epoch("sequence", epoch, model)["collapsed"] for epoch in range(6)]
    assert found == said


def test_training_that_collapses_is_stopped_and_goes_on_without_the_alarm(table, tmp_path):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    for _ in range(2):  # typed twice, it stops at once
        with pytest.raises(CollapsedError, match="identity code holds 0.0.* epoch 8 of"):
            trainer_of(table, stopped, EMPTIED, alarm=True).train()
        found = figures_of(stopped)
        assert len(found) == SETTLED + LOOKS
        assert max(figures["identity_information"] for figures in found[-LOOKS:]) < 0.1
        assert {figures["identity_directions"] for figures in found[-LOOKS:]} == {0}
    resumed = trainer_of(table, stopped, EMPTIED, alarm=False)
    resumed.train()
    straight = trainer_of(table, whole, EMPTIED, alarm=False)
    straight.train()
    for name, value in straight.model.state_dict().items():
        assert value.equal(resumed.model.state_dict()[name]), name
    assert (stopped / "train.jsonl").read_text() == (whole / "train.jsonl").read_text()
    ended = trainer_of(table, whole, EMPTIED, alarm=True).train()  # nothing is left to be stopped
    assert ended.steps["sequence"] == 72


def test_training_whose_pose_is_emptied_is_stopped(table, tmp_path):
    with pytest.raises(CollapsedError, match="pose code holds 0.00 nats .* stage 'pretrain'"):
        trainer_of(table, tmp_path / "cell", KEPT, alarm=True, **POSELESS).train()
    found = figures_of(tmp_path / "cell")[-LOOKS:]
    assert min(figures["identity_information"] for figures in found) > 0.5
    assert all(figures["collapsed"] for figures in found)
    assert max(abs(figures["motion_gap"]) for figures in found) < 0.002


def looked(stage, figures, epochs=None):
    """A look after each of the epochs, by default after every one."""
    epochs = range(len(figures)) if epochs is None else epochs
    return [Look(stage, epoch, each) for epoch, each in zip(epochs, figures, strict=True)]


IDLE, USED = {"swap_gap": 0.0}, {"swap_gap": 0.3}
NO_POSE = {"identity_information": 2.0, "pose_information": 0.0, "motion_information": 2.0}
NO_MOTION = {"identity_information": 2.0, "pose_information": 2.0, "motion_information": 0.0}
STILL = {"identity_information": 2.0, "pose_information": 2.0, "motion_gap": 0.0}


@pytest.mark.parametrize(
    ("stage", "looks", "rings"),
    [
        ("pretrain", [IDLE] * 7, False),  # five early ones and two
        ("pretrain", [IDLE] * 8, True),
        ("pretrain", [USED] * 5 + [IDLE] * 3, True),
        ("pretrain", [USED] * 5 + [IDLE, NO_POSE, IDLE], False),  # no code three times
        ("pretrain", [IDLE] * 7 + [USED], False),
        ("pretrain", [NO_POSE] * 8, True),
        ("pretrain", [STILL] * 8, True),
        ("pretrain", [NO_MOTION] * 8, False),  # trained by the second stage
        ("sequence", [NO_MOTION] * 5, False),  # the first three are early for a motion code
        ("sequence", [NO_MOTION] * 6, True),
        ("sequence", [NO_POSE] * 6, False),
        ("sequence", [IDLE] * 4, False),  # two early ones and two
        ("sequence", [IDLE] * 5, True),
        ("sequence", [{}] * 3, False),
    ],
)
def test_three_looks_in_a_row_after_the_beginning_ring(table, stage, looks, rings):
    alarm = CollapseAlarm(table, vdsm_of(KEPT), SETTINGS)
    assert isinstance(alarm(stage, looked(stage, looks)), CollapsedError) == rings


@pytest.mark.parametrize(
    ("shut", "warm_up", "again", "looks", "said"),
    [
        (0.25, 8, False, NO_POSE, True),
        (0.25, 8, False, IDLE, False),  # not the code that begins late
        (0.25, 8, True, NO_POSE, False),
        (0.25, 0, False, NO_POSE, False),  # nothing rises
        (0.0, 8, False, NO_POSE, False),  # nothing begins late
    ],
)
def test_what_might_have_kept_a_pose_alive_is_said(table, shut, warm_up, again, looks, said):
    changed = {"warm_up": warm_up, "warm_up_again": again}
    settings = {**SETTINGS, "pretrain": SETTINGS["pretrain"].model_copy(update=changed)}
    alarm = CollapseAlarm(table, vdsm_of(KEPT, pose_shut=shut), settings)
    rung = alarm("pretrain", looked("pretrain", [looks] * 8))
    assert ("--set training.pretrain.warm_up_again=true" in rung.hint) == said
    assert "the same command without --stop-on-collapse" in rung.hint


def test_that_a_stage_has_no_settings_is_for_the_trainer_to_say(table, tmp_path):
    model, lacking = vdsm_of(KEPT), {"pretrain": SETTINGS["pretrain"]}
    alarm = CollapseAlarm(table, model, lacking)
    with pytest.raises(UsageError, match="No training settings for stage 'sequence'"):
        Trainer(model, lacking, Colours(), folder=tmp_path, seed=0, alarm=alarm)


def test_a_shut_pose_is_waited_for(table):
    longer = {**SETTINGS, "pretrain": SETTINGS["pretrain"].model_copy(update={"epochs": 11})}
    late = CollapseAlarm(table, build(pose_shut=0.3), longer)  # from 0.65 of 11 epochs on
    assert late("pretrain", looked("pretrain", [IDLE] * 10)) is None
    assert late("pretrain", looked("pretrain", [IDLE] * 11)) is not None


def test_looks_with_epochs_between_them_count_by_their_epochs(table):
    settings = SETTINGS["pretrain"].model_copy(update={"epochs": 300})
    alarm = CollapseAlarm(table, vdsm_of(KEPT), {**SETTINGS, "pretrain": settings})
    epochs = [epoch for epoch in range(300) if is_looked_at(epoch, settings)]
    looks = looked("pretrain", [IDLE] * len(epochs), epochs)
    settled = [look for look in looks if look.epoch >= 0.625 * 300]  # as above, of 8 epochs five
    assert [look.epoch for look in settled[:LOOKS]] == [188, 191, 194]
    assert alarm("pretrain", looks[: looks.index(settled[2])]) is None
    rung = alarm("pretrain", looks[: looks.index(settled[3])])
    assert "at the last 3 looks, up to epoch 195 of stage 'pretrain'" in str(rung)


def test_a_stage_of_few_epochs_is_long_enough_for_an_empty_motion_code(table):
    short = {**SETTINGS, "sequence": SETTINGS["sequence"].model_copy(update={"epochs": 4})}
    alarm = CollapseAlarm(table, vdsm_of(KEPT), short)
    assert alarm("sequence", looked("sequence", [NO_MOTION] * 3)) is None
    assert alarm("sequence", looked("sequence", [NO_MOTION] * 4)) is not None
    shorter = {**SETTINGS, "sequence": SETTINGS["sequence"].model_copy(update={"epochs": 3})}
    alarm = CollapseAlarm(table, vdsm_of(KEPT), shorter)
    assert alarm("sequence", looked("sequence", [IDLE] * 3)) is not None


def test_a_collapse_at_the_last_look_is_scored_since_a_stop_would_save_nothing(bench, tmp_path):
    layer = {"training": {"fit": {"epochs": 7}}}
    (outcome,), _ = bench("collapsed", layer=layer, runs_dir=tmp_path, stop_on_collapse=True)
    assert (outcome.state, outcome.metrics["collapsed"]) == ("done", True)


def test_a_stopped_cell_says_so_and_is_done_without_the_option(bench, tmp_path):
    layer = {"training": {"fit": {"epochs": 8}}}
    for _ in range(2):  # typed twice, it says the same
        (outcome,), _ = bench("collapsed", layer=layer, runs_dir=tmp_path, stop_on_collapse=True)
        assert (outcome.state, outcome.exit_code, outcome.metrics) == ("collapsed", 1, None)
        assert "without --stop-on-collapse" in outcome.error
    (record,) = scan_cells(tmp_path)
    assert (record.state, record.status.note) == ("collapsed", outcome.error.splitlines()[0])
    (again,), _ = bench("collapsed", layer=layer, runs_dir=tmp_path)
    assert (again.state, again.reused, again.metrics["collapsed"]) == ("done", False, True)


def looks_with(**gaps):
    return [
        Look(stage, epoch, {} if gap is None else {"swap_gap": gap})
        for stage, found in gaps.items()
        for epoch, gap in enumerate(found)
    ]


@pytest.mark.parametrize(
    "gaps",
    [
        {"first": [1.0, 40.0, 87.3], "second": [28.9, 55.4, 54.9]},  # another way of drawing
        {"first": [0.0, 55.4, 27.8]},
        {"first": [0.0004, 0.09, 0.0003]},  # of no use at any time: that is a collapse
        {"first": [55.4, None]},
        {"first": [None]},
        {"first": [0.0, -0.01]},
        {},
    ],
)
def test_an_end_like_the_rest_is_not_worse(gaps):
    assert ended_worse(looks_with(**gaps)) is None


def test_an_end_that_was_long_in_coming_is_no_burst():
    said = ended_worse(looks_with(first=[float(gap) for gap in range(60, 20, -1)]))
    assert said.startswith("training ended worse than it had been")
    assert "costs 21 times the error at its last look, and 60 after epoch 1" in said


@pytest.mark.parametrize(
    "gaps",
    [
        [1.0, 10.0, 5.0, 0.09, 0.07, 0.06, 0.05],  # too little to call a burst, too much for idle
        [0.5, 40.0, 0.02, 0.0, 0.01, 0.0],  # the look says, besides, that the code is of no use
    ],
)
def test_an_end_of_little_use_is_worse_however_slowly_it_came(gaps):
    assert ended_worse(looks_with(first=gaps)).startswith("training ended worse than it had been")


def test_an_end_in_a_burst_is_said_with_where_it_was_better():
    said = ended_worse(looks_with(first=[87.3], second=[28.9, 49.1, 55.4, 18.3]))
    assert said.startswith("training ended in a burst")
    assert "costs 18.3 times the error at its last look, and 55.4 after epoch 3" in said
    assert "training.second" in said


def test_what_a_row_says_of_its_training_tells_of_a_burst(table, tmp_path):
    model = vdsm_of(KEPT).eval()
    monitor = monitor_of(table, tmp_path, model)
    usual = monitor.at_the_end(model)
    journal = Journal(tmp_path / JOURNAL, ["sequence"])
    for epoch, gap in enumerate([55.4, 18.3]):
        journal.write("sequence", epoch, epoch, {"epoch_figures": {"swap_gap": gap}})
    health = monitor.at_the_end(model)
    assert (health.figures, health.collapsed) == (usual.figures, usual.collapsed)
    before = [] if usual.warning is None else [usual.warning]
    assert health.warning == "; ".join([*before, ended_worse(read_looks(tmp_path / JOURNAL))])
