"""The core: log weights of any program, against worlds whose evidence is known."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Conditional,
    GaussianMixture,
    Normal,
    Program,
    StandardNormal,
    UniformBox,
    log_evidence,
    log_weights,
)
from ppl_vae.data import LinearGaussian, LinearMixture, quadrature
from ppl_vae.diagnostics import evidence, log_mean_interval, three_terms
from ppl_vae.programs import weighted_at, weighted_draws

# Rounding: log p(x, z) and log q(z|x) are sums of about X + Z terms of size ≤ 1e3, each with a
# relative error of 1e-16 times a condition number ≤ 1e3: below 1e-9 with three digits to spare.
EXACT = 1e-9
BIG = 2**16  # rows of a block: small worlds are all overhead in small ones


@pytest.mark.parametrize(("latent", "observed"), [(1, 1), (2, 5), (8, 20), (20, 64)])
def test_the_exact_posterior_gives_constant_weights(latent, observed):
    world = LinearGaussian.random(latent, observed, seed=latent)
    x, _ = world.sample(50, seed=1)
    weights = log_weights(Program(world.model, world.guide), x, 20, seed=0)
    assert weights.shape == (20, 50)
    assert (weights - world.log_evidence(x)).abs().max() < EXACT


@pytest.mark.parametrize("latent", [1, 3, 8])
def test_the_exact_mixture_posterior_gives_constant_weights(latent):
    world = LinearMixture.random(latent, 6, seed=0)
    x, _ = world.sample(50, seed=1)
    weights = log_weights(Program(world.model, world.guide), x, 20, seed=0)
    assert (weights - world.log_evidence(x)).abs().max() < EXACT


def broken(world, **faults):
    return Program(world.model, world.broken_guide(**faults))


# Each of 1000 data has draws of its own, so coverage is Binomial(1000, c): the band 93-97 % holds
# c = 95 % with a false alarm of 0.4 % (2.9 sd of 0.69 %); seeds are fixed.
@pytest.mark.parametrize("latent", [2, 4])
@pytest.mark.parametrize("faults", [{"scale": 1.2}, {"scale": 1.5}, {"shift": 0.5}], ids=str)
def test_intervals_cover_the_evidence(latent, faults):
    world = LinearGaussian.random(latent, 6, seed=0)
    x, _ = world.sample(1000, seed=1)
    weights = log_weights(broken(world, **faults), x, 1000, seed=2, rows=BIG).numpy()
    lower, upper = log_mean_interval(weights, 0.95)  # every run counts: no selection on k-hat
    truth = world.log_evidence(x).numpy()
    covered = ((lower <= truth) & (truth <= upper)).mean()
    assert 0.93 <= covered <= 0.97, covered


def test_narrow_guides_get_no_interval_where_khat_is_large():
    world = LinearGaussian.random(4, 6, seed=0)
    x, _ = world.sample(300, seed=1)
    truth = world.log_evidence(x).numpy()
    given = []
    for scale in (0.9, 0.7, 0.5):
        weights = log_weights(broken(world, scale=scale), x, 1000, seed=2, rows=BIG).numpy()
        result = evidence(weights)
        large = result.khat > 0.5
        assert np.isnan(result.lower[large]).all() and np.isnan(result.upper[large]).all()
        assert not result.quantified[large].any()
        lower, upper = log_mean_interval(weights, 0.95)
        missed = ((truth < lower) | (upper < truth)).mean()
        given.append(result.quantified.mean())
        print(f"sd x {scale}: {missed:.1%} missed without selection, {given[-1]:.1%} get one")
    # The tail index of these weights is 1 - scale²: 0.19, 0.51, 0.75 (a ratio of Gaussian tails).
    assert given[0] > 0.9 and given[2] < 0.05


def test_pca_scores_its_data_as_the_linear_gaussian_world_does():
    x = np.random.default_rng(0).normal(size=(200, 6)) @ np.random.default_rng(1).normal(
        size=(6, 6)
    )
    pca = PCA(3).fit(x)
    gain = np.sqrt(pca.explained_variance_ - pca.noise_variance_)
    world = LinearGaussian(
        torch.tensor(pca.components_.T * gain),
        torch.tensor(pca.mean_),
        float(np.sqrt(pca.noise_variance_)),
    )
    weights = log_weights(Program(world.model, world.guide), x, 5, seed=0)
    assert np.abs(weights.numpy() - pca.score_samples(x)).max() < 1e-5


@pytest.mark.parametrize("faults", [{"scale": 1.3}, {"shift": 0.5}, {"scale": 0.8}], ids=str)
def test_three_terms_equal_the_exact_ones_within_their_errors(faults):
    world = LinearGaussian.random(3, 6, seed=0)
    x, _ = world.sample(400, seed=1)
    draws = weighted_draws(broken(world, **faults), x, 2000, seed=0)
    terms = three_terms(draws.log_weights.numpy(), draws.log_likelihood.numpy())
    q = world.broken_posterior(x, **faults)
    exact = {
        "reconstruction": world.reconstruction(q, x),
        "kl_prior": world.kl_prior(q),
        "kl_posterior": world.kl_posterior(q, x),
    }
    for name, truth in exact.items():
        error = (getattr(terms, name) - truth.numpy()) / getattr(terms, f"{name}_se")
        # 400 z-scores: the mean is within 4/20 of 0 but for the bias of the third (below 1 SE
        # at S = 2000), and their sd within 4 sd of sd (4/sqrt(800) = 0.14) of 1, plus skewness.
        assert abs(error.mean()) < 0.3, name
        assert 0.75 < error.std() < 1.25, name


@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.usefixtures("float64")
def test_a_bernoulli_decoder_agrees_with_quadrature(prior):
    priors = {
        "normal": StandardNormal(1),
        "mixture": GaussianMixture(
            torch.tensor([[-2.0], [1.5]]), scale=torch.tensor([[0.5], [1.0]])
        ),
    }
    vae = VAE(
        priors[prior],
        Conditional(MLP(8, activation=nn.Tanh), Bernoulli(6), given=1),
        Conditional(MLP(8, activation=nn.Tanh), Normal(1, scale=2.5), given=6),  # wide: light tails
    )
    x = torch.bernoulli(torch.full((200, 6), 0.5))
    with torch.no_grad():
        exact = quadrature(vae.prior(), vae.decoder, x, vae.posterior)
    draws = weighted_draws(vae, x, 4000, seed=0)
    weights = draws.log_weights.numpy()
    result = evidence(weights)
    truth = exact.log_evidence.numpy()
    lower, upper = log_mean_interval(weights, 0.95)
    assert result.quantified.all()
    covered = ((lower <= truth) & (truth <= upper)).mean()
    assert covered > 0.89  # 200 at 95 %: 4 binomial sd of 1.5 %, false alarm 3e-4
    terms = three_terms(weights, draws.log_likelihood.numpy())
    for name in ("reconstruction", "kl_prior", "kl_posterior"):
        # The third is biased low by what log p̂ is: its own estimate of that is added back.
        bias = result.bias if name == "kl_posterior" else 0.0
        error = getattr(terms, name) + bias - getattr(exact, name).numpy()
        z = error / getattr(terms, f"{name}_se")
        assert abs(z.mean()) < 0.3 and np.abs(z).max() < 5, name  # 4 sd of 1/sqrt(200) = 0.07


def test_the_evidence_of_a_world_in_one_dimension_is_the_quadrature():
    world = LinearMixture.random(1, 4, seed=0)
    x, _ = world.sample(20, seed=1)
    exact = quadrature(world.prior(), world.decoder, x).log_evidence
    weights = log_weights(Program(world.model, world.guide), x, 3, seed=0)
    assert (weights - exact).abs().max() < 1e-8  # the tolerance of the quadrature


def test_two_latents_in_nested_plates_have_one_weight_a_row():
    def model(x):
        with pyro.plate("cells", 3, dim=-1), pyro.plate("rows", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("inner", 3, dim=-1), pyro.plate("outer", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x / 1.25, (0.25 / 1.25) ** 0.5))

    x = torch.randn(7, 3, dtype=torch.float64)
    weights = log_weights(Program(model, guide), x, 5, seed=0)
    exact = dist.Normal(0.0, 1.25**0.5).log_prob(x).sum(-1)
    assert (weights - exact).abs().max() < 1e-5  # the scales are Python numbers: float32 inside


def mixture_model(x, mark):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Categorical(torch.tensor([0.3, 0.7]).to(x)), infer=mark)
        z = pyro.sample("z", dist.Normal(2.0 * y - 1.0, torch.ones_like(x)))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def exact_mixture(x):
    parts = [
        np.log(w) + dist.Normal(m, torch.tensor(1.25).to(x).sqrt()).log_prob(x)
        for w, m in ((0.3, -1.0), (0.7, 1.0))
    ]
    return torch.logsumexp(torch.stack(parts), 0)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("marked", ["model and guide", "guide"])
@pytest.mark.parametrize("code", [dist.Categorical, dist.OneHotCategorical])
def test_enumerated_sites_are_summed_out(rows, marked, code):
    parallel = {"enumerate": "parallel"}

    def sign(y):
        return 2.0 * (y if code is dist.Categorical else y[..., 1]) - 1.0

    def model(x):
        infer = parallel if "model" in marked else {}
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", code(torch.tensor([0.3, 0.7]).to(x)), infer=infer)
            z = pyro.sample("z", dist.Normal(sign(y), torch.ones_like(x)))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("other_name", len(x)):
            y = pyro.sample("y", code(torch.tensor([0.5, 0.5]).to(x)), infer=parallel)
            pyro.sample("z", dist.Normal((sign(y) + 4 * x) / 5, torch.full_like(x, 0.2).sqrt()))

    x = torch.randn(rows, dtype=torch.float64)
    program = Program(model, guide)
    # Given y the guide is exact, so every weight is p(x) whatever q(y): rounding only (0.3 and 0.7
    # are float32 numbers in the model: 1e-8).
    assert (log_weights(program, x, 4, seed=0) - exact_mixture(x)).abs().max() < 1e-7


def test_a_discrete_site_of_the_model_alone_is_summed_out():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x = torch.randn(5, dtype=torch.float64)
    program = Program(lambda x: mixture_model(x, {"enumerate": "parallel"}), guide)
    result = log_evidence(program, x, 20_000, seed=0)
    z = (result.log_evidence - exact_mixture(x).numpy()) / result.se
    assert np.abs(z).max() < 4  # five z-scores: false alarm 3e-4


def test_a_known_label_restricts_the_sum():
    def guide(x):
        with pyro.plate("data", len(x)):
            logits = torch.tensor([0.0, -torch.inf]).to(x)  # the label is known to be 0
            y = pyro.sample("y", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
            pyro.sample(
                "z", dist.Normal((2.0 * y - 1.0 + 4 * x) / 5, torch.full_like(x, 0.2).sqrt())
            )

    x = torch.randn(5, dtype=torch.float64)
    program = Program(lambda x: mixture_model(x, {"enumerate": "parallel"}), guide)
    exact = np.log(0.3) + dist.Normal(-1.0, torch.tensor(1.25).to(x).sqrt()).log_prob(x)
    assert (log_weights(program, x, 4, seed=0) - exact).abs().max() < 1e-7


@pytest.fixture
def small():
    torch.manual_seed(0)
    return VAE(
        StandardNormal(2),
        Conditional(MLP(8), Normal(3), given=2),
        Conditional(
            lambda i, o: nn.Sequential(nn.BatchNorm1d(i), nn.Linear(i, o)), Normal(2), given=3
        ),
    )


def test_draws_are_reproducible_and_leave_everything_as_found(small):
    x = torch.randn(10, 3)
    small.encoder.train()
    small.decoder.eval()
    stream, buffers = torch.get_rng_state(), [b.clone() for b in small.buffers()]
    store = dict(pyro.get_param_store().named_parameters())
    first, second = (log_weights(small, x, 5, seed=3) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, log_weights(small, x, 5, seed=4))
    assert torch.equal(stream, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(buffers, small.buffers(), strict=True))
    assert small.encoder.training and not small.decoder.training
    assert not first.requires_grad
    assert {id(p) for p in store.values()} <= {id(p) for p in small.parameters()}


def test_a_block_of_rows_is_what_it_says(small):
    x = torch.randn(10, 3)
    # Blocks of another size give other draws of the same law, and the same shape.
    a, b = log_weights(small, x, 400, seed=0), log_weights(small, x, 400, seed=0, rows=7)
    assert a.shape == b.shape == (400, 10)
    se = (a.var(0) / 400 + b.var(0) / 400).sqrt()
    assert ((a.mean(0) - b.mean(0)) / se).abs().max() < 4.5  # ten z-scores: false alarm 7e-5


def two_latents(x):
    with pyro.plate("rows", len(x)):
        a = pyro.sample("a", dist.Gamma(torch.tensor(2.0), 1.0))
        b = pyro.sample("b", dist.Normal(a[..., None], 1.0).expand([len(x), 3]).to_event(1))
        pyro.sample("y", dist.Normal(b, 0.5).to_event(1), obs=x)


def its_guide(x):
    with pyro.plate("rows", len(x)):
        a = pyro.sample("a", dist.Gamma(2 + x[:, 0].abs(), 1.0))
        pyro.sample("b", dist.Normal(x + a[..., None], 1.0).to_event(1))


def test_given_latents_are_scored_as_draws_are():
    x = torch.randn(7, 3)
    box = VAE(
        UniformBox(2, low=-1, high=3),
        Conditional(MLP(8), Normal(3), given=2),
        Conditional(MLP(8), Normal(2), given=3),
    )
    for program in (box, Program(two_latents, its_guide)):
        drawn = weighted_draws(program, x, 11, seed=0)
        again = weighted_at(program, x, drawn.latents, rows=5)
        for one, two in zip(again, drawn, strict=True):
            if not isinstance(one, dict):  # found again by its inverse, a z is off by rounding
                assert torch.allclose(one, two, rtol=1e-4, atol=1e-4)
        prior = drawn.log_weights + drawn.log_guide - drawn.log_likelihood
        if program is box:
            assert torch.allclose(prior, torch.full_like(prior, -2 * math.log(4)), atol=1e-4)
