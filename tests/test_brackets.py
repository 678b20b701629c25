"""Brackets of mutual information, and the interval that they are made of, against exact laws."""

import numpy as np
import pytest
from scipy import stats

from ppl_vae.diagnostics import information, log_mean_interval
from ppl_vae.diagnostics.mean_interval import mean_interval


def codes(rng, count, scale=1.0, shift=0.0, strength=1.0):
    """log q(z_i|x_j), log p(z_i), I(x; z) and KL(q(z) ‖ p(z)), exact, of x = strength z + noise.

    p(z|x) = N(a x, v): v = 1 / (1 + strength²), a = v strength; q is it, `scale` times as wide.
    """
    v = 1 / (1 + strength**2)
    x = strength * rng.standard_normal(count) + rng.standard_normal(count)
    loc, sd = v * strength * x + shift, scale * v**0.5
    z = loc + sd * rng.standard_normal(count)
    marginal = v * strength**2 + sd**2  # a² (1 + strength²) = v strength²
    kl = 0.5 * (marginal + shift**2 - 1 - np.log(marginal))
    exact = 0.5 * np.log(marginal / sd**2)
    return stats.norm(loc, sd).logpdf(z[:, None]), stats.norm.logpdf(z), exact, kl


def test_the_mean_of_squares_is_held_as_often_as_it_says():
    v = np.random.default_rng(0).standard_normal((50, 40_000)) ** 2  # E v = 1
    low, high = mean_interval(v)
    held = ((low <= 1) & (high >= 1)).mean()
    error = 1.96 * v.std(0, ddof=1) / 50**0.5
    plain = (np.abs(v.mean(0) - 1) <= error).mean()
    # Of 40 000 runs: SE 0.1 %. The docstring's figures, at 5 SE.
    assert abs(held - 0.958) < 0.005 and abs(plain - 0.917) < 0.007
    one = mean_interval(v[:, 3])
    assert (low[3], high[3]) == pytest.approx(one, rel=1e-12)


def test_of_weights_it_is_the_interval_of_the_evidence():
    w = np.random.default_rng(0).gamma(2.0, size=(100, 20))
    for level in (0.5, 0.95):
        for of_log, of_mean in zip(
            log_mean_interval(np.log(w), level), mean_interval(w, level), strict=True
        ):
            assert np.allclose(of_log, np.log(of_mean), atol=1e-12)
    # It moves with the values, and is the mean where they are constant.
    assert np.allclose(mean_interval(w - 5), np.subtract(mean_interval(w), 5), atol=1e-12)
    assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("scale", "shift", "strength"),
    [(1, 0, 0.3), (1.5, 0, 0.3), (0.5, 0.5, 1), (1, 0, 3), (0.5, 0, 5)],
)
def test_the_brackets_hold_the_truth(scale, shift, strength):
    rng = np.random.default_rng(0)
    held, ends = [], []
    for _ in range(200):
        log_q, log_p, exact, kl = codes(rng, 100, scale, shift, strength)
        found = information(log_q, log_p)
        (low, high), (kl_low, kl_high) = found.bracket, found.marginal_kl_bracket
        held.append((low <= exact <= high, kl_low - 1e-9 <= kl <= kl_high))
        ends.append((found.lower, found.upper, found.lower_se, found.upper_se))
        assert 0 <= low <= max(found.lower, 0) and max(found.upper, 0) <= high
        assert 0 <= kl_low <= found.marginal_kl[0] + 1e-12 and found.marginal_kl[1] <= kl_high
    # Each misses 2.5 % or less, give or take: 16 of 200 have a chance of 10^-4 at 2.5 %.
    assert (200 - np.sum(held, axis=0) < 16).all()
    lower, upper, lower_se, upper_se = np.transpose(ends)
    error = 5 * lower_se.mean() / 200**0.5
    assert lower.mean() < exact + error and upper.mean() > exact - error
    # Where the ends are near each other, their errors are those of independent terms: the spread of
    # 200 runs is known to 5 %, here at 5 SE.
    if upper.mean() - lower.mean() < 0.1:
        assert abs(lower_se.mean() / lower.std() - 1) < 0.25
        assert abs(upper_se.mean() / upper.std() - 1) < 0.25


def test_a_bracket_is_of_use():
    log_q, log_p, exact, _ = codes(np.random.default_rng(0), 1000)
    found = information(log_q, log_p)
    # I = 0.35; the terms' sd is 0.7, so 1000 of them leave ± 2.24 · 0.022, and the ends some 1/N.
    low, high = found.bracket
    assert low < exact < high and high - low < 0.15
    assert found.marginal_kl_bracket[0] == 0 and found.marginal_kl_bracket[1] < 0.01
    narrow, wide = (information(log_q, log_p, level=c).bracket for c in (0.5, 0.999))
    assert wide[0] < low < narrow[0] < narrow[1] < high < wide[1]
    assert repr(found) == (
        f"Information(N=1000; nats, 0.95 brackets: I(x; z) in [{low:.3f}, {high:.3f}], "
        f"KL(q(z) ‖ p(z)) in [0.000, {found.marginal_kl_bracket[1]:.3f}])"
    )


def test_codes_that_say_nothing_and_codes_that_no_other_guide_allows():
    z = np.random.default_rng(0).standard_normal(50)
    log_p = stats.norm.logpdf(z)
    nothing = information(np.broadcast_to(log_p[:, None], (50, 50)), log_p)
    for bracket in (nothing.bracket, nothing.marginal_kl_bracket):
        assert bracket == pytest.approx((0, 0), abs=1e-12)
    alone = information(np.where(np.eye(50, dtype=bool), 0.0, -np.inf), log_p)
    assert alone.lower == pytest.approx(alone.ceiling) and alone.upper == np.inf
    assert alone.bracket == pytest.approx((np.log(50), np.inf))
    assert alone.marginal_kl_bracket[0] == 0 and np.isfinite(alone.marginal_kl_bracket[1])


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: mean_interval([1.0, 2.0], level=1), "level: got 1"),
        (lambda: mean_interval([1.0]), r"shape \(1,\), expected"),
        (lambda: mean_interval(3.0), r"shape \(\), expected"),
        (lambda: mean_interval([1.0, np.nan]), "with NaN or inf"),
        (lambda: information(np.zeros((2, 2)), np.zeros(2), level=-0.5), "level: got -0.5"),
    ],
)
def test_bad_input_is_refused(ask, says):
    with pytest.raises(ValueError, match=says):
        ask()
