"""How far imputed cells are from the truth, column by column, in units that compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.arrays import Floats

Level = Literal["numeric", "ordinal", "nominal"]


def imputation_error(
    truth: ArrayLike,
    point: ArrayLike,
    hidden: ArrayLike,
    levels: Level | Sequence[Level],
    *,
    classes: Sequence[int | None] | None = None,
) -> Floats:
    """Give the error of imputed cells by column, each between 0 and about 1.

    As Nazábal et al. 2020 (Handling incomplete heterogeneous data using VAEs, arXiv:1807.03653,
    section 5.1) have it: of numbers the root mean square error over the range of the column, of
    ordered classes the mean distance over K − 1, of other classes the share that is wrong.

    Args:
        truth: ``(N, D)``; cells that nobody knows are NaN, and are passed over.
        point: ``(N, D)``, the imputed table.
        hidden: ``(N, D)`` bool, True where a cell was hidden.
        levels: "numeric", "ordinal" or "nominal", one for all columns or one for each.
        classes: K of each ordinal column; where None, the range that `truth` has.

    Returns:
        ``(D,)``, NaN where nothing was hidden, or a column of numbers has no range.

    Raises:
        ValueError: If shapes or levels do not fit.

    Example:
        >>> truth = np.array([[0.0, 0], [5.0, 1], [10.0, 1]])
        >>> hidden = np.array([[False, True], [True, True], [False, False]])
        >>> imputation_error(truth, [[0, 1], [6, 1], [10, 1]], hidden, ["numeric", "nominal"])
        array([0.1, 0.5])
    """
    x, found = np.asarray(truth, dtype=np.float64), np.asarray(point, dtype=np.float64)
    gaps: NDArray[np.bool_] = np.asarray(hidden, dtype=bool)
    if not x.shape == found.shape == gaps.shape or x.ndim != 2:
        raise ValueError(
            f"Got truth {x.shape}, point {found.shape} and hidden {gaps.shape}; expected one shape "
            "(N, D). Try reshape(len(x), -1)."
        )
    kinds = [levels] * x.shape[1] if isinstance(levels, str) else list(levels)
    if len(kinds) != x.shape[1] or not set(kinds) <= {"numeric", "ordinal", "nominal"}:
        raise ValueError(
            f"Got levels {kinds}; expected {x.shape[1]} of 'numeric', 'ordinal' and 'nominal'. Try "
            "family.level of the likelihood."
        )
    gaps = gaps & ~np.isnan(x)
    errors = np.full(x.shape[1], np.nan)
    for d, kind in enumerate(kinds):
        off = (found[:, d] - x[:, d])[gaps[:, d]]
        spread = float(np.nanmax(x[:, d]) - np.nanmin(x[:, d]))
        if kind == "ordinal" and classes is not None and (known := classes[d]) is not None:
            spread = known - 1
        if not len(off) or (kind != "nominal" and not spread > 0):
            continue
        if kind == "numeric":
            errors[d] = (off**2).mean() ** 0.5 / spread
        elif kind == "ordinal":
            errors[d] = np.abs(off).mean() / spread
        else:
            errors[d] = (off != 0).mean()
    return errors
