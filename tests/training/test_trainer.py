import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from tests.models.tiny import CLIP, build
from tests.plugin.toy_zoo.encoder import ToyLinear
from tests.plugin.toy_zoo.model import ToyAutoencoder
from tests.training.toys import SETTINGS, Duel, Noise, Stop, equal
from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Losses
from vdsm_bench.errors import ContractError, DivergedError, UsageError
from vdsm_bench.training.checkpoint import read_checkpoint
from vdsm_bench.training.journal import read_looks
from vdsm_bench.training.meter import Meter
from vdsm_bench.training.step import learning_rate, openings
from vdsm_bench.training.trainer import Trainer


def test_every_part_of_a_model_meets_the_first_batch(monkeypatch):
    model, met = build(pose_encoder="own"), []
    for kind in (type(model.encoder), type(model.decoder)):
        monkeypatch.setattr(kind, "meet", lambda part, clip: met.append(part))
    model.meet(torch.rand(2, 4, 3, 16, 16))
    assert {id(part) for part in met} == {
        id(part) for part in (model.encoder, model.pose_encoder, model.decoder)
    }
    assert len(met) == 3


def test_two_models_in_one_process_both_train_alike(uninterrupted, tmp_path):
    """Pyro's global store makes a second model under the same name silently not train."""
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Trainer(model, SETTINGS, Noise(), folder=tmp_path, seed=1).train()
    after = model.state_dict()
    assert all(not torch.equal(before[n], after[n]) for n, p in model.named_parameters())
    assert equal(uninterrupted[1], after)


def test_another_seed_gives_other_weights(uninterrupted, tmp_path):
    model = build()
    Trainer(model, SETTINGS, Noise(), folder=tmp_path, seed=2).train()
    assert not equal(uninterrupted[1], model.state_dict())


