"""What identity pairs say of codes: how alike poses are, and how well s tells people apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vdsm_bench.models.vdsm.objective import Latent

#: of the kernels that compare codes, in mean squared distances
_WIDTHS = (0.1, 0.3, 1.0)


def idle_arguments(
    likeness: float, reward: float, identity_from: str, *, paired: bool
) -> list[str]:
    """Returns which of VDSM's arguments can do nothing, each with the reason.

    Args:
        likeness: ``pose_likeness``.
        reward: ``identity_reward``.
        identity_from: ``clip`` or ``partner``.
        paired: whether clips come in identity pairs in ``pretrain``.
    """
    asked = {
        "identity_from=partner": identity_from == "partner",
        f"pose_likeness={likeness:g}": likeness > 0,
        f"identity_reward={reward:g}": reward > 0,
    }
    idle = [] if paired else [name for name, on in asked.items() if on]
    found = [f"{name} does nothing: 'pretrain' has no identity pairs" for name in idle]
    if paired and reward and identity_from == "clip":
        found.append(f"identity_reward={reward:g} does nothing: identity_from is not partner")
    return found


def pair_terms(
    drawn: Mapping[str, Latent], likeness: float, reward: float, *, joined: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Computes what codes of identity pairs add to the loss of a batch.

    Args:
        drawn: of the latent sites, clip i and clip N + i being of one identity.
        likeness: weight per frame of :func:`pair_likeness` of the poses.
        reward: weight per clip of :func:`pair_information` of s.
        joined: the two clips of a pair came as one, frames of the first before the second's; then
            they have one s, and nothing is told of it.

    Returns:
        The terms of the loss, sums over the batch; and the plain figures by their names in
        ``train.jsonl``.
    """
    paid, told = {}, {}
    if "z" in drawn:
        pose = drawn["z"].draw
        alike = pair_likeness(torch.cat(pose.chunk(2, dim=1)) if joined else pose)
        told["pose_likeness"] = alike.detach()
        if likeness:
            paid["likeness"] = likeness * pose.shape[:2].numel() * alike
    if reward and not joined:
        density = drawn["s"].posterior.base_dist
        nats = pair_information(density.loc, density.scale)
        told["identity_nats"] = nats.detach()
        paid["reward"] = -reward * density.loc.shape[0] * nats
    return paid, told


def pair_likeness(codes: Tensor) -> Tensor:
    """Estimates the share of a code's variance that is between identities, from pairs of clips.

    The intraclass correlation (Fisher 1925) in the feature space of Gaussian kernels k, where a
    clip is the mean of its frames' features (Gretton et al. 2012, "A kernel two-sample test"): how
    near, on average, two clips of one identity are, over how near a clip is to itself, both less
    how near clips of different pairs are. 1 where an identity's clips have one code, 0 where
    their codes are no more alike than anybody's, below it where they differ more. The kernels see
    every difference between the identities' distributions, and not that of their means alone; they
    are as wide as 0.1, 0.3 and 1 times the mean squared distance of two codes, so that the scale
    of the code does not matter. A single pair has nobody to be compared with, and gives 0.

    Args:
        codes: ``[2 N, T, K]``; clips i and N + i are of one identity.
    """
    clips, frames, _ = codes.shape
    if clips <= 2:
        return codes.new_zeros(())
    flat = codes.flatten(0, 1)
    lengths = flat.square().sum(-1)
    with torch.autocast(codes.device.type, enabled=False):  # small distances of long codes
        products = flat @ flat.t()
    far = (lengths.unsqueeze(0) + lengths.unsqueeze(1) - 2 * products).clamp(min=0.0)
    far = far / far.mean().clamp(min=1e-12)
    kernel = torch.stack([torch.exp(-far / width) for width in _WIDTHS]).mean(0)
    near = kernel.view(clips, frames, clips, frames).mean((1, 3))
    alone, pairs = torch.diagonal(near).sum(), 2 * torch.diagonal(near, clips // 2).sum()
    others = (near.sum() - alone - pairs) / (clips - 2)
    return (pairs - others) / (alone - others).clamp(min=1e-6)


def pair_information(loc: Tensor, scale: Tensor) -> Tensor:
    """Estimates how many nats a clip's code tells of the identity, from pairs of clips.

    With B the covariance of identities' codes, and W that of a code around its identity's (how two
    clips of one identity differ, plus the code's noise), the information of a normal code is
    log det(B + W) / 2 - log det(W) / 2. Every direction counts by the logarithm of its ratio of
    signal to noise: what tells some identities apart by a few dark pixels as much as a shirt.
    B + W and W are measured in the mean variance of the noise, which gets no gradient: what is
    told has to come from codes that lie apart. A single pair has nobody to be compared with: 0.

    It is float64, but on Apple's GPUs, which have none: where one clip's code lies thousands of
    times its noise away, as it may for a step, float32 keeps nothing of what the others tell.

    Args:
        loc: of the codes ``[2 N, K]``; clips i and N + i are of one identity.
        scale: standard deviations of their noise ``[2 N, K]``.
    """
    n = loc.shape[0] // 2
    if n < 2:
        return loc.new_zeros(())
    exact = loc.dtype if loc.device.type == "mps" else torch.float64
    noise = scale.detach().to(exact).square().mean(0).sqrt()
    one, other = (loc.to(exact) / noise).chunk(2)
    middle, difference = (one + other) / 2, one - other
    middle = middle - middle.mean(0)
    with torch.autocast(loc.device.type, enabled=False):
        of_clips = difference.t() @ difference / (2 * n)
        of_middles = middle.t() @ middle / (n - 1)
        unit = torch.eye(loc.shape[1], dtype=exact, device=loc.device)
        # a middle has half the variance that clips have around their identity
        both = torch.stack([unit + of_middles + of_clips / 2, unit + of_clips])
        total, within = log_determinant(both).unbind()
    return ((total - within) / 2).to(loc.dtype)


def log_determinant(matrices: Tensor) -> Tensor:
    """Returns log det of symmetric matrices ``[M, K, K]`` whose eigenvalues are 1 and more.

    By sweeps (Goodnight 1979), because LAPACK's counterparts on a GPU cannot be recorded in a
    CUDA graph.
    """
    found: Tensor = _LogDeterminant.apply(matrices)  # type: ignore[no-untyped-call]
    return found


class _LogDeterminant(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, matrices: Tensor) -> Tensor:
        swept, found = matrices.clone(), matrices.new_zeros(matrices.shape[0])
        for k in range(matrices.shape[-1]):
            # 1 and more but for rounding; where that took over, a direction stands alone
            sound = swept[:, k, k] >= 1.0
            pivot = swept[:, k, k].clamp(min=1.0)
            found += pivot.log()
            column = torch.where(sound[:, None], swept[:, :, k], 0.0)
            column[:, k] = pivot
            row = column / pivot[:, None]
            swept -= column[:, :, None] * row[:, None, :]
            swept[:, k, :] = row
            swept[:, :, k] = row
            swept[:, k, k] = -1 / pivot
        context.save_for_backward(-swept)
        return found

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (inverse,) = context.saved_tensors
        found: Tensor = gradients[0][:, None, None] * inverse
        return found
