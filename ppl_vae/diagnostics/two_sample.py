"""Whether two samples come from one law, such as draws of q(z) and of p(z): effect and p-value."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import Floats, as_sample

BLOCK = 1024  # rows of the kernel matrix held at a time
HEURISTIC_ROWS = 2000  # rows of the reference that set the bandwidth


class MMDTest(NamedTuple):
    """The squared maximum mean discrepancy with its permutation p-value.

    Attributes:
        mmd2: The effect size, between 0 and 2: biased upwards by about `null_mean`.
        null_mean: Its mean over the permutations: what two samples of one law would show.
        null_high: Its 97.5 % quantile over the permutations: what chance seldom exceeds.
        p_value: (1 + permutations at least as large) / (1 + permutations).
        bandwidth: Of the kernel, in the units of z.
        permutations: How many were drawn.
        se: Standard error of `mmd2` where the laws differ; where they do not it means nothing.
    """

    mmd2: float
    null_mean: float
    null_high: float
    p_value: float
    bandwidth: float
    permutations: int
    se: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Limits for the MMD² of the two laws: mmd2 − null_mean, give or take standard errors.

        Normal, from the variance of the V-statistic's first term (Serfling 1980, Approximation
        Theorems of Mathematical Statistics, 5.5.1); cut at 0, and wide enough near it by what
        chance seldom exceeds.
        """
        from scipy.stats import norm

        centre = self.mmd2 - self.null_mean
        half = max(float(norm.ppf((1 + level) / 2)) * self.se, self.null_high - self.null_mean)
        return max(centre - half, 0.0), max(centre + half, 0.0)


class ClassifierTest(NamedTuple):
    """Held-out accuracy of a classifier that tells the two samples apart, with its p-value.

    Attributes:
        accuracy: The effect size: 1/2 if nothing is found. On average 2 accuracy - 1 is a lower
            bound on the total variation distance.
        se: Its standard error over the held-out draws, for this classifier.
        p_value: Exact binomial probability of an accuracy as high by guessing (one-sided).
        held_out: How many draws it was scored on.
    """

    accuracy: float
    se: float
    p_value: float
    held_out: int


def mmd2(x: ArrayLike, y: ArrayLike, bandwidth: float | None = None) -> float:
    r"""Compute the squared maximum mean discrepancy, ≥ 0 (V-statistic, biased upwards).

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y), k(a, b) = exp(-‖a - b‖² / 2h²): eq. 5 of *A
    Kernel Two-Sample Test* (Gretton et al., 2012; number recalled, not checked). Without a
    bandwidth h is the median distance within y (its first 2000 draws; the mean where most are
    equal): set by the reference alone, so that values for different guides are measured with one
    kernel.

    Args:
        x: Draws to be judged, such as z ~ q(z).
        y: Draws of the reference, such as z ~ p(z).
        bandwidth: h > 0, in the units of z.

    Shapes:
        x ``(N, D)``, y ``(M, D)``, both of at least two rows.

    Raises:
        ValueError: On anything not finite, different D, or a bandwidth that is not positive.

    Example:
        >>> mmd2([[0.0], [2.0]], [[0.0], [2.0]])
        0.0
    """
    first, second = _pair(x, y)
    signs = _signs(len(first), len(second))[:, None]
    pooled = np.concatenate([first, second])
    forms, _ = _quadratic_forms(pooled, signs, _bandwidth(second, bandwidth))
    return float(forms[0])


def mmd_test(
    x: ArrayLike,
    y: ArrayLike,
    *,
    permutations: int = 200,
    seed: int,
    bandwidth: float | None = None,
) -> MMDTest:
    """Test whether x and y have one law, by the MMD under random relabelling of the draws.

    The bandwidth is that of `mmd2` and stays fixed. A powerful test rejects every trained guide:
    read `mmd2` against `null_mean` first. Time grows as (N + M)², memory as N + M.

    Args:
        x: Draws to be judged.
        y: Draws of the reference.
        permutations: How many relabellings; the smallest p-value is one over that.
        seed: Of the relabellings.
        bandwidth: As in `mmd2`.

    Shapes:
        x ``(N, D)``, y ``(M, D)``.

    Raises:
        ValueError: As `mmd2`, or with fewer than one permutation.

    Example:
        >>> z = np.random.default_rng(0).standard_normal((200, 2))
        >>> mmd_test(z[:100] + 1, z[100:], seed=0).p_value < 0.01
        True
    """
    if permutations < 1:
        raise ValueError(f"permutations: got {permutations}, expected at least 1. Try 200.")
    first, second = _pair(x, y)
    h = _bandwidth(second, bandwidth)
    signs = _signs(len(first), len(second))
    rng = np.random.default_rng(seed)
    labels = np.stack([signs, *(rng.permutation(signs) for _ in range(permutations))], axis=1)
    (observed, *null), witness = _quadratic_forms(np.concatenate([first, second]), labels, h)
    exceed = np.sum(np.array(null) >= observed - 1e-12)  # equal splits differ by rounding
    p_value = (1 + exceed) / (1 + permutations)
    mean, high = float(np.mean(null)), float(np.quantile(null, 0.975))
    parts = witness[: len(first)], witness[len(first) :]
    se = 2 * np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts))
    return MMDTest(float(observed), mean, high, float(p_value), h, permutations, float(se))


