"""Families whose cells are one of K classes, 0 to K − 1, with an order or without."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl_vae import distributions
from ppl_vae.conditional import EventShape, Family, event_size
from ppl_vae.families.scale import above, inverse_softplus

MIN_GAP = 1e-3
"""The floor of the gap between cutpoints: no class between two others has probability 0."""


def Categorical(event_shape: EventShape, *, classes: int) -> Family:
    """Independent cells in {0, …, K − 1}: x_d ~ Categorical(softmax(logits_d)).

    Args:
        event_shape: Shape E of one event.
        classes: K, the same for every cell.

    Raises:
        ValueError: If `classes` is not an integer above 1.

    Example:
        >>> Categorical(2, classes=5)(logits=torch.zeros(2, 5)).log_prob(torch.zeros(2)).exp()
        tensor(0.0400)
    """
    shape = event_size(event_shape)
    _must_be_classes(classes)
    return Family(
        name=f"Categorical({tuple(shape)}, classes={classes})",
        event_shape=shape,
        shapes={"logits": Size([*shape, classes])},
        distribution=_categorical,
        support=constraints.integer_interval(0, classes - 1),
        measure="mass",
        level="nominal",
        features=partial(_one_hot, classes),
    )


def Ordinal(event_shape: EventShape, *, classes: int) -> Family:
    """Independent cells in {0, …, K − 1} with an order: P(x_d ≤ k) = sigmoid(cutpoint_dk − loc_d).

    The cumulative logit, or proportional odds, model (McCullagh 1980): the network predicts one loc
    a cell, where a `Categorical` takes K logits. The K − 1 cutpoints of a cell are learned, the
    same for every context: the first and then gaps of ``1e-3 + softplus(raw)``, so that they are in
    order and no class has probability 0. At the start, all classes are equally likely at loc 0.

    Args:
        event_shape: Shape E of one event.
        classes: K, the same for every cell.

    Raises:
        ValueError: If `classes` is not an integer above 1.

    Example:
        >>> grades = Ordinal((), classes=5)
        >>> grades(loc=torch.tensor(0.0), **grades.shared).log_prob(torch.tensor(4.0)).exp()
        tensor(0.2000)
    """
    shape = event_size(event_shape)
    _must_be_classes(classes)
    cutpoints = torch.logit(torch.arange(1, classes, dtype=torch.float64) / classes)
    gaps = [inverse_softplus(gap - MIN_GAP) for gap in cutpoints.diff().tolist()]
    start = torch.tensor([cutpoints[0].item(), *gaps])
    return Family(
        name=f"Ordinal({tuple(shape)}, classes={classes})",
        event_shape=shape,
        shapes={"loc": shape},
        distribution=distributions.CumulativeLogit,
        support=constraints.integer_interval(0, classes - 1),
        measure="mass",
        transforms={"cutpoints": _in_order},
        shared={"cutpoints": start.expand(*shape, -1).clone()},
        level="ordinal",
        features=partial(torch.mul, other=1 / (classes - 1)),
    )


def _categorical(logits: Tensor) -> dist.Categorical:
    return dist.Categorical(logits=logits)


def _one_hot(classes: int, x: Tensor) -> Tensor:
    # torch's one_hot asks for the values, which a compiled step cannot tell.
    return (x[..., None] == torch.arange(classes, device=x.device)).to(x.dtype)


def _in_order(raw: Tensor) -> Tensor:
    return torch.cat([raw[..., :1], above(MIN_GAP, raw[..., 1:])], dim=-1).cumsum(-1)


def _must_be_classes(classes: int) -> None:
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ValueError(
            f"Got classes={classes!r}; expected an integer above 1: values are 0 to classes − 1. "
            "Try classes=int(x.max()) + 1."
        )
