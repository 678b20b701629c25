"""The adversarial objective: a critic takes the place of the KL term."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from ppl_vae.conditional import NetBuilder
from ppl_vae.data.batches import Batch
from ppl_vae.nets import MLP
from ppl_vae.objectives.phases import ObjectiveState, Parts, Phase
from ppl_vae.programs.modes import buffers_kept, probing
from ppl_vae.programs.program import Program
from ppl_vae.programs.registration import register
from ppl_vae.programs.runs import probe, rows_first, run, run_guide, run_model
from ppl_vae.programs.traces import Structure, structure


class AdversarialState(ObjectiveState):
    """The state of an adversary: the critic lives and is checkpointed here."""

    def __init__(self, found: Structure, critic: nn.Module) -> None:
        super().__init__(found)
        self.critic = critic


@dataclass(frozen=True)
class Adversarial:
    """Minimises −E_q[log p(x|z)] + weight · E_q[−log D(z)] against a critic D.

    The critic tells z ~ q(z) = E_x q(z|x) from z ~ p(z), which are drawn by running the model
    itself, all latents jointly: a swapped prior swaps the critic's target. The loss is the
    non-saturating one of Goodfellow et al. 2014 (arXiv:1406.2661, section 3), in the latent space
    as in Makhzani et al. 2015 (arXiv:1511.05644). A generator phase moves the program (the
    critic stays bit-equal), a critic phase moves the critic (the program stays bit-equal).

    An AAE's guide is not trained towards p(z|x): do not read its own evidence, `refit_guide`
    first. A critic at equilibrium is no evidence that q(z) = p(z): see `diagnose`. A prior's
    parameters do not move under this objective. There is no validation score, so no early
    stopping.

    Args:
        critic: Builder ``(in_features, 1) -> nn.Module`` of a net that gives logits.
        weight: Weight of the critic against the reconstruction, both in nats per datum.
        critic_optimizer: A torch optimizer class and its arguments.

    Raises:
        ValueError: If `weight` is negative, or, in `fit`, a guide's draws carry no gradient.

    Example:
        >>> Adversarial(weight=10.0).weight
        10.0
    """

    critic: NetBuilder = field(default_factory=lambda: MLP(128, 128))
    weight: float = 10.0
    critic_optimizer: tuple[type[torch.optim.Optimizer], dict[str, Any]] = field(
        default_factory=lambda: (torch.optim.Adam, {"lr": 1e-3, "betas": (0.5, 0.999)})
    )

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Real) or not 0 <= self.weight < float("inf"):
            raise ValueError(
                f"Got weight={self.weight!r}; expected a finite number of 0 or more. Try 10.0."
            )
        if isinstance(self.critic, nn.Module) or not callable(self.critic):
            raise ValueError(
                f"Got a {type(self.critic).__name__} as critic; expected a builder "
                "(in_features, 1) -> nn.Module, so that it can be sized to the latents. "
                "Try MLP(128, 128)."
            )
        spec = self.critic_optimizer
        if not isinstance(spec, tuple) or len(spec) != 2 or not isinstance(spec[0], type):
            raise ValueError(
                f"Got critic_optimizer={getattr(spec, '__name__', type(spec).__name__)}; expected "
                "a torch optimizer class and its arguments. Try (torch.optim.Adam, {'lr': 1e-3})."
            )

    def init(self, program: nn.Module, batch: Batch) -> AdversarialState:
        """Check that codes can be drawn with gradients, and build the critic."""
        found = structure(program, batch)
        if found.plate is None or found.shared:
            raise ValueError(
                f"Got a program without one code per datum: {found.undefined}; the critic expected "
                "one. Try moving every latent inside the data plate."
            )
        if found.enumerated:
            raise ValueError(
                f"Got sites {list(found.enumerated)} marked for enumeration; expected latents that "
                "are drawn with a gradient. Try objective=pyro.infer.TraceEnum_ELBO()."
            )
        _, guide = probe(program, batch)
        fixed = [n for n in found.latents if not guide.nodes[n]["fn"].has_rsample]
        if fixed:
            raise ValueError(
                f"Got a guide whose draws at {fixed} carry no gradient to the encoder; expected a "
                "reparameterised distribution. Try Normal, MultivariateNormal or Delta."
            )
        learnable = [n for n, p in _prior(program).named_parameters() if p.requires_grad]
        if learnable:
            warnings.warn(
                f"Got a prior with trainable parameters {learnable} under Adversarial; they do not "
                "move: the critic pulls q(z) towards p(z), never p(z) towards q(z). Try "
                "prior.requires_grad_(False), or learn the prior first, under ELBO().",
                stacklevel=3,
            )
        codes = _codes(guide, found)
        critic = self.critic(codes.shape[-1], 1)
        if not isinstance(critic, nn.Module):
            raise ValueError(
                f"Got a {type(critic).__name__} from the critic's builder; expected an nn.Module. "
                "Try MLP(128, 128)."
            )
        critic = critic.to(codes)
        with probing(critic), torch.no_grad():
            logits = critic(codes)
        if logits.shape != (len(codes), 1):
            raise ValueError(
                f"Got shape {tuple(logits.shape)} from the critic for {len(codes)} codes; expected "
                f"{(len(codes), 1)}, a logit for each. Try a builder that uses its second argument."
            )
        return AdversarialState(found, critic)

    def phases(self, program: nn.Module, state: AdversarialState) -> tuple[Phase, ...]:
        """Generator, then critic."""
        critic = state.critic

        def generator(
            state: AdversarialState, *args: Tensor, **kwargs: Tensor
        ) -> tuple[Tensor, Parts]:
            model, guide = run(program, Batch(args, kwargs))
            model.compute_log_prob(lambda name, site: site["is_observed"])
            log_likelihood = torch.stack(
                [model.nodes[n]["log_prob_sum"] for n in state.found.observed]
            ).sum()
            # Called with copies, the critic is out of reach of this phase, buffers included.
            frozen: dict[str, Tensor] = {n: p.detach() for n, p in critic.named_parameters()}
            frozen |= {n: b.clone() for n, b in critic.named_buffers()}
            logits = functional_call(critic, frozen, (_codes(guide, state.found),))
            fooled = softplus(-logits).sum()
            scale = state.found.scale(len(logits))  # of a plate that subsamples
            parts = {
                "reconstruction": log_likelihood.detach() / scale,
                "adversarial": fooled.detach(),
            }
            return -log_likelihood + self.weight * scale * fooled, parts

        def discriminator(
            state: AdversarialState, *args: Tensor, **kwargs: Tensor
        ) -> tuple[Tensor, Parts]:
            with torch.no_grad(), poutine.block(), buffers_kept(program):
                fake = _codes(run_guide(program, Batch(args, kwargs)), state.found)
                real = _codes(run_model(program, Batch(args, kwargs)), state.found)
            on_real, on_fake = critic(real), critic(fake)
            loss = softplus(-on_real).sum() + softplus(on_fake).sum()
            right = ((on_real > 0).sum() + (on_fake < 0).sum()) / 2
            return loss, {"critic_loss": loss.detach(), "critic_accuracy": right.to(loss.dtype)}

        return (
            Phase("generator", generator),
            Phase("critic", discriminator, tuple(critic.parameters())),
        )

    def score(self, means: dict[str, float]) -> float | None:
        """None: an adversary has no score that may be compared between epochs."""
        return None

    def __call__(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Tensor, **kwargs: Tensor
    ) -> Tensor:
        """Give the sum of both losses for ``pyro.infer.SVI``: one step moves both sides."""
        states = self.__dict__.setdefault("_svi", {})
        if (model, guide) not in states:
            owners = {
                id(o): o
                for f in (model, guide)
                if isinstance(o := getattr(f, "__self__", f), nn.Module)
            }
            program = Program(model, guide, modules=owners.values())
            state = self.init(program, Batch(args, kwargs))
            states[model, guide] = program, state
        program, state = states[model, guide]
        register(state.critic)
        generator, critic = self.phases(program, state)
        return generator.loss(state, *args, **kwargs)[0] + critic.loss(state, *args, **kwargs)[0]


def _prior(program: nn.Module) -> nn.Module:
    prior = getattr(program, "prior", None)
    return prior if isinstance(prior, nn.Module) else nn.Module()


def _codes(trace: Trace, found: Structure) -> Tensor:
    """All latents of a run side by side: ``(N, D)``."""
    codes = [rows_first(trace.nodes[n], found.dim) for n in found.latents]
    return torch.cat([z.reshape(len(z), -1) for z in codes], dim=-1)
