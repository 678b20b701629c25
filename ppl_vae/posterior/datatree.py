"""The one door to ArviZ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ppl_vae.diagnostics import evidence
from ppl_vae.posterior.draws import (
    as_array,
    observed_values,
    posterior_predictive,
    prior_of_data,
)
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.given import data_at
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import weighted_draws
from ppl_vae.programs.traces import structure

if TYPE_CHECKING:
    import xarray as xr

MAX_COLUMNS = 32
DIMS = ("chain", "draw", "row")


@explained
def to_datatree(
    program: nn.Module,
    x: Any,
    *,
    num_samples: int = 100,
    columns: Sequence[str] | None = None,
    seed: int | None = None,
) -> xr.DataTree:
    """Give draws and data as ArviZ reads them: dims ``chain`` = 1, ``draw`` = S, ``row`` = N.

    Groups: ``posterior`` and ``prior`` (a variable per latent site), ``posterior_predictive``,
    ``prior_predictive`` and ``observed_data``, and where there are log weights ``sample_stats``
    (``log_weight``, ``log_p_x_given_z``, both of the draws in ``posterior``; left out where
    discrete sites are summed out) and ``evidence`` (per row: ``log_evidence``, ``se``, ``khat``).
    Events of up to 32 cells become one variable per column; larger ones (images) one
    variable with rows and cells stacked in the dim ``cell``, the form that ArviZ's predictive
    plots take.

    log p(x|z) is on purpose not named ``log_likelihood``: `arviz_stats.loo` would run on it, and
    be wrong. R-hat and ESS of independent draws look perfect however bad the guide is: use
    ``arviz_stats.summary(tree, kind="stats")``.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them; a DataFrame names the columns (a slash, which a tree
            takes for a path, becomes an underscore) and the rows, if its index does so uniquely.
        num_samples: Draws S per datum. About 16 S N bytes are kept for each cell of x and z, and
            nearly twice as many used while drawing (float32; N and S in the hundreds).
        columns: Names of the columns of the one observed site.
        seed: Fork torch's random state and start here.

    Raises:
        ValueError: If the data do not fit, or the names do not tell the columns apart.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 3, seed=0)
        >>> x, _ = world.sample(20, seed=1)
        >>> tree = to_datatree(Program(world.model, world.guide), x, num_samples=10, seed=0)
        >>> dict(tree["posterior_predictive"]["x_0"].sizes)
        {'chain': 1, 'draw': 10, 'row': 20}
    """
    import xarray as xr

    batch = program_batch(program, x, name="x")
    found = structure(program, batch)
    observed = observed_values(program, batch)
    if columns is None and hasattr(x, "columns") and len(observed) == 1:
        columns = [str(c).replace("/", "_") for c in x.columns]
    if columns is not None:
        _must_name(columns, observed)
    rows = _row_names(x)
    shape = (num_samples, batch.rows)

    def other(step: int) -> int | None:
        return None if seed is None else seed + step

    def latents(draws: dict[str, Tensor]) -> xr.Dataset:
        return xr.Dataset({n: _latent(n, v, n in found.shared) for n, v in draws.items()})

    def cells(values: dict[str, Tensor], lead: tuple[int, ...]) -> xr.Dataset:
        merged: dict[str, Any] = {}
        for site, value in values.items():
            merged |= _cells(site, value, lead, columns)
        return xr.Dataset(merged)

    weighted = None
    if found.undefined is None:
        weighted = weighted_draws(program, batch, num_samples, seed=seed)
    if weighted is not None and weighted.latents:
        drawn = data_at(program, batch, weighted.latents, seed=other(2))
    else:
        drawn = posterior_predictive(program, batch, num_samples, seed=seed)
    groups = {
        "posterior": latents(drawn.latents),
        "posterior_predictive": cells(drawn.data, shape),
    }
    del drawn  # before as much again is drawn
    drawn = prior_of_data(program, batch, num_samples, seed=other(1))
    groups |= {
        "prior": latents(drawn.latents),
        "prior_predictive": cells(drawn.data, shape),
        "observed_data": cells(observed, (batch.rows,)),
    }
    if weighted is not None:
        if weighted.log_likelihood is not None:
            stats = {"log_weight": weighted.log_weights, "log_p_x_given_z": weighted.log_likelihood}
            groups["sample_stats"] = xr.Dataset(
                {k: (("chain", "draw", "row"), as_array(v)[None]) for k, v in stats.items()}
            )
        if num_samples > 1:
            result = evidence(as_array(weighted.log_weights))
            groups["evidence"] = xr.Dataset(
                {k: ("row", getattr(result, k)) for k in ("log_evidence", "se", "khat")}
            )
    return xr.DataTree.from_dict({k: _with_coords(v, rows) for k, v in groups.items()})


def _must_name(columns: Sequence[str], observed: dict[str, Tensor]) -> None:
    if len(observed) > 1:
        raise ValueError(
            f"Got columns for the observed sites {list(observed)}; expected a single site. "
            "Try None: each site's columns are then numbered."
        )
    (value,) = observed.values()
    if len(columns) != (size := value[0].numel()):
        raise ValueError(
            f"Got {len(columns)} column names; expected {size}, one for each column. Try columns=, "
            "or an array, whose columns are numbered."
        )
    if len({*columns, *DIMS}) < size + len(DIMS):
        raise ValueError(
            f"Got the columns {list(columns)}; expected names that differ from each other and "
            f"from the dims {DIMS}. Try columns=, or renaming them."
        )


def _latent(name: str, value: Tensor, shared: bool) -> tuple[tuple[str, ...], Any]:
    own = ("chain", "draw") if shared else ("chain", "draw", "row")
    rest = value.dim() + 1 - len(own)
    dims = tuple(f"{name}_dim_{i}" if rest > 1 else f"{name}_dim" for i in range(rest))
    return (*own, *dims), as_array(value)[None]


def _cells(
    site: str, value: Tensor, lead: tuple[int, ...], columns: Sequence[str] | None
) -> dict[str, Any]:
    flat = as_array(value).reshape(*lead, -1)
    sampled = ("chain", "draw") if len(lead) == 2 else ()
    size = flat.shape[-1]
    if size > MAX_COLUMNS and columns is None:
        stacked = flat.reshape(*lead[:-1], -1)
        return {site: ((*sampled, "cell"), stacked[None] if sampled else stacked)}
    names = columns if columns is not None else [f"{site}_{i}" for i in range(size)]
    if size == 1 and columns is None:
        names = [site]
    return {
        name: ((*sampled, "row"), flat[..., i][None] if sampled else flat[..., i])
        for i, name in enumerate(names)
    }


def _row_names(x: Any) -> NDArray[Any] | None:  # noqa: ANN401
    """The index of a DataFrame or Series, where it tells the rows apart."""
    if not hasattr(x, "iloc") or x.index.nlevels > 1 or not x.index.is_unique:
        return None
    labels: NDArray[Any] = x.index.to_numpy()
    return labels.astype(str) if labels.dtype == object else labels  # netCDF knows no objects


def _with_coords(group: xr.Dataset, rows: NDArray[Any] | None) -> xr.Dataset:
    coords = {str(dim): np.arange(size) for dim, size in group.sizes.items()}
    if rows is not None and "row" in coords:
        coords["row"] = rows
    return group.assign_coords(coords)
