"""Bare parameters live in Pyro's store alone: which of them a program was trained with."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

from torch import Tensor, nn

MEMORY = "_trained_with"
_trained: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def remember(program: nn.Module, params: Mapping[str, Tensor]) -> None:
    """Note, after a fit, which tensors a program was trained with; none makes it forget."""
    # Weak references stay what they are in a copy of the program, as its closures do.
    program.__dict__[MEMORY] = {n: weakref.ref(p) for n, p in params.items()}
    _trained.add(program)


def refuse_if_lost(program: nn.Module, params: Mapping[str, Tensor]) -> None:
    """Refuse a trained program that would answer with start values, or another's parameters.

    Raises:
        ValueError: If the store was cleared since, or a name was given to another tensor.
    """
    known = program.__dict__.get(MEMORY, {})
    if lost := [n for n, p in params.items() if n in known and known[n]() is not p]:
        raise ValueError(
            f"Got a program whose parameters {lost[:3]} are no longer those it was trained with: "
            "Pyro's store was cleared since, or holds others under their names. Expected its own, "
            "or it would answer as if untrained. Try fitting it again, other names in pyro.param, "
            "or pyro.get_param_store().scope() around each program's life."
        )


def also_trained_by_others(program: nn.Module, params: Mapping[str, Tensor]) -> list[str]:
    """Name the bare parameters that an earlier fit of another program has trained.

    A net that two programs hold is shared in plain sight; a name in the store is not.
    """
    held = set(program.modules())
    theirs = {
        id(ref()) for p in _trained if p not in held for ref in p.__dict__.get(MEMORY, {}).values()
    }
    return [n for n, p in params.items() if id(p) in theirs and not isinstance(p, nn.Parameter)]
