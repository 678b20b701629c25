"""A mixture of the guide's own components: the VampPrior."""

from __future__ import annotations

import math
from typing import cast

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn

from ppl_vae.data.batches import as_numbers
from ppl_vae.distributions import MixtureOfNormals


class VampPrior(nn.Module):
    """p(z) = 1/K Σ_k q(z | u_k): the guide at K pseudo-inputs u_k, learned with the rest.

    Tomczak and Welling 2018 (VAE with a VampPrior), eq. 9. The encoder is *borrowed*: it stays a
    part of the program, whose guide it is, and is neither saved nor counted twice.

    Args:
        pseudo_inputs: u, ``(K, *event)``: data, a random choice of them say.
        encoder: q(z|x), the module that the program has as its encoder.
        learned: Train the pseudo-inputs.

    Raises:
        ValueError: If the pseudo-inputs are not finite, or the encoder does not take them.

    Example:
        >>> import torch
        >>> from ppl_vae import MLP, VAE, Bernoulli, Conditional, Normal
        >>> encoder = Conditional(MLP(16), Normal(2), given=64)
        >>> decoder = Conditional(MLP(16), Bernoulli(64), given=2)
        >>> vae = VAE(VampPrior(torch.rand(10, 64), encoder), decoder, encoder)
        >>> vae.prior().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    pseudo_inputs: Tensor

    def __init__(self, pseudo_inputs: Tensor, encoder: nn.Module, *, learned: bool = True) -> None:
        super().__init__()
        values = as_numbers(pseudo_inputs, "pseudo_inputs").clone()
        if values.dim() < 2 or not len(values) or not values.isfinite().all():
            raise ValueError(
                f"Got pseudo_inputs of shape {tuple(values.shape)}"
                f"{'' if values.isfinite().all() else ' that are not all finite'}; expected K "
                "finite data, (K, *event). Try x[:500]."
            )
        if not isinstance(encoder, nn.Module) or not hasattr(encoder, "event_shape"):
            raise ValueError(
                f"Got a {type(encoder).__name__} as encoder; expected the module that is the "
                "program's encoder. Try encoder = Conditional(...), then VAE(VampPrior(u, encoder),"
                " decoder, encoder)."
            )
        self.learned = learned
        if learned:
            self.pseudo_inputs = nn.Parameter(values)
        else:
            self.register_buffer("pseudo_inputs", values)
        # Not as a submodule: it is the program's own, and would be saved twice.
        self.__dict__["encoder"] = encoder
        self.event_shape = Size(cast(Size, encoder.event_shape))

    @property
    def borrowed(self) -> tuple[nn.Module, ...]:
        """The parts of a program that this prior uses: the program checks that they are its own."""
        return (self.__dict__["encoder"],)

    def forward(self) -> TorchDistribution:
        """Return p(z)."""
        components = self.__dict__["encoder"](self.pseudo_inputs)
        count = len(self.pseudo_inputs)
        base = getattr(components, "base_dist", None)
        if isinstance(base, dist.Normal) and len(components.event_shape) == 1:
            equal = base.loc.new_full((count,), -math.log(count))
            return MixtureOfNormals(equal, base.loc, base.scale)
        logits = self.pseudo_inputs.new_zeros(count)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)

    def __repr__(self) -> str:
        kind = "learned" if self.learned else "fixed"
        return f"VampPrior({len(self.pseudo_inputs)} pseudo-inputs, {kind})"
