"""The variational autoencoder as a probabilistic program."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import Transform, biject_to, constraints

from ppl_vae.conditional import Conditional
from ppl_vae.data.batches import ROWS
from ppl_vae.programs.registration import picklable, register


class VAE(nn.Module):
    """z ~ p(z), x | z ~ p(x|z), with the guide z | x ~ q(z|x).

    The generative story and nothing else: under `ELBO` it is a variational autoencoder, under
    `Adversarial` the same program is an adversarial autoencoder. It also runs unchanged under
    ``pyro.infer.SVI(vae.model, vae.guide, optim, Trace_ELBO())``. Sites are ``z`` and ``x``.

    Args:
        prior: p(z), such as `StandardNormal`: called without arguments.
        decoder: p(x|z), such as a `Conditional` given the latent's shape.
        encoder: q(z|x), on unconstrained space: where the prior's support is bounded, its draws
            are pushed through ``biject_to(prior().support)``, Jacobian included.

    Raises:
        ValueError: If the three do not fit together.

    Example:
        >>> from ppl_vae import MLP, Bernoulli, Normal, StandardNormal
        >>> decoder = Conditional(MLP(16), Bernoulli(64), given=2)
        >>> encoder = Conditional(MLP(16), Normal(2), given=64)
        >>> vae = VAE(StandardNormal(2), decoder, encoder)
        >>> vae.guide(torch.zeros(5, 64)).shape
        torch.Size([5, 2])
    """

    def __init__(self, prior: nn.Module, decoder: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        for role, part in {"prior": prior, "decoder": decoder, "encoder": encoder}.items():
            _event(part, role)
        self.prior, self.decoder, self.encoder = prior, decoder, encoder
        self._check_parts()

    def model(self, x: Tensor) -> Tensor:
        """Run p(z) p(x|z) with x observed; x is ``(N, *event_shape)``."""
        register(self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decoder(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """Run q(z|x): ``(N, *latent_shape)``."""
        register(self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x))

    def posterior(self, x: Tensor) -> TorchDistribution:
        """Return q(z|x) on the support of the prior, ``batch_shape`` (N,)."""
        q = self.encoder(x)
        push = self._push()
        return q if push is None else dist.TransformedDistribution(q, [push])

    def check(self, x: Tensor, name: str = "x") -> None:
        """Check data against p(x|z), once, before anything is run on them.

        Raises:
            ValueError: If a value is missing, infinite or outside the support, or x has another
                shape than the decoder's events.
        """
        self._check_parts()  # a part may have been exchanged since
        event = _event(self.decoder, "decoder")
        if x.shape[1:] != event:
            raise ValueError(
                f"Got {name} of shape {tuple(x.shape)}; expected (N, "
                f"{', '.join(map(str, event))}), the decoder's events. Try {_reshaping(x, event)}"
            )
        if not all(part.isfinite().all() for part in x.split(ROWS)):
            raise ValueError(
                f"Got {_first(~x.isfinite(), x)} in {name}; expected finite numbers (missing cells "
                "are not supported yet). Try leaving such rows out, or imputing them first."
            )
        family = getattr(self.decoder, "family", None)
        if family is not None and not all(
            family.support.check(part).all() for part in x.split(ROWS)
        ):
            raise ValueError(
                f"Got {_first(~family.support.check(x), x)} in {name}; expected values in the "
                f"support of {family}. Try {_proposal(x)}"
            )

    def notes(self) -> list[str]:
        """Say what is assumed beside the equations: floors of learned scales."""
        return [
            f"the scale of the {role} ({part.family}) has the floor {part.family.min_scale:g}"
            for role, part in (("decoder", self.decoder), ("encoder", self.encoder))
            if isinstance(part, Conditional) and part.family.min_scale is not None
        ]

    def _check_parts(self) -> None:
        prior, decoder, encoder = self.prior, self.decoder, self.encoder
        own = {id(part) for part in self.modules()}
        if strangers := [b for b in getattr(prior, "borrowed", ()) if id(b) not in own]:
            raise ValueError(
                f"Got a {type(prior).__name__} that borrows a {type(strangers[0]).__name__} which "
                "is no part of this program; expected the program's own. Try the same encoder in "
                "both: VAE(VampPrior(u, encoder), decoder, encoder)."
            )
        latent, event = _event(prior, "prior"), _event(decoder, "decoder")
        drawn = prior()
        if drawn.event_shape != latent or drawn.batch_shape:
            raise ValueError(
                f"Got a prior of batch shape {tuple(drawn.batch_shape)} and event shape "
                f"{tuple(drawn.event_shape)}; expected () and {tuple(latent)}, as its event_shape "
                "says. Try .to_event() on the distribution that it returns."
            )
        self._check_support()
        push = self._push()
        free = latent if push is None else push.inverse_shape(latent)
        _must_fit("encoder's event", _event(encoder, "encoder"), "prior's event", free)
        for role, part, where, shape in (
            ("decoder", decoder, "prior", latent),
            ("encoder", encoder, "decoder", event),
        ):
            if isinstance(part, Conditional):
                if len(part.given) != 1:
                    raise ValueError(
                        f"Got the {role}'s given={[tuple(s) for s in part.given]}; expected one "
                        f"context, the {where}'s event. Try given={tuple(shape)}."
                    )
                _must_fit(f"{role}'s given", part.given[0], f"{where}'s event", shape)

    def _push(self) -> Transform | None:
        """The bijection that takes an encoder on unconstrained space onto the prior's support."""
        support = _support(self.prior())
        family = getattr(self.encoder, "family", None)
        on_reals = family is None or _is_real(family.support)
        return biject_to(support) if on_reals and not _is_real(support) else None

    def _check_support(self) -> None:
        family = getattr(self.encoder, "family", None)
        support = _support(self.prior())
        if family is None or (_is_real(family.support) and not support.is_discrete):
            return
        cell = getattr(support, "base_constraint", support)
        if repr(cell) != repr(family.support):  # a constraint's repr has its bounds
            raise ValueError(
                f"Got the guide {family} under a prior with support {cell}; expected a guide that "
                "lives inside it: on the same support, or on the reals under a continuous prior, "
                "which is pushed onto its support. Try Normal."
            )

    def __getstate__(self) -> dict[str, object]:
        """Allow pickling and `torch.save` after training."""
        return picklable(self)


