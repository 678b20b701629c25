"""Every plot of a diagnosis on one sheet."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure, FigureBase

from ppl_vae.diagnose import Diagnosis
from ppl_vae.plots.calibration import calibration_height, draw_calibration
from ppl_vae.plots.cells import draw_reconstructions, draw_samples, is_image
from ppl_vae.plots.fit_to_data import draw_typicality
from ppl_vae.plots.gaps import draw_gaps
from ppl_vae.plots.latent import draw_latent_space, draw_match
from ppl_vae.plots.style import figure, plain, styled
from ppl_vae.plots.training import draw_history
from ppl_vae.plots.weights import draw_khat, draw_three_terms

Draw = Callable[[FigureBase, Diagnosis], None]


@styled
def diagnosis(d: Diagnosis) -> Figure:
    """Draw everything that was found out about a program on one sheet, two panels a row.

    What is undefined for the program is left out.

    Args:
        d: What `diagnose` found.

    Example:
        >>> from ppl_vae import Program, diagnose
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(50, seed=1)
        >>> found = diagnose(Program(world.model, world.guide), x, num_samples=50, budget=0)
        >>> len(diagnosis(found).subfigs)  # rows of two panels
        3
    """
    codes = d.codes is not None
    image = is_image(d.data)
    panels: list[tuple[str, Draw, float]] = [
        ("Reconstructions", draw_reconstructions, 1.6 if image else 3.6),
        ("Draws from the prior", draw_samples, 1.6 if image else 3.6),
    ]
    if (curves := d.history) is not None and len(curves):
        panels.append(("Training", lambda fig, _: draw_history(fig, curves), 2.6))
    if d.terms is not None:
        panels.append(("The three terms", draw_three_terms, 2.6))
    if codes:
        panels.append(("Latent space", draw_latent_space, 3.8))
        panels.append(("q(z) against p(z)", draw_match, 3.8))
    if d.evidence is not None or d.fresh_evidence is not None:
        panels.append(("k-hat", draw_khat, 3.0))
    if (ranked := d.calibration) is not None:
        height = calibration_height(ranked)
        panels.append(("Calibration", lambda fig, _: draw_calibration(fig, ranked), height))
    if (lost := d.gaps) is not None:
        panels.append(("Gaps", lambda fig, _: draw_gaps(fig, lost), 2.6))
    if (density := d.typicality) is not None:
        panels.append(("Typicality", lambda fig, _: draw_typicality(fig, density), 2.6))
    rows = [panels[k : k + 2] for k in range(0, len(panels), 2)]
    heights = [max(height for _, _, height in row) + 0.3 for row in rows]
    fig = figure(12.0, sum(heights) + 0.5)
    fig.suptitle(plain(d.name), x=0.01, ha="left", fontsize=14, fontweight="bold")
    strips = fig.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for strip, row in zip(strips, rows, strict=True):
        parts = strip.subfigures(1, len(row), wspace=0.03, squeeze=False)[0]
        for part, (title, draw, _) in zip(parts, row, strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
            draw(part, d)
    return fig
