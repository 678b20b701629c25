"""One style for every figure: colours that the colour-blind can tell apart, quiet axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from io import BytesIO
from typing import ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from numpy.typing import ArrayLike

P = ParamSpec("P")

GUIDE = "#0072B2"  # q(z|x), and whatever the fitted program says
FRESH = "#D55E00"  # a freshly fitted guide
PRIOR = "#8C8C8C"  # p(z)
DATA = "#333333"  # what was observed
GOOD = "#009E73"  # a gain
OKABE_ITO = (GUIDE, FRESH, GOOD, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
CLASSES = (  # Petroff 2021, arXiv:2107.02270: ten colours
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
POINTS = 3000  # a scatter of more is a blot

STYLE = {
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": "#666666",
    "axes.labelsize": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "ppl_vae",
    "svg.fonttype": "path",
}
# The defaults of matplotlib below ours; the backend is the user's, and rc_context leaves it alone.
SETTINGS = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"} | STYLE


def figure(width: float, height: float) -> Figure:
    """Make an empty figure, in inches, laid out as it is drawn; pyplot never knows of it."""
    return Figure(figsize=(width, height), layout="constrained")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Let a function draw in the house's style, whatever the user's own settings are."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(SETTINGS):
            return draw(*args, **kwargs)

    return wrapper


def as_svg(fig: Figure) -> bytes:
    """Render a figure as SVG, the same bytes every time.

    Example:
        >>> as_svg(figure(1, 1))[:5]
        b'<?xml'
    """
    buffer = BytesIO()
    with matplotlib.rc_context(SETTINGS):
        fig.savefig(buffer, format="svg", dpi=144, metadata={"Date": None})
    return buffer.getvalue()


def tile(fig: FigureBase, count: int, across: int | None = None) -> list[Axes]:
    """Give `count` axes in rows of three, or of two where that leaves no gap."""
    columns = across or (2 if count in (2, 4) else min(3, count))
    rows = -(-count // columns)
    return [fig.add_subplot(rows, columns, k + 1) for k in range(count)]


def bins(*samples: ArrayLike, bulk: float = 0.99) -> list[float]:
    """Give bin edges that span the bulk of every sample, finer for larger ones; NaN is left out."""
    count = int(np.clip(1.3 * max(np.size(s) for s in samples) ** 0.5, 8, 40))
    tails = [(1 - bulk) / 2, (1 + bulk) / 2]
    limits = [np.nanquantile(np.asarray(s, dtype=np.float64), tails) for s in samples]
    low, high = min(lim[0] for lim in limits), max(lim[1] for lim in limits)
    if not low < high:
        low, high = low - 0.5, high + 0.5
    return list(np.linspace(low, high, count + 1))


def legend_above(fig: FigureBase, ax: Axes) -> None:
    """Put the legend of one axes above all of them, where no curve can hide it."""
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper right", ncols=len(labels), borderaxespad=0.2)


def plain(name: object) -> str:
    r"""Give somebody else's name as matplotlib shows it unread: no formula, no hidden entry.

    Example:
        >>> plain("_$5$")
        ' _\\$5\\$'
    """
    shown = str(name).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def class_colours(count: int) -> list[str]:
    """Give one colour to each of `count` classes; beyond ten they are shades."""
    if count <= len(CLASSES):
        return list(CLASSES[:count])
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 1, count))
    return [matplotlib.colors.to_hex(c) for c in shades]
