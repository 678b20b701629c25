"""q(z) = E_x q(z|x) against p(z), for a program."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.diagnostics.match import LEAST, Match, match
from ppl_vae.posterior.draws import (
    Draws,
    posterior_predictive,
    prior_predictive,
    side_by_side,
    with_plate,
)
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.simulated import unit_names
from ppl_vae.programs.describe import Line, describe
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.masks import refuse_left_out


@explained
def aggregate_match(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    permutations: int = 200,
    seed: int = 0,
) -> Match:
    """Test whether codes of data have the law of the prior: the same call for a VAE and an AAE.

    One z ~ q(z|x) for each datum, of densities for each that is unlike those before it, so that
    the codes are independent; as many z ~ p(z). See `ppl_vae.diagnostics.match` for the tests. A
    guide equal to the prior passes: that codes say anything is `mutual_information`'s to tell.

    Args:
        program: A `VAE` or `Program`, of any guide and prior.
        x: Data that took no part in training, 20 or more that differ.
        permutations: Of the kernel's test.
        seed: Of all draws; torch's random state is left as found.

    Raises:
        ValueError: If fewer than 20 data differ, a mask leaves some out, or all share the latents.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(200, seed=1)
        >>> right = Program(world.model, world.guide)
        >>> shifted = Program(world.model, world.broken_guide(shift=3.0))
        >>> aggregate_match(right, x).p_value > 0.01, aggregate_match(shifted, x).p_value < 0.02
        (True, True)
    """
    _, names, codes, draws = codes_and_prior(program, x, seed)
    return match(
        codes,
        side_by_side(draws.latents, names, 1),
        names=unit_names(names, [draws.latents[n][0].numel() for n in names]),
        permutations=permutations,
        seed=seed,
    )


def codes_and_prior(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    seed: int,
) -> tuple[Batch, list[str], NDArray[np.float64], Draws]:
    """Draw one z ~ q(z|x) for each datum that differs, side by side, and as often from the model.

    Returns:
        The data used, the latents' names, the codes ``(N, D)`` and N draws of the model.

    Raises:
        ValueError: If too few data differ, or all data share the latents.
    """
    batch = program_batch(program, x, name="x")
    found = with_plate(program, batch)
    names = found.coordinates
    if not names:
        raise ValueError(
            f"Got the latents {list(found.latents)}; expected some that each datum has to itself. "
            "Try a program with a latent inside the data plate."
        )
    refuse_left_out(program, batch, found)
    if found.enumerated:
        warnings.warn(
            f"The latents {list(found.enumerated)} are summed out, and no codes: nothing is said "
            f"of how they match, only of {names}. Try the same program without the mark "
            '"enumerate", whose classes are drawn from the guide.',
            stacklevel=4,
        )
    lines, _ = describe(program, batch)
    batch = batch.take(independent(lines, batch))
    if batch.rows < LEAST:
        raise ValueError(
            f"Got {batch.rows} data that differ; expected {LEAST} or more to compare q(z) with "
            "p(z). Try more data."
        )
    codes = posterior_predictive(program, batch, 1, seed=seed).latents
    draws = prior_predictive(program, batch.rows, like=batch, seed=seed + 1)
    return batch, names, side_by_side(codes, names, 2)[0], draws


def independent(lines: Sequence[Line], batch: Batch) -> Tensor:
    """Give the places of rows whose codes are independent draws of q(z).

    Where x has a density, rows that are alike are one datum given twice, whose codes are those of
    one x. Where it has a mass they are what counts and classes do, and each is kept: one of each
    kind would not be a sample of the data.
    """
    if all(w.measure == "density" for w in lines if w.role == "likelihood"):
        return distinct(batch)
    return torch.arange(batch.rows, device=batch.device)


def distinct(batch: Batch) -> Tensor:
    """Give the places of rows that are unlike all rows before them, in order.

    Example:
        >>> distinct(Batch((torch.tensor([[1.0], [2.0], [1.0], [torch.nan], [torch.nan]]),), {}))
        tensor([0, 1, 3])
    """
    seen: dict[bytes, int] = {}
    flat = [t.reshape(len(t), -1).cpu().numpy() for t in batch.tensors]
    for row in range(batch.rows):
        seen.setdefault(b"".join(f[row].tobytes() for f in flat), row)
    return torch.tensor(list(seen.values()), device=batch.device)
