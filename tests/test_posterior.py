"""Draws, and refitted guides."""

import gc
import re

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import (
    MLP,
    VAE,
    Conditional,
    Delta,
    GaussianMixture,
    MultivariateNormal,
    Normal,
    Program,
    StandardNormal,
    data_given,
    diagnose,
    log_evidence,
    log_weights,
    posterior_predictive,
    prior_predictive,
    refit_guide,
    to_datatree,
)
from ppl_vae.data import LinearGaussian

WORLD = LinearGaussian.random(2, 3, seed=0)
EXACT = Program(WORLD.model, WORLD.guide)


def test_posterior_draws_have_the_exact_moments():
    x, _ = WORLD.sample(5, seed=1)
    draws = posterior_predictive(EXACT, x, 20_000, seed=0)
    exact = WORLD.posterior(x)
    z = draws.latents["z"]
    # 10 means of 20,000 draws: z-scores below 4.5 (false alarm 7e-5); variances to 4.5 relative SE
    # sqrt(2/20000) = 1 %.
    assert ((z.mean(0) - exact.mean) / (exact.stddev / 20_000**0.5)).abs().max() < 4.5
    assert (z.var(0) / exact.variance - 1).abs().max() < 0.045
    # x' = W z + b + noise, so its mean is that of E[x|z].
    assert torch.allclose(draws.data["x"].mean(0), draws.means["x"].mean(0), atol=4.5 * 0.5 / 141)


def test_prior_draws_have_the_worlds_moments():
    x, _ = WORLD.sample(5, seed=1)
    draws = prior_predictive(EXACT, 50_000, like=x, seed=0)
    assert draws.data["x"].shape == (50_000, 3)
    covariance = WORLD.weight @ WORLD.weight.T + 0.25 * torch.eye(3)
    # Entries of a covariance of 50,000 draws: SE at most var·sqrt(2/50000) = 0.6 % of the largest.
    error = torch.cov(draws.data["x"].T) - covariance
    assert error.abs().max() < 5 * 0.0063 * covariance.diagonal().max()


def test_data_given_latents_follow_the_decoder():
    x, _ = WORLD.sample(5, seed=1)
    z = torch.randn(7, 2, dtype=torch.float64)
    draws = data_given(EXACT, z, like=x, seed=0)
    assert torch.equal(draws.latents["z"], z)
    assert torch.allclose(draws.means["x"], WORLD.decoder(z).mean)
    with pytest.raises(ValueError, match="expected a tensor for each of"):
        data_given(EXACT, {"w": z}, like=x)


def test_a_refitted_guide_reaches_the_exact_posterior_and_leaves_the_model():
    x, _ = WORLD.sample(300, seed=1)
    vae = VAE(
        StandardNormal(2),
        Conditional(
            lambda i, o: nn.Sequential(nn.Linear(i, o), nn.BatchNorm1d(o)), Normal(3), given=2
        ),
        Conditional(MLP(), Delta(2), given=3),
    )
    vae.train()
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    fresh = refit_guide(vae, x.float(), net=MLP(16), epochs=3, progress=False)
    assert all(torch.equal(before[k], v) for k, v in vae.state_dict().items())
    assert vae.training and all(p.grad is None for p in vae.parameters())
    assert np.isfinite(log_evidence(fresh, x.float(), 50, seed=0).log_evidence).all()

    bad = Program(WORLD.model, WORLD.broken_guide(scale=3.0))
    fresh = refit_guide(
        bad, x, net=MLP(), epochs=250, batch_size=100, learning_rate=5e-2, progress=False
    )
    truth = WORLD.log_evidence(x).numpy()
    result = log_evidence(fresh, x, 1000, seed=0)
    # log p̂ is too low by half its variance, and its mean over data has an error: 5 of them.
    bias, error = (result.se**2).mean() / 2, np.sqrt((result.se**2).sum()) / len(x)
    assert abs((truth - result.log_evidence).mean() - bias) < 5 * error
    # A linear map with a constant covariance is the exact posterior, so only training is left of
    # KL(q, p), the mean of log p(x) - log w. 0.02 nats is a q 0.2 standard deviations off in one
    # direction, KL = d²/2; the guide replaced was off by 2 (9/2 - 1/2 - log 3) = 5.8 nats.
    assert 0 <= (truth - log_weights(fresh, x, 1000, seed=0).numpy()).mean() < 0.02


def test_a_refitted_guide_tells_its_training_and_leaves_the_store():
    x, _ = WORLD.sample(40, seed=1)
    store = pyro.get_param_store()
    before = set(store.keys())
    fresh = refit_guide(EXACT, x, net=MLP(4), epochs=3, progress=False)
    assert len(fresh.history["elbo"]) == 3
    again = refit_guide(EXACT, x, net=MLP(4), epochs=1, progress=False)
    assert set(store.keys()) > before
    del fresh, again
    gc.collect()
    assert set(store.keys()) == before


