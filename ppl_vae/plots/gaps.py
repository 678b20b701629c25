"""What a guide loses, datum by datum."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

from ppl_vae.diagnose.numbers import value
from ppl_vae.plots.style import DATA, FRESH, GOOD, GUIDE, figure, legend_above, styled
from ppl_vae.posterior import AIS, Gaps


@styled
def gaps(g: Gaps) -> Figure:
    """Draw the parts of log p(x) − ELBO(x) of each datum, on top of each other, largest first.

    Args:
        g: What `ppl_vae.gaps` found.

    Example:
        >>> from ppl_vae import Program, gaps as split
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(5, seed=1)
        >>> wide = Program(world.model, world.broken_guide(scale=1.5))
        >>> len(gaps(split(wide, x, steps=20, progress=False)).axes)
        1
    """
    fig = figure(6.8, 2.5)
    draw_gaps(fig, g)
    return fig


def draw_gaps(fig: FigureBase, g: Gaps) -> None:
    """Draw the parts into a figure or part of one."""
    ax = fig.add_subplot()
    order = np.argsort(-(g.amortisation + g.correlation + g.remainder), kind="stable")
    places, base = np.arange(len(order)), np.zeros(len(order))
    for name, part, colour in (
        ("remainder", g.remainder, GOOD),
        ("correlation", g.correlation, FRESH),
        ("amortisation", g.amortisation, GUIDE),
    ):
        height = np.maximum(part[order], 0)  # below 0 by chance alone
        label = f"{name} {value(float(part.mean()))}"
        ax.bar(places, height, bottom=base, width=1.0, color=colour, label=label)
        base += height
    ax.set_xlim(-0.5, len(order) - 0.5)
    ax.set_xlabel("datum, by what is lost")
    ax.set_ylabel("nats")
    ax.grid(visible=False, axis="x")
    legend_above(fig, ax)


@styled
def annealed(a: AIS, log_evidence: np.ndarray) -> Figure:
    """Draw log p̂(x) by annealing less that by a guide, datum by datum, with its error.

    Above the line the guide misses a part of the posterior; below it there were too few
    temperatures.

    Args:
        a: What `ppl_vae.ais` found.
        log_evidence: log p̂(x) of the same data under a guide, ``(N,)``.
    """
    fig = figure(6.8, 2.2)
    ax = fig.add_subplot()
    apart = a.log_evidence - log_evidence
    order = np.argsort(-apart, kind="stable")
    ax.axhline(0, color=DATA, linewidth=1)
    ax.errorbar(
        np.arange(len(order)), apart[order], 2 * a.se[order], fmt="o", color=GUIDE, markersize=3.5,
        linewidth=1,
    )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("datum, by what the guide misses (bars: 2 standard errors)")
    ax.set_ylabel("AIS less own guide (nats)")
    return fig
