"""Ranks, their uniformity and what it says of a guide: exact laws, and guides broken on purpose."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from ppl_vae import (
    MLP,
    VAE,
    Adversarial,
    Conditional,
    Delta,
    Normal,
    Program,
    StandardNormal,
    UniformBox,
    fit,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.diagnostics import calibration, holm, information, ranks, tarp_ranks, uniformity
from ppl_vae.posterior import calibrate, mutual_information

# p(z|x) has the correlation −0.85.
WEIGHT = torch.tensor([[3.0, 3.0], [0.5, -0.5], [0.2, 0.0]]).double()
WORLD = LinearGaussian(WEIGHT, torch.zeros(3).double(), 1.0)
X, _ = WORLD.sample(5, seed=1)


def outcomes(n, top):
    """All ranks of n data among `top` draws, and what each is."""
    for values in itertools.product(range(top + 1), repeat=n):
        yield uniformity(values, num_draws=top, level=0.8)


def test_p_values_are_exact():
    found = list(outcomes(4, 3))  # all 256 are as likely as each other
    p = np.array([u.p_value for u in found])
    for level in np.unique(p):
        assert (p <= level + 1e-9).mean() == pytest.approx(level, abs=1e-9)


def test_the_band_is_left_as_seldom_as_it_says():
    found = list(outcomes(4, 3))
    left = np.array([((u.ecdf < u.low) | (u.ecdf > u.high)).any() for u in found])
    assert 0 < left.mean() <= 0.2
    # It is the widest of its kind: what is left has the small p-values.
    p = np.array([u.p_value for u in found])
    assert p[left].max() <= 0.2 < p[~left].min()


@pytest.mark.parametrize("draws", [None, 20, 500])
def test_uniform_values_are_seldom_called_otherwise(draws):
    rng = np.random.default_rng(0)
    runs = [
        rng.random(200) if draws is None else rng.integers(0, draws + 1, 200) for _ in range(400)
    ]
    p = np.array([uniformity(r, num_draws=draws).p_value for r in runs])
    # The share at or below 0.05 is Binomial(400, 0.05 at most); 42 or more come once in 10^5.
    assert (p <= 0.05).sum() < 42
    # And no more seldom than a test of few outcomes must be: fewer than 6 come once in 10^4.
    assert (p <= 0.05).sum() >= 6


def test_small_p_values_keep_their_size():
    u = uniformity([0.5 / 101] * 1000)
    # All below the first of 100 points: each tail is at most 101^-1000, which is 0 in float64.
    assert u.p_value == 0.0 and u.deviation == pytest.approx(0.99, abs=0.01)
    many = np.r_[np.full(30, 0.001), np.linspace(0.01, 0.99, 70)]
    tail = stats.binom.sf(29, 100, 1 / 101)
    assert tail / 2 < uniformity(many).p_value < 200 * tail


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (np.linspace(0, 1, 100) ** 2, "low"),
        (np.linspace(0, 1, 100) ** 0.5, "high"),
        (0.5 + 0.4 * np.linspace(-1, 1, 100) ** 3, "in the middle"),
        (0.5 + 0.5 * np.sin(np.linspace(-1.5, 1.5, 100)), "at both ends"),
    ],
)
def test_where_the_values_crowd_is_said(values, shape):
    assert uniformity(values).shape == shape


def test_ranks_are_those_of_the_truth_and_ties_are_even():
    rng = np.random.default_rng(0)
    truth, draws = rng.integers(0, 2, (4000, 1)), rng.integers(0, 2, (9, 4000, 1))
    assert uniformity(ranks(truth, draws)[:, 0], num_draws=9).p_value > 1e-4  # of one in 10^4
    assert uniformity((draws < truth).sum(0)[:, 0], num_draws=9).p_value < 1e-12  # ties are low
    one, many = rng.standard_normal((50, 3)), rng.standard_normal((20, 50, 3))
    centre = rng.standard_normal((50, 3))
    expected = [
        sum(math.dist(d, c) < math.dist(t, c) for d in many[:, i])
        for i, (t, c) in enumerate(zip(one, centre, strict=True))
    ]
    assert tarp_ranks(one, many, centre).tolist() == expected


def test_holm_keeps_the_order_and_never_helps():
    p = {str(k): v for k, v in enumerate(np.random.default_rng(0).random(20))}
    adjusted = holm(p)
    assert sorted(adjusted, key=adjusted.get) == sorted(p, key=p.get)
    assert all(adjusted[n] >= p[n] for n in p)
    assert min(adjusted.values()) == pytest.approx(min(1, 20 * min(p.values())))


def ignorant(guide_of):
    """The exact guide of a world, but for what `guide_of` makes of it."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide_of(WORLD.posterior(x)))

    return Program(WORLD.model, guide)


