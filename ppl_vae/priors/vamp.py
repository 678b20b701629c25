"""A mixture of the guide's own components: the VampPrior."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn

from ppl_vae.conditional import declared_family
from ppl_vae.data.batches import as_numbers
from ppl_vae.distributions import MixtureOfNormals


class VampPrior(nn.Module):
    """p(z) = 1/K Σ_k q(z | u_k): the guide at K pseudo-inputs u_k, learned with the rest.

    Tomczak and Welling 2018 (VAE with a VampPrior), eq. 9. The encoder is *borrowed*: it stays a
    part of the program, whose guide it is, and is neither saved nor counted twice. An encoder that
    is given ``x`` and ``mask`` sees pseudo-inputs without a missing cell.

    Args:
        pseudo_inputs: u, ``(K, *event)``: data, a random choice of them say.
        encoder: q(z|x), the module that the program has as its encoder. Without one the prior waits
            to `borrow` it.
        learned: Train the pseudo-inputs.

    Raises:
        ValueError: If the pseudo-inputs are not finite, or the encoder does not take them or has no
            density; if they are learned and the encoder sees `Features` of them; if the prior is
            called before it has an encoder.

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
    event_shape: Size

    def __init__(
        self, pseudo_inputs: Tensor, encoder: nn.Module | None = None, *, learned: bool = True
    ) -> None:
        super().__init__()
        values = as_numbers(pseudo_inputs, "pseudo_inputs").clone()
        if values.dim() < 2 or not len(values) or not values.isfinite().all():
            raise ValueError(
                f"Got pseudo_inputs of shape {tuple(values.shape)}"
                f"{'' if values.isfinite().all() else ' that are not all finite'}; expected K "
                "finite data, (K, *event). Try x[:500]."
            )
        self.learned = learned
        if learned:
            self.pseudo_inputs = nn.Parameter(values)
        else:
            self.register_buffer("pseudo_inputs", values)
        if encoder is not None:
            self.borrow(encoder)

    def borrow(self, encoder: nn.Module) -> None:
        """Take a program's encoder as q(z|u), once.

        Raises:
            ValueError: If there is another one already, or it does not take the pseudo-inputs, or
                is a point.
        """
        (bound,) = self.borrowed or (None,)
        if bound is not None and bound is not encoder:
            raise ValueError(
                "Got an encoder for a VampPrior that has another one; expected to keep it, as its "
                "mixture would change in silence. Try a new VampPrior(u) for the new encoder."
            )
        if not isinstance(encoder, nn.Module) or not hasattr(encoder, "event_shape"):
            raise ValueError(
                f"Got a {type(encoder).__name__} as encoder; expected the module that is the "
                "program's encoder. Try encoder = Conditional(...), then VAE(VampPrior(u, encoder),"
                " decoder, encoder)."
            )
        family, names = declared_family(encoder), getattr(encoder, "inputs", None)
        if family is not None and family.measure == "point":
            _refuse_points(family)
        unknown = [n for n in (*(names or ()), *getattr(family, "needs", ())) if n not in _KNOWN]
        if unknown or (names is not None and "x" not in names):
            raise ValueError(
                f"Got an encoder given {list(names or ()) + unknown * (names is None)} under a "
                "VampPrior; expected x, or x and mask: a pseudo-input has no covariates. Try an "
                "encoder of x alone, or StandardNormal."
            )
        given = getattr(encoder, "given", None)
        x = given[names.index("x") if names else 0] if given else self.pseudo_inputs.shape[1:]
        if x != self.pseudo_inputs.shape[1:]:
            raise ValueError(
                f"Got pseudo_inputs of shape {tuple(self.pseudo_inputs.shape)} for an encoder of "
                f"data {tuple(x)}; expected (K, {', '.join(map(str, x))}). Try x[:500]."
            )
        if self.learned and (seen := _seen_through_features(encoder)) is not None:
            raise ValueError(
                f"Got learned pseudo-inputs for an encoder that sees Features of {seen!r}; "
                "expected data that stay as they are: classes have no gradient, and logarithms end "
                "where numbers are negative. Try VampPrior(x[:500], learned=False)."
            )
        # Not as a submodule: it is the program's own, and would be saved twice.
        self.__dict__["encoder"] = encoder
        self.__dict__["event_shape"] = Size(encoder.event_shape)  # type: ignore[arg-type]

    @property
    def borrowed(self) -> tuple[nn.Module, ...]:
        """The parts of a program that this prior uses: the program checks that they are its own."""
        encoder = self.__dict__.get("encoder")
        return () if encoder is None else (encoder,)

    def forward(self) -> TorchDistribution:
        """Return p(z)."""
        if not self.borrowed:
            raise ValueError(_UNBOUND)
        (encoder,) = self.borrowed
        components = encoder(*self._contexts(encoder))
        count = len(self.pseudo_inputs)
        base = getattr(components, "base_dist", None)
        if isinstance(base, dist.Normal) and len(components.event_shape) == 1:
            equal = base.loc.new_full((count,), -math.log(count))
            return MixtureOfNormals(equal, base.loc, base.scale)
        if isinstance(components, dist.Delta):
            _refuse_points(components)
        logits = self.pseudo_inputs.new_zeros(count)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)

    def _contexts(self, encoder: nn.Module) -> list[Tensor]:
        """The pseudo-inputs, and where the encoder sees a mask one that says all is there."""
        names = getattr(encoder, "inputs", None) or ("x",)
        shapes = getattr(encoder, "given", None) or [self.pseudo_inputs.shape[1:]]
        return [
            self.pseudo_inputs
            if name == "x"
            else self.pseudo_inputs.new_ones(len(self.pseudo_inputs), *shape)
            for name, shape in zip(names, shapes, strict=False)
        ]

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        if name == "event_shape":
            raise AttributeError(_UNBOUND)
        return super().__getattr__(name)

    def __repr__(self) -> str:
        kind = "learned" if self.learned else "fixed"
        return f"VampPrior({len(self.pseudo_inputs)} pseudo-inputs, {kind})"


_KNOWN = ("x", "mask")

_UNBOUND = (
    "Got a VampPrior without an encoder; expected that of the program, whose components it mixes. "
    "Try VAE(VampPrior(u, encoder), decoder, encoder), or prior.borrow(encoder)."
)


def _seen_through_features(encoder: nn.Module) -> object:
    """The family whose features an encoder sees in place of data, if that changes them."""
    families: list[Any] = [m.family for m in encoder.modules() if hasattr(m, "sees_gaps")]
    changed = (f for f in families if any(c.features for c in f.columns or (f,)))
    return next(changed, None)


def _refuse_points(encoder: object) -> None:
    raise ValueError(
        f"Got {encoder} as the encoder of a VampPrior; expected one with a density: a mixture of "
        "points has none, and the loss would be infinite. Try Normal, or another prior."
    )
