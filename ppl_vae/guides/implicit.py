"""A guide that can be drawn from and has no density."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Size, Tensor, nn

from ppl_vae.conditional import Conditional, EventShape, NetBuilder, rows_of
from ppl_vae.distributions import SampleOnly
from ppl_vae.families import Delta


class Implicit(nn.Module):
    """z = net(x, ε) with ε ~ N(0, I): the net makes of noise what distribution it likes.

    The "universal approximator posterior" of Makhzani et al. 2015 (arXiv:1511.05644, section 2):
    its density is unknown, so it trains under `Adversarial` and `MMD` alone, and an ELBO, evidence
    and log weights are refused.

    Args:
        net: A builder ``(in_features, out_features) -> nn.Module``; it sees contexts and noise in
            one flat row.
        event_shape: The shape of z, on the reals.
        given: The event shape of x, or of several contexts, by name or not, as of a `Conditional`.
        noise: Dims of ε.

    Raises:
        ValueError: If `net` is no builder, or `noise` is not a positive integer.

    Example:
        >>> from ppl_vae import MLP
        >>> encoder = Implicit(MLP(16), 2, given=64, noise=4)
        >>> encoder(torch.zeros(5, 64)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        net: NetBuilder,
        event_shape: EventShape,
        given: EventShape | list[Any] | Mapping[str, EventShape],
        *,
        noise: int,
    ) -> None:
        super().__init__()
        if isinstance(noise, bool) or not isinstance(noise, int) or noise < 1:
            raise ValueError(
                f"Got noise={noise!r}; expected a positive integer, the dims of ε. Try twice the "
                "latent's; without noise the guide is Conditional(net, Delta(D), given=...)."
            )
        self.inputs: tuple[str, ...] | None = None
        if isinstance(given, Mapping):
            self.inputs, given = tuple(given), list(given.values())
        shapes = given if isinstance(given, list) else [given]
        # A point given contexts and noise.
        self.point = Conditional(net, Delta(event_shape), given=[*shapes, noise])
        self.given, self.noise = self.point.given[:-1], noise

    @property
    def event_shape(self) -> Size:
        """Shape of z."""
        return self.point.event_shape

    def forward(self, *context: Tensor) -> SampleOnly:
        """Return q(z | context)."""
        batch, (like, *_) = rows_of(context, self.given)

        def draw(shape: Size) -> Tensor:
            noise = torch.randn(*shape, self.noise, dtype=like.dtype, device=like.device)
            return self.point(*context, noise).mean

        name = "an Implicit guide"
        return SampleOnly(draw, self.event_shape, batch, has_rsample=True, name=name)
