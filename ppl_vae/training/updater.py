"""A torch or Pyro optimiser over parameters that appear as the program runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, TypeAlias, cast

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ppl_vae.training.fused import fused_update
from ppl_vae.training.inductor import has_hook, scaled

OptimizerSpec: TypeAlias = tuple[type[torch.optim.Optimizer], dict[str, Any]] | PyroOptim
ScheduleSpec: TypeAlias = (
    tuple[type[LRScheduler], dict[str, Any]] | Callable[[torch.optim.Optimizer], LRScheduler]
)

FAR = 1e30
_KIND = "__kind__"  # marks what JSON has no form for


class Updater:
    """Builds its optimiser from the first parameters it is given, and takes in later ones.

    Args:
        optimizer: ``(torch.optim.Adam, {"lr": 1e-3})``, or a `pyro.optim.PyroOptim`.
        schedule: ``(torch.optim.lr_scheduler.ExponentialLR, {"gamma": 0.99})``, or a function of
            the optimiser that returns a scheduler. Stepped once an epoch.

    Raises:
        ValueError: If either is something else.
    """

    def __init__(self, optimizer: OptimizerSpec, schedule: ScheduleSpec | None = None) -> None:
        ours = (
            isinstance(optimizer, tuple) and len(optimizer) == 2 and isinstance(optimizer[1], dict)
        )
        if not (ours or isinstance(optimizer, PyroOptim)):
            raise ValueError(
                f"Got optimizer={optimizer!r}; expected a class and its arguments, or a PyroOptim. "
                "Try (torch.optim.Adam, {'lr': 1e-3})."
            )
        if schedule is not None and isinstance(optimizer, PyroOptim):
            raise ValueError(
                "Got a schedule beside a PyroOptim; expected a torch optimizer with it. "
                "Try optimizer=(torch.optim.Adam, {'lr': 1e-3})."
            )
        if schedule is not None and not isinstance(schedule, tuple) and not callable(schedule):
            raise ValueError(
                f"Got schedule={schedule!r}; expected a class and its arguments. "
                "Try (torch.optim.lr_scheduler.ExponentialLR, {'gamma': 0.99})."
            )
        self.spec, self.schedule = optimizer, schedule
        self.leaves: list[Tensor] = []
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: LRScheduler | None = None

    def take(self, leaves: Sequence[Tensor]) -> None:
        """Take in parameters not seen before, in order."""
        known = {id(p) for p in self.leaves}
        new = [p for p in leaves if id(p) not in known]
        self.leaves += new
        if not new or isinstance(self.spec, PyroOptim):
            return
        if self.optimizer is not None:
            self.optimizer.param_groups[0]["params"] += new
            return
        kind, arguments = self.spec
        self.optimizer = kind(new, **arguments)
        if isinstance(self.schedule, tuple):
            self.scheduler = self.schedule[0](self.optimizer, **self.schedule[1])
        elif self.schedule is not None:
            self.scheduler = self.schedule(self.optimizer)

    def update(self, leaves: Sequence[Tensor]) -> None:
        """Apply the gradients that lie on the leaves."""
        self.take(leaves)
        if isinstance(self.spec, PyroOptim):
            self.spec(leaves)
        elif self.optimizer is not None:
            self.optimizer.step()

    def by_gradients(self, leaves: Sequence[Tensor]) -> GradientUpdate:
        """Give the update by gradients in the order of `leaves`, after a first step with them."""
        return GradientUpdate(self, leaves)

    def plain(self, leaves: Sequence[Tensor]) -> list[torch.optim.Optimizer]:
        """Give the optimisers of leaves where nothing but they decides on a step; else none."""
        if not isinstance(self.spec, PyroOptim):
            optimizers = [self.optimizer] if self.optimizer is not None else []
        elif type(self.spec).__call__ not in (PyroOptim.__call__, PyroLRScheduler.__call__) or any(
            self.spec.grad_clip.get(p) is not None for p in leaves
        ):
            return []
        else:
            held = map(self.spec.optim_objs.get, leaves)
            # A scheduler of Pyro's keeps one of torch's for each parameter.
            optimizers = [getattr(o, "optimizer", o) for o in held if o is not None]
        return [] if any(map(has_hook, optimizers)) else optimizers

    def end_epoch(self) -> None:
        """Advance the schedule."""
        if self.scheduler is not None:
            self.scheduler.step()

    @property
    def learning_rate(self) -> float | None:
        """The present rate; None for a PyroOptim, or before the first step."""
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer is not None else None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Give tensors and JSON values to save.

        Raises:
            ValueError: If JSON would not give the values back as they are.
        """
        if isinstance(self.spec, PyroOptim):
            dicts = [self.spec.optim_objs[p].state_dict() for p in self.leaves]
        else:
            dicts = [self.optimizer.state_dict()] if self.optimizer is not None else []
        tensors: dict[str, Tensor] = {}
        plain = []
        for k, state in enumerate(dicts):
            values: dict[str, dict[str, Any]] = {}
            for index, entries in state["state"].items():
                for name, value in entries.items():
                    if isinstance(value, Tensor):
                        tensors[f"{k}.{index}.{name}"] = value
                    else:
                        values.setdefault(str(index), {})[name] = value
            plain.append({"values": values, "param_groups": state["param_groups"]})
        schedule = self.scheduler.state_dict() if self.scheduler is not None else None
        return tensors, _encoded({"optimizers": plain, "schedule": schedule})

    def restore(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Take back what `state` gave, after `take` of the same parameters in the same order."""
        plain = _decode(plain)
        if isinstance(self.spec, PyroOptim):
            for p in self.leaves:
                self.spec.optim_objs[p] = self.spec._get_optim(p)
                self.spec.grad_clip[p] = self.spec._get_grad_clip(p)
            optimizers = [self.spec.optim_objs[p] for p in self.leaves]
        else:
            optimizers = [self.optimizer] if self.optimizer is not None else []
        for k, (optimizer, saved) in enumerate(zip(optimizers, plain["optimizers"], strict=True)):
            state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in saved["values"].items()}
            for key, value in tensors.items():
                owner, index, name = key.split(".", 2)
                if int(owner) == k:
                    state.setdefault(int(index), {})[name] = value
            optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
        if self.scheduler is not None:
            self.scheduler.load_state_dict(plain["schedule"])


class GradientUpdate:
    """An updater's step by gradients that lie in a list, not on the leaves."""

    def __init__(self, updater: Updater, leaves: Sequence[Tensor]) -> None:
        self.updater, self.leaves = updater, leaves
        self.optimizers = updater.plain(leaves)
        self.fused = fused_update(self.optimizers, leaves)
        self.parameters = [leaf.detach() for leaf in leaves]

    def __call__(self, gradients: Sequence[Tensor], norm: float, clip_norm: float | None) -> None:
        """Take a step, with gradients of the norm scaled down to `clip_norm`."""
        # Fused kernels walk through memory: a gradient has to lie there as its parameter does.
        gradients = [
            g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
            for p, g in zip(self.parameters, gradients, strict=True)
        ]
        if clip_norm is not None and norm > clip_norm:
            gradients = scaled(gradients, clip_norm / norm)
        if self.fused is not None:
            optimizers = self.updater.plain(self.leaves)
            if len(optimizers) != len(self.optimizers) or not all(
                map(is_, optimizers, self.optimizers)
            ):  # exchanged, or hooked, since the last step
                self.optimizers, self.fused = optimizers, fused_update(optimizers, self.leaves)
        if self.fused is not None:
            self.fused(gradients)
            return
        for leaf, gradient in zip(self.leaves, gradients, strict=True):
            leaf.grad = gradient
        self.updater.update(self.leaves)
        for leaf in self.leaves:
            leaf.grad = None

    def may_overflow(self, norm: float) -> bool:
        """Whether a step along gradients of this norm may take a parameter beyond its numbers."""
        return self.fused is None or self.fused.reach(norm) > FAR

    def flush(self) -> None:
        """Keep denormal numbers out of the moments."""
        if self.fused is not None:
            self.fused.flush()


def _encoded(state: dict[str, Any]) -> dict[str, Any]:
    """Encode for JSON, and make sure that it comes back: MultiStepLR counts by integer keys."""
    code = _encode(state)
    try:
        fault = None if _decode(json.loads(json.dumps(code))) == state else "it comes back changed"
    except (TypeError, ValueError) as error:
        fault = str(error)
    if fault is not None:
        raise ValueError(
            f"Got an optimizer or schedule whose state no checkpoint can hold ({fault}); expected "
            "numbers, strings, lists, tuples and dicts of them. Try another schedule of "
            "torch.optim.lr_scheduler, or checkpoint=None."
        )
    return cast(dict[str, Any], code)


def _encode(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        if all(isinstance(k, str) for k in value) and not isinstance(value, Counter):
            return {k: _encode(v) for k, v in value.items()}
        kind = "Counter" if isinstance(value, Counter) else "dict"
        return {_KIND: kind, "items": [[_encode(k), _encode(v)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {_KIND: "tuple", "items": [_encode(v) for v in value]}
    return [_encode(v) for v in value] if isinstance(value, list) else value


def _decode(code: Any) -> Any:  # noqa: ANN401
    if isinstance(code, list):
        return [_decode(v) for v in code]
    if not isinstance(code, dict):
        return code
    if _KIND not in code:
        return {k: _decode(v) for k, v in code.items()}
    items = _decode(code["items"])
    if code[_KIND] == "tuple":
        return tuple(items)
    return Counter(dict(items)) if code[_KIND] == "Counter" else dict(items)
