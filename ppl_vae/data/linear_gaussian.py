"""An exact world in any dimension: a Gaussian latent seen through a linear-Gaussian decoder.

Evidence, posterior, both KL terms and the reconstruction have closed forms, so that every
estimator and diagnostic can be held against the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from pyro.distributions import MultivariateNormal, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence


def condition(
    prior: MultivariateNormal,
    weight: Tensor,
    bias: Tensor,
    scale: float | Tensor,
    x: Tensor,
) -> tuple[Tensor, MultivariateNormal]:
    """Condition a Gaussian z on a linear observation x of it.

    With p(z) = N(m, S) and p(x|z) = N(W z + b, s² I), eqs. 2.115-2.117 of *Pattern Recognition
    and Machine Learning* (Bishop, 2006):

        p(x)   = N(W m + b, W S Wᵀ + s² I)
        p(z|x) = N(m + C Wᵀ (x − W m − b) / s², C),   C = (S⁻¹ + WᵀW / s²)⁻¹

    The two sides are factorised apart (one X × X, one Z × Z), so that Bayes' rule between them
    is a check of both and not an identity of one formula with itself.

    Args:
        prior: p(z), batch K (often empty).
        weight: W.
        bias: b.
        scale: s, positive.
        x: The observation.

    Shapes:
        weight ``(X, Z)``, bias ``(X,)``, x ``(*N, X)``; the result has batch ``(*N, *K)``.

    Returns:
        log p(x) in nats per datum, and p(z|x).

    Example:
        >>> prior = MultivariateNormal(torch.zeros(1), torch.eye(1))
        >>> x = torch.tensor([[2.0]])
        >>> log_p, q = condition(prior, torch.ones(1, 1), torch.zeros(1), 1.0, x)
        >>> round(q.mean.item(), 4), round(q.variance.item(), 4)
        (1.0, 0.5)
    """
    eye = torch.eye(len(bias), dtype=weight.dtype, device=weight.device)
    marginal = MultivariateNormal(
        prior.loc @ weight.T + bias, weight @ prior.covariance_matrix @ weight.T + scale**2 * eye
    )
    x = x.reshape(x.shape[:-1] + (1,) * len(prior.batch_shape) + x.shape[-1:])
    precision = prior.precision_matrix + weight.T @ weight / scale**2
    tril = MultivariateNormal(prior.loc, precision_matrix=precision).scale_tril
    pull = (x - marginal.loc) @ weight / scale**2
    shift = tril @ (tril.mT @ pull.unsqueeze(-1))
    return marginal.log_prob(x), MultivariateNormal(prior.loc + shift.squeeze(-1), scale_tril=tril)


def check_decoder(weight: Tensor, bias: Tensor, scale: float | Tensor) -> None:
    """Refuse the parameters of a linear-Gaussian decoder that do not fit each other.

    Args:
        weight: W, to be ``(X, Z)``.
        bias: b, to be ``(X,)``.
        scale: s, to be one positive number.

    Raises:
        ValueError: If a shape is wrong or the scale is not one positive number.

    Example:
        >>> check_decoder(torch.ones(3, 2), torch.zeros(3), scale=0.5)
    """
    if weight.dim() != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"Got weight {tuple(weight.shape)} and bias {tuple(bias.shape)}; expected (X, Z) and "
            "(X,). Try weight of one row per observed and one column per latent dimension."
        )
    size = torch.as_tensor(scale)
    if size.dim() > 0 or not size > 0:
        raise ValueError(f"Got scale {scale}; expected one positive number. Try 0.5.")


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """The world z ~ N(0, I), x|z ~ N(weight z + bias, scale² I), with everything exact.

    It is probabilistic PCA (Tipping and Bishop, 1999). Evidence and KL terms are in nats per
    datum.

    Args:
        weight: The linear decoder.
        bias: Mean of x at z = 0.
        scale: Standard deviation of x given z.

    Shapes:
        weight ``(X, Z)``, bias ``(X,)``, scale a float or ``()``; x is ``(N, X)``, z ``(N, Z)``.

    Raises:
        ValueError: If the shapes do not fit, or the scale is not one positive number.

    Example:
        >>> world = LinearGaussian.random(latent=2, observed=5, seed=0)
        >>> x, z = world.sample(3, seed=1)
        >>> q = world.broken_posterior(x, scale=0.5)  # half as wide as it should be
        >>> gap = world.log_evidence(x) - world.reconstruction(q, x) + world.kl_prior(q)
        >>> torch.allclose(gap, world.kl_posterior(q, x))
        True
    """

    weight: Tensor
    bias: Tensor
    scale: float | Tensor

    def __post_init__(self) -> None:
        check_decoder(self.weight, self.bias, self.scale)

    @classmethod
    def random(
        cls,
        latent: int,
        observed: int,
        *,
        scale: float = 0.5,
        seed: int,
        dtype: torch.dtype = torch.float64,
    ) -> LinearGaussian:
        """Draw weight and bias from N(0, 1); the global random stream is left alone."""
        noise = torch.Generator(torch.get_default_device()).manual_seed(seed)
        weight = torch.empty(observed, latent, dtype=dtype).normal_(generator=noise)
        return cls(weight, weight.new_empty(observed).normal_(generator=noise), scale)

    def prior(self) -> MultivariateNormal:
        """Return p(z) = N(0, I), event ``(Z,)``."""
        eye = torch.eye(self.weight.shape[1], dtype=self.weight.dtype, device=self.weight.device)
        return MultivariateNormal(eye.new_zeros(len(eye)), scale_tril=eye)

    def decoder(self, z: Tensor) -> TorchDistribution:
        """Return p(x|z) for z ``(*B, Z)``: batch ``B``, event ``(X,)``."""
        return Normal(z @ self.weight.T + self.bias, self.scale).to_event(1)

    def sample(self, n: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Draw n pairs: x ``(n, X)`` and z ``(n, Z)``; the global random stream is left alone."""
        noise = torch.Generator(self.weight.device).manual_seed(seed)
        z = self.weight.new_empty(n, self.weight.shape[1]).normal_(generator=noise)
        error = self.weight.new_empty(n, len(self.bias)).normal_(generator=noise)
        return z @ self.weight.T + self.bias + self.scale * error, z

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return log p(x), ``(N,)``, nats per datum, exact."""
        return condition(self.prior(), self.weight, self.bias, self.scale, x)[0]

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """Return p(z|x), batch ``(N,)``, exact."""
        return condition(self.prior(), self.weight, self.bias, self.scale, x)[1]

    def broken_posterior(
        self, x: Tensor, scale: float = 1.0, shift: float = 0.0
    ) -> MultivariateNormal:
        """Return N(m + shift L 1, scale² L Lᵀ), where p(z|x) = N(m, L Lᵀ); batch ``(N,)``.

        A fault of known size: `shift` and `scale` count in posterior standard deviations, along
        every whitened coordinate. Then KL(q ‖ p(z|x)) = Z (scale² − 1 + shift² − 2 log scale) / 2.
        """
        exact = self.posterior(x)
        tril = exact.scale_tril
        return MultivariateNormal(exact.loc + shift * tril.sum(-1), scale_tril=scale * tril)

    def model(self, x: Tensor) -> Tensor:
        """Tell the generative story in Pyro: sites ``z`` and ``x``, plate ``data``."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decoder(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """Draw z from the exact posterior: every log weight is then log p(x)."""
        return self.broken_guide()(x)

    def broken_guide(self, scale: float = 1.0, shift: float = 0.0) -> Callable[[Tensor], Tensor]:
        """Return a Pyro guide that draws z from `broken_posterior`."""

        def guide(x: Tensor) -> Tensor:
            with pyro.plate("data", len(x)):
                return pyro.sample("z", self.broken_posterior(x, scale, shift))

        return guide

    def reconstruction(self, q: MultivariateNormal, x: Tensor) -> Tensor:
        """Return E_q[log p(x|z)], ``(N,)``, for a Gaussian q of batch ``(N,)``: closed form."""
        _check_gaussian(q)
        spread = (self.weight @ q.scale_tril).square().sum((-2, -1))
        return self.decoder(q.loc).log_prob(x) - spread / (2 * self.scale**2)

    def kl_prior(self, q: MultivariateNormal) -> Tensor:
        """Return KL(q ‖ p(z)), ``(N,)``, closed form."""
        _check_gaussian(q)
        return kl_divergence(q, self.prior())

    def kl_posterior(self, q: MultivariateNormal, x: Tensor) -> Tensor:
        """Return KL(q ‖ p(z|x)), ``(N,)``, closed form."""
        _check_gaussian(q)
        return kl_divergence(q, self.posterior(x))


def _check_gaussian(q: object) -> None:
    if not isinstance(q, torch.distributions.MultivariateNormal):
        raise ValueError(
            f"Got q of type {type(q).__name__}; expected a MultivariateNormal, for which the terms "
            "have closed forms. Try MultivariateNormal(loc, scale_tril=torch.diag_embed(scale)) "
            "for independent Normals, and quadrature for anything else."
        )
