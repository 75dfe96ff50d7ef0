import copy
import importlib.util

import numpy as np
import pytest
import torch
from antialiased_cnns import BlurPool
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vdsm_bench.contracts import ClipShape
from vdsm_bench.encoders import blurred_stack
from vdsm_bench.encoders.blurpool import BlurPoolEncoder
from vdsm_bench.encoders.blurpool_released import ReleasedBlurPoolEncoder
from vdsm_bench.encoders.blurred_stack import BlurredStack
from vdsm_bench.encoders.timm_backbone import TimmEncoder
from vdsm_bench.errors import UsageError
from vdsm_bench.notation import parse_assignments
from vdsm_bench.registry import load_registry

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


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(UsageError):
        BlurPoolEncoder(clip=ClipShape(8, 3, 32, 32), channels=(8, 8, 8, 8, 8))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("blurpool", {"channels": [0, 8]}), ("blurpool", {"channels": []}),
     ("blurpool-released", {"block_channels": [8, -8]}),
     ("blurpool-released", {"block_channels": []}), ("blurpool-released", {"features": 0})],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused_before_anything_is_built(name, arguments):
    with pytest.raises(UsageError, match=f"encoders/{name}: argument '{next(iter(arguments))}'"):
        load_registry().check_arguments("encoders", name, arguments)


@pytest.mark.parametrize(
    ("size", "blocks", "hint"),
    [(32, (8, 8, 8, 8), "give 3 of them"), (128, None, "give 5 of them"),
     (48, None, "--set data.image_size=32"), (48, (8, 8, 8), "--set data.image_size=32"),
     (28, None, "--set data.image_size=16"), (28, (8, 8, 8), "image_size=16, and 2 blocks")],
)  # fmt: skip
def test_what_is_not_halved_to_4_is_refused_with_what_would_do(size, blocks, hint):
    with pytest.raises(UsageError) as refused:
        ReleasedBlurPoolEncoder(clip=ClipShape(8, 3, size, size), block_channels=blocks)
    assert hint in refused.value.hint


@pytest.mark.parametrize("size", [8, 9, 16, 28])
def test_fewer_channels_that_are_advised_do_fit(size):
    clip = ClipShape(8, 3, size, size)
    with pytest.raises(UsageError) as refused:
        BlurPoolEncoder(clip=clip, channels=(8,) * 6)
    (given,) = parse_assignments([refused.value.hint.removeprefix("--set ")]).values()
    encoder = BlurPoolEncoder(clip=clip, channels=tuple(given["encoder"]["channels"]))
    assert encoder(torch.rand(2, 3, size, size)).shape == (2, encoder.feature_dim)


def test_a_timm_backbone_fits():
    encoder = TimmEncoder(clip=ClipShape(4, 3, 32, 32), backbone="resnet10t")
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, encoder.feature_dim)
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        TimmEncoder(clip=CLIP, backbone="resnet-18")


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "ghostnet_050", "convnext_atto"])
def test_features_are_as_many_as_come_out_of_a_timm_backbone(backbone):
    encoder = TimmEncoder(clip=ClipShape(4, 3, 32, 32), backbone=backbone)
    assert encoder.training
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, encoder.feature_dim)


def test_a_timm_backbone_for_frames_of_another_size_is_refused():
    with pytest.raises(UsageError, match="does not take 64 x 64 frames"):
        TimmEncoder(clip=ClipShape(4, 3, 64, 64), backbone="vit_tiny_patch16_224")


@pytest.mark.parametrize("pretrained", [True, False])
def test_pretrained_weights_see_the_mean_and_spread_that_they_have_learnt(monkeypatch, pretrained):
    import timm

    make = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: make(*a, **{**k, "pretrained": False})
    )
    clip = ClipShape(4, 3, 32, 32)
    encoder = TimmEncoder(clip=clip, backbone="resnet10t", pretrained=pretrained).eval()
    mean, std = (torch.tensor(encoder.backbone.pretrained_cfg[key]) for key in ("mean", "std"))
    shown = torch.rand(2, 3, 32, 32)
    told = (shown - mean.view(3, 1, 1)) / std.view(3, 1, 1) if pretrained else shown
    torch.testing.assert_close(encoder(shown), encoder.backbone(told))
    assert not {"mean", "spread"} & set(encoder.state_dict())


