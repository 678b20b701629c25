"""Numbers as text: as many digits as the error leaves, and nothing that is not a number."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-4  # what is smaller is printed as "under 0.0001"


def value(x: float, digits: int = 2) -> str:
    """Give a number with a true minus sign; infinity as a sign, NaN in words.

    Example:
        >>> value(-3.14159), value(float("inf"))
        ('−3.14', '∞')
    """
    if math.isnan(x):
        return "not known"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    shown = f"{x:.{digits}f}"
    return (shown[1:] if float(shown) == 0 and shown[0] == "-" else shown).replace("-", "−")


def with_error(x: float, se: float) -> str:
    """Give ``x ± se``, the error as `error` gives it; the number alone where there is no error.

    Example:
        >>> with_error(-163.2408, 0.02431), with_error(1.0, 0.0), with_error(1.0, 1e-6)
        ('−163.241 ± 0.024', '1.00', '1.0000 ± under 0.0001')
    """
    if not math.isfinite(x) or not math.isfinite(se) or se <= 0:
        return value(x)
    return f"{value(x, _digits(se))} ± {error(se)}"


def error(x: float) -> str:
    """Give an error or a bias to two digits, and never a false zero.

    Example:
        >>> error(2.7801), error(0.0042), error(1e-7), error(0.0)
        ('2.8', '0.0042', 'under 0.0001', '0')
    """
    if x == 0 or not math.isfinite(x):
        return "0" if x == 0 else value(x)
    if 0 < x < SMALLEST:
        return "under 0.0001"
    return value(x, _digits(x))


def _digits(x: float) -> int:
    """Count the decimals that show two digits of x, at most four."""
    return max(0, min(4, 1 - math.floor(math.log10(abs(x)))))


def over_data(values: NDArray[np.float64]) -> tuple[float, float]:
    """Give the mean over data and its standard error, NaN where a value is infinite.

    Example:
        >>> over_data(np.array([1.0, 2.0, 3.0]))[0]
        2.0
    """
    with np.errstate(invalid="ignore"):
        return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def percent(x: float) -> str:
    r"""Give a share in per cent, without a false 0 or 100.

    Example:
        >>> [percent(x).replace("\u00a0", " ") for x in (0.423, 0.001, 0.9999)]
        ['42 %', 'under 1 %', 'over 99 %']
    """
    if 0 < x < 0.005:
        return "under 1\u00a0%"
    if 0.995 < x < 1:
        return "over 99\u00a0%"
    return f"{100 * x:.0f}\u00a0%"


def p_value(p: float) -> str:
    """Give a p-value after its effect.

    Example:
        >>> p_value(0.031), p_value(1e-9)
        ('p = 0.031', 'p < 0.0001')
    """
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def count(n: int, one: str, many: str | None = None) -> str:
    """Give a number of things.

    Example:
        >>> count(1, "datum", "data"), count(3, "epoch")
        ('1 datum', '3 epochs')
    """
    return f"{n} {one if n == 1 else many or one + 's'}"
