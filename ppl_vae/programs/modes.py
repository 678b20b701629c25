"""Looking at a program without touching it: modes, buffers, random state, parameter store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pyro
import torch
from pyro import poutine
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """Give the device of a module's first tensor; the CPU when it has none."""
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def dtype_of(module: nn.Module) -> torch.dtype:
    """Give the dtype of a module's first floating tensor; torch's default when it has none."""
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    return tensors[0].dtype if tensors else torch.get_default_dtype()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode, and give every part back in the mode it was found in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Run a program as it is: in eval mode, its parameters out of an optimiser's sight."""
    with evaluating(module), poutine.block(hide_types=["param"]):
        yield


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Undo whatever happens to a module's buffers (running statistics, say)."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


@contextmanager
def on_copies(module: nn.Module) -> Iterator[None]:
    """Let a module use copies of its buffers: a graph may keep them, where undoing would spoil it.

    One tensor under two names stays one.
    """
    held = [(part, name, b) for part in module.modules() for name, b in part._buffers.items()]
    copies = {id(b): b.clone() for _, _, b in held if b is not None}
    try:
        for part, name, buffer in held:
            if buffer is not None:
                part._buffers[name] = copies[id(buffer)]
        yield
    finally:
        for part, name, buffer in held:
            part._buffers[name] = buffer


@contextmanager
def forked_rng(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Restore torch's random state at the end; start from `seed` when one is given.

    Raises:
        ValueError: If the seed is no integer.
    """
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ValueError(f"Got seed={seed!r}; expected an integer or None. Try seed=0.")
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def noise_kept(device: torch.device) -> Callable[[], None]:
    """Give a function that takes torch's random state back to what it is now."""
    state = torch.get_rng_state()
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def rewind() -> None:
        torch.set_rng_state(state)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)

    return rewind


@contextmanager
def drawing(module: nn.Module, seed: int | None) -> Iterator[None]:
    """Draw in eval mode without gradients; a seed forks the stream, None uses the global one."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(module))
        if seed is not None:
            stack.enter_context(forked_rng(device_of(module), seed))
        yield


def forget(name: str) -> None:
    """Take a name out of Pyro's store.

    ``del store[name]`` fails for a parameter of a PyroModule, which has two names there.
    """
    store = pyro.get_param_store()
    parameter = store._params.pop(name)
    store._constraints.pop(name, None)
    if store._param_to_name.get(parameter) == name:
        del store._param_to_name[parameter]


@contextmanager
def probing(module: nn.Module) -> Iterator[None]:
    """Run a program once and leave no trace: buffers, random state, store as they were."""
    store = pyro.get_param_store()
    before = set(store.keys())
    with evaluating(module), buffers_kept(module), forked_rng(device_of(module)):
        try:
            yield
        finally:
            for name in set(store.keys()) - before:
                forget(name)
