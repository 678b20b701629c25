"""What the importance weights say: the three terms, the evidence under two guides, k-hat."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnostics import Evidence, ThreeTerms
from ppl_vae.plots.style import DATA, FRESH, GOOD, GUIDE, bins, figure, styled, tile

Floats = NDArray[np.float64]
KHAT_RANGE = (-0.5, 1.5)


@styled
def three_terms(d: Diagnosis) -> Figure:
    """Draw log p(x) = reconstruction - KL to the prior + KL to the posterior.

    On the left the means over the data as steps that lead from one to the next; on the right
    both KLs of every datum.

    Args:
        d: What `diagnose` found.

    Returns:
        The figure, in nats per datum.

    Raises:
        ValueError: If the program has no log weights under its own guide.
    """
    fig = figure(6.4, 2.5)
    draw_three_terms(fig, d)
    return fig


@styled
def evidence(d: Diagnosis) -> Figure:
    """Draw log p̂(x) under the fresh guide less that under the program's own, for every datum.

    Both bound the same log p(x) from below, so that the larger is the nearer one: to the right of
    zero the own guide misses something, to the left of it the fresh one does.

    Args:
        d: What `diagnose` found.

    Raises:
        ValueError: If there is no evidence under either of the guides.
    """
    fig = figure(6.4, 2.2)
    draw_evidence(fig, d)
    return fig


@styled
def khat(d: Diagnosis) -> Figure:
    """Draw the histogram of k-hat over the data, for each guide there is.

    Args:
        d: What `diagnose` found.

    Raises:
        ValueError: If there is no evidence under any guide.
    """
    both = d.evidence is not None and d.fresh_evidence is not None
    fig = figure(6.4, 3.2 if both else 2.0)
    draw_khat(fig, d)
    return fig


def draw_three_terms(fig: FigureBase, d: Diagnosis) -> None:
    """Draw the three terms into a figure or part of one."""
    if d.terms is None:
        raise ValueError(f"There are no three terms: {d.undefined or 'sites were summed out'}.")
    terms = d.terms
    left, right = fig.subplots(1, 2, width_ratios=[1.5, 1])
    _steps(left, terms)
    kls = (
        (terms.kl_prior, GUIDE, "KL(q ‖ p(z))"),
        (terms.kl_posterior, FRESH, "KL(q ‖ p(z|x))"),
    )
    finite = [values[np.isfinite(values)] for values, _, _ in kls]
    drawn = [values for values in finite if len(values)]
    edges = bins(*drawn) if drawn else [0.0, 1.0]
    for (_, colour, label), values in zip(kls, finite, strict=True):
        right.hist(values.clip(edges[0], edges[-1]), edges, color=colour, alpha=0.55, label=label)
    right.set_xlabel("nats")
    right.set_ylabel("data")
    right.set_title("both KLs, per datum")
    right.legend(loc="upper right")


def draw_evidence(fig: FigureBase, d: Diagnosis) -> None:
    """Draw the difference of the two guides' evidence into a figure or part of one."""
    if d.evidence is None or d.fresh_evidence is None:
        raise ValueError(
            "Expected the evidence under two guides, the program's own and a fresh one; "
            f"{d.undefined or 'got no fresh one'}. Try "
            "diagnose(..., fresh=refit_guide(program, x))."
        )
    difference = d.fresh_evidence.log_evidence - d.evidence.log_evidence
    ax = fig.add_subplot()
    edges = bins(difference, [0.0], bulk=0.94)
    ax.hist(difference.clip(edges[0], edges[-1]), edges, color=FRESH, alpha=0.75)
    ax.axvline(0, color=DATA, linewidth=1)
    ax.set_xlabel(
        "log $\\hat{p}$(x), fresh guide less own guide (nats; outermost bins hold the rest)"
    )
    ax.set_ylabel("data")


def draw_khat(fig: FigureBase, d: Diagnosis) -> None:
    """Draw k-hat into a figure or part of one."""
    guides = [
        (name, found, colour)
        for name, found, colour in (
            ("own guide", d.evidence, GUIDE),
            ("fresh guide", d.fresh_evidence, FRESH),
        )
        if found is not None
    ]
    if not guides:
        raise ValueError(f"There are no weights, so no k-hat: {d.undefined}.")
    axes = tile(fig, len(guides), across=1)
    for ax, (name, found, colour) in zip(axes, guides, strict=True):
        _khat_panel(ax, name, found, colour)
    axes[-1].set_xlabel("k-hat (outermost bins hold what is beyond)")


def _khat_panel(ax: Axes, name: str, found: Evidence, colour: str) -> None:
    known = found.khat[~found.unknown]
    counts, edges = np.histogram(known.clip(*KHAT_RANGE), np.linspace(*KHAT_RANGE, 41))
    beyond = edges[:-1] > found.limit - 1e-9
    for part, alpha in ((~beyond, 1.0), (beyond, 0.4)):
        width = edges[1] - edges[0]
        ax.bar(edges[:-1][part], counts[part], width, align="edge", color=colour, alpha=alpha)
    if len(known):
        ax.axvline(found.limit, color=DATA, linestyle="--", linewidth=1.2)
        unknown = f", {found.unknown.mean():.0%} not known" if found.unknown.any() else ""
        said = f"{found.high.mean():.0%} above {found.limit:.2g}{unknown}"
    else:
        said = "k-hat not known"
    ax.set_title(f"{name}: {said}" + ("" if found.quantified.all() else ", error not quantified"))
    ax.set_ylabel("data")


def _steps(ax: Axes, terms: ThreeTerms) -> None:
    means = [float(v.mean()) for v in (terms.reconstruction, terms.kl_prior, terms.kl_posterior)]
    if not np.isfinite(means).all():
        ax.set_axis_off()
        ax.text(0, 0.5, "A mean is infinite: the guide draws\nwhere the posterior has no mass.")
        return
    recon, rate, gap = means
    rows = (
        (r"E$_q$[log p(x|z)]", recon, recon, GUIDE, _signed(recon)),
        ("− KL(q ‖ p(z))", recon, recon - rate, FRESH, _signed(-rate)),
        ("= ELBO", recon - rate, recon - rate, GUIDE, _signed(recon - rate)),
        ("+ KL(q ‖ p(z|x))", recon - rate, recon - rate + gap, GOOD, "+" + _signed(gap)),
        (r"= log $\hat{p}$(x)", recon - rate + gap, recon - rate + gap, GUIDE,
         _signed(recon - rate + gap)),
    )  # fmt: skip
    span = max(rate, gap, 1e-3)
    low, high = min(recon - rate, recon), max(recon, recon - rate + gap)
    for k, (_, start, stop, colour, words) in enumerate(rows):
        if start == stop:
            ax.plot([start], [k], "D", color=colour, markersize=6)
        else:
            ax.barh(k, stop - start, left=start, height=0.5, color=colour, alpha=0.8)
        ax.annotate(words, (max(start, stop), k), (8, 0), textcoords="offset points", va="center")
    for k, at in enumerate((recon, recon - rate, recon - rate, recon - rate + gap)):
        ax.plot([at, at], [k, k + 1], color="#999999", linewidth=0.8, zorder=0)
    ax.set_yticks(range(5), [row[0] for row in rows])
    ax.set_ylim(4.6, -0.6)
    ax.set_xlim(low - 0.12 * span, high + 0.5 * span)
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4))  # six characters each: more would touch
    ax.set_xlabel("nats per datum")
    ax.set_title("means over the data")


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