def test_a_refitted_guide_is_joint_over_several_latents_and_bounded_supports():
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            b = pyro.sample("b", dist.Gamma(torch.tensor(2.0), 1.0))
            pyro.sample("x", dist.Normal(a.sum(-1) + b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("b", dist.Gamma(torch.tensor(2.0), 1.0))

    x = torch.randn(200) + 2
    program = Program(model, guide)
    fresh = refit_guide(program, x, net=MLP(32), epochs=60, learning_rate=5e-3, progress=False)
    plain, refitted = (log_evidence(p, x, 2000, seed=0) for p in (program, fresh))
    # Both estimate one evidence: the prior as guide with a large error, the refitted with a small.
    sure = plain.quantified
    z = (plain.log_evidence - refitted.log_evidence) / np.hypot(plain.se, refitted.se)
    assert sure.mean() > 0.5 and np.abs(z[sure]).max() < 5
    assert np.median(refitted.se) < np.median(plain.se)


def refitted(model, *data):
    """Log weights under a guide that is fitted afresh, in a few steps."""

    def guide(x, *_):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(torch.tensor(0.0), 1.0))

    fast = {"net": MLP(4), "epochs": 1, "batch_size": 1024, "progress": False}
    return log_weights(refit_guide(Program(model, guide), data, **fast), data, 5, seed=0)


def test_a_refitted_guide_that_learns_from_no_draws_of_the_model_says_so():
    def model(x, *same):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x if same else x.log())

    x = torch.rand(40) + 0.1
    for data in ((x,), (x, x)):  # what is observed is no argument, or one of two
        with pytest.warns(UserWarning, match="or several, that are 'x' as the model.*Try a model"):
            assert refitted(model, *data).isfinite().all()

    def far(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(1e9 + z, 1e9), obs=x)

    with pytest.warns(UserWarning, match="Got 0 of 4096 draws of the model near the data"):
        assert refitted(far, torch.randn(40)).isfinite().all()


@pytest.mark.parametrize(
    ("spread", "loc"),
    [
        (40.0, lambda z: z.log().clamp(-50, 50)),  # float32 ends at e^±88: 3 % of z
        (4.0, lambda z: z.log().where(z < 1e4, torch.inf)),  # z > e^9.2: 1 % of x
        (4.0, lambda z: z.log().where(z < 1e4, 1e25)),  # finite, but for their squares
    ],
    ids=["z", "x", "large x"],
)
def test_a_refitted_guide_learns_from_those_draws_that_are_near(spread, loc):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(torch.tensor(0.0), spread))
            pyro.sample("x", dist.Normal(loc(z), 1.0), obs=x)

    assert refitted(model, torch.randn(40)).isfinite().all()


@pytest.fixture
def table():
    x, _ = WORLD.sample(40, seed=1)
    return pd.DataFrame(x.numpy(), columns=["length", "width/2", "mass"])


def test_too_few_draws_for_k_hat_are_said(table):
    with pytest.warns(UserWarning, match="num_samples=24, too few for a k-hat.*Try 25"):
        log_evidence(EXACT, table, 24, seed=0)
    log_evidence(EXACT, table, 25, seed=0)
    few, enough = (diagnose(EXACT, table, num_samples=s, budget=0) for s in (24, 25))
    assert "k-hat not known: it takes 25 draws" in repr(few) and "k-hat >" not in repr(few)
    assert any("k-hat" in note for note in few.notes)
    assert "k-hat > 0.28 for" in repr(enough) and not any("k-hat" in note for note in enough.notes)


def infinite(h):  # from 89 on; Pyro lets a scale of infinity pass
    return h.exp()


def undefined(h):
    return h.exp() / h.exp()


OF_DATA = [log_evidence, diagnose, to_datatree, refit_guide]


@pytest.mark.parametrize(
    ("ask", "spread"),
    [
        *[(ask, spread) for ask in OF_DATA for spread in (infinite, undefined)],
        (lambda program, x: posterior_predictive(program, x, 5), undefined),
    ],
)
def test_data_of_another_scale_are_named_by_row_and_site(ask, spread):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, spread(x.abs())), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, spread(x.abs())))

    x = torch.linspace(-1.0, 1.0, 1100)
    x[1087] = 1000.0  # beyond the head that shows what a program is made of
    with pytest.raises(ValueError) as refusal:
        ask(Program(model, guide), x)
    message = str(refusal.value)
    assert re.search(
        r"not finite, first at row 1087, site '[xz]'.*expected.*scaled as.*Try", message
    )
    assert len(message) < 400 and refusal.value.__suppress_context__


def test_errors_of_another_kind_stay_what_they_are():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2).double(), -1.0).to_event(1))

    x, _ = WORLD.sample(5, seed=1)
    with pytest.raises(ValueError, match="Expected parameter scale"):
        log_evidence(Program(WORLD.model, guide), x)


def test_a_guide_that_ignores_x_has_no_active_units():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))

    x, _ = WORLD.sample(1000, seed=1)
    # Means of 20 draws vary by 1/20, 5 times the threshold; once that is subtracted, by an error
    # of 1/20 sqrt(2/1000) = 0.0022, a 4.5th of it.
    assert diagnose(Program(WORLD.model, guide), x, num_samples=20, budget=0).active.count == 0
    assert diagnose(EXACT, x, num_samples=20, budget=0).active.count == 2


def test_mixture_priors_and_full_guides_give_draws():
    vae = VAE(
        GaussianMixture(torch.randn(3, 2), learned=True),
        Conditional(MLP(4), Normal(3), given=2),
        Conditional(MLP(4), MultivariateNormal(2), given=3),
    )
    draws = prior_predictive(vae, 5, like=torch.zeros(1, 3), seed=0)
    assert draws.latents["z"].shape == (5, 2) and draws.means["x"].shape == (5, 3)