def _event(part: nn.Module, role: str) -> Size:
    shape = getattr(part, "event_shape", None)
    if not isinstance(part, nn.Module) or not isinstance(shape, tuple):
        raise ValueError(
            f"Got {type(part).__name__} as {role}; expected an nn.Module that returns a "
            "distribution and declares its event_shape. Try StandardNormal(10) for a prior, "
            "Conditional(MLP(400), family, given=...) for the others."
        )
    return Size(shape)


def _support(d: TorchDistribution) -> constraints.Constraint:
    try:
        support = d.support
    except NotImplementedError:  # a prior that can only be sampled need not know its support
        return constraints.real_vector
    if type(support).__name__ == "MixtureSameFamilyConstraint":  # biject_to does not know it
        return support.base_constraint
    return support


def _is_real(support: constraints.Constraint) -> bool:
    inner = getattr(support, "base_constraint", support)
    return inner is constraints.real or type(inner) is type(constraints.real)


def _must_fit(what: str, got: Size, where: str, expected: Size) -> None:
    if Size(got) != expected:
        raise ValueError(
            f"Got the {what} shape {tuple(got)}; expected the {where} shape {tuple(expected)}. Try "
            "one latent size in prior, encoder and decoder, and one data shape in encoder and "
            "decoder."
        )


def _first(bad: Tensor, x: Tensor) -> str:
    row, *cell = torch.nonzero(bad)[0].tolist()
    where = f"row {row}" + (f", cell {cell[0] if len(cell) == 1 else tuple(cell)}" if cell else "")
    return f"{x[(row, *cell)].item():g} at {where} ({int(bad.sum())} such values)"


def _proposal(x: Tensor) -> str:
    whole = bool((x == x.round()).all())
    if whole and bool((x >= 0).all()):
        return f"Binomial(..., total={int(x.max())}) if the counts have that known total."
    if bool(((x >= 0) & (x <= 1)).all()):
        return "binarising (x > 0.5), or Normal(..., scale=Shared()) for grey values."
    if whole:
        return "leaving out rows in which a negative count stands for a missing one."
    return "Normal(..., scale=PerFeature()) for real numbers."


def _reshaping(x: Tensor, event: Size) -> str:
    """What makes events of x, without mixing up its cells."""
    if x.shape == event:
        return "x[None] for a single datum."
    if x.dim() == len(event) + 1 and sorted(x.shape[1:]) == sorted(event):
        return "x.permute(...): its axes are in another order."
    if x.dim() == 2 and len(x) == event.numel():
        return f"x.T: a datum is a row{'' if len(event) == 1 else ', reshaped then'}."
    if x.dim() == 1 and event.numel() == 1:
        return "x.reshape(-1, 1), or x.to_frame() of a Series."
    if x[0].numel() == event.numel():
        return f"x.reshape(-1, {', '.join(map(str, event))})."
    return f"a family and an encoder for events of shape {tuple(x.shape[1:])}."
