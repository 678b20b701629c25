"""Ranks against the uniform distribution: where a guide, or a model, is wrong."""

from __future__ import annotations

from matplotlib.figure import Figure, FigureBase

from ppl_vae.diagnostics import Calibration
from ppl_vae.plots.style import FRESH, GUIDE, figure, legend_above, plain, styled, tile

PANELS = 12
"""At most as many quantities are drawn: those with the smallest p-values."""


@styled
def calibration(c: Calibration) -> Figure:
    """Draw, for each quantity, the ECDF of its ranks less the uniform one, and the band.

    A line in the warm colour is a quantity that is not calibrated, all of them considered: above it
    on the left and below it on the right the truth ranks at both ends, for draws that are too
    narrow; the other way round they are too wide; to one side alone they are shifted (Säilynoja et
    al. 2022, fig. 2).

    Args:
        c: What `calibrate`, `prior_check` or `diagnostics.calibration` found.

    Example:
        >>> import numpy as np
        >>> from ppl_vae.diagnostics import calibration as test
        >>> ranks = np.random.default_rng(0).integers(0, 101, size=(2, 500))
        >>> len(calibration(test({"z[0]": ranks[0], "z[1]": ranks[1]}, num_draws=100)).axes)
        2
    """
    fig = figure(6.8, calibration_height(c))
    draw_calibration(fig, c)
    return fig


def calibration_height(c: Calibration) -> float:
    """Give the inches that its panels want."""
    return 1.75 * -(-min(len(c.tests), PANELS) // 3) + 0.4


def draw_calibration(fig: FigureBase, c: Calibration) -> None:
    """Draw the panels into a figure or part of one."""
    names = sorted(c.tests, key=lambda n: c.tests[n].p_value)[:PANELS]
    names = [n for n in c.tests if n in names]  # in the order in which they were given
    axes = tile(fig, len(names), across=min(3, len(names)))
    reach = max(
        float(abs(line - t.points).max())
        for t in (c.tests[n] for n in names)
        for line in (t.ecdf, t.low, t.high)
    )
    for k, (ax, name) in enumerate(zip(axes, names, strict=True)):
        t = c.tests[name]
        caught = c.p_values[name] <= 1 - t.level
        band = f"{100 * t.level:.0f} % of uniform ranks stay inside"
        ax.fill_between(t.points, t.low - t.points, t.high - t.points, color="#dddddd", label=band)
        ax.axhline(0, color="#999999", linewidth=0.8)
        ax.plot(t.points, t.ecdf - t.points, color=FRESH if caught else GUIDE, linewidth=1.4)
        p = c.p_values[name]
        ax.set_title(f"{plain(name)}: p {f'= {p:.2g}' if p >= 1e-4 else '< 0.0001'}", fontsize=9)
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        ax.set_ylim(-1.1 * reach, 1.1 * reach)
        if k % 3:
            ax.set_yticklabels([])
        else:
            ax.set_ylabel("ECDF − uniform")
        if k + 3 >= len(names):
            ax.set_xlabel("rank / draws")
    legend_above(fig, axes[0])
