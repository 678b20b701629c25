"""Draws of p(z|x) by Hamiltonian Monte Carlo: what a guide should be like, for a few data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro.infer.mcmc import NUTS
from pyro.infer.mcmc.api import MCMC
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.posterior.draws import as_array, prior_predictive
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.replayed import replayed
from ppl_vae.posterior.unconstrained import Unconstrained
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.modes import forked_rng, frozen

Floats = NDArray[np.float64]

COMPILED = 1000
"""From so many transitions on the potential is compiled, which takes some seconds."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Draws of p(z|x) under the fitted model, and whether they can be trusted.

    Attributes:
        latents: By site, ``(C, S, N, *event)``.
        rhat: Largest R-hat of the units of each datum, ``(N,)``: below 1.01 where chains agree.
        ess: Smallest effective sample size of the units of each datum, ``(N,)``, bulk or tail.
        divergences: Transitions that left the path of the Hamiltonian; one is too many.
        num_chains: C.
        num_samples: S, for each chain.
    """

    latents: Mapping[str, Tensor]
    rhat: Floats
    ess: Floats
    divergences: int
    num_chains: int
    num_samples: int

    def __repr__(self) -> str:
        return (
            f"Reference(N={len(self.rhat)}; {self.num_chains} chains of {self.num_samples}; "
            f"R-hat up to {self.rhat.max():.3f}, ESS {self.ess.min():.0f} or more, "
            f"{self.divergences} divergences)"
        )


@explained
def reference_posterior(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    num_samples: int = 1000,
    warmup: int = 500,
    num_chains: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> Reference:
    """Draw from p(z|x) by NUTS, p(z) and p(x|z) as they are fitted: no guide takes part.

    All data are one run, on unconstrained space: a few tens of them. Chains start at draws of the
    prior, so that modes far apart show in R-hat, which means something here, as effective sample
    sizes do: of independent draws of a guide they look perfect however bad it is.

    The model runs once and its graph thereafter, compiled if the run is long and the machine can.
    `guide_agreement` sets a guide beside the result.

    Args:
        program: A `VAE` or `Program`, of any guide.
        x: The data, a few tens of rows.
        num_samples: Draws S of each chain.
        warmup: Steps before them, in which step size and masses adapt.
        num_chains: Chains C, one after the other.
        seed: Of all draws; torch's random state is left as found.
        progress: Show a progress bar for each chain.

    Raises:
        NoDensityError: If the prior has no density, or a latent is discrete or shared by all data.
        ValueError: If a count is too small.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> found = reference_posterior(
        ...     Program(world.model, world.guide),
        ...     x,
        ...     num_samples=200,
        ...     warmup=100,
        ...     num_chains=2,
        ...     progress=False,
        ... )
        >>> found.latents["z"].shape, found.divergences
        (torch.Size([2, 200, 3, 2]), 0)
    """
    least = {"num_samples": 10, "warmup": 1, "num_chains": 2}
    given = {"num_samples": num_samples, "warmup": warmup, "num_chains": num_chains}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least[name]:
            raise ValueError(
                f"Got {name}={value!r}; expected an integer of {least[name]} or more. Try leaving "
                "it out."
            )
    batch = program_batch(program, x, name="x")
    space = Unconstrained(program, batch)
    chains, divergences = [], 0

    def energy(u: Tensor) -> Tensor:
        scores = space.scores(u, batch)
        return -(scores.log_prior + scores.log_likelihood).sum()

    with forked_rng(batch.device, seed), frozen(program):
        starts = [_prior_draw(program, batch, space) for _ in range(num_chains)]
        long = num_chains * (warmup + num_samples) >= COMPILED
        with pyro.validation_enabled(False):  # as Pyro runs it
            quick = replayed(energy, starts, compile=long)
        for u in starts:
            kernel = NUTS(potential_fn=lambda point: quick(point["u"]), target_accept_prob=0.8)
            run = MCMC(
                kernel,
                num_samples=num_samples,
                warmup_steps=warmup,
                initial_params={"u": u},
                disable_progbar=not progress,
            )
            run.run()
            chains.append(run.get_samples()["u"])
            divergences += sum(len(v) for v in run.diagnostics()["divergences"].values())
        u = torch.stack(chains)
    free = as_array(u)
    rhat, ess = _convergence(free)
    with torch.no_grad():
        flat = space.constrained(u.reshape(-1, space.size))
    latents = {n: v.reshape(*u.shape[:3], *v.shape[1:]) for n, v in flat.items()}
    return Reference(latents, rhat, ess, divergences, num_chains, num_samples)


def _prior_draw(program: nn.Module, batch: Batch, space: Unconstrained) -> Tensor:
    start = int(torch.randint(2**31, ()))
    drawn = prior_predictive(program, batch.rows, like=batch, seed=start).latents
    return space.inverse({n: drawn[n] for n in space.free})


def _convergence(u: Floats) -> tuple[Floats, Floats]:
    """R-hat and effective sample size of draws ``(C, S, N, D)``, the worst unit of each datum."""
    from arviz_stats.base.array import array_stats

    def of(function: Any, **kwargs: Any) -> Floats:  # noqa: ANN401
        found: Floats = np.asarray(function(u, chain_axis=0, draw_axis=1, **kwargs))
        return found

    rhat = of(array_stats.rhat).max(-1)
    ess = np.minimum(of(array_stats.ess), of(array_stats.ess, method="tail", prob=0.05)).min(-1)
    return rhat, ess
