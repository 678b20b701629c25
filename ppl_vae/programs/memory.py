"""What a program was trained with: by which objective, and with which of Pyro's parameters."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import pyro
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_KEY = "_fitted_with"


class _Memory(NamedTuple):
    """Kept in a program, and in its copies, which share its functions and so its parameters.

    Attributes:
        fit: Of the first fit.
        names: Of its bare parameters, which live in Pyro's store alone.
        objective: What the class of the last fit's objective is called.
    """

    fit: str
    names: frozenset[str]
    objective: str


# The fits that moved a tensor, for as long as the store or anybody else holds it.
_moved_by: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def remember(program: nn.Module, params: Mapping[str, Tensor], objective: str) -> None:
    """Note what a fit has trained; nn.Parameters are left out, for a net brings its own."""
    known = _memory(program)
    fit = known.fit if known is not None else uuid.uuid4().hex
    bare = {n: p for n, p in params.items() if not isinstance(p, nn.Parameter)}
    program.__dict__[_KEY] = _Memory(fit, frozenset(bare), objective)
    for parameter in bare.values():
        _moved_by[parameter] = _moved_by.get(parameter, frozenset()) | {fit}


@contextmanager
def trained_anew(program: nn.Module) -> Iterator[None]:
    """Let a program be fitted whatever has become of its parameters; a refused fit changes nothing.

    Call `remember` inside once training has begun.
    """
    known = _memory(program)
    if known is None:
        yield
        return
    blank = program.__dict__[_KEY] = known._replace(names=frozenset())
    try:
        yield
    finally:
        if program.__dict__[_KEY] is blank:
            program.__dict__[_KEY] = known


def refuse_if_lost(program: nn.Module) -> None:
    """Refuse a trained program that would answer with start values, or with another's parameters.

    Raises:
        ValueError: If the store was cleared since its fit, or holds under a name what another
            program alone was trained with.
    """
    held = pyro.get_param_store()._params
    for part in program.modules():
        known = _memory(part)
        if known is None:
            continue
        for name in sorted(known.names):
            fits = _moved_by.get(held[name], frozenset()) if name in held else None
            if fits is None or (fits and known.fit not in fits):
                raise ValueError(
                    f"Got a program that was trained with {name!r} of Pyro's store, which "
                    f"{'is gone' if fits is None else 'is now that of another program'}; expected "
                    "its own, or it would answer as if untrained. Try fitting it again, other "
                    "names in pyro.param, or pyro.get_param_store().scope() around each program."
                )


def objective_of(program: nn.Module) -> str | None:
    """Name the class of the objective of its last `fit`; None where there was none."""
    known = _memory(program)
    return None if known is None else known.objective


def also_trained_by_others(program: nn.Module, params: Mapping[str, Tensor]) -> list[str]:
    """Name the bare parameters that an earlier fit of another program has trained.

    A net that two programs hold is shared in plain sight; a name in the store is not.
    """
    own = {known.fit for m in program.modules() if (known := _memory(m)) is not None}
    return [n for n, p in params.items() if set(_moved_by.get(p, ())) - own]


def _memory(program: nn.Module) -> _Memory | None:
    return program.__dict__.get(_KEY)
