"""Adam, AdamW and SGD as one fused update over all parameters, on an optimiser's own state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from ppl_vae.training.inductor import fused_adam, fused_adamw, fused_sgd


class FusedUpdate:
    """Moves leaves and the optimisers' state by gradients that are given in the leaves' order.

    The same numbers as the optimisers' own steps up to rounding, and the same state, so that
    either may follow the other.
    """

    def __init__(self, bundles: Sequence[_Bundle], rebuild: Callable[[], list[_Bundle]]) -> None:
        self.bundles, self.rebuild = bundles, rebuild

    def __call__(self, gradients: Sequence[Tensor]) -> None:
        """Take a step."""
        if any(bundle.parted or bundle.stale for bundle in self.bundles):
            self.bundles = self.rebuild()
        for bundle in self.bundles:
            bundle.step(gradients)

    def reach(self, norm: float) -> float:
        """Bound how far a step along gradients of this norm can move a parameter."""
        return max(bundle.reach(norm) for bundle in self.bundles)

    def flush(self) -> None:
        """Set moments to 0 that are too small for a normal number.

        Those of a dead unit decay into denormal numbers and stay there, and a processor takes
        many times as long over each: a hidden layer of them may cost more than the rest of a step.
        """
        for bundle in self.bundles:
            bundle.flush()


def fused_update(optimizers: Sequence[Optimizer], leaves: Sequence[Tensor]) -> FusedUpdate | None:
    """Give one update for leaves of plain Adam, AdamW or SGD; None for other optimisers.

    Args:
        optimizers: Between them they hold each leaf once, and have taken a step with it.
        leaves: In the order of the gradients.
    """
    groups = [g for o in optimizers for g in o.param_groups]
    if any(type(o) not in (Adam, AdamW, SGD) for o in optimizers) or any(
        group["differentiable"] or any(isinstance(v, Tensor) for v in _options(group).values())
        for group in groups
    ):
        return None
    bundles = _bundles(optimizers, leaves)
    if sum(len(b.places) for b in bundles) != len(leaves) or not all(b.complete for b in bundles):
        return None
    return FusedUpdate(bundles, partial(_bundles, optimizers, leaves))


def _bundles(optimizers: Sequence[Optimizer], leaves: Sequence[Tensor]) -> list[_Bundle]:
    place = {id(p): k for k, p in enumerate(leaves)}
    bundles: dict[str, _Bundle] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            # Pyro keeps an optimiser for each parameter: those that are alike go together.
            key = f"{type(optimizer).__name__} {_options(group)}"
            bundle = bundles.setdefault(key, _Bundle(type(optimizer), group))
            bundle.groups.append(group)
            for p in group["params"]:
                if id(p) in place:
                    bundle.take(place[id(p)], p, optimizer)
    busy = [b for b in bundles.values() if b.places]
    for bundle in busy:
        bundle.count_together()
    return busy


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in group.items() if k != "params"}


class _Bundle:
    """Parameters that share their hyperparameters, which are read anew at each step."""

    def __init__(self, kind: type[Optimizer], group: dict[str, Any]) -> None:
        self.kind, self.group = kind, group
        self.groups: list[dict[str, Any]] = []
        self.options = itemgetter(*_options(group))
        self.places: list[int] = []
        self.params: list[Tensor] = []
        self.state: dict[str, list[Tensor]] = {}
        self.owners: list[tuple[Optimizer, Tensor, Any]] = []
        self.steps = torch.empty(0)

    @property
    def complete(self) -> bool:
        """Whether there is state of every parameter: there is none before its first gradient."""
        if self.kind is SGD and not self.group["momentum"]:
            return True
        name = "momentum_buffer" if self.kind is SGD else "exp_avg"
        return len(self.state.get(name, [])) == len(self.params)

    @property
    def parted(self) -> bool:
        """Whether the groups do not share their hyperparameters any more."""
        if len(self.groups) == 1:
            return False
        shared = self.options(self.group)
        return any(self.options(group) != shared for group in self.groups)

    @property
    def stale(self) -> bool:
        """Whether an optimiser has other state now: loaded, or counted by another update."""
        counts = self.state.get("step", [])
        if any(holder.state.get(leaf) is not owner for holder, leaf, owner in self.owners):
            return True
        return any(n is not o["step"] for n, (_, _, o) in zip(counts, self.owners, strict=False))

    def take(self, place: int, parameter: Tensor, optimizer: Optimizer) -> None:
        self.places.append(place)
        self.params.append(parameter.detach())
        owner = optimizer.state.get(parameter)
        self.owners.append((optimizer, parameter, owner))
        for name, value in (owner or {}).items():
            if value is not None:
                self.state.setdefault(name, []).append(value)

    def count_together(self) -> None:
        """Lay the step counts of all parameters side by side, so that one addition counts all."""
        if len(self.state.get("step", [])) < len(self.params):
            return
        self.steps = torch.stack(self.state["step"])
        self.state["step"] = list(self.steps.unbind())
        for (_, _, owner), count in zip(self.owners, self.state["step"], strict=True):
            owner["step"] = count

    def reach(self, norm: float) -> float:
        group = self.group
        if self.kind is SGD:  # momentum m remembers gradients for about 1 / (1 - m) steps
            return float(group["lr"] * norm / max(1 - group["momentum"], 1e-3))
        # |m̂| / √v̂ ≤ (1 - β₁) / √(1 - β₂), whatever the gradients; 1e3 covers every usual pair.
        return float(group["lr"] * 1e3)

    def flush(self) -> None:
        for moment in (t for n, held in self.state.items() if n != "step" for t in held):
            tiny = torch.finfo(moment.dtype).tiny
            moment.masked_fill_(moment.abs() < tiny, 0.0)

    def step(self, gradients: Sequence[Tensor]) -> None:
        own = [gradients[k] for k in self.places]
        group = self.group
        shared = {
            "weight_decay": group["weight_decay"],
            "maximize": group["maximize"],
            "lr": group["lr"],
            "grad_scale": None,
            "found_inf": None,
        }
        if self.kind is SGD:
            fused_sgd(
                self.params,
                own,
                self.state.get("momentum_buffer", []),
                momentum=group["momentum"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                is_first_step=False,
                **shared,
            )
            return
        decoupled = group.get("decoupled_weight_decay", self.kind is AdamW)
        self.steps.add_(1)
        (fused_adamw if decoupled else fused_adam)(
            self.params,
            own,
            self.state["exp_avg"],
            self.state["exp_avg_sq"],
            self.state.get("max_exp_avg_sq", []),
            self.state["step"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            **shared,
        )
