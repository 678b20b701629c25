"""How good imputations are, on cells that are known and hidden for the purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ppl_vae.data.batches import Batch
from ppl_vae.diagnostics import imputation_error
from ppl_vae.diagnostics.arrays import Floats
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.impute import Imputation, impute, levels_of
from ppl_vae.posterior.refine import Refined
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.program import origin
from ppl_vae.programs.vae import VAE, family_of
from ppl_vae.programs.values import seen_values


@dataclass(frozen=True, eq=False)
class HeldOutCells:
    """What came of imputing cells whose values are known.

    Attributes:
        error: By column, ``(D,)``, between 0 and about 1 (see `imputation_error`).
        coverage: Share of the hidden values that their intervals hold, ``(D,)``; NaN where no cell
            was hidden, or where classes have no order. Of real numbers it should be the level, give
            or take √(level (1 − level) / cells); of counts and ordered classes that, or more.
        cells: How many cells were hidden, ``(D,)``.
        imputation: All that `impute` said, of these cells and those that were missing before.
    """

    error: Floats
    coverage: Floats
    cells: Floats
    imputation: Imputation

    def __repr__(self) -> str:
        said = f"{int(self.cells.sum())} cells held out: mean error {np.nanmean(self.error):.3f}"
        ordered = ~np.isnan(self.coverage)
        if not ordered.any():
            return said
        inside = np.average(self.coverage[ordered], weights=self.cells[ordered])
        level = 100 * self.imputation.level
        return f"{said}, {100 * inside:.0f} % in their {level:.0f} % intervals"


@explained
def held_out_cells(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    share: float = 0.1,
    num_samples: int = 500,
    level: float = 0.9,
    seed: int = 0,
) -> HeldOutCells:
    """Hide some cells that are seen, impute them, and compare with what they were.

    Args:
        program: A `VAE`, or one with a guide of `refit_guide`, on data with missing cells.
        x: Data as `fit` takes them, best rows that took no part in training.
        share: Of the cells that are seen, hidden at random.
        num_samples: Draws of z per datum.
        level: Nominal coverage of the intervals.
        seed: Of the cells hidden and of all draws; torch's random state is left as found.

    Raises:
        NoDensityError: Where there are no weights.
        ValueError: If `share` is not between 0 and 1, or the program is none whose cells can be
            hidden.

    Example:
        >>> from ppl_vae import MLP, VAE, Conditional, Normal, StandardNormal
        >>> vae = VAE(
        ...     StandardNormal(1),
        ...     Conditional(MLP(), Normal(3, scale=0.5), given=1),
        ...     Conditional(MLP(), Normal(1), given={"x": 3, "mask": 3}),
        ... )
        >>> held_out_cells(vae, torch.randn(100, 3), num_samples=50).error.shape
        (3,)
    """
    if not 0 < share < 1:
        raise ValueError(f"Got share={share!r}; expected a number between 0 and 1. Try 0.1.")
    if isinstance(program, Refined):
        raise ValueError(
            "Got a program whose guide was refined for these very cells; expected one that has not "
            "seen them. Try held_out_cells(program.source, x)."
        )
    source = origin(program)
    if not isinstance(source, VAE):
        raise ValueError(
            f"Got a {type(program).__name__}; expected a VAE, whose model takes a mask. Try "
            "impute(program, data) with a mask of your own."
        )
    batch = program_batch(program, x, name="x")
    (values,) = batch.args
    seen = batch.kwargs.get("mask", torch.ones_like(values, dtype=torch.bool))
    chosen = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed)) < share
    chosen = chosen.to(seen.device) & seen
    if not chosen.any():
        raise ValueError(
            f"Got share={share} of {int(seen.sum())} cells that are seen, of which none was drawn; "
            "expected some. Try 0.5, or more rows."
        )
    # Filled, as what is missing is before a guide is fitted: a network may not ask for the mask.
    filled, _ = seen_values(source.decoder, values, seen & ~chosen)
    gappy = Batch((filled,), {**batch.kwargs, "mask": seen & ~chosen})
    found = impute(program, gappy, num_samples, level=level, seed=seed)
    known = values.where(seen, torch.nan)  # fillers are no data
    truth, hidden = known.double().cpu().numpy(), chosen.cpu().numpy()
    flat = (len(truth), -1)
    inside = (found.lower <= truth) & (truth <= found.upper) & hidden
    cells = hidden.reshape(flat).sum(0)
    levels = levels_of(program)
    kinds = [levels] * len(cells) if isinstance(levels, str) else list(levels)
    with np.errstate(invalid="ignore"):
        coverage = inside.reshape(flat).sum(0) / cells
    coverage[[k == "nominal" for k in kinds]] = np.nan
    return HeldOutCells(
        error=imputation_error(
            truth.reshape(flat),
            found.point.reshape(flat),
            hidden.reshape(flat),
            kinds,
            classes=_classes(program, len(cells)),
        ),
        coverage=coverage,
        cells=cells.astype(np.float64),
        imputation=found,
    )


def _classes(program: nn.Module, columns: int) -> list[int | None]:
    """How many classes each column has, where it has classes."""
    if (family := family_of(program)) is None:
        return [None] * columns
    families = family.columns or (family,) * columns
    bounds = [getattr(f.support, "upper_bound", None) for f in families]
    return [
        int(top) + 1 if f.level == "ordinal" and top is not None else None
        for f, top in zip(families, bounds, strict=True)
    ]
