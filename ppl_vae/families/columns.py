"""A table: a family for each column."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ppl_vae.conditional import Family
from ppl_vae.distributions import Joint


def Columns(families: Mapping[str, Family]) -> Family:
    """One row of a table, its columns independent given the context, each of its own family.

    The network predicts the parameters of all columns; what columns share is learned by each.
    Where real columns stand beside counts or classes the measure is "mixed": a density in the
    former times a mass of the latter. Such log-probs are compared between models of the same
    columns in the same units, in which the same columns have densities, and with nothing else.
    Columns of large numbers are best `Standardised`, which keeps the units of the density.

    Args:
        families: By column, in the order of the data. Each is of a scalar event, such as
            ``Normal(())``. An exposure that one needs is ``(*B, 1)``, or ``(*B, D)`` for D columns.

    Raises:
        ValueError: If there is no column, one is no scalar family, or one has no log-prob.

    Example:
        >>> from ppl_vae import Categorical, Normal
        >>> people = Columns({"age": Normal(()), "work": Categorical((), classes=8)})
        >>> people.measure, people.event_shape
        ('mixed', torch.Size([2]))
        >>> people
        Columns(age: Normal((), scale=Predicted()), floor 0.001; work: Categorical((), classes=8))
    """
    for column, family in families.items():
        if not isinstance(family, Family) or family.event_shape or family.measure == "point":
            raise ValueError(
                f"Got {family!r} for the column {column!r}; expected a family of a scalar event "
                "that has a log-prob. Try Normal(()), with an empty event shape."
            )
    if not families:
        raise ValueError(
            "Got no columns; expected a family for each. Try Columns({'age': Normal(())})."
        )
    columns = tuple(families.values())
    measures = {family.measure for family in columns}
    measure: Literal["density", "mass", "mixed", "point"] = (
        measures.pop() if len(measures) == 1 else "mixed"
    )
    return Family(
        name=f"Columns({'; '.join(f'{c}: {_said(f)}' for c, f in families.items())})",
        event_shape=Size([len(columns)]),
        shapes={_name(d, n): s for d, f in enumerate(columns) for n, s in f.shapes.items()},
        distribution=partial(_joint, columns),
        support=constraints.stack([f.support for f in columns], -1),
        measure=measure,
        shared={_name(d, n): v for d, f in enumerate(columns) for n, v in f.shared.items()},
        needs={n: where for f in columns for n, where in f.needs.items()},
        filler=torch.tensor([float(f.filler) for f in columns]),
        columns=columns,
        column_names=tuple(map(str, families)),
    )


def _joint(columns: tuple[Family, ...], **raw: Tensor) -> Joint:
    parts = []
    for d, family in enumerate(columns):
        own = {n: raw[_name(d, n)] for n in (*family.shapes, *family.shared)}
        for need in family.needs:
            value = raw[need]
            own[need] = value.expand(*value.shape[:-1], len(columns))[..., d]
        parts.append(family(**own))
    return Joint(parts)


def _name(column: int, parameter: str) -> str:
    # Columns may be called anything; torch allows no dot in the name of a parameter.
    return f"{column}_{parameter}"


def _said(family: Family) -> str:
    floor = "" if family.min_scale is None else f", floor {family.min_scale:g}"
    return f"{family!r}{floor}"
