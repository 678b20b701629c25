"""A guide on data that its own program simulates: what calibration and typicality are read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ppl_vae.data.batches import Batch
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
from ppl_vae.programs.log_weights import weighted_at, weighted_draws
from ppl_vae.programs.masks import refuse_left_out

Floats = NDArray[np.float64]

DERIVED = ("log p(x|z)", "log q(z|x)", "distance")
"""What is ranked beside the units."""


class Simulated(NamedTuple):
    """M data of the model's own making, the z that made them, and S draws of q(z|x) for each.

    Attributes:
        units: Names of the units of z.
        truth: z, ``(M, D)``.
        draws: z_s ~ q(z|x), ``(S, M, D)``.
        references: z ~ p(z) that have no part in x, ``(M, D)``.
        scores: log p(x|z) and log q(z|x) by name: at the truth ``(M,)``, at the draws ``(S, M)``;
            none where latents have no density.
        log_weights: Of the draws, ``(S, M)``; None with the scores.
        seed: Of all of it.
    """

    units: list[str]
    truth: Floats
    draws: Floats
    references: Floats
    scores: Mapping[str, tuple[Floats, Floats]]
    log_weights: Floats | None
    seed: int

    @property
    def log_evidence(self) -> Floats | None:
        """log p̂(x) of the simulated data, ``(M,)``, nats."""
        return None if self.log_weights is None else log_mean_weight(self.log_weights)

    def calibration(self, level: float = 0.95) -> Calibration:
        """Rank the truth among the draws, quantity by quantity."""
        ranked = dict(zip(self.units, ranks(self.truth, self.draws, seed=self.seed).T, strict=True))
        for name, (one, many) in self.scores.items():
            ranked[name] = ranks(one[:, None], many[..., None], seed=self.seed + 1)[:, 0]
        spread = self.truth.std(0).clip(min=1e-12)
        ranked["distance"] = tarp_ranks(
            self.truth / spread, self.draws / spread, self.references / spread
        )
        contraction = 1 - self.draws.var(0).mean(0) / self.truth.var(0).clip(min=1e-12)
        return calibration(
            ranked,
            num_draws=len(self.draws),
            contraction={n: float(c) for n, c in zip(self.units, contraction, strict=True)},
            level=level,
        )


def simulate(
    program: nn.Module, batch: Batch, num_data: int, num_draws: int, *, seed: int
) -> Simulated:
    """Draw z ~ p(z), x ~ p(x|z) in the place of the data, and z_s ~ q(z|x).

    Raises:
        ValueError: Where x is not given to the model as it is observed, or no latent is of each
            datum alone.
    """
    found = with_plate(program, batch)
    names = [n for n in found.latents if n not in found.enumerated]
    if found.shared:
        raise ValueError(
            f"Got the latents {list(found.shared)}, which all data have in common; expected that "
            "each datum has its own, for ranks of data that share a draw are not independent. Try "
            "a program in which they are parameters."
        )
    if not names:
        raise ValueError(
            f"Got the latents {list(found.latents)}, which are all summed out; expected some that "
            "are drawn. Try clusters(program, x)."
        )
    refuse_left_out(program, batch, found)
    own = own_draws(program, batch, num_data, seed=seed)
    scores: dict[str, tuple[Floats, Floats]] = {}
    log_weights = None
    if found.undefined is None:
        drawn = weighted_draws(program, own.batch, num_draws, seed=seed + 1)
        latents, log_weights = drawn.latents, as_array(drawn.log_weights)
    if found.undefined is None and not found.enumerated:
        at = weighted_at(program, own.batch, {n: own.latents[n][None] for n in names})
        for name, exact, guess in (
            ("log p(x|z)", at.log_likelihood, drawn.log_likelihood),
            ("log q(z|x)", at.log_guide, drawn.log_guide),
        ):
            if exact is not None and guess is not None:  # nothing is summed out here
                scores[name] = as_array(exact)[0], as_array(guess)
    else:
        latents = posterior_predictive(program, own.batch, num_draws, seed=seed + 1).latents
    centres = prior_predictive(program, num_data, like=own.batch, seed=seed + 4).latents
    return Simulated(
        unit_names(names, [own.latents[n][0].numel() for n in names]),
        side_by_side(own.latents, names, 1),
        side_by_side(latents, names, 2),
        side_by_side(centres, names, 1),
        scores,
        log_weights,
        seed + 2,
    )


def unit_names(sites: list[str], sizes: list[int]) -> list[str]:
    """Name the units of latents side by side: ``z[0]``, ``z[1]``; of a single number its site."""
    units = [
        name if size == 1 else f"{name}[{k}]"
        for name, size in zip(sites, sizes, strict=True)
        for k in range(size)
    ]
    return [f"latent {unit}" if unit in DERIVED else unit for unit in units]


def log_mean_weight(log_w: Floats) -> Floats:
    """Give log p̂(x) of log weights ``(S, N)``: ``(N,)``."""
    found: Floats = np.logaddexp.reduce(log_w, axis=0) - np.log(len(log_w))
    return found
