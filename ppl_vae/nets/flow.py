"""Normalizing flows, as records that build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributions import Distribution

FlowBuilder = Callable[[int, int], nn.Module]
"""Anything that turns ``(features, context)`` into a flow of zuko, or into a module that is called
as one is: with a context ``(*B, context)``, or with nothing where `context` is 0."""


class NeuralSpline:
    """Builds a neural spline flow: monotone rational-quadratic splines, in coupling layers.

    Durkan et al. 2019 (arXiv:1906.04032), by zuko. A layer transforms half the features, and the
    other half given the first: drawing and scoring take a few passes of its network, whatever the
    number of features. Splines act on [−5, 5], and leave what is outside as it is. zuko is loaded
    when a flow is built: ``pip install 'ppl_vae[flows]'``.

    Args:
        transforms: Layers.
        hidden: Widths of the network in each layer.
        bins: Pieces of a spline.

    Raises:
        ValueError: If a number is not a positive integer, or, on building, zuko is missing.

    Example:
        >>> NeuralSpline(transforms=2)(3, 0)().sample().shape
        torch.Size([3])
    """

    def __init__(
        self, transforms: int = 3, hidden: tuple[int, ...] = (64, 64), bins: int = 8
    ) -> None:
        for name, value in {"transforms": transforms, "bins": bins}.items():
            if not _is_positive_integer(value):
                raise ValueError(f"Got {name}={value!r}; expected a positive integer. Try 3 or 8.")
        if not isinstance(hidden, tuple) or not all(map(_is_positive_integer, hidden)):
            raise ValueError(
                f"Got hidden={hidden!r}; expected a tuple of positive integers. Try (64, 64)."
            )
        self.transforms, self.hidden, self.bins = transforms, hidden, bins

    def __call__(self, features: int, context: int) -> nn.Module:
        """Build a flow over vectors of `features`, given vectors of `context`."""
        with validation_kept():
            try:
                import zuko.flows
            except ImportError as error:
                raise ValueError(
                    f"Got a flow to build without zuko ({error}); expected the package that has "
                    "it. Try pip install 'ppl_vae[flows]'."
                ) from error
        return zuko.flows.NSF(
            features,
            context,
            bins=self.bins,
            transforms=self.transforms,
            hidden_features=self.hidden,
            passes=2,
        )

    def __repr__(self) -> str:
        return f"NeuralSpline({self.transforms}, hidden={self.hidden}, bins={self.bins})"


def built_flow(builder: FlowBuilder, features: int, context: int) -> nn.Module:
    """Build a flow, and refuse what is none.

    Raises:
        ValueError: If `builder` gives no module, or one that returns no distribution over
            vectors of `features` that can be drawn from with gradients.
    """
    good = callable(builder) and not isinstance(builder, nn.Module)
    if not good or not _is_positive_integer(features):
        raise ValueError(
            f"Got a flow of {features!r} features from {builder!r}; expected a positive integer, "
            "and a builder (features, context) -> flow. Try NeuralSpline(), or lambda features, "
            "context: zuko.flows.MAF(features, context)."
        )
    with validation_kept():  # the builder may be the first to import zuko
        flow = builder(features, context)
    found, cause = None, None
    if isinstance(flow, nn.Module):
        try:
            with torch.no_grad():
                found = flow(torch.zeros(context)) if context else flow()
        except (TypeError, ValueError, RuntimeError) as error:  # one that is called otherwise
            cause = error
    if (
        not isinstance(found, Distribution)
        or found.event_shape != (features,)
        or not found.has_rsample
    ):
        got = f"events {tuple(found.event_shape)}" if isinstance(found, Distribution) else "none"
        raise ValueError(
            f"Got a {type(flow).__name__} from the flow's builder, whose distribution has {got}; "
            f"expected a module that returns one over ({features},), drawn with gradients. Try "
            "lambda features, context: zuko.flows.MAF(features, context)."
        ) from cause
    return flow


@contextmanager
def validation_kept() -> Iterator[None]:
    """Leave torch's check of distributions switched as it is: importing zuko turns it off."""
    kept = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(kept)


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
