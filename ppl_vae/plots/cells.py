"""Data as the program sees them: reconstructions and draws, as images or column by column."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure, FigureBase
from numpy.typing import NDArray

from ppl_vae.diagnose import Diagnosis
from ppl_vae.plots.style import DATA, GUIDE, POINTS, PRIOR, bins, figure, legend_above, styled, tile

Floats = NDArray[np.float64]
ACROSS = 10  # images in a row
COLUMNS = 6  # columns of a table that are shown
CURVE = 20  # columns from which on a datum is drawn as a curve


@styled
def reconstructions(d: Diagnosis) -> Figure:
    """Draw data beside E[x|z], z ~ q(z|x).

    Images in two rows, one of each label where there are labels. Tables of under 20 columns as
    x against E[x|z], for the six columns of the largest variance; longer rows as curves.

    Args:
        d: What `diagnose` found.

    Example:
        >>> from ppl_vae import Program, diagnose
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(50, seed=1)
        >>> found = diagnose(Program(world.model, world.guide), x, num_samples=50, budget=0)
        >>> len(reconstructions(found).axes)
        5
    """
    fig = figure(6.4, _height(d, 1.4, 2.1, 2.2))
    draw_reconstructions(fig, d)
    return fig


@styled
def samples(d: Diagnosis) -> Figure:
    """Draw what the program generates from z ~ p(z).

    Images E[x|z] in four rows; tables as histograms of x ~ p(x|z) over those of the data, column by
    column; curves E[x|z] in one frame with data in another.

    Args:
        d: What `diagnose` found.
    """
    fig = figure(6.4, _height(d, 2.7, 2.1, 2.2))
    draw_samples(fig, d)
    return fig


def is_image(data: Floats) -> bool:
    """Whether rows are ``(h, w)`` or ``(c, h, w)`` with one or three channels."""
    return data.ndim == 3 or (data.ndim == 4 and data.shape[1] in (1, 3))


def draw_reconstructions(fig: FigureBase, d: Diagnosis) -> None:
    """Draw data beside their reconstructions into a figure or part of one."""
    if is_image(d.data):
        chosen = _one_of_each(d)
        both = np.concatenate([d.data[chosen], d.reconstructions[chosen]])
        draw_images(fig, both, ["x", "E[x|z]"], d.data)
        return
    data, model = _flat(d.data), _flat(d.reconstructions)
    if data.shape[1] >= CURVE:
        chosen = np.linspace(0, len(data) - 1, 3).astype(int)
        axes = tile(fig, 3)
        for ax, row in zip(axes, chosen, strict=True):
            ax.plot(data[row], color=DATA, linewidth=1, label="x")
            ax.plot(model[row], color=GUIDE, label="E[x|z]")
            ax.set_xlabel("column")
            ax.set_title(f"datum {row}")
        legend_above(fig, axes[0])
        return
    # A class has no mean.
    shown = [c for c in _columns(data) if np.isfinite(model[:, c]).any()] or [0]
    for ax, column in zip(tile(fig, len(shown)), shown, strict=True):
        x, fitted = data[:POINTS, column], model[:POINTS, column]
        ends = [np.nanmin([x, fitted]), np.nanmax([x, fitted])]
        ax.plot(ends, ends, color=PRIOR, linestyle=":")
        ax.scatter(x, fitted, s=6, color=GUIDE, alpha=0.5, linewidths=0, rasterized=True)
        ax.set_title(f"column {column}")
        ax.set_xlabel("x")
        ax.set_ylabel("E[x|z]")


def draw_samples(fig: FigureBase, d: Diagnosis) -> None:
    """Draw what the prior generates into a figure or part of one."""
    if is_image(d.data):
        draw_images(fig, d.samples[: 4 * ACROSS], None, d.data)
        return
    data = _flat(d.data)
    if data.shape[1] >= CURVE:
        left, right = tile(fig, 2)
        right.sharey(left)
        for ax, rows, title, colour in (
            (left, data, "x, observed", DATA),
            (right, _flat(d.samples), "E[x|z], z ~ p(z)", GUIDE),
        ):
            ax.plot(rows[:30].T, color=colour, alpha=0.35, linewidth=0.9)
            ax.set_title(title)
            ax.set_xlabel("column")
        return
    model, shown = _flat(d.generated), _columns(data)
    axes = tile(fig, len(shown))
    for ax, column in zip(axes, shown, strict=True):
        edges = bins(data[:, column], model[:, column])
        common: dict[str, Any] = {"bins": edges, "density": True}
        ax.hist(data[:, column], **common, color="#c9c9c9", label="data")
        ax.hist(model[:, column], **common, histtype="step", color=GUIDE, lw=1.6, label="model")
        ax.set_title(f"column {column}")
        ax.set_xlabel("x")
    axes[0].set_ylabel("density")
    legend_above(fig, axes[0])


def draw_images(
    fig: FigureBase, images: Floats, names: list[str] | None, reference: Floats
) -> None:
    """Draw rows of images as one picture: dark ink on white where they have one channel.

    Args:
        fig: A figure or part of one.
        images: In rows of ten.
        names: Of the rows.
        reference: Images that say what is light and what is dark.
    """
    low, high = float(np.nanmin(reference)), float(np.nanmax(reference))
    shown = (images - low) / max(high - low, 1e-12)
    if shown.ndim == 3:
        shown = shown[:, None]
    height, width = shown.shape[2:]
    gap = max(1, height // 16)
    rows = -(-len(shown) // ACROSS)
    sheet = np.full(
        (shown.shape[1], rows * (height + gap) + gap, ACROSS * (width + gap) + gap), np.nan
    )
    for k, image in enumerate(shown):
        top, left = gap + (k // ACROSS) * (height + gap), gap + (k % ACROSS) * (width + gap)
        sheet[:, top : top + height, left : left + width] = image.clip(0, 1)
    ax = fig.add_subplot()
    if len(sheet) == 3:
        filled = np.where(np.isnan(sheet), 0.925, sheet)
        ax.imshow(np.moveaxis(filled, 0, -1), interpolation="nearest")
    else:
        ink = matplotlib.colormaps["gray_r"].with_extremes(bad="#ececec")
        ax.imshow(sheet[0], cmap=ink, vmin=0, vmax=1, interpolation="nearest")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    centres = [gap + height / 2 + r * (height + gap) for r in range(rows)]
    ax.set_yticks(centres if names else [], names or [])
    ax.tick_params(length=0)


def _one_of_each(d: Diagnosis) -> NDArray[np.intp]:
    """Rows to show: the first of each label, filled up with the first of all."""
    first: NDArray[np.intp] = np.arange(0)
    if d.labels is not None:
        kinds, rows = np.unique(d.labels, return_index=True)
        first = rows if len(kinds) <= ACROSS else first
    rest = np.setdiff1d(np.arange(min(len(d.data), 2 * ACROSS)), first)
    return np.concatenate([first, rest])[:ACROSS]


def _columns(data: Floats) -> NDArray[np.intp]:
    """Name the columns of the largest variance, in their own order."""
    return np.sort(np.argsort(-np.nanvar(data, axis=0), kind="stable")[:COLUMNS])


def _flat(values: Floats) -> Floats:
    return values.reshape(len(values), -1)


def _height(d: Diagnosis, image: float, row: float, curve: float) -> float:
    if is_image(d.data):
        return image
    columns = _flat(d.data).shape[1]
    return curve if columns >= CURVE else row * -(-min(columns, COLUMNS) // 3)
