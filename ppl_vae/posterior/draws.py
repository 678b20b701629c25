"""Draws from a program: z given x, x given z, and both from the prior."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.distributions import Marginal
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.summed_out import with_summed_out
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import ROWS
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.runs import probe, rows_first, run_guide
from ppl_vae.programs.traces import Structure, refuse_subsampling, structure


class Draws(NamedTuple):
    """Joint draws, by site. Posterior draws are ``(S, N, *event)``, others ``(S, *event)``.

    Attributes:
        latents: z; those shared by all data (outside the plate) are ``(S, *event)``.
        data: x drawn from p(x|z).
        means: E[x|z], where the distribution knows its mean.
    """

    latents: dict[str, Tensor]
    data: dict[str, Tensor]
    means: dict[str, Tensor]


@explained
def posterior_predictive(
    program: nn.Module,
    x: Any,
    num_samples: int,
    *,
    seed: int | None = None,  # noqa: ANN401
) -> Draws:
    """Draw z ~ q(z|x), then new data from p(x|z): shapes ``(S, N, *event)``.

    Args:
        program: A `VAE` or `Program`.
        x: The data to condition on.
        num_samples: Draws S per datum.
        seed: Fork torch's random state and start here.

    Discrete sites that training sums out are drawn from p(y | x, z), which is exact, also where
    the guide has them: of it only the values that it allows at all, such as a known label, count.

    Raises:
        ValueError: If the data do not fit, or there is no data plate.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> draws = posterior_predictive(Program(world.model, world.guide), x, 10, seed=0)
        >>> draws.latents["z"].shape, draws.data["x"].shape
        (torch.Size([10, 3, 2]), torch.Size([10, 3, 5]))
    """
    batch = program_batch(program, x, name="x")
    found = with_plate(program, batch)
    positive(num_samples=num_samples)
    index = torch.arange(batch.rows).repeat(num_samples)
    with drawing(program, seed):
        # A run has one draw of what all its rows share: then a run is the whole batch.
        blocks = index.split(batch.rows if found.shared else ROWS)
        runs = (_posterior_run(program, batch.take(r.to(batch.device)), found) for r in blocks)
        return _joined(runs, found, (num_samples, batch.rows))


def prior_predictive(
    program: nn.Module,
    num_samples: int,
    *,
    like: Any,
    seed: int | None = None,  # noqa: ANN401
) -> Draws:
    """Draw z ~ p(z) and x ~ p(x|z) by running the model: shapes ``(S, *event)``.

    Args:
        program: A `VAE` or `Program`.
        num_samples: Draws S.
        like: Any data of the program's kind: a model runs on a batch. Only their shapes matter,
            unless the model takes covariates, whose rows are then used in turn.
        seed: Fork torch's random state and start here.
    """
    batch = program_batch(program, like, name="like")
    found = with_plate(program, batch)
    positive(num_samples=num_samples)
    index = torch.arange(num_samples) % batch.rows
    # A run has one draw of what all its rows share: then a run is one row.
    blocks = index.split(1 if found.shared else ROWS)
    with drawing(program, seed):
        runs = (_prior_run(program, batch.take(r.to(batch.device))) for r in blocks)
        return _joined(runs, found, (num_samples,))


def prior_of_data(
    program: nn.Module,
    x: Any,
    num_samples: int,
    *,
    seed: int | None = None,  # noqa: ANN401
) -> Draws:
    """Draw whole data sets of the size of x from the prior: shapes ``(S, N, *event)``.

    Args:
        program: A `VAE` or `Program`.
        x: Data of the program's kind.
        num_samples: Data sets S. The rows of one have those latents in common that all data share.
        seed: Fork torch's random state and start here.
    """
    batch = program_batch(program, x, name="x")
    found = with_plate(program, batch)
    if not found.shared:
        drawn = prior_predictive(program, num_samples * batch.rows, like=batch, seed=seed)
        return shaped([drawn], (num_samples, batch.rows))
    with drawing(program, seed):
        runs = (_prior_run(program, batch) for _ in range(num_samples))
        return _joined(runs, found, (num_samples, batch.rows))


def observed_values(program: nn.Module, x: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """Give what each observed site was given, ``(N, *event)``: not always one argument as it is.

    Cells that are missing are NaN.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them.
    """
    batch = program_batch(program, x, name="x")
    found = with_plate(program, batch)
    model, _ = probe(program, batch)
    values = {}
    for name in found.observed:
        site = model.nodes[name]
        if isinstance(site["fn"], Marginal):
            site = {**site, "value": site["value"].where(site["fn"].mask, torch.nan)}
        values[name] = rows_first(site, found.dim)
    return values


def observed_arrays(program: nn.Module, x: Any) -> dict[str, NDArray[np.float64]]:  # noqa: ANN401
    """Give `observed_values` as float64 arrays."""
    return {n: as_array(v) for n, v in observed_values(program, x).items()}


def _posterior_run(program: nn.Module, batch: Batch, found: Structure) -> Trace:
    guide = run_guide(program, batch)
    if found.enumerated:
        guide = with_summed_out(program, batch, guide, found)
    free = poutine.replay(poutine.uncondition(program.model), trace=guide)
    return poutine.trace(free).get_trace(*batch.args, **batch.kwargs)


def _prior_run(program: nn.Module, batch: Batch) -> Trace:
    free = poutine.uncondition(program.model)
    return poutine.trace(free).get_trace(*batch.args, **batch.kwargs)


def collect(model: Trace, found: Structure) -> Draws:
    """Read the draws of one run, rows in front."""
    means = {}
    for name in found.observed:
        site = model.nodes[name]
        try:
            means[name] = rows_first({**site, "value": site["fn"].mean}, found.dim)
        except NotImplementedError:
            continue
    return Draws(
        {n: rows_first(model.nodes[n], found.dim) for n in found.latents if n not in found.shared},
        {n: rows_first(model.nodes[n], found.dim) for n in found.observed},
        means,
    )


def shaped(pieces: list[Draws], shape: tuple[int, ...]) -> Draws:
    """Put blocks of rows together, as ``(*shape, *event)``."""

    def join(part: int) -> dict[str, Tensor]:
        names = pieces[0][part]
        joined = {n: torch.cat([p[part][n] for p in pieces]) for n in names}
        return {n: v.reshape(*shape, *v.shape[1:]) for n, v in joined.items()}

    return Draws(join(0), join(1), join(2))


def _joined(runs: Iterable[Trace], found: Structure, shape: tuple[int, ...]) -> Draws:
    """Collect runs as they are made: ``(*shape, *event)``, and one a run of what its rows share."""
    pieces: list[Draws] = []
    shared: dict[str, list[Tensor]] = {n: [] for n in found.shared}
    for run in runs:
        pieces.append(collect(run, found))
        for name, values in shared.items():
            values.append(run.nodes[name]["value"])
    drawn = shaped(pieces, shape)
    return drawn._replace(
        latents=drawn.latents | {n: torch.stack(values) for n, values in shared.items()}
    )


def with_plate(program: nn.Module, batch: Batch) -> Structure:
    """Look at a program of which draws per datum are wanted.

    Raises:
        ValueError: If it has no data plate, or one that uses some rows only.
    """
    found = structure(program, batch)
    if found.plate is None:
        raise ValueError(
            f"Draws per datum need a data plate: {found.undefined}. Try "
            'with pyro.plate("data", len(x)): around the latents and the data.'
        )
    refuse_subsampling(found)
    return found


def positive(**counts: int) -> None:
    """Refuse what is no count.

    Raises:
        ValueError: With the name of the argument.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Got {name}={value!r}; expected a positive integer. Try {name}=100.")


def as_array(value: Tensor) -> NDArray[np.float64]:
    """Give a tensor to the diagnostics, which are functions of float64 arrays."""
    array: NDArray[np.float64] = value.detach().double().cpu().numpy()
    return array


def side_by_side(
    latents: Mapping[str, Tensor], names: Sequence[str], lead: int
) -> NDArray[np.float64]:
    """Put the units of several latents beside each other: ``(*lead, D)``."""
    values = [as_array(latents[n]) for n in names]
    return np.concatenate([v.reshape(*v.shape[:lead], -1) for v in values], axis=-1)
