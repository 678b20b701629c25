"""The noun of the library: a module that returns a distribution.

The prior p(z), the decoder p(x|z) and the encoder q(z|x) are all this one thing. A prior is
the noun without a context; `Conditional` is the noun made of a network and a `Family`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

EventShape = int | Sequence[int]
"""The shape of one event: ``10`` is ``(10,)``, ``(28, 28)`` is an image, ``()`` a scalar."""

NetBuilder = Callable[..., nn.Module]
"""Anything that turns ``(in_features, out_features)`` into a module, such as `ppl_vae.MLP`."""


def event_size(shape: EventShape) -> Size:
    """Give an event shape as a `torch.Size`.

    Args:
        shape: An int D (the shape ``(D,)``) or a sequence of ints.

    Raises:
        ValueError: If a dimension is not a positive integer.

    Example:
        >>> event_size(3), event_size((28, 28))
        (torch.Size([3]), torch.Size([28, 28]))
    """
    dims = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    if any(isinstance(d, bool) or not isinstance(d, Integral) or d < 1 for d in dims):
        raise ValueError(
            f"Got the event shape {shape!r}; expected positive integers. "
            "Try 10 for a vector of 10, or (28, 28) for an image."
        )
    return Size(int(d) for d in dims)


@runtime_checkable
class DistributionModule(Protocol):
    """The contract of the noun: ``module(*context)`` gives a distribution.

    Its ``batch_shape`` is that of the context without the event dims; ``event_shape`` is declared.
    """

    event_shape: Size

    def __call__(self, *context: Tensor) -> TorchDistribution:
        """Return p(. | context)."""
        ...


@dataclass(frozen=True, eq=False)
class Family:
    """A family of distributions as one record: what a network must predict, and what it means.

    Args:
        name: How it prints, arguments included.
        event_shape: Shape E of one event.
        shapes: Shape of each *unconstrained* parameter that the network predicts.
        distribution: The constrained parameters, by name, to a distribution. Cells that come
            out as batch dims are declared independent.
        support: Where one cell of the event may lie.
        measure: "density", "mass", "mixed" (a table: a density in some cells times a mass of the
            others), or "point" (a Delta: no density at all).
        transforms: Unconstrained to constrained, by parameter; the identity where absent.
        shared: Start values of unconstrained parameters that are learned but not predicted.
        min_scale: The floor of a learned scale, which is part of the model; None without one.
        needs: Covariates that `distribution` takes as they are, past the network, by name, and
            where they may lie: an exposure is positive. Their shapes ``(*B, *S)`` end in one, S,
            that broadcasts to the event.
        filler: A value that stands where a cell is missing, inside the support: a number, or a
            tensor that broadcasts to the event. What it is changes no result.
        level: What a cell measures: a "numeric" quantity, "ordinal" or "nominal" classes. Cells
            that are missing are imputed by it: by a mean, a median, the most probable class.
        features: What a network should see in place of cells: ``(*B, *E)`` to the same shape, or
            to ``(*B, *E, W)`` (classes one-hot, say). None where that is the cells themselves.
        columns: The families of the columns of a table, in order; empty for any other.
        column_names: Their names, which a DataFrame must have, in this order.

    Example:
        A family of one's own takes six lines:

        >>> import pyro.distributions as dist
        >>> from torch.nn.functional import softplus
        >>> exponential = Family(
        ...     name="Exponential(3)",
        ...     event_shape=Size([3]),
        ...     shapes={"rate": Size([3])},
        ...     distribution=dist.Exponential,
        ...     transforms={"rate": softplus},
        ...     support=constraints.nonnegative,
        ...     measure="density",
        ... )
        >>> exponential(rate=torch.zeros(5, 3)).batch_shape
        torch.Size([5])
    """

    name: str
    event_shape: Size
    shapes: Mapping[str, Size]
    distribution: Callable[..., TorchDistribution]
    support: constraints.Constraint
    measure: Literal["density", "mass", "mixed", "point"]
    transforms: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    shared: Mapping[str, Tensor] = field(default_factory=dict)
    min_scale: float | None = None
    needs: Mapping[str, constraints.Constraint] = field(default_factory=dict)
    filler: float | Tensor = 0.0
    level: Literal["numeric", "ordinal", "nominal"] = "numeric"
    features: Callable[[Tensor], Tensor] | None = None
    columns: tuple[Family, ...] = ()
    column_names: tuple[str, ...] = ()

    def as_features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Give events as a network should see them: ``(*B, *E)`` to ``(*B, F)``.

        Args:
            x: Events.
            mask: ``(*B, *E)`` bool; features of cells where it is False are 0.
        """
        if self.columns:
            masks = [None if mask is None else mask[..., d] for d in range(len(self.columns))]
            cells = zip(self.columns, x.unbind(-1), masks, strict=True)
            return torch.cat([f.as_features(cell, seen) for f, cell, seen in cells], -1)
        if mask is not None:
            filler = self.filler.to(x) if isinstance(self.filler, Tensor) else self.filler
            x = torch.where(mask, x, filler)
        found = x if self.features is None else self.features(x)
        found = found.reshape(*x.shape, -1)
        if mask is not None:
            found = torch.where(mask[..., None], found, 0.0)
        return found.reshape(*x.shape[: x.dim() - len(self.event_shape)], -1)

    def __call__(self, **raw: Tensor) -> TorchDistribution:
        """Build the distribution from unconstrained parameters of shape ``(*B, *shape)``."""
        built = self.distribution(
            **{k: self.transforms[k](v) if k in self.transforms else v for k, v in raw.items()}
        )
        return built.to_event(len(self.event_shape) - len(built.event_shape))

    def __repr__(self) -> str:
        return self.name