def test_training_leaves_the_callers_random_stream_alone(tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    model = Duel()
    torch.manual_seed(11)
    settings = {"duel": StageSettings(epochs=1, batches_per_epoch=2, batch_size=4)}
    Trainer(model, settings, Noise(), folder=tmp_path, seed=0).train()
    torch.testing.assert_close(torch.rand(3), expected)


def test_the_frozen_parts_do_not_move_in_stage_two(uninterrupted, tmp_path):
    short = {"pretrain": SETTINGS["pretrain"], "sequence": SETTINGS["sequence"]}
    model, frozen = build(), {}

    def remember(stage, epoch, model):
        if stage == "pretrain" and epoch == 3:
            frozen.update({n: v.clone() for n, v in model.state_dict().items()})
        return {}

    Trainer(model, short, Noise(), folder=tmp_path, seed=1, on_epoch=remember).train()
    for name, value in model.state_dict().items():
        still = name.startswith(("encoder.", "decoder.", "pose_head."))
        assert torch.equal(frozen[name], value) == still, name


def test_train_jsonl_has_the_first_step_and_the_epochs_figures(tmp_path):
    figures = {"largest_weight": 0.5, "leaks": {"action": 0.1}}
    details = []
    Trainer(
        build(),
        SETTINGS,
        Noise(),
        folder=tmp_path,
        seed=1,
        on_epoch=lambda stage, epoch, model: figures if not model.training else {},
        progress=lambda task, done, total, detail: details.append(detail),
    ).train()
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert (lines[0]["stage"], lines[0]["step"]) == ("pretrain", 0)
    assert {"nll", "kl_s", "kl_z", "loss", "temperature"} <= set(lines[0])
    assert [line["epoch"] for line in lines if "epoch_figures" in line] == [0, 1, 2, 3] * 2
    assert "largest_weight 0.5" in details[-1]


@pytest.mark.parametrize(
    ("epochs", "seen"),
    [(100, list(range(100))), (103, [*range(1, 103, 2), 102]), (300, list(range(2, 300, 3)))],
)
def test_a_long_stage_is_looked_at_a_hundred_times(tmp_path, epochs, seen):
    looks, alarms = [], []
    duel = Duel()
    settings = {"duel": StageSettings(epochs=epochs, batches_per_epoch=1, batch_size=4)}

    def look(stage, epoch, model):
        looks.append(epoch)
        return {"epoch_seen": epoch}

    def heed(stage, found):
        alarms.append([one.epoch for one in found])

    Trainer(
        duel, settings, Noise(), folder=tmp_path, seed=0, on_epoch=look, alarm=heed
    ).train()  # fmt: skip
    assert looks == seen
    # before the first, and after all but the last: an alarm would save nothing any more
    assert alarms == [seen[:n] for n in range(len(seen))]
    found = read_looks(tmp_path / "train.jsonl")
    assert [(one.epoch, one.figures) for one in found] == [(n, {"epoch_seen": n}) for n in seen]


def test_looks_and_stops_move_nothing_of_a_stage_of_several_players(tmp_path):
    """The critic, first of two players, has running statistics: they move on after a look."""
    settings = {"duel": StageSettings(epochs=3, batches_per_epoch=2, batch_size=4)}

    def train(folder, **options):
        torch.manual_seed(11)
        duel = Duel()
        Trainer(duel, settings, Noise(), folder=tmp_path / folder, seed=0, **options).train()
        return duel.state_dict()

    def look(stage, epoch, model):
        assert not model.critic.training
        return {"epoch_seen": epoch}

    def stop(task, done, total, detail):
        if done == 3:
            raise Stop

    plain, looked_at = train("plain"), train("looked-at", on_epoch=look)
    assert plain["critic.1.num_batches_tracked"] == 18  # three times a step
    assert equal(plain, looked_at)
    with pytest.raises(Stop):
        train("stopped", on_epoch=look, progress=stop)
    assert equal(plain, train("stopped", on_epoch=look))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(tmp_path):
    poisoned = Noise(poison=("sequence", 2))
    trainer = Trainer(build(), SETTINGS, poisoned, folder=tmp_path, seed=1)
    with pytest.raises(DivergedError, match="stage 'sequence' is not finite at step 2"):
        trainer.train()
    from safetensors.torch import load_file

    assert load_file(tmp_path / "diverged-batch.safetensors")["clip"].isnan().all()
    assert not (tmp_path / "checkpoints" / "model.safetensors").exists()


class Shown(ToyAutoencoder):
    """It shows an infinite figure: only a loss and a gradient have to be finite."""

    def _loss(self, batch, progress):
        return Losses(super()._loss(batch, progress).total, {"psnr": torch.tensor(torch.inf)})


def test_a_figure_that_is_only_shown_is_not_what_diverged(tmp_path):
    settings = StageSettings(epochs=1, batches_per_epoch=1, batch_size=4, learning_rate=1e39)
    model = Shown(clip=CLIP, encoder=ToyLinear)
    trainer = Trainer(model, {"fit": settings}, Noise(), folder=tmp_path, seed=1)
    with pytest.raises(DivergedError, match=r"Step 0 of stage 'fit' leaves weights .*psnr inf"):
        trainer.train()


@pytest.mark.parametrize("rate", [1e30, 1e39])
@pytest.mark.parametrize(("stage", "epochs"), [("pretrain", 1), ("pretrain", 2), ("sequence", 1)])
def test_a_sound_step_that_leaves_useless_weights_has_diverged(tmp_path, stage, epochs, rate):
    """Whether they are no numbers or too large ones; at the end of an epoch, or of the stage."""
    settings = {
        name: each.model_copy(update={"epochs": 1, "batches_per_epoch": 1, "gradient_clip": None})
        for name, each in SETTINGS.items()
    }
    wild = {"learning_rate": rate, "epochs": epochs}
    settings[stage] = settings[stage].model_copy(update=wild)

    def look(name, epoch, model):
        if name == stage:
            raise ContractError("codes that are no numbers")
        return {}

    trainer = Trainer(build(), settings, Noise(), folder=tmp_path, seed=1, on_epoch=look)
    with pytest.raises(DivergedError, match=f"Step 0 of stage '{stage}' leaves weights"):
        trainer.train()


def test_the_check_of_the_last_update_moves_no_running_statistics(tmp_path):
    tracked = []
    for steps in (1, 2):
        duel = Duel()
        settings = {"duel": StageSettings(epochs=1, batches_per_epoch=steps, batch_size=4)}
        Trainer(duel, settings, Noise(), folder=tmp_path / str(steps), seed=0).train()
        tracked.append(duel.critic[1].num_batches_tracked.item())
    assert tracked[1] == 2 * tracked[0] > 0


def test_an_error_of_the_look_at_a_sound_model_stays_what_it_is(tmp_path):
    def look(name, epoch, model):
        raise ContractError("a wrong shape")

    trainer = Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1, on_epoch=look)
    with pytest.raises(ContractError, match="a wrong shape"):
        trainer.train()


@pytest.fixture
def elsewhere(monkeypatch):
    """Lets the trainer treat the processor as a device that it had better not wait for."""
    whole = Trainer.__init__

    def build_as_if(self, *arguments, **options):
        whole(self, *arguments, **options)
        self._looks_always = False

    monkeypatch.setattr(Trainer, "__init__", build_as_if)


def test_a_device_is_looked_at_only_where_a_figure_is_wanted(
    uninterrupted, tmp_path, monkeypatch, elsewhere
):
    reads, shown = [], []
    read = Meter.read
    monkeypatch.setattr(Meter, "read", lambda self: reads.append(1) or read(self))
    model = build()
    Trainer(
        model, SETTINGS, Noise(), folder=tmp_path, seed=1,
        progress=lambda task, done, total, detail: shown.append(done),
    ).train()  # fmt: skip
    assert shown == [1, 3, 6, 9, 10, 12] * 2  # the first, the tenth, and the ends of epochs
    assert len(reads) == len(shown)
    folder, weights = uninterrupted
    assert equal(weights, model.state_dict())
    assert (tmp_path / "train.jsonl").read_text() == (folder / "train.jsonl").read_text()