def classifier_two_sample(x: ArrayLike, y: ArrayLike, *, seed: int) -> ClassifierTest:
    """Test whether x and y have one law, by the accuracy of a classifier on held-out draws.

    *Revisiting Classifier Two-Sample Tests* (Lopez-Paz & Oquab, 2017, arXiv:1610.06545). Half of
    the draws train, half are held out, both balanced (a longer sample is thinned to the shorter at
    random). The classifier averages two that miss different things: a logistic regression on
    standardised coordinates, their squares and products (means, scales, correlations), and boosted
    trees (shapes: tails, modes, gaps). The null p-value is binomial, exact or conservative.

    At N = M = 2000 a shift of 0.2 sd in both coordinates of D = 2 was found in 200 of 200 runs at
    level 0.05, at an accuracy of 0.552 on average, where the best possible is Φ(0.1414) = 0.556.
    Dependence among three or more coordinates whose pairs look right is found in few dimensions
    only.

    Args:
        x: Draws to be judged.
        y: Draws of the reference.
        seed: Of the split and of the classifier.

    Shapes:
        x ``(N, D)``, y ``(M, D)``, both of at least 20 rows.

    Raises:
        ValueError: On anything not finite, different D, or too few rows.

    Example:
        >>> z = np.random.default_rng(0).standard_normal((2000, 2))
        >>> test = classifier_two_sample(z[:1000] + 1, z[1000:], seed=0)
        >>> test.accuracy > 0.7, test.p_value < 1e-6
        (True, True)
    """
    from scipy.stats import binomtest
    from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    first, second = _pair(x, y, min_rows=20)
    size = min(len(first), len(second))
    rng = np.random.default_rng(seed)
    both = [rng.permutation(sample)[:size] for sample in (first, second)]
    train = np.concatenate([sample[: size // 2] for sample in both])
    test = np.concatenate([sample[size // 2 :] for sample in both])
    quadratic = make_pipeline(
        StandardScaler(),
        PolynomialFeatures(degree=2, include_bias=False),
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=1000),
    )
    trees = HistGradientBoostingClassifier(
        max_iter=50, learning_rate=0.05, max_leaf_nodes=8, early_stopping=False, random_state=seed
    )
    vote = VotingClassifier([("quadratic", quadratic), ("trees", trees)], voting="soft")
    vote.fit(train, np.arange(len(train)) < len(train) // 2)
    held_out = len(test)
    correct = int(np.sum(vote.predict(test) == (np.arange(held_out) < held_out // 2)))
    accuracy = correct / held_out
    return ClassifierTest(
        accuracy=accuracy,
        se=float(np.sqrt(accuracy * (1 - accuracy) / held_out)),
        p_value=float(binomtest(correct, held_out, 0.5, alternative="greater").pvalue),
        held_out=held_out,
    )


def _pair(x: ArrayLike, y: ArrayLike, min_rows: int = 2) -> tuple[Floats, Floats]:
    """Check the two samples."""
    first, second = as_sample(x, "x", min_rows), as_sample(y, "y", min_rows)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"x and y: got {first.shape[1]} and {second.shape[1]} columns, expected the same "
            "space. Try draws of the same latent variables in the same order."
        )
    return first, second


def _signs(first: int, second: int) -> Floats:
    """Weigh the draws so that their quadratic form in the kernel is the MMD."""
    return np.concatenate([np.full(first, 1 / first), np.full(second, -1 / second)])


def _bandwidth(reference: Floats, bandwidth: float | None) -> float:
    """Check a bandwidth, or take the median distance within the reference; the mean if it is 0."""
    from scipy.spatial.distance import pdist

    if bandwidth is None:
        apart = pdist(reference[:HEURISTIC_ROWS])
        bandwidth = float(np.median(apart)) or float(apart.mean())
        if bandwidth == 0:
            raise ValueError(
                "y: got draws that are all equal, expected some that differ. Try more draws of the "
                "reference."
            )
    if not 0 < bandwidth < np.inf:
        raise ValueError(f"bandwidth: got {bandwidth}, expected a positive number. Try None.")
    return float(bandwidth)


def _quadratic_forms(points: Floats, vectors: Floats, bandwidth: float) -> tuple[Floats, Floats]:
    """Compute vᵀ K v ≥ 0 for every column of vectors ``(N, P)``, and K v for the first of them.

    K comes by blocks of rows.
    """
    from scipy.spatial.distance import cdist

    total, first = np.zeros(vectors.shape[1]), np.empty(len(points))
    for start in range(0, len(points), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = cdist(points[rows], points, "sqeuclidean")
        kernel = np.exp(-distance / (2 * bandwidth**2))
        products = kernel @ vectors
        total += np.sum(vectors[rows] * products, axis=0)
        first[rows] = products[:, 0]
    return np.maximum(total, 0), first
