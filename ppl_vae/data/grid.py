"""Grids on boxes, and the search for the box in which an integrand has its mass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SEARCH_NODES = {1: 129, 2: 33}  # per axis, by dimensions
_DROP = 36.0  # exp(-36) = 2e-16: what lies this far below the peak is beyond float64
_ENOUGH = 20.0  # effective nodes from which to read the orientation of the mass


class Box(NamedTuple):
    """N boxes, each the image of the cube [-1, 1]^D under t -> centre + axes t.

    Shapes:
        centre ``(N, D)``, axes ``(N, D, D)``, one half-axis a column.

    Example:
        >>> Box.around(torch.tensor([[[0.0]], [[4.0]]])).widen(2.0).axes.item()
        4.0
    """

    centre: Tensor
    axes: Tensor

    @classmethod
    def around(cls, points: Tensor) -> Box:
        """Return the smallest upright boxes around points ``(G, N, D)``."""
        low, high = points.amin(0), points.amax(0)
        return cls((low + high) / 2, torch.diag_embed((high - low) / 2))

    def take(self, rows: Tensor) -> Box:
        """Return the boxes of some rows."""
        return Box(self.centre[rows], self.axes[rows])

    def widen(self, factor: float) -> Box:
        """Return the boxes stretched about their centres."""
        return Box(self.centre, factor * self.axes)

    def crop(self, low: Tensor, high: Tensor) -> Box:
        """Return the part, or the extension, where t lies from `low` to `high`, ``(N, D)``."""
        middle = (self.axes @ ((low + high) / 2)[..., None]).squeeze(-1)
        return Box(self.centre + middle, self.axes * ((high - low) / 2)[:, None])

    def turn(self, centre: Tensor, axes: Tensor) -> Box:
        """Return the box that is ``Box(centre, axes)`` in the coordinates t of this one."""
        return Box(self.centre + (self.axes @ centre[..., None]).squeeze(-1), self.axes @ axes)

    def nodes(self, per_axis: int) -> tuple[Tensor, Tensor]:
        """Return a regular grid on each box: nodes and the log volumes of their cells.

        Shapes:
            nodes ``(per_axis**D, N, D)``, ends included, the first axis slowest; volumes ``(N,)``.
        """
        t = lattice(per_axis, self.centre)
        volume = torch.linalg.slogdet(self.axes).logabsdet
        cell = volume + self.centre.shape[-1] * math.log(2 / (per_axis - 1))
        return self.centre + torch.einsum("nij,gj->gni", self.axes, t), cell


def lattice(per_axis: int, like: Tensor) -> Tensor:
    """Return the grid on the cube [-1, 1]^D, ``(per_axis**D, D)``, for `like` of shape ``(*, D)``.

    Example:
        >>> lattice(3, torch.zeros(1)).flatten()
        tensor([-1.,  0.,  1.])
    """
    axis = torch.linspace(-1, 1, per_axis, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(*[axis] * like.shape[-1]).reshape(-1, like.shape[-1])


def locate(log_mass: Callable[[Tensor], Tensor], box: Box) -> Box:
    """Move, turn, shrink and grow each box until it just holds the mass of its integrand.

    A box grows where the integrand at an edge is above exp(-36) of its peak. Otherwise it is
    turned along the mass and shrunk to where the integrand *may* be above that: between nodes it
    is taken to rise as high as a node plus its steps to its neighbours, as no quadratic does (by
    half at most), so that a mode narrower than the grid is narrowed down and not thrown away.

    Args:
        log_mass: The log integrand at nodes, one integrand for each box; maps ``(G, N, D)`` to
            ``(G, N)``.
        box: Where to start.

    Returns:
        The boxes found.

    Raises:
        ValueError: If no such boxes are found: the integrand does not decay, or is NaN.

    Example:
        >>> start = Box.around(torch.tensor([[[5.0]], [[900.0]]]).double())
        >>> found = locate(lambda u: -(u[..., 0] - 7).square() / 2, start)
        >>> 8.5 < found.axes.item() < 12, bool((found.centre - 7).abs() < 0.5)
        (True, True)
    """
    n, dims = box.centre.shape
    per_axis = SEARCH_NODES[dims]
    t, h = lattice(per_axis, box.centre), 2 / (per_axis - 1)
    peak = torch.full_like(box.centre[:, 0], -torch.inf)  # of all rounds: a coarse grid may miss it
    for _ in range(100):
        value = log_mass(box.nodes(per_axis)[0])
        lowest = value.where(value.isfinite(), torch.inf).amin(0)
        value = value.where(value.isfinite(), lowest)
        peak = torch.maximum(peak, value.amax(0))
        above = (value > peak - _DROP)[..., None]
        left = (above & (t == -1)[:, None]).any(0)
        right = (above & (t == 1)[:, None]).any(0)
        touched = (left | right).any(-1)
        grown = box.crop(-1 - left.to(t.dtype), 1 + right.to(t.dtype))

        middle, frame = _whiten(t, (value - value.amax(0)), h)
        inverse = torch.linalg.inv(frame)
        v = torch.einsum("nij,gnj->gni", inverse, t[:, None] - middle)
        keep = (_reach(value, per_axis, dims) > peak - _DROP)[..., None]
        margin = h * inverse.abs().sum(-1)  # one cell
        low = v.where(keep, torch.inf).amin(0) - margin
        high = v.where(keep, -torch.inf).amax(0) + margin
        shrunk = box.turn(middle, frame).crop(low, high)

        still = torch.linalg.det(shrunk.axes).abs() > 0.8 * torch.linalg.det(box.axes).abs()
        if (still & ~touched).all():
            return shrunk
        box = Box(
            grown.centre.where(touched[:, None], shrunk.centre),
            grown.axes.where(touched[:, None, None], shrunk.axes),
        )
    raise ValueError(
        "Found no box that holds the mass after 100 rounds of searching; expected densities that "
        "are finite and decay. Try a proper prior, and a decoder and guide that return no NaN."
    )


def _reach(value: Tensor, per_axis: int, dims: int) -> Tensor:
    # How high the integrand (G, N) may rise around each node.
    value = value.reshape([per_axis] * dims + [-1])
    reach = value.clone()
    for axis in range(dims):
        step, edge = value.diff(dim=axis).abs(), torch.zeros_like(value.narrow(axis, 0, 1))
        reach += torch.maximum(torch.cat([edge, step], axis), torch.cat([step, edge], axis))
    return reach.flatten(0, -2)


def _whiten(t: Tensor, log_weight: Tensor, h: float) -> tuple[Tensor, Tensor]:
    # Mean (N, D) and Cholesky factor (N, D, D) of the nodes, weighted by the integrand at the
    # lowest temperature at which enough of them count: heat leaves a Gaussian its orientation.
    temperature = 4.0 ** torch.arange(40, dtype=t.dtype, device=t.device)[:, None, None]
    heated = log_weight / temperature
    effective = (2 * heated.logsumexp(1) - (2 * heated).logsumexp(1)).exp()
    chosen = (effective >= _ENOUGH).int().argmax(0)
    weight = heated[chosen, :, torch.arange(len(chosen), device=t.device)].softmax(-1)  # (N, G)
    mean = weight @ t
    centred = t - mean[:, None]
    spread = torch.einsum("ng,ngi,ngj->nij", weight, centred, centred)
    cell = h**2 / 12 * torch.eye(t.shape[-1], dtype=t.dtype, device=t.device)  # its own variance
    return mean, torch.linalg.cholesky(spread + cell)
