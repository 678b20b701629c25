"""Predictive checks: does the model make data like these?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ppl_vae.diagnostics.calibration import Calibration, calibration
from ppl_vae.diagnostics.ranks import ranks
from ppl_vae.posterior.draws import as_array, observed_values, prior_of_data
from ppl_vae.posterior.faults import explained
from ppl_vae.programs.inputs import program_batch

Floats = NDArray[np.float64]
Discrepancy = Callable[[Floats], Floats]
"""Turns data ``(M, *event)`` into a number for each, ``(M,)``; NaN is where a cell is missing."""

COLUMNS = 20
"""Cells of data with up to this many are checked one by one."""


@explained
def prior_check(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    discrepancies: Mapping[str, Discrepancy] | None = None,
    *,
    num_draws: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Rank T(x) of each datum among T of data that the model makes: is p(x) that of the data?

    The ranks are those of the probability integral transform (PIT), at random among equal values
    (Czado et al. 2009, Predictive model assessment for count data): uniform for every T if the
    data, of which x should have no part in training, have the law p(x). A test with an exact level;
    what it says is of the model, and the guide has no part in it. Single cells see little of a
    noise that is small beside what z moves: see `typicality`.

    Args:
        program: A `VAE` or `Program`.
        x: Held-out data, as `fit` takes them.
        discrepancies: By name, functions of data ``(M, *event)`` to ``(M,)``, NaN in gaps; without
            them each cell where there are 20 or fewer, and else the mean of the cells, their
            standard deviation, their largest and the share that are 0.
        num_draws: Data S that the model makes for each datum, under its covariates.
        level: Of the bands.
        seed: Of all draws; torch's random state is left as found.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(200, seed=1)
        >>> program = Program(world.model, world.guide)
        >>> prior_check(program, x).p_value > 0.01, prior_check(program, 2 * x).p_value < 1e-6
        (True, True)
    """
    batch = program_batch(program, x, name="x")
    drawn = prior_of_data(program, batch, num_draws, seed=seed).data
    found: dict[str, NDArray[np.int64]] = {}
    observed = observed_values(program, batch)
    for site, value in observed.items():
        x_site = as_array(value)
        made = as_array(drawn[site])
        made = np.where(np.isnan(x_site), np.nan, made)
        chosen = usual_discrepancies(x_site.shape[1:]) if discrepancies is None else discrepancies
        for name, function in chosen.items():
            one = _numbers(function(x_site), name, len(x_site))
            many = np.stack([_numbers(function(draw), name, len(x_site)) for draw in made])
            known = ~np.isnan(one)
            if known.any():
                label = name if len(observed) == 1 else f"{site}: {name}"
                own = ranks(one[known, None], many[:, known, None], seed=seed + len(found))
                found[label] = own[:, 0]
    return calibration(found, num_draws=num_draws, level=level)


def usual_discrepancies(event: tuple[int, ...]) -> dict[str, Discrepancy]:
    """What is looked at where nobody says: each cell of few; of many, four numbers a datum."""
    cells = int(np.prod(event))
    if cells <= COLUMNS:
        return {_cell(event, k): _taking(k) for k in range(cells)}

    def flat(function: Callable[..., Any]) -> Discrepancy:
        return lambda x: function(x.reshape(len(x), -1), axis=1)

    def zeros(x: Floats, axis: int) -> Floats:
        share: Floats = np.nanmean(np.where(np.isnan(x), np.nan, x == 0), axis=axis)
        return share

    named: dict[str, Callable[..., Any]] = {
        "mean": np.nanmean,
        "sd": np.nanstd,
        "largest": np.nanmax,
        "share of 0": zeros,
    }
    return {name: flat(function) for name, function in named.items()}


def _cell(event: tuple[int, ...], k: int) -> str:
    place = ", ".join(map(str, np.unravel_index(k, event))) if event else ""
    return f"x[{place}]" if place else "x"


def _taking(k: int) -> Discrepancy:
    return lambda x: x.reshape(len(x), -1)[:, k]


def _numbers(value: Any, name: str, rows: int) -> Floats:  # noqa: ANN401
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (rows,):
        raise ValueError(
            f"Got shape {array.shape} from the discrepancy {name!r}; expected ({rows},), a number "
            "for each datum. Try axis=1, or .reshape(len(x), -1) first."
        )
    return array
