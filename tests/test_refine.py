"""Refined guides: they reach the exact posterior, start where the guide is, and leave p alone."""

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
    Delta,
    NoDensityError,
    Normal,
    Program,
    StandardNormal,
    diagnose,
    log_evidence,
    log_weights,
    posterior_predictive,
    refine,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.posterior import gaps
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.runs import run_guide

ROWS = 20


@pytest.fixture
def world():
    return LinearGaussian.random(2, 5, seed=0, dtype=torch.float64)


def test_no_step_is_the_guide_itself(world):
    x, _ = world.sample(ROWS, seed=1)
    broken = Program(world.model, world.broken_guide(scale=2.0))
    # A rate so small that Adam's step moves nothing that float64 would show here.
    same = refine(broken, x, steps=1, learning_rate=1e-15, progress=False)
    one, two = (log_weights(p, x, 50, seed=0) for p in (broken, same))
    # A dozen float64 operations on weights of size 10, triangular solves among them.
    assert (one - two).abs().max() < 1e-9


@pytest.mark.parametrize("broken", [{"scale": 2.0}, {"shift": 1.0}, {"scale": 0.5, "shift": 0.5}])
def test_it_reaches_the_exact_posterior(world, broken):
    """A Gaussian guide moved affinely can be exact: every weight is then log p(x)."""
    x, _ = world.sample(ROWS, seed=1)
    guide = world.broken_guide(**broken)
    program = Program(world.model, guide)
    exact = world.log_evidence(x)
    before = exact - log_weights(program, x, 500, seed=0).mean(0)
    better = refine(program, x, progress=False, seed=2)
    after = exact - log_weights(better, x, 2000, seed=0).mean(0)
    assert before.min() > 0.1
    # The gap KL(q(z|x) ‖ p(z|x)) in nats, of every datum: the noise of its gradient ends with it.
    assert after.abs().max() < 1e-3
    assert np.isfinite(better.history["elbo"]).all()


def test_model_and_guide_stay_as_they_are():
    torch.manual_seed(0)
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(8), Bernoulli(6), given=2),
        Conditional(MLP(8), Normal(2), given={"x": 6, "mask": 6}),
    )
    x = torch.bernoulli(torch.full((ROWS, 6), 0.5))
    x[0, 1] = torch.nan
    before = [p.clone() for p in vae.parameters()]
    state = torch.get_rng_state()
    better = refine(vae, x, steps=100, progress=False)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))
    assert all(p.grad is None for p in vae.parameters())
    gain = log_weights(better, x, 500, seed=0).mean(0) - log_weights(vae, x, 500, seed=0).mean(0)
    assert gain.mean() > 0.01
    assert len(diagnose(better, x, num_samples=50, budget=0).evidence.log_evidence) == ROWS


def test_bounded_latents_stay_inside():
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.LogNormal(torch.zeros(len(x)), 1.0))

    x = torch.tensor([0.0, 1.0, 4.0, 9.0] * 5)
    better = refine(Program(model, guide), x, progress=False)
    batch = program_batch(better, x)
    assert (run_guide(better, batch).nodes["rate"]["value"] > 0).all()
    # Conjugate: p(x) = NB; a log-normal guide comes near the posterior Gamma(2 + x, 2).
    exact = dist.GammaPoisson(torch.tensor(2.0), 1.0).log_prob(x)
    found = log_evidence(better, x, 4000, seed=0)
    assert (abs(found.log_evidence - exact.numpy()) < 6 * found.se + 1e-3).all()
    gap = exact - log_weights(better, x, 4000, seed=1).mean(0)
    assert gap.max() < 0.1


def test_refusals(world):
    x, _ = world.sample(ROWS, seed=1)
    better = refine(Program(world.model, world.guide), x, steps=2, progress=False)
    with pytest.raises(ValueError, match="other data in x than the guide was refined for"):
        log_weights(better, x.flip(0), 5)
    point = VAE(
        StandardNormal(2),
        Conditional(MLP(8), Bernoulli(6), given=2),
        Conditional(MLP(8), Delta(2), given=6),
    )
    with pytest.raises(NoDensityError, match="No guide can be refined here: the guide at 'z' is a"):
        refine(point, torch.zeros(4, 6), steps=2, progress=False)


