"""Draws of a guide beside draws of the posterior: where, and by how much, they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.arrays import Floats
from ppl_vae.diagnostics.two_sample import classifier_two_sample

LEAST = 20  # draws of either side, of each datum


@dataclass(frozen=True, eq=False)
class Agreement:
    """How q(z|x) differs from a reference, datum by datum; arrays of data are ``(N,)``.

    Attributes:
        mean_error: (mean of q − mean of the reference) / sd of the reference, ``(N, D)``.
        sd_ratio: sd of q / sd of the reference, ``(N, D)``: below 1 q is too narrow.
        correlation_error: Largest |difference| of a correlation of two units; 0 where D = 1.
        noise: Standard error of `mean_error` for a q that is right. That of log `sd_ratio` is
            0.7 of it (Normal tails), that of one correlation as large where it is 0.
        c2st: Held-out accuracy of a classifier that tells the draws apart: 1/2 if it cannot. NaN
            where the reference is worth fewer than 20 draws, and is none.
        c2st_se: Its standard error over the held-out draws.
        khat: Of the weights of the same guide, if they were given.
        draws: Of q, ``(S, N, D)``.
        reference: All draws of the reference, ``(R, N, D)``.
        names: Of the units.
    """

    mean_error: Floats
    sd_ratio: Floats
    correlation_error: Floats
    noise: Floats
    c2st: Floats
    c2st_se: Floats
    khat: Floats | None
    draws: Floats
    reference: Floats
    names: tuple[str, ...]

    @property
    def rms_mean_error(self) -> Floats:
        """Root mean square of `mean_error` over the units."""
        root: Floats = np.sqrt(np.square(self.mean_error).mean(1))
        return root

    @property
    def rms_log_sd_ratio(self) -> Floats:
        """Root mean square of log `sd_ratio` over the units: 0.7 is half, or twice, as wide."""
        with np.errstate(divide="ignore"):  # of a q without width
            root: Floats = np.sqrt(np.square(np.log(self.sd_ratio)).mean(1))
        return root

    @property
    def worst(self) -> NDArray[np.intp]:
        """The data, those that a classifier tells apart most easily first; without one, last."""
        return np.argsort(-self.c2st, kind="stable")

    @property
    def _told(self) -> str:
        known = self.c2st[~np.isnan(self.c2st)]
        lost = len(self.c2st) - len(known)
        missing = f"; {lost} without a reference" if lost else ""
        if not len(known):
            return missing[2:]
        return f"told apart in {np.median(known):.0%}, up to {known.max():.0%}, chance 50%{missing}"

    def __repr__(self) -> str:
        off = np.median(self.rms_mean_error)
        wide = np.median(self.sd_ratio)
        return (
            f"Agreement(N={len(self.c2st)}; in the median the mean is {off:.2g} sd off and the sd "
            f"{wide:.2g} of the reference's; {self._told})"
        )


def agreement(
    draws: ArrayLike,
    reference: ArrayLike,
    *,
    ess: ArrayLike | None = None,
    khat: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    seed: int,
) -> Agreement:
    """Set draws of q(z|x) beside draws of p(z|x), one datum at a time.

    Means, standard deviations and correlations say *how* they differ; a classifier (*Revisiting
    Classifier Two-Sample Tests*, Lopez-Paz & Oquab, 2017, arXiv:1610.06545) looks for the rest. Its
    accuracy claims no truth: 1/2 says that this classifier has found nothing in so many draws, and
    2 accuracy − 1 is on average no more than the total variation distance. k-hat, to be read beside
    it, is blind to a mode that q never visits; here it shows, if the reference has visited it.

    Draws of a Markov chain are alike where they are near, so that a classifier recognises those it
    was trained beside. With `ess`, the classifier is given one draw in every R/ESS, and `noise`
    counts ESS draws; moments are of all of them.

    Args:
        draws: Independent ones of q(z|x), all units side by side.
        reference: Of p(z|x), such as `reference_posterior`'s, chains one after the other.
        ess: Effective sample size of the reference, by datum; independent draws when absent.
        khat: By datum, to be kept beside.
        names: Of the units; z[0], z[1] and so on.
        seed: Of the classifiers.

    Shapes:
        draws ``(S, N, D)``, reference ``(R, N, D)``, ess and khat ``(N,)``.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, a unit of the reference does not
            vary, or there are fewer than 20 draws of either side.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> q, p = rng.standard_normal((2, 2000, 1, 2))
        >>> found = agreement(0.5 * q + 1, p, seed=0)
        >>> found.mean_error.round(1), found.sd_ratio.round(1)
        (array([[1., 1.]]), array([[0.5, 0.5]]))
        >>> bool(found.c2st[0] > 0.8), bool(agreement(q, p, seed=0).c2st[0] < 0.55)
        (True, True)
    """
    q, p = _as_draws(draws, "draws"), _as_draws(reference, "reference")
    if q.shape[1:] != p.shape[1:]:
        raise ValueError(
            f"draws and reference: got {q.shape[1:]} and {p.shape[1:]} data and units, expected "
            "the same. Try draws of the same data and latents."
        )
    count, units = q.shape[1:]
    worth = _by_datum(ess, "ess", count, float(len(p))).clip(1, len(p))
    labels = tuple(names) if names is not None else tuple(f"z[{d}]" for d in range(units))
    if len(labels) != units:
        raise ValueError(
            f"names: got {len(labels)} for {units} units, expected one each. Try None."
        )
    sd = p.std(0, ddof=1)
    if not (sd > 0).all():
        datum, unit = np.argwhere(~(sd > 0))[0]
        raise ValueError(
            f"reference: got draws that are all equal in {labels[unit]} of datum {datum}, expected "
            "ones that vary. Try looking at the chains."
        )
    accuracy, se = np.full((2, count), np.nan)
    for n in np.flatnonzero(worth >= LEAST):
        apart = p[:: int(np.ceil(len(p) / worth[n])), n]
        test = classifier_two_sample(q[:, n], apart, seed=seed + int(n))
        accuracy[n], se[n] = test.accuracy, test.se
    return Agreement(
        (q.mean(0) - p.mean(0)) / sd,
        q.std(0, ddof=1) / sd,
        np.array([abs(_correlation(q[:, n]) - _correlation(p[:, n])).max() for n in range(count)]),
        np.sqrt(1 / len(q) + 1 / worth),
        accuracy,
        se,
        None if khat is None else _by_datum(khat, "khat", count, np.nan),
        q,
        p,
        labels,
    )


def _as_draws(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 3 or len(array) < LEAST or 0 in array.shape:
        raise ValueError(
            f"{name}: got the shape {array.shape}, expected (S, N, D), S {LEAST} or more. Try "
            f"{name}[:, :, None] if one unit is meant, or more draws."
        )
    if not np.isfinite(array).all():
        at = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(
            f"{name}: got {array[tuple(at)]} at datum {at[1]}, expected finite numbers. Try the "
            "data without it."
        )
    return array


def _by_datum(values: ArrayLike | None, name: str, count: int, absent: float) -> Floats:
    array = np.full(count, absent) if values is None else np.asarray(values, dtype=np.float64)
    if array.shape != (count,):
        raise ValueError(
            f"{name}: got the shape {array.shape}, expected ({count},), one for each datum. Try "
            "None."
        )
    return array


def _correlation(draws: Floats) -> Floats:
    """Correlations of the units of draws ``(S, D)``; of one that does not vary, 0."""
    centred = draws - draws.mean(0)
    size = np.sqrt(np.square(centred).sum(0))
    scaled = centred / np.where(size > 0, size, 1.0)
    found: Floats = scaled.T @ scaled
    np.fill_diagonal(found, 1.0)
    return found