def declared_family(part: nn.Module) -> Family | None:
    """Give the family that a part says it is of; None of one that does not say.

    Example:
        >>> from ppl_vae import MLP, Normal
        >>> declared_family(Conditional(MLP(), Normal(2), given=1)), declared_family(nn.Identity())
        (Normal((2,), scale=Predicted()), None)
    """
    family = getattr(part, "family", None)  # a part of one's own may call anything so
    return family if isinstance(family, Family) else None


class Conditional(nn.Module):
    """A network whose outputs are the unconstrained parameters of a family: p(y | context).

    Args:
        net: A builder ``(in_features, out_features) -> nn.Module``. The network is sized to
            fit: swapping the family changes one argument, never the network.
        family: The distribution of y, such as ``Bernoulli((28, 28))``.
        given: The event shape of the context: an int, a tuple, or a *list* of them for
            several contexts. A *dict* names them, ``{"z": 2, "dose": 1}``: a program passes each
            part what it names, so this is how covariates and masks reach a part.
        flatten: The net sees ``(B, in_features)``. With False it is built as
            ``net(shape, out_features)`` and sees ``(B, *shape)``, as convolutions want.

    Shapes:
        Each context is ``(*B, *given)``, batches broadcast; the result has ``batch_shape == B``
        and ``event_shape == family.event_shape``.

        What the family `needs` comes by keyword, ``decoder(z, exposure=size)``.

    Raises:
        ValueError: If `net` is not a builder, or a context does not fit `given`.

    Example:
        >>> from ppl_vae import MLP, Bernoulli
        >>> decoder = Conditional(MLP(16), Bernoulli((4, 4)), given=2)
        >>> decoder(torch.zeros(7, 2)).log_prob(torch.ones(7, 4, 4)).shape
        torch.Size([7])
    """

    def __init__(
        self,
        net: NetBuilder,
        family: Family,
        given: EventShape | list[Any] | Mapping[str, EventShape],
        *,
        flatten: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(net, nn.Module) or not callable(net):
            raise ValueError(
                f"Got a {type(net).__name__} as net; expected a builder that is called with "
                "(in_features, out_features) and returns a module, so that it can be sized to "
                "the family. Try MLP(400), or lambda i, o: YourModule(i, o)."
            )
        if not _takes_two(net):
            raise ValueError(
                f"Got net={net!r}, which does not take two arguments; expected a builder that is "
                "called with (in_features, out_features). Try lambda i, o: YourModule(i, o)."
            )
        if not isinstance(family, Family):
            raise ValueError(
                f"Got {family!r} as family; expected a Family record. "
                "Try Bernoulli(784), Normal(784) or another of ppl_vae.families."
            )
        self.family = family
        self.inputs: tuple[str, ...] | None = None
        if isinstance(given, Mapping):
            self.inputs, given = tuple(given), list(given.values())
        self.given = [event_size(s) for s in (given if isinstance(given, list) else [given])]
        if not self.given:
            raise ValueError(
                "Got given=[], no context; expected the event shape of one or more. Try given=2 "
                "for a vector of 2."
            )
        self.flatten = flatten
        self.out_features = sum(s.numel() for s in family.shapes.values())
        if flatten:
            self.net = net(sum(s.numel() for s in self.given), self.out_features)
        elif len(self.given) == 1:
            self.net = net(self.given[0], self.out_features)
        else:
            raise ValueError(
                f"Got flatten=False with {len(self.given)} contexts; expected one, whose shape "
                "the net keeps. Try flatten=True, or join the contexts inside the net."
            )
        if not isinstance(self.net, nn.Module):
            raise ValueError(
                f"Got a {type(self.net).__name__} from the net builder; expected an nn.Module, "
                "or its parameters are never trained. Try wrapping it in a module; a class such "
                "as MLP is given as an instance, MLP(400)."
            )
        self.shared = nn.ParameterDict(
            {k: nn.Parameter(v.clone()) for k, v in family.shared.items()}
        )

    @property
    def event_shape(self) -> Size:
        """Shape of one event of the distribution returned."""
        return self.family.event_shape

    def forward(self, *context: Tensor, **needs: Tensor) -> TorchDistribution:
        """Return p(y | context)."""
        if set(needs) != set(self.family.needs):
            raise ValueError(
                f"Got {sorted(needs) or 'nothing'} by keyword; expected "
                f"{list(self.family.needs) or 'nothing'}, as {self.family} says. Try "
                f"{', '.join(f'{n}=...' for n in self.family.needs) or 'the contexts alone'}."
            )
        batch, flat = self._flat(context)
        out = self.net(flat)
        if not isinstance(out, Tensor) or out.shape != (flat.shape[0], self.out_features):
            known = isinstance(out, Tensor)
            got = f"shape {tuple(out.shape)}" if known else f"a {type(out).__name__}"
            raise ValueError(
                f"Got {got} from the net; {self.family} of {flat.shape[0]} rows expected shape "
                f"{(flat.shape[0], self.out_features)}. Try a builder that uses its second "
                "argument, out_features, and whose module returns one tensor."
            )
        pieces = out.split([s.numel() for s in self.family.shapes.values()], dim=-1)
        raw = {
            name: piece.reshape(batch + shape)
            for (name, shape), piece in zip(self.family.shapes.items(), pieces, strict=True)
        }
        return self.family(**raw, **self.shared, **needs)

    def _flat(self, context: tuple[Tensor, ...]) -> tuple[Size, Tensor]:
        # One flat batch dim for the net: a raw BatchNorm given (S, B, D) normalises the wrong axis.
        batch, rows = rows_of(context, self.given)
        if not self.flatten:
            return batch, rows[0]
        rows = [r.reshape(len(r), s.numel()) for r, s in zip(rows, self.given, strict=True)]
        return batch, rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)

    def extra_repr(self) -> str:
        """Say which family is conditioned on what."""
        shapes = [tuple(s) for s in self.given]
        named = shapes if self.inputs is None else dict(zip(self.inputs, shapes, strict=True))
        return f"{self.family}, given={named}"


