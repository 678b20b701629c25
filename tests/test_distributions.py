"""Distributions of our own, and KL divergences, against torch, SciPy, many digits and by hand."""

import math

import mpmath  # torch brings it, by way of sympy
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from ppl_vae.distributions import (
    ContinuousBernoulli,
    CumulativeLogit,
    DiscretisedLogistic,
    MixtureOfNormals,
    NegativeBinomial,
    Poisson,
    ZeroInflated,
    kl_divergence,
    mixture_log_prob,
)
from ppl_vae.distributions.negative_binomial import log_rising

SHAPES = [(1, 1), (3, 2), (50, 10), (7, 40)]  # (K, D)


def mixture(components: int, features: int, offset: float = 0.0) -> tuple[Tensor, ...]:
    """Log weights, and locs and scales that float32 represents."""
    log_weights = torch.randn(components).double().log_softmax(-1)
    loc = (torch.randn(components, features) + offset).double()
    scale = (torch.rand(components, features) + 0.5).double()
    return log_weights, loc, scale


def torchs(value: Tensor, log_weights: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    parts = torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)
    which = torch.distributions.Categorical(logits=log_weights)
    return torch.distributions.MixtureSameFamily(which, parts).log_prob(value)


@pytest.mark.parametrize(("components", "features"), SHAPES)
@pytest.mark.parametrize("batch", [(), (6,), (2, 3)])
def test_float64_agrees_with_torch(components, features, batch):
    parameters = mixture(components, features)
    value = 2 * torch.randn(*batch, features).double()
    ours, exact = mixture_log_prob(value, *parameters), torchs(value, *parameters)
    assert ours.shape == batch
    # The expansion sums 3 D terms below 1e2: 1e-16 * 1e2 * 120, with a factor 1e2 to spare.
    assert (ours - exact).abs().max() < 1e-10


def test_agrees_with_scipy():
    log_weights, loc, scale = mixture(4, 3)
    value = torch.randn(9, 3).double()
    terms = stats.norm(loc, scale).logpdf(value[:, None]).sum(-1)
    exact = special.logsumexp(terms + log_weights.numpy(), axis=-1)
    assert (mixture_log_prob(value, log_weights, loc, scale).numpy() - exact).max() < 1e-10