def uncorrelated(q):
    sd = q.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    return dist.Normal(q.loc, sd).to_event(1)


BROKEN = {
    "narrow": ("z", lambda q: dist.MultivariateNormal(q.loc, scale_tril=0.5 * q.scale_tril)),
    "wide": ("z", lambda q: dist.MultivariateNormal(q.loc, scale_tril=2 * q.scale_tril)),
    "shifted": (
        "z",
        lambda q: dist.MultivariateNormal(
            q.loc + 0.5 * q.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt(),
            scale_tril=q.scale_tril,
        ),
    ),
    "uncorrelated": ("log p(x|z)", uncorrelated),
    "the prior": (
        "log p(x|z)",
        lambda q: dist.Normal(torch.zeros_like(q.loc), 1.0).to_event(1),
    ),
}


def test_a_calibrated_guide_passes():
    program = ignorant(lambda q: q)
    p = [calibrate(program, X, num_data=200, num_draws=50, seed=9 * k).p_value for k in range(40)]
    # Holm at 0.05: at most Binomial(40, 0.05); 10 or more come once in 10^5.
    assert sum(v <= 0.05 for v in p) < 10


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_guide_is_caught_by_the_test_named_in_advance(defect):
    test, guide_of = BROKEN[defect]
    found = calibrate(ignorant(guide_of), X, seed=0)
    assert min(p for n, p in found.p_values.items() if n.startswith(test)) < 1e-6


def test_what_the_units_are_blind_to():
    for defect in ("uncorrelated", "the prior"):
        found = calibrate(ignorant(BROKEN[defect][1]), X, seed=0)
        assert min(found.p_values["z[0]"], found.p_values["z[1]"]) > 1e-3
    # A guide that is the prior has learned nothing, and says so; by Var(draws), give or take 3 %.
    assert all(abs(c) < 0.1 for c in found.contraction.values())
    exact = calibrate(ignorant(lambda q: q), X, seed=0).contraction
    posterior = WORLD.posterior(X[:1]).covariance_matrix[0].diagonal()
    assert np.allclose([*exact.values()], 1 - posterior, atol=0.05)  # Var(z) of 1000: ± 0.045


def test_a_guide_pushed_into_a_box_and_one_without_a_density_are_ranked():
    box = VAE(
        UniformBox(2, low=0, high=1),
        Conditional(MLP(8), Normal(3), given=2),
        Conditional(MLP(8), Normal(2), given=3),
    )
    assert "log q(z|x)" in calibrate(box, X.float(), num_data=50, num_draws=20).tests
    point = VAE(
        StandardNormal(2),
        Conditional(MLP(8), Normal(3), given=2),
        Conditional(MLP(8), Delta(2), given=3),
    )
    found = calibrate(point, X.float(), num_data=50, num_draws=20)
    assert list(found.tests) == ["z[0]", "z[1]", "distance"]
    assert found.p_value < 1e-9  # all draws are one point


def test_covariates_and_gaps_are_those_of_the_data():
    vae = VAE(
        Conditional(MLP(8), Normal(2), given={"c": 1}),
        Conditional(MLP(8), Normal(3), given={"z": 2, "c": 1}),
        Conditional(MLP(8), Normal(2), given={"x": 3, "mask": 3}),
    )
    x = X.float().clone()
    x[::2, 1] = torch.nan
    found = calibrate(vae, {"x": x, "c": x[:, :1]}, num_data=40, num_draws=20)
    assert found.num_data == 40 and 0 <= found.p_value <= 1


