"""Clusters: p(k|x) in a world where it is known."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Conditional,
    GaussianMixture,
    Normal,
    Program,
    StandardNormal,
    clusters,
    log_evidence,
)
from ppl_vae.distributions import MixtureOfNormals

WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
LOC = torch.tensor([[-2.0], [0.0], [1.5]], dtype=torch.float64)
SCALE = torch.tensor([[0.5], [1.0], [0.3]], dtype=torch.float64)
NOISE = 0.7


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", MixtureOfNormals(WEIGHTS.log(), LOC, SCALE))
        pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.5).to_event(1))


def test_responsibilities_are_bayes_rule():
    z = torch.randn(50, 1, dtype=torch.float64)
    found = MixtureOfNormals(WEIGHTS.log(), LOC, SCALE).responsibilities(z)
    joint = WEIGHTS * dist.Normal(LOC[:, 0], SCALE[:, 0]).log_prob(z).exp()
    assert torch.allclose(found, joint / joint.sum(-1, keepdim=True), atol=1e-12)


def test_they_are_exact_in_a_gaussian_world():
    torch.manual_seed(0)
    x = 2 * torch.randn(30, 1, dtype=torch.float64)
    draws = 20_000
    found = clusters(Program(model, guide), x, draws, seed=0)
    joint = WEIGHTS * dist.Normal(LOC[:, 0], (SCALE[:, 0] ** 2 + NOISE**2).sqrt()).log_prob(x).exp()
    exact = joint / joint.sum(-1, keepdim=True)
    assert np.allclose(found.sum(1), 1)
    assert log_evidence(Program(model, guide), x, draws, seed=0).ess.min() > draws / 8
    # Shares lie in [0, 1]: sd ≤ 1/2; an eighth or more of the draws count; 90 numbers at 6 SE.
    assert np.abs(found - exact.numpy()).max() < 6 * 0.5 / (draws / 8) ** 0.5


def test_another_prior_is_refused():
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(8), Bernoulli(6), given=2),
        Conditional(MLP(8), Normal(2), given=6),
    )
    with pytest.raises(ValueError, match="expected one latent from a mixture of Normals"):
        clusters(vae, torch.zeros(4, 6))
    mixed = VAE(GaussianMixture(torch.randn(3, 2)), vae.decoder, vae.encoder)
    assert clusters(mixed, torch.zeros(4, 6), 10).shape == (4, 3)