def rounding(value: Tensor, log_weights: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """How far off float32 may be: a bound by the usual analysis of sums.

    The quadratic form of component k is a sum of 3 D products of centred numbers; any order of
    summing keeps its error within (3 D + 5) u Σ_d (|v_d| + |loc_kd|)² / scale_kd², u = 2⁻²⁴ (a
    product of three rounded factors has 5 roundings at most). The normaliser and the weight add
    (D + 3) u times their sizes. An error e_k in each exponent moves the logsumexp by
    log Σ_k r_k exp(e_k) at most, r_k being the responsibilities; its own rounding is a few u.
    """
    u, features = 2.0**-24, loc.shape[-1]
    centre = loc.mean(0)
    size = ((value - centre).abs().unsqueeze(-2) + (loc - centre).abs()).square() / scale.square()
    constants = scale.log().abs().sum(-1) + features + log_weights.abs()
    error = u * ((3 * features + 5) * 0.5 * size.sum(-1) + (features + 3) * constants)
    terms = torch.distributions.Normal(loc, scale).log_prob(value.unsqueeze(-2)).sum(-1)
    share = (log_weights + terms).log_softmax(-1)
    total = (log_weights + terms).logsumexp(-1)
    largest = (log_weights + terms).abs().max(-1).values
    return (share + error).logsumexp(-1) + u * (4 + total.abs() + largest)


@pytest.mark.parametrize(("components", "features"), SHAPES)
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
def test_float32_error_is_that_of_rounding_and_no_offset_hurts(components, features, offset):
    log_weights, loc, scale = mixture(components, features, offset)
    value = (loc[torch.arange(200) % components] + torch.randn(200, features)).float().double()
    exact = torchs(value, log_weights, loc, scale)
    bound = rounding(value, log_weights, loc, scale)
    single = [t.float() for t in (value, log_weights, loc, scale)]
    # Log weights are no float32 numbers: rounding them moves the answer by u max|log w|.
    bound = bound + 2.0**-24 * log_weights.abs().max()
    assert ((mixture_log_prob(*single).double() - exact).abs() <= bound).all()


def test_the_bound_on_rounding_would_see_an_expansion_that_is_not_centred():
    log_weights, loc, scale = mixture(3, 2, offset=1e4)
    value = (loc[torch.arange(200) % 3] + torch.randn(200, 2)).float().double()
    v, w, m, s = (t.float() for t in (value, log_weights, loc, scale))
    precision = s.square().reciprocal()
    quadratic = v.square() @ precision.T - 2 * v @ (m * precision).T
    quadratic = quadratic + (m.square() * precision).sum(-1)
    normaliser = s.log().sum(-1) + math.log(2 * math.pi)
    naive = torch.logsumexp(w - normaliser - 0.5 * quadratic, -1)
    error = (naive.double() - torchs(value, log_weights, loc, scale)).abs()
    # (1e4)² has a spacing of 8 in float32: nats are lost, where the bound allows 1e-5.
    assert error.max() > 1 and rounding(value, log_weights, loc, scale).max() < 1e-4


def test_gradients_agree_with_torch():
    parameters = [t.requires_grad_() for t in mixture(5, 3)]
    value = torch.randn(8, 3).double().requires_grad_()
    found = [
        torch.autograd.grad(f(value, *parameters).sum(), [value, *parameters])
        for f in (mixture_log_prob, lambda v, w, m, s: torchs(v, w, m, s))
    ]
    # torch normalises its weights once more, which projects that gradient on sum 0.
    ours, theirs = [list(g) for g in found]
    weights = parameters[0].exp()
    ours[1] = ours[1] - weights * ours[1].sum()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)  # as above, one division by scale more


def test_the_distribution_expands_and_draws_its_shapes():
    log_weights, loc, scale = mixture(3, 2)
    one = MixtureOfNormals(log_weights, loc, scale)
    rows = one.expand((5,))
    assert one.sample().shape == (2,) and rows.sample((4,)).shape == (4, 5, 2)
    assert one.sample((0,)).shape == (0, 2)
    z = rows.sample((4,))
    assert rows.log_prob(z).shape == (4, 5) and rows.log_prob(z[0, 0]).shape == (5,)
    assert torch.equal(rows.log_prob(z), one.log_prob(z))


def test_a_value_of_another_size_is_refused_and_does_not_broadcast():
    one = MixtureOfNormals(*mixture(3, 2))
    with pytest.raises(ValueError, match="size"):
        one.log_prob(torch.zeros(5, 1).double())


# ------------------------------------------------------------------------------------ KL


def full(dims: int, batch: tuple[int, ...] = ()) -> dist.MultivariateNormal:
    lower = 0.5 * torch.randn(*batch, dims, dims).double().tril(-1)
    lower = lower + torch.diag_embed(torch.rand(*batch, dims).double() + 0.5)
    return dist.MultivariateNormal(torch.randn(*batch, dims).double(), scale_tril=lower)


def diagonal(dims: int, batch: tuple[int, ...] = ()) -> dist.Independent:
    loc, scale = torch.randn(*batch, dims).double(), torch.rand(*batch, dims).double() + 0.5
    return dist.Normal(loc, scale).to_event(1)


def low_rank(dims: int, batch: tuple[int, ...] = ()) -> dist.LowRankMultivariateNormal:
    loc, noise = torch.randn(*batch, dims).double(), torch.rand(*batch, dims).double() + 0.5
    return dist.LowRankMultivariateNormal(loc, torch.randn(*batch, dims, 1).double(), noise)


