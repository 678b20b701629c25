"""What masks leave out of a site, by row."""

from __future__ import annotations

import torch
from pyro.distributions import Independent, MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Size, Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.runs import Site, probe
from ppl_vae.programs.tiles import ROWS
from ppl_vae.programs.traces import HEAD, Structure


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
    """Say of which rows masks leave out every latent: ``(N,)``, booleans.

    Raises:
        ValueError: If model and guide do not leave out the same: a weight would have one side.
    """
    out = torch.zeros(batch.rows, dtype=torch.bool, device=batch.device)
    places = torch.arange(batch.rows, device=batch.device)
    if _kept(program, batch.take(places[:HEAD]), found):
        for part in places.split(ROWS):
            kept = _kept(program, batch.take(part), found)
            if kept.keys() == {*found.latents} - {*found.shared}:
                out[part] = ~torch.stack([*kept.values()]).any(0)
    return out


def _kept(program: nn.Module, batch: Batch, found: Structure) -> dict[str, Tensor]:
    """Give the rows of which something is kept, of the latents that have masks."""
    kept, traces = {}, probe(program, batch)
    for name in (n for n in found.latents if n not in found.shared):
        sites = [trace.nodes[name] for trace in traces if name in trace.nodes]
        masks = [kept_cells(site, found.dim) for site in sites]
        if not any(masks):
            continue
        every = torch.ones(batch.rows, dtype=torch.bool, device=batch.device)
        rows = [torch.stack([every, *(c.any(1) for c in cells)]).all(0) for cells in masks]
        if not torch.equal(rows[0], rows[-1]):
            raise ValueError(
                f"Got a mask of {name!r} that leaves out other rows in the model than in the "
                "guide; expected the same, or a weight would have one side alone. Try one "
                "pyro.poutine.mask around the latents of both."
            )
        kept[name] = rows[0]
    return kept


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
