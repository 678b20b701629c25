"""Draws of p(z|x) from those of a guide: proposals, drawn again by their weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppl_vae.diagnostics import good_khat
from ppl_vae.diagnostics.khat import MIN_DRAWS
from ppl_vae.diagnostics.smoothed import smoothed
from ppl_vae.posterior.faults import explained
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import weighted_draws
from ppl_vae.programs.traces import NoDensityError

Floats = NDArray[np.float64]

HELD = 2**20
"""Proposals held at a time: data are taken so few at once."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """Draws of p(z|x), and for which data they can be trusted; arrays are ``(N,)``.

    Attributes:
        latents: By site, ``(S, N, *event)``; a proposal may come more than once.
        ess: How many draws of p(z|x) the proposals are worth: 1 / Σ w², of smoothed weights.
        khat: Of the raw weights (see `diagnostics.khat`).
        num_proposals: M, for each datum.
    """

    latents: Mapping[str, Tensor]
    ess: Floats
    khat: Floats
    num_proposals: int

    @property
    def trusted(self) -> NDArray[np.bool_]:
        """Where k-hat is known, and no more than `good_khat` of M."""
        found: NDArray[np.bool_] = self.khat <= good_khat(self.num_proposals)
        return found

    def __repr__(self) -> str:
        return (
            f"Resampled(N={len(self.khat)}, M={self.num_proposals}; ESS {self.ess.min():.0f} or "
            f"more; k-hat > {good_khat(self.num_proposals):.2g}, or not known, for "
            f"{(~self.trusted).mean():.0%})"
        )


@explained
def resampled_posterior(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    num_samples: int = 1000,
    *,
    num_proposals: int | None = None,
    seed: int = 0,
) -> Resampled:
    """Draw from p(z|x) by sampling from the guide and resampling by weight.

    M draws of q(z|x) are weighted by p(x, z) / q(z|x), and S of them drawn with replacement:
    sampling importance resampling (Rubin 1987, The calculation of posterior distributions by data
    augmentation: comment; recalled, not checked), with Pareto-smoothed weights (Vehtari et al.
    2024, arXiv:1507.02646). Means over the draws have an error of about
    sd √(1/S + 1/ESS). It costs M runs of the decoder a datum, `reference_posterior` thousands in
    sequence; but a mode that the guide never visits is not in the draws, and nothing says so.

    Where k-hat is too high the draws are a few proposals again and again, narrower than p(z|x) and
    near q: a warning says for how many data.

    Args:
        program: A `VAE` or `Program` whose guide has a density.
        x: Data as `fit` takes them.
        num_samples: Draws S for each datum.
        num_proposals: M; twenty times S and no fewer than 1000 when absent.
        seed: Of all draws; torch's random state is left as found.

    Raises:
        NoDensityError: Where there are no log weights, or discrete latents are summed out.
        ValueError: If a count is too small.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> wide = Program(world.model, world.broken_guide(scale=1.5))
        >>> found = resampled_posterior(wide, x, 1000)
        >>> found.latents["z"].shape, bool(found.trusted.all())
        (torch.Size([1000, 3, 2]), True)
    """
    total = max(20 * num_samples, 1000) if num_proposals is None else num_proposals
    for name, count, least in (
        ("num_samples", num_samples, 1),
        ("num_proposals", total, MIN_DRAWS),  # or there is no k-hat
    ):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ValueError(
                f"Got {name}={count!r}; expected an integer of {least} or more. Try leaving it out."
            )
    batch = program_batch(program, x, name="x")
    rng = np.random.default_rng(seed)
    latents: dict[str, list[Tensor]] = {}
    ess, tails = [], []
    for rows in torch.arange(batch.rows, device=batch.device).split(max(1, HELD // total)):
        start = int(rng.integers(2**31))
        proposed = weighted_draws(program, batch.take(rows), total, seed=start)
        if not proposed.latents:
            raise NoDensityError(
                "Got discrete latents that are summed out; expected that all latents are drawn and "
                "weighted together. Try posterior_predictive."
            )
        found = smoothed(proposed.log_weights.cpu().numpy())
        chosen = np.stack([rng.choice(total, num_samples, p=w) for w in found.weights.T], axis=1)
        index = torch.as_tensor(chosen, device=batch.device)
        for name, values in proposed.latents.items():
            drawn = values[index, torch.arange(len(rows), device=batch.device)]
            latents.setdefault(name, []).append(drawn)
        ess.append(found.ess)
        tails.append(found.khat)
    result = Resampled(
        {n: torch.cat(parts, dim=1) for n, parts in latents.items()},
        np.concatenate(ess),
        np.concatenate(tails),
        total,
    )
    if not result.trusted.all():
        warnings.warn(
            f"k-hat is above {good_khat(total):.2g}, or not known, for "
            f"{(~result.trusted).sum()} of {batch.rows} data: their draws are not to be trusted as "
            "draws of p(z|x). Try resampled_posterior(refine(program, x), x), or "
            "reference_posterior.",
            stacklevel=3,
        )
    return result
