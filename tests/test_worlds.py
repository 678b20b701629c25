"""The exact worlds are exact: closed forms against scipy, Bayes' rule, and each other."""

import importlib
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import integrate, stats
from torch import nn

from ppl_vae.data.grid import Box, locate
from ppl_vae.data.linear_gaussian import LinearGaussian
from ppl_vae.data.linear_mixture import LinearMixture
from ppl_vae.data.quadrature import quadrature

# (latent, observed): fewer, as many and more observed than latent dimensions.
SIZES = [(1, 1), (2, 5), (3, 1), (4, 4), (20, 50)]
# Sums of at most a few hundred float64 terms of size < 1e3, through Cholesky factors of matrices
# of condition number < 1e5: 1e-16 * 1e3 * 1e2, with another factor 1e2 to spare.
CLOSED = 1e-9
# What quadrature promises.
PROMISED = 1e-8

FAULTS = [(1.0, 0.0), (0.05, 0.0), (0.5, 2.0), (2.0, -1.0)]  # scale, shift: exact, narrow, off


def fresh_seed() -> int:
    """A new seed each run, printed where a test fails: identities hold for all of them."""
    seed = torch.seed() % 2**31
    print(f"seed {seed}")
    return seed


def both_worlds(latent: int, observed: int, seed: int):
    yield LinearGaussian.random(latent, observed, seed=seed)
    yield LinearMixture.random(latent, observed, components=3, seed=seed)


def closed(world: LinearGaussian, q, x):
    return world.reconstruction(q, x), world.kl_prior(q), world.kl_posterior(q, x)


def off(a, b: torch.Tensor | float) -> float:
    return float((a - b).abs().max())


# ------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(("latent", "observed"), SIZES)
def test_log_evidence_is_scipys(latent, observed):
    world = LinearGaussian.random(latent, observed, scale=0.7, seed=fresh_seed())
    x, _ = world.sample(6, seed=1)
    w, b = world.weight.numpy(), world.bias.numpy()
    exact = stats.multivariate_normal(b, w @ w.T + 0.49 * np.eye(observed)).logpdf(x.numpy())
    assert off(world.log_evidence(x), torch.as_tensor(exact)) < CLOSED


def test_log_evidence_of_a_mixture_is_scipys():
    world = LinearMixture.random(2, 3, components=4, seed=fresh_seed())
    x, _ = world.sample(6, seed=1)
    w, b = world.weight.numpy(), world.bias.numpy()
    exact = sum(
        p * stats.multivariate_normal(w @ m + b, w @ np.diag(s**2) @ w.T + 0.25 * np.eye(3)).pdf(x)
        for p, m, s in zip(
            world.probs.numpy(), world.loc.numpy(), world.scale_z.numpy(), strict=True
        )
    )
    assert off(world.log_evidence(x), torch.as_tensor(exact).log()) < CLOSED


@pytest.mark.parametrize(("latent", "observed"), SIZES)
def test_bayes_rule_holds_at_every_z(latent, observed):
    seed = fresh_seed()
    for world in both_worlds(latent, observed, seed):
        x, z = world.sample(5, seed=seed)
        for at in (z, z + 1, torch.zeros_like(z), world.posterior(x).sample()):
            joint = world.prior().log_prob(at) + world.decoder(at).log_prob(x)
            assert off(joint - world.posterior(x).log_prob(at), world.log_evidence(x)) < CLOSED


@pytest.mark.parametrize(("latent", "observed"), SIZES)
def test_log_weights_of_the_exact_guide_are_constant(latent, observed):
    seed = fresh_seed()
    for world in both_worlds(latent, observed, seed):
        x, _ = world.sample(5, seed=seed)
        guide = poutine.trace(world.guide).get_trace(x)
        model = poutine.trace(poutine.replay(world.model, trace=guide)).get_trace(x)
        model.compute_log_prob(), guide.compute_log_prob()
        log_p = model.nodes["z"]["log_prob"] + model.nodes["x"]["log_prob"]
        assert model.nodes["x"]["is_observed"] and guide.nodes["data"]["type"] == "sample"
        assert off(log_p - guide.nodes["z"]["log_prob"], world.log_evidence(x)) < CLOSED


