"""The ELBO of a model and guide, term by term, with analytic KL where the densities have one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn import functional

#: below it the first terms of their series are nearer to a continuous Bernoulli's mean and
#: normaliser than differences and quotients of other terms
_SMALL_LOGIT = 0.05


class Latent(NamedTuple):
    """What a latent site was drawn from, and the draw."""

    posterior: Any
    draw: Tensor


def elbo_terms(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *arguments: Any,
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Latent]]:
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
        (with the sites' scales), and without the scales; and one from latent site to its posterior
        and draw.
    """
    guide_trace = poutine.trace(guide).get_trace(*arguments)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*arguments)
    posteriors: Mapping[str, Any] = guide_trace.nodes
    sites: Mapping[str, Any] = model_trace.nodes
    scaled: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    drawn: dict[str, Latent] = {}
    for name, site in sites.items():
        if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
            continue
        if site["is_observed"]:
            term = -site["fn"].log_prob(site["value"]).sum()
        else:
            posterior = posteriors[name]["fn"]
            term = kl_divergence(posterior, site["fn"]).sum()
            drawn[name] = Latent(posterior, site["value"])
        plain[name] = term.detach()
        scaled[name] = term * site["scale"]
    return scaled, plain, drawn


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


class _Pixels(dist.Normal):
    """A normal of one scale for all pixels, of which no square and no logarithm is taken twice."""

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale, validate_args=validate_args)
        self._one = scale

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Returns the density of more pixels of the same scale."""
        return _Pixels(self.loc.expand(batch_shape), self._one, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log density of every pixel, to the digit that of ``Normal``."""
        constant = math.log(math.sqrt(2 * math.pi))
        far = (value - self.loc) ** 2
        found: Tensor = -far / (2 * self._one**2) - self._one.log() - constant
        return found


def pixel_density(likelihood: str, logits: Tensor, pixel_scale: float) -> Any:
    """Returns the density of pixels: ``bernoulli``, ``continuous-bernoulli`` or ``gaussian``.

    Its mean, in [0, 1], is what a clip looks like.
    """
    if likelihood == "bernoulli":
        # validation off: grey values are no coin flips (a continuous relaxation)
        return dist.Bernoulli(logits=logits, validate_args=False)
    if likelihood == "continuous-bernoulli":
        return _ContinuousBernoulli(logits=logits, validate_args=False)
    return _Pixels(torch.sigmoid(logits), logits.new_full((), pixel_scale), validate_args=False)


def total(terms: dict[str, Tensor]) -> Tensor:
    """Returns the sum of all terms: the loss, before the mean over clips."""
    return torch.stack(list(terms.values())).sum()


def normal(loc: Tensor, scale: Tensor | float, event_dims: int) -> Any:
    """Returns a normal whose last ``event_dims`` dimensions are one event."""
    if isinstance(scale, float):  # filled there: given a number, torch would wait for the device
        scale = loc.new_full((), scale)
    density: Any = dist.Normal(loc, scale, validate_args=False)
    return density.to_event(event_dims)
