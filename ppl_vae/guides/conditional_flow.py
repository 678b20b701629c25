"""A normalizing flow that a network conditions: q(z|x)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Size, Tensor, nn

from ppl_vae.conditional import Conditional, EventShape, NetBuilder
from ppl_vae.distributions import Flow
from ppl_vae.families import Delta
from ppl_vae.nets import FlowBuilder, NeuralSpline, built_flow


class ConditionalFlow(nn.Module):
    """q(z|x) = N(f(z, h); 0, I) |det ∂f/∂z|, a normalizing flow f that is given h = net(x).

    A guide with correlations, skewness and several modes, where `Normal` and `MultivariateNormal`
    have one bump. Rezende and Mohamed 2015 (arXiv:1505.05770). It needs zuko:
    ``pip install 'ppl_vae[flows]'``.

    Args:
        net: A builder ``(in_features, out_features) -> nn.Module``, as of a `Conditional`.
        features: D: the latent is a vector, on the reals.
        given: The event shape of x, or of several contexts, by name or not, as of a `Conditional`.
        flow: Builder ``(features, context) -> flow``. Training draws from a guide and scores the
            draws: the default, a coupling flow of splines, does both in a few passes, where an
            autoregressive one takes D to draw.
        context: The size of h.
        flatten: As of a `Conditional`: False for convolutions.

    Raises:
        ValueError: If zuko is missing, `net` is no builder, or the flow's has no flow over vectors.

    Example:
        >>> import torch
        >>> from ppl_vae import MLP
        >>> encoder = ConditionalFlow(MLP(16), 2, given=64)
        >>> encoder(torch.zeros(5, 64)).sample().shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        net: NetBuilder,
        features: int,
        given: EventShape | list[Any] | Mapping[str, EventShape],
        *,
        flow: FlowBuilder = NeuralSpline(),  # noqa: B008
        context: int = 64,
        flatten: bool = True,
    ) -> None:
        super().__init__()
        # A point: the net's output as it is, of contexts that a Conditional has looked at.
        self.features = Conditional(net, Delta(context), given=given, flatten=flatten)
        self.flow = built_flow(flow, features, context)
        self.event_shape = Size([features])

    @property
    def given(self) -> list[Size]:
        """The event shape of each context."""
        return self.features.given

    @property
    def inputs(self) -> tuple[str, ...] | None:
        """The names of the contexts, where they have some."""
        return self.features.inputs

    def forward(self, *context: Tensor) -> Flow:
        """Return q(z | context)."""
        return Flow(self.flow(self.features(*context).mean))

    def __repr__(self) -> str:
        # Short: zuko's own repr of a flow draws random numbers.
        given = [tuple(s) for s in self.given]
        return f"ConditionalFlow({self.event_shape[0]}, {type(self.flow).__name__}, given={given})"
