"""Values of x: which are seen, whether the likelihood allows them, and which one would."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Size, Tensor, nn

from ppl_vae.conditional import Family, declared_family
from ppl_vae.data.batches import ROWS
from ppl_vae.programs.parts import event_of


def seen_values(
    decoder: nn.Module,
    x: Tensor,
    mask: Tensor | None,
    name: str = "x",
    columns: Sequence[str] = (),
) -> tuple[Tensor, Tensor | None]:
    """Check x against p(x|z), once, before anything is run on it; say what of it is missing.

    Args:
        decoder: p(x|z).
        x: ``(N, *E)``; NaN where a cell is missing.
        mask: ``(N, *E)``, 1 where a cell is seen; None where x says it itself.
        name: What the messages call x.
        columns: Names of its columns, where they are known.

    Returns:
        x, with a value of the support in place of what is missing, and the mask of the cells that
        are seen, None where all are.

    Raises:
        ValueError: If a value is infinite or outside the support, or x or mask has another shape
            than the decoder's events.
    """
    event = event_of(decoder, "decoder")
    if x.shape[1:] != event:
        raise ValueError(
            f"Got {name} of shape {tuple(x.shape)}; expected (N, "
            f"{', '.join(map(str, event))}), the decoder's events. Try {_reshaping(x, event)}"
        )
    family = declared_family(decoder)
    seen = _seen(x, mask, name, columns)
    if seen is not None:
        filler = 0.0 if family is None else family.filler
        filler = filler.to(x) if isinstance(filler, Tensor) else x.new_tensor(filler)
        if family is not None and not family.support.check(filler.expand(event)).all():
            raise ValueError(
                f"Got missing cells in {name} under {family}, whose filler lies outside its "
                "support; expected a value that may stand where nothing is known. Try "
                "Family(..., filler=1.0)."
            )
        x = torch.where(seen, x, filler)
    if not all(part.isfinite().all() for part in x.split(ROWS)):
        raise ValueError(
            f"Got {_first(~x.isfinite(), x, columns)} in {name}; expected finite numbers, and NaN "
            "where a cell is missing. Try x.masked_fill(x.isinf(), nan) if such cells are."
        )
    if family is not None and not all(family.support.check(part).all() for part in x.split(ROWS)):
        bad = ~family.support.check(x)
        if bad.shape != x.shape:  # a constraint of whole events
            bad = bad.reshape(-1, *[1] * len(event)).expand(x.shape)
        raise ValueError(
            f"Got {_first(bad, x, columns)} in {name}; expected values in the "
            f"support of {family}. Try {_proposal(x, seen, bad, family)}"
        )
    return x, seen


def _seen(x: Tensor, mask: Tensor | None, name: str, columns: Sequence[str]) -> Tensor | None:
    if mask is None:
        if not any(part.isnan().any() for part in x.split(ROWS)):
            return None
        return ~x.isnan()
    if mask.shape != x.shape:
        raise ValueError(
            f"Got a mask of shape {tuple(mask.shape)} for {name} of shape {tuple(x.shape)}; "
            "expected one number for each cell. Try mask.expand(x.shape)."
        )
    if not all(((part == 0) | (part == 1)).all() for part in mask.split(ROWS)):
        raise ValueError(
            f"Got {_first((mask != 0) & (mask != 1), mask, columns)} in the mask; expected 1 where "
            "a cell is seen and 0 where it is missing. Try ~x.isnan()."
        )
    seen = mask.bool()
    if any((a & b.isnan()).any() for a, b in zip(seen.split(ROWS), x.split(ROWS), strict=True)):
        raise ValueError(
            f"Got {_first(seen & x.isnan(), x, columns)} in {name} where the mask says that it is "
            "seen; expected a number. Try mask & ~x.isnan(); True means seen, not missing."
        )
    return None if bool(seen.all()) else seen


def _first(bad: Tensor, x: Tensor, columns: Sequence[str]) -> str:
    row, *cell = torch.nonzero(bad)[0].tolist()
    where = f"row {row}"
    if len(cell) == 1:
        named = repr(columns[cell[0]]) if len(columns) == x.shape[1] else str(cell[0])
        where += f", column {named}"
    elif cell:
        where += f", cell {tuple(cell)}"
    return f"{x[(row, *cell)].item():g} at {where} ({int(bad.sum())} such values)"


def _proposal(x: Tensor, seen: Tensor | None, bad: Tensor, family: Family) -> str:
    """Name a family whose support holds the data; of a table, those of the column at fault."""
    if family.columns:
        d = int(bad.nonzero()[0, 1])
        own = None if seen is None else seen[:, d]
        return f"for that column {_proposal(x[:, d], own, bad[:, d], family.columns[d])}"
    values = x if seen is None else x[seen]
    low, high = float(values.min()), float(values.max())
    whole = bool((values == values.round()).all())
    name = family.name.split("(")[0]
    if name == "Bernoulli" and len(values.unique()) == 2:
        return f"0 for {low:g} and 1 for {high:g}: (x > {low:g})."
    if name == "ContinuousBernoulli" and low >= 0 and not (whole and high < 128):
        top = 255 if whole and high <= 255 else high
        return f"x / {top:g}, if that is the largest value that there can be."
    if whole and low >= 0 and name in ("Categorical", "Ordinal"):
        return f"{name}(..., classes={int(high) + 1}): codes start at 0."
    if whole and low >= 0:
        counts = "Poisson(...) or NegativeBinomial(...) for counts"
        grey = "DiscretisedLogistic(...) for grey levels, " if high == 255 else ""
        return f"{grey}{counts}, or Binomial(..., total={int(high)}) if that total is known."
    if low >= 0 and high <= 1:
        return (
            "binarising (x > 0.5); or ContinuousBernoulli(...), or Normal(..., scale=Shared()), "
            "for grey values."
        )
    if whole:
        return "NaN for the negative numbers, if they stand for missing ones."
    if low > 0:
        return "LogNormal(...) for positive numbers, or Normal(..., scale=PerFeature())."
    mixed = x.dim() == 2 and not bool(bad.any(0).all())
    return "Normal(..., scale=PerFeature()) for real numbers" + (
        ", or Columns(...), a family for each column." if mixed else "."
    )


def _reshaping(x: Tensor, event: Size) -> str:
    """What makes events of x, without mixing up its cells."""
    if x.shape == event:
        return "x[None] for a single datum."
    if x.dim() == len(event) + 1 and sorted(x.shape[1:]) == sorted(event):
        return "x.permute(...): its axes are in another order."
    if x.dim() == 2 and len(x) == event.numel():
        return f"x.T: a datum is a row{'' if len(event) == 1 else ', reshaped then'}."
    if x.dim() == 1 and event.numel() == 1:
        return "x.reshape(-1, 1), or x.to_frame() of a Series."
    if x[0].numel() == event.numel():
        return f"x.reshape(-1, {', '.join(map(str, event))})."
    return f"a family and an encoder for events of shape {tuple(x.shape[1:])}."