@pytest.mark.parametrize(("latent", "observed"), SIZES)
@pytest.mark.parametrize(("scale", "shift"), FAULTS)
def test_three_terms_add_up_to_log_evidence(latent, observed, scale, shift):
    # Three closed forms that share nothing but q, against a fourth.
    world = LinearGaussian.random(latent, observed, seed=fresh_seed())
    x, _ = world.sample(5, seed=1)
    reconstruction, kl_prior, kl_posterior = closed(
        world, world.broken_posterior(x, scale, shift), x
    )
    # The terms reach 1e5 here and cancel, which costs two digits more.
    assert off(reconstruction - kl_prior + kl_posterior, world.log_evidence(x)) < 100 * CLOSED


@pytest.mark.parametrize(("scale", "shift"), FAULTS)
def test_a_broken_guide_is_broken_by_what_it_says(scale, shift):
    world = LinearGaussian.random(3, 4, seed=fresh_seed())
    x, _ = world.sample(5, seed=1)
    q, p = world.broken_posterior(x, scale, shift), world.posterior(x)
    whitened = torch.linalg.solve_triangular(p.scale_tril, (q.loc - p.loc)[..., None], upper=False)
    assert off(whitened, shift) < CLOSED
    assert off(q.covariance_matrix, scale**2 * p.covariance_matrix) < CLOSED
    kl = 3 * (scale**2 - 1 + shift**2 - 2 * math.log(scale)) / 2
    assert off(world.kl_posterior(q, x), kl) < CLOSED
    drawn = poutine.trace(world.broken_guide(scale, shift)).get_trace(x).nodes["z"]["fn"]
    assert off(drawn.loc, q.loc) == off(drawn.scale_tril, q.scale_tril) == 0


def test_draws_have_the_moments_of_the_world():
    n = 20_000
    for world in both_worlds(2, 2, seed=3):
        x, z = world.sample(n, seed=4)
        # A fixed seed; each standardised mean is N(0, 1): beyond 4.5 once in 1e5 seeds.
        residual = (x - world.decoder(z).mean) / world.decoder(z).stddev
        assert float(residual.mean(0).abs().max()) * n**0.5 < 4.5
        assert float((residual.square().mean(0) - 1).abs().max()) * (n / 2) ** 0.5 < 4.5
        centred = (z - world.prior().mean) / world.prior().stddev
        assert float(centred.mean(0).abs().max()) * n**0.5 < 4.5
        # kurtosis of z is at most Gaussian or, for a few modes, smaller in both worlds used here
        assert float((centred.square().mean(0) - 1).abs().max()) * (n / 2) ** 0.5 < 4.5


def test_worlds_are_reproducible_and_draw_nothing_in_secret():
    before = torch.get_rng_state()
    for one, other in zip(both_worlds(2, 3, seed=5), both_worlds(2, 3, seed=5), strict=True):
        x, z = one.sample(4, seed=6)
        again, _ = other.sample(4, seed=6)
        quadrature(one.prior(), one.decoder, x[:1], one.posterior)
        assert torch.equal(x, again) and not torch.equal(x, one.sample(4, seed=7)[0])
    assert torch.equal(before, torch.get_rng_state())


def test_worlds_follow_their_dtype():
    world = LinearGaussian.random(2, 3, seed=0, dtype=torch.float32)
    assert world.log_evidence(world.sample(4, seed=0)[0]).dtype == torch.float32


# --------------------------------------------------------------------------------- quadrature


@pytest.mark.parametrize("latent", [1, 2])
@pytest.mark.parametrize(("scale", "shift"), FAULTS)
def test_quadrature_agrees_with_the_linear_gaussian_world(latent, scale, shift):
    # Observation noise 0.05: the posterior is some 50 times narrower than the prior.
    world = LinearGaussian.random(latent, 4, scale=0.05, seed=fresh_seed())
    x, _ = world.sample(3, seed=1)
    x[0] += world.weight.sum(-1) * 9  # an outlier: its posterior lies where no prior draw falls
    found = quadrature(
        world.prior(), world.decoder, x, lambda x: world.broken_posterior(x, scale, shift)
    )
    exact, q = world.posterior(x), world.broken_posterior(x, scale, shift)
    assert off(found.log_evidence, world.log_evidence(x)) < PROMISED
    assert off(found.posterior_mean, exact.mean) < PROMISED
    assert off(found.posterior_covariance, exact.covariance_matrix) < PROMISED
    for got, expected in zip(found[4:], closed(world, q, x), strict=True):
        assert off(got, expected) < PROMISED
    assert found.error <= PROMISED


