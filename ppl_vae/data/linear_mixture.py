"""An exact world with several modes: a mixture prior seen through a linear-Gaussian decoder."""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import torch
from pyro.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Tensor

from ppl_vae.data.linear_gaussian import check_decoder, condition


@dataclass(frozen=True, eq=False)
class LinearMixture:
    """The world z ~ Σ_k probs_k N(loc_k, scale_z_k²), x|z ~ N(weight z + bias, scale² I).

    Each component is conditioned on x as in `condition`; its weight is multiplied by the
    evidence of x under it: eq. 2.113 onwards of *Pattern Recognition and Machine Learning*
    (Bishop, 2006), inside a mixture. Evidence is in nats per datum.

    Args:
        probs: Weights of the K components, summing to one.
        loc: Their means.
        scale_z: Their standard deviations.
        weight: The linear decoder.
        bias: Mean of x at z = 0.
        scale: Standard deviation of x given z.

    Shapes:
        probs ``(K,)``, loc and scale_z ``(K, Z)``, weight ``(X, Z)``, bias ``(X,)``, scale a float
        or ``()``; x is ``(N, X)``, z ``(N, Z)``.

    Raises:
        ValueError: If the shapes do not fit, or probs or scales are not what they should be.

    Example:
        >>> world = LinearMixture.random(latent=2, observed=1, components=3, seed=0)
        >>> x, z = world.sample(4, seed=1)
        >>> q = world.posterior(x)
        >>> joint = world.prior().log_prob(z) + world.decoder(z).log_prob(x)
        >>> torch.allclose(joint - q.log_prob(z), world.log_evidence(x))
        True
    """

    probs: Tensor
    loc: Tensor
    scale_z: Tensor
    weight: Tensor
    bias: Tensor
    scale: float | Tensor

    def __post_init__(self) -> None:
        check_decoder(self.weight, self.bias, self.scale)
        expected = (*self.probs.shape, self.weight.shape[1])
        if self.probs.dim() != 1 or not (self.loc.shape == self.scale_z.shape == expected):
            raise ValueError(
                f"Got probs {tuple(self.probs.shape)}, loc {tuple(self.loc.shape)} and scale_z "
                f"{tuple(self.scale_z.shape)}; expected (K,), (K, Z) and (K, Z) with "
                f"Z = {self.weight.shape[1]}, the columns of weight. Try one row per component."
            )
        total = float(self.probs.sum())
        if not (self.probs > 0).all() or abs(total - 1) > 1e-6 or not (self.scale_z > 0).all():
            raise ValueError(
                f"Got probs that sum to {total:g} and a smallest scale_z of "
                f"{float(self.scale_z.min()):g}; expected positive ones that sum to 1, and "
                "positive scales. Try probs / probs.sum()."
            )

    @classmethod
    def random(
        cls,
        latent: int,
        observed: int,
        components: int = 3,
        *,
        spread: float = 3.0,
        scale: float = 0.5,
        seed: int,
        dtype: torch.dtype = torch.float64,
    ) -> LinearMixture:
        """Draw means from N(0, spread²), scales from U(0.3, 1), and the decoder from N(0, 1).

        With fewer observed than latent dimensions the posteriors have several modes. The global
        random stream is left alone.
        """
        noise = torch.Generator(torch.get_default_device()).manual_seed(seed)
        weight = torch.empty(observed, latent, dtype=dtype).normal_(generator=noise)
        shape = (components, latent)
        probs = weight.new_empty(components).uniform_(0.5, 1.5, generator=noise)
        return cls(
            probs=probs / probs.sum(),
            loc=spread * weight.new_empty(shape).normal_(generator=noise),
            scale_z=weight.new_empty(shape).uniform_(0.3, 1.0, generator=noise),
            weight=weight,
            bias=weight.new_empty(observed).normal_(generator=noise),
            scale=scale,
        )

    def prior(self) -> MixtureSameFamily:
        """Return p(z), event ``(Z,)``."""
        return MixtureSameFamily(
            Categorical(self.probs), Normal(self.loc, self.scale_z).to_event(1)
        )

    def decoder(self, z: Tensor) -> TorchDistribution:
        """Return p(x|z) for z ``(*B, Z)``: batch ``B``, event ``(X,)``."""
        return Normal(z @ self.weight.T + self.bias, self.scale).to_event(1)

    def sample(self, n: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Draw n pairs: x ``(n, X)`` and z ``(n, Z)``; the global random stream is left alone."""
        noise = torch.Generator(self.weight.device).manual_seed(seed)
        k = torch.multinomial(self.probs, n, replacement=True, generator=noise)
        z = self.loc[k] + self.scale_z[k] * torch.empty_like(self.loc[k]).normal_(generator=noise)
        error = self.weight.new_empty(n, len(self.bias)).normal_(generator=noise)
        return z @ self.weight.T + self.bias + self.scale * error, z

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return log p(x) = log Σ_k probs_k p(x | k), ``(N,)``, nats per datum, exact."""
        return self._condition(x)[0].logsumexp(-1)

    def posterior(self, x: Tensor) -> MixtureSameFamily:
        """Return p(z|x), a mixture of K full Gaussians, batch ``(N,)``, exact."""
        log_joint, components = self._condition(x)
        return MixtureSameFamily(Categorical(logits=log_joint), components)

    def model(self, x: Tensor) -> Tensor:
        """Tell the generative story in Pyro: sites ``z`` and ``x``, plate ``data``."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decoder(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """Draw z from the exact posterior: every log weight is then log p(x)."""
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x))

    def _condition(self, x: Tensor) -> tuple[Tensor, MultivariateNormal]:
        # log p(x, k), (N, K), and p(z | x, k), batch (N, K)
        prior = MultivariateNormal(self.loc, scale_tril=torch.diag_embed(self.scale_z))
        log_evidence, components = condition(prior, self.weight, self.bias, self.scale, x)
        return self.probs.log() + log_evidence, components
