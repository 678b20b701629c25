"""Adam, AdamW and SGD as one fused update over all parameters, on an optimiser's own state."""

from __future__ import annotations

from collections.abc import Sequence
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

    def __init__(self, bundles: Sequence[_Bundle]) -> None:
        self.bundles = bundles

    def __call__(self, gradients: Sequence[Tensor]) -> None:
        """Take a step."""
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
    place = {id(p): k for k, p in enumerate(leaves)}
    bundles: dict[Any, _Bundle] = {}
    for optimizer in optimizers:
        if type(optimizer) not in (Adam, AdamW, SGD):
            return None
        for group in optimizer.param_groups:
            options = {k: v for k, v in group.items() if k != "params"}
            if any(isinstance(v, Tensor) for v in options.values()) or options["differentiable"]:
                return None
            # Pyro keeps an optimiser for each parameter: those that are alike go together.
            key = id(group) if len(optimizers) == 1 else (type(optimizer), str(options))
            bundle = bundles.setdefault(key, _Bundle(type(optimizer), group))
            for p in group["params"]:
                if id(p) in place:
                    bundle.take(place[id(p)], p, optimizer.state[p])
    if sum(len(b.places) for b in bundles.values()) != len(leaves):
        return None
    busy = [b for b in bundles.values() if b.places]
    for bundle in busy:
        bundle.count_together()
    return FusedUpdate(busy)


class _Bundle:
    """Parameters that share their hyperparameters, which are read anew at each step."""

    def __init__(self, kind: type[Optimizer], group: dict[str, Any]) -> None:
        self.kind, self.group = kind, group
        self.places: list[int] = []
        self.params: list[Tensor] = []
        self.state: dict[str, list[Tensor]] = {}
        self.owners: list[dict[str, Tensor]] = []
        self.steps = torch.empty(0)

    def take(self, place: int, parameter: Tensor, state: dict[str, Tensor]) -> None:
        self.places.append(place)
        self.params.append(parameter.detach())
        self.owners.append(state)
        for name, value in state.items():
            if value is not None:
                self.state.setdefault(name, []).append(value)

    def count_together(self) -> None:
        """Lay the step counts of all parameters side by side, so that one addition counts all."""
        if "step" not in self.state:
            return
        self.steps = torch.stack(self.state["step"])
        self.state["step"] = list(self.steps.unbind())
        for owner, count in zip(self.owners, self.state["step"], strict=True):
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