@pytest.mark.parametrize("name", ["resnet18.no_such_weights", "cspresnet50d"])
def test_weights_that_timm_does_not_have_are_refused_with_those_that_it_has(name):
    with pytest.raises(UsageError, match=f"timm does not make {name}: .*pretrained") as refused:
        TimmEncoder(clip=ClipShape(4, 3, 32, 32), backbone=name, pretrained=True)
    assert f"list_pretrained('{name.partition('.')[0]}*')" in refused.value.hint


def test_weights_that_do_not_download_say_what_to_do(run_python, tmp_path):
    code = """
from vdsm_bench.contracts import ClipShape
from vdsm_bench.encoders.timm_backbone import TimmEncoder
from vdsm_bench.errors import DataError
try:
    TimmEncoder(clip=ClipShape(4, 3, 32, 32), backbone="resnet10t", pretrained=True)
except DataError as error:
    print(error)
"""
    said = run_python(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)).stdout
    assert "weights of timm's resnet10t do not download" in said
    assert "HF_HOME=" in said
    assert "model.encoder.pretrained=false" in said


def test_weights_that_saved_ones_replace_are_not_downloaded(run_python, tmp_path):
    code = """
from vdsm_bench.contracts import ClipShape
from vdsm_bench.encoders.timm_backbone import TimmEncoder
from vdsm_bench.initialisation import weights_follow
clip = ClipShape(4, 3, 32, 32)
with weights_follow(True):
    encoder = TimmEncoder(clip=clip, backbone="resnet10t", pretrained=True)
plain = TimmEncoder(clip=clip, backbone="resnet10t")
assert encoder.state_dict().keys() == plain.state_dict().keys()
print([round(value, 3) for value in encoder.mean.flatten().tolist()])
"""
    said = run_python(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)).stdout
    assert "[0.485, 0.456, 0.406]" in said


def test_timm_imports_in_a_fresh_process(run_python):
    """The real pair of wheels: a CPU torch beside a CUDA torchvision breaks a plain import."""
    code = "from vdsm_bench.optional import import_timm; print(len(import_timm().list_models()))"
    assert int(run_python(code).stdout) > 100


def test_a_model_with_a_timm_backbone_never_imports_blurpool(run_python):
    """The licence of antialiased-cnns says non-commercial; who leaves it out is free of that."""
    code = """
import sys
from vdsm_bench.config import resolve
from vdsm_bench.contracts import ClipShape
from vdsm_bench.registry import load_registry
table = load_registry()
model = "vdsm[encoder=timm[backbone=resnet10t]]"
config = resolve(table, model=model, dataset="mug-synthetic", preset="smoke")
table.factory("models", "vdsm", config.model.arguments)(clip=ClipShape(4, 3, 32, 32))
assert "antialiased_cnns" not in sys.modules
"""
    run_python(code)


def test_imports_survive_a_torchvision_without_its_operators(run_python, tmp_path):
    broken = tmp_path / "site" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(
        "import torch\n"
        "for name in ('nms', 'qnms'):\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda *a: None)\n"
    )
    (broken.parent / "needs_it.py").write_text("import torchvision\nanswer = 42\n")
    path = str(broken.parent)
    plain = run_python("import needs_it", expect=1, PYTHONPATH=path)
    assert "operator torchvision::nms does not exist" in plain.stderr
    code = (
        "from vdsm_bench.optional import import_with_torchvision as load;"
        "print(load('needs_it').answer)"
    )
    assert run_python(code, PYTHONPATH=path).stdout.strip() == "42"


def test_a_missing_module_names_the_pip_line():
    from vdsm_bench.errors import MissingDependencyError
    from vdsm_bench.optional import import_optional

    with pytest.raises(MissingDependencyError, match="pip install --upgrade no-such-thing"):
        import_optional("no_such_thing", package="no-such-thing")


