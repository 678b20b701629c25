"""Families of vectors whose cells depend on each other: Normals with full or low-rank covariance.

As likelihoods they model what is left between the cells of x given z; as guides, the correlations
of the posterior.
"""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.utils import vec_to_tril_matrix

from ppl_vae.conditional import EventShape, Family, event_size
from ppl_vae.families.scale import above, must_be_positive


def MultivariateNormal(event_shape: EventShape, *, min_scale: float = 1e-3) -> Family:
    """A Normal with full covariance Σ = L Lᵀ, loc and the Cholesky factor L predicted.

    The diagonal of L is ``min_scale + softplus(raw)``.

    Args:
        event_shape: D or ``(D,)``: a vector. Flatten an image in the data to use it.
        min_scale: The floor of the diagonal of L.

    Raises:
        ValueError: If the event is not a vector, or the floor is not positive.

    Example:
        >>> q = MultivariateNormal(3)
        >>> q(loc=torch.zeros(5, 3), scale_tril=torch.zeros(5, 6)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """
    shape = _vector(event_shape)
    must_be_positive("min_scale", min_scale)
    return Family(
        name=f"MultivariateNormal({shape[0]})",
        event_shape=shape,
        shapes={"loc": shape, "scale_tril": Size([shape[0] * (shape[0] + 1) // 2])},
        distribution=dist.MultivariateNormal,
        support=constraints.real,
        measure="density",
        transforms={"scale_tril": partial(_lower, min_scale)},
        min_scale=min_scale,
    )


def LowRankMultivariateNormal(
    event_shape: EventShape, *, rank: int, min_scale: float = 1e-3
) -> Family:
    """A Normal with covariance Σ = S (I + V Vᵀ) S: a diagonal S and a factor V, both predicted.

    V is ``(D, rank)``, S is ``min_scale + softplus(raw)``: D (rank + 2) outputs of the network, in
    place of D (D + 3) / 2 for a full covariance, and a log density in D rank² operations. Every Σ
    of a diagonal plus a matrix of that rank is of this form; measured in units of S, the matrix
    that has to be factored, I + Vᵀ V, keeps its digits however small S is.

    Args:
        event_shape: D or ``(D,)``: a vector. Flatten an image in the data to use it.
        rank: Of V, from 1 to D.
        min_scale: The floor of the diagonal of S.

    Raises:
        ValueError: If the event is not a vector, the rank is not from 1 to D, or the floor is not
            positive.

    Example:
        >>> q = LowRankMultivariateNormal(30, rank=2)
        >>> d = q(loc=torch.zeros(30), scale=torch.zeros(30), factor=torch.zeros(30, 2))
        >>> d.event_shape
        torch.Size([30])
    """
    shape = _vector(event_shape)
    must_be_positive("min_scale", min_scale)
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= shape[0]:
        raise ValueError(
            f"Got rank={rank!r} for {shape[0]} cells; expected an integer from 1 to {shape[0]}. "
            "Try rank=1, or MultivariateNormal for a full covariance."
        )
    return Family(
        name=f"LowRankMultivariateNormal({shape[0]}, rank={rank})",
        event_shape=shape,
        shapes={"loc": shape, "scale": shape, "factor": Size([shape[0], rank])},
        distribution=_low_rank,
        support=constraints.real,
        measure="density",
        transforms={"scale": partial(above, min_scale)},
        min_scale=min_scale,
    )


def _vector(event_shape: EventShape) -> Size:
    shape = event_size(event_shape)
    if len(shape) != 1:
        raise ValueError(
            f"Got the event shape {tuple(shape)}; expected one dimension: a covariance needs a "
            "vector. Try Normal, or flatten the data."
        )
    return shape


def _lower(floor: float, raw: Tensor) -> Tensor:
    matrix = vec_to_tril_matrix(raw)
    diagonal = torch.diagonal(matrix, dim1=-2, dim2=-1)
    return matrix.tril(-1) + torch.diag_embed(above(floor, diagonal))


def _low_rank(loc: Tensor, scale: Tensor, factor: Tensor) -> dist.LowRankMultivariateNormal:
    return dist.LowRankMultivariateNormal(loc, scale.unsqueeze(-1) * factor, scale.square())
