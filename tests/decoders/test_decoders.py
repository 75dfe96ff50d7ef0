import importlib.util

import pytest
import torch
import torch.nn.functional as F

from vdsm_bench.contracts import ClipShape
from vdsm_bench.decoders import upconvolution
from vdsm_bench.decoders.mixture_of_experts import MixtureOfExpertsDecoder
from vdsm_bench.decoders.single import SingleDecoder
from vdsm_bench.errors import UsageError
from vdsm_bench.registry import load_registry


def _plain(inputs, weights, biases):
    """Frames ``[T, K]`` through torch's own transposed convolutions."""
    x = inputs[:, :, None, None]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        kernel = weight.permute(0, 3, 1, 2)
        if layer:
            x = F.conv_transpose2d(F.leaky_relu(x, 0.01), kernel, bias, stride=2, padding=1)
        else:
            x = F.conv_transpose2d(x, kernel, bias)
    return x


@pytest.mark.parametrize(
    ("n", "t", "k", "size", "widths"),
    [
        (3, 4, 5, 64, (6, 5, 4, 3)),
        (1, 1, 1, 32, (4, 3, 2)),
        (2, 3, 2, 8, (4,)),
    ],
)
def test_blended_weights_equal_blending_by_hand(n, t, k, size, widths):
    torch.manual_seed(0)
    clip = ClipShape(t, 3, size, size)
    decoder = MixtureOfExpertsDecoder(clip=clip, pose_dim=7, identity_dim=k, widths=widths).double()
    pose = torch.randn(n, t, 7, dtype=torch.double)
    w = torch.softmax(torch.randn(n, k, dtype=torch.double), -1)
    for biases in decoder.biases:
        torch.nn.init.normal_(biases)
    logits = decoder.logits(pose, w)
    assert logits.shape == (n, t, 3, size, size)
    for b in range(n):
        weights = [sum(w[b, e] * bank[..., e] for e in range(k)) for bank in decoder.weights]
        biases = [sum(w[b, e] * bank[..., e] for e in range(k)) for bank in decoder.biases]
        inputs = torch.cat([pose[b], w[b].expand(t, -1)], -1)
        torch.testing.assert_close(logits[b], _plain(inputs, weights, biases))