@pytest.mark.parametrize("latent", [1, 2])
@pytest.mark.parametrize("observed", [1, 3])
def test_quadrature_agrees_with_the_mixture_world(latent, observed):
    world = LinearMixture.random(latent, observed, components=3, seed=fresh_seed())
    x, _ = world.sample(3, seed=1)
    exact = world.posterior(x)

    def one_mode(x):  # the guide that knows the heaviest mode alone
        posterior = world.posterior(x)
        k = posterior.mixture_distribution.probs.argmax(-1)
        parts, rows = posterior.component_distribution, torch.arange(len(x))
        return dist.MultivariateNormal(parts.loc[rows, k], scale_tril=parts.scale_tril[rows, k])

    found = quadrature(world.prior(), world.decoder, x, world.posterior)
    assert off(found.log_evidence, world.log_evidence(x)) < PROMISED
    assert off(found.posterior_mean, exact.mean) < PROMISED
    variance = found.posterior_covariance.diagonal(dim1=-2, dim2=-1)
    assert off(variance, exact.variance) < PROMISED
    assert off(found.kl_posterior, 0.0) < PROMISED

    found = quadrature(world.prior(), world.decoder, x, one_mode)
    q, parts = one_mode(x), exact.component_distribution
    mean = world.decoder(q.mean).log_prob(x)
    spread = (world.weight @ q.scale_tril).square().sum((-2, -1)) / (2 * 0.25)
    assert off(found.reconstruction, mean - spread) < PROMISED
    # With weight w on a mode, p(z|x) >= w q(z): KL(q || p(z|x)) lies between 0 and -log w.
    weight = exact.mixture_distribution.probs.amax(-1)
    assert (found.kl_posterior > -PROMISED).all()
    assert (found.kl_posterior < -weight.log() + PROMISED).all()
    assert parts.loc.shape == (3, 3, latent)


def bernoulli_decoder(latent: int, seed: int, bits: int = 6):
    generator = torch.Generator().manual_seed(seed)
    first = torch.empty(16, latent, dtype=torch.float64).normal_(generator=generator)
    second = torch.empty(bits, 16, dtype=torch.float64).normal_(generator=generator)
    return lambda z: dist.Bernoulli(logits=torch.tanh(z @ first.T) @ second.T).to_event(1)


def normal(loc, scale):
    return dist.Normal(torch.as_tensor(loc).double(), torch.as_tensor(scale).double()).to_event(1)


