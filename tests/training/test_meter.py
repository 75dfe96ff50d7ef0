import pytest
import torch

from vdsm_bench.training.meter import Meter


def scalar(value):
    return torch.tensor(value)


def test_shows_the_last_step():
    meter = Meter(torch.device("cpu"))
    for step in range(5):
        meter.record({"nll": scalar(float(step))}, {"loss": scalar(2.0 * step)})
    reading = meter.read()
    assert reading.sound == 5
    assert reading.figures == {"nll": 4.0, "loss": 8.0}


def test_shows_the_first_step_that_is_not_finite_however_late_it_is_read():
    meter = Meter(torch.device("cpu"))
    losses = [3.0, 2.0, float("inf"), float("nan"), 1.0]
    for step, loss in enumerate(losses):
        meter.record({"nll": scalar(step)}, {"a/loss": scalar(1.0), "b/loss": scalar(loss)})
    for _ in range(2):
        reading = meter.read()
        assert reading.sound == 2
        assert reading.figures == {"nll": 2.0, "a/loss": 1.0, "b/loss": float("inf")}


def test_figures_that_are_only_shown_may_be_anything():
    meter = Meter(torch.device("cpu"))
    meter.record({"psnr": scalar(float("inf"))}, {"loss": scalar(1.0)})
    assert meter.read().sound == 1


@pytest.mark.parametrize("name", ["loss", "gradient_norm", "a/loss"])
def test_a_term_named_as_what_is_watched_hides_nothing(name):
    meter = Meter(torch.device("cpu"))
    for value in (1.0, float("nan"), float("nan")):
        watched = {name: scalar(value)}
        meter.record({name: scalar(0.0), "nll": scalar(7.0)}, watched)
    reading = meter.read()
    assert reading.sound == 1
    assert reading.figures == {"nll": 7.0, name: pytest.approx(float("nan"), nan_ok=True)}


def test_other_figures_take_the_place_of_those_before():
    meter = Meter(torch.device("cpu"))
    meter.record({"kl_s": scalar(1.0)}, {"loss": scalar(2.0)})
    meter.record({"kl_s": scalar(3.0), "kl_z": scalar(4.0)}, {"loss": scalar(5.0)})
    assert meter.read().figures == {"kl_s": 3.0, "kl_z": 4.0, "loss": 5.0}


def test_recording_is_done_in_place_so_that_it_can_be_repeated():
    meter = Meter(torch.device("cpu"))
    nll, loss = torch.zeros(()), torch.zeros(())
    meter.record({"nll": nll}, {"loss": loss})
    places = {name: value.data_ptr() for name, value in vars(meter).items() if name != "_names"}
    meter.record({"nll": nll + 1}, {"loss": loss})
    assert places == {n: v.data_ptr() for n, v in vars(meter).items() if n != "_names"}
    assert meter.read().figures["nll"] == 1.0
