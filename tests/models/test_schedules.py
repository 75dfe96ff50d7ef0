import math

import pytest

from tests.models.tiny import build
from vdsm_bench.contracts import Progress
from vdsm_bench.models.vdsm.schedules import cosine_ramp, geometric, quadratic_spline


def test_cosine_ramp_takes_the_formulas_values():
    values = [cosine_ramp(1.0, 10.0, 2, epoch=e, n_epochs=10) for e in range(10)]
    by_hand = [1 + 9 * (math.cos(math.pi * (4 - e) / 5) + 1) / 2 for e in range(5)]
    assert values == pytest.approx([*by_hand, 10, 10, 10, 10, 10])
    assert values[0] == pytest.approx(1.8594, abs=1e-4)
    assert values[4] == 10


def test_cosine_ramp_covers_epochs_that_are_no_multiple_of_the_fraction():
    values = [cosine_ramp(0.1, 1.0, 3, epoch=e, n_epochs=10) for e in range(10)]
    assert values[3] == pytest.approx(1.0)  # n = ceil(10 / 3) = 4
    assert values[2] == pytest.approx(0.1 + 0.9 * (math.cos(math.pi * 0.3) + 1) / 2)
    assert values[4:] == [1.0] * 6


@pytest.mark.parametrize("n_epochs", [6, 100, 300])
def test_spline_meets_its_knots(n_epochs):
    values = (30.0, 0.2, 0.4, 1.0)
    assert quadratic_spline(values, epoch=0, n_epochs=n_epochs) == pytest.approx(30.0)
    assert quadratic_spline(values, epoch=n_epochs - 1, n_epochs=n_epochs) == pytest.approx(1.0)
    if n_epochs >= 100:
        assert quadratic_spline(values, epoch=n_epochs // 2, n_epochs=n_epochs) == pytest.approx(
            0.2
        )


def test_spline_is_scipys_quadratic_between_the_knots_and_clipped():
    from scipy.interpolate import make_interp_spline

    reference = make_interp_spline([0, 50, 80, 99], [30.0, 0.2, 0.4, 1.0], k=2)
    for epoch in (10, 30, 90):
        value = quadratic_spline((30.0, 0.2, 0.4, 1.0), epoch=epoch, n_epochs=100)
        assert value == pytest.approx(max(0.005, float(reference(epoch))), rel=1e-6)
    low = [quadratic_spline((30.0, 0.2, 0.4, 1.0), epoch=e, n_epochs=100) for e in range(100)]
    assert min(low) >= 0.005
    assert max(low) <= 80


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 4, 5])
def test_spline_works_for_very_short_stages(n_epochs):
    values = [
        quadratic_spline((30.0, 0.2, 0.4, 1.0), epoch=e, n_epochs=n_epochs) for e in range(n_epochs)
    ]
    assert values[-1] == pytest.approx(1.0)
    if n_epochs > 1:
        assert values[0] == pytest.approx(30.0)


def test_the_paper_annealing_of_both_stages():
    vdsm = build()
    first = vdsm.annealing("pretrain", Progress(0, 300, 0, 15000))
    last = vdsm.annealing("pretrain", Progress(299, 300, 14999, 15000))
    assert (last.temperature, last.identity) == (10.0, 1.0)
    assert last.pose == pytest.approx(1.0)
    assert first.pose == pytest.approx(30.0)
    assert first.temperature == pytest.approx(1.0, abs=1e-3)
    assert first.identity == pytest.approx(0.1, abs=1e-3)
    begin = vdsm.annealing("sequence", Progress(0, 200, 0, 10000))
    end = vdsm.annealing("sequence", Progress(199, 200, 9999, 10000))
    assert (begin.temperature, begin.identity) == (10.0, 1.0)
    assert begin.pose == pytest.approx(0.1)
    assert begin.motion == pytest.approx(0.1, abs=1e-3)
    assert (end.motion, end.pose) == (pytest.approx(1.0), pytest.approx(1.0))


def test_geometric_schedule_is_straight_on_a_logarithmic_scale():
    values = [geometric((100.0, 1.0, 1.0, 10.0), epoch=e, n_epochs=101) for e in range(101)]
    assert values[25] == pytest.approx(10.0)
    assert values[50:81] == pytest.approx([1.0] * 31)
    assert values[90] == pytest.approx(math.sqrt(10))
    assert geometric((100.0, 1.0, 1.0, 10.0), epoch=0, n_epochs=1) == pytest.approx(100.0)


def test_the_pose_stays_shut_for_its_share_and_then_starts_its_schedule():
    vdsm = build(pose_shut=0.25, pose_kl=[8.0, 4.0, 2.0, 1.0], pose_kl_shape="geometric")
    weights = [vdsm.annealing("pretrain", Progress(e, 40, 0, 1)).pose for e in range(40)]
    assert weights[:10] == [None] * 10
    assert weights[10] == pytest.approx(8.0)
    assert weights[39] == pytest.approx(1.0)


@pytest.mark.parametrize(("share", "epochs"), [(0.99, 12), (0.75, 2), (0.9, 1)])
def test_the_pose_opens_at_the_last_epoch_at_the_latest(share, epochs):
    vdsm = build(pose_shut=share)
    weights = [vdsm.annealing("pretrain", Progress(e, epochs, 0, 1)).pose for e in range(epochs)]
    assert weights[:-1] == [None] * (epochs - 1)
    assert weights[-1] is not None
