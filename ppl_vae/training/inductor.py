"""Torch's tracer, compiler and fused updates: every private name of torch that is used here."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import trace_elbo, trace_mean_field_elbo
from torch import Tensor, fx
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.overrides import TorchFunctionMode

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
        places: Where in memory `held` were when it was traced, whether they had gradients, hooks.
        outputs: How many tensors the function returns; behind them are draws that nothing uses.
    """

    module: fx.GraphModule
    held: tuple[Tensor, ...]
    literals: tuple[Tensor, ...]
    places: tuple[tuple[int, bool, int], ...]
    outputs: int

    @property
    def moved(self) -> bool:
        """Whether a held tensor lies elsewhere now (cast, on another device), or was frozen."""
        return _places(self.held) != self.places

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

    Args:
        function: Takes a list, then `arguments`. Into the list come tensors that must be true for
            the graph to hold: what distributions check of parameters and values.
        arguments: What it is run on.

    Raises:
        RuntimeError: If Python asks for the value of a tensor.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    def unasked(*tensors: Tensor) -> Tensors:
        guards: list[Tensor] = []
        with _Unasked(guards):  # in here, for the tracer has a mode of its own
            return function(guards, *tensors)

    with _no_questions_asked():
        module = make_fx(unasked, tracing_mode="real")(*arguments)
    graph = module.graph
    first = next(iter(graph.nodes))
    held: dict[int, tuple[Tensor, fx.Node]] = {}
    literals: dict[str, Tensor] = {}
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        value = getattr(module, node.target)
        if all(u.target is torch.ops.aten.lift_fresh_copy.default for u in node.users):
            literals[node.target] = value
            continue
        if not isinstance(value, Tensor):
            raise NotImplementedError(f"the graph would hold a {type(value).__name__} of its own")
        if id(value) not in held:
            with graph.inserting_before(first):
                held[id(value)] = value, graph.placeholder(f"held_{len(held)}")
        node.replace_all_uses_with(held[id(value)][1])
        graph.erase_node(node)
    _refuse_sizes_of_data(graph, {node: value for value, node in held.values()})
    graph.eliminate_dead_code()
    outputs = _keep_draws(graph)
    for node in graph.nodes:
        if node.op == "placeholder":
            node.meta.pop("val", None)  # some have one; the compiler wants all or none
    module.recompile()
    tensors = tuple(v for v, _ in held.values())
    return Graph(module, tensors, tuple(literals.values()), _places(tensors), outputs)


def _refuse_sizes_of_data(graph: fx.Graph, held: dict[fx.Node, Tensor]) -> None:
    """Refuse what has a size that hangs on the data: Python may have decided by it.

    Raises:
        NotImplementedError: If there is such an operation.
    """
    fixed: set[fx.Node] = set()  # numbers that are the same at every run, such as torch.arange(3)
    for node in graph.nodes:
        tags = getattr(node.target, "tags", ())
        if node.op != "call_function":
            continue
        inputs = node.all_input_nodes
        if torch.Tag.nondeterministic_seeded not in tags and fixed.issuperset(inputs):
            fixed.add(node)
        elif torch.Tag.dynamic_output_shape in tags:
            if node.target is torch.ops.aten.index.Tensor:  # by whole numbers it has their size
                inputs = [i for i in inputs[1:] if i not in fixed and _is_mask(i, held)]
            if inputs:
                raise NotImplementedError(
                    f"the size of a result hangs on the data ({node.target}, as in x[x > 0])"
                )


def _is_mask(node: fx.Node, held: dict[fx.Node, Tensor]) -> bool:
    value = held.get(node, node.meta.get("val"))
    return value is None or value.dtype in (torch.bool, torch.uint8)


def compiled(graph: Graph, arguments: Tensors) -> Callable[..., Tensors]:
    """Compile a graph by inductor into a function of its arguments.

    Its noise is eager's, draw by draw. A second process finds it in the compiler's cache.
    """
    held = tuple(t.detach() for t in graph.held)  # they share memory with the originals
    with torch.no_grad(), warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # torch's, of itself
            warnings.simplefilter("ignore", kind)
        try:
            function = _compile(graph.module, [*held, *arguments], _FAST)
        except Exception:  # torch raises what it likes: code in Python around the kernels may do
            function = _compile(graph.module, [*held, *arguments], _SURE)

    def call(*values: Tensor) -> Tensors:
        with torch.no_grad():
            return function(*held, *values)[: graph.outputs]

    return call


# Noise from torch's generator, not the compiler's own; shapes are known, and need no asserts.
_SURE = {"fallback_random": True, "size_asserts": False}
# The calls between kernels in C++ too; no compiling to find out what the processor can do.
_FAST = {**_SURE, "cpp_wrapper": True}
if torch.backends.cpu.get_cpu_capability().startswith("AVX"):
    _FAST["cpp.vec_isa_ok"] = True


def _compile(module: fx.GraphModule, inputs: list[Any], options: dict[str, bool]) -> Any:  # noqa: ANN401
    import torch._inductor

    # They warn of operations that go the long way, and of graphs that cannot be kept on disk.
    logs = [logging.getLogger(f"torch._inductor.{m}") for m in ("ir", "standalone_compile")]
    levels, validated = [log.level for log in logs], Distribution._validate_args
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        # Unlike torch._inductor.compile it sets up what the cache of graphs asks for.
        return torch._inductor.standalone_compile(
            module,
            inputs,
            dynamic_shapes="from_example_inputs",
            options={"config_patches": options},
        )
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
        Distribution._validate_args = validated  # torch's compiler turns it off


