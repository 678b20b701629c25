"""The reference posterior: exact moments, supports kept, and chains that disagree say so."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import MLP, VAE, Conditional, GaussianMixture, Normal, Program, UniformBox
from ppl_vae.data import LinearGaussian
from ppl_vae.posterior import reference_posterior

FEW = {"num_samples": 150, "warmup": 100, "num_chains": 2, "progress": False}


def test_it_draws_from_the_exact_posterior():
    world = LinearGaussian.random(2, 3, seed=0)
    x, _ = world.sample(3, seed=1)
    program = Program(world.model, world.guide)
    found = reference_posterior(program, x, **FEW, seed=0)
    exact = world.posterior(x)
    z = found.latents["z"].flatten(0, 1)
    sd = exact.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    # 6 means and 6 standard deviations, of no fewer draws than ESS says, at 5 SE: 10^-5.
    error = 5 / torch.as_tensor(found.ess).sqrt()[:, None]
    assert ((z.mean(0) - exact.loc).abs() / sd < error).all()
    assert ((z.std(0) / sd - 1).abs() < error).all()
    assert found.rhat.max() < 1.1 and found.ess.min() > 50 and found.divergences == 0


def test_latents_stay_on_their_support_and_seeds_hold():
    torch.manual_seed(0)
    vae = VAE(
        UniformBox(1, low=2, high=3),
        Conditional(MLP(4), Normal(2), given=1),
        Conditional(MLP(4), Normal(1), given=2),
    )
    x, state = torch.randn(2, 2), torch.get_rng_state()
    few = FEW | {"num_samples": 20, "warmup": 10}
    one, two = (reference_posterior(vae, x, **few, seed=3) for _ in range(2))
    z = one.latents["z"]
    assert z.shape == (2, 20, 2, 1) and ((z > 2) & (z < 3)).all()
    assert torch.equal(z, two.latents["z"]) and torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in vae.parameters())


def test_a_positive_latent_has_its_exact_posterior():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(1.0).expand([len(x)]))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(0.0, 1.0).expand([len(x)]))

    x = torch.tensor([2.0, 4.0, 9.0])
    found = reference_posterior(Program(model, guide), x, **FEW | {"num_samples": 300}, seed=0)
    z = found.latents["z"].flatten(0, 1).double().numpy()
    # Gamma(1 + x, 2). Three means at 5 SE, three sds at 5 SE times the 1.5 of the heaviest tail:
    # 10^-5. Without the Jacobian of z(u) it would be Gamma(x, 2), 0.6 sd away at the least.
    exact = torch.distributions.Gamma(1 + x, torch.tensor(2.0))
    error = 5 / np.sqrt(found.ess)
    assert (abs(z.mean(0) - exact.mean.numpy()) / exact.stddev.numpy() < error).all()
    assert (abs(z.std(0) / exact.stddev.numpy() - 1) < 1.5 * error).all()
    assert error.max() < 0.5


def test_modes_that_chains_do_not_leave_show_in_rhat():
    vae = VAE(
        GaussianMixture(torch.tensor([[-20.0], [20.0]]), scale=0.5),
        Conditional(MLP(4), Normal(2, scale=100.0), given=1),
        Conditional(MLP(4), Normal(1), given=2),
    )
    few = FEW | {"num_samples": 30, "warmup": 20, "num_chains": 4}
    found = reference_posterior(vae, torch.zeros(4, 2), **few, seed=0)
    # Four chains in one mode have the probability 1/8 each; all four data, 2·10^-4.
    assert found.rhat.max() > 1.5


def test_too_few_draws_are_refused():
    world = LinearGaussian.random(1, 2, seed=0)
    with pytest.raises(ValueError, match="num_chains=1; expected an integer of 2"):
        reference_posterior(Program(world.model, world.guide), np.zeros((2, 2)), num_chains=1)
