"""Mutual information of data and codes, for a program."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import nn

from ppl_vae.diagnostics.information import Information, information
from ppl_vae.posterior.draws import as_array
from ppl_vae.posterior.faults import explained
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import ROWS, per_row, scored, weighted_draws
from ppl_vae.programs.masks import refuse_left_out
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.runs import probe, row_dims
from ppl_vae.programs.traces import NoDensityError


@explained
def mutual_information(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    seed: int = 0,
) -> Information:
    """Bracket I(x; z) under q(z|x), and with it KL(q(z) ‖ p(z)): what the rate is spent on.

    The rate, mean_x KL(q(z|x) ‖ p(z)), is I(x; z) + KL(q(z) ‖ p(z)). Codes that say nothing of the
    data have collapsed; a second term that is large asks for another prior (`VampPrior`,
    `FlowPrior`) or an adversary. One draw of each datum is scored under the guides of all: N² rows
    of the guide alone.

    Args:
        program: A `VAE` or `Program` whose guide has a density.
        x: Different data, some hundred or thousand: the lower end is log N at most.
        seed: Of the draws; torch's random state is left as found.

    Raises:
        NoDensityError: Where there are no log weights, or discrete sites are summed out.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(1, 3, seed=0)
        >>> x, _ = world.sample(300, seed=1)
        >>> found = mutual_information(Program(world.model, world.guide), x)
        >>> exact = float(-0.5 * world.posterior(x).covariance_matrix[0].logdet())
        >>> found.lower - 3 * found.lower_se < exact < found.upper + 3 * found.upper_se
        True
    """
    batch = program_batch(program, x, name="x")
    found = scored(program, batch)
    if found.enumerated:
        raise NoDensityError(
            f"There is no log q(z|x) here: {list(found.enumerated)} are summed out. Expected all "
            "latents to be drawn. Try clusters(program, x), or diagnose."
        )
    refuse_left_out(program, batch, found)
    drawn = weighted_draws(program, batch, 1, seed=seed)
    if drawn.log_guide is None or drawn.log_likelihood is None:
        raise NoDensityError("There is no log q(z|x) here. Expected latents that are drawn.")
    log_p = (drawn.log_weights + drawn.log_guide - drawn.log_likelihood)[0]
    _, guide = probe(program, batch)
    count = batch.rows
    values = {n: v[0] for n, v in drawn.latents.items()}
    dims = row_dims(values, guide, found.dim)
    index = torch.arange(count * count, device=batch.device)
    pieces = []
    with drawing(program, None):
        for part in index.split(ROWS):
            rows = batch.take(part % count)
            at = {n: v[part // count].movedim(0, dims[n]) for n, v in values.items()}
            trace = poutine.trace(poutine.condition(program.guide, data=at)).get_trace(
                *rows.args, **rows.kwargs
            )
            scores = [per_row(trace.nodes[n], found.dim, rows.rows) for n in found.latents]
            pieces.append(torch.stack(scores).sum(0))
    log_q = torch.cat(pieces).reshape(count, count)
    return information(as_array(log_q), as_array(log_p))
