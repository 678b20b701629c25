"""Registering a program's parameters with Pyro, under names that never clash."""

from __future__ import annotations

import weakref
from itertools import count

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from ppl_vae.programs.modes import forget

_KEY = "_pyro_store_name"


def register(program: nn.Module) -> None:
    """Put every trainable parameter of a program into Pyro's store, as `pyro.module` would.

    `pyro.module("vae", other)` silently trains the *first* module of that name (a re-run
    notebook cell, two models in one process). Here a name belongs to one program: when the
    store holds another tensor under it (a copy, an unpickled program, a second model), the
    program takes a fresh name. A program that is collected leaves the store.
    """
    named = {n: p for n, p in program.named_parameters() if p.requires_grad}
    name = program.__dict__.get(_KEY)
    if name is None or any(_taken(f"{name}$$${n}", p) for n, p in named.items()):
        name = _free_name(program)
        program.__dict__[_KEY] = name
        _own_pyro_modules(program, name)
        keys: dict[str, weakref.ref[Tensor]] = {
            f"{name}$$${n}": weakref.ref(p) for n, p in named.items()
        }
        weakref.finalize(program, _forget, name, keys).atexit = False
    for n, p in named.items():
        pyro.param(f"{name}$$${n}", p)


def name_apart(program: nn.Module) -> None:
    """Give a program's PyroModules other names in the store where theirs hold other tensors.

    A PyroModule finds its parameters by name: a copy, or another model of the same class, would
    silently use, and train, those of the first.
    """
    parts = [m for m in program.modules() if isinstance(m, PyroModule)]
    if any(
        _taken(f"{m._pyro_name}.{n}".removeprefix(".").removesuffix("_unconstrained"), p)
        for m in parts
        for n, p in m.named_parameters(recurse=False)
    ):
        _own_pyro_modules(program, _free_name(program))


def picklable(program: nn.Module) -> dict[str, object]:
    """Give the state to pickle: Pyro hangs weak references on parameters, which cannot be."""
    for parameter in program.parameters():
        parameter.__dict__.pop("unconstrained", None)
    return program.__dict__.copy()


def _free_name(program: nn.Module) -> str:
    keys = pyro.get_param_store().keys()
    used = {key.split("$$$")[0].split(".")[0] for key in keys}
    stem = type(program).__name__.lower()
    return next(c for k in count() if (c := f"{stem}_{k}" if k else stem) not in used)


def _taken(key: str, parameter: Tensor) -> bool:
    store = pyro.get_param_store()
    return key in store and store[key].unconstrained() is not parameter


def _own_pyro_modules(program: nn.Module, name: str) -> None:
    # A PyroModule finds its PyroParams in the store by name: two programs would share them.
    for path, part in program.named_modules():
        if isinstance(part, PyroModule):
            part._pyro_name = f"{name}.{path}"


def _forget(name: str, keys: dict[str, weakref.ref[Tensor]]) -> None:
    store = pyro.get_param_store()
    held = {p for p in (r() for r in keys.values()) if p is not None}
    for key, parameter in list(store.named_parameters()):
        if (key in keys or key.startswith(f"{name}.")) and parameter in held:
            forget(key)
