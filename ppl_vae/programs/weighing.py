"""One run of a program that draws z ~ q(z|x) for each datum, with log p(x, z) − log q(z|x)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.drawn_apart import Draws, one_stage
from ppl_vae.programs.enumerated import summed_out
from ppl_vae.programs.modes import forked_rng, probing
from ppl_vae.programs.runs import Site, row_dims, rows_first, run, run_guide, run_model
from ppl_vae.programs.traces import (
    NoDensityError,
    Structure,
    refuse_subsampling,
    structure,
)

FEW = 16  # rows that show whether a model takes draws that were drawn apart


class WeightedDraws(NamedTuple):
    """Draws z ~ q(z|x) with their log weights: everything about a posterior is read from these.

    Attributes:
        log_weights: log p(x, z) − log q(z|x), ``(S, N)``, nats per datum.
        log_likelihood: log p(x|z), ``(S, N)``; None where discrete sites were summed out.
        latents: Draws by site, ``(S, N, *event)``, constrained as the program has them.
        log_guide: log q(z|x), ``(S, N)``; None with `log_likelihood`. What is left of the three is
            log p(z).
    """

    log_weights: Tensor
    log_likelihood: Tensor | None
    latents: dict[str, Tensor]
    log_guide: Tensor | None = None

    def each(self, function: Callable[[Tensor], Tensor]) -> WeightedDraws:
        """Apply a function to every tensor."""
        return WeightedDraws(
            function(self.log_weights),
            None if self.log_likelihood is None else function(self.log_likelihood),
            {n: function(v) for n, v in self.latents.items()},
            None if self.log_guide is None else function(self.log_guide),
        )

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        scores = (self.log_weights, self.log_likelihood, self.log_guide)
        return [v for v in (*scores, *self.latents.values()) if v is not None]


class Weighing:
    """Gives draws of a program their log weights, one run at a time.

    Args:
        program: A `VAE` or `Program`.
        batch: Data that show what it is made of.

    Attributes:
        found: What it is made of.
        one_stage: Whether the guide is run once for each datum; else on repeated rows, as the model
            always is.

    Raises:
        NoDensityError: Where there are no log weights.
    """

    def __init__(self, program: nn.Module, batch: Batch) -> None:
        self.program = program
        self.found = scored(program, batch)
        self.one_stage = one_stage(program, batch, self.found) and self._apart_alike(batch)

    def __call__(self, part: Batch, draws: int) -> WeightedDraws:
        """Draw S times for each of n data: tensors ``(S, n, ...)``."""
        repeated = part.take(torch.arange(part.rows, device=part.device).repeat(draws))
        if self.found.enumerated:
            flat = WeightedDraws(summed_out(self.program, repeated, self.found), None, {})
        elif self.one_stage:
            flat = self._drawn_apart(part, repeated, draws)
        else:
            model, guide = run(self.program, repeated)
            flat = of_traces(model, guide, self.found, repeated.rows)

        def fold(value: Tensor) -> Tensor:
            return value.reshape(draws, part.rows, *value.shape[1:])

        return flat.each(fold)

    def wake(self, batch: Batch) -> None:
        """Run once, so that parameters are there which a first run makes; no noise is used up."""
        with forked_rng(batch.device):
            run(self.program, batch.take(torch.arange(min(batch.rows, 2), device=batch.device)))

    def _apart_alike(self, batch: Batch) -> bool:
        """Whether the model scores draws alike that were drawn apart, and by a guide on all rows.

        It does not where the guide leaves something for it, of a row each.
        """
        few = batch.take(torch.arange(min(batch.rows, FEW), device=batch.device))
        both = few.take(torch.arange(few.rows, device=few.device).repeat(2))
        (name,) = self.found.latents
        with probing(self.program), forked_rng(batch.device, 0), torch.no_grad():
            try:
                apart = self._drawn_apart(few, both, 2)
                dims = row_dims(apart.latents, run_guide(self.program, few), self.found.dim)
                at = {name: apart.latents[name].movedim(0, dims[name])}
                again = scored_at(self.program, both, at, self.found).log_weights
            except Exception:  # shapes that do not fit, or what a user's own code raises
                return False
        return torch.allclose(apart.log_weights, again, rtol=1e-4, atol=1e-3)

    def _drawn_apart(self, part: Batch, repeated: Batch, count: int) -> WeightedDraws:
        (name,), found = self.found.latents, self.found
        guide = run_guide(self.program, part)
        site = guide.nodes[name]
        draws = Draws(site, found.dim, count)
        # As a guide would leave it that ran on all rows: a plate takes its rows from there, too.
        values = {name: draws.for_rows()}
        for frame in (f for f in site["cond_indep_stack"] if f.dim == found.dim):
            values[frame.name] = torch.arange(repeated.rows, device=repeated.device)
        repeats = Trace()
        for key, node in guide.nodes.items():
            if node["type"] == "sample":
                repeats.add_node(key, **{**node, "value": values.get(key, node["value"])})
        model = run_model(self.program, repeated, latents=repeats)
        log_q = draws.log_prob.flatten()
        return _weights(model, log_q, {name: draws.value.flatten(0, 1)}, found, repeated.rows)


def scored_at(
    program: nn.Module, rows: Batch, latents: Mapping[str, Tensor], found: Structure
) -> WeightedDraws:
    """Score given z, one of each row, where the program has its rows.

    The guide first, as in a run: it may leave something for the model.
    """
    guide, model = (
        poutine.trace(poutine.condition(side, data=dict(latents))).get_trace(
            *rows.args, **rows.kwargs
        )
        for side in (program.guide, program.model)
    )
    return of_traces(model, guide, found, rows.rows)


def of_traces(model: Trace, guide: Trace, found: Structure, rows: int) -> WeightedDraws:
    """Score what two traces hold: one draw of each row, tensors ``(N, ...)``."""
    guide = prune_subsample_sites(guide)
    log_q = torch.stack([per_row(guide.nodes[n], found.dim, rows) for n in found.latents]).sum(0)
    latents = {n: rows_first(guide.nodes[n], found.dim) for n in found.latents}
    return _weights(model, log_q, latents, found, rows)


def _weights(
    model: Trace, log_q: Tensor, latents: dict[str, Tensor], found: Structure, rows: int
) -> WeightedDraws:
    model = prune_subsample_sites(model)
    likelihood, prior = (
        torch.stack([per_row(model.nodes[n], found.dim, rows) for n in names]).sum(0)
        for names in (found.observed, found.latents)
    )
    return WeightedDraws(likelihood + (prior - log_q), likelihood, latents, log_q)


def per_row(site: Site, dim: int, rows: int) -> Tensor:
    """Log-prob of a site summed over all but the data plate, ``(N,)``; scale dropped, mask kept."""
    log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
    full = torch.broadcast_shapes(log_prob.shape, (rows,) + (1,) * (-dim - 1))
    return log_prob.expand(full).movedim(dim, 0).reshape(rows, -1).sum(-1)


def scored(program: nn.Module, batch: Batch) -> Structure:
    """Look at a program whose draws are to be scored.

    Raises:
        NoDensityError: Where there is nothing to score them by.
    """
    found = structure(program, batch)
    if found.undefined is not None:
        raise NoDensityError(
            f"There are no log weights here: {found.undefined}. Expected a guide and a prior with "
            f"densities, and every latent inside the data plate. Try {_remedy(found)}."
        )
    refuse_subsampling(found)
    return found


def _remedy(found: Structure) -> str:
    if found.shared or found.plate is None:
        return (
            "posterior_predictive, which needs no weights, or to_datatree"
            if found.plate is not None
            else 'with pyro.plate("data", len(x)) around the latents and the data'
        )
    if found.sampled_priors:
        return "a prior with a density, such as GaussianMixture or FlowPrior"
    return "a Normal or MultivariateNormal guide, or refit_guide(program, x)"
