"""Draws of a guide over draws of the posterior that it stands for, datum by datum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ppl_vae.diagnostics.agreement import Agreement
from ppl_vae.plots.style import DATA, GUIDE, bins, figure, legend_above, plain, styled, tile

Floats = NDArray[np.float64]

PANELS = 6
POINTS = 600  # of each cloud
SHARES = (0.5, 0.9)  # of the draws inside the two lines
GRID = 60
REFERENCE = "p(z|x), reference"


@styled
def agreement(a: Agreement, data: Sequence[int] | None = None) -> Figure:
    """Draw q(z|x) over the reference: half of the draws lie in the inner line, 90 % in the outer.

    Of more than two units those two of which q is farthest off, by the KL of their Normal fits. The
    title has the datum, k-hat, and how often a classifier tells the draws apart (chance is 50 %).

    Args:
        a: What `guide_agreement` or `diagnostics.agreement` found.
        data: Which data, 12 at most; when absent six, from the one most easily told apart to the
            one least so, in even steps.

    Raises:
        ValueError: If there is no such datum, or none or too many are asked for.

    Example:
        >>> from ppl_vae.diagnostics.agreement import agreement as compare
        >>> q, p = np.random.default_rng(0).standard_normal((2, 500, 3, 2))
        >>> len(agreement(compare(0.5 * q, p, seed=0)).axes)
        3
    """
    count = len(a.c2st)
    if data is None:
        steps = np.linspace(0, count - 1, min(PANELS, count)).round().astype(int)
        data = [int(n) for n in a.worst[steps]]
    if not 0 < len(data) <= 2 * PANELS or not all(0 <= n < count for n in data):
        raise ValueError(
            f"data: got {list(data)}, expected 1 to {2 * PANELS} of the numbers 0 to {count - 1}. "
            "Try None."
        )
    across = min(3, len(data))
    fig = figure(6.8, 2.35 * -(-len(data) // across) + 0.4)
    axes = tile(fig, len(data), across=across)
    for ax, n in zip(axes, data, strict=True):
        q, p = a.draws[:, n], a.reference[:, n]
        first, second = _farthest(q, p) if q.shape[1] > 1 else (0, 0)
        if first == second:
            _histograms(ax, q[:, first], p[:, first])
        else:
            _clouds(ax, q[:, [first, second]], p[:, [first, second]])
            ax.set_ylabel(plain(a.names[second]), labelpad=1)
        ax.set_xlabel(plain(a.names[first]), labelpad=1)
        tail = "" if a.khat is None else f"\nk-hat {_short(a.khat[n])}"
        told = "no reference" if np.isnan(a.c2st[n]) else f"told apart {a.c2st[n]:.0%}"
        ax.set_title(f"datum {n}: {told}{tail}", fontsize=9)
    legend_above(fig, axes[0])
    return fig


def _farthest(q: Floats, p: Floats) -> tuple[int, int]:
    """The two units whose Normal fits have the largest KL(q ‖ p)."""
    units = q.shape[1]
    delta = q.mean(0) - p.mean(0)
    ours, theirs = np.cov(q.T), np.cov(p.T)

    def kl(i: int, j: int) -> float:
        at = np.ix_((i, j), (i, j))
        precision = np.linalg.pinv(theirs[at])
        d = delta[[i, j]]
        spread = precision @ ours[at]
        sign, log_det = np.linalg.slogdet(spread)
        return float(np.trace(spread) + d @ precision @ d - (log_det if sign > 0 else -np.inf))

    return max(((i, j) for i in range(units) for j in range(i + 1, units)), key=lambda p: kl(*p))


def _clouds(ax: Axes, q: Floats, p: Floats) -> None:
    both = np.concatenate([q, p])
    low, high = np.quantile(both, [0.002, 0.998], axis=0)
    room = 0.08 * (high - low)
    low, high = low - room, high + room
    for draws, colour, label in ((p, DATA, REFERENCE), (q, GUIDE, "q(z|x)")):
        shown = draws[:: -(-len(draws) // POINTS)]
        ax.scatter(
            shown[:, 0], shown[:, 1], s=4, color=colour, alpha=0.18, linewidths=0, rasterized=True
        )
        _lines(ax, draws, low, high, colour)
        ax.plot([], [], color=colour, label=label)
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])


def _lines(ax: Axes, draws: Floats, low: Floats, high: Floats, colour: str) -> None:
    """Lines of equal density around given shares of the draws."""
    from scipy.stats import gaussian_kde

    kept = draws[:: -(-len(draws) // 2000)]
    if np.linalg.matrix_rank(np.cov(kept.T)) < 2:
        return  # a point or a line has no density
    density = gaussian_kde(kept.T)
    x, y = (np.linspace(a, b, GRID) for a, b in zip(low, high, strict=True))
    at = np.stack(np.meshgrid(x, y)).reshape(2, -1)
    levels = np.quantile(density(kept.T), [1 - s for s in SHARES])
    ax.contour(x, y, density(at).reshape(GRID, GRID), np.sort(levels), colors=colour,
               linewidths=1.3)  # fmt: skip


def _histograms(ax: Axes, q: Floats, p: Floats) -> None:
    edges = bins(q, p)
    ax.hist(p, edges, density=True, histtype="step", color=DATA, lw=1.5, label=REFERENCE)
    ax.hist(q, edges, density=True, color=GUIDE, alpha=0.45, label="q(z|x)")
    ax.set_ylabel("density")


def _short(value: float) -> str:
    return "not known" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
