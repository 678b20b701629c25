"""Training curves."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ppl_vae.plots.style import FRESH, GUIDE, PRIOR, figure, styled, tile
from ppl_vae.training import History

BOUNDS = {"elbo": ("ELBO", GUIDE), "reconstruction": (r"E$_q$[log p(x|z)]", FRESH)}


@styled
def history(history: History) -> Figure:
    """Draw how training went: one panel for the likelihood, one for what holds q(z|x) to p(z).

    Validation curves are dashed. The first epochs may leave the frame, so that the last ones can
    be read.

    Args:
        history: What `fit` gave.

    Returns:
        The figure, in nats per datum.

    Raises:
        ValueError: If the history is empty.

    Example:
        >>> from ppl_vae import History
        >>> history(History([{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.5}])).axes[0].lines
        <Axes.ArtistList of 1 lines>
    """
    fig = figure(6.4, 2.6)
    draw_history(fig, history)
    return fig


def draw_history(fig: FigureBase, history: History) -> None:
    """Draw the curves into a figure or part of one."""
    if not len(history):
        raise ValueError("Got an empty history; expected one epoch or more. Try fit(...).history.")
    bounds = [c for c in BOUNDS if c in history] or ["loss"]
    panels = [bounds]
    panels += [[c] for c in ("kl", "mmd2") if c in history]
    panels += [[c] for c in history.critics("accuracy")]
    axes = tile(fig, len(panels))
    for ax, columns in zip(axes, panels, strict=True):
        for column in columns:
            label, colour = BOUNDS.get(column, (column, GUIDE))
            _curve(ax, history, column, label, colour)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.set_ylabel("nats per datum")
        if columns == ["kl"]:
            ax.set_title("KL(q(z|x) ‖ p(z))")
        elif columns == ["mmd2"]:
            ax.set_title("q(z) against p(z), in batches")
            ax.set_ylabel("MMD², unbiased")
            ax.axhline(0.0, color=PRIOR, linestyle=":")
        elif columns[0] in history.critics("accuracy"):
            ax.set_title(f"{history.critic_of(columns[0])}: q(z) told from p(z)")
            ax.set_ylabel("accuracy (chance: 0.5)")
            ax.axhline(0.5, color=PRIOR, linestyle=":")
        else:
            names = {"elbo": "bound", "reconstruction": "reconstruction", "loss": "loss"}
            ax.set_title(" and ".join(names[c] for c in columns))
    if len(axes[0].lines) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        across = 2 if any("not finite" in label for label in labels) else len(labels)
        fig.legend(handles, labels, loc="outside lower center", ncols=across)


def _curve(ax: Axes, history: History, column: str, label: str, colour: str) -> None:
    epochs = history["epoch"]
    alone = "o" if len(epochs) == 1 else None
    drawn = [history[column]]
    ax.plot(epochs, drawn[0], color=colour, label=label + _gaps(drawn[0]), marker=alone)
    if f"validation_{column}" in history:
        held = history[f"validation_{column}"]
        said = f"{label}, held out{_gaps(held)}"
        ax.plot(epochs, held, color=colour, linestyle="--", label=said)
        drawn.append(held)
    if column in history.critics("accuracy"):
        return
    late = np.concatenate([values[len(values) // 10 :] for values in drawn])
    late = late[np.isfinite(late)]
    if not len(late):
        return
    low, high = float(late.min()), float(late.max())
    pad = 0.06 * (high - low) or 1.0
    if ax.lines and len(ax.lines) > len(drawn):  # a second curve widens the frame of the first
        low, high = min(low, ax.get_ylim()[0] + pad), max(high, ax.get_ylim()[1] - pad)
    ax.set_ylim(low - pad, high + pad)


def _gaps(values: NDArray[np.float64]) -> str:
    """Say how many epochs have nothing to draw."""
    gaps = int(np.sum(~np.isfinite(values)))
    return f" ({gaps} of {len(values)} not finite)" if gaps else ""
