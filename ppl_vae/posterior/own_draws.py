"""Data that a program makes itself, whose latents are known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.posterior.draws import observed_values, prior_predictive
from ppl_vae.programs.inputs import program_batch


class OwnDraws(NamedTuple):
    """Draws of the model, as data that it can be given.

    Attributes:
        batch: x ~ p(x|z) in place of the data, beside the covariates and masks of theirs.
        latents: z ~ p(z), by site, ``(S, *event)``.
    """

    batch: Batch
    latents: dict[str, Tensor]


def own_draws(
    program: nn.Module,
    like: Any,  # noqa: ANN401
    num_samples: int,
    *,
    seed: int | None = None,
) -> OwnDraws:
    """Draw z ~ p(z) and x ~ p(x|z) as data: the program is a simulator of its own.

    Args:
        program: A `VAE` or `Program`.
        like: Data of its kind, whose covariates are used in a random order, and whose cells are
            missing where theirs are.
        num_samples: Draws S.
        seed: Fork torch's random state and start here.

    Raises:
        ValueError: Where x is not given to the model as it is observed, so that draws of it cannot
            be given in its place; or the guide is refined, for certain data alone.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> own = own_draws(Program(world.model, world.guide), x, 10, seed=0)
        >>> own.batch.args[0].shape, own.latents["z"].shape
        (torch.Size([10, 5]), torch.Size([10, 2]))
    """
    if hasattr(program, "admit"):
        raise ValueError(
            "Got a program whose guide is for certain data alone; expected one that takes any. Try "
            "the program that it was refined from."
        )
    batch = program_batch(program, like, name="like")
    # In a random order: the first rows of a sorted table are not like the others.
    order = np.random.default_rng([seed or 0, 0x0DE5]).permutation(batch.rows)
    batch = batch.take(torch.as_tensor(order, device=batch.device))
    places = places_of(program, batch)
    drawn = prior_predictive(program, num_samples, like=batch, seed=seed)
    index = torch.arange(num_samples, device=batch.device) % batch.rows
    given = [c[index] for c in batch.tensors]
    for name, (k, hidden) in places.items():
        given[k] = drawn.data[name].where(~hidden[index], given[k])
    args = tuple(given[: len(batch.args)])
    kwargs = dict(zip(batch.kwargs, given[len(batch.args) :], strict=True))
    return OwnDraws(Batch(args, kwargs), drawn.latents)


def places_of(program: nn.Module, batch: Batch) -> dict[str, tuple[int, Tensor]]:
    """Say which argument each observed site is, and which of its cells are missing.

    Raises:
        ValueError: Where it is none, or several are.
    """
    places = {}
    for name, value in observed_values(program, batch).items():
        hidden = value.isnan()
        equal = [
            k
            for k, c in enumerate(batch.tensors)
            if c.shape == value.shape and c.dtype == value.dtype and ((c == value) | hidden).all()
        ]
        if len(equal) != 1:
            raise ValueError(
                f"Got no argument, or several, that are {name!r} as the model observes it; "
                "expected one, in whose place the model's own draws can stand. Try a model that is "
                "given x as it observes it."
            )
        places[name] = equal[0], hidden
    return places
