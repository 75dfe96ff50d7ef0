import subprocess
import sys

import pytest
import torch
from torch import nn

from vdsm_bench.contracts import ClipShape
from vdsm_bench.encoders.blurpool import BlurPoolEncoder
from vdsm_bench.encoders.blurpool_released import ReleasedBlurPoolEncoder
from vdsm_bench.encoders.timm_backbone import TimmEncoder
from vdsm_bench.errors import UsageError

CLIP = ClipShape(8, 3, 64, 64)


def _sides(encoder):
    sides, x = [], torch.zeros(1, 3, 64, 64)
    for layer in encoder.layers:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            sides.append(x.shape[-1])
    return sides


def test_the_papers_shapes():
    encoder = BlurPoolEncoder(clip=CLIP)
    assert _sides(encoder) == [63, 30, 14, 6, 2]
    assert encoder.feature_dim == 256
    convolutions = [m for m in encoder.layers if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32, 32, 32, 64, 64]


def test_the_released_shapes_and_slopes():
    encoder = ReleasedBlurPoolEncoder(clip=CLIP)
    assert _sides(encoder) == [63, 31, 15, 7, 1]
    assert encoder.feature_dim == 256
    x, y = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    released = ReleasedBlurPoolEncoder(clip=CLIP, activation="as-released")

    def curvature(e):  # zero for an affine map, whatever the inputs
        return (e(x + y) - e(x) - e(y) + e(torch.zeros_like(x))).abs().max().item()

    assert curvature(released) < 1e-4
    assert curvature(encoder) > 1e-2


def test_the_blur_of_the_release():
    encoder = ReleasedBlurPoolEncoder(clip=CLIP)
    blur = encoder.layers[2].filt[0, 0]
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    torch.testing.assert_close(blur, taps[:, None] * taps[None] / 64)


@pytest.mark.parametrize(
    ("encoder", "size", "channels"),
    [(BlurPoolEncoder, 32, (8, 8, 8, 8, 8)), (ReleasedBlurPoolEncoder, 32, (8, 8, 8, 8))],
)
def test_frames_that_do_not_fit_are_refused(encoder, size, channels):
    with pytest.raises(UsageError):
        encoder(clip=ClipShape(8, 3, size, size), channels=channels)


def test_a_timm_backbone_fits():
    encoder = TimmEncoder(clip=ClipShape(4, 3, 32, 32), backbone="resnet10t")
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, encoder.feature_dim)
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        TimmEncoder(clip=CLIP, backbone="resnet-18")


def test_timm_imports_where_torch_and_torchvision_disagree():
    """In a fresh process, with a torchvision whose operators are missing (ours or a stand-in)."""
    program = (
        "import sys, types, importlib.abc, importlib.machinery\n"
        "from vdsm_bench.optional import import_timm\n"
        "timm = import_timm()\n"
        "print(len(timm.list_models('resnet*')) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