BITS = torch.tensor([[1, 0, 0, 1, 1, 0], [0, 0, 1, 1, 1, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("prior", "low", "high"),
    [
        (normal([0.5], 2.0), -math.inf, math.inf),
        (dist.Uniform(torch.tensor([-1.0]).double(), 2.0).to_event(1), -1, 2),
        (dist.Gamma(torch.tensor([1.5]).double(), 1.0).to_event(1), 0, math.inf),
        (dist.StudentT(torch.tensor([12.0]).double()).to_event(1), -math.inf, math.inf),
    ],
    ids=["normal", "uniform", "gamma", "student"],
)
def test_three_terms_of_a_bernoulli_decoder_are_scipys(prior, low, high):
    # Each integral by adaptive Gauss-Kronrod over z itself: another rule, without the change of
    # variables, and KL(q || p(z|x)) from the normalised posterior, so that the sum is a check.
    decoder = bernoulli_decoder(1, seed=2)
    x = BITS[:1]
    to_support = torch.distributions.biject_to(prior.support)
    q = dist.TransformedDistribution(normal([[0.3]], 0.4), [to_support])

    def quad(f) -> float:
        def scalar(z: float) -> float:
            return float(f(torch.tensor([[z]], dtype=torch.float64)))

        middle = float(to_support(torch.tensor([0.3]).double()))
        pieces = [(low, middle), (middle, high)]
        return sum(
            integrate.quad(scalar, *piece, epsabs=1e-12, epsrel=1e-11, limit=200)[0]
            for piece in pieces
        )

    def log_joint(z):
        return prior.log_prob(z) + decoder(z).log_prob(x)

    def under_q(f):
        def weighted(z):
            p = q.log_prob(z).exp()
            return p * f(z) if p > 1e-300 else torch.zeros(())

        return quad(weighted)

    log_evidence = math.log(quad(lambda z: log_joint(z).exp()))
    mean = quad(lambda z: z * (log_joint(z) - log_evidence).exp())
    reconstruction = under_q(lambda z: decoder(z).log_prob(x))
    kl_prior = under_q(lambda z: q.log_prob(z) - prior.log_prob(z))
    kl_posterior = under_q(lambda z: q.log_prob(z) - (log_joint(z) - log_evidence))
    found = quadrature(prior, decoder, x, lambda x: q)
    # Gauss-Kronrod was asked for 1e-12 + 1e-11 relative: well inside the promise.
    assert abs(float(found.log_evidence) - log_evidence) < PROMISED
    assert abs(float(found.posterior_mean) - mean) < PROMISED
    assert abs(float(found.reconstruction) - reconstruction) < PROMISED
    assert abs(float(found.kl_prior) - kl_prior) < PROMISED
    assert abs(float(found.kl_posterior) - kl_posterior) < PROMISED
    assert abs(reconstruction - kl_prior + kl_posterior - float(found.log_evidence)) < PROMISED


def test_evidence_of_every_binary_x_adds_up_to_one():
    decoder = bernoulli_decoder(2, seed=3, bits=3)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)
    prior = dist.Dirichlet(torch.tensor([2.0, 1.5, 3.0]).double())  # two dimensions unconstrained
    found = quadrature(prior, lambda z: decoder(z[..., :2]), every)
    p = found.log_evidence.exp()
    # 8 evidences, each to 1e-8 relative, that sum to one; posterior means average to the prior's.
    assert abs(float(p.sum()) - 1) < PROMISED
    assert off(p @ found.posterior_mean, prior.mean) < PROMISED


def test_quadrature_finds_modes_that_are_far_or_narrow():
    parts = normal([[0.0], [100.0], [0.3]], [[1.0], [0.1], [0.01]])
    prior = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.4, 0.1, 0.5]).double()), parts)
    decoder = bernoulli_decoder(1, seed=4)
    found = quadrature(prior, decoder, BITS)
    each = [
        quadrature(normal(loc, scale), decoder, BITS).log_evidence
        for loc, scale in [([0.0], 1.0), ([100.0], 0.1), ([0.3], 0.01)]
    ]
    exact = (prior.mixture_distribution.logits[:, None] + torch.stack(each)).logsumexp(0)
    assert off(found.log_evidence, exact) < 2 * PROMISED  # two errors of at most the promise


def test_a_mode_of_the_guide_that_no_draw_has_seen_counts():
    # A far mode of the second posterior has weight 5.6e-9; without it KL is off by 2e-8.
    world = LinearMixture.random(2, 2, components=4, scale=1.0, spread=5.0, seed=10)
    x, _ = world.sample(2, seed=1)
    assert 1e-9 < world.posterior(x).mixture_distribution.probs[1, 2] < 1e-8
    found = quadrature(world.prior(), world.decoder, x, world.posterior)
    assert off(found.kl_posterior, 0.0) < PROMISED


def test_quadrature_does_not_believe_a_grid_that_steps_over_a_mode():
    # A broad component that 512 points resolve, and one of sd 1e-4 that they step over: two grids
    # agree to 1e-8, on half of the evidence, and draws from the prior know better.
    decoder = bernoulli_decoder(1, seed=5)
    parts = normal([[0.0], [0.77777]], [[1.0], [1e-4]])
    prior = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.5, 0.5]).double()), parts)
    assert quadrature(normal([0.0], 1.0), decoder, BITS, max_nodes=512).error <= PROMISED
    with pytest.raises(ValueError, match="2 of 2 data changing by more"):
        quadrature(prior, decoder, BITS, max_nodes=512)


