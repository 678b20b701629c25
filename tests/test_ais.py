"""Annealed importance sampling in worlds whose evidence is known: unbiased, from both sides."""

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
    NoDensityError,
    Normal,
    Program,
    SampledPrior,
    UniformBox,
)
from ppl_vae.data import LinearGaussian, quadrature
from ppl_vae.posterior import ais, ais_sandwich

WORLD = LinearGaussian.random(3, 5, seed=0)
X, _ = WORLD.sample(8, seed=1)
EXACT = WORLD.log_evidence(X).numpy()


def relative(found, exact):
    """Weights over p(x), whose mean is 1: errors of the mean in standard errors, ``(N,)``."""
    w = np.exp(found.log_weights - exact)
    return (w.mean(0) - 1) / (w.std(0, ddof=1) / len(w) ** 0.5)


def test_the_weights_have_the_evidence_as_their_mean():
    program = Program(WORLD.model, WORLD.guide)
    found = ais(program, X, temperatures=60, num_chains=400, leapfrog=5, seed=0, progress=False)
    # 8 means of 400 chains each at 5 SE: a false alarm once in 10^5, and skewed weights more.
    assert np.abs(relative(found, EXACT)).max() < 5
    assert (0.4 < found.acceptance).all() and (found.acceptance < 0.9).all()
    few = ais(program, X, temperatures=6, num_chains=16, leapfrog=5, seed=0, progress=False)
    # A bound: log of a mean of few wild weights falls short, by nats.
    assert (few.log_evidence - EXACT).mean() < -0.2


@pytest.mark.parametrize(
    "prior",
    [
        lambda: UniformBox(1, low=-2, high=3),
        lambda: GaussianMixture(torch.tensor([[-1.5], [2.0]]), scale=0.5),
    ],
    ids=["box", "two modes"],
)
def test_it_finds_bounds_and_modes_that_no_guide_shows(prior, float64):
    torch.manual_seed(0)
    vae = VAE(
        prior(),
        Conditional(MLP(8), Bernoulli(6), given=1),
        Conditional(MLP(8), Normal(1), given=6),
    )
    with torch.no_grad():
        vae.encoder.net[-1].bias.fill_(50.0)  # of no use
    x = torch.randint(0, 2, (5, 6)).double()
    exact = quadrature(vae.prior(), vae.decoder, x).log_evidence.detach().numpy()
    found = ais(vae, x, temperatures=40, num_chains=200, leapfrog=5, seed=0, progress=False)
    assert np.abs(relative(found, exact)).max() < 5


def test_simulated_data_are_bounded_from_both_sides():
    program = Program(WORLD.model, WORLD.guide)
    runs = [
        ais_sandwich(
            program,
            X,
            num_data=30,
            temperatures=k,
            num_chains=8,
            leapfrog=5,
            seed=0,
            progress=False,
        )
        for k in (10, 80)
    ]
    for run in runs:
        # Bounds on average: 30 data of sd 1 or so would have to miss by luck.
        assert run.gap > -3 * run.gap_se
        assert np.mean(run.upper) >= np.mean(run.lower) - 3 * run.gap_se
    assert runs[1].gap < 0.5 * runs[0].gap  # more temperatures, tighter


def test_the_upper_bound_is_one():
    from ppl_vae.posterior.own_draws import own_draws

    program = Program(WORLD.model, WORLD.guide)
    run = ais_sandwich(
        program, X, num_data=200, temperatures=10, num_chains=2, leapfrog=5, seed=0, progress=False
    )
    x = own_draws(program, X, 200, seed=0).batch.args[0]
    truth = WORLD.log_evidence(x).numpy()
    for bound, sign in ((run.lower, 1), (run.upper, -1)):
        short = sign * (truth - bound)
        # On average on its side, by many standard errors at ten temperatures.
        assert short.mean() > 4 * short.std() / len(short) ** 0.5
    # e^(−upper) is unbiased for 1 / p(x): the mean of p(x) e^(−upper) is 1 within 5 SE.
    w = np.exp(truth - run.upper)
    assert abs(w.mean() - 1) < 5 * w.std() / len(w) ** 0.5


def test_a_seed_gives_one_result_and_leaves_torchs_own():
    program = Program(WORLD.model, WORLD.guide)
    state = torch.get_rng_state()
    one, two = (
        ais(program, X, temperatures=5, num_chains=2, leapfrog=2, seed=3, progress=False)
        for _ in range(2)
    )
    assert np.array_equal(one.log_weights, two.log_weights)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_has_no_path_is_refused():
    def discrete(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(y, 1.0), obs=x)

    def its_guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(0.5 + 0 * x))

    with pytest.raises(NoDensityError, match="discrete latents.*Try"):
        ais(Program(discrete, its_guide), torch.zeros(3), progress=False)
    sampled = VAE(
        SampledPrior(lambda n: torch.rand(n, 2), 2),
        Conditional(MLP(), Normal(3), given=2),
        Conditional(MLP(), Normal(2), given=3),
    )
    with pytest.raises(NoDensityError, match="under a prior with a density"):
        ais(sampled, torch.zeros(3, 3), progress=False)
    with pytest.raises(ValueError, match="num_chains=1; expected an integer of 2"):
        ais(Program(WORLD.model, WORLD.guide), X, num_chains=1, progress=False)
