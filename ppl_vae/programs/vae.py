"""The variational autoencoder as a probabilistic program."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn

from ppl_vae.conditional import Conditional, Family, declared_family
from ppl_vae.distributions import Marginal
from ppl_vae.programs.parts import (
    call,
    check_parts,
    covariate_shapes,
    event_of,
    lands_on,
    lend,
    push_onto,
    support_of,
    support_of_prior,
)
from ppl_vae.programs.program import origin
from ppl_vae.programs.registration import picklable, register


class VAE(nn.Module):
    """z ~ p(z), x | z ~ p(x|z), with the guide z | x ~ q(z|x); each may be given covariates too.

    The generative story and nothing else: under `ELBO` it is a variational autoencoder, under
    `Adversarial` the same program is an adversarial autoencoder. It also runs unchanged under
    ``pyro.infer.SVI(vae.model, vae.guide, optim, Trace_ELBO())``. Sites are ``z`` and ``x``.

    A part is called with what it names (`Conditional`'s ``given={...}``): the decoder with z, the
    encoder with x and, if it asks, the mask of the cells that are seen, all with covariates. Data
    are then a dict, ``fit(vae, {"x": x, "dose": dose})``.

    Cells that are NaN, or False in a ``mask``, are missing: they are integrated out of p(x|z), and
    the encoder sees 0 there. This takes them to be missing at random.

    Args:
        prior: p(z), such as `StandardNormal`; or p(z|c), a `Conditional` with ``given={"c": ...}``.
        decoder: p(x|z), such as a `Conditional` given the latent's shape.
        encoder: q(z|x), on unconstrained space: where the prior's support is bounded, its draws
            are pushed through ``biject_to(prior().support)``, Jacobian included; or, as it is, a
            distribution on that very support, such as a Beta under a box from 0 to 1.

    Raises:
        ValueError: If the three do not fit together.

    Example:
        >>> from ppl_vae import MLP, Bernoulli, Normal, StandardNormal
        >>> decoder = Conditional(MLP(16), Bernoulli(64), given=2)
        >>> encoder = Conditional(MLP(16), Normal(2), given=64)
        >>> vae = VAE(StandardNormal(2), decoder, encoder)
        >>> vae.guide(torch.zeros(5, 64)).shape
        torch.Size([5, 2])

        With a covariate in prior and decoder, and an encoder that knows what is missing:

        >>> vae = VAE(
        ...     Conditional(MLP(16), Normal(2), given={"dose": 1}),
        ...     Conditional(MLP(16), Bernoulli(64), given={"z": 2, "dose": 1}),
        ...     Conditional(MLP(16), Normal(2), given={"x": 64, "mask": 64}),
        ... )
        >>> vae.covariates
        {'dose': torch.Size([1])}
    """

    def __init__(self, prior: nn.Module, decoder: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        event_of(encoder, "encoder")
        lend(prior, encoder)
        event_of(prior, "prior")
        event_of(decoder, "decoder")
        self.prior, self.decoder, self.encoder = prior, decoder, encoder
        self.check_parts()

    @property
    def covariates(self) -> dict[str, Size | None]:
        """Event shapes of the covariates that the parts name, None where a part leaves it open."""
        return covariate_shapes(self.prior, self.decoder, self.encoder)

    def model(self, x: Tensor, mask: Tensor | None = None, **covariates: Tensor) -> Tensor:
        """Run p(z) p(x|z) with x observed; x and mask are ``(N, *event_shape)``."""
        register(self)
        if covariates and (odd := covariates.keys() - self.covariates.keys()):
            raise ValueError(
                f"Got {sorted(odd)} beside x; expected the covariates {list(self.covariates)} that "
                "the parts name. Try leaving it out, or naming it in a part's given={...}."
            )
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", call(self.prior, (), covariates))
            likelihood = self.likelihood(z, **covariates)
            if mask is not None:
                x = torch.where(mask, x, self._filler(x))
                likelihood = Marginal(likelihood, mask)
            return pyro.sample("x", likelihood, obs=x)

    def guide(self, x: Tensor, mask: Tensor | None = None, **covariates: Tensor) -> Tensor:
        """Run q(z|x): ``(N, *latent_shape)``."""
        register(self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x, mask, **covariates))

    def posterior(
        self, x: Tensor, mask: Tensor | None = None, **covariates: Tensor
    ) -> TorchDistribution:
        """Return q(z|x) on the support of the prior, ``batch_shape`` (N,)."""
        seen = torch.ones_like(x) if mask is None else mask.to(x.dtype)
        if mask is not None:
            x = torch.where(mask, x, 0.0)
        q = call(self.encoder, ("x",), {"x": x, "mask": seen, **covariates})
        support = support_of_prior(self.prior)
        if support is None:
            support = support_of(call(self.prior, (), covariates))
        push = push_onto(support, self.encoder)
        if push is None or lands_on(q, support):
            return q
        if isinstance(q, dist.Delta):  # found again by its inverse, a point is off by rounding
            return dist.Delta(push(q.v), event_dim=q.event_dim)
        return dist.TransformedDistribution(q, [push])

    def likelihood(self, z: Tensor, **covariates: Tensor) -> TorchDistribution:
        """Return p(x|z), ``batch_shape`` that of z."""
        return call(self.decoder, ("z",), {"z": z, **covariates})

    def check_parts(self) -> None:
        """Check that the parts fit together: one may have been exchanged.

        Raises:
            ValueError: If they do not.
        """
        lend(self.prior, self.encoder)
        check_parts(self.prior, self.decoder, self.encoder)

    def notes(self) -> list[str]:
        """Say what is assumed beside the equations: floors of learned scales."""
        families = [
            (role, family)
            for role, part in (
                ("prior", self.prior),
                ("decoder", self.decoder),
                ("encoder", self.encoder),
            )
            if isinstance(part, Conditional)
            for family in part.family.columns or (part.family,)
        ]
        return [
            f"the scale of the {role} ({family}) has the floor {family.min_scale:g}"
            for role, family in families
            if family.min_scale is not None
        ]

    def _filler(self, x: Tensor) -> Tensor:
        family = declared_family(self.decoder)
        filler = 0.0 if family is None else family.filler
        return torch.as_tensor(filler, dtype=x.dtype, device=x.device)

    def __getstate__(self) -> dict[str, object]:
        """Allow pickling and `torch.save` after training."""
        return picklable(self)


def family_of(program: nn.Module) -> Family | None:
    """Give the family of x; None where a program does not say it.

    Args:
        program: A `VAE`, or one that was made of it with another guide.
    """
    own = origin(program)
    decoder = own.decoder if isinstance(own, VAE) else None
    return decoder.family if isinstance(decoder, Conditional) else None
