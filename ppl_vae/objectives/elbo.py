"""The evidence lower bound."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives.arguments import refuse_count
from ppl_vae.objectives.estimator import Estimator, closed_kl
from ppl_vae.objectives.handlers import ScaleLatents
from ppl_vae.objectives.phases import ObjectiveState, Parts, Phase
from ppl_vae.programs.runs import functions, probe
from ppl_vae.programs.traces import structure


@dataclass(frozen=True)
class ELBO:
    """Minimises −E_q[log p(x|z)] + β KL(q(z|x) ‖ p(z)), summed over the batch, in nats.

    With the defaults it is Pyro's ``Trace_ELBO`` to the last bit (Kingma & Welling 2014,
    arXiv:1312.6114, eq. 2; Ranganath et al. 2014). The ELBO at β = 1 is always logged.

    Args:
        num_particles: Draws of z per datum.
        analytic_kl: Use the closed form of the KL where there is one.
        kl_weight: β (Higgins et al. 2017). Other values than 1 give no bound on log p(x).
        warmup: Epochs over which the weight rises linearly from 0 to β (Bowman et al. 2016,
            arXiv:1511.06349): the remedy when units collapse onto the prior. Early stopping waits.

    Raises:
        ValueError: If an argument is out of range, or, in `fit`, the program does not suit.

    Example:
        >>> ELBO(kl_weight=0.5, warmup=10)
        ELBO(num_particles=1, analytic_kl=False, kl_weight=0.5, warmup=10)

        It is also a loss for `pyro.infer.SVI`:

        >>> import pyro
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(1, 3, seed=0)
        >>> svi = pyro.infer.SVI(world.model, world.guide, pyro.optim.Adam({"lr": 0.01}), ELBO())
    """

    num_particles: int = 1
    analytic_kl: bool = False
    kl_weight: float = 1.0
    warmup: float = 0

    def __post_init__(self) -> None:
        refuse_count("num_particles", self.num_particles)
        if not isinstance(self.analytic_kl, bool):
            raise ValueError(
                f"Got analytic_kl={self.analytic_kl!r}; expected a bool. Try analytic_kl=True."
            )
        for name, value in {"kl_weight": self.kl_weight, "warmup": self.warmup}.items():
            if not isinstance(value, Real) or not 0 <= value < float("inf"):
                raise ValueError(
                    f"Got {name}={value!r}; expected a finite number of 0 or more. Try kl_weight=1 "
                    "with warmup=0, or warmup=20 for a weight that rises over 20 epochs."
                )

    def init(self, program: nn.Module, batch: Batch) -> ObjectiveState:
        """Check that the program has what a bound needs."""
        found = structure(program, batch)
        if found.enumerated:
            raise ValueError(
                f"Got the sites {list(found.enumerated)} marked for enumeration; ELBO() samples, "
                "and expected none. Try objective=pyro.infer.TraceEnum_ELBO()."
            )
        if found.sampled_only:
            raise ValueError(
                f"Got a program without an ELBO: {found.not_scored}; expected a prior and a guide "
                "with log_prob. Try objective=Adversarial(), which only draws from them."
            )
        if found.points:
            warnings.warn(
                f"{found.undefined}: this fit is maximum a posteriori, not a bound, and logs no "
                "ELBO and no KL. Try a Normal guide, or objective=Adversarial().",
                stacklevel=3,
            )
        if self.analytic_kl:
            closed = closed_kl(*probe(program, batch))
            if sampled := [n for n in found.latents if n not in closed]:
                warnings.warn(
                    f"Got analytic_kl=True, but the KL at {sampled} has no closed form that may be "
                    "used (see ppl_vae.distributions.kl_divergence); expected one. It is sampled "
                    "there: try analytic_kl=False, or a Normal guide under a Normal prior.",
                    stacklevel=3,
                )
        return ObjectiveState(found)

    def phases(self, program: nn.Module, state: ObjectiveState) -> tuple[Phase, ...]:
        """One phase: every parameter the program registers."""
        estimator = Estimator(self.num_particles, self.analytic_kl)

        def loss(state: ObjectiveState, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, Parts]:
            model, guide = functions(program)
            if self.kl_weight != 1 or self.warmup:
                weight = self.kl_weight * self._ramp(state.epoch)
                model, guide = ScaleLatents(weight)(model), ScaleLatents(weight)(guide)
            value = estimator.differentiable_loss(model, guide, *args, **kwargs)
            parts = estimator.parts
            if state.found.undefined is not None:
                return value, {"reconstruction": parts["reconstruction"]}
            reconstruction, kl = parts["reconstruction"], parts["kl"]
            return value, {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}

        return (Phase("elbo", loss),)

    def score(self, means: dict[str, float]) -> float | None:
        """Reconstruction − β KL at the final β: the ELBO when β = 1."""
        if "kl" not in means:
            return -means["loss"]
        return means["reconstruction"] - self.kl_weight * means["kl"]

    def __call__(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Tensor, **kwargs: Tensor
    ) -> Tensor:
        """Give the loss as a differentiable tensor, as ``pyro.infer.SVI(loss=...)`` wants it."""
        if self.warmup:
            raise ValueError(
                f"Got warmup={self.warmup} outside fit; expected 0: a schedule needs the epoch. "
                "Try fit(program, data, objective=...), or set kl_weight by hand."
            )
        if self.kl_weight != 1:
            device = next(iter((*args, *kwargs.values()))).device
            weight = torch.tensor(self.kl_weight, dtype=torch.float64, device=device)
            model, guide = ScaleLatents(weight)(model), ScaleLatents(weight)(guide)
        estimator = Estimator(self.num_particles, self.analytic_kl)
        return estimator.differentiable_loss(model, guide, *args, **kwargs)

    def _ramp(self, epoch: Tensor) -> Tensor:
        return (epoch / self.warmup).clamp(max=1) if self.warmup else epoch * 0 + 1
