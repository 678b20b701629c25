"""Data and learned scales that do not go together: said before training, or after it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.conditional import Family
from ppl_vae.data import resolution
from ppl_vae.data.batches import Batch
from ppl_vae.data.resolution import gaps
from ppl_vae.distributions import Joint
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.vae import VAE, family_of

FAR = 30.0  # root mean square of a cell that a network starting near 0 reaches late
NEAR = 1.1  # times its floor: a scale on its way down gets this close
PEAK = 0.8  # of half a gap: below √(2/π) of it, the peak of a Normal is above 1 / gap
ROWS = 1024  # of a piece of the data: none of their size is ever made
SIZE = 2**22  # numbers that are sorted at once


def warn_of_data(program: nn.Module, batch: Batch) -> None:
    """Warn of cells far from where networks start, and of those that tell a scale nothing."""
    family = family_of(program) if isinstance(program, VAE) else None
    if family is None:
        return
    x = _without_gaps(batch)
    far, size = _far(family, x)
    if far.any():
        warnings.warn(
            f"{_cells(far)} of the data have a root mean square up to {size[far].max():.3g}; "
            "expected about 1: a network starts near 0, and training may end long before it gets "
            "there. Try standardising, (x - x.mean(0)) / x.std(0), or Standardised(family, ...).",
            stacklevel=3,
        )
    floors = _by_cell(family, lambda f: f.min_scale or 0.0)
    if not floors.any():
        return
    constant = _constant(x).cpu() & (floors > 0)
    shared = family.shared.get("scale")  # one scale for all cells does not shrink for one of them
    one_for_all = shared is not None and shared.numel() < constant.numel()
    if constant.all() or (constant.any() and not one_for_all):
        warnings.warn(
            f"{_cells(constant)} of the data are constant: under a learned scale the likelihood "
            f"there grows until the scale meets its floor {floors[constant].max():g}, and tells "
            "nothing. Try leaving such columns out, or a known scale.",
            stacklevel=3,
        )


def warn_of_floor(program: nn.Module, batch: Batch) -> None:
    """Warn, after training, of scales on their floor or finer than the values of their cell."""
    if not isinstance(program, VAE) or (family := family_of(program)) is None:
        return
    floors = _by_cell(family, lambda f: f.min_scale or 0.0)
    if not floors.any():
        return
    x, few = batch.tensors[0], batch.take(torch.arange(min(batch.rows, 512), device=batch.device))
    with drawing(program, seed=0), pyro.validation_enabled(False):
        guide = program.posterior(*few.args, **few.kwargs)
        # sample() of a Normal raises where its scale is NaN
        z = guide.rsample() if guide.has_rsample else guide.sample()
        covariates = {k: v for k, v in few.kwargs.items() if k != "mask"}
        likelihood = program.likelihood(z, **covariates)
        scale = _scale(likelihood, family).expand(z.shape[:1] + family.event_shape)
        learned = scale.contiguous().median(0).values.double().cpu()  # torch errs on expanded ones
    # Not its stddev: a Student t has none, however well it is trained.
    if not all(v.isfinite().all() for v in tensors_of(likelihood)):
        warnings.warn(
            "The last step left a program whose scales are not finite: training has diverged. Try "
            "a smaller learning rate, or clip_norm=10.",
            stacklevel=3,
        )
    near = learned < NEAR * floors
    on_reals = _by_cell(family, _on_reals)
    mask = batch.kwargs.get("mask")
    finest, tied = _gaps(x, learned, near, on_reals=on_reals, mask=mask)
    varies = finest.isfinite()  # of others `warn_of_data` has spoken
    # A gap is a resolution where values repeat: real numbers have gaps too, but no ties.
    fine = varies & tied & (learned < PEAK * finest) & on_reals
    if fine.any():
        warnings.warn(
            f"The learned scale has fallen to {learned[fine].min():.2g} (its floor is "
            f"{floors[fine].min():g}) at {_cells(fine)}, below the resolution of the data there, "
            f"{finest[fine].min():.2g} (half the smallest gap): the likelihood claims more "
            "precision than they have. Try a min_scale "
            f"{(finest / floors)[fine].median():.2g} times as large, or leaving the column out.",
            stacklevel=3,
        )
    stuck = varies & near & ~fine
    if stuck.any():
        warnings.warn(
            f"The learned scale sits on its floor {floors[stuck].min():g} at {_cells(stuck)}, or "
            f"within {NEAR} times of it, for half of the data or more (half the smallest gap there "
            f"is {finest[stuck].min():.2g}): the likelihood is what the floor makes it. Try a "
            "larger min_scale, or leaving the column out.",
            stacklevel=3,
        )


def tensors_of(distribution: Any) -> list[Tensor]:  # noqa: ANN401
    """What a distribution was built from, its parameters."""
    base = _base(distribution)
    if isinstance(base, Joint):
        return [v for part in base.parts for v in tensors_of(part)]
    return [v for v in vars(base).values() if isinstance(v, Tensor)]


def _far(family: Family, x: Tensor) -> tuple[Tensor, Tensor]:
    """Which cells lie far from where a network starts, and their root mean squares, ``(*E,)``."""
    if family.columns:
        found = [_far(f, x[:, d]) for d, f in enumerate(family.columns)]
        return torch.stack([far for far, _ in found]), torch.stack([size for _, size in found])
    if not _on_reals(family):
        return x.new_zeros(x.shape[1:], dtype=torch.bool), x.new_zeros(x.shape[1:])
    parts = [family.as_features(part).reshape(part.shape).square().sum(0) for part in x.split(ROWS)]
    size = (torch.stack(parts).sum(0) / len(x)).sqrt()
    return size > FAR, size


def _without_gaps(batch: Batch) -> Tensor:
    """The data, cells that are missing taken from the first row that has them."""
    x, mask = batch.tensors[0], batch.kwargs.get("mask")
    if mask is None:
        return x
    first = mask.to(torch.uint8).argmax(0, keepdim=True)
    return torch.where(mask, x, x.gather(0, first))


def _constant(x: Tensor) -> Tensor:
    """Whether all rows agree, ``(*E,)``."""
    x, event = x.reshape(len(x), -1), x.shape[1:]
    cells = torch.arange(x.shape[1], device=x.device)
    for part in x.split(ROWS):
        cells = cells[(part[:, cells] == x[0, cells]).all(0)]
        if not len(cells):
            break
    constant = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    constant[cells] = True
    return constant.reshape(event)


def _gaps(
    x: Tensor, learned: Tensor, near: Tensor, *, on_reals: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Half the smallest gap, and whether values repeat, of cells that a warning may be about.

    Of others infinity and False: few are sorted. Some rows have gaps no smaller than all rows have,
    so a scale that is coarse for them is coarse for all.
    """
    x = x.detach().reshape(len(x), -1)
    if mask is not None:  # column by column: each has rows of its own
        shape, rows = learned.shape, zip(x.T, mask.reshape(x.shape).T, strict=True)
        found = [gaps(v[seen][:, None].cpu().numpy()) for v, seen in rows]
        finest = torch.as_tensor([float(smallest[0]) / 2 for smallest, _ in found])
        tied = torch.tensor([bool(same[0]) for _, same in found])
        return finest.double().reshape(shape), tied.reshape(shape)
    some = torch.as_tensor(resolution(x[:: -(-len(x) // ROWS)].cpu().numpy()))
    suspects = near.flatten() | ((learned.flatten() < PEAK * some) & on_reals.flatten())
    finest, tied = torch.full_like(some, torch.inf), torch.zeros_like(suspects)
    for cells in suspects.nonzero().squeeze(1).split(max(1, SIZE // len(x))):
        smallest, same = gaps(x[:, cells.to(x.device)].cpu().numpy())
        finest[cells], tied[cells] = torch.as_tensor(smallest / 2), torch.as_tensor(same)
    return finest.reshape(learned.shape), tied.reshape(learned.shape)


def _on_reals(family: Family) -> bool:
    return isinstance(family.support, type(constraints.real))


def _by_cell(family: Family, of: Callable[[Family], float]) -> Tensor:
    """What `of` says of each cell's family, ``(*E,)``."""
    if family.columns:
        return torch.tensor([of(f) for f in family.columns])
    return torch.full(family.event_shape, of(family))


def _base(distribution: Any) -> Any:  # noqa: ANN401
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def _scale(distribution: Any, family: Family) -> Tensor:  # noqa: ANN401
    """What has the floor: the scale, or the diagonal of the Cholesky factor; 1 without a floor."""
    base = _base(distribution)
    if isinstance(base, Joint):
        cells = zip(base.parts, family.columns, strict=True)
        return torch.stack([_scale(part, f).double().cpu() for part, f in cells], -1)
    if family.min_scale is None:
        return torch.ones(distribution.batch_shape)
    if hasattr(base, "scale_tril"):
        return torch.diagonal(base.scale_tril, dim1=-2, dim2=-1)
    scale: Tensor = base.scale if hasattr(base, "scale") else distribution.stddev
    return scale


def _cells(mask: Tensor) -> str:
    found = [i[0] if len(i) == 1 else tuple(i) for i in mask.nonzero().tolist()]
    shown = ", ".join(map(str, found[:5])) + (", …" if len(found) > 5 else "")
    return f"{len(found)} of {mask.numel()} cells ({shown})"
