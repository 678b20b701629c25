"""The adversarial objective: critics take the place of the KL term."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.poutine import Trace
from pyro.poutine.block_messenger import BlockMessenger
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.nets import MLP
from ppl_vae.objectives.arguments import (
    refuse_count,
    refuse_critics,
    refuse_form,
    refuse_loss,
    refuse_names,
    refuse_noise_epochs,
    refuse_number,
)
from ppl_vae.objectives.codes import (
    coded_structure,
    idle_codes,
    prior_run,
    reach,
    row_weights,
    run_coded,
    run_codes,
    scored,
    warn_of_prior,
)
from ppl_vae.objectives.critic_losses import CriticLoss, NonSaturating
from ppl_vae.objectives.critics import AdversarialState, Nets, build
from ppl_vae.objectives.phases import Optimizer, Parts, Phase, Schedule, over, under_svi
from ppl_vae.programs.modes import on_copies
from ppl_vae.programs.registration import register
from ppl_vae.programs.runs import probe, run_model


@dataclass(frozen=True)
class Adversarial:
    """Minimises −E_q[log p(x|z)] + weight · (what critics make of z ~ q(z|x)).

    A critic tells z ~ q(z) = E_x q(z|x) from z ~ p(z), which are drawn by running the model itself,
    all latents jointly: a swapped prior swaps the critic's target, and a prior that can only be
    drawn from will do. It stands in the latent space as in Makhzani et al. 2015 (arXiv:1511.05644).

    A step has these phases, each of which moves what it names and leaves the rest bit-equal:
    "generator" (encoder, decoder), "critic" (the critics), `critic_steps` times, each with fresh
    draws of the same batch; with a `generator_optimizer` the first comes in two, "reconstruction"
    (encoder, decoder) and "generator" (encoder), as in that paper; with `learn_prior` a last one,
    "prior" (what of the prior's parameters is its own).

    An AAE's guide is not trained towards p(z|x), for its own entropy is in no term: do not read its
    own evidence, `refit_guide` first. A critic that is at a loss is no evidence that q(z) = p(z):
    see `aggregate_match` and `prior_coverage`. There is no validation score, so no early stopping.

    A guide's OneHotCategorical is not drawn: its probabilities are the code, as in the paper's
    section 4.

    Args:
        critic: Builder ``(in_features, 1) -> nn.Module`` of a net that gives scores; or several by
            the latents each is shown, ``{"y": MLP(64), "z": MLP(64)}``. Critics of single latents
            match q(y) and q(z), not their dependence; one critic of both, ``{("y", "z"): ...}``,
            does. Without BatchNorm: batches of codes and of the prior are normalised apart, which
            hides from it what it is to find.
        loss: `NonSaturating`, `LeastSquares`, `Hinge` or `Wasserstein`.
        weight: Of the critics against the reconstruction, which is in nats per datum.
        critic_steps: Steps of the critics for each step of the encoder.
        critic_optimizer: A torch optimizer class and its arguments.
        critic_schedule: A torch scheduler class and its arguments.
        generator_optimizer: Of the encoder against the critics, in a phase of its own; None for one
            phase, and one optimizer, with the reconstruction. Adam's steps have a length of their
            own, so that the weight matters less.
        generator_schedule: Of that optimizer.
        instance_noise: Standard deviation of Gaussian noise that critics see added to codes and to
            draws of the prior, in units of z (Sønderby et al. 2017, arXiv:1610.04490): where the
            two hardly overlap, it gives a gradient.
        noise_epochs: Epochs in which that noise falls to 0, linearly; None for noise that stays.
        given: Names of data that critics are shown beside the codes, labels or covariates: they
            then match q(z|c) with p(z|c), not q(z) with p(z).
        learn_prior: Train the prior's own parameters, if it has a density, by −log p(z) at codes
            z ~ q(z) that are held fixed. By default a prior stays as it is.

    Raises:
        ValueError: If an argument is out of range, or, in `fit`, a guide's draws carry no gradient.

    Example:
        >>> Adversarial(weight=10.0).weight
        10.0
    """

    critic: Nets = field(default_factory=lambda: MLP(128, 128))
    loss: CriticLoss = NonSaturating()
    weight: float = 10.0
    critic_steps: int = 1
    critic_optimizer: Optimizer = field(
        default_factory=lambda: (torch.optim.Adam, {"lr": 1e-3, "betas": (0.5, 0.999)})
    )
    critic_schedule: Schedule | None = None
    generator_optimizer: Optimizer | None = None
    generator_schedule: Schedule | None = None
    instance_noise: float = 0.0
    noise_epochs: float | None = None
    given: tuple[str, ...] = ()
    learn_prior: bool = False

    def __post_init__(self) -> None:
        refuse_number("weight", self.weight, usual=10.0)
        refuse_number("instance_noise", self.instance_noise, usual=0.1)
        refuse_noise_epochs(self.noise_epochs, self.instance_noise)
        refuse_count("critic_steps", self.critic_steps)
        refuse_critics(self.critic)
        refuse_loss(self.loss)
        refuse_names("given", self.given)
        refuse_form("critic_optimizer", self.critic_optimizer)
        if self.generator_optimizer is not None:
            refuse_form("generator_optimizer", self.generator_optimizer)
        elif self.generator_schedule is not None:
            raise ValueError(
                "Got a generator_schedule without a generator_optimizer; expected both, or fit's "
                "schedule. Try generator_optimizer=(torch.optim.Adam, {'lr': 1e-3})."
            )

    def init(self, program: nn.Module, batch: Batch) -> AdversarialState:
        """Check that codes can be drawn with gradients, and build the critics."""
        found, guide = coded_structure(program, batch)
        own = reach(program, batch, found)
        if self.learn_prior and not own.prior:
            raise ValueError(
                "Got learn_prior=True, but no trainable parameter is the prior's own and in its "
                "density; expected one. Try GaussianMixture(..., learned=True), or "
                "learn_prior=False."
            )
        warn_of_prior(own, None if self.learn_prior else "Adversarial(learn_prior=True)")
        model, _ = probe(program, batch)
        data = [model.nodes[name]["value"] for name in found.observed]
        # Of a VAE x is passed by its place.
        observed = {*found.observed} - {*batch.kwargs}
        observed |= {n for n, given in batch.kwargs.items() if any(_same(given, v) for v in data)}
        if seen := [n for n in self.given if n in observed]:
            raise ValueError(
                f"Got given={seen}, which the model observes; expected labels or covariates: a "
                "critic that is shown the data holds each q(z|x) to p(z), and codes then say "
                "nothing of x. Try given=()."
            )
        critics = build(self.critic, self.given, guide, batch, found)
        if self.loss.penalty and any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for c in critics for m in c.modules()
        ):
            raise ValueError(
                f"Got a critic with BatchNorm under {self.loss!r}; expected none: a score has no "
                "slope at one code where it hangs on all of them. Try nn.LayerNorm."
            )
        return AdversarialState(found, critics, own)

    def phases(self, program: nn.Module, state: AdversarialState) -> tuple[Phase, ...]:
        """Generator, then critics; see the class."""

        def fooled(state: AdversarialState, batch: Batch, guide: Trace) -> tuple[Tensor, Parts]:
            total = torch.zeros((), device=state.epoch.device)
            parts: Parts = {}
            for critic in state.critics:
                z = self._noisy(critic.shown(guide, batch, state.found), state, critic.width)
                rows = row_weights(guide, state.found, critic.latents, batch.rows)
                value, gradient = critic.fooled(z, self.loss, rows)
                total = total + value
                if gradient is not None:
                    parts |= over({f"{critic.name}_gradient": self.weight * gradient}, rows)
            return total, {"adversarial": total.detach(), **parts}

        def both(state: AdversarialState, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, Parts]:
            batch = Batch(args, kwargs)
            with _hiding(state.own.prior if self.learn_prior else ()):
                model, guide = run_coded(program, batch)
            log_likelihood, figure = scored(model, state.found.observed)
            value, parts = fooled(state, batch, guide)
            scale = state.found.scale(batch.rows)  # of a plate that subsamples
            parts = {"reconstruction": figure, **parts}
            return -log_likelihood + self.weight * scale * value, parts

        def reconstruct(
            state: AdversarialState, *args: Tensor, **kwargs: Tensor
        ) -> tuple[Tensor, Parts]:
            batch = Batch(args, kwargs)
            with _hiding(state.own.prior if self.learn_prior else ()):
                model, _ = run_coded(program, batch)
            log_likelihood, figure = scored(model, state.found.observed)
            return -log_likelihood, {"reconstruction": figure}

        def generate(
            state: AdversarialState, *args: Tensor, **kwargs: Tensor
        ) -> tuple[Tensor, Parts]:
            batch = Batch(args, kwargs)
            with on_copies(program), _registering(state.own.codes):
                value, parts = fooled(state, batch, run_codes(program, batch))
            return self.weight * state.found.scale(batch.rows) * value, parts

        def judge(state: AdversarialState, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, Parts]:
            batch = Batch(args, kwargs)
            fake, real = idle_codes(program, batch), prior_run(program, batch)
            total = torch.zeros((), device=state.epoch.device)
            parts: Parts = {}
            for critic in state.critics:
                drawn, coded = (
                    self._noisy(critic.shown(run, batch, state.found), state, critic.width)
                    for run in (real, fake)
                )
                rows = row_weights(fake, state.found, critic.latents, batch.rows)
                value, more = critic.lesson(drawn, coded, self.loss, rows)
                total, parts = total + value, {**parts, **more}
            return state.found.scale(batch.rows) * total, parts

        def learn(state: AdversarialState, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, Parts]:
            batch = Batch(args, kwargs)
            codes = idle_codes(program, batch)
            with on_copies(program), _registering(state.own.prior):
                model = run_model(program, batch, latents=codes)
            log_prior, figure = scored(model, state.own.scored)
            return -log_prior, {"log_prior": figure}

        critic = Phase(
            "critic",
            judge,
            tuple(state.judges.parameters()),
            counts=False,
            optimizer=self.critic_optimizer,
            schedule=self.critic_schedule,
        )
        if self.generator_optimizer is None:
            first: tuple[Phase, ...] = (Phase("generator", both),)
        else:
            spec, schedule = self.generator_optimizer, self.generator_schedule
            alone = Phase("generator", generate, optimizer=spec, schedule=schedule)
            first = Phase("reconstruction", reconstruct), alone
        last = (Phase("prior", learn, counts=False),) if self.learn_prior else ()
        return (*first, *[critic] * self.critic_steps, *last)

    def score(self, means: dict[str, float]) -> float | None:
        """None: an adversary has no score that may be compared between epochs."""
        return None

    def __call__(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Tensor, **kwargs: Tensor
    ) -> Tensor:
        """Give the sum of both losses for ``pyro.infer.SVI``: one step moves both sides.

        Raises:
            ValueError: If a phase has an optimizer, a schedule or a number of steps of its own.
        """
        if (
            self.critic_steps > 1
            or self.noise_epochs is not None
            or self.learn_prior
            or self.critic_schedule is not None
            or self.generator_optimizer is not None
            or self.critic_optimizer != Adversarial().critic_optimizer
        ):
            raise ValueError(
                f"Got {self!r} as a loss of SVI, which moves all at once by one optimizer; "
                "expected no critic_steps, noise_epochs, learn_prior, schedule or optimizer "
                "of its own. Try fit(program, data, objective=...)."
            )
        program, state = under_svi(self, model, guide, Batch(args, kwargs))
        register(state.judges)
        losses = [phase.loss(state, *args, **kwargs)[0] for phase in self.phases(program, state)]
        return torch.stack(losses).sum()

    def _noisy(self, rows: Tensor, state: AdversarialState, width: int) -> Tensor:
        """Rows as a critic sees them: noise on the codes, none on covariates."""
        if not self.instance_noise:
            return rows
        scale: Tensor | float = self.instance_noise
        if self.noise_epochs is not None:
            left = (1 - state.epoch / self.noise_epochs).clamp(min=0)
            scale = (self.instance_noise * left).to(rows.dtype)
        noise = scale * torch.randn_like(rows[:, :width])
        return torch.cat([rows[:, :width] + noise, rows[:, width:]], dim=-1)


def _same(given: Tensor, value: Tensor) -> bool:
    return given.shape == value.shape and torch.equal(given.to(value), value)


def _registering(names: Container[str]) -> BlockMessenger:
    """Let an optimiser see the parameters of these names, and no other."""
    return BlockMessenger(lambda m: m["type"] == "param" and m["name"] not in names)


def _hiding(names: Container[str]) -> BlockMessenger:
    """Keep the parameters of these names out of an optimiser's sight."""
    return BlockMessenger(lambda m: m["type"] == "param" and m["name"] in names)
