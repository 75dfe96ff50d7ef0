"""The ELBO of a model and guide, term by term, with analytic KL where the densities have one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn import functional

#: of the kernels that compare codes, in mean squared distances
_WIDTHS = (0.1, 0.3, 1.0)
#: below it the first terms of their series are nearer to a continuous Bernoulli's mean and
#: normaliser than differences and quotients of other terms
_SMALL_LOGIT = 0.05


def elbo_terms(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *arguments: Any,
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Computes -E[log p(x | ...)] and the KL of every latent site from one draw (VDSM, eq. 4).

    A site's KL is analytic given the sites drawn before it; that of a path is
    sum_t E KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1})). Equal to Pyro's ``TraceMeanField_ELBO``
    on the same draw, which returns the sum alone.

    Args:
        model: Pyro model; observed sites are its likelihood.
        guide: Pyro guide with the same latent sites.
        arguments: passed to both.

    Returns:
        Two mappings from site to a sum over the batch: the terms as they enter the loss
        (with the sites' scales), and without the scales; and one from latent site to its draw.
    """
    guide_trace = poutine.trace(guide).get_trace(*arguments)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*arguments)
    posteriors: Mapping[str, Any] = guide_trace.nodes
    sites: Mapping[str, Any] = model_trace.nodes
    scaled: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    drawn: dict[str, Tensor] = {}
    for name, site in sites.items():
        if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
            continue
        if site["is_observed"]:
            term = -site["fn"].log_prob(site["value"]).sum()
        else:
            term = kl_divergence(posteriors[name]["fn"], site["fn"]).sum()
            drawn[name] = site["value"]
        plain[name] = term.detach()
        scaled[name] = term * site["scale"]
    return scaled, plain, drawn


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


class _ContinuousBernoulli(dist.ContinuousBernoulli):  # type: ignore[misc]
    """torch's, but exact where that is cut off: beyond logits of 16 its density has no gradient.

    log p(x) = x l - softplus(l) + log(l / tanh(l / 2)), with mean 1/2 + 1 / (2 tanh(l/2)) - 1/l.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log density, in nats."""
        small, x = self._apart()
        normaliser = torch.where(
            small, self.logits.square() / 12 + math.log(2), torch.log(x / torch.tanh(x / 2))
        )
        found: Tensor = value * self.logits - functional.softplus(self.logits) + normaliser
        return found

    @property
    def mean(self) -> Tensor:
        """The mean, in [0, 1]; nearer to grey than the sigmoid of the logits."""
        small, x = self._apart()
        found: Tensor = torch.where(small, self.logits / 12, 0.5 / torch.tanh(x / 2) - 1 / x)
        return 0.5 + found

    def _apart(self) -> tuple[Tensor, Tensor]:
        """Returns where logits are small, and the logits with 1 in the places of those."""
        small = self.logits.abs() < _SMALL_LOGIT
        return small, torch.where(small, 1.0, self.logits)


def pixel_density(likelihood: str, logits: Tensor, pixel_scale: float) -> Any:
    """Returns the density of pixels: ``bernoulli``, ``continuous-bernoulli`` or ``gaussian``.

    Its mean, in [0, 1], is what a clip looks like.
    """
    if likelihood == "bernoulli":
        # validation off: grey values are no coin flips (a continuous relaxation)
        return dist.Bernoulli(logits=logits, validate_args=False)
    if likelihood == "continuous-bernoulli":
        return _ContinuousBernoulli(logits=logits, validate_args=False)
    scale = logits.new_full((), pixel_scale)
    return dist.Normal(torch.sigmoid(logits), scale, validate_args=False)


def total(terms: dict[str, Tensor]) -> Tensor:
    """Returns the sum of all terms: the loss, before the mean over clips."""
    return torch.stack(list(terms.values())).sum()


def normal(loc: Tensor, scale: Tensor | float, event_dims: int) -> Any:
    """Returns a normal whose last ``event_dims`` dimensions are one event."""
    if isinstance(scale, float):  # filled there: given a number, torch would wait for the device
        scale = loc.new_full((), scale)
    density: Any = dist.Normal(loc, scale, validate_args=False)
    return density.to_event(event_dims)
