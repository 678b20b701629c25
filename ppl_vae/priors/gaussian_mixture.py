"""A mixture of diagonal Gaussians as prior."""

from __future__ import annotations

import torch
from torch import Size, Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.data.batches import as_numbers
from ppl_vae.distributions import MixtureOfNormals


class GaussianMixture(nn.Module):
    """p(z) = Σ_k w_k N(loc_k, diag(scale_k²)), fixed or learned.

    Args:
        loc: Centres, ``(K, D)``.
        scale: A positive number, or a tensor that broadcasts to ``(K, D)``.
        weights: ``(K,)``, positive; equal when absent. They are normalised.
        learned: Train centres, scales and weights with the rest of the program.
        min_scale: The floor of learned scales, part of the model.

    Raises:
        ValueError: If a shape does not fit, or a scale or weight is not positive.

    Example:
        Ten components on a ring, as in the AAE paper (Makhzani et al. 2015):

        >>> angle = torch.arange(10) * 2 * torch.pi / 10
        >>> ring = GaussianMixture(4 * torch.stack([angle.cos(), angle.sin()], -1), scale=0.5)
        >>> ring().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> sum(p.numel() for p in GaussianMixture(torch.randn(10, 2), learned=True).parameters())
        50
    """

    loc: Tensor
    scale: Tensor
    logits: Tensor

    def __init__(
        self,
        loc: Tensor,
        scale: float | Tensor = 1.0,
        weights: Tensor | None = None,
        *,
        learned: bool = False,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__()
        dtype = torch.get_default_dtype()
        loc = as_numbers(loc, "loc").clone()
        if loc.dim() != 2 or not loc.numel():
            raise ValueError(
                f"Got loc of shape {tuple(loc.shape)}; expected (K, D): one row per component. "
                "Try torch.randn(10, 2) for ten components in two dimensions."
            )
        scale = as_numbers(scale, "scale")
        weights = torch.ones(len(loc)) if weights is None else as_numbers(weights, "weights")
        weights = weights.to(dtype)
        try:
            scale = scale.expand(loc.shape).clone()
        except RuntimeError as error:
            raise ValueError(
                f"Got scale of shape {tuple(scale.shape)}; expected one that broadcasts to "
                f"{tuple(loc.shape)}. Try one number for all."
            ) from error
        if not 0 < min_scale < float("inf"):
            raise ValueError(
                f"Got min_scale={min_scale}; expected a positive finite number. Try 1e-3."
            )
        floor = min_scale if learned else 0.0
        if weights.shape != loc.shape[:1] or not ((weights > 0) & weights.isfinite()).all():
            raise ValueError(
                f"Got weights {weights.tolist()}; expected {len(loc)} positive numbers. Try None "
                "for equal ones, or leaving out components of weight 0."
            )
        if not loc.isfinite().all():
            bad = loc[~loc.isfinite()]
            raise ValueError(
                f"Got {bad[0].item()} in loc ({len(bad)} such values); expected finite numbers. "
                "Try leaving such components out."
            )
        if not ((scale > floor) & scale.isfinite()).all():
            raise ValueError(
                f"Got scale={float(scale[~((scale > floor) & scale.isfinite())][0]):g}; expected "
                f"finite numbers above {'min_scale=' if learned else ''}{floor:g}. Try scale=1.0."
            )
        self.event_shape: Size = loc.shape[1:]
        self.learned, self.min_scale = learned, min_scale
        values = {"loc": loc, "scale": scale, "logits": weights.log()}
        if learned:  # a learned scale is min_scale + softplus(raw)
            values["scale"] = scale - floor + torch.log(-torch.expm1(floor - scale))
        for name, value in values.items():
            if learned:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self) -> MixtureOfNormals:
        """Return p(z)."""
        scale = self.min_scale + softplus(self.scale) if self.learned else self.scale
        return MixtureOfNormals(torch.log_softmax(self.logits, -1), self.loc, scale)

    def __repr__(self) -> str:
        components, features = self.loc.shape
        kind = "learned" if self.learned else "fixed"
        return f"GaussianMixture({components} components, {features} features, {kind})"
