import pytest
import torch
import torch.nn.functional as F

from vdsm_bench.contracts import ClipShape
from vdsm_bench.decoders.mixture_of_experts import MixtureOfExpertsDecoder
from vdsm_bench.decoders.single import SingleDecoder
from vdsm_bench.decoders.upconvolution import overlap_add, upconvolve
from vdsm_bench.errors import UsageError


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
        weights = [sum(w[b, e] * bank[e] for e in range(k)) for bank in decoder.weights]
        biases = [sum(w[b, e] * bank[e] for e in range(k)) for bank in decoder.biases]
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


def test_overlap_add_has_the_right_gradient():
    patches = torch.randn(2, 3, 4, 4, 4, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(overlap_add, (patches,))


def test_upconvolve_gradients_equal_those_of_conv_transpose():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4, 5, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2, 5, 4, 4, 6, dtype=torch.double, requires_grad=True)
    bias = torch.randn(2, 6, dtype=torch.double, requires_grad=True)
    ours = torch.autograd.grad(upconvolve(x, weight, bias).square().sum(), (x, weight, bias))
    plain = sum(
        F.conv_transpose2d(
            x[b].permute(0, 3, 1, 2), weight[b].permute(0, 3, 1, 2), bias[b], stride=2, padding=1
        )
        .square()
        .sum()
        for b in range(2)
    )
    for a, b in zip(ours, torch.autograd.grad(plain, (x, weight, bias)), strict=True):
        torch.testing.assert_close(a, b)


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


def test_wrong_frame_size_says_what_to_give():
    with pytest.raises(UsageError, match="make 64 x 64 frames, not 32 x 32"):
        MixtureOfExpertsDecoder(
            clip=ClipShape(4, 3, 32, 32), pose_dim=3, identity_dim=2, widths=(8, 8, 8, 8)
        )
