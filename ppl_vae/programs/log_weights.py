"""The core: log w = log p(x, z) − log q(z|x) for every datum and draw, of any program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.runs import probe, row_dims
from ppl_vae.programs.tiles import ROWS as ROWS
from ppl_vae.programs.tiles import tiles
from ppl_vae.programs.traces import NoDensityError
from ppl_vae.programs.weighing import Weighing, scored_at
from ppl_vae.programs.weighing import WeightedDraws as WeightedDraws
from ppl_vae.programs.weighing import per_row as per_row
from ppl_vae.programs.weighing import scored as scored


def log_weights(
    program: nn.Module,
    x: Any,
    num_samples: int,
    *,
    seed: int | None = None,
    rows: int = ROWS,  # noqa: ANN401
) -> Tensor:
    """Give log w = log p(x, z) − log q(z|x), z ~ q(z|x): shape ``(S, N)``, nats per datum.

    Their mean over draws is the ELBO of each datum, the log of the mean of their exponentials
    estimates log p(x). With the exact posterior as guide every weight equals log p(x).
    Scales (β, subsampling) are dropped, masks kept; discrete sites marked for enumeration are
    summed out. See `weighted_draws` for the arguments.

    Example:
        >>> from ppl_vae.data import LinearGaussian
        >>> from ppl_vae import Program
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> w = log_weights(Program(world.model, world.guide), x, 10)
        >>> bool((w - world.log_evidence(x)).abs().max() < 1e-9)
        True
    """
    return _draw(program, x, num_samples, seed, rows, keep=False).log_weights


def weighted_draws(
    program: nn.Module,
    x: Any,
    num_samples: int,
    *,
    seed: int | None = None,
    rows: int = ROWS,  # noqa: ANN401
) -> WeightedDraws:
    """Draw z ~ q(z|x) with log weights, in eval mode and without gradients.

    Rows of the data are repeated through the unmodified model, so whatever runs on a batch runs
    here; a guide of one stage is run once for each datum and drawn from S times. Memory is that of
    one run on `rows` rows, plus the result.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them.
        num_samples: Draws S per datum.
        seed: Fork torch's random state and start here; None draws from the global stream.
        rows: Rows of one run. Part of what a seed means: another number gives other draws.

    Raises:
        NoDensityError: Where there are no weights: a point (Delta) or implicit guide, a prior
            that can only be sampled, a latent outside the data plate.
        ValueError: If the data do not fit, or `num_samples` or `rows` is not a positive integer.
    """
    return _draw(program, x, num_samples, seed, rows, keep=True)


def _draw(
    program: nn.Module, x: Any, num_samples: int, seed: int | None, rows: int, *, keep: bool
) -> WeightedDraws:
    batch = program_batch(program, x, name="x")
    weighing = Weighing(program, batch)
    cut = tiles(batch.rows, num_samples, rows)
    held: WeightedDraws | None = None
    with drawing(program, seed):
        weighing.wake(batch)
        for k in range(cut.chunks):
            index, at = cut.chunk(k, batch.device)
            part = batch.take(index)
            for j in range(cut.pieces):
                found = weighing(part, cut.draws)
                if not keep:
                    found = WeightedDraws(found.log_weights, None, {})
                if held is None:
                    held = found.each(lambda v: v.new_empty(num_samples, batch.rows, *v.shape[2:]))
                for whole, new in zip(held.tensors, found.tensors, strict=True):
                    room = whole[cut.piece(j), at]
                    room.copy_(new[: room.shape[0], : room.shape[1]])
    return cast(WeightedDraws, held)


def weighted_at(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    latents: Mapping[str, Tensor],
    *,
    rows: int = ROWS,
) -> WeightedDraws:
    """Score given z as draws of the guide are: log w, log p(x|z) and log q(z|x), ``(S, N)``.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them.
        latents: By site, ``(S, N, *event)``, as `weighted_draws` gives them.
        rows: Rows of one run.

    Raises:
        NoDensityError: As `weighted_draws`, and where discrete sites are summed out: then no z is
            all of what is latent.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> program = Program(world.model, world.guide)
        >>> draws = weighted_draws(program, x, 10)
        >>> again = weighted_at(program, x, draws.latents)
        >>> torch.allclose(again.log_guide, draws.log_guide)
        True
    """
    batch = program_batch(program, x, name="x")
    found = scored(program, batch)
    if found.enumerated:
        raise NoDensityError(
            f"There is no log q(z|x) of given latents here: {list(found.enumerated)} are summed "
            "out. Expected all latents to be drawn. Try log_weights."
        )
    shapes = {n: tuple(v.shape[:2]) for n, v in latents.items()}
    if set(latents) != set(found.latents) or any(
        len(s) < 2 or s[1] != batch.rows for s in shapes.values()
    ):
        raise ValueError(
            f"Got latents {shapes}; expected each of {list(found.latents)}, (S, {batch.rows}, "
            "...). Try the latents of weighted_draws."
        )
    model, _ = probe(program, batch)
    shape = next(iter(latents.values())).shape[:2]
    flat = {n: v.flatten(0, 1) for n, v in latents.items()}
    dims = row_dims(flat, model, found.dim)
    index = torch.arange(batch.rows, device=batch.device).repeat(shape[0])
    pieces = []
    with drawing(program, None):
        for part in torch.arange(len(index), device=batch.device).split(rows):
            piece = batch.take(index[part])
            values = {n: v[part].movedim(0, dims[n]) for n, v in flat.items()}
            pieces.append(scored_at(program, piece, values, found))
    log_w, likelihood, _, guide = zip(*pieces, strict=True)
    return WeightedDraws(
        torch.cat(log_w).reshape(shape),
        torch.cat(likelihood).reshape(shape),
        dict(latents),
        torch.cat(guide).reshape(shape),
    )
