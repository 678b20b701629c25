"""Priors: the laws of the kit, SciPy's densities, and what it means to be learned."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.nn.functional import softplus

from ppl_vae import GaussianMixture, StandardNormal
from ppl_vae.testing import check_prior

ALWAYS = ["alone", "shapes", "support", "seed", "tensors", "deepcopy", "state_dict", "dtype"]
# Three well separated components in the plane, of unequal weights and scales.
LOC = torch.tensor([[0.0, 3.0], [-4.0, -1.0], [2.0, -2.0]])
SCALE = torch.tensor([[0.5, 1.0], [1.0, 0.3], [0.7, 0.7]])
WEIGHTS = torch.tensor([1.0, 2.0, 5.0])

# Densities in float64 after moderate sums: 1e-16 * 1e3, with a factor 1e3 to spare.
EXACT = 1e-10

PRIORS = {
    "standard": lambda: StandardNormal(2),
    "one dim": lambda: StandardNormal(1, loc=3.0, scale=0.1),
    "scalar": lambda: StandardNormal(()),
    "grid": lambda: StandardNormal((2, 2), scale=torch.tensor([1.0, 5.0])),
    "ten dims": lambda: StandardNormal(10),
    "mixture": lambda: GaussianMixture(LOC, SCALE, WEIGHTS),
    "one component": lambda: GaussianMixture(torch.zeros(1, 1)),
    "five dims": lambda: GaussianMixture(torch.eye(5)[:3] * 4, 0.5),
    "learned": lambda: GaussianMixture(LOC, SCALE, WEIGHTS, learned=True),
}


@pytest.mark.parametrize("name", PRIORS)
def test_the_kit(name):
    expected = [*ALWAYS]
    expected += ["gradients"] if name == "learned" else []
    expected += ["normalised", "draws"]
    # A mixture states none; there are none from random points, in more than two dims.
    expected += ["moments"] if name in ("standard", "one dim", "scalar") else []
    assert list(check_prior(PRIORS[name]())) == expected


def test_standard_normal_is_scipys(float64):
    loc, scale, z = torch.randn(3), torch.rand(3) + 0.1, torch.randn(7, 3)
    exact = stats.norm(loc, scale).logpdf(z).sum(-1)
    log_prob = StandardNormal(3, loc=loc, scale=scale)().log_prob(z)
    assert (log_prob - torch.as_tensor(exact)).abs().max() < EXACT


@pytest.mark.parametrize("learned", [False, True])
def test_mixture_is_scipys(learned, float64):
    loc, scale = torch.randn(4, 3), torch.rand(4, 3) + 0.1
    weights, z = torch.rand(4) + 0.1, 2 * torch.randn(7, 3)
    terms = stats.norm(loc, scale).logpdf(z[:, None]).sum(-1)
    exact = special.logsumexp(terms + np.log((weights / weights.sum()).numpy()), axis=-1)
    log_prob = GaussianMixture(loc, scale, weights, learned=learned)().log_prob(z)
    assert (log_prob - torch.as_tensor(exact)).abs().max() < EXACT


def test_learned_and_fixed_start_as_the_same_prior():
    z = torch.randn(50, 2)
    fixed, learned = (GaussianMixture(LOC, SCALE, WEIGHTS, learned=k)() for k in (False, True))
    # A scale goes through softplus and back in float32: 1e-7, times (z / scale)² < 3e2.
    assert torch.allclose(fixed.log_prob(z), learned.log_prob(z), rtol=1e-4)


def test_a_learned_mixture_keeps_its_floor():
    prior = GaussianMixture(LOC, learned=True, min_scale=0.2)
    with torch.no_grad():
        prior.scale.fill_(-1e30)
    assert torch.equal(prior().scale, torch.full((3, 2), 0.2))


def test_gradient_ascent_finds_the_mean_of_the_data(float64):
    # One component at a known scale: the log-likelihood's only maximum in loc is the mean.
    data = torch.randn(200, 2) + torch.tensor([3.0, -1.0])
    prior = GaussianMixture(torch.zeros(1, 2), learned=True)
    variance = float((0.001 + softplus(prior.scale.detach()[0, 0])) ** 2)
    for _ in range(50):
        prior.zero_grad()
        prior().log_prob(data).mean().backward()
        with torch.no_grad():  # a Newton step: the curvature is 1/scale², so it lands at once
            prior.loc += variance * prior.loc.grad
    assert torch.allclose(prior.loc[0], data.mean(0), atol=1e-9)


def test_the_prior_is_the_callers_copy():
    # What is given is copied: training a prior must not change the tensor it was built from.
    loc = torch.zeros(3, 2)
    prior = GaussianMixture(loc, learned=True)
    with torch.no_grad():
        prior.loc += 1
    assert torch.equal(loc, torch.zeros(3, 2))