def test_single_decoder_equals_plain_transposed_convolutions():
    torch.manual_seed(0)
    decoder = SingleDecoder(
        clip=ClipShape(4, 3, 32, 32), pose_dim=5, identity_dim=3, widths=(6, 5, 4)
    )
    pose, w = torch.randn(2, 4, 5), torch.softmax(torch.randn(2, 3), -1)
    for b in range(2):
        inputs = torch.cat([pose[b], w[b].expand(4, -1)], -1)
        expected = _plain(inputs, list(decoder.weights), list(decoder.biases))
        torch.testing.assert_close(decoder.logits(pose, w)[b], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("widths", [[0, 8], [8, -8], []])
@pytest.mark.parametrize("name", ["mixture-of-experts", "single"])
def test_widths_that_cannot_be_are_refused_before_anything_is_built(name, widths):
    with pytest.raises(UsageError, match=f"decoders/{name}: argument 'widths'"):
        load_registry().check_arguments("decoders", name, {"widths": widths})


@pytest.mark.parametrize("outside", [3, 16])  # made as planes, and channels last
@pytest.mark.parametrize(("n", "t", "side"), [(2, 3, 4), (1, 1, 1), (3, 1, 2)])
@pytest.mark.parametrize("groups", ["own", "shared"])
@pytest.mark.parametrize("together", [1, 2])  # clips; of three the last comes alone
def test_upconvolve_equals_leaky_relu_and_conv_transpose(
    outside, n, t, side, groups, together, monkeypatch
):
    monkeypatch.setattr(
        upconvolution, "_CACHE_BYTES", together * t * side**2 * 16 * outside * torch.double.itemsize
    )
    torch.manual_seed(0)
    g = n if groups == "own" else 1
    x = torch.randn(n, t, side, side, 5, dtype=torch.double, requires_grad=True)
    weight = torch.randn(g, 5, 4, 4, outside, dtype=torch.double, requires_grad=True)
    bias = torch.randn(g, outside, dtype=torch.double, requires_grad=True)
    ours = upconvolution.upconvolve(x, weight, bias, slope=0.2)
    plain = torch.stack(
        [
            F.conv_transpose2d(
                F.leaky_relu(x[b], 0.2).permute(0, 3, 1, 2),
                weight[b % g].permute(0, 3, 1, 2),
                bias[b % g],
                stride=2,
                padding=1,
            ).permute(0, 2, 3, 1)
            for b in range(n)
        ]
    )
    torch.testing.assert_close(ours, plain)
    upstream = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight, bias), upstream),
        torch.autograd.grad(plain, (x, weight, bias), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


#: what Triton's interpreter does on a processor, beside torch's own transposed convolution
INTERPRETED = """
import sys, torch
from torch.nn import functional as F
from vdsm_bench.decoders.overlap_kernels import add_up, check, cut

torch.manual_seed(0)
check(torch.device("cpu"))
for g, n, h, w, inside, c in [
    (2, 3, 4, 4, 5, 3), (1, 1, 1, 1, 2, 1), (2, 2, 3, 5, 6, 20), (1, 1, 2, 9, 3, 128),
]:
    x = torch.randn(g, n, h, w, inside)
    weight, bias = torch.randn(g, inside, 4, 4, c), torch.randn(g, c)
    patches = torch.bmm(x.flatten(1, 3), weight.view(g, inside, -1))
    ours = add_up(patches, bias, (g, n, h, w))
    plain = torch.stack([
        F.conv_transpose2d(x[k].permute(0, 3, 1, 2), weight[k].permute(0, 3, 1, 2), bias[k],
                           stride=2, padding=1).permute(0, 2, 3, 1)
        for k in range(g)
    ])
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    pictures = torch.randn_like(plain)  # cutting is the transpose of adding up
    added = add_up(patches, torch.zeros_like(bias), (g, n, h, w))
    both = (added * pictures).sum(), (patches * cut(pictures)).sum()
    torch.testing.assert_close(*both, rtol=1e-4, atol=1e-4)
    short = add_up(patches.bfloat16(), bias, (g, n, h, w))
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short.float(), plain, rtol=0.02, atol=0.05)
print("checked", file=sys.stderr)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_kernels_of_the_overlap_are_those_of_a_transposed_convolution(run_python):
    assert "checked" in run_python(INTERPRETED, TRITON_INTERPRET="1").stderr


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("outside", [3, 16, 160])  # 160: a row is more than one program writes
@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(("kind", "near"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
def test_a_gpu_upconvolves_as_a_processor_does(outside, kernels, kind, near, monkeypatch):
    if not kernels:
        monkeypatch.setattr(upconvolution, "_kernels", lambda pictures: None)
    torch.manual_seed(0)
    given = torch.randn(3, 2, 4, 4, 5), torch.randn(3, 5, 4, 4, outside), torch.randn(3, outside)
    upstream = torch.randn(3, 2, 8, 8, outside)

    def found(device, dtype):
        x, weight, bias = (each.to(device).requires_grad_() for each in given)
        made = upconvolution.upconvolve(x.to(dtype), weight.to(dtype), bias, slope=0.2)
        return made, *torch.autograd.grad(made, (x, weight, bias), upstream.to(made))

    for mine, theirs in zip(found("cuda", kind), found("cpu", torch.float32), strict=True):
        assert (mine.float().cpu() - theirs).norm() <= near * theirs.norm()
    if kernels:
        assert upconvolution._kernels(torch.zeros(1, device="cuda")) is not None


@pytest.mark.parametrize("kind", [MixtureOfExpertsDecoder, SingleDecoder])
def test_bfloat16_products_keep_logits_and_gradients_near(kind):
    torch.manual_seed(0)
    decoder = kind(clip=ClipShape(4, 3, 32, 32), pose_dim=5, identity_dim=3, widths=(32, 16, 16))
    pose, w = torch.randn(2, 4, 5), torch.softmax(torch.randn(2, 3), -1)
    target = torch.rand(2, 4, 3, 32, 32)

    def measure():
        logits = decoder.logits(pose, w)
        loss = F.binary_cross_entropy_with_logits(logits.float(), target)
        return logits, torch.autograd.grad(loss, list(decoder.parameters()))

    exact, exact_grads = measure()
    with torch.autocast("cpu", torch.bfloat16):
        near, near_grads = measure()
    assert near.dtype is torch.bfloat16
    assert all(grad.dtype is torch.float32 for grad in near_grads)
    for a, b in zip([near, *near_grads], [exact, *exact_grads], strict=True):
        assert (a - b).norm() < 0.1 * b.norm()


def test_experts_are_blended_in_float32_where_products_are_not():
    torch.manual_seed(0)
    decoder = MixtureOfExpertsDecoder(
        clip=ClipShape(4, 3, 16, 16), pose_dim=5, identity_dim=3, widths=(8, 8)
    )
    w = torch.softmax(torch.randn(2, 3), -1)
    with torch.autocast("cpu", torch.bfloat16):
        blended = decoder.blend(w)
    for made, bank in zip(blended, zip(decoder.weights, decoder.biases, strict=True), strict=True):
        for one, experts in zip(made, bank, strict=True):
            torch.testing.assert_close(one, torch.einsum("bk,...k->b...", w, experts))


@pytest.mark.parametrize("start", ["kept-scale", "shared-base", "own-scale"])
def test_the_scale_of_an_even_blend_at_the_start(start):
    torch.manual_seed(0)
    clip = ClipShape(8, 3, 32, 32)
    sizes = {"pose_dim": 16, "identity_dim": 40, "widths": (64, 32, 16)}
    blended = MixtureOfExpertsDecoder(clip=clip, start=start, **sizes)
    single = SingleDecoder(clip=clip, pose_dim=16, identity_dim=40, widths=(64, 32, 16))
    pose, w = torch.randn(8, 8, 16), torch.full((8, 40), 1 / 40)
    ratio = (blended.logits(pose, w).std() / single.logits(pose, w).std()).item()
    assert (0.7 < ratio < 1.4) == (start != "own-scale")


@pytest.mark.parametrize(
    ("side", "widths", "hint"),
    [
        (32, (8, 8, 8, 8), "give 3 widths: --set model.decoder.widths=[...]"),
        (33, (8, 8, 8), "--set data.image_size=32"),
        (40, (8,), "--set data.image_size=32, and give 3 widths"),
        (48, (8, 8, 8, 8), "--set data.image_size=32, and give 3 widths"),
        (28, (8, 8, 8), "--set data.image_size=16, and give 2 widths"),
    ],
)
def test_wrong_frame_size_says_what_to_give(side, widths, hint):
    made = 4 * 2 ** len(widths)
    with pytest.raises(UsageError, match=f"make {made} x {made} frames, not {side}") as raised:
        MixtureOfExpertsDecoder(
            clip=ClipShape(4, 3, side, side), pose_dim=3, identity_dim=2, widths=widths
        )
    assert raised.value.hint.startswith(hint)


@pytest.mark.parametrize("kind", [MixtureOfExpertsDecoder, SingleDecoder])
def test_the_start_of_torch_is_that_of_its_transposed_convolutions(kind):
    torch.manual_seed(0)
    clip = ClipShape(2, 3, 32, 32)
    decoder = kind(clip=clip, pose_dim=9, identity_dim=6, widths=(24, 16, 8), start="torch")
    for weight, bias, outside in zip(decoder.weights, decoder.biases, (24, 16, 8, 3), strict=True):
        reference = torch.nn.ConvTranspose2d(400, outside, 4)
        for ours, theirs in ((weight, reference.weight), (bias, reference.bias)):
            assert 0 < ours.abs().max() <= 1 / (4 * outside**0.5)
            assert theirs.abs().max() <= 1 / (4 * outside**0.5)
        assert weight.std().item() == pytest.approx(reference.weight.std().item(), rel=0.03)


@pytest.mark.parametrize("decoder", [MixtureOfExpertsDecoder, SingleDecoder])
@pytest.mark.parametrize("first_picture", ["grey", "mean"])
def test_the_first_picture_is_grey_or_of_the_mean_colour(decoder, first_picture):
    torch.manual_seed(0)
    built = decoder(
        clip=ClipShape(4, 3, 16, 16), pose_dim=5, identity_dim=3, widths=(6, 5),
        start="own-scale", first_picture=first_picture,
    )  # fmt: skip
    colour = torch.tensor([0.1, 0.6, 0.0])
    built.meet(colour.view(1, 1, 3, 1, 1).expand(2, 4, 3, 16, 16))
    drawn = built(torch.zeros(2, 4, 5), torch.full((2, 3), 1 / 3)).mean((0, 1, 3, 4))
    expected = torch.tensor([0.1, 0.6, 0.01]) if first_picture == "mean" else torch.full((3,), 0.5)
    torch.testing.assert_close(drawn, expected, rtol=0.0, atol=0.03)
