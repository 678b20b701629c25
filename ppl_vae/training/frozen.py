"""Python values that a compiled step would freeze: found before they do harm."""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Snapshot = dict[str, Any]

_LIMIT = 20_000  # values; a longer table is data, not state
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, Enum)
_FOREIGN = ("torch", "pyro", "numpy", "builtins", "collections", "typing", "math", "weakref")

_QUIET = frozenset(vars(nn.Module())) - {"training"}  # of no account where they are empty


def snapshot(*roots: object) -> Snapshot:
    """Name the Python values that a program can reach: numbers, flags, states of generators.

    Looked into: closures, globals and defaults of functions, attributes of modules and other
    objects, containers. Of a tensor the identity counts, for its values are data of a graph.

    Example:
        >>> changes(snapshot(1.0), snapshot(2.0))
        ['[0]: 1.0, then 2.0']
    """
    found: Snapshot = {
        "random": hash(random.getstate()),
        "numpy.random": _of_numpy(),
    }
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [(f"[{k}]", r) for k, r in enumerate(roots)]
    while stack and len(found) < _LIMIT:
        path, value = stack.pop()
        if isinstance(value, _PLAIN):
            found[path] = value
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if (state := _state(value)) is not None:
            found[path] = state
            continue
        stack += [(f"{path}.{name}", part) for name, part in _parts(value)]
    return found


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """Say what differs between two snapshots: "path: value, then value"."""
    return [
        f"{name.removeprefix('[0].')}: {_shown(before.get(name))}, then {_shown(after.get(name))}"
        for name in sorted({**before, **after})
        if not _same(before.get(name), after.get(name))
    ]


def _of_numpy() -> tuple[int, int]:
    _, key, position, *_ = np.random.get_state(legacy=True)
    return hash(np.asarray(key).tobytes()), int(position)


def _same(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and (a == b or (a != a and b != b)))  # noqa: PLR0124


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, _PLAIN) and len(repr(value)) < 40 else "another value"


def _state(value: object) -> object:
    """What stands for a leaf of the walk; None where there is more to look into."""
    if isinstance(value, Tensor):
        return ("tensor", id(value))
    if isinstance(value, np.ndarray):
        return ("array", hash(value.tobytes())) if value.nbytes < 100_000 else ("array", id(value))
    if isinstance(value, np.generic):
        return ("number", value.item())
    if isinstance(value, random.Random):
        return ("generator", hash(value.getstate()))
    if isinstance(value, np.random.Generator):
        return ("generator", str(value.bit_generator.state))
    if isinstance(value, torch.Generator):
        return ("generator", hash(value.get_state().numpy().tobytes()))
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    if isinstance(value, types.MethodType):
        yield "", value.__self__
        yield "", value.__func__
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, Mapping):
        yield "length", len(value)
        yield from ((repr(k), v) for k, v in list(value.items()))
    elif isinstance(value, list | tuple | set | frozenset):
        yield "length", len(value)
        yield from ((str(k), v) for k, v in enumerate(value))
    elif isinstance(value, nn.Module):
        yield from ((k, v) for k, v in vars(value).items() if v or k not in _QUIET)
        yield from _of_class(type(value))
    elif isinstance(value, type | types.ModuleType) or _is_foreign(value):
        return
    elif hasattr(value, "__dict__"):
        yield from vars(value).items()
        yield from _of_class(type(value))


def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    for owner in (k for k in kind.__mro__ if not _is_foreign(k) and not _is_ours(k)):
        for name, value in vars(owner).items():
            if isinstance(value, _PLAIN) and not name.startswith("__"):
                yield name, value
            elif isinstance(value, types.FunctionType):
                yield name, value


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    if _is_foreign(function):
        return
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # bound later
            continue
    names = set(code.co_names)
    for inner in (c for c in code.co_consts if isinstance(c, types.CodeType)):
        names |= set(inner.co_names)
    for name in names & set(function.__globals__):
        value = function.__globals__[name]
        if isinstance(value, types.ModuleType | type) and not _is_foreign(value):
            yield from (
                (f"{name}.{n}", vars(value)[n])
                for n in names
                if n in vars(value) and isinstance(vars(value)[n], _PLAIN)
            )
        else:
            yield name, value
    yield "defaults", function.__defaults__
    yield "kwdefaults", function.__kwdefaults__


def _is_ours(value: Any) -> bool:  # noqa: ANN401
    return str(getattr(value, "__module__", "")).split(".")[0] == "ppl_vae"


def _is_foreign(value: Any) -> bool:  # noqa: ANN401
    home = getattr(value, "__module__", None) or type(value).__module__
    if isinstance(value, types.ModuleType):
        home = value.__name__
    return isinstance(home, str) and home.split(".")[0] in _FOREIGN
