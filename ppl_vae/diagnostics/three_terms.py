"""The three terms of log p(x), all estimated from one set of draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import Floats, as_log_weights, as_matrix
from ppl_vae.diagnostics.log_mean import log_mean


class ThreeTerms(NamedTuple):
    """log p(x) = reconstruction - kl_prior + kl_posterior, per datum, in nats.

    Arrays are ``(N,)``; each estimate is followed by its Monte-Carlo standard error.

    Attributes:
        reconstruction: E_q[log p(x|z)], the negated distortion.
        kl_prior: KL(q(z|x) ‖ p(z)), the rate.
        kl_posterior: KL(q(z|x) ‖ p(z|x)), the gap: ≥ 0 by construction and biased low, by what
            log p̂ is (see `evidence`).
        elbo: reconstruction - kl_prior.
        log_evidence: log p̂(x), a stochastic lower bound.
    """

    reconstruction: Floats
    reconstruction_se: Floats
    kl_prior: Floats
    kl_prior_se: Floats
    kl_posterior: Floats
    kl_posterior_se: Floats
    elbo: Floats
    elbo_se: Floats
    log_evidence: Floats
    log_evidence_se: Floats


def three_terms(log_weights: ArrayLike, log_likelihood: ArrayLike) -> ThreeTerms:
    r"""Split log p(x) into reconstruction, KL to the prior and KL to the posterior.

    With log w_s = log p(x, z_s) - log q(z_s|x), z_s ~ q(z|x):

    - reconstruction = mean_s log p(x|z_s);
    - kl_prior = mean_s (log p(x|z_s) - log w_s), since the difference is log q(z_s|x) - log p(z_s);
    - kl_posterior = mean_s (log p̂ - log w_s), with log p̂ = log mean_s w_s.

    They add up to log p̂ by construction (the ELBO's identity: *An Introduction to Variational
    Autoencoders*, Kingma & Welling, 2019, section 2.2; recalled, not checked). Standard errors are
    sd/√S of the terms averaged. The third has log p̂ and the mean of log w from the same draws,
    whose errors nearly cancel if the guide is good: by the delta method it is that of
    mean_s (w_s / p̂ - log w_s), much smaller than either.

    A guide with draws outside the prior's support (log w = -inf, log p(x|z) finite) has infinite
    KLs, and gets them. Where log p(x|z) itself is -inf the rate of that draw cannot be told from
    the difference: kl_prior is then NaN. Standard errors of what is not finite are NaN.

    Args:
        log_weights: log p(x, z) - log q(z|x), draws first.
        log_likelihood: log p(x|z) of the same draws.

    Shapes:
        Both ``(S, N)`` with S ≥ 2.

    Raises:
        ValueError: On NaN, +inf, a datum whose weights are all zero, shapes that differ, or a
            likelihood of zero where the weight is not.

    Example:
        >>> z = np.random.default_rng(0).standard_normal((1000, 1))  # q(z|x) = p(z): no rate
        >>> log_lik = -0.5 * (1.0 - z) ** 2 - 0.919
        >>> t = three_terms(log_lik, log_lik)
        >>> t.kl_prior.item(), round((t.elbo + t.kl_posterior - t.log_evidence).item(), 12)
        (0.0, 0.0)
    """
    log_w = as_log_weights(log_weights, min_draws=2)
    log_lik = as_matrix(log_likelihood, "log_likelihood", ("S", "N"))
    if log_lik.shape != log_w.shape:
        raise ValueError(
            f"log_likelihood: got shape {log_lik.shape}, expected that of log_weights, "
            f"{log_w.shape}. Try both from one set of draws, summed over the event."
        )
    if (np.isneginf(log_lik) & ~np.isneginf(log_w)).any():
        raise ValueError(
            "log_likelihood: got -inf where the log weight is finite, expected log p(x|z) to be "
            "part of log w. Try both from one set of draws."
        )
    log_evidence = log_mean(log_w)
    relative = np.exp(log_w - log_evidence.value)  # w_s / p̂
    with np.errstate(invalid="ignore"):  # -inf - (-inf): unknown, NaN
        return ThreeTerms(
            *_mean_and_se(log_lik),
            *_mean_and_se(log_lik - log_w),
            np.maximum(_mean_and_se(log_evidence.value - log_w)[0], 0.0),
            _mean_and_se(relative - log_w)[1],
            *_mean_and_se(log_w),
            log_evidence.value,
            log_evidence.se,
        )


def _mean_and_se(terms: Floats) -> tuple[Floats, Floats]:
    """Average over the draws ``(S, N)``, with the standard error (NaN where not finite)."""
    mean = terms.mean(axis=0)
    return mean, (terms - mean).std(axis=0, ddof=1) / np.sqrt(len(terms))