def rows_of(context: Sequence[Tensor], given: Sequence[Size]) -> tuple[Size, list[Tensor]]:
    """Give contexts that broadcast against each other as rows of one flat batch.

    Args:
        context: Tensors, each ``(*B, *S)`` with the batches B broadcasting.
        given: The event shape S of each.

    Returns:
        The common batch shape, and each context as ``(B.numel(), *S)``.

    Raises:
        ValueError: If one does not fit its shape, or the batches do not broadcast.

    Example:
        >>> contexts, given = [torch.zeros(3, 1, 2), torch.zeros(4, 5)], [Size([2]), Size([5])]
        >>> batch, (z, c) = rows_of(contexts, given)
        >>> batch, z.shape, c.shape
        (torch.Size([3, 4]), torch.Size([12, 2]), torch.Size([12, 5]))
    """
    if len(context) != len(given):
        raise ValueError(
            f"Got {len(context)} contexts; expected {len(given)}, of event shapes "
            f"{[tuple(s) for s in given]}. Try given= with one shape for each."
        )
    batches = []
    for value, shape in zip(context, given, strict=True):
        if not isinstance(value, Tensor):
            raise ValueError(
                f"Got a {type(value).__name__} as context; expected a tensor. "
                "Try torch.as_tensor(...)."
            )
        split = value.dim() - len(shape)
        if split < 0 or value.shape[split:] != shape:
            raise ValueError(
                f"Got a context of shape {tuple(value.shape)}; expected (*batch, "
                f"{', '.join(map(str, shape))}). Try given= with the event shape of the input."
            )
        batches.append(value.shape[:split])
    try:
        batch = torch.broadcast_shapes(*batches)
    except RuntimeError as error:
        raise ValueError(
            f"Got contexts of batch shapes {[tuple(b) for b in batches]}; expected ones that "
            "broadcast. Try one row per datum in each."
        ) from error
    rows = [
        value.expand(batch + shape).reshape(batch.numel(), *shape)
        for value, shape in zip(context, given, strict=True)
    ]
    return batch, rows


def _takes_two(builder: NetBuilder) -> bool:
    try:
        inspect.signature(builder).bind(1, 1)
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature: try it
        return True
    return True
