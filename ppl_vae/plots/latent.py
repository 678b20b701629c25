"""The latent space: where the guide puts data, and whether that is where the prior is."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ppl_vae.diagnose import Diagnosis
from ppl_vae.plots.style import (
    FRESH,
    GUIDE,
    POINTS,
    PRIOR,
    bins,
    class_colours,
    figure,
    legend_above,
    plain,
    styled,
    tile,
)

Floats = NDArray[np.float64]
UNITS = 6  # coordinates whose marginals are shown
CLASSES = 20  # labels of more values are a scale


@styled
def latent_space(d: Diagnosis) -> Figure:
    """Draw the guide's means E_q[z|x] over draws of the prior, coloured by label.

    Two coordinates as they are, one as a histogram, more on the two principal axes of the means.

    Args:
        d: What `diagnose` found.

    Raises:
        ValueError: If the program has no latent of its own for each datum.
    """
    fig = figure(6.4, 4.6 if _codes(d)[0].shape[1] > 1 else 2.6)
    draw_latent_space(fig, d)
    return fig


@styled
def match(d: Diagnosis) -> Figure:
    """Draw q(z) = E_x q(z|x) against p(z), coordinate by coordinate.

    Of more than six coordinates the six that differ most (Kolmogorov's distance).

    Args:
        d: What `diagnose` found.

    Raises:
        ValueError: If the program has no latent of its own for each datum.
    """
    columns = min(_codes(d)[1].shape[1], UNITS)
    fig = figure(6.4, 2.2 * -(-columns // 3) + 0.2)
    draw_match(fig, d)
    return fig


@styled
def active_units(d: Diagnosis) -> Figure:
    """Draw Var_x E_q[z|x] of every unit, largest first, against the threshold; below its KL.

    Args:
        d: What `diagnose` found.

    Raises:
        ValueError: If the program has no latent of its own for each datum.
    """
    if d.active is None:
        raise ValueError(f"There are no units of single data here: {d.undefined}.")
    fig = figure(6.4, 2.3 if d.unit_kl is None else 3.8)
    axes = fig.subplots(1 if d.unit_kl is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    ax = axes[0]
    variance = np.maximum(d.active.variance, 1e-8)
    order = np.argsort(-variance, kind="stable")
    colours = np.where(d.active.active[order], GUIDE, "#c9c9c9")
    ax.bar(np.arange(len(order)), variance[order], color=colours)
    ax.axhline(d.active.threshold, color=FRESH, linestyle="--", label="threshold")
    ax.set_yscale("log")
    ax.set_ylabel("variance of its mean")
    if d.unit_kl is not None:
        axes[1].bar(np.arange(len(order)), d.unit_kl[order], color=colours)
        axes[1].set_ylabel("KL to p(z$_d$), nats")
    axes[-1].set_xlabel("unit, by variance")
    if len(order) <= 40:
        axes[-1].set_xticks(np.arange(len(order)), [plain(d.units[k]) for k in order])
        axes[-1].tick_params(axis="x", rotation=0 if len(order) <= 12 else 60)
    legend_above(fig, ax)
    return fig


def draw_latent_space(fig: FigureBase, d: Diagnosis) -> None:
    """Draw the latent space into a figure or part of one."""
    means, prior = _codes(d)[0], _codes(d)[2]
    ax = fig.add_subplot()
    if means.shape[1] == 1:
        _histogram(ax, d, means[:, 0], prior[:, 0])
        return
    names = [plain(n) for n in d.units[:2]]
    if means.shape[1] > 2:
        centre = means.mean(axis=0)
        _, scales, axes = np.linalg.svd(means - centre, full_matrices=False)
        # The sign of an axis is a matter of rounding; the largest entry is made positive.
        axes = axes[:2] * np.sign(axes[[0, 1], np.abs(axes[:2]).argmax(axis=1)])[:, None]
        means, prior = (means - centre) @ axes.T, (prior - centre) @ axes.T
        share = 100 * scales**2 / max((scales**2).sum(), 1e-300)
        names = [f"principal axis {k + 1} ({share[k]:.0f} % of variance)" for k in range(2)]
    drawn: dict[str, Any] = {"s": 9, "linewidths": 0, "rasterized": True, "label": "z ~ p(z)"}
    ax.scatter(prior[:POINTS, 0], prior[:POINTS, 1], color="#c9c9c9", **drawn)
    _points(fig, ax, d, means[:POINTS])
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])


def draw_match(fig: FigureBase, d: Diagnosis) -> None:
    """Draw the marginals of q(z) and p(z) into a figure or part of one."""
    _, codes, prior = _codes(d)
    chosen = np.arange(codes.shape[1])
    if len(chosen) > UNITS:
        distance = [_kolmogorov(codes[:, k], prior[:, k]) for k in chosen]
        chosen = np.sort(np.argsort(-np.array(distance), kind="stable")[:UNITS])
    panels = tile(fig, len(chosen))
    for n, (ax, k) in enumerate(zip(panels, chosen, strict=True)):
        edges = bins(codes[:, k], prior[:, k])
        ax.hist(codes[:, k], edges, density=True, color=GUIDE, alpha=0.45, label="q(z)")
        ax.hist(prior[:, k], edges, density=True, histtype="step", color="#444444", lw=1.5,
                label="p(z)")  # fmt: skip
        ax.set_xlabel(plain(d.units[k]))
        if n == 0:
            ax.set_ylabel("density")
    legend_above(fig, panels[0])


def _codes(d: Diagnosis) -> tuple[Floats, Floats, Floats]:
    if d.code_means is None or d.codes is None or d.prior_codes is None:
        raise ValueError(f"There is no latent space of single data here: {d.undefined}.")
    return d.code_means, d.codes, d.prior_codes


def _points(fig: FigureBase, ax: Axes, d: Diagnosis, means: Floats) -> None:
    style: dict[str, Any] = {"s": 14, "linewidths": 0, "alpha": 0.85, "rasterized": True}
    if d.labels is None:
        ax.scatter(means[:, 0], means[:, 1], **style, color=GUIDE, label=r"E$_q$[z|x]")
        ax.legend(loc="upper right", framealpha=0.9, frameon=True, edgecolor="none")
        return
    labels = d.labels[: len(means)]
    kinds = np.unique(d.labels)
    if len(kinds) > CLASSES and np.issubdtype(labels.dtype, np.number):
        shown = ax.scatter(means[:, 0], means[:, 1], **style, c=labels, cmap="viridis")
        fig.colorbar(shown, ax=ax, label="label")
    else:
        for kind, colour in zip(kinds, class_colours(len(kinds)), strict=True):
            own = means[labels == kind]
            ax.scatter(own[:, 0], own[:, 1], **style, color=colour)
        for kind in kinds[: 2 * CLASSES]:  # names over all points, so that none is hidden
            own = means[labels == kind]
            if len(own):
                ax.annotate(plain(kind), np.median(own, axis=0), ha="center", va="center",
                            fontsize=11, fontweight="bold",
                            path_effects=[withStroke(linewidth=3, foreground="white")])  # fmt: skip
    ax.legend(loc="upper right", framealpha=0.9, frameon=True, edgecolor="none", markerscale=1.5)


def _histogram(ax: Axes, d: Diagnosis, means: Floats, prior: Floats) -> None:
    edges = bins(means, prior)
    kinds = [] if d.labels is None else list(np.unique(d.labels))
    if d.labels is not None and 1 < len(kinds) <= CLASSES:
        groups = [means[d.labels == kind] for kind in kinds]
        total = len(means) * (edges[1] - edges[0])
        weights = [np.full(len(g), 1 / total) for g in groups]
        colours = class_colours(len(kinds))
        names = [plain(kind) for kind in kinds]
        ax.hist(groups, edges, weights=weights, stacked=True, color=colours, label=names)
    else:
        ax.hist(means, edges, density=True, color=GUIDE, alpha=0.6, label=r"E$_q$[z|x]")
    ax.hist(prior, edges, density=True, histtype="step", color=PRIOR, lw=1.8, label="z ~ p(z)")
    ax.set_xlabel("z")
    ax.set_ylabel("density")
    ax.legend(loc="upper right")


def _kolmogorov(x: Floats, y: Floats) -> float:
    from scipy.stats import ks_2samp

    return float(ks_2samp(x, y).statistic)