def by_hand(q, p) -> float:
    """½ [tr(Σp⁻¹Σq) + (μp − μq)ᵀ Σp⁻¹ (μp − μq) − D + log det Σp/Σq]."""
    (mq, sq), (mp, sp) = (
        (d.mean.numpy(), getattr(d, "covariance_matrix", torch.diag_embed(d.variance)).numpy())
        for d in (q, p)
    )
    inverse, shift = np.linalg.inv(sp), mp - mq
    logs = np.linalg.slogdet(sp)[1] - np.linalg.slogdet(sq)[1]
    return 0.5 * (np.trace(inverse @ sq) + shift @ inverse @ shift - len(mq) + logs)


PAIRS = [(full, diagonal), (diagonal, full), (full, full), (diagonal, diagonal)]
PAIRS += [(low_rank, diagonal), (diagonal, low_rank), (low_rank, full), (low_rank, low_rank)]


@pytest.mark.parametrize(("q", "p"), PAIRS)
@pytest.mark.parametrize("dims", [1, 3, 8])
def test_kl_is_the_closed_form(q, p, dims):
    q, p = q(dims), p(dims)
    # Inverses of condition number below 1e5 in float64: relative 1e-16 * 1e5, a factor 10 to spare.
    assert kl_divergence(q, p).item() == pytest.approx(by_hand(q, p), rel=1e-10)


@pytest.mark.parametrize(("q", "p"), PAIRS)
def test_kl_is_the_mean_of_the_log_ratio(q, p):
    q, p = q(3), p(3)
    z = q.sample((100_000,))
    ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std() / math.sqrt(len(z))
    # 4.9 standard errors: a false alarm once in 1e6 seeds, for each pair.
    assert abs(ratio.mean() - kl_divergence(q, p)) < 4.9 * error
    assert error < 0.02 * kl_divergence(q, p)  # so a tenth too much is seen


@pytest.mark.parametrize(("q", "p"), PAIRS)
def test_kl_of_a_batch_is_that_of_its_rows(q, p):
    q, p = q(3, (5,)), p(3)
    found = kl_divergence(q, p.expand((5,)))
    assert found.shape == (5,)
    assert torch.allclose(found, kl_divergence(q, p), rtol=1e-12)


def test_kl_of_a_distribution_to_itself_is_zero():
    for q in (full(4), diagonal(4), low_rank(4)):
        # Sums of D terms of size 1 that cancel.
        assert abs(kl_divergence(q, q)) < 1e-12


def test_kl_is_none_where_no_closed_form_is_known():
    one = MixtureOfNormals(*mixture(3, 2))
    assert kl_divergence(diagonal(2), one) is None and kl_divergence(full(2), one) is None


# ------------------------------------------------------------------- narrow components


@pytest.mark.parametrize(("components", "features"), [(10, 2), (10, 32)])
def test_narrow_components_far_apart_keep_float32s_precision(components, features):
    log_weights = torch.randn(components).log_softmax(-1)
    loc = 4 * torch.randn(components, features)
    scale = torch.full((components, features), 1e-3)  # the smallest that a floor leaves
    value = loc[torch.arange(100) % components] + 1e-3 * torch.randn(100, features)
    single = [t.requires_grad_() for t in (value, log_weights, loc, scale)]
    double = [t.detach().double().requires_grad_() for t in single]
    ours, exact = mixture_log_prob(*single), torchs(*double)
    assert ours.dtype == torch.float32
    # The answer is rounded once: u = 2**-24 of it. Before that the expansion cancels in float64:
    # terms up to (|v| + |loc|)² / scale² each with 3 D + 5 roundings, as in `rounding`. Locs and
    # values lie within 10 standard deviations of 4 and their centre.
    expansion = 2.0**-53 * (3 * features + 5) * 0.5 * features * (4 * 10 * 4 / 1e-3) ** 2
    # torch normalises the weights, whose sum float32 leaves within (K + 1) u of 1.
    bound = 2.0**-24 * (exact.abs() + components + 1) + expansion
    assert ((ours.double() - exact).abs() <= bound).all()
    assert bound.max() < 0.1  # nats were lost before
    found = torch.autograd.grad(ours.sum(), single)
    assert all(g.isfinite().all() for g in found)


