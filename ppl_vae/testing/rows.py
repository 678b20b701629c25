"""Do the rows of a batch leak into each other?"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs import Structure
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.runs import functions, probe, rows_first
from ppl_vae.testing.laws import Laws


def check_rows(laws: Laws, program: nn.Module, batch: Batch, found: Structure) -> None:
    """Check "rows": among copies of itself, a row has the terms that it had among others.

    The latents are held fixed, in eval mode; terms are the log-probs of every site, or the value
    where a guide is a point. The first row and the last are tried: what sees only earlier rows
    leaves the first one alone.
    """
    _, guide = probe(program, batch)
    latents = {n: rows_first(guide.nodes[n], found.dim) for n in found.latents}
    axes = {n: _axis(guide.nodes[n], found.dim) for n in found.latents}
    index = torch.arange(batch.rows)
    among = _terms(program, batch, found, latents, axes, index)
    for row in (0, batch.rows - 1):
        alone = _terms(program, batch, found, latents, axes, torch.full_like(index, row))
        for name, terms in among.items():
            a, b = terms[row], alone[name][row]
            # Equal operations in equal places of equal shapes: no more than a few roundings differ.
            near = 1e3 * torch.finfo(a.dtype).eps if a.is_floating_point() else 0.0
            same = torch.allclose(a, b, rtol=near, atol=near, equal_nan=True)
            got = f"{name} of row {row} changing with the other rows of the batch"
            attempt = "no sums over the batch; modules= of a Program, to switch its norms"
            laws.hold("rows", same, got, "each row on its own", attempt)


def _axis(site: dict[str, Any], dim: int) -> int:
    return site["value"].dim() - len(site["fn"].event_shape) + dim


def _terms(
    program: nn.Module,
    batch: Batch,
    found: Structure,
    latents: dict[str, Tensor],
    axes: dict[str, int],
    index: Tensor,
) -> dict[str, Tensor]:
    """Log-probs (at points: values) of the rows of `index`, by site, rows first."""
    rows = batch.take(index.to(batch.device))
    values = {n: v[index.to(v.device)].movedim(0, axes[n]) for n, v in latents.items()}
    free = {n: v for n, v in values.items() if n not in found.points}
    terms = {}
    with drawing(program, 0):
        for role, function, fixed in zip(
            ("model", "guide"), functions(program), (values, free), strict=True
        ):
            trace = poutine.trace(poutine.condition(function, data=fixed)).get_trace(
                *rows.args, **rows.kwargs
            )
            for name in (*found.latents, *found.observed):
                if name not in trace.nodes or (name in found.sampled_only):
                    continue
                site = trace.nodes[name]
                point = role == "guide" and name in found.points
                log_prob = site["fn"].log_prob(site["value"])
                terms[f"the {role}'s {name!r}"] = (
                    rows_first(site, found.dim) if point else log_prob.movedim(found.dim, 0)
                )
    return terms
