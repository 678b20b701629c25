"""Draws of x for given z: p(x|z) run forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.data.batches import Batch, as_batch
from ppl_vae.posterior.draws import Draws, collect, shaped, with_plate
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import ROWS
from ppl_vae.programs.modes import drawing, dtype_of
from ppl_vae.programs.runs import probe, row_dims
from ppl_vae.programs.traces import Structure
from ppl_vae.programs.vae import VAE


def data_given(
    program: nn.Module,
    latents: Tensor | Mapping[str, Tensor],
    *,
    like: Any,  # noqa: ANN401
    seed: int | None = None,
) -> Draws:
    """Draw x ~ p(x|z) for given z: shapes ``(S, *event)``.

    Args:
        program: A `VAE` or `Program`.
        latents: ``(S, *event)``, by site where there are several.
        like: Any data of the program's kind, as in `prior_predictive`.
        seed: Fork torch's random state and start here.

    Raises:
        ValueError: If the sites are not the program's latents, or the data plate is not the
            innermost one.
    """
    batch = program_batch(program, like, name="like")
    found = with_plate(program, batch)
    if not isinstance(latents, Mapping) and len(found.latents) == 1:
        latents = {found.latents[0]: latents}
    if not isinstance(latents, Mapping) or set(latents) != set(found.latents):
        got = sorted(latents) if isinstance(latents, Mapping) else type(latents).__name__
        raise ValueError(
            f"Got latents {got}; expected a tensor for each of {list(found.latents)}. "
            f"Try {{{found.latents[0]!r}: z}}."
        )
    latents = as_batch(
        dict(latents),
        dtype=dtype_of(program),
        device=batch.device,
        keep_tensors=not isinstance(program, VAE),
        name="latents",
    ).kwargs
    for name, value in latents.items():
        if not value.isfinite().all():
            raise ValueError(
                f"Got NaN or infinity in the latent {name!r}; expected finite numbers. "
                "Try leaving such rows out."
            )
    if found.dim != -1 and found.nesting > 1:
        raise ValueError(
            f"Got the data plate {found.plate!r} at dim {found.dim}; expected -1. Try "
            "pyro.plate(..., dim=-1) for the data and dim=-2 for the other plate."
        )
    count = len(next(iter(latents.values())))
    index = torch.arange(count) % batch.rows
    dims = dict.fromkeys(latents, 0)
    return shaped(_model_at(program, batch, index, latents, dims, found, seed), (count,))


def data_at(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    latents: Mapping[str, Tensor],
    *,
    seed: int | None = None,
) -> Draws:
    """Draw new data at posterior draws ``(S, N, *event)``, such as those of `weighted_draws`.

    Args:
        program: A `VAE` or `Program`.
        x: The data of which `latents` are draws.
        latents: Draws by site.
        seed: Fork torch's random state and start here; not the seed of `latents`, or z and the
            noise of x are functions of the same numbers.
    """
    batch = program_batch(program, x, name="x")
    found = with_plate(program, batch)
    model, _ = probe(program, batch)
    shape = next(iter(latents.values())).shape[:2]
    flat = {n: v.flatten(0, 1) for n, v in latents.items()}
    dims = row_dims(flat, model, found.dim)
    index = torch.arange(batch.rows).repeat(shape[0])
    return shaped(_model_at(program, batch, index, flat, dims, found, seed), tuple(shape))


def _model_at(
    program: nn.Module,
    batch: Batch,
    index: Tensor,
    latents: Mapping[str, Tensor],
    dims: Mapping[str, int],
    found: Structure,
    seed: int | None,
) -> list[Draws]:
    """Run the model with `latents`, rows in front, on the rows `index`; the plate is at `dims`."""
    pieces = []
    with drawing(program, seed):
        for at in torch.arange(len(index)).split(ROWS):
            piece = batch.take(index[at].to(batch.device))
            values = {n: v[at].movedim(0, dims[n]) for n, v in latents.items()}
            fixed = poutine.condition(poutine.uncondition(program.model), data=values)
            model = poutine.trace(fixed).get_trace(*piece.args, **piece.kwargs)
            pieces.append(collect(model, found))
    return pieces