# ------------------------------------------------- counts, classes, levels and grey values, far out

mpmath.mp.dps = 200  # 1 − sigmoid(200) is 1e-87
FAR = [1e-3, 0.3, 1.0, 30.0, 1e3, 1e6, 1e9]


def exact_negative_binomial(x, log_mean, r):
    mean, r = mpmath.exp(log_mean), mpmath.mpf(r)
    ways = mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
    return ways - r * mpmath.log1p(mean / r) - x * mpmath.log1p(r / mean)


def exact_bin(low, high):
    """log σ(high) − σ(low), on the side where neither is near 1."""
    if low > 0:
        low, high = -high, -low
    return mpmath.log(1 / (1 + mpmath.exp(-high)) - 1 / (1 + mpmath.exp(-low)))


def exact_ordinal(x, loc, cutpoints):
    edges = [-mpmath.inf, *map(mpmath.mpf, cutpoints), mpmath.inf]
    return exact_bin(edges[int(x)] - loc, edges[int(x) + 1] - loc)


def exact_levels(x, loc, scale, levels):
    top = mpmath.mpf(levels - 1)
    y = 2 * mpmath.mpf(x) / top - 1 - loc
    low = (y - 1 / top) / scale if x > 0 else -mpmath.inf
    high = (y + 1 / top) / scale if x < levels - 1 else mpmath.inf
    return exact_bin(low, high)


def exact_tilt(x, logits):
    size = mpmath.mpf(logits)
    return size * x - (mpmath.log(mpmath.expm1(size) / size) if size else 0)


def exact_inflated(x, log_mean, r, gate):
    zero = 1 / (1 + mpmath.exp(-mpmath.mpf(gate)))
    counted = (1 - zero) * mpmath.exp(exact_negative_binomial(x, log_mean, r))
    return mpmath.log(counted + (zero if x == 0 else 0))


def inflated(log_mean, r, gate):
    return ZeroInflated(NegativeBinomial(log_mean, r), gate)


def levels(loc, scale):
    return DiscretisedLogistic(loc, scale, 256)


def grades(loc, gap):
    return CumulativeLogit(loc, torch.stack([-gap, gap], -1))


