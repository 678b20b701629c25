"""The critics of an adversary: what they are shown, and how they fare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.func import functional_call

from ppl_vae.conditional import NetBuilder
from ppl_vae.data.batches import Batch
from ppl_vae.objectives.codes import Reach, codes_of
from ppl_vae.objectives.critic_losses import CriticLoss, gradient_penalty
from ppl_vae.objectives.phases import ObjectiveState, Parts, over
from ppl_vae.programs.modes import probing
from ppl_vae.programs.traces import Structure

Nets: TypeAlias = NetBuilder | Mapping[str | tuple[str, ...], NetBuilder]
"""A builder of one critic of all latents, or one for each latent or tuple of latents."""

FLAT = 0.01  # a slope of the critic's loss below which a score teaches it nothing


class Critic(nn.Module):
    """A net that gives codes of some latents a score each.

    Args:
        name: What its columns in the history begin with.
        latents: The sites whose codes it is shown, side by side.
        given: The data it is shown beside them, by keyword.
        net: ``(N, D + C) -> (N, 1)``.
        width: D, the columns that are codes.
    """

    def __init__(
        self, name: str, latents: Sequence[str], given: Sequence[str], net: nn.Module, width: int
    ) -> None:
        super().__init__()
        self.name, self.latents, self.given, self.width = name, latents, given, width
        self.net = net

    def shown(self, trace: Trace, batch: Batch, found: Structure) -> Tensor:
        """Give the rows of a run that it judges: ``(N, D + C)``."""
        return _rows(trace, batch, found, self.latents, self.given)

    def forward(self, z: Tensor) -> Tensor:
        """Score rows: ``(N,)``."""
        scores: Tensor = self.net(z)
        return scores.squeeze(-1)

    def out_of_reach(self, z: Tensor) -> Tensor:
        """Score rows with copies: neither parameters nor buffers of the net are reached."""
        frozen: dict[str, Tensor] = {n: p.detach() for n, p in self.net.named_parameters()}
        frozen |= {n: b.clone() for n, b in self.net.named_buffers()}
        scores: Tensor = functional_call(self.net, frozen, (z,))
        return scores.squeeze(-1)

    def fooled(
        self, z: Tensor, loss: CriticLoss, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What the encoder pays for its codes, and the norms of the gradients it is sent, summed.

        These are None where no gradient is asked for.

        Args:
            z: What it is shown, ``(N, D + C)``.
            loss: The game.
            rows: How much each counts; None where all count once.
        """
        if not torch.is_grad_enabled() or not z.requires_grad:
            return _total(loss.generator(self.out_of_reach(z)), rows), None
        # The critic is run back once: its gradient is reported, and goes on into the encoder.
        held = z.detach().requires_grad_()
        # A critic that looks at nothing sends nothing.
        value = _total(loss.generator(self.out_of_reach(held) + 0 * held.sum(1)), rows)
        (gradient,) = torch.autograd.grad(value, held)
        onward = ((z - z.detach()) * gradient).sum()
        norms = gradient[:, : self.width].norm(dim=1)  # a row's weight is in its own
        return value.detach() + onward, norms.sum()

    def lesson(
        self, real: Tensor, fake: Tensor, loss: CriticLoss, rows: Tensor | None = None
    ) -> tuple[Tensor, Parts]:
        """What it pays for its judgement of draws and codes, summed, and how it fares.

        Args:
            real: Draws of the prior as it is shown them, ``(N, D + C)``.
            fake: Codes.
            loss: The game.
            rows: How much each counts; None where all count once.
        """
        on_real, on_fake = self(real), self(fake)
        value = _total(loss.critic(on_real, on_fake), rows)
        with torch.enable_grad():  # also where somebody evaluates the loss without
            if loss.penalty:
                penalty = gradient_penalty(self, real, fake, self.width)
                value = value + loss.penalty * _total(penalty, rows)
            scores = [s.detach().requires_grad_() for s in (on_real, on_fake)]
            slopes = torch.autograd.grad(loss.critic(*scores).sum(), scores)
        flat = torch.stack([s.abs() < FLAT for s in slopes]).to(value.dtype).mean(0)
        edge = loss.boundary(*(_counted_alone(s.detach(), rows) for s in scores))
        above, below = on_real.detach() - edge, edge - on_fake.detach()
        # A score on the edge is a guess.
        right = torch.stack([(s > 0) / 2 + (s >= 0) / 2 for s in (above, below)]).mean(0)
        parts = {
            f"{self.name}_loss": value.detach(),
            f"{self.name}_accuracy": _total(right, rows),
            f"{self.name}_saturation": _total(flat, rows),
        }
        return value, over(parts, rows)


