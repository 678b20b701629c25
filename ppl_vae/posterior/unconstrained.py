"""A model's log densities as functions of latents on unconstrained space, row by row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Size, Tensor, nn
from torch.distributions import Transform, biject_to

from ppl_vae.data.batches import Batch
from ppl_vae.programs.log_weights import per_row
from ppl_vae.programs.parts import support_of
from ppl_vae.programs.runs import probe
from ppl_vae.programs.traces import NoDensityError, structure


class Scores(NamedTuple):
    """Log densities at u, ``(R,)``.

    Attributes:
        log_prior: log p(z(u)) |dz/du|.
        log_likelihood: log p(x|z(u)).
    """

    log_prior: Tensor
    log_likelihood: Tensor


class Unconstrained:
    """z = z(u), all latents side by side: u ``(R, D)`` for rows of a batch.

    Args:
        program: A `VAE` or `Program`; it should run frozen while this is used.
        batch: Data of its kind.

    Raises:
        NoDensityError: If the prior has no density, or latents are discrete, shared by all data or
            in nested plates.
    """

    def __init__(self, program: nn.Module, batch: Batch) -> None:
        found = structure(program, batch)
        model, _ = probe(program, batch)
        sites = {n: model.nodes[n]["fn"] for n in found.latents}
        discrete = found.enumerated or [
            n for n, fn in sites.items() if not found.sampled_priors and fn.support.is_discrete
        ]
        if found.sampled_priors or found.plate is None or found.shared or discrete:
            raise NoDensityError(
                f"Got {found.undefined or f'the discrete latents {list(discrete)}'}; expected "
                "continuous latents inside the data plate, under a prior with a density. Try "
                "log_evidence, or another prior."
            )
        if found.nesting > 1 or found.dim != -1:
            raise NoDensityError(
                "Got latents in nested plates; expected them in the data plate alone. Try "
                "log_evidence."
            )
        self.program, self.found = program, found
        self.transforms: dict[str, Transform] = {
            n: biject_to(support_of(fn)) for n, fn in sites.items()
        }
        self.events = {n: Size(fn.event_shape) for n, fn in sites.items()}
        self.free = {n: t.inverse_shape(self.events[n]) for n, t in self.transforms.items()}
        self.size = sum(s.numel() for s in self.free.values())

    def constrained(self, u: Tensor) -> dict[str, Tensor]:
        """Give the latents by site, ``(R, *event)``."""
        return {n: self.transforms[n](v) for n, v in self._parts(u).items()}

    def inverse(self, latents: dict[str, Tensor]) -> Tensor:
        """Give u of latents ``(R, *event)``: ``(R, D)``."""
        parts = [self.transforms[n].inv(latents[n]) for n in self.free]
        return torch.cat([v.reshape(len(v), -1) for v in parts], -1)

    def scores(self, u: Tensor, batch: Batch) -> Scores:
        """Score u ``(R, D)`` for R data, differentiably."""
        parts = self._parts(u)
        z = {n: self.transforms[n](v) for n, v in parts.items()}
        model = poutine.trace(poutine.condition(self.program.model, data=z)).get_trace(
            *batch.args, **batch.kwargs
        )
        nodes = prune_subsample_sites(model).nodes
        likelihood = sum(per_row(nodes[n], -1, batch.rows) for n in self.found.observed)
        prior = u.new_zeros(len(u))
        for n, part in parts.items():
            jacobian = self.transforms[n].log_abs_det_jacobian(part, z[n])
            jacobian = jacobian.reshape(len(u), -1).sum(-1)
            prior = prior + per_row(nodes[n], -1, batch.rows) + jacobian
        return Scores(prior, likelihood)  # type: ignore[arg-type]

    def _parts(self, u: Tensor) -> dict[str, Tensor]:
        sizes = [s.numel() for s in self.free.values()]
        pieces = u.split(sizes, dim=-1)
        return {
            n: piece.reshape(len(u), *shape)
            for (n, shape), piece in zip(self.free.items(), pieces, strict=True)
        }