def test_an_adversarys_encoder_is_expected_to_fail():
    torch.manual_seed(0)
    x = torch.randn(400, 2) @ torch.randn(2, 6) + 0.5 * torch.randn(400, 6)
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(32), Normal(6, scale=0.5), given=2),
        Conditional(MLP(32), Normal(2), given=6),
    )
    fit(vae, x, objective=Adversarial(), epochs=20, seed=0, progress=False)
    assert calibrate(vae, x, num_data=300).p_value < 1e-6


def test_information_holds_the_truth_between_its_ends():
    rng = np.random.default_rng(0)
    inside, n, sd = 0, 300, 0.5
    exact = 0.5 * math.log(1 + 1 / sd**2)  # of z ~ N(x, sd²), x ~ N(0, 1)
    for _ in range(100):
        x = rng.standard_normal(n)
        z = x + sd * rng.standard_normal(n)
        found = information(stats.norm(x, sd).logpdf(z[:, None]), stats.norm(0, 1).logpdf(z))
        low, high = found.lower - 2 * found.lower_se, found.upper + 2 * found.upper_se
        inside += low <= exact <= high
        assert found.lower <= found.upper and found.lower <= found.ceiling
    # Each end misses at most 2.3 % of the time: 13 or more of 100 misses come once in 10^3.
    assert inside > 87
    # KL(q(z) ‖ p(z)) of N(0, 1 + sd²) and N(0, 1).
    v = 1 + sd**2
    low, high = found.marginal_kl
    error = 4 * (found.rate_se + found.lower_se)
    assert low - error < 0.5 * (v - 1 - math.log(v)) < high + error


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: uniformity([0.2, 1.2]), "not all from 0 to 1.*Try num_draws=S"),
        (lambda: uniformity([3], num_draws=2), "not all from 0 to 2"),
        (lambda: uniformity([0.2], level=1.0), "level=1.0"),
        (lambda: ranks([0.1], [[0.2]]), r"expected \(N, Q\) and \(S, N, Q\)"),
        (lambda: ranks([[np.nan]], [[[0.2]]]), "got NaN"),
        (lambda: tarp_ranks([[0.1]], [[[0.2]]], [[0.1, 0.2]]), r"references.*expected \(1, 1\)"),
        (lambda: calibration({}, num_draws=3), "expected those of one quantity"),
        (lambda: information(np.zeros((2, 3)), np.zeros(2)), r"expected \(N, N\) and \(N,\)"),
        (lambda: information(np.full((2, 2), -np.inf), np.zeros(2)), "under its own guide"),
    ],
)
def test_bad_input_is_refused(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()


def test_a_model_that_hides_x_is_no_simulator():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=x.exp())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match="Got no argument.*'y'.*Try a model that is given x"):
        calibrate(Program(model, guide), torch.rand(5))


def test_information_of_a_program_is_between_its_ends_and_collapse_shows():
    x, _ = WORLD.sample(400, seed=3)
    exact = -0.5 * WORLD.posterior(x).covariance_matrix[0].logdet().item()  # of z ~ N(0, I)
    found = mutual_information(ignorant(lambda q: q), x, seed=0)
    # 4 SE on each side: 3·10^-5. The bracket is of use: its ends are near each other.
    assert found.lower - 4 * found.lower_se < exact < found.upper + 4 * found.upper_se
    assert found.upper - found.lower < 0.2
    # q(z) is p(z) here: all of the rate is information.
    assert found.marginal_kl[0] < 4 * (found.rate_se + found.upper_se)
    prior = mutual_information(ignorant(BROKEN["the prior"][1]), x, seed=0)
    assert abs(prior.lower) < 1e-9 and abs(prior.upper) < 1e-9 and abs(prior.rate) < 1e-9
    shifted = mutual_information(
        ignorant(lambda q: dist.MultivariateNormal(q.loc + 2.0, scale_tril=q.scale_tril)), x
    )
    # KL(N(2, I) ‖ N(0, I)) in two dims is 4; the information is what it was.
    low, high = shifted.marginal_kl
    assert low - 0.5 < 4.0 < high + 0.5  # 4 SE of the rate of 400 data, sd 2.5
    assert abs(shifted.lower - found.lower) < 0.3
