"""The importance-weighted bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives.phases import ObjectiveState, Parts, Phase
from ppl_vae.programs.log_weights import per_row
from ppl_vae.programs.runs import Site, probe, run
from ppl_vae.programs.traces import Structure, structure
from ppl_vae.programs.vae import VAE


@dataclass(frozen=True)
class ImportanceWeighted:
    """E[log 1/K Σ_k w_k], w_k = p(x, z_k) / q(z_k|x): tighter than the ELBO with every K.

    Burda, Grosse and Salakhutdinov 2016 (Importance weighted autoencoders), eq. 8. The gradient
    is that of the reparameterised bound; the guide's own share of it fades as K grows (Rainforth
    et al. 2018), so K = 5 to 50 is usual.

    Args:
        num_particles: Draws K of z per datum.

    Raises:
        ValueError: If `num_particles` is not a positive integer, or, in `fit`, a program has no
            log weights or draws without a gradient.

    Example:
        >>> ImportanceWeighted(10).score({"bound": -80.0, "elbo": -85.0})
        -80.0
    """

    num_particles: int

    def __post_init__(self) -> None:
        count = self.num_particles
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(
                f"Got num_particles={count!r}; expected a positive integer. Try num_particles=10."
            )

    def init(self, program: nn.Module, batch: Batch) -> ObjectiveState:
        """Check that the program has log weights that carry a gradient."""
        found = structure(program, batch)
        if found.undefined is not None or found.enumerated or found.full_size is not None:
            reason = found.undefined or (
                f"the sites {list(found.enumerated)} are summed out"
                if found.enumerated
                else f"the plate {found.plate!r} subsamples a larger data set"
            )
            raise ValueError(
                f"Got a program without log weights to train on: {reason}. Expected densities of "
                "every latent, inside a data plate of the batch's size. Try objective="
                f"{_instead(found)}()."
            )
        _, guide = probe(program, batch)
        if fixed := [n for n in found.latents if not guide.nodes[n]["fn"].has_rsample]:
            raise ValueError(
                f"Got a guide whose draws at {fixed} carry no gradient; expected reparameterised "
                "ones. Try a Normal or MultivariateNormal guide, or objective=ELBO()."
            )
        return ObjectiveState(found)

    def phases(self, program: nn.Module, state: ObjectiveState) -> tuple[Phase, ...]:
        """One phase: every parameter the program registers."""

        def loss(state: ObjectiveState, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, Parts]:
            weights, likelihood = self._log_weights(program, Batch(args, kwargs), state.found)
            bound = (weights.logsumexp(0) - math.log(self.num_particles)).sum()
            with torch.no_grad():
                elbo, reconstruction = weights.mean(0).sum(), likelihood.mean(0).sum()
            return -bound, {
                "bound": bound.detach(),
                "elbo": elbo,
                "reconstruction": reconstruction,
                "kl": reconstruction - elbo,
            }

        return (Phase("bound", loss),)

    def score(self, means: dict[str, float]) -> float | None:
        """The bound itself."""
        return means["bound"]

    def _log_weights(
        self, program: nn.Module, batch: Batch, found: Structure
    ) -> tuple[Tensor, Tensor]:
        """log w and log p(x|z), both ``(K, N)``."""
        shape = (self.num_particles, batch.rows)
        if isinstance(program, VAE):  # its nets take any batch dims: the encoder runs once
            with pyro.plate("particles", self.num_particles, dim=-1 - found.nesting):
                model, guide = run(program, batch)
        else:
            index = torch.arange(batch.rows, device=batch.device)
            model, guide = run(program, batch.take(index.repeat(self.num_particles)))

        def score(site: Site) -> Tensor:
            if isinstance(program, VAE):
                log_prob: Tensor = site["fn"].log_prob(site["value"])
                return log_prob.expand(shape)
            return per_row(site, found.dim, math.prod(shape)).reshape(shape)

        likelihood = torch.stack([score(model.nodes[n]) for n in found.observed]).sum(0)
        ratio = [score(model.nodes[n]) - score(guide.nodes[n]) for n in found.latents]
        return likelihood + torch.stack(ratio).sum(0), likelihood.detach()


def _instead(found: Structure) -> str:
    if found.sampled_only:
        return "Adversarial"
    return "pyro.infer.TraceEnum_ELBO" if found.enumerated else "ELBO"
