"""Draws of the prior that no code is near, and what the decoder makes of them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure, FigureBase
from numpy.typing import NDArray

from ppl_vae.diagnostics import Coverage
from ppl_vae.plots.cells import draw_images, is_image
from ppl_vae.plots.style import GUIDE, PRIOR, figure, styled
from ppl_vae.posterior import PriorCoverage
from ppl_vae.posterior.draws import as_array

ACROSS = 10


@styled
def holes(coverage: Coverage | PriorCoverage, samples: NDArray[np.float64] | None = None) -> Figure:
    """Draw how far the prior's draws are from codes, and images of those in holes.

    Args:
        coverage: What `prior_coverage` gave, which has samples of its own, or what
            `ppl_vae.diagnostics.coverage` found of M draws of the prior.
        samples: E[x|z] at those draws, ``(M, *event)``; drawn where they are images ``(h, w)`` or
            ``(c, h, w)``. None for those of `prior_coverage`, of its first observed site.

    Raises:
        ValueError: If there are not M samples, or none.

    Example:
        >>> from ppl_vae import Program, prior_coverage
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(50, seed=1)
        >>> len(holes(prior_coverage(Program(world.model, world.guide), x)).axes)
        1
    """
    if isinstance(coverage, PriorCoverage):
        if samples is None:
            name, drawn = next(iter(coverage.draws.data.items()))
            samples = as_array(coverage.draws.means.get(name, drawn))
        coverage = coverage.coverage
    if samples is None:
        raise ValueError(
            "Got distances without samples; expected one for each draw of the prior. Try "
            "holes(prior_coverage(program, x)), or holes(diagnosis.coverage, diagnosis.samples)."
        )
    if len(samples) != len(coverage.distances):
        raise ValueError(
            f"Got {len(samples)} samples for {len(coverage.distances)} draws of the prior; "
            "expected one for each. Try the values of found.draws.means, by site, of the same "
            "prior_coverage(...)."
        )
    fig = figure(6.4, 3.7 if is_image(samples) else 2.1)
    if not is_image(samples):
        _distances(fig, coverage)
        return fig
    top, bottom = fig.subfigures(2, 1, height_ratios=(1.9, 1.8))
    _distances(top, coverage)
    inside = np.flatnonzero(coverage.distances <= 1)[:ACROSS]
    names, shown = ["among codes"], [inside]
    if len(far := coverage.holes[:ACROSS]):
        names, shown = ["in holes", *names], [far, *shown]
    # Rows of one length: what is lacking stays empty.
    images = np.full((len(shown) * ACROSS, *samples.shape[1:]), np.nan)
    for k, rows in enumerate(shown):
        images[k * ACROSS : k * ACROSS + len(rows)] = samples[rows]
    draw_images(bottom, images, names, samples)
    return fig


def _distances(fig: FigureBase, coverage: Coverage) -> None:
    ax = fig.add_subplot()
    top = min(max(3.0, float(np.quantile(coverage.distances.clip(max=10), 0.99))), 10.0)
    ax.hist(coverage.distances.clip(max=top), bins=60, range=(0, top), color=GUIDE, alpha=0.8)
    ax.axvline(1.0, color=PRIOR, linestyle=":")
    ax.set_xlabel("distance of z ~ p(z) from a code, in radii of its ball")
    ax.set_ylabel("draws")
    ax.set_title(f"{1 - coverage.share:.1%} of the draws lie in holes, right of the line")
