import math

import pytest
import torch

from tests.models.tiny import CLIP, build
from vdsm_bench.models.vdsm.parts import IdentityHead, MotionEncoder, RollOut


@pytest.mark.parametrize("size", [4, 24])
def test_codes_of_a_clip_start_as_wide_as_their_priors(size):
    torch.manual_seed(0)
    for part in (IdentityHead(32, size), MotionEncoder(32, size, 7, 2, 0.0)):
        _, scale = part(torch.randn(50, 3, 32))
        assert scale.mean().item() == pytest.approx(1 / size, rel=0.2)
        assert scale.std(0).max() < 0.2 / size  # of whatever clip


def test_without_kept_start_codes_of_a_clip_start_where_softplus_does():
    torch.manual_seed(0)
    for part in (IdentityHead(32, 24, kept=False), MotionEncoder(32, 24, 7, 2, 0.0, kept=False)):
        _, scale = part(torch.randn(50, 3, 32))
        assert 0.5 < scale.mean() < 1.0


@pytest.mark.parametrize(
    ("layers", "dropout", "training", "differ"),
    [(2, 0.9, True, True), (2, 0.9, False, False), (1, 0.9, True, False), (2, 0.0, True, False)],
)
def test_the_roll_out_drops_between_its_layers_while_it_trains(layers, dropout, training, differ):
    torch.manual_seed(0)
    part = RollOut(6, 7, layers, dropout).train(training)
    motion = torch.randn(3, 6)
    one, other = part(motion, 4), part(motion, 4)
    assert torch.equal(one, other) != differ
    assert one.all()  # what the last layer says is kept


def test_poses_start_as_wide_as_the_model_is_told():
    clip = torch.rand(8, CLIP.frames, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    widths = {told: build(pose_scale=told).posteriors(clip)[1].pose for told in (0.05, 0.3, None)}
    assert widths[0.05].mean().item() == pytest.approx(0.05, rel=0.2)
    assert widths[0.3].mean().item() == pytest.approx(0.3, rel=0.2)
    assert widths[None].mean() > 0.5


@pytest.mark.parametrize("told", [1e-30, 0.3, 1 / 24, 1000.0])
def test_any_scale_is_one_to_start_at(told):
    bias = build(pose_scale=told).pose_head.layer.bias[-1].item()
    assert math.log1p(math.exp(-abs(bias))) + max(bias, 0.0) == pytest.approx(told, rel=1e-4)
