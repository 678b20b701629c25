"""The record of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


class History:
    """One row per epoch, one column per quantity: nats per datum, averaged over the epoch.

    What has no meaning for a program has no column: a Delta guide has no ``elbo`` and no ``kl``.
    Columns: ``epoch``, ``loss``, and the parts of the objective (``elbo``, ``reconstruction``,
    ``kl``; or ``reconstruction``, ``adversarial``, ``critic_loss``, ``critic_accuracy``); the
    same with ``validation_`` in front; ``grad_norm`` (of the gradient of the per-datum mean,
    averaged over steps), ``learning_rate``, ``seconds`` (wall time of the epoch).

    Args:
        rows: The rows so far.

    Example:
        >>> history = History([{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.5}])
        >>> history["loss"], history.columns
        (array([3. , 2.5]), ('epoch', 'loss'))
    """

    def __init__(self, rows: list[dict[str, float]] | None = None) -> None:
        self.rows = [] if rows is None else rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.rows[0]) if self.rows else ()

    def __getitem__(self, column: str) -> NDArray[np.float64]:
        """Give one column, ``(epochs,)``."""
        if column not in self.columns:
            raise KeyError(f"No column {column!r} here; there are {', '.join(self.columns)}.")
        return np.array([row[column] for row in self.rows])

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        last = ", ".join(f"{k}={v:.4g}" for k, v in self.rows[-1].items()) if self.rows else "empty"
        return f"History({len(self)} epochs; last: {last})"

    def to_pandas(self) -> pd.DataFrame:
        """Give the table as a DataFrame, one row per epoch."""
        import pandas as pd

        return pd.DataFrame(self.rows)