#: what Triton's interpreter does on a processor, beside the BlurPool itself
INTERPRETED = """
import sys, torch
from antialiased_cnns import BlurPool
from vdsm_bench.contracts import ClipShape
from vdsm_bench.encoders import blur_kernels, blurred_stack
from vdsm_bench.encoders.blurpool import BlurPoolEncoder
from vdsm_bench.encoders.blurred_stack import Band, Side, along, blur

torch.manual_seed(0)
blur_kernels.check(torch.device("cpu"))
for stride in (1, 2):
    for height, width, channels in [(7, 4, 3), (4, 9, 1), (33, 6, 40), (3, 70, 20)]:
        pool = BlurPool(channels, filt_size=4, stride=stride)
        sides = [along(pool, side) for side in (height, width)]
        rows, columns = (Side(m, Band.of(m), Band.of(m.t())) for m in sides)
        # a pixel is a sum of as many as the filter has; on the way back, of one more at edges
        assert max(side.band.width for side in (rows, columns)) <= 4
        assert max(side.back.width for side in (rows, columns)) <= 5
        ours = torch.randn(2, channels, height, width, requires_grad=True)
        theirs = ours.detach().clone().requires_grad_()
        blurred, pooled = blur(ours, rows, columns, blur_kernels), pool(theirs)
        torch.testing.assert_close(blurred, pooled, rtol=1e-5, atol=1e-6)
        assert blurred.permute(0, 2, 3, 1).is_contiguous()
        direction = torch.randn_like(pooled)
        blurred.backward(direction)
        pooled.backward(direction)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
        short = blur(ours.detach().bfloat16(), rows, columns, blur_kernels)
        assert short.dtype == torch.bfloat16
        torch.testing.assert_close(short.float(), pooled.detach(), rtol=0.02, atol=0.02)

encoder = BlurPoolEncoder(clip=ClipShape(2, 3, 16, 24), channels=(4, 5, 6))
frames = torch.rand(2, 3, 16, 24)
plain = encoder(frames)
plain.square().sum().backward()
gradients = [each.grad.clone() for each in encoder.parameters()]
encoder.zero_grad()
larger = torch.rand(2, 3, 20, 24)  # than the stack was built for
unlike = encoder(larger)
blurred_stack._kernels = lambda pictures: blur_kernels
assert torch.equal(encoder(larger), unlike)
found = encoder(frames)
found.square().sum().backward()
torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
for parameter, gradient in zip(encoder.parameters(), gradients):
    torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
assert encoder(frames[:0]).shape == (0, encoder.feature_dim)

right = blur_kernels.band_product
blur_kernels.band_product = lambda x, matrix, band: right(x.flip(1), matrix, band)
try:
    blur_kernels.check(torch.device("cpu"))
except ArithmeticError:
    print("checked", file=sys.stderr)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_kernel_of_a_blur_is_the_pool(run_python):
    assert "checked" in run_python(INTERPRETED, TRITON_INTERPRET="1").stderr


class Dtypes(TorchDispatchMode):
    """Notes the type of what every operation is given first."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if args and isinstance(args[0], torch.Tensor):
            self.seen.setdefault(func.overloadpacket.__name__, set()).add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_blurpool_works_in_the_precision_of_its_pictures(kind, stride):
    torch.manual_seed(0)
    pool = BlurPool(6, filt_size=4, stride=stride)
    stack = BlurredStack(pool, frames=torch.zeros(1, 6, 9, 12))
    ours = torch.rand(3, 6, 9, 12).to(kind).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind is torch.bfloat16):
        with Dtypes() as dtypes:
            blurred = stack(ours)
        plain = pool(theirs)
    assert dtypes.seen["reflection_pad2d"] == dtypes.seen["convolution"] == {kind}
    assert torch.equal(blurred, plain)
    upstream = torch.randn_like(blurred)
    blurred.backward(upstream)
    plain.backward(upstream)
    near = 0.0 if kind is torch.float32 else 0.01
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=near, atol=near)


