"""A normalizing flow as prior."""

from __future__ import annotations

from torch import Size, nn

from ppl_vae.distributions import Flow
from ppl_vae.nets import FlowBuilder, NeuralSpline, built_flow


class FlowPrior(nn.Module):
    """p(z) = N(f(z); 0, I) |det ∂f/∂z|, a normalizing flow that is trained with the rest.

    Any density can be learned, so that the prior meets the guide: the KL term gets cheap, and p(z)
    no longer says what z is. Gradients go through f at the guide's draws. It needs zuko:
    ``pip install 'ppl_vae[flows]'``.

    Args:
        features: D: the latent is a vector.
        flow: Builder ``(features, context) -> flow``; `context` is 0 here. The default is a
            coupling flow of splines, which draws and scores in a few passes. An autoregressive one,
            ``lambda features, context: zuko.flows.MAF(features, context)``, scores in one, which is
            what training asks of a prior, and draws in D.

    Raises:
        ValueError: If zuko is missing, or the builder gives no flow over vectors of D.

    Example:
        >>> import torch
        >>> FlowPrior(2)().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, features: int, flow: FlowBuilder = NeuralSpline()) -> None:  # noqa: B008
        super().__init__()
        self.flow = built_flow(flow, features, 0)
        self.event_shape = Size([features])

    def forward(self) -> Flow:
        """Return p(z)."""
        return Flow(self.flow())

    def __repr__(self) -> str:
        # Short: zuko's own repr of a flow draws random numbers.
        return f"FlowPrior({self.event_shape[0]}, {type(self.flow).__name__})"
