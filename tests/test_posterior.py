"""Draws, refitted guides, and the door to ArviZ."""

import warnings

import arviz_plots
import arviz_stats
import matplotlib.pyplot
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
    Binomial,
    Conditional,
    Delta,
    GaussianMixture,
    MultivariateNormal,
    Normal,
    Program,
    StandardNormal,
    data_given,
    elpd,
    log_evidence,
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
    fresh = refit_guide(bad, x, net=MLP(), epochs=150, learning_rate=2e-2, progress=False)
    truth = WORLD.log_evidence(x).numpy()
    gap = truth - log_evidence(fresh, x, 1000, seed=0).log_evidence
    # A linear map with a constant covariance is the exact posterior, so only training is left.
    assert abs(gap.mean()) < 0.01


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


def test_elpd_goes_into_arviz_compare():
    x, _ = WORLD.sample(100, seed=1)
    other = LinearGaussian(WORLD.weight, WORLD.bias + 1.0, 0.5)
    table = arviz_stats.compare(
        {
            "true": elpd(log_evidence(EXACT, x, 100, seed=0)),
            "shifted": elpd(log_evidence(Program(other.model, other.guide), x, 100, seed=0)),
        }
    )
    assert list(table.index) == ["true", "shifted"]
    truth = (WORLD.log_evidence(x) - other.log_evidence(x)).sum().item()
    assert table.loc["shifted", "elpd_diff"] == pytest.approx(truth, abs=0.2)  # as compare rounds


@pytest.fixture
def table():
    x, _ = WORLD.sample(40, seed=1)
    return pd.DataFrame(x.numpy(), columns=["length", "width", "mass"])


def test_the_tree_has_named_columns_and_no_log_likelihood(table):
    tree = to_datatree(EXACT, table.astype(np.float32), num_samples=20, seed=0)
    assert set(tree["observed_data"].data_vars) == {"length", "width", "mass"}
    assert dict(tree["posterior"]["z"].sizes) == {"chain": 1, "draw": 20, "row": 40, "z_dim": 2}
    assert "log_likelihood" not in tree.children
    assert np.array_equal(tree["observed_data"]["mass"], table["mass"].astype(np.float32))


def test_images_are_stacked_in_cells_and_a_delta_guide_has_no_weights():
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(4), Binomial((8, 8), total=16), given=2),
        Conditional(MLP(4), Delta(2), given=(8, 8)),
    )
    tree = to_datatree(vae, torch.randint(0, 17, (10, 8, 8)), num_samples=3, seed=0)
    assert dict(tree["prior_predictive"]["x"].sizes) == {"chain": 1, "draw": 3, "cell": 640}
    assert "sample_stats" not in tree.children and "evidence" not in tree.children


# Third parties warn of their own: xarray of a MultiIndex that arviz-plots drops.
@pytest.mark.filterwarnings("ignore::FutureWarning:arviz_plots", "ignore::FutureWarning:xarray")
def test_arviz_takes_the_tree(table, tmp_path):
    x = torch.tensor(table.to_numpy())
    tree = to_datatree(EXACT, x, num_samples=50, columns=list(table.columns), seed=0)
    summary = arviz_stats.summary(tree, kind="stats", round_to="none")
    exact = WORLD.posterior(x)
    # 80 means of 50 draws each: z-scores below 5.
    z = (summary["mean"].to_numpy().reshape(40, 2) - exact.mean.numpy()) / exact.stddev.numpy()
    assert np.abs(z * 50**0.5).max() < 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        arviz_plots.plot_ppc_dist(tree)
        arviz_plots.plot_ppc_pit(tree)
    matplotlib.pyplot.close("all")
    tree.to_netcdf(tmp_path / "tree.nc")


def test_mixture_priors_and_full_guides_give_draws():
    vae = VAE(
        GaussianMixture(torch.randn(3, 2), learned=True),
        Conditional(MLP(4), Normal(3), given=2),
        Conditional(MLP(4), MultivariateNormal(2), given=3),
    )
    draws = prior_predictive(vae, 5, like=torch.zeros(1, 3), seed=0)
    assert draws.latents["z"].shape == (5, 2) and draws.means["x"].shape == (5, 3)