@pytest.mark.parametrize("bad", [4, 9])
def test_a_step_that_is_not_finite_is_found_late_but_before_anything_is_written(
    tmp_path, monkeypatch, elsewhere, bad
):
    """Step 4 is followed by a good batch, and its own weights are spoilt before anyone looks."""
    settings = {
        name: stage.model_copy(update={"epochs": 1, "batches_per_epoch": 12})
        for name, stage in SETTINGS.items()
    }
    noise, epochs = Noise(poison=("sequence", bad)), []
    trainer = Trainer(
        build(), settings, noise, folder=tmp_path, seed=1,
        on_epoch=lambda stage, epoch, model: epochs.append(stage) or {},
    )  # fmt: skip
    with pytest.raises(DivergedError, match=f"loss of .* is not finite at step {bad} "):
        trainer.train()
    assert epochs == ["pretrain"]
    with safe_open(tmp_path / "diverged-batch.safetensors", framework="pt") as file:
        assert file.metadata() == {"stage": "sequence", "step": str(bad)}
        assert file.get_tensor("clip").isnan().all()
    _, position = read_checkpoint(tmp_path / "checkpoints" / "last.safetensors")
    assert (position.stage, position.step) == ("pretrain", 12)


def test_a_gradient_that_is_not_finite_is_no_crash(tmp_path):
    """A finite loss whose gradient is infinite: the root of zero."""

    class Root(Duel):
        def _critic_loss(self, batch, progress):
            return Losses(sum((p * 0).sum() for p in self.critic.parameters()).sqrt())

    settings = {"duel": StageSettings(epochs=1, batch_size=4, gradient_clip=1.0)}
    with pytest.raises(DivergedError, match="gradient of stage 'duel' is not finite at step 0"):
        Trainer(Root(), settings, Noise(), folder=tmp_path, seed=0).train()


def test_a_stage_without_settings_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No training settings for stage 'sequence'"):
        Trainer(build(), {"pretrain": SETTINGS["pretrain"]}, Noise(), folder=tmp_path, seed=0)


def test_the_learning_rate_falls_over_the_cool_down():
    settings = StageSettings(epochs=10, batches_per_epoch=10, learning_rate=1.0, cool_down=0.4)
    assert learning_rate(settings, 0) == learning_rate(settings, 60) == 1.0
    assert learning_rate(settings, 80) == pytest.approx(0.5)
    assert learning_rate(settings, 99) == pytest.approx(0.05)
    constant = settings.model_copy(update={"cool_down": 0.0})
    assert learning_rate(constant, 99) == 1.0


@pytest.mark.parametrize("again", [True, False])
def test_the_learning_rate_rises_again_where_the_schedule_switches_something_on(again, tmp_path):
    settings = StageSettings(
        epochs=6, batches_per_epoch=4, batch_size=4, learning_rate=1.0, warm_up=3,
        warm_up_again=again,
    )  # fmt: skip
    numbers = [{"a": None, "b": 1.0}, {"a": None, "b": None}, {"a": 1.0, "b": None},
               {"a": 1.0, "b": None}, {"a": None, "b": None}, {"a": None, "b": 2.0}]  # fmt: skip
    (stage,) = Duel().stages()
    stage = replace(stage, schedule=lambda progress: numbers[progress.epoch])
    assert openings(stage, settings) == ([0, 8, 20] if again else [0])
    assert openings(replace(stage, schedule=None), settings) == [0]
    duel = Duel()
    duel.stages = lambda: (replace(Duel.stages(duel)[0], schedule=stage.schedule),)
    trainer = Trainer(duel, {"duel": settings}, Noise(), folder=tmp_path, seed=0)
    work = trainer.begin(trainer.stages[0])
    rates = []
    for step in (0, 1, 2, 7, 8, 9, 10, 11, 19, 20, 21, 23):
        trainer.take(work, step)
        rates.append(work.optimisers["critic"].param_groups[0]["lr"])
    third, two = pytest.approx(1 / 3), pytest.approx(2 / 3)
    risen = [third, two, 1.0, 1.0, third, two, 1.0, 1.0, 1.0, third, two, 1.0]
    assert rates == (risen if again else [third, two, *[1.0] * 10])


def test_the_learning_rate_rises_over_the_warm_up():
    settings = StageSettings(epochs=10, batches_per_epoch=10, learning_rate=1.0, warm_up=20)
    assert [learning_rate(settings, step) for step in (0, 9, 19, 99)] == [0.05, 0.5, 1.0, 1.0]
