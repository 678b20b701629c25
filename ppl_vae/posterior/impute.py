"""Missing cells, drawn given those that are seen."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.diagnostics import khat
from ppl_vae.diagnostics.arrays import Floats
from ppl_vae.diagnostics.imputation import Level
from ppl_vae.distributions import Marginal
from ppl_vae.posterior.draws import as_array, with_plate
from ppl_vae.posterior.faults import explained
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import weighted_draws
from ppl_vae.programs.modes import device_of, drawing, forked_rng
from ppl_vae.programs.runs import Site, probe
from ppl_vae.programs.traces import Structure
from ppl_vae.programs.vae import family_of

CELLS = 2**22  # of x in one run of the model; part of what a seed means


@dataclass(frozen=True, eq=False)
class Imputation:
    """What is known of cells that are missing.

    Attributes:
        point: x with every missing cell replaced: by its posterior mean; where the family has
            categories by the most probable one, where they are ordered by the median. ``(N, *E)``.
        lower: Lower ends of central intervals, cell by cell, ``(N, *E)``; x itself where seen (in
            the program's dtype), NaN where classes have no order.
        upper: Upper ends.
        draws: Completed data, ``(M, N, *E)``, equally weighted: multiple imputations.
        hidden: ``(N, *E)``, True where a cell was missing.
        level: Nominal coverage of the intervals.
        ess: Effective number of the draws of z behind each datum, ``(N,)``.
        khat: Pareto k of their weights, ``(N,)``: above 0.7 they are not to be trusted.
    """

    point: Floats
    lower: Floats
    upper: Floats
    draws: Floats
    hidden: NDArray[np.bool_]
    level: float
    ess: Floats
    khat: Floats

    def __repr__(self) -> str:
        return (
            f"Imputation of {int(self.hidden.sum())} of {self.hidden.size} cells in "
            f"{len(self.point)} data; {len(self.draws)} draws, median ESS {np.median(self.ess):.0f}"
        )


@explained
def impute(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    num_samples: int = 500,
    *,
    num_draws: int = 50,
    level: float = 0.9,
    seed: int | None = None,
) -> Imputation:
    """Draw what is missing given what is seen, x_hidden ~ p(x_hidden | x_seen).

    By self-normalised importance sampling (Mattei and Frellsen 2019, MIWAE, eq. 10): z is drawn
    from q(z|x_seen), weighed by p(x_seen, z) / q(z|x_seen), then x_hidden ~ p(x_hidden|x_seen, z).
    Cells are taken to be missing at random: whether one is missing depends on cells seen alone.

    Args:
        program: A `VAE`, trained on data that may have missing cells themselves.
        x: Data as `fit` takes them, with NaN or a mask.
        num_samples: Draws S of z per datum.
        num_draws: Completed data sets M to return, drawn from the S by weight.
        level: Nominal coverage of the intervals, in (0, 1).
        seed: Fork torch's random state and start here.

    Raises:
        NoDensityError: Where there are no weights.
        ValueError: If no cell is missing, or an argument is out of range.

    Example:
        >>> from ppl_vae import MLP, VAE, Conditional, Normal, StandardNormal
        >>> vae = VAE(
        ...     StandardNormal(1),
        ...     Conditional(MLP(), Normal(3, scale=0.5), given=1),
        ...     Conditional(MLP(), Normal(1), given={"x": 3, "mask": 3}),
        ... )
        >>> x = torch.tensor([[0.1, torch.nan, 0.3], [0.0, 1.0, -1.0]])
        >>> found = impute(vae, x, seed=0)
        >>> found, bool(found.lower[0, 1] < found.point[0, 1] < found.upper[0, 1])
        (Imputation of 1 of 6 cells in 2 data; 50 draws, median ESS ...)
    """
    for name, value in {"num_samples": num_samples, "num_draws": num_draws}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise ValueError(f"Got {name}={value!r}; expected an integer of 2 or more. Try 500.")
    if not 0 < level < 1:
        raise ValueError(f"Got level={level!r}; expected a number between 0 and 1. Try 0.9.")
    batch = program_batch(program, x, name="x")
    found = with_plate(program, batch)
    model, _ = probe(program, batch)
    if sum(_hides(model.nodes[n]) for n in found.observed) != 1 or found.enumerated:
        raise ValueError(
            "Got data without a missing cell, or a program that cannot have any; expected NaN, or "
            '0 in a mask, somewhere. Try x[row, column] = nan, or {"x": x, "mask": mask}.'
        )
    levels = levels_of(program)
    tails = (1 - level) / 2, (1 + level) / 2
    cells = sum(v[0].numel() for v in batch.tensors)
    pieces = []
    with forked_rng(device_of(program), seed) if seed is not None else nullcontext():
        for rows in torch.arange(batch.rows).split(max(1, CELLS // (num_samples * cells))):
            part = batch.take(rows.to(batch.device))
            pieces.append(_piece(program, part, found, num_samples, num_draws, levels, tails))
    joined = [torch.cat(p, dim=1 if k == 3 else 0) for k, p in enumerate(zip(*pieces, strict=True))]
    point, lower, upper, draws, hidden, log_w = joined
    weights = torch.softmax(log_w.T, 0)
    return Imputation(
        point=as_array(point),
        lower=as_array(lower),
        upper=as_array(upper),
        draws=as_array(draws),
        hidden=hidden.cpu().numpy(),
        level=level,
        ess=as_array(1 / weights.square().sum(0)),
        khat=khat(as_array(log_w.T)),
    )


def levels_of(program: nn.Module) -> Level | tuple[Level, ...]:
    """What the cells of x measure, one word for all or one for each column."""
    if (family := family_of(program)) is None:
        return "numeric"
    return tuple(c.level for c in family.columns) or family.level


def _piece(
    program: nn.Module,
    batch: Batch,
    found: Structure,
    num_samples: int,
    num_draws: int,
    levels: Level | tuple[Level, ...],
    tails: tuple[float, float],
) -> tuple[Tensor, ...]:
    """Point, ends, draws, hidden and log weights of some data."""
    drawn = weighted_draws(program, batch, num_samples)
    log_w = drawn.log_weights.double()  # (S, n)
    flat = {n: v.flatten(0, 1) for n, v in drawn.latents.items()}
    repeated = batch.take(torch.arange(batch.rows, device=batch.device).repeat(num_samples))
    with drawing(program, None):
        at = poutine.condition(program.model, data=flat)
        trace = poutine.trace(at).get_trace(*repeated.args, **repeated.kwargs)
        site = next(s for n, s in trace.nodes.items() if n in found.observed and _hides(s))
        fn, seen = site["fn"], site["value"]
        x = fn.completed(seen, fn.sample())
        mean = fn.completed(seen, _means(fn, x))
    x, mean, mask = (v.unflatten(0, (num_samples, batch.rows)) for v in (x, mean, fn.mask))
    x, mean, weights = x.double(), mean.double(), torch.softmax(log_w, 0)
    rows = torch.arange(batch.rows, device=x.device)
    draws = x[_resampled(weights, num_draws), rows]
    values, order = x.sort(0)
    ladder = _like(weights, x).gather(0, order).cumsum(0)

    def quantile(p: float) -> Tensor:
        place = (ladder < p).sum(0, keepdim=True).clamp(max=num_samples - 1)
        return values.gather(0, place)[0]

    point = _mean(mean, weights)
    # Heavy tails have no mean, or none that is finite, and classes have none.
    point = point.where(point.isfinite(), quantile(0.5))
    for place, part in fn.parts():
        kind = levels if isinstance(levels, str) else levels[place]
        if kind != "numeric":
            codes, shares = _classes(part, x[..., place], weights)
            best = shares.argmax(0) if kind == "nominal" else (shares.cumsum(0) < 0.5).sum(0)
            point[..., place] = codes[best.clamp(max=len(codes) - 1)]
    hidden = ~mask[0]
    point = point.where(hidden, x[0])  # a sum of weights is 1 but for rounding
    ends = [quantile(p) for p in tails]
    for end in ends:  # codes without an order have no interval
        end[(hidden & _nominal(levels, hidden))] = torch.nan
    return point, *ends, draws, hidden, log_w.T


def _nominal(levels: Level | tuple[Level, ...], hidden: Tensor) -> Tensor:
    found = levels == "nominal" if isinstance(levels, str) else [k == "nominal" for k in levels]
    return torch.tensor(found, device=hidden.device)


def _means(fn: Marginal, x: Tensor) -> Tensor:
    """E[x|z] of whole events; where cells have none, the draws x in their place."""
    parts = fn.parts()
    if not parts:  # a multivariate Normal
        return fn.mean
    means = x.clone()
    for place, part in parts:
        with suppress(NotImplementedError):
            means[..., place] = part.mean
    return means


def _hides(site: Site) -> bool:
    return isinstance(site["fn"], Marginal)


def _like(weights: Tensor, x: Tensor) -> Tensor:
    return weights.reshape(*weights.shape, *[1] * (x.dim() - 2)).expand(x.shape)


def _resampled(weights: Tensor, count: int) -> Tensor:
    """Systematic resampling, ``(count, n)``: each draw as often as its weight says, within one."""
    offset = torch.rand((weights.shape[1], 1), dtype=weights.dtype, device=weights.device)
    steps = (torch.arange(count, device=weights.device) + offset) / count
    chosen = torch.searchsorted(weights.cumsum(0).T.contiguous(), steps)
    return chosen.clamp(max=len(weights) - 1).T


def _mean(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted; what has no weight does not count, infinite as it may be."""
    shares = _like(weights, x)
    return torch.where(shares > 0, shares * x, 0.0).sum(0)


def _classes(part: TorchDistribution, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The codes of classes ``(K,)``, and p(class | x_seen) of each, ``(K, n, *cells)``.

    p(class | z) is known: averaged over z it is less noisy than the classes drawn.
    """
    if not part.has_enumerate_support:
        raise ValueError(
            f"Got cells of a {type(part).__name__}, whose family says that they are classes; "
            "expected one whose classes can be listed. Try a distribution with enumerate_support, "
            'or level="numeric".'
        )
    codes = part.enumerate_support(expand=False).flatten()
    masses = (part.log_prob(code.expand(x.flatten(0, 1).shape)).exp() for code in codes)
    shares = torch.stack([_mean(m.unflatten(0, x.shape[:2]).double(), weights) for m in masses])
    return codes.to(x.dtype), shares