@pytest.mark.parametrize("encoder", [BlurPoolEncoder, ReleasedBlurPoolEncoder])
def test_checkpoints_hold_the_filters_and_not_what_follows_from_them(encoder):
    names = encoder(clip=CLIP).state_dict()
    assert sum(name.endswith("filt") for name in names) == 4
    assert not [name for name in names if "rows" in name or "columns" in name]


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(
    ("kind", "near", "steep"), [(torch.float32, 1e-4, 1e-4), (torch.bfloat16, 0.02, 0.1)]
)
@pytest.mark.parametrize(
    ("encoder", "width"), [(BlurPoolEncoder, 80), (ReleasedBlurPoolEncoder, 64)]
)
def test_a_gpu_encodes_as_a_processor_does(encoder, width, kind, near, steep, kernels, monkeypatch):
    if not kernels:
        monkeypatch.setattr(blurred_stack, "_kernels", lambda pictures: None)
    torch.manual_seed(0)
    here = encoder(clip=ClipShape(8, 3, 64, width))
    there = copy.deepcopy(here).cuda()
    frames = torch.rand(3, 3, 64, width)
    features = here(frames)
    with torch.autocast("cuda", torch.bfloat16, enabled=kind is torch.bfloat16):
        found = there(frames.cuda()).float()
    upstream = torch.randn_like(features)
    found.backward(upstream.cuda())
    features.backward(upstream)
    assert (found.cpu() - features).norm() <= near * features.norm()
    for mine, theirs in zip(there.parameters(), here.parameters(), strict=True):
        assert (mine.grad.cpu() - theirs.grad).norm() <= steep * theirs.grad.norm()
    if kernels:
        assert blurred_stack._kernels(torch.zeros(1, device="cuda")) is not None


def _tinted(levels, channels=3):
    """Clips whose channels mostly say how bright it is, and a little more by ``levels``."""
    torch.manual_seed(0)
    bright = torch.rand(6, 4, 1, 64, 64)
    tints = torch.rand(6, 4, channels, 64, 64) * torch.tensor(levels).view(-1, 1, 1)
    return 0.7 * bright + tints


def test_decorrelated_colours_reach_the_first_convolution_equally_varied():
    torch.manual_seed(1)
    clip = _tinted([0.3, 0.1, 0.2])
    encoder = BlurPoolEncoder(clip=CLIP, first_colours="decorrelated")
    first = encoder.layers[0]
    before = first.weight.detach().clone()
    encoder.meet(clip)
    # the map from old weights to new, found without knowing how it was made
    maps = np.linalg.lstsq(
        before.movedim(1, -1).flatten(0, -2).numpy(),
        first.weight.detach().movedim(1, -1).flatten(0, -2).numpy(),
        rcond=None,
    )[0]
    pixels = clip.movedim(2, -1).flatten(0, -2).numpy()
    seen, was = np.cov((pixels @ maps).T), np.cov(pixels.T)
    np.testing.assert_allclose(seen, np.eye(3) * np.trace(was) / 3, atol=1e-4)
    assert np.abs(np.corrcoef(pixels.T)[0, 1]) > 0.8  # there was something to undo
    np.testing.assert_allclose(maps, maps.T, atol=1e-4)  # zero-phase: red stays mostly red


@pytest.mark.parametrize(
    ("clip", "channels"),
    [
        pytest.param(_tinted([0.0, 0.0, 0.0]), 3, id="grey"),
        pytest.param(torch.full((2, 4, 3, 64, 64), 0.5), 3, id="one colour"),
        pytest.param(_tinted([0.1], channels=1), 1, id="one channel"),
    ],
)
def test_where_there_are_no_colours_decorrelating_does_no_harm(clip, channels):
    torch.manual_seed(1)
    shape = ClipShape(4, channels, 64, 64)
    encoder = BlurPoolEncoder(clip=shape, first_colours="decorrelated")
    plain = copy.deepcopy(encoder)
    encoder.meet(clip)
    frames = clip.flatten(0, 1)
    # brightness keeps its place as grey pictures hold it: the features differ by a factor
    ours, theirs = encoder(frames), plain(frames)
    factor = (ours * theirs).sum() / theirs.square().sum()
    assert 0.5 < factor < 2
    torch.testing.assert_close(ours, factor * theirs, rtol=1e-3, atol=1e-3)


def test_colours_stay_as_they_are_by_default():
    encoder = BlurPoolEncoder(clip=CLIP)
    before = copy.deepcopy(encoder.state_dict())
    encoder.meet(_tinted([0.3, 0.1, 0.2]))
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_a_backbone_that_normalises_over_a_batch_says_what_one_frame_lacks():
    encoder = TimmEncoder(clip=ClipShape(4, 3, 32, 32), backbone="resnet10t")
    assert encoder.eval()(torch.rand(1, 3, 32, 32)).shape == (1, encoder.feature_dim)
    with pytest.raises(UsageError, match="does not train on a single frame") as refused:
        encoder.train()(torch.rand(1, 3, 32, 32))
    assert "batch_size" in refused.value.hint
