"""Predictive checks: does the model make data like these?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.diagnostics.calibration import Calibration, calibration
from ppl_vae.diagnostics.ranks import ranks
from ppl_vae.posterior.draws import (
    as_array,
    observed_arrays,
    positive,
    posterior_predictive,
    prior_of_data,
    with_plate,
)
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.given import data_at
from ppl_vae.programs.inputs import columns_of_training, program_batch
from ppl_vae.programs.masks import refuse_left_out

Floats = NDArray[np.float64]
Discrepancy = Callable[[Floats], Floats]
"""Turns data ``(M, *event)`` into a number for each, ``(M,)``; NaN is where a cell is missing."""

COLUMNS = 20
"""Cells of data with up to this many are checked one by one."""

CELLS = 2**23
"""Of draws that are held at a time."""


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
    data, of which x should have no part in training, have the law p(x), and cells are missing for
    no reason that lies in x. A test with an exact level;
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
    sites = with_plate(program, batch)
    if shared := sites.shared:
        raise ValueError(
            f"Got the latents {list(shared)}, which all data have in common; expected that each "
            "datum has its own, for ranks of data that share a draw are not independent. Try "
            "posterior_check."
        )
    refuse_left_out(program, batch, sites)
    positive(num_draws=num_draws)
    observed = observed_arrays(program, batch)
    drawn = (
        prior_of_data(program, batch, count, seed=start).data
        for count, start in _pieces(observed, num_draws, seed)
    )
    found: dict[str, NDArray[np.int64]] = {}
    for name, (one, many) in _measured(program, observed, drawn, discrepancies).items():
        found[name] = ranks(one[:, None], many[..., None], seed=seed + len(found))[:, 0]
    return calibration(found, num_draws=num_draws, level=level)


class PosteriorCheck(NamedTuple):
    """Mean discrepancies of the data beside those of replicated data sets, by name.

    Attributes:
        observed: mean_i T(x_i).
        replicated: The same of each replicated data set, ``(S,)``.
        effects: The effect size: observed less replicated mean, in standard deviations of T(x_i)
            over the data. 0.2 is small, 0.8 is large.
        p_values: Twice the smaller share of replicated data sets on one side of the data: the
            posterior predictive p-value. It has no level: the data have drawn their own z, so that
            it is seldom small under a model that is right, and not always under one that is wrong.
        spread_ratios: sd of T(x_i) over the data, by that over replicated data: above 1 what is
            replicated varies too little.
    """

    observed: Mapping[str, float]
    replicated: Mapping[str, Floats]
    effects: Mapping[str, float]
    p_values: Mapping[str, float]
    spread_ratios: Mapping[str, float]

    @property
    def worst(self) -> str:
        """The discrepancy with the largest effect."""
        return max(self.effects, key=lambda n: abs(self.effects[n]))

    def __repr__(self) -> str:
        return (
            f"PosteriorCheck({len(self.effects)} discrepancies; farthest {self.worst}: "
            f"{self.effects[self.worst]:+.2f} sd)"
        )


@explained
def posterior_check(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    discrepancies: Mapping[str, Discrepancy] | None = None,
    *,
    num_draws: int = 100,
    seed: int = 0,
) -> PosteriorCheck:
    """Compare mean_i T(x_i) with that of data drawn anew, x ~ p(x|z), z ~ q(z|x).

    *Posterior predictive assessment of model fitness via realized discrepancies* (Gelman, Meng and
    Stern, 1996): can the decoder make such data where the guide puts them? A large effect is a
    fault of likelihood or guide. A small one says less than `prior_check`, which is a test: here
    the data have been used to find z.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them.
        discrepancies: As in `prior_check`.
        num_draws: Replicated data sets S.
        seed: Of all draws; torch's random state is left as found.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(200, seed=1)
        >>> found = posterior_check(Program(world.model, world.guide), x)
        >>> abs(found.effects[found.worst]) < 0.2
        True
    """
    batch = program_batch(program, x, name="x")
    refuse_left_out(program, batch, with_plate(program, batch))
    positive(num_draws=num_draws)
    observed = observed_arrays(program, batch)
    drawn = (
        posterior_predictive(program, batch, count, seed=start).data
        for count, start in _pieces(observed, num_draws, seed)
    )
    return _compared(_measured(program, observed, drawn, discrepancies))


def posterior_check_at(
    program: nn.Module, batch: Batch, latents: Mapping[str, Tensor], *, seed: int
) -> PosteriorCheck:
    """Check with draws of q(z|x) that are there already, ``(S, N, *event)``."""
    left = {n: iter(v) for n, v in latents.items()}
    observed = observed_arrays(program, batch)
    pieces = _pieces(observed, len(next(iter(latents.values()))), seed)
    drawn = (
        data_at(
            program,
            batch,
            {n: torch.stack([next(v) for _ in range(count)]) for n, v in left.items()},
            seed=start,
        ).data
        for count, start in pieces
    )
    return _compared(_measured(program, observed, drawn, None))


def _compared(measured: Mapping[str, tuple[Floats, Floats]]) -> PosteriorCheck:
    observed, means, effects, p_values, spreads = {}, {}, {}, {}, {}
    for name, (one, many) in measured.items():
        observed[name], means[name] = float(one.mean()), many.mean(1)
        apart = observed[name] - float(means[name].mean())
        effects[name] = apart / max(float(one.std()), float(many.std(1).mean()), 1e-12)
        sides = (means[name] <= observed[name]).mean(), (means[name] >= observed[name]).mean()
        p_values[name] = min(1.0, 2 * float(min(sides)))
        spreads[name] = max(float(one.std()), 1e-12) / max(float(many.std(1).mean()), 1e-12)
    return PosteriorCheck(observed, means, effects, p_values, spreads)


def _pieces(observed: Mapping[str, Floats], num_draws: int, seed: int) -> Iterator[tuple[int, int]]:
    """Split the drawing of data sets: how many at a time, and from which seed."""
    at_once = max(1, CELLS // max(1, sum(x.size for x in observed.values())))
    rng = np.random.default_rng(seed)
    for start in range(0, num_draws, at_once):
        yield min(at_once, num_draws - start), int(rng.integers(2**31))


def _measured(
    program: nn.Module,
    observed: Mapping[str, Floats],
    drawn: Iterable[Mapping[str, Tensor]],
    discrepancies: Mapping[str, Discrepancy] | None,
) -> dict[str, tuple[Floats, Floats]]:
    """Give T of the data ``(M,)`` and of the draws ``(S, M)``, where it is known, by name."""
    if discrepancies is not None:
        _must_be_functions(discrepancies)
    rows = len(next(iter(observed.values())))
    columns = columns_of_training(program)
    functions = {
        (site, name): function
        for site, x in observed.items()
        for name, function in (
            usual_discrepancies(x.shape[1:], columns) if discrepancies is None else discrepancies
        ).items()
    }
    one = {key: _numbers(f(observed[key[0]]), key[1], rows) for key, f in functions.items()}
    many: dict[tuple[str, str], list[Floats]] = {key: [] for key in functions}
    for piece in drawn:
        for (site, name), function in functions.items():
            gaps = np.isnan(observed[site])
            for draw in as_array(piece[site]):
                made = _numbers(function(np.where(gaps, np.nan, draw)), name, rows)
                many[site, name].append(made)
    known = {key: ~np.isnan(values) for key, values in one.items()}
    if not any(k.any() for k in known.values()):
        raise ValueError(
            f"Got NaN for every datum from {[n for _, n in functions]}; expected numbers. Try "
            "np.nanmean in place of np.mean where cells are missing."
        )
    return {
        name if len(observed) == 1 else f"{site}: {name}": (
            one[site, name][known[site, name]],
            np.stack(many[site, name])[:, known[site, name]],
        )
        for site, name in functions
        if known[site, name].any()
    }


def _must_be_functions(discrepancies: Any) -> None:  # noqa: ANN401
    given = discrepancies if isinstance(discrepancies, Mapping) else {}
    if not given or not all(callable(f) for f in given.values()):
        raise ValueError(
            f"Got discrepancies={discrepancies!r}; expected functions by name, of numpy arrays "
            '(M, *event) to (M,). Try {"mean": lambda x: np.nanmean(x, axis=1)}, or None.'
        )


def usual_discrepancies(
    event: tuple[int, ...], columns: Sequence[str] = ()
) -> dict[str, Discrepancy]:
    """What is looked at where nobody says: each cell of few; of many, four numbers a datum."""
    cells = int(np.prod(event))
    if cells <= COLUMNS:
        names = columns if len(columns) == cells else [_cell(event, k) for k in range(cells)]
        return {name: _taking(k) for k, name in enumerate(names)}

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
    if np.isinf(array).any():
        raise ValueError(
            f"Got infinity from the discrepancy {name!r}; expected finite numbers, NaN where it is "
            "not known. Try np.log1p in place of np.log."
        )
    return array
