"""Families: the laws of the kit, SciPy's log-probs, and floors that are floors."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.nn.functional import softplus

from ppl_vae import (
    MLP,
    Bernoulli,
    Binomial,
    Categorical,
    Conditional,
    ContinuousBernoulli,
    Delta,
    DiscretisedLogistic,
    LogNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Ordinal,
    PerFeature,
    Poisson,
    Predicted,
    Shared,
    StudentT,
    ZeroInflatedNegativeBinomial,
)
from ppl_vae.testing import check_family

DISCRETE = ["measure", "gradients", "finite", "normalised", "draws", "moments"]
LEARNED = ["measure", "gradients", "finite", "floor", "normalised", "draws", "moments"]
ALWAYS = ["shapes", "rows", "dtype", "support", "filler", "features"]

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
    (LowRankMultivariateNormal(1, rank=1), LEARNED),
    (LowRankMultivariateNormal(2, rank=1, min_scale=0.1), LEARNED),
    (LowRankMultivariateNormal(4, rank=2), LEARNED[:-1]),
    (StudentT(3), LEARNED),
    (StudentT((2, 2), df=Shared(4.0), scale=PerFeature()), LEARNED),
    (StudentT((), df=Predicted(), scale=2.0), DISCRETE),
    (StudentT(3, df=1, scale=Shared()), LEARNED[:-1]),  # Cauchy's has no moments
    (ContinuousBernoulli(3), DISCRETE),
    (ContinuousBernoulli((2, 2)), DISCRETE),
    (LogNormal(3), LEARNED),
    (LogNormal((), scale=Shared(0.5), min_scale=0.1), LEARNED),
    (LogNormal(2, scale=0.5), DISCRETE),
    (Poisson(3), DISCRETE),
    (Poisson((2, 2), exposure=True), DISCRETE),
    (NegativeBinomial(3), DISCRETE),
    (NegativeBinomial(3, dispersion=Predicted(), exposure=True), DISCRETE),
    (NegativeBinomial((), dispersion=Shared(5.0)), DISCRETE),
    (NegativeBinomial((2, 2), dispersion=2.0), DISCRETE),
    (ZeroInflatedNegativeBinomial(3), DISCRETE),
    (ZeroInflatedNegativeBinomial(3, dispersion=Predicted(), exposure=True), DISCRETE),
    (Categorical(3, classes=4), DISCRETE[:-1]),  # classes are no numbers: there is no mean
    (Categorical((2, 2), classes=2), DISCRETE[:-1]),
    (Ordinal(3, classes=2), DISCRETE),
    (Ordinal((2, 2), classes=5), DISCRETE),
    (Ordinal((), classes=4), DISCRETE),
    (DiscretisedLogistic((2, 2)), DISCRETE),
    (DiscretisedLogistic(3, levels=2, scale=Shared()), DISCRETE),
    (DiscretisedLogistic((), levels=16, scale=PerFeature(0.1)), DISCRETE),
    (DiscretisedLogistic(2, levels=16, scale=0.05), DISCRETE),
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


@pytest.mark.parametrize(("dims", "rank"), [(1, 1), (4, 2), (5, 5)])
def test_low_rank_multivariate_normal_is_scipys(dims, rank, float64):
    loc, raw, factor, x = (torch.randn(s) for s in (dims, dims, (dims, rank), (6, dims)))
    family = LowRankMultivariateNormal(dims, rank=rank, min_scale=0.1)
    d = family(loc=loc, scale=raw, factor=factor)
    s = np.diag(0.1 + np.logaddexp(0, raw.numpy()))
    covariance = s @ (np.eye(dims) + (factor @ factor.T).numpy()) @ s
    assert np.linalg.cond(covariance) < 1e4  # so 1e-16 * 1e4 of log-probs below 1e2
    assert off(d.log_prob(x), stats.multivariate_normal(loc, covariance).logpdf(x)) < EXACT
    assert sum(v.numel() for v in (loc, raw, factor)) == sum(
        s.numel() for s in family.shapes.values()
    )


def test_a_low_rank_covariance_keeps_its_digits_on_its_floor():
    # torch.float32, S on its floor of 1e-3, V = 20: W = S V and W'D⁻¹W = 400 D would still do; what
    # torch is usually given, W = 20 beside D = 1e-6, is 4e8 D, beside which I is lost.
    family = LowRankMultivariateNormal(50, rank=2)
    raw = {n: torch.full(s, -20.0) for n, s in family.shapes.items()}
    d, x = family(**raw), torch.full((50,), -20.0)
    exact = family(**{n: v.double() for n, v in raw.items()}).log_prob(x.double())
    # The capacitance has condition number 1 + 2 * 400 * 50 = 4e4: 6e-8 of it, of two log-dets.
    assert d.log_prob(x).item() == pytest.approx(exact.item(), abs=0.01)


DF = {"known": 4.0, "shared": Shared(4.0), "predicted": Predicted()}


@pytest.mark.parametrize("kind", DF)
def test_student_t_is_scipys(kind, float64):
    raw, tails, loc, x = torch.randn(4, 5, 3).unbind()
    x[0] = 1e6  # an outlier
    learned = {"known": {}, "shared": {"df": tails[0, 0]}, "predicted": {"df": tails}}[kind]
    df = 2 + softplus(learned["df"]) if learned else 4.0
    d = StudentT(3, df=DF[kind], min_scale=0.2)(loc=loc, scale=raw, **learned)
    exact = stats.t(np.asarray(df), loc, np.asarray(0.2 + softplus(raw))).logpdf(x).sum(-1)
    assert off(d.log_prob(x), exact) < EXACT


def test_log_normal_is_scipys(float64):
    raw, loc, x = torch.randn(3, 5, 3).unbind()
    x = (5 * x).exp()
    d = LogNormal(3, min_scale=0.2)(loc=loc, scale=raw)
    exact = stats.lognorm(np.asarray(0.2 + softplus(raw)), scale=np.asarray(loc.exp())).logpdf(x)
    assert off(d.log_prob(x), exact.sum(-1)) < EXACT


def test_continuous_bernoulli_is_scipys(float64):
    # SciPy has the half that falls: an exponential cut off at 1.
    logits = torch.tensor([-1e3, -30.0, -1.0, -0.6, -0.4, -1e-3, 1e-3, 0.4, 0.6, 1.0, 30.0, 1e3])
    x = torch.linspace(0, 1, 7).unsqueeze(-1)
    size, turned = logits.abs().numpy(), torch.where(logits > 0, 1 - x, x).numpy()
    exact = stats.truncexpon(size, scale=1 / size).logpdf(turned)
    d = ContinuousBernoulli(())(logits=logits)
    assert off(d.log_prob(x), exact) < EXACT  # 1e-16 of 1e3
    moments = stats.truncexpon(size, scale=1 / size).stats()
    assert off(torch.where(logits > 0, 1 - d.mean, d.mean), moments[0]) < EXACT
    wide = size > 0.1  # below it SciPy's own formula loses digits
    assert off(d.variance[wide], moments[1][wide]) < EXACT
    zero = ContinuousBernoulli(())(logits=torch.tensor(0.0, requires_grad=True))
    (slope,) = torch.autograd.grad(zero.log_prob(torch.tensor(0.75)), zero.logits)
    assert slope == 0.25  # x − mean


@pytest.mark.parametrize("exposure", [False, True])
def test_poisson_is_scipys(exposure, float64):
    log_rate, size = 3 * torch.randn(5, 4), torch.rand(5, 1) + 0.1
    given = {"exposure": size} if exposure else {}
    x = torch.poisson(log_rate.exp())
    exact = stats.poisson(log_rate.exp() * (size if exposure else 1)).logpmf(x).sum(-1)
    assert off(Poisson(4, exposure=exposure)(log_rate=log_rate, **given).log_prob(x), exact) < EXACT


@pytest.mark.parametrize("exposure", [False, True])
@pytest.mark.parametrize("inflated", [False, True])
def test_negative_binomial_is_scipys(exposure, inflated, float64):
    log_mean, raw, gate = (2 * torch.randn(3, 50, 4)).unbind()
    size = torch.rand(50, 4) + 0.1
    r = 1e-3 + raw.exp() / (1 + raw.exp() / 1e6)
    mean = log_mean.exp() * (size if exposure else 1)
    x = torch.poisson(mean)
    counted = stats.nbinom(r, r / (r + mean)).pmf(x)
    given = {"log_mean": log_mean, "dispersion": raw} | ({"exposure": size} if exposure else {})
    if inflated:
        zero = special.expit(gate.numpy())
        exact = np.log(zero * (x.numpy() == 0) + (1 - zero) * counted)
        given["gate"] = gate
    else:
        exact = np.log(counted)
    family = ZeroInflatedNegativeBinomial if inflated else NegativeBinomial
    d = family(4, dispersion=Predicted(), exposure=exposure)(**given)
    # SciPy's lgamma of counts up to 1e3 loses 1e-12.
    assert off(d.log_prob(x), exact.sum(-1)) < EXACT
    assert (x == 0).any() and (x > 100).any()


@pytest.mark.parametrize("count", [0.0, 3.0, 33.0, 1e3, 1e5, 1e7])
def test_a_negative_binomial_keeps_its_digits_in_float32(count):
    x = torch.tensor(count)
    for r in (1e-3, 0.1, 1.0, 20.0):
        for log_mean in (0.0, 5.0, 11.0):
            found = NegativeBinomial((), dispersion=r)(log_mean=torch.tensor(log_mean)).log_prob(x)
            mean = math.exp(log_mean)
            exact = stats.nbinom.logpmf(count, float(np.float32(r)), r / (r + mean))
            # A few units of rounding, 6e-8, of the terms that are added.
            room = 1e-6 * (1 + abs(exact) + 20 * r + count * math.log1p(r / mean))
            assert abs(found - exact) < 4 * room, (r, log_mean)


def test_draws_of_counts_are_counts_whatever_the_rate():
    wild = torch.tensor([43.0, 60.0, 100.0, 1e3, 1e4])
    assert (Poisson(5)(log_rate=wild).sample() >= 0).all()
    assert (NegativeBinomial(5, dispersion=1e-3)(log_mean=wild).sample((100,)) >= 0).all()


def test_a_dispersion_is_learned_as_a_logarithm():
    # One step of size 1 multiplies by e wherever it starts, and none leaves [1e-3, 1e6 + 1e-3].
    for start in (0.1, 10.0, 1e4):
        family = NegativeBinomial(3, dispersion=Shared(start))
        raw = family.shared["dispersion"]
        r, more = (family.transforms["dispersion"](v) for v in (raw, raw + 1))
        assert r == pytest.approx(start, rel=1e-5)  # rounding of float32, some units of 6e-8
        assert more / r == pytest.approx(torch.e, rel=0.02)  # 1e4 is 1 % of 1e6, 0.1 100 times 1e-3
    at = torch.tensor([-500.0, 0.0, 500.0], requires_grad=True)
    mean = NegativeBinomial(3, dispersion=Predicted())(log_mean=torch.zeros(3), dispersion=at)
    mean.log_prob(torch.tensor([3.0, 3.0, 3.0])).backward()
    assert at.grad.isfinite().all()
    ends = NegativeBinomial(1, dispersion=Predicted()).transforms["dispersion"](at.detach())
    assert ends.min() == pytest.approx(1e-3) and ends.max() == pytest.approx(1e6)
    with pytest.raises(ValueError, match="expected one below 1e"):
        NegativeBinomial(3, dispersion=Shared(2e6))


def test_an_exposure_is_the_mean_times_it():
    log_mean, size = torch.randn(7, 3), torch.rand(7, 1) + 0.5
    for build in (Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial):
        with_it, without = build(3, exposure=True), build(3)
        name, *more = without.shapes
        rest = {n: torch.randn(7, 3) for n in more} | dict(without.shared)
        a = with_it(exposure=size, **{name: log_mean}, **rest)
        b = without(**{name: log_mean}, **rest)
        # float32: an exponential of a sum against a product.
        assert torch.allclose(a.mean, size * b.mean, rtol=1e-5)
        part = Conditional(MLP(4), with_it, given=2)
        assert part(torch.randn(7, 2), exposure=size).event_shape == (3,)
        with pytest.raises(ValueError, match=r"expected \['exposure'\]"):
            part(torch.randn(7, 2))


def test_categorical_is_its_softmax(float64):
    logits, x = 5 * torch.randn(6, 3, 4), torch.randint(0, 4, (6, 3))
    logits[0] *= 1e4
    exact = np.take_along_axis(special.log_softmax(logits.numpy(), -1), x.numpy()[..., None], -1)
    d = Categorical(3, classes=4)(logits=logits)
    # float64 of sizes up to 1e5, a factor 10 to spare
    assert off(d.log_prob(x.double()), exact.sum((-2, -1))) < EXACT


def test_ordinal_is_differences_of_scipys_logistic(float64):
    family = Ordinal(3, classes=4)
    loc, x = torch.randn(6, 3), torch.randint(0, 4, (6, 3))
    raw = torch.randn(3, 3)
    cut = np.cumsum(np.c_[raw[:, :1], 1e-3 + softplus(raw[:, 1:])], axis=1)
    edges = np.c_[np.full(3, -np.inf), cut, np.full(3, np.inf)]
    cdf = stats.logistic.cdf(edges[None] - loc.numpy()[..., None])
    exact = np.log(np.take_along_axis(np.diff(cdf, axis=-1), x.numpy()[..., None], -1))
    d = family(loc=loc, cutpoints=raw)
    assert off(d.log_prob(x.double()), exact.sum((-2, -1))) < EXACT
    start = family(loc=torch.zeros(3), **family.shared)
    # float32 start values
    assert torch.allclose(start.base_dist.log_prob(torch.ones(3)).exp(), torch.tensor(0.25))


@pytest.mark.parametrize("levels", [2, 16, 256])
def test_discretised_logistic_is_differences_of_scipys_logistic(levels, float64):
    loc, raw, x = torch.randn(6, 3) / 2, torch.randn(6, 3), torch.randint(0, levels, (6, 3))
    x[0], x[1] = 0, levels - 1
    d = DiscretisedLogistic(3, levels=levels)(loc=loc, scale=raw)
    scale = 1e-3 + np.logaddexp(0, raw.numpy())
    y, h = 2 * x.numpy() / (levels - 1) - 1, 1 / (levels - 1)
    top = np.where(x == levels - 1, np.inf, y + h)
    low = np.where(x == 0, -np.inf, y - h)
    exact = np.log(stats.logistic(loc, scale).cdf(top) - stats.logistic(loc, scale).cdf(low))
    # A difference of two numbers near 1, 1e-3 or more: 1e-16 / 1e-3, times 3 cells.
    assert off(d.log_prob(x.double()), exact.sum(-1)) < EXACT


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
