"""Torch's tracer, compiler and fused updates: every private name of torch that is used here."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import trace_elbo, trace_mean_field_elbo
from torch import Tensor, fx

from ppl_vae.objectives import estimator

Tensors = Sequence[Tensor]

fused_adam = torch._fused_adam_
fused_adamw = torch._fused_adamw_
fused_sgd = torch._fused_sgd_


def why_not() -> str | None:
    """Say in half a sentence why nothing can be compiled on this machine; None if it can.

    Example:
        >>> why_not() is None or isinstance(why_not(), str)
        True
    """
    version = torch.__version__.split("+")[0]
    if version.split(".")[:2] != ["2", "13"]:
        return f"torch {version} is untested here (expected 2.13)"
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler!r} is not to be found)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are missing (Debian: python3-dev)"
    return None


@dataclass(frozen=True)
class Graph:
    """A function as a flat graph of tensor operations.

    Attributes:
        module: Takes `held`, then the arguments.
        held: The tensors from outside that the function reads or changes: parameters, buffers.
        literals: Tensors that it makes of Python numbers: frozen into the graph.
        places: Where in memory `held` were when it was traced.
    """

    module: fx.GraphModule
    held: tuple[Tensor, ...]
    literals: tuple[Tensor, ...]
    places: tuple[int, ...]

    @property
    def moved(self) -> bool:
        """Whether a held tensor lies elsewhere now: cast, on another device, exchanged."""
        return tuple(t.data_ptr() for t in self.held) != self.places

    def same_as(self, other: Graph) -> bool:
        """Whether another trace gave the same operations on the same tensors and numbers."""
        return (
            self.module.code == other.module.code
            and len(self.held) == len(other.held)
            and all(a is b for a, b in zip(self.held, other.held, strict=True))
            and len(self.literals) == len(other.literals)
            and all(map(torch.equal, self.literals, other.literals))
        )


def trace(function: Callable[..., Tensors], arguments: Tensors) -> Graph:
    """Run a function once and record its tensor operations, gradients among them.

    Python runs now and never again: what it decides is frozen into the graph.

    Raises:
        RuntimeError: If Python asks for the value of a tensor.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    with _no_questions_asked():
        module = make_fx(function, tracing_mode="real")(*arguments)
    graph = module.graph
    first = next(iter(graph.nodes))
    held: dict[int, tuple[Tensor, fx.Node]] = {}
    literals: dict[str, Tensor] = {}
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        value = getattr(module, node.target)
        if all(u.target is torch.ops.aten.lift_fresh_copy.default for u in node.users):
            literals[node.target] = value
            continue
        if id(value) not in held:
            with graph.inserting_before(first):
                held[id(value)] = value, graph.placeholder(f"held_{len(held)}")
        node.replace_all_uses_with(held[id(value)][1])
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()
    tensors = tuple(v for v, _ in held.values())
    places = tuple(t.data_ptr() for t in tensors)
    return Graph(module, tensors, tuple(literals.values()), places)


def compiled(graph: Graph, arguments: Tensors) -> Callable[..., Tensors]:
    """Compile a graph by inductor into a function of its arguments.

    Its noise is eager's, draw by draw.
    """
    import torch._inductor

    options = {"fallback_random": True, "size_asserts": False}
    held = tuple(t.detach() for t in graph.held)  # they share memory with the originals
    with torch.no_grad():
        function = torch._inductor.compile(graph.module, [*held, *arguments], options=options)

    def call(*values: Tensor) -> Tensors:
        with torch.no_grad():
            return function(*held, *values)

    return call


def interpreted(graph: Graph) -> Callable[..., Tensors]:
    """Run a graph operation by operation, without compiling it."""

    def call(*values: Tensor) -> Tensors:
        with torch.no_grad():
            return graph.module(*graph.held, *values)

    return call


@contextmanager
def _no_questions_asked() -> Iterator[None]:
    """Keep Pyro from looking at values: no validation, no warnings of NaN, no floats."""
    modules = (trace_elbo, trace_mean_field_elbo, estimator)
    swapped = {"torch_item": _unasked, "warn_if_nan": _unwarned}
    kept = [(m, n, vars(m)[n]) for m in modules for n in swapped if n in vars(m)]
    try:
        for module, name, _ in kept:
            setattr(module, name, swapped[name])
        with pyro.validation_enabled(False):
            yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


def _unasked(value: Any) -> Any:  # noqa: ANN401
    # Detached, as a number would be: what is added to a loss by value has no gradient.
    return value.detach() if isinstance(value, Tensor) else value


def _unwarned(value: Any, *_: Any, **__: Any) -> Any:  # noqa: ANN401
    return value