def interpreted(graph: Graph) -> Callable[..., Tensors]:
    """Run a graph operation by operation, without compiling it."""

    def call(*values: Tensor) -> Tensors:
        with torch.no_grad():
            found: Tensors = graph.module(*graph.held, *values)
            return found[: graph.outputs]

    return call


def reason(error: Exception) -> str:
    """Say in half a sentence why tracing or compiling failed, and where in the user's code."""
    first = str(error).strip().split("\n")[0].rstrip(".")
    known = isinstance(error, _Asked | NotImplementedError)
    if "_local_scalar_dense" in first:
        known, first = True, _Asked.WORDS
    where = [
        f"{Path(f.filename).name}, line {f.lineno}"
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith((*_LIBRARIES, "<"))
    ]
    said = first if known else f"{type(error).__name__}: {first}"
    return said + (f" ({where[-1]})" if where else "")


_LIBRARIES = tuple(
    str(Path(m.__path__[0])) + os.sep for m in (torch, pyro, sys.modules[__name__.split(".")[0]])
)


class _Asked(RuntimeError):
    """Python wants to know what is in a tensor: it would be frozen."""

    WORDS = "Python asks for the value of a tensor, and may decide by it"


class _Unasked(TorchFunctionMode):
    """Refuses to tell Python what is in a tensor, traced or not.

    Distributions may ask whether all is valid: they are told, and the answer is guarded.
    """

    ALLOWED = tuple(
        str(Path(m.__path__[0])) + os.sep for m in (torch.distributions, pyro.distributions)
    )

    QUESTIONS = frozenset(
        "item tolist numpy __array__ __bool__ __float__ __int__ __index__ __complex__ "
        "__contains__ equal is_nonzero allclose".split()
    )

    def __init__(self, guards: list[Tensor]) -> None:
        super().__init__()
        self.guards = guards

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        name = getattr(func, "__name__", "")
        if name == "one_hot":  # which looks at its classes before it spreads them
            return self._one_hot(*args, **(kwargs or {}))
        if name not in self.QUESTIONS:
            return func(*args, **(kwargs or {}))
        asker = sys._getframe(1).f_code.co_filename
        if name != "__bool__" or not asker.startswith(self.ALLOWED):
            raise _Asked(_Asked.WORDS)
        (asked,) = args
        return self._answer(asked)

    def _answer(self, asked: Tensor) -> bool:
        with disable_proxy_modes_tracing():
            answer = bool(asked)
        self.guards.append(asked.reshape(()) == answer)
        return answer

    def _one_hot(self, tensor: Tensor, num_classes: int = -1) -> Tensor:
        """Do as torch's function of the name, which reads its classes off the tensor."""
        if num_classes < 0:  # as many as the largest, which only the data know
            raise _Asked(_Asked.WORDS)
        self.guards.append(((tensor >= 0) & (tensor < num_classes)).all())
        classes = torch.arange(num_classes, device=tensor.device)
        return (tensor.unsqueeze(-1) == classes).to(tensor.dtype)


def _places(tensors: Tensors) -> tuple[tuple[int, bool, int], ...]:
    return tuple((t.data_ptr(), t.requires_grad, len(t._backward_hooks or ())) for t in tensors)


def has_hook(owner: Tensor | torch.optim.Optimizer) -> bool:
    """Whether Python is called when a gradient has been added up, or a step is taken."""
    if isinstance(owner, Tensor):
        return bool(owner._post_accumulate_grad_hooks)
    return bool(owner._optimizer_step_pre_hooks or owner._optimizer_step_post_hooks)


def scaled(gradients: Tensors, factor: float) -> Tensors:
    """Give all of them times a factor, in one call."""
    return torch._foreach_mul(list(gradients), factor)


def _keep_draws(graph: fx.Graph) -> int:
    """Return draws that nothing uses too: the compiler would drop them, and shift the noise."""
    (output,) = (n for n in graph.nodes if n.op == "output")
    outputs = list(output.args[0])
    needed: set[fx.Node] = set()
    todo = [output]
    while todo:
        new = set(todo.pop().all_input_nodes) - needed
        needed |= new
        todo += new
    unused = [
        n
        for n in graph.nodes
        if n not in needed and torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())
    ]
    output.args = ([*outputs, *unused],)
    return len(outputs)


@contextmanager
def _no_questions_asked() -> Iterator[None]:
    """Keep Pyro's estimators from looking at values: no warnings of NaN, no floats."""
    modules = (trace_elbo, trace_mean_field_elbo, estimator)
    swapped = {"torch_item": _unasked, "warn_if_nan": _unwarned}
    kept = [(m, n, vars(m)[n]) for m in modules for n in swapped if n in vars(m)]
    validated = Distribution._validate_args
    try:
        for module, name, _ in kept:
            setattr(module, name, swapped[name])
        with pyro.validation_enabled(False):
            Distribution._validate_args = validated  # its questions are guarded
            yield
    finally:
        Distribution._validate_args = validated  # Pyro restores its own idea of it
        for module, name, value in kept:
            setattr(module, name, value)


def _unasked(value: Any) -> Any:  # noqa: ANN401
    # Detached, as a number would be: what is added to a loss by value has no gradient.
    return value.detach() if isinstance(value, Tensor) else value


def _unwarned(value: Any, *_: Any, **__: Any) -> Any:  # noqa: ANN401
    return value
