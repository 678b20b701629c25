"""A kernel in the critic's place: the maximum mean discrepancy of codes and prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives.arguments import refuse_number
from ppl_vae.objectives.codes import (
    coded_structure,
    codes_of,
    prior_run,
    reach,
    row_weights,
    run_coded,
    scored,
    warn_of_prior,
)
from ppl_vae.objectives.kernels import InverseMultiquadric, Kernel, mmd2_unbiased
from ppl_vae.objectives.phases import ObjectiveState, Parts, Phase, over, under_svi


@dataclass(frozen=True)
class MMD:
    """Minimises −E_q[log p(x|z)] + weight · MMD²(q(z), p(z)), an autoencoder without a critic.

    The Wasserstein autoencoder's penalty (Tolstikhin et al. 2018, arXiv:1711.01558, algorithm 2),
    by the unbiased estimate over a batch, with fresh draws of the model's own prior: any that can
    be drawn from. It is the control beside `Adversarial`: nothing is played, but a kernel sees
    little in many dimensions, and pulls hardly at all where codes are far from the prior.

    Larger batches estimate it better; a batch of a single row has no pair, and no penalty. As under
    an adversary, the guide is not trained towards p(z|x), and a prior's parameters do not move.

    Args:
        kernel: `InverseMultiquadric` or `RBF`.
        weight: Nats per datum for an MMD² of 1, which codes far from the prior have.

    Raises:
        ValueError: If `weight` is negative, or, in `fit`, a guide's draws carry no gradient.

    Example:
        >>> MMD(weight=50.0).score({"loss": 3.0})
        -3.0
    """

    kernel: Kernel = InverseMultiquadric()
    weight: float = 100.0

    def __post_init__(self) -> None:
        refuse_number("weight", self.weight, usual=100.0)
        if isinstance(self.kernel, type) or not callable(self.kernel):
            raise ValueError(
                f"Got kernel={self.kernel!r}; expected a kernel. Try InverseMultiquadric() or "
                "RBF(): mind the brackets."
            )

    def init(self, program: nn.Module, batch: Batch) -> ObjectiveState:
        """Check that codes can be drawn with gradients."""
        found, guide = coded_structure(program, batch)
        warn_of_prior(reach(program, batch, found), "Adversarial(learn_prior=True)")
        codes = codes_of(guide, found, found.latents)[:3]
        squared = (codes[:, None] - codes[None]).square().sum(-1)
        values = self.kernel(squared, torch.ones_like(squared[0, 0]))
        if not isinstance(values, Tensor) or values.shape != squared.shape:
            raise ValueError(
                f"Got {type(values).__name__} of shape {tuple(getattr(values, 'shape', ()))} from "
                f"the kernel {self.kernel!r} at squared distances of shape {tuple(squared.shape)}; "
                "expected a value for each. Try RBF(), or a function (squared, spread)."
            )
        return ObjectiveState(found)

    def phases(self, program: nn.Module, state: ObjectiveState) -> tuple[Phase, ...]:
        """One phase: encoder and decoder."""

        def loss(state: ObjectiveState, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, Parts]:
            batch, found = Batch(args, kwargs), state.found
            model, guide = run_coded(program, batch)
            log_likelihood, figure = scored(model, found.observed)
            codes = codes_of(guide, found, found.latents)
            draws = codes_of(prior_run(program, batch), found, found.latents)
            scale, mmd2 = found.scale(batch.rows), 0 * codes.sum()
            rows = row_weights(guide, found, found.latents, batch.rows)
            if len(codes) > 1:
                mmd2 = mmd2_unbiased(codes, draws, self.kernel, rows=rows)
            data = len(codes) if rows is None else rows.sum()
            parts = {"reconstruction": figure, **over({"mmd2": data * mmd2.detach()}, rows)}
            return -log_likelihood + self.weight * scale * data * mmd2, parts

        return (Phase("mmd", loss),)

    def score(self, means: dict[str, float]) -> float | None:
        """Minus the loss."""
        return -means["loss"]

    def __call__(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Tensor, **kwargs: Tensor
    ) -> Tensor:
        """Give the loss as a differentiable tensor, as ``pyro.infer.SVI(loss=...)`` wants it."""
        program, state = under_svi(self, model, guide, Batch(args, kwargs))
        (phase,) = self.phases(program, state)
        return phase.loss(state, *args, **kwargs)[0]
