"""Which component of a mixture prior each datum belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ppl_vae.distributions import MixtureOfNormals
from ppl_vae.posterior.faults import explained
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import weighted_draws
from ppl_vae.programs.runs import probe
from ppl_vae.programs.traces import structure


@explained
def clusters(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    num_samples: int = 100,
    *,
    seed: int | None = None,
) -> NDArray[np.float64]:
    """Give p(k|x), the probability that a datum comes from each component of a mixture prior.

    The component is summed out of the program, which is p(z) = Σ_k w_k p(z|k), and comes back by
    p(k|x) = E[p(k|z)] over z ~ p(z|x), by self-normalised importance sampling from the guide. With
    a learned `GaussianMixture` this is clustering (VaDE, Jiang et al. 2017, arXiv:1611.05148,
    eq. 16, which takes z ~ q(z|x) unweighed).

    Args:
        program: A `VAE` under a `GaussianMixture`, or a `VampPrior` of a `Normal` encoder, or a
            program of your own whose one latent is a `MixtureOfNormals`.
        x: Data as `fit` takes them.
        num_samples: Draws S of z per datum.
        seed: Fork torch's random state and start here.

    Returns:
        ``(N, K)``, rows sum to 1; ``.argmax(1)`` is a label.

    Raises:
        NoDensityError: Where there are no weights.
        ValueError: If the prior is no such mixture.

    Example:
        >>> from ppl_vae import MLP, VAE, Bernoulli, Conditional, GaussianMixture, Normal
        >>> decoder = Conditional(MLP(8), Bernoulli(6), given=2)
        >>> encoder = Conditional(MLP(8), Normal(2), given=6)
        >>> vae = VAE(GaussianMixture(torch.randn(3, 2), learned=True), decoder, encoder)
        >>> clusters(vae, torch.zeros(5, 6), seed=0).shape
        (5, 3)
    """
    batch = program_batch(program, x, name="x")
    found = structure(program, batch)
    model, _ = probe(program, batch)
    site = model.nodes[found.latents[0]]
    if len(found.latents) != 1 or not isinstance(site["fn"], MixtureOfNormals):
        raise ValueError(
            f"Got a prior {type(site['fn']).__name__} at {found.latents}; expected one latent from "
            "a mixture of Normals. Try VAE(GaussianMixture(loc, learned=True), decoder, encoder)."
        )
    drawn = weighted_draws(program, batch, num_samples, seed=seed)
    weights = torch.softmax(drawn.log_weights.double(), 0)
    draws = drawn.latents[found.latents[0]]
    with torch.no_grad():  # draw by draw: all at once is (S, N, K)
        shares = sum(
            w[:, None] * site["fn"].responsibilities(z) for z, w in zip(draws, weights, strict=True)
        )
    total: NDArray[np.float64] = torch.as_tensor(shares).cpu().numpy()
    return total