class AdversarialState(ObjectiveState):
    """The state of an adversary: its critics live and are checkpointed here.

    Attributes:
        judges: The critics, one, or one for each group of latents.
        own: What a run of the program reaches.
    """

    def __init__(self, found: Structure, critics: Sequence[Critic], own: Reach) -> None:
        super().__init__(found)
        self.judges = nn.ModuleList(critics)
        self.own = own

    @property
    def critics(self) -> list[Critic]:
        """The critics, in order."""
        return [critic for critic in self.judges if isinstance(critic, Critic)]


def build(
    nets: Nets,
    given: Sequence[str],
    trace: Trace,
    batch: Batch,
    found: Structure,
) -> list[Critic]:
    """Size critics to the codes of a run of the guide.

    Raises:
        ValueError: If a net is none, or latents and critics do not fit together.
    """
    given_by = nets if isinstance(nets, Mapping) else {found.latents: nets}
    groups = {(k,) if isinstance(k, str) else tuple(k): net for k, net in given_by.items()}
    named = [n for latents in groups for n in latents]
    if set(named) != set(found.latents) or len(named) != len(set(named)):
        each = ", ".join(f"{n!r}: MLP(128, 128)" for n in found.latents)
        raise ValueError(
            f"Got critics of {list(given_by)} for the latents {list(found.latents)}; expected each "
            f"latent under one critic. Try critic={{{each}}}, or one builder for all of them side "
            "by side."
        )
    critics = []
    for latents, builder in groups.items():
        rows = _rows(trace, batch, found, latents, given).detach()
        try:
            net = builder(rows.shape[-1], 1)
        except TypeError as error:
            raise ValueError(
                f"Got a critic's builder that cannot be called with (in_features, 1) ({error}); "
                "expected one that gives an nn.Module. Try MLP(128, 128), with its brackets."
            ) from error
        if not isinstance(net, nn.Module):
            raise ValueError(
                f"Got a {type(net).__name__} from the critic's builder; expected an nn.Module. "
                "Try MLP(128, 128), with its brackets."
            )
        net = net.to(rows)
        with probing(net), torch.no_grad():
            scores = net(rows)
        if scores.shape != (len(rows), 1):
            raise ValueError(
                f"Got shape {tuple(scores.shape)} from the critic for {len(rows)} codes; expected "
                f"{(len(rows), 1)}, a score for each. Try a builder that uses its second argument."
            )
        name = "critic" if len(groups) == 1 else f"critic_{'+'.join(latents)}"
        width = codes_of(trace, found, latents).shape[-1]
        critics.append(Critic(name, latents, given, net, width))
    return critics


def _rows(
    trace: Trace, batch: Batch, found: Structure, latents: Sequence[str], given: Sequence[str]
) -> Tensor:
    """Codes of a run, and the covariates beside them."""
    codes = codes_of(trace, found, latents)
    if given and found.subsample_size is not None:
        raise ValueError(
            f"Got given={list(given)} where the data plate {found.plate!r} picks rows of its own; "
            "expected to know which covariates are those of a code. Try a plate of the size of the "
            "batch."
        )
    if lacking := [n for n in given if n not in batch.kwargs]:
        raise ValueError(
            f"Got given={lacking}, which is not among the data by name ({list(batch.kwargs)}); "
            "expected a covariate of each datum, which the program takes. Try "
            f"given={{'z': ..., {lacking[0]!r}: ...}} in the decoder, or {lacking[0]} among the "
            f"arguments of model and guide, and data={{'x': x, {lacking[0]!r}: ...}}."
        )
    beside = [batch.kwargs[n].reshape(batch.rows, -1).to(codes) for n in given]
    return torch.cat([codes, *beside], dim=-1)


def _counted_alone(scores: Tensor, rows: Tensor | None) -> Tensor:
    """Put the mean of those that count in place of the rest."""
    if rows is None:
        return scores
    total = rows.sum().clamp(min=torch.finfo(rows.dtype).tiny)
    return torch.where(rows > 0, scores, (scores * rows).sum() / total)


def _total(values: Tensor, rows: Tensor | None) -> Tensor:
    return values.sum() if rows is None else (values * rows).sum()
