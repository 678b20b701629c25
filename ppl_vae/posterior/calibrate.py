"""Calibration of a guide, on data that its own program simulates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ppl_vae.diagnostics.calibration import Calibration, calibration
from ppl_vae.diagnostics.ranks import ranks, tarp_ranks
from ppl_vae.posterior.draws import (
    as_array,
    posterior_predictive,
    prior_predictive,
    side_by_side,
    with_plate,
)
from ppl_vae.posterior.own_draws import own_draws
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import weighted_at, weighted_draws

Floats = NDArray[np.float64]


def calibrate(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    num_data: int = 1000,
    num_draws: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Simulate z ~ p(z), x ~ p(x|z), and rank z among draws of q(z|x): is the guide calibrated?

    The fitted program is its own simulator (see `ppl_vae.diagnostics.ranks`), so that this tests
    the guide *at the fitted model*: it says nothing of whether the model fits the data. Ranked are
    each unit of z; log p(x|z), which sees a guide that is the prior, or that ignores correlations;
    log q(z|x), the coverage of highest-density regions; and distances to draws of the prior (TARP).

    An adversarial autoencoder's encoder is not trained towards p(z|x): it fails this, as expected,
    and is no worse a model for it. A program whose latents have no density is ranked by units and
    distances alone.

    Args:
        program: A `VAE` or `Program`.
        x: Data of its kind, whose covariates and missing cells the simulated data have.
        num_data: Data N to simulate.
        num_draws: Draws S of q(z|x) for each.
        level: Of the bands of the single tests.
        seed: Of all draws; torch's random state is left as found.

    Returns:
        The tests; their `p_value` is of all together.

    Raises:
        ValueError: Where x is not given to the model as it is observed, or all data share a latent.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> right, narrow = world.guide, world.broken_guide(scale=0.5)
        >>> calibrate(Program(world.model, right), x, num_data=200).p_value > 0.01
        True
        >>> calibrate(Program(world.model, narrow), x, num_data=200).p_value < 1e-6
        True
    """
    batch = program_batch(program, x, name="x")
    found = with_plate(program, batch)
    names = [n for n in found.latents if n not in found.enumerated]
    if found.shared or not names:
        raise ValueError(
            f"Got the latents {list(found.latents)}, of which {list(found.shared)} belong to all "
            "data and the others are summed out; expected latents of each datum. Try a program "
            "that has some."
        )
    own = own_draws(program, batch, num_data, seed=seed)
    truth = side_by_side(own.latents, names, 1)
    scores: dict[str, tuple[Floats, Floats]] = {}
    if found.undefined is None and not found.enumerated:
        drawn = weighted_draws(program, own.batch, num_draws, seed=seed + 1)
        latents = drawn.latents
        at = weighted_at(program, own.batch, {n: own.latents[n][None] for n in names})
        for name, exact, guess in (
            ("log p(x|z)", at.log_likelihood, drawn.log_likelihood),
            ("log q(z|x)", at.log_guide, drawn.log_guide),
        ):
            if exact is not None and guess is not None:  # nothing is summed out here
                scores[name] = as_array(exact)[0], as_array(guess)
    else:
        latents = posterior_predictive(program, own.batch, num_draws, seed=seed + 1).latents
    draws = side_by_side(latents, names, 2)
    units = unit_names(names, [own.latents[n][0].numel() for n in names])
    ranked = dict(zip(units, ranks(truth, draws, seed=seed + 2).T, strict=True))
    for name, (one, many) in scores.items():
        ranked[name] = ranks(one[:, None], many[..., None], seed=seed + 3)[:, 0]
    centres = prior_predictive(program, num_data, like=own.batch, seed=seed + 4).latents
    references = side_by_side(centres, names, 1)
    scale = truth.std(0).clip(min=1e-12)
    ranked["distance"] = tarp_ranks(truth / scale, draws / scale, references / scale)
    contraction = 1 - draws.var(0).mean(0) / truth.var(0).clip(min=1e-12)
    return calibration(
        ranked,
        num_draws=num_draws,
        contraction={n: float(c) for n, c in zip(units, contraction, strict=True)},
        level=level,
    )


def unit_names(sites: list[str], sizes: list[int]) -> list[str]:
    """Name the units of latents side by side: ``z[0]``, ``z[1]``; of a single number its site."""
    return [
        name if size == 1 else f"{name}[{k}]"
        for name, size in zip(sites, sizes, strict=True)
        for k in range(size)
    ]
