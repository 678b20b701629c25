"""A guide that is run once for each datum, and drawn from many times."""

from __future__ import annotations

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.modes import forked_rng, probing
from ppl_vae.programs.runs import Site, run_guide
from ppl_vae.programs.traces import Structure

ROWS = 4096  # of a run that shows whether a guide does the same twice


class Draws:
    """S draws of a site of a guide that ran on n data.

    Args:
        site: Of the guide's trace.
        dim: The data plate's batch dim, negative.
        count: S.

    Attributes:
        value: ``(S, n, *rest)``, the data plate moved in front of what else is in the value.
        log_prob: log q, ``(S, n)``, summed over all but the data plate; scale dropped, mask kept.
        place: Where a program has the rows: ``movedim(0, place)`` of ``(S · n, *rest)``.
    """

    def __init__(self, site: Site, dim: int, count: int) -> None:
        fn = site["fn"]
        drawn = fn((count,))
        self.place = drawn.dim() - 1 - len(fn.event_shape) + dim
        self.value: Tensor = drawn.movedim(self.place + 1, 1)
        # At the very tensor that was drawn: its way through a transform is known.
        scored = scale_and_mask(fn.log_prob(drawn), mask=site["mask"])
        scored = scored.expand(drawn.shape[: drawn.dim() - len(fn.event_shape)]).movedim(dim, 1)
        self.log_prob: Tensor = scored.reshape(*self.value.shape[:2], -1).sum(-1)

    def for_rows(self) -> Tensor:
        """The value as a model has it that runs on S · n rows, data first within each draw."""
        return self.value.flatten(0, 1).movedim(0, self.place)


def one_stage(program: nn.Module, batch: Batch, found: Structure) -> bool:
    """Whether q(z|x) of a datum is one distribution, to be drawn from as often as asked.

    So it is for one latent, where a second run of the guide gives the same density: neither other
    latents nor noise of its own are in it. All rows are looked at: a guide may draw for some alone
    (those with gaps, say). Guides of several stages are run again for each draw.
    """
    if found.enumerated or len(found.latents) > 1:
        return False
    # A seed of its own: the answer decides what the seed of the draws means.
    with probing(program), forked_rng(batch.device, 0), torch.no_grad():
        for index in torch.arange(batch.rows, device=batch.device).split(ROWS):
            part = batch.take(index)
            traces = [prune_subsample_sites(run_guide(program, part)) for _ in range(2)]
            one, two = (t.nodes[found.latents[0]] for t in traces)
            try:
                if not (_same(one, two) and _takes_many(one, found.dim, part.rows)):
                    return False
            except Exception:  # a distribution of the user's own may raise what it likes
                return False
    return True


def _same(one: Site, two: Site) -> bool:
    values = [s["value"].clone() for s in (one, two)]  # clones: their inverses are in no cache
    return all(torch.equal(one["fn"].log_prob(v), two["fn"].log_prob(v)) for v in values)


def _takes_many(site: Site, dim: int, rows: int) -> bool:
    """Whether the distribution draws and scores two at a time as it does one by one."""
    fn, value = site["fn"], site["value"]
    if fn.batch_shape[dim] != rows or fn.shape() != value.shape:
        return False
    drawn = fn((2,))
    if drawn.shape != (2, *value.shape):
        return False
    together, apart = fn.log_prob(drawn.clone()), [fn.log_prob(v.clone()) for v in drawn]
    return torch.allclose(together, torch.stack(apart), rtol=1e-4, atol=1e-3)
