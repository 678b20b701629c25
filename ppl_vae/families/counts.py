"""Families whose cells are counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppl_vae import distributions
from ppl_vae.conditional import EventShape, Family, event_size
from ppl_vae.families.scale import LOG, PerFeature, Scale, positive

MIN_DISPERSION = 1e-3
"""The floor of a learned dispersion r. Masses are at most 1, so it keeps digits, no bound."""


def Binomial(event_shape: EventShape, *, total: int) -> Family:
    """Independent counts out of a known total: x_d ~ Binomial(total, sigmoid(logits_d)).

    Args:
        event_shape: Shape E of one event.
        total: The largest count that can occur, the same for every cell.

    Raises:
        ValueError: If `total` is not a positive integer.

    Example:
        >>> import torch
        >>> Binomial((), total=2)(logits=torch.tensor(0.0)).log_prob(torch.tensor(1.0)).exp()
        tensor(0.5000)
    """
    if isinstance(total, bool) or not isinstance(total, int) or total < 1:
        raise ValueError(
            f"Got total={total!r}; expected a positive integer, the largest possible count. "
            "Try total=16 for scikit-learn's digits, 255 for 8-bit images."
        )
    shape = event_size(event_shape)
    return Family(
        name=f"Binomial({tuple(shape)}, total={total})",
        event_shape=shape,
        shapes={"logits": shape},
        distribution=partial(dist.Binomial, total_count=total),
        support=constraints.integer_interval(0, total),
        measure="mass",
        features=partial(centred, total),
    )


def Poisson(event_shape: EventShape, *, exposure: bool = False) -> Family:
    """Independent counts without an end: x_d ~ Poisson(exposure · exp(log_rate_d)).

    Rates stay logarithms, so that none is rounded to 0; above e^88 one is infinite in float32, the
    log-prob −inf, and `ppl_vae.fit` applies no such step.

    Args:
        event_shape: Shape E of one event.
        exposure: Whether a positive covariate multiplies the rates, past the network: a time, an
            area, a sequencing depth. It is ``exposure`` by name, ``(*B, *S)`` where S broadcasts to
            E: ``(*B, 1)`` is one for each row of a table, ``(*B, D)`` one for each cell.

    Example:
        >>> import torch
        >>> Poisson(2)(log_rate=torch.zeros(2)).log_prob(torch.zeros(2))
        tensor(-2.)
        >>> Poisson(2, exposure=True).needs
        {'exposure': GreaterThan(lower_bound=0.0)}
    """
    shape = event_size(event_shape)
    return Family(
        name=f"Poisson({tuple(shape)}{_said(exposure)})",
        event_shape=shape,
        shapes={"log_rate": shape},
        distribution=_poisson,
        support=constraints.nonnegative_integer,
        measure="mass",
        needs={"exposure": constraints.positive} if exposure else {},
        features=torch.log1p,
    )


def NegativeBinomial(
    event_shape: EventShape,
    *,
    dispersion: Scale = PerFeature(10.0),  # noqa: B008
    exposure: bool = False,
) -> Family:
    """Independent counts that vary more than a Poisson's: mean μ, variance μ + μ² / dispersion.

    The mean is exposure · exp(log_mean_d), log_mean predicted by the network and kept a logarithm.
    As the dispersion r grows the counts become Poisson's; 1 / r is called dispersion elsewhere. A
    learned one is ``1e-3 + exp(raw)``, bent so that exp(raw) stays below 1e6. `Predicted` starts
    near 1, the others at their `init`.

    Args:
        event_shape: Shape E of one event.
        dispersion: r: a positive number (known), `Shared`, `PerFeature` or `Predicted`.
        exposure: Whether a positive covariate multiplies the means, as in `Poisson`.

    Raises:
        ValueError: If the dispersion is not positive, or its start value is below the floor.

    Example:
        >>> import torch
        >>> counts = NegativeBinomial(2, dispersion=4)(log_mean=torch.zeros(2))
        >>> counts.mean, counts.variance
        (tensor([1., 1.]), tensor([1.2500, 1.2500]))
    """
    shape = event_size(event_shape)
    spread = positive("dispersion", dispersion, shape, MIN_DISPERSION, LOG)
    return Family(
        name=f"NegativeBinomial({tuple(shape)}, dispersion={dispersion}{_said(exposure)})",
        event_shape=shape,
        shapes={"log_mean": shape} | spread.shapes,
        distribution=partial(_negative_binomial, **spread.known),
        support=constraints.nonnegative_integer,
        measure="mass",
        transforms=spread.transforms,
        shared=spread.shared,
        needs={"exposure": constraints.positive} if exposure else {},
        features=torch.log1p,
    )


def ZeroInflatedNegativeBinomial(
    event_shape: EventShape,
    *,
    dispersion: Scale = PerFeature(10.0),  # noqa: B008
    exposure: bool = False,
) -> Family:
    """Independent counts that are 0 with probability sigmoid(gate_d), else negative binomial.

    The gate is predicted by the network, beside the log_mean of `NegativeBinomial`.

    Args:
        event_shape: Shape E of one event.
        dispersion: r: a positive number (known), `Shared`, `PerFeature` or `Predicted`.
        exposure: Whether a positive covariate multiplies the means, as in `Poisson`. The gate
            does not depend on it.

    Raises:
        ValueError: If the dispersion is not positive, or its start value is below the floor.

    Example:
        >>> ZeroInflatedNegativeBinomial(3).shapes
        {'log_mean': torch.Size([3]), 'gate': torch.Size([3])}
    """
    plain = NegativeBinomial(event_shape, dispersion=dispersion, exposure=exposure)
    return replace(
        plain,
        name=f"ZeroInflated{plain.name}",
        shapes={**plain.shapes, "gate": plain.event_shape},
        distribution=partial(_zero_inflated, plain.distribution),
    )


def centred(top: int, x: Tensor) -> Tensor:
    """0 to `top` as −1 to 1.

    Example:
        >>> centred(16, torch.tensor([0.0, 8.0, 16.0]))
        tensor([-1.,  0.,  1.])
    """
    return 2 * x / top - 1


def _poisson(log_rate: Tensor, exposure: Tensor | None = None) -> distributions.Poisson:
    return distributions.Poisson(_offset(log_rate, exposure))


def _negative_binomial(
    log_mean: Tensor, dispersion: Tensor | float, exposure: Tensor | None = None
) -> distributions.NegativeBinomial:
    return distributions.NegativeBinomial(_offset(log_mean, exposure), dispersion)


def _zero_inflated(
    counts: Callable[..., TorchDistribution], gate: Tensor, **rest: Tensor
) -> distributions.ZeroInflated:
    return distributions.ZeroInflated(counts(**rest), gate)


def _offset(log_mean: Tensor, exposure: Tensor | None) -> Tensor:
    return log_mean if exposure is None else log_mean + exposure.log()


def _said(exposure: bool) -> str:
    return ", exposure=True" if exposure else ""
