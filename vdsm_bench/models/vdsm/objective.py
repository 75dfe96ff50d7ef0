"""The ELBO of a model and guide, term by term, with analytic KL where the densities have one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.distributions import kl_divergence


def elbo_terms(
    model: Callable[..., Any], guide: Callable[..., Any], *arguments: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
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
        (with the sites' scales), and without the scales.
    """
    guide_trace = poutine.trace(guide).get_trace(*arguments)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*arguments)
    posteriors: Mapping[str, Any] = guide_trace.nodes
    sites: Mapping[str, Any] = model_trace.nodes
    scaled: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for name, site in sites.items():
        if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
            continue
        if site["is_observed"]:
            term = -site["fn"].log_prob(site["value"]).sum()
        else:
            term = kl_divergence(posteriors[name]["fn"], site["fn"]).sum()
        scaled[name] = term * site["scale"]
        plain[name] = term.detach()
    return scaled, plain


def total(terms: dict[str, Tensor]) -> Tensor:
    """Returns the sum of all terms: the loss, before the mean over clips."""
    return torch.stack(list(terms.values())).sum()