EXTREMES = {
    "negative binomial": (
        NegativeBinomial,
        exact_negative_binomial,
        [(x, m, r) for x in (0.0, 1.0, 7.0, 1000.0) for m in (-30.0, 0.5, 12.0) for r in FAR],
    ),
    "zero-inflated": (
        inflated,
        exact_inflated,
        [(x, m, 2.0, g) for x in (0.0, 3.0) for m in (-30.0, 0.5) for g in (-200.0, 0.5, 200.0)],
    ),
    "ordinal": (
        grades,
        lambda x, loc, gap: exact_ordinal(x, loc, [-mpmath.mpf(gap), mpmath.mpf(gap)]),
        [(x, m, g) for x in (0.0, 1.0, 2.0) for m in (-300.0, 0.0, 40.0) for g in (5e-4, 50.0)],
    ),
    "levels": (
        levels,
        lambda x, loc, scale: exact_levels(x, mpmath.mpf(loc), mpmath.mpf(scale), 256),
        [(x, m, s) for x in (0.0, 7.0, 255.0) for m in (-20.0, 0.25) for s in (1e-3, 0.5, 1e4)],
    ),
    "grey values": (
        ContinuousBernoulli,
        exact_tilt,
        [(x, s * a) for x in (0.0, 0.25, 1.0) for s in (-1, 1) for a in (0.0, 1e-6, *FAR[:-1])],
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_agree_with_many_digits(name, dtype):
    build, exact, cases = EXTREMES[name]
    for case in cases:
        x, *raw = (torch.tensor(v, dtype=dtype) for v in case)
        leaves = [v.requires_grad_() for v in raw]
        log_prob = build(*leaves).log_prob(x)
        true = exact(*(mpmath.mpf(t.item()) for t in (x, *raw)))
        # Terms are no larger than the log-prob, or x times a logarithm below 30, or, of bins, what
        # divides by the scale; ten operations of each are rounded. Stirling's series leaves out
        # 1e-11.
        size = 1 + abs(true) + 30 * case[0] + abs(case[1]) / (case[2] if name == "levels" else 1)
        bound = 10 * torch.finfo(dtype).eps * size + 2e-11
        assert abs(log_prob.item() - true) < bound, (case, true)
        gradients = torch.autograd.grad(log_prob, leaves)
        assert all(g.isfinite() for g in gradients), (case, gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_grey_values_has_all_digits(dtype):
    for size in (0.0, 1e-6, 1e-4, 1e-2, 0.3, 0.49, 0.51, 1.0, 5.0, 300.0):
        for sign in (-1, 1):
            logits = torch.tensor(sign * size, dtype=dtype, requires_grad=True)
            log_prob = ContinuousBernoulli(logits).log_prob(torch.tensor(0.25, dtype=dtype))
            (found,) = torch.autograd.grad(log_prob, logits)
            true = mpmath.mpf(logits.item())
            mean = 1 / (1 - mpmath.exp(-true)) - 1 / true if true else mpmath.mpf(0.5)
            # Numbers below 1/size, at most 2 where the formula is used: ten operations, 20 eps.
            assert abs(found.item() - (0.25 - mean)) < 20 * torch.finfo(dtype).eps + 1e-12, size


def test_what_is_owned_is_wrong_where_it_was_not():
    # Should these be mended upstream, ours may go.
    one = torch.tensor(1.0)
    theirs = pyro.distributions.ContinuousBernoulli(logits=20 * one, validate_args=False)
    assert abs(theirs.log_prob(one) - ContinuousBernoulli(20 * one).log_prob(one)) > 0.1
    theirs = pyro.distributions.NegativeBinomial(1e6 * one, logits=(1e-6 * one).log())
    assert abs(theirs.log_prob(2 * one) - NegativeBinomial(0 * one, 1e6).log_prob(2 * one)) > 0.1
    theirs = pyro.distributions.OrderedLogistic(100 * one, torch.tensor([-1.0, 1.0]))
    assert theirs.log_prob(one) > -20  # its true value is −98.9
    theirs = pyro.distributions.ZeroInflatedPoisson(one, gate_logits=20 * one)
    before = theirs.log_prob(one)
    theirs.sample()
    assert before.isfinite() and theirs.log_prob(one) == -torch.inf


@pytest.mark.parametrize("r", [1e-3, 0.7, 5.0, 1e8])
def test_log_rising_is_a_sum_of_logarithms(r):
    steps = torch.tensor([0.0, 1.0, 2.0, 50.0, 3000.0]).double()
    exact = [np.log(r + np.arange(int(n))).sum() for n in steps]
    ours = log_rising(torch.tensor(r, dtype=steps.dtype), steps)
    # Stirling's series leaves out 1e-11; the sums are of 3000 terms below 20.
    assert np.allclose(ours.numpy(), exact, rtol=1e-13, atol=2e-11)


@pytest.mark.parametrize(
    "d",
    [
        Poisson(torch.zeros(2)),
        NegativeBinomial(torch.zeros(2), 1.5),
        ZeroInflated(Poisson(torch.zeros(2)), torch.zeros(2)),
        ContinuousBernoulli(torch.zeros(2)),
        CumulativeLogit(torch.zeros(2), torch.tensor([-1.0, 1.0])),
        DiscretisedLogistic(torch.zeros(2), 0.3, 16),
    ],
    ids=lambda d: type(d).__name__,
)
def test_values_outside_the_support_are_refused_expanded_or_not(d):
    for one in (d, d.expand(torch.Size([3, 2])), d.to_event(1)):
        assert one.sample((4,)).shape == (4, *one.batch_shape, *one.event_shape)
        with pytest.raises(ValueError, match="within the support"):
            one.log_prob(torch.full((2,), -0.5))
    assert d.expand((3, 2)).mean.shape == d.expand((3, 2)).variance.shape == (3, 2)