def test_quadrature_does_not_believe_a_box_that_cuts_off_a_tail(monkeypatch):
    module = importlib.import_module("ppl_vae.data.quadrature")
    whole, decoder = module._boxes, bernoulli_decoder(1, seed=5)
    quadrature(normal([0.0], 1.0), decoder, BITS, max_nodes=2**14, tolerance=1e-6)
    monkeypatch.setattr(module, "_boxes", lambda *args: whole(*args).widen(0.5))
    with pytest.raises(ValueError, match="2 of 2 data changing by more"):
        quadrature(normal([0.0], 1.0), decoder, BITS, max_nodes=2**14, tolerance=1e-6)


def test_quadrature_covers_moments_and_terms_that_pull_the_mass_aside():
    # E z^2 under LogNormal(0, 2) has its mass around exp(8), four sd out; E exp(3 z) three sd out.
    zero = torch.zeros(1).double()
    prior = dist.LogNormal(zero, 2.0).to_event(1)
    found = quadrature(prior, lambda z: normal([0.0], 1.0).expand(z.shape[:-1]), BITS[:, :1])
    assert abs(float(found.posterior_mean[0]) / math.exp(2) - 1) < PROMISED
    # The promise is in posterior sd, here exp(4): the variance is good to 1e-8 of itself.
    variance = (math.exp(4) - 1) * math.exp(4)
    assert abs(float(found.posterior_covariance[0]) / variance - 1) < PROMISED

    def counts(z):
        return dist.Poisson((3 * z).exp()).to_event(1)

    found = quadrature(normal([0.0], 1.0), counts, 0 * BITS[:, :1], lambda x: normal(0 * x, 1.0))
    assert off(found.reconstruction, -math.exp(4.5)) < PROMISED


def test_quadrature_stays_within_its_block_size():
    for latent, x, points in [(2, BITS, 200), (1, BITS.repeat(200, 1), 512)]:
        decoder, rows, data = bernoulli_decoder(latent, seed=6), [], []

        def counting(z, decoder=decoder, rows=rows):
            rows.append(z[..., 0].numel())
            return decoder(z)

        def guide(x, latent=latent, data=data):
            data.append(len(x))
            return normal(0 * x[:, :latent], 1.0)

        found = quadrature(normal([0.0] * latent, 1.0), counting, x, guide, points=points)
        assert max(rows) <= 2**16 < points**latent * len(x)
        assert data[-1] <= max(1, 2**16 // points**latent)
        # Equal rows, equal answers, whatever their block: but for the order of the sums.
        assert off(found.log_evidence[::2], found.log_evidence[0]) < 1e-12


def test_grid_and_box():
    u, log_cell = Box.around(torch.tensor([[[0.0, 0.0]], [[1.0, 3.0]]]).double()).nodes(4)
    assert u.shape == (16, 1, 2) and u[1, 0].tolist() == [0.0, 1.0]
    assert math.isclose(float(log_cell.exp()), 1 / 3)

    # A peak of sd 1e-6, far outside of the start and between all of its nodes: exp(-36) of it is
    # 8.5 sd away, and the box not much wider.
    start = Box.around(torch.tensor([[[-1.0]], [[1.0]]]).double())
    found = locate(lambda u: -((u[..., 0] - 1e3) / 1e-6).square() / 2, start)
    assert 8.5e-6 < found.axes.item() < 11e-6 and abs(found.centre.item() - 1e3) < 1e-6

    # Tails as u^-4 reach exp(-36) at exp(9) = 8103, where a coarse grid has lost sight of the peak.
    def heavy(u):  # on one side, so that no node of a coarse grid need lie near the peak
        return -2 * u[..., 0].square().log1p() - nn.functional.softplus(u[..., 0])

    found = locate(heavy, start)
    assert 8103 < float(found.axes - found.centre) < 10_000

    # A ridge 1e4 times longer than wide, at an angle: the box lies along it.
    tril = torch.tensor([[1.0, 0.0], [0.7, 1e-4]]).double()
    start = Box.around(torch.tensor([[[-2.0, -2.0]], [[3.0, 2.0]]]).double())
    found = locate(dist.MultivariateNormal(torch.ones(2).double(), scale_tril=tril).log_prob, start)
    whitened = torch.linalg.solve(tril, found.axes[0])
    assert 8.5 < torch.linalg.svdvals(whitened).min() < torch.linalg.svdvals(whitened).max() < 15


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"prior": normal([0.0] * 3, 1.0)}, "3 dimensions; expected 1 or 2"),
        ({"prior": normal([[0.0]], 1.0)}, "expected no batch"),
        ({"prior": dist.Bernoulli(torch.tensor([0.5])).to_event(1)}, "continuous support"),
        ({"prior": dist.Normal(torch.zeros(1), 1.0).to_event(1)}, "draws of the latent"),
        ({"prior": dist.Cauchy(torch.zeros(1).double(), 1.0).to_event(1)}, "prior that integrates"),
        ({"x": BITS.float()}, "torch.float64"),
        ({"x": BITS[0]}, "expected .N, .E."),
        ({"decoder": lambda z: dist.Bernoulli(logits=z.expand(*z.shape[:-1], 6))}, "to_event"),
        ({"guide": lambda x: dist.Delta(x[:, :1]).to_event(1)}, "all equal"),
        ({"guide": lambda x: dist.Normal(x[:, :1], 1.0)}, "to_event"),
        ({"guide": lambda x: x[:, :1]}, "expected a distribution"),
        ({"guide": lambda x: normal([0.0], 1.0)}, "depends on x"),
        ({"max_nodes": 40}, "no two grids to compare"),
        ({"points": 4, "max_nodes": 8}, "Try more max_nodes"),
        ({"tolerance": 0.0, "max_nodes": 2**10}, "2 of 2 data changing by more"),
        (
            {  # what lies below zero is missing from the guide's integral
                "prior": dist.HalfNormal(torch.ones(1).double()).to_event(1),
                "guide": lambda x: normal(0 * x[:, :1] + 4.5, 1.0),
                "max_nodes": 2**10,
            },
            "guide normalised on the prior's support",
        ),
    ],
)
def test_quadrature_refuses(changed, says):
    usual = {"prior": normal([0.0], 1.0), "decoder": bernoulli_decoder(1, seed=7), "x": BITS}
    with pytest.raises(ValueError, match=says):
        quadrature(**usual | changed)


