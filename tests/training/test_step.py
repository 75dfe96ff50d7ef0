import pytest
import torch

from tests.models.tiny import build
from tests.training.toys import SETTINGS, Noise
from tests.training.waits import HostWaits
from vdsm_bench.contracts import Progress
from vdsm_bench.data.clips import to_unit
from vdsm_bench.training.trainer import Trainer

PAIRS = {"pairs": True, "frames": 6, "gradient_clip": 1.0}


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize(
    "arguments",
    [
        {"rnn_dropout": 0.2},
        {"likelihood": "gaussian", "identity_from": "partner", "pose_match": [1.0, 0.0]},
        {"likelihood": "continuous-bernoulli", "pose_shut": 0.5},
    ],
    ids=lambda arguments: ",".join(arguments),
)
def test_a_step_never_waits_for_the_device(tmp_path, stage, arguments):
    settings = {
        name: each.model_copy(update=PAIRS if name == "pretrain" else {"gradient_clip": 1.0})
        for name, each in SETTINGS.items()
    }
    trainer = Trainer(build(**arguments), settings, Noise(), folder=tmp_path, seed=0)
    work = trainer.begin(trainer.stages[stage])
    clip = torch.rand(2, 6, 3, 16, 16)
    for epoch in (0, 3):
        with HostWaits() as waits:
            work.take(clip, Progress(epoch, 4, 3 * epoch, 12))
        assert waits.found == []
    assert work.meter.read().sound == 2


def test_a_step_moves_weights_as_adam_is_written(tmp_path):
    trainer = Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=0)
    work = trainer.begin(trainer.stages[0])
    (player,) = work.stage.players
    rate, moments = SETTINGS["pretrain"].learning_rate, {}
    for step in range(3):
        before = [p.detach().double() for p in player.parameters]
        work.take(torch.rand(2, 6, 3, 16, 16), Progress(0, 4, step, 12))
        for index, (old, p) in enumerate(zip(before, player.parameters, strict=True)):
            if p.grad is None:
                continue
            first, second, count = moments.get(index, (0.0, 0.0, 0))
            g, (a, b) = p.grad.double(), player.betas
            first, second, count = a * first + (1 - a) * g, b * second + (1 - b) * g**2, count + 1
            moments[index] = first, second, count
            spread = (second / (1 - b**count)).sqrt() + 1e-8
            moved = old - rate * (first / (1 - a**count)) / spread
            torch.testing.assert_close(p.double(), moved, rtol=1e-5, atol=1e-7)
    assert moments


@pytest.mark.parametrize("share", [0.1, 10.0])
def test_long_gradients_are_cut_to_the_clip_and_short_ones_left_alone(tmp_path, share):
    clip = torch.rand(2, 6, 3, 16, 16)

    def gradients(folder, most):
        settings = SETTINGS | {"pretrain": SETTINGS["pretrain"].model_copy(
            update={"gradient_clip": most}
        )}  # fmt: skip
        trainer = Trainer(build(), settings, Noise(), folder=tmp_path / folder, seed=0)
        work = trainer.begin(trainer.stages[0])
        torch.manual_seed(0)
        work.take(clip, Progress(0, 4, 0, 12))
        (player,) = work.stage.players
        found = torch.cat([p.grad.flatten() for p in player.parameters if p.grad is not None])
        return found, work.meter.read().figures

    plain, _ = gradients("plain", None)
    norm = plain.norm().item()
    cut, figures = gradients("cut", share * norm)
    torch.testing.assert_close(cut, plain * min(1.0, share), rtol=1e-4, atol=0.0)
    assert figures["gradient_norm"] == pytest.approx(norm, rel=1e-4)  # as it was


def test_the_watch_sees_what_waits():
    values = torch.rand(3)
    for waits in (
        lambda: values.sum().item(),
        lambda: bool(values[0] > 0),
        lambda: torch.tensor(0.5),
        lambda: torch.distributions.Normal(values, 1.0),
        lambda: values[values > 0.5],
    ):
        with HostWaits() as watch:
            waits()
        assert watch.found


def test_bytes_become_pixels_without_a_wait_and_with_the_exact_quotients():
    planes = torch.arange(256, dtype=torch.uint8)
    with HostWaits() as waits:
        unit = to_unit(planes)
    assert waits.found == []
    assert unit.tolist() == [torch.tensor(n / 255, dtype=torch.float32).item() for n in range(256)]
