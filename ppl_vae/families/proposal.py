"""Families proposed for the columns of a table, each with its reason."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppl_vae.conditional import Family
from ppl_vae.data import resolution
from ppl_vae.families.binary import Bernoulli
from ppl_vae.families.categories import Categorical, Ordinal
from ppl_vae.families.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from ppl_vae.families.positive import LogNormal
from ppl_vae.families.real import Normal
from ppl_vae.families.standardised import Standardised
from ppl_vae.families.zeros import zeros_expected

COUNTS = 1000
"""Whole numbers up to here are counts; larger ones, such as incomes, only if most are 0."""

FEW = 0.05
"""Zeros in more cells than this may be too many."""

MANY = 20
"""Text of more rows than this in which no value comes twice is a name, no class."""


class Proposal(NamedTuple):
    """What was proposed, and why.

    Attributes:
        families: By column; `Columns` takes them, changed where you know better.
        reasons: By column.
    """

    families: dict[str, Family]
    reasons: dict[str, str]

    def __repr__(self) -> str:
        return "\n".join(f"{c}: {f!r}: {self.reasons[c]}" for c, f in self.families.items())


def propose_columns(table: Any) -> Proposal:
    """Propose a family for each column of a DataFrame, by its dtype and values.

    Two values are Bernoulli; text and categories Categorical, or Ordinal where the dtype is
    ordered; small whole numbers from 0, and larger ones if most are 0, are Poisson,
    NegativeBinomial where they vary more, or ZeroInflatedNegativeBinomial where more are 0 than
    that explains; positive numbers whose logarithm is less skewed LogNormal; all else Normal. The
    last two are `Standardised` by the column. It is a start: 0 to 4 may be stars, which are
    Ordinal, and a postcode is no number. Missing values are passed over.

    Args:
        table: A pandas DataFrame.

    Raises:
        ValueError: If it is no table, or a column has one value or none.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"sold": [0, 1, 1, 2, 0], "cold": ["y", "n", "y", "y", "n"]})
        >>> propose_columns(table)
        sold: Poisson(()): whole numbers from 0 to 2, of mean 0.8 and variance 0.7
        cold: Bernoulli(()): two values, n and y, to be coded n = 0 and y = 1
    """
    if not hasattr(table, "columns") or not hasattr(table, "dtypes"):
        raise ValueError(
            f"Got a {type(table).__name__}; expected a pandas DataFrame, whose dtypes say what a "
            "column is. Try pd.DataFrame(x)."
        )
    if len(set(map(str, table.columns))) < len(table.columns):
        raise ValueError(
            f"Got the columns {list(table.columns)}; expected each name once. Try renaming."
        )
    proposed = {str(c): _proposed(repr(c), table[c]) for c in table.columns}
    return Proposal(
        {c: family for c, (family, _) in proposed.items()},
        {c: reason for c, (_, reason) in proposed.items()},
    )


def _proposed(column: str, values: Any) -> tuple[Family, str]:
    ordered = bool(getattr(values.dtype, "ordered", False))
    known = values.dropna().infer_objects()  # numbers stood beside None
    distinct = list(known.cat.categories) if hasattr(known, "cat") else list(known.unique())
    if not len(known):
        raise ValueError(
            f"Got the column {column} without a single value; expected some. Try leaving it out."
        )
    if len(distinct) < 2:
        raise ValueError(
            f"Got the column {column} with {len(distinct)} distinct values; expected two or "
            "more: there is nothing to model. Try leaving it out."
        )
    kind = known.dtype.kind
    if kind in "mMc":
        raise ValueError(
            f"Got the column {column} of dtype {values.dtype}; expected numbers, text or "
            "categories. Try days since the first, (t - t.min()).dt.days, or real and imaginary "
            "parts."
        )
    number = kind in "biuf"
    if number and not np.isfinite(known.to_numpy(dtype=np.float64)).all():
        raise ValueError(
            f"Got infinity in the column {column}; expected finite numbers, and NaN where one is "
            "missing. Try table.replace([np.inf, -np.inf], np.nan)."
        )
    unlike = len(distinct) == len(known) > 1  # no value twice
    if len(distinct) == 2 and not (number and unlike):
        low, high = distinct if ordered else sorted(distinct, key=_order)
        coded = "" if [low, high] == [0, 1] else f", to be coded {low} = 0 and {high} = 1"
        return Bernoulli(()), f"two values, {low} and {high}{coded}"
    if not number:
        if unlike and len(known) > MANY and not ordered:
            raise ValueError(
                f"Got the column {column}, text of which no value comes twice; expected classes. "
                "Try leaving it out, or .astype(float) if it holds numbers."
            )
        classes, how = len(distinct), "ordered" if ordered else "without an order"
        coded = f"{classes} classes {how}, to be coded 0 to {classes - 1}"
        return (Ordinal if ordered else Categorical)((), classes=classes), coded
    return _of_numbers(known.to_numpy(dtype=np.float64))


def _order(value: Any) -> tuple[str, Any]:  # noqa: ANN401
    """Sorts numbers among numbers and text among text."""
    return ("", value) if isinstance(value, int | float) else (type(value).__name__, str(value))


def _of_numbers(x: NDArray[np.float64]) -> tuple[Family, str]:
    low, high, mean, variance = x.min(), x.max(), x.mean(), x.var(ddof=1)
    zeros = float((x == 0).mean())
    if low >= 0 and (high <= COUNTS or zeros > 0.5) and (x == x.round()).all():
        said = (
            f"whole numbers from {low:g} to {high:g}, of mean {mean:.3g} and variance "
            f"{variance:.3g}"
        )
        # The variance of N draws of a Poisson is its mean, give or take √(2/N) of it.
        if variance <= mean * (1 + 3 * (2 / len(x)) ** 0.5):
            return Poisson(()), said
        if zeros > FEW and (expected := zeros_expected(x)) is not None:
            more = f", {zeros:.0%} of them 0 where the others leave room for {expected:.0%}"
            return ZeroInflatedNegativeBinomial(()), said + more
        return NegativeBinomial(()), said
    if low > 0 and _skewness(x) > 1 and abs(_skewness(np.log(x))) < _skewness(x):
        said = f"positive, skewness {_skewness(x):.2g}, of the logarithm {_skewness(np.log(x)):.2g}"
        return Standardised(LogNormal(()), scale=float(f"{np.median(x):.3g}")), said
    unit = float(f"{variance**0.5:.3g}")
    centre = float(f"{mean / unit:.2f}") * unit  # as near as the data are wide
    gap = float(resolution(x[:, None])[0])
    floor = max(1e-3, float(f"{gap / unit:.2g}"))
    family = Standardised(Normal((), min_scale=floor), loc=float(f"{centre:.10g}"), scale=unit)
    said = f"real numbers from {low:.3g} to {high:.3g}, half the smallest gap {gap:.2g}"
    if zeros > 0.2:
        said += (
            f"; {zeros:.0%} are exactly 0, which a density does not know: better two columns, "
            "whether it is 0, and the others with NaN where it is"
        )
    return family, said


def _skewness(x: NDArray[np.float64]) -> float:
    centred = x - x.mean()
    return float((centred**3).mean() / (centred**2).mean() ** 1.5)