def test_a_guide_pushed_into_a_box_stays_inside_and_gains():
    from ppl_vae import UniformBox

    torch.manual_seed(0)
    vae = VAE(
        UniformBox(2),
        Conditional(MLP(8), Normal(6, scale=0.3), given=2),
        Conditional(MLP(8), Normal(2), given=6),
    )
    x = vae.likelihood(vae.prior().sample((ROWS,))).sample()
    better = refine(vae, x, steps=300, progress=False)
    batch = program_batch(better, x)
    assert (run_guide(better, batch).nodes["z"]["value"].abs() <= 1).all()
    gain = log_weights(better, x, 500, seed=0).mean(0) - log_weights(vae, x, 500, seed=0).mean(0)
    assert gain.mean() > 0.1


def test_a_guide_without_gradients_is_improved_too():
    from ppl_vae.distributions import MixtureOfNormals

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample(
                "z", MixtureOfNormals(torch.zeros(1), torch.ones(1, 1) * 3, torch.ones(1, 1))
            )

    x = torch.zeros(4, 1)
    better = refine(Program(model, guide), x, progress=False)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x[:, 0])
    assert (log_weights(better, x, 500, seed=0).mean(0) - exact).abs().max() < 0.02


def test_one_datum_is_enough(world):
    x, _ = world.sample(1, seed=1)
    better = refine(Program(world.model, world.broken_guide(scale=2.0)), x, progress=False)
    gap = world.log_evidence(x) - log_weights(better, x, 500, seed=0).mean(0)
    assert gap.abs().max() < 1e-2


def test_gaps_are_those_of_a_world_where_all_guides_are_known():
    # p(z|x) has the correlation −0.8: what independent coordinates cost is known.
    weight = torch.tensor([[2.0, 2.0], [0.0, 0.5]]).double()
    world = LinearGaussian(weight, torch.zeros(2).double(), 1.0)
    x, _ = world.sample(ROWS, seed=1)
    posterior = world.posterior(x)
    precision = posterior.precision_matrix[0]

    def guide(x):
        q = world.posterior(x)
        sd = 0.5 * precision.diagonal() ** -0.5
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(q.loc + 0.3, sd).to_event(1))

    own = dist.MultivariateNormal(
        posterior.loc + 0.3, torch.diag(0.25 / precision.diagonal()).expand(ROWS, 2, 2)
    )
    # The best independent Normal has the variances 1 / Λ_dd (Bishop 2006, eq. 10.12).
    best = 0.5 * (precision.diagonal().log().sum() - precision.logdet()).item()
    total = world.kl_posterior(own, x).numpy()
    found = gaps(Program(world.model, guide), x, seed=0, progress=False)
    for estimate, se, truth in (
        (found.amortisation, found.amortisation_se, total - best),
        (found.correlation, found.correlation_se, best),
        (found.remainder, found.remainder_se, 0.0),
    ):
        # 20 data at 5 SE: a false alarm in 10^5; and 0.02 nats that the steps leave undone.
        assert (np.abs(estimate - truth) < 5 * se + 0.02).all()
    assert best > 0.4 and (total - best).min() > 0.3
    assert np.allclose(found.approximation, found.correlation + found.remainder)


def test_a_refinement_without_correlations_has_none(world):
    x, _ = world.sample(ROWS, seed=1)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2).double(), 1.0).to_event(1))

    for correlated in (False, True):
        better = refine(
            Program(world.model, guide), x, steps=200, correlated=correlated, progress=False
        )
        z = posterior_predictive(better, x, 4000, seed=0).latents["z"][:, 0]
        # Of 4000 independent draws: 0 ± 0.016, at 5 SE.
        assert (abs(torch.corrcoef(z.T)[0, 1]) > 0.08) == correlated
