"""What frozen parts make of the frames: computed once, and the same bits as in every step."""

import weakref

import pytest
import torch

from tests.models.tiny import build
from tests.training.test_recording import ARGUMENTS, SETTINGS
from tests.training.toys import Duel, Held, Read
from vdsm_bench.config import StageSettings
from vdsm_bench.data import clips
from vdsm_bench.training import trainer as trainer_module
from vdsm_bench.training.features import known_features
from vdsm_bench.training.trainer import Trainer


def _train(folder, sampler, settings=SETTINGS, precision="32", **arguments):
    model = build(**{**ARGUMENTS, **arguments})
    trainer = Trainer(model, settings, sampler, folder=folder, seed=1, precision=precision)
    trainer.train()
    return model.state_dict(), (folder / "train.jsonl").read_text()


def _settings(**changes):
    return {name: each.model_copy(update=changes) for name, each in SETTINGS.items()}


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({}, SETTINGS),
        ({"pose_encoder": "shared", "identity_frozen": False}, SETTINGS),
        ({"identity_from": "clip"}, _settings(batch_size=1, pairs=False, frames=1)),
    ],
)
def test_training_is_the_same_bits_with_features_known_ahead(
    tmp_path, precision, arguments, settings
):
    held = Held()
    mine, log = _train(tmp_path / "held", held, settings, precision, **arguments)
    theirs, other = _train(tmp_path / "read", Read(held), settings, precision, **arguments)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert log == other


def test_frozen_encoders_see_every_frame_once(tmp_path):
    held, model = Held(), build(**ARGUMENTS)
    trainer = Trainer(model, SETTINGS, held, folder=tmp_path, seed=1)
    seen = {"encoder": 0, "pose_encoder": 0}

    def count(name):
        def hook(module, arguments, result):
            seen[name] += len(arguments[0])

        return hook

    for name in seen:
        getattr(model, name).register_forward_hook(count(name))
    work = trainer.begin(trainer.stages[1])
    for step in range(4):
        trainer.take(work, step)
    assert seen == {"encoder": 1 + 7, "pose_encoder": 1 + 7}  # one to see how much they take


def test_features_make_room_before_the_model_is_judged(tmp_path, monkeypatch):
    tables = []

    def noted(*arguments):
        known = known_features(*arguments)
        if known is not None:
            tables.append(weakref.ref(known.table))
        return known

    monkeypatch.setattr(trainer_module, "known_features", noted)
    trainer = Trainer(build(**ARGUMENTS), SETTINGS, Held(), folder=tmp_path, seed=1)
    trainer.train()
    assert [table() for table in tables] == [None]


def test_features_are_not_computed_ahead_where_that_would_be_too_much_or_nothing(monkeypatch):
    model = build(**ARGUMENTS)
    pretrain, sequence = model.stages()
    held, cpu = Held(n=7), torch.device("cpu")

    def known(stage, sampler, **settings):
        settings = StageSettings(**{"epochs": 1, "batches_per_epoch": 1, **settings})
        return known_features(stage, settings, sampler, cpu, "32")

    assert known(pretrain, held, batch_size=7, frames=1) is None
    assert known(Duel().stages()[0], held, batch_size=7, frames=1) is None
    assert known(sequence, Read(held), batch_size=7, frames=1) is None
    assert known(sequence, held, batch_size=6, frames=1) is None
    table = known(sequence, held, batch_size=7, frames=1).table
    assert table.shape == (7, 2 * model.encoder.feature_dim)
    monkeypatch.setattr(clips, "RESIDENT_LIMIT", table.nbytes - 1)
    assert known(sequence, held, batch_size=7, frames=1) is None
