"""Data that comes with the dependencies: nothing is downloaded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load scikit-learn's handwritten digits: counts 0..16 of ink dots per cell.

    The right likelihood is ``Binomial((8, 8), total=16)``: they are neither binary nor a
    density. (Alpaydin & Kaynak 1998, UCI optical recognition of handwritten digits, test part.)

    Returns:
        Images ``(1797, 8, 8)`` and labels ``(1797,)``.

    Example:
        >>> x, labels = digits()
        >>> x.shape, float(x.min()), float(x.max())
        ((1797, 8, 8), 0.0, 16.0)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.float32), bunch.target.astype(np.int64)
