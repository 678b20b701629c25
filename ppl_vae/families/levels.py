"""Families whose cells are levels of a measured quantity, such as the pixels of a grey image."""

from __future__ import annotations

from functools import partial

from torch.distributions import constraints

from ppl_vae import distributions
from ppl_vae.conditional import EventShape, Family, event_size
from ppl_vae.families.counts import centred
from ppl_vae.families.scale import Predicted, Scale, positive

MIN_SCALE = 1e-3
"""The floor of a learned scale: an eighth of a step of 256 levels."""


def DiscretisedLogistic(
    event_shape: EventShape,
    *,
    levels: int = 256,
    scale: Scale = Predicted(),  # noqa: B008
) -> Family:
    """Independent cells in {0, …, levels − 1}: a logistic density, rounded to the nearest level.

    In units in which the levels reach from −1 to 1, y = 2x / (levels − 1) − 1 and half a step is
    h = 1 / (levels − 1), the mass is

        P(x) = sigmoid((y + h − loc) / scale) − sigmoid((y − h − loc) / scale),

    where the first level takes all that is below it, and the last all above (Salimans et al. 2017,
    arXiv:1701.05517, section 2.1, one component). A learned scale is ``1e-3 + softplus(raw)``;
    masses are at most 1, so the floor keeps digits, not the likelihood, bounded.

    Images are often scored in bits per dim: −log P(x) / (D log 2) of an image of D cells. That
    is a mass of the levels; a density of grey values in [0, 1] is another number.

    Args:
        event_shape: Shape E of one event.
        levels: How many values a cell can take: 256 for 8-bit images.
        scale: In the units above: a positive number (known), `Shared`, `PerFeature` or `Predicted`.

    Raises:
        ValueError: If `levels` is not an integer above 1, or the scale is not positive.

    Example:
        >>> import torch
        >>> black = DiscretisedLogistic(4)(loc=torch.full((4,), -1.0), scale=torch.full((4,), -9.0))
        >>> black.log_prob(torch.zeros(4)).exp()
        tensor(0.8868)
    """
    shape = event_size(event_shape)
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
        raise ValueError(
            f"Got levels={levels!r}; expected an integer above 1: values are 0 to levels − 1. "
            "Try levels=256 for 8-bit images."
        )
    spread = positive("scale", scale, shape, MIN_SCALE)
    return Family(
        name=f"DiscretisedLogistic({tuple(shape)}, levels={levels}, scale={scale})",
        event_shape=shape,
        shapes={"loc": shape} | spread.shapes,
        distribution=partial(distributions.DiscretisedLogistic, levels=levels, **spread.known),
        support=constraints.integer_interval(0, levels - 1),
        measure="mass",
        transforms=spread.transforms,
        shared=spread.shared,
        features=partial(centred, levels - 1),
    )
