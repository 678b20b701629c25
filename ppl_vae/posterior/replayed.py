"""A function and its gradient as a graph: what Python does at every step it does once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.training.inductor import compiled, interpreted, trace, why_not

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-9}

Function = Callable[[Tensor], Tensor]


def replayed(function: Function, examples: Sequence[Tensor], *, compile: bool = False) -> Function:
    """Give the function traced once, with its gradient, or as it is where that cannot be.

    It cannot be where Python decides by a value, or where the graph is not the function at one of
    the examples. Where the graph is not finite, or what distributions ask of values has another
    answer than in the trace, the function itself is asked.

    Args:
        function: From u to one number, differentiable, without noise.
        examples: Two u or more of one shape, each like those to come.
        compile: Compile the graph too, if this machine can: it takes some seconds.

    Example:
        >>> square = replayed(lambda u: u.square().sum(), [torch.zeros(2), torch.ones(2)])
        >>> u = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> torch.autograd.grad(square(u), u)[0]
        tensor([2., 4.])
    """

    def both(guards: list[Tensor], u: Tensor) -> tuple[Tensor, Tensor]:
        u = u.detach().requires_grad_()
        value = function(u)
        (gradient,) = torch.autograd.grad(value, u)
        value = value.detach()
        if guards:
            value = torch.where(torch.stack(guards).all(), value, torch.nan)
        return value, gradient

    try:
        graph = trace(both, [examples[0]])
        run = (
            compiled(graph, [examples[0]]) if compile and why_not() is None else interpreted(graph)
        )
        same = all(_close(run(u), both([], u)) for u in examples)
    except Exception:  # torch raises what it likes; what the function raises it raises again
        return function

    def call(u: Tensor) -> Tensor:
        value, gradient = run(u.detach())
        if not value.isfinite():
            return function(u)
        found: Tensor = _Known.apply(u, value, gradient)
        return found

    return call if same else function


class _Known(torch.autograd.Function):
    """A value whose gradient has been computed beside it."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, value: Tensor, gradient: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def _close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    limit = TOLERANCE.get(expected[1].dtype, 0.0)
    return all(
        bool((a - b).abs().max() <= limit * b.abs().max())
        for a, b in zip(found, expected, strict=True)
    )