def test_worlds_refuse_what_does_not_fit():
    ok = LinearMixture.random(2, 3, seed=0)
    with pytest.raises(ValueError, match="expected .X, Z. and"):
        LinearGaussian(torch.zeros(3, 2), torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match="one positive number"):
        LinearGaussian(torch.zeros(3, 2), torch.zeros(3), 0.0)
    with pytest.raises(ValueError, match="one row per component"):
        LinearMixture(ok.probs, ok.loc[:, :1], ok.scale_z, ok.weight, ok.bias, 1.0)
    with pytest.raises(ValueError, match="sum to 1"):
        LinearMixture(2 * ok.probs, ok.loc, ok.scale_z, ok.weight, ok.bias, 1.0)
    world = LinearGaussian.random(2, 3, seed=0)
    x, _ = world.sample(2, seed=0)
    for term in (world.kl_prior, lambda q: world.kl_posterior(q, x)):
        with pytest.raises(ValueError, match="expected a MultivariateNormal"):
            term(normal(torch.zeros(2, 2), 1.0))


def test_worlds_train_under_svi():
    # The model and guide are plain Pyro: SVI's loss with the exact guide is minus the evidence.
    for world in both_worlds(2, 3, seed=8):
        x, _ = world.sample(7, seed=9)
        svi = pyro.infer.SVI(world.model, world.guide, pyro.optim.Adam({}), pyro.infer.Trace_ELBO())
        assert abs(svi.evaluate_loss(x) + float(world.log_evidence(x).sum())) < CLOSED


def test_a_relu_decoder_is_integrated_in_one_dimension():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 6)).double()
    prior, decoder = normal([0.0], 1.0), lambda z: dist.Bernoulli(logits=net(z)).to_event(1)
    found = quadrature(prior, decoder, BITS)
    z, log_cell = Box.around(torch.tensor([[[-9.0]], [[9.0]]]).double()).nodes(2**18 + 1)
    with torch.no_grad():
        joint = prior.log_prob(z) + decoder(z).log_prob(BITS)
    # Kinks leave an error of order h^2 / 12 in the sum, h = 7e-5 here: below 1e-9.
    assert off(found.log_evidence, joint.logsumexp(0) + log_cell) < PROMISED + 1e-9
