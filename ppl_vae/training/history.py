"""The record of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = "validation_"
FIGURES = ("loss", "elbo", "reconstruction", "kl", "adversarial", "mmd2")


class History:
    """One row per epoch, one column per quantity: nats per datum, averaged over the epoch.

    What has no meaning for a program has no column: a Delta guide has no ``elbo`` and no ``kl``.
    Columns: ``epoch``, ``loss``, and the parts of the objective (``elbo``, ``reconstruction``,
    ``kl``; ``reconstruction``, ``mmd2``; or ``reconstruction``, ``adversarial`` and what is known
    of the critic: ``critic_loss``, ``critic_accuracy``, ``critic_saturation`` (the share of scores
    that teach it nothing) and ``critic_gradient`` (the norm of what it sends a code, in nats per
    unit of z, its weight included; of several critics ``critic_z_loss`` and so on)); the same with
    ``validation_`` in front; ``grad_norm`` (of the gradient of the per-datum mean,
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

    def critics(self, figure: str) -> list[str]:
        """Name the columns of a figure, such as "accuracy", of each critic; of none without one."""
        return [c for c in self.columns if c.startswith("critic_") and c.endswith(f"_{figure}")]

    @staticmethod
    def critic_of(column: str) -> str:
        """Say which critic a column is of.

        Example:
            >>> History.critic_of("critic_accuracy"), History.critic_of("critic_my_z_loss")
            ('critic', 'critic of my_z')
        """
        name = column.removeprefix("critic_").rpartition("_")[0]
        return f"critic of {name}" if name else "critic"

    def summary(self) -> str:
        """Say in a few lines how training went: how long, the last figures, the best held out.

        Example:
            >>> rows = [{"epoch": 1, "loss": 3.0, "validation_loss": 3.5, "seconds": 0.5}]
            >>> print(History(rows).summary())
            1 epoch in 0.5 s
            last: loss 3.00
            held out: loss 3.50
            best held out: loss 3.50 at epoch 1
        """
        if not self.rows:
            return "no epochs"
        seconds = sum(row.get("seconds", 0.0) for row in self.rows)
        said = [f"{len(self)} epoch{'s' if len(self) > 1 else ''} in {seconds:.1f} s"]
        for title, prefix in (("last", ""), ("held out", HELD_OUT)):
            shown = [c for c in (*FIGURES, *self.critics("accuracy")) if prefix + c in self]
            if shown:
                figures = ", ".join(f"{c} {self.rows[-1][prefix + c]:.2f}" for c in shown)
                said.append(f"{title}: {figures}")
        score = next((c for c in ("elbo", "loss") if HELD_OUT + c in self), None)
        # An adversary has no score: its loss is low where the critic is weak.
        if score is not None and not self.critics("loss"):
            curve = self[HELD_OUT + score]
            best = int(curve.argmax() if score == "elbo" else curve.argmin())
            said.append(
                f"best held out: {score} {curve[best]:.2f} at epoch {self.rows[best]['epoch']:.0f}"
            )
        return "\n".join(said)

    def to_pandas(self) -> pd.DataFrame:
        """Give the table as a DataFrame, one row per epoch."""
        import pandas as pd

        return pd.DataFrame(self.rows)
