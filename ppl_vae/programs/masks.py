"""What masks leave out of a site, by row."""

from __future__ import annotations

import torch
from pyro.distributions import Independent, MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Size, Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.runs import Site, probe
from ppl_vae.programs.tiles import ROWS
from ppl_vae.programs.traces import Structure


def kept_cells(site: Site, dim: int) -> list[Tensor]:
    """Give the masks of a site, of `poutine.mask` and of ``.mask(...)``: each ``(N, cells)``.

    Masks that leave nothing out for whatever data are not among them.

    Args:
        site: Of a trace.
        dim: The data plate's.
    """
    fn, inner = site["fn"], Size()
    masks = [(site["mask"], inner)]
    while isinstance(fn, MaskedDistribution | Independent | ExpandedDistribution):
        if isinstance(fn, MaskedDistribution):
            masks.append((fn._mask, inner))
        if isinstance(fn, Independent) and (depth := fn.reinterpreted_batch_ndims):
            inner = fn.base_dist.batch_shape[-depth:]
        fn = fn.base_dist
    shape, value = site["fn"].batch_shape, site["value"]
    return [
        torch.as_tensor(mask, device=value.device)
        .expand(shape + inner)
        .movedim(dim - len(inner), 0)
        .reshape(shape[dim], -1)
        for mask, inner in masks
        if mask is not None and mask is not True
    ]


def left_out(program: nn.Module, batch: Batch, found: Structure) -> Tensor:
    """Say of which rows masks leave out every latent: ``(N,)``, booleans."""
    out = torch.zeros(batch.rows, dtype=torch.bool, device=batch.device)
    places = torch.arange(batch.rows, device=batch.device)
    if _left_out(program, batch.take(places[:2]), found) is not None:  # there are masks
        for part in places.split(ROWS):
            found_here = _left_out(program, batch.take(part), found)
            if found_here is not None:
                out[part] = found_here
    return out


def _left_out(program: nn.Module, batch: Batch, found: Structure) -> Tensor | None:
    """Do so for a few rows; None where a latent has no mask."""
    model, guide = probe(program, batch)
    kept = []
    for name in found.latents:
        masks = kept_cells((guide if name in guide.nodes else model).nodes[name], found.dim)
        if not masks:
            return None
        kept.append(torch.stack([cells.any(1) for cells in masks]).all(0))
    return ~torch.stack(kept).any(0)


def refuse_left_out(program: nn.Module, batch: Batch, found: Structure) -> None:
    """Refuse rows that a mask leaves out, where something is said of all of them together.

    Raises:
        ValueError: If there are any.
    """
    if count := int(left_out(program, batch, found).sum()):
        raise ValueError(
            f"Got {count} of {batch.rows} rows that the program's own mask leaves out; expected "
            "rows that count, for what is said here is of all of them. Try the rows that the mask "
            "keeps, x[kept]."
        )
