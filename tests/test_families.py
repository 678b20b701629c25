"""Families: the laws of the kit, SciPy's log-probs, and floors that are floors."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import softplus

from ppl_vae import (
    Bernoulli,
    Binomial,
    Delta,
    MultivariateNormal,
    Normal,
    PerFeature,
    Predicted,
    Shared,
)
from ppl_vae.testing import check_family

DISCRETE = ["measure", "gradients", "finite", "normalised", "draws", "moments"]
LEARNED = ["measure", "gradients", "finite", "floor", "normalised", "draws", "moments"]
ALWAYS = ["shapes", "rows", "dtype", "support"]

FAMILIES = [
    (Bernoulli(3), DISCRETE),
    (Bernoulli((2, 2)), DISCRETE),
    (Bernoulli(()), DISCRETE),
    (Binomial(3, total=16), DISCRETE),
    (Binomial((), total=1), DISCRETE),
    (Normal(3), LEARNED),
    (Normal((2, 1, 2)), LEARNED),
    (Normal((), scale=Predicted(), min_scale=0.1), LEARNED),
    (Normal(3, scale=0.5), DISCRETE),  # a known scale has no floor
    (Normal(3, scale=Shared(init=2.0)), LEARNED),
    (Normal((2, 2), scale=PerFeature(init=0.3), min_scale=0.01), LEARNED),
    (MultivariateNormal(1), LEARNED),
    (MultivariateNormal(2), LEARNED),
    (MultivariateNormal(4, min_scale=0.1), LEARNED[:-1]),  # no moments from random points
    (Delta(3), []),
    (Delta((2, 2)), []),
]

# float64 log-probs of moderate arguments, both sides a dozen operations: 1e-16 times a few
# hundred, with a factor 1e3 to spare.
EXACT = 1e-10


@pytest.mark.parametrize(("family", "laws"), FAMILIES, ids=lambda v: repr(v)[:40])
def test_the_kit(family, laws):
    assert list(check_family(family)) == ALWAYS + laws


def off(log_prob: torch.Tensor, exact) -> float:
    return float((log_prob - torch.as_tensor(np.asarray(exact))).abs().max())


def test_bernoulli_is_scipys(float64):
    logits, x = 3 * torch.randn(5, 4), torch.bernoulli(torch.full((5, 4), 0.5))
    exact = stats.bernoulli(torch.sigmoid(logits)).logpmf(x).sum(-1)
    assert off(Bernoulli(4)(logits=logits).log_prob(x), exact) < EXACT


@pytest.mark.parametrize("total", [1, 16, 255])
def test_binomial_is_scipys(total, float64):
    logits = 3 * torch.randn(5, 4)
    x = torch.randint(0, total + 1, (5, 4)).double()
    x[0], x[1] = 0, total  # both ends
    exact = stats.binom(total, torch.sigmoid(logits)).logpmf(x).sum(-1)
    # SciPy's sum of lgamma(256) ~ 1e3 loses 1e-13 a cell.
    assert off(Binomial(4, total=total)(logits=logits).log_prob(x), exact) < EXACT


SCALES = {
    "known": (0.7, (), lambda raw: 0.7),
    "shared": (Shared(), (), lambda raw: 0.2 + softplus(raw)),
    "per feature": (PerFeature(), (3,), lambda raw: 0.2 + softplus(raw)),
    "predicted": (Predicted(), (5, 3), lambda raw: 0.2 + softplus(raw)),
}


@pytest.mark.parametrize("kind", SCALES)
def test_normal_is_scipys(kind, float64):
    scale, shape, constrained = SCALES[kind]
    raw, loc, x = torch.randn(shape), torch.randn(5, 3), torch.randn(5, 3)
    exact = stats.norm(loc, np.asarray(constrained(raw))).logpdf(x).sum(-1)
    learned = {} if kind == "known" else {"scale": raw}
    d = Normal(3, scale=scale, min_scale=0.2)(loc=loc, **learned)
    assert off(d.log_prob(x), exact) < EXACT


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_multivariate_normal_is_scipys(dims, float64):
    raw = 0.5 * torch.randn(dims * (dims + 1) // 2)
    loc, x = torch.randn(dims), torch.randn(6, dims)
    d = MultivariateNormal(dims, min_scale=0.1)(loc=loc, scale_tril=raw)
    lower = np.zeros((dims, dims))
    lower[np.tril_indices(dims)] = raw  # row by row
    lower[np.diag_indices(dims)] = 0.1 + np.logaddexp(0, np.diag(lower))
    exact = stats.multivariate_normal(loc, lower @ lower.T).logpdf(x)
    assert np.linalg.cond(lower @ lower.T) < 1e3  # so 1e-16 * 1e3 of log-probs below 1e2
    assert off(d.log_prob(x), exact) < EXACT


@pytest.mark.parametrize("scale", [Shared(), PerFeature(), Predicted()])
@pytest.mark.parametrize("floor", [1e-6, 1e-3, 0.5])
def test_no_scale_is_below_its_floor(scale, floor):
    family = Normal(2, scale=scale, min_scale=floor)
    far = torch.full((2,), -1e30)
    # float32 rounding of the floor itself.
    assert (family(loc=torch.zeros(2), scale=far).stddev >= floor * (1 - 1e-7)).all()
    assert family.min_scale == floor
    # Without the floor, log p(x) grows with every digit that the scale loses; with it, x = loc has
    # the bound -log(floor √(2π)) a cell.
    bound = -2 * math.log(floor * math.sqrt(2 * math.pi))
    log_prob = family(loc=torch.zeros(2), scale=far).log_prob(torch.zeros(2))
    assert log_prob.item() == pytest.approx(bound, rel=1e-6)


def test_no_variance_of_a_full_covariance_is_below_its_floor():
    q = MultivariateNormal(3, min_scale=0.01)
    d = q(loc=torch.zeros(3), scale_tril=torch.full((6,), -1e4))
    # Σ_dd = Σ_j L_dj² >= L_dd² >= floor²; no direction is flat: det Σ = Π L_dd².
    assert (d.stddev >= 0.01 * (1 - 1e-6)).all()
    assert torch.allclose(d.scale_tril.diagonal(), torch.tensor(0.01), rtol=1e-6)


@pytest.mark.parametrize("init", [0.0011, 0.3, 1.0, 50.0])
@pytest.mark.parametrize("kind", [Shared, PerFeature])
def test_a_learned_scale_starts_where_it_is_told(kind, init):
    family = Normal(3, scale=kind(init))
    d = family(loc=torch.zeros(3), **family.shared)
    # raw is held in float32; at init = floor + 1e-4 it is log(1e-4) = -9.2, so 5e-7 * 1e-4 off.
    assert torch.allclose(d.stddev, torch.tensor(init), rtol=1e-6, atol=0)


def test_each_kind_of_scale_has_its_own_parameters():
    cells = {Shared(): (), PerFeature(): (2, 3)}
    for scale, shape in cells.items():
        family = Normal((2, 3), scale=scale)
        assert list(family.shapes) == ["loc"] and family.shared["scale"].shape == shape
    assert Normal((2, 3)).shapes["scale"] == (2, 3) and not Normal((2, 3)).shared
    known = Normal((2, 3), scale=1.0)
    assert list(known.shapes) == ["loc"] and not known.shared


def test_a_known_scale_has_no_floor():
    family = Normal(2, scale=1e-6)
    assert family.min_scale is None and family(loc=torch.zeros(2)).stddev[0].item() < 1.1e-6


def test_events_of_every_shape_factor_over_cells(float64):
    # An image is its cells: the same numbers in another shape.
    loc, raw, x = torch.randn(3, 2, 4, 5).unbind()
    image = Normal((4, 5))(loc=loc, scale=raw).log_prob(x)
    flat = Normal(20)(loc=loc.flatten(1), scale=raw.flatten(1)).log_prob(x.flatten(1))
    # One sum of 20 terms in another order.
    assert torch.allclose(image, flat, rtol=1e-13)
    assert image.shape == (2,)


def test_what_a_delta_draws_is_its_point():
    d = Delta((2, 2))(v=torch.ones(5, 2, 2))
    assert torch.equal(d.sample(), torch.ones(5, 2, 2)) and d.event_shape == (2, 2)
