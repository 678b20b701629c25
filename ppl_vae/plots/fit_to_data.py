"""Data beside what the model makes of itself."""

from __future__ import annotations

from matplotlib.figure import Figure, FigureBase

from ppl_vae.diagnostics import Typicality
from ppl_vae.plots.style import DATA, FRESH, GUIDE, bins, figure, legend_above, plain, styled
from ppl_vae.posterior import PosteriorCheck

SHOWN = 20
"""At most as many discrepancies are drawn: those with the largest effects."""


@styled
def typicality(t: Typicality) -> Figure:
    """Draw log p̂(x) of the data over that of the model's own, as densities.

    Args:
        t: What `ppl_vae.typicality` found.

    Example:
        >>> import numpy as np
        >>> from ppl_vae.diagnostics import typicality as compared
        >>> rng = np.random.default_rng(0)
        >>> len(typicality(compared(rng.normal(size=50), rng.normal(size=50))).axes)
        1
    """
    fig = figure(6.8, 2.2)
    draw_typicality(fig, t)
    return fig


def draw_typicality(fig: FigureBase, t: Typicality) -> None:
    """Draw both histograms into a figure or part of one."""
    ax = fig.add_subplot()
    edges = bins(t.log_evidence, t.simulated)
    for values, colour, label in (
        (t.simulated, "#b8b8b8", "data that the model made"),
        (t.log_evidence, GUIDE, "the data"),
    ):
        clipped = values.clip(edges[0], edges[-1])
        ax.hist(clipped, edges, density=True, color=colour, alpha=0.6, label=label)
    ax.set_xlabel("log $\\hat{p}$(x), nats (outermost bins hold the rest)")
    ax.set_ylabel("density")
    ax.set_yticks([])
    legend_above(fig, ax)


@styled
def posterior_check(c: PosteriorCheck) -> Figure:
    """Draw the effect of each discrepancy, with what replicated data sets vary by.

    Args:
        c: What `ppl_vae.posterior_check` found.
    """
    names = sorted(c.effects, key=lambda n: -abs(c.effects[n]))[:SHOWN]
    fig = figure(6.8, 0.26 * len(names) + 1.0)
    ax = fig.add_subplot()
    ax.axvspan(-0.2, 0.2, color="#e4e4e4", label="a small effect")
    ax.axvline(0, color=DATA, linewidth=1)
    for k, name in enumerate(names):
        effect = c.effects[name]
        apart = c.observed[name] - float(c.replicated[name].mean())
        unit = apart / effect if effect else 0.0
        spread = 2 * float(c.replicated[name].std()) / abs(unit) if unit else 0.0
        colour = GUIDE if abs(effect) < 0.2 else FRESH
        ax.errorbar([effect], [k], xerr=[spread], fmt="o", color=colour, markersize=4)
    ax.set_yticks(range(len(names)), [plain(n) for n in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    reach = max(0.5, *(abs(v) for v in c.effects.values())) * 1.15
    ax.set_xlim(-reach, reach)
    ax.set_xlabel("data less replicated mean, in sd over data (bars: 2 sd of replicated data sets)")
    legend_above(fig, ax)
    return fig
