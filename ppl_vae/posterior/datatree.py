"""The one door to ArviZ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ppl_vae.diagnostics import evidence
from ppl_vae.diagnostics.calibration import Calibration
from ppl_vae.posterior.draws import (
    as_array,
    observed_values,
    posterior_predictive,
    prior_of_data,
)
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.given import data_at
from ppl_vae.posterior.labels import plain
from ppl_vae.posterior.layout import SAMPLED, layout_of, with_numbers
from ppl_vae.programs.describe import describe
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import weighted_draws

if TYPE_CHECKING:
    import xarray as xr


@singledispatch
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
    (of the draws in ``posterior``: ``log_p_x_given_z``, ``log_p_z``, ``log_q_z_given_x``, and
    ``log_weight``, what is left of the three; no such group where discrete sites are summed out)
    and ``evidence`` (per row, what these weights say: ``log_evidence``, ``se``, ``khat``; apart,
    because ArviZ's summaries take a group whose variables all have draws).

    Events of up to 32 cells become one variable per column; larger ones (images) one
    variable with rows and cells stacked in the dim ``cell``, the form that ArviZ's predictive
    plots take; its coords say which row and which cell. Counts and classes are whole numbers, so
    that ``plot_ppc_pit`` ranks equal ones at random. Missing cells are NaN in ``observed_data``:
    ``plot_ppc_pit`` takes these for the lowest of values, so leave their rows out of the tree.

    Names come with the data. Of a DataFrame: those of columns and rows; of a DataArray: those and
    its dims, ``DataArray(x, dims=["star", "wavelength"], coords=...)``. A Dataset, or a dict or
    tuple of these, is taken as the arguments of the program. A dim is ``row`` if it has no name,
    and a slash, which a tree takes for a path, becomes an underscore.

    log p(x|z) is on purpose not named ``log_likelihood``: `arviz_stats.loo` would run on it, and
    be wrong. R-hat and ESS of independent draws look perfect however bad the guide is: use
    ``arviz_stats.summary(tree, kind="stats")``.

    The tree is saved by ``tree.to_netcdf(path)`` and, with zarr installed, by ``tree.to_zarr(path,
    zarr_format=2)``; `xarray.open_datatree` reads both.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them; their names are used where they tell columns, and rows, apart.
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
    lines, found = describe(program, batch)
    observed = observed_values(program, batch)
    layout = layout_of(x, lines, found, observed, columns)

    def other(step: int) -> int | None:
        return None if seed is None else seed + step

    weighted = None
    if found.undefined is None:
        weighted = weighted_draws(program, batch, num_samples, seed=seed)
    if weighted is not None and weighted.latents:
        drawn = data_at(program, batch, weighted.latents, seed=other(2))
    else:
        drawn = posterior_predictive(program, batch, num_samples, seed=seed)
    groups = {
        "posterior": layout.latents(drawn.latents),
        "posterior_predictive": layout.observed(drawn.data, SAMPLED),
    }
    del drawn  # before as much again is drawn
    drawn = prior_of_data(program, batch, num_samples, seed=other(1))
    groups |= {
        "prior": layout.latents(drawn.latents),
        "prior_predictive": layout.observed(drawn.data, SAMPLED),
        "observed_data": layout.observed(observed),
    }
    if (
        weighted is not None
        and weighted.log_likelihood is not None
        and weighted.log_guide is not None
    ):
        log_w, log_q = as_array(weighted.log_weights), as_array(weighted.log_guide)
        log_p = as_array(weighted.log_likelihood)
        stats = {
            "log_p_x_given_z": log_p,
            "log_p_z": log_w - log_p + log_q,
            "log_q_z_given_x": log_q,
            "log_weight": log_w,
        }
        by_draw = (*SAMPLED, layout.row)
        groups["sample_stats"] = layout.dataset({k: (by_draw, v[None]) for k, v in stats.items()})
    if weighted is not None and num_samples > 1:
        result = evidence(as_array(weighted.log_weights))
        groups["evidence"] = layout.dataset(
            {k: ((layout.row,), getattr(result, k)) for k in ("log_evidence", "se", "khat")}
        )
    return xr.DataTree.from_dict(groups)


def calibration_tree(c: Calibration, *, seed: int = 0) -> xr.DataTree:
    """Give ranks as `arviz_plots.plot_ecdf_pit` reads them: group ``prior_sbc``, between 0 and 1.

    A rank r among S draws becomes (r + u)/(S + 1), u uniform: uniform itself where the ranks are,
    whatever S. A quantity that is not known of all data has a group of its own length,
    ``prior_sbc_80`` for 80 of them, because ArviZ draws one band for a group. That band is of a
    single quantity and simulated; `Calibration` and `ppl_vae.plots.calibration` have the exact
    one, and the verdict over all.

    Args:
        c: What `calibrate` or `prior_check` found.
        seed: Of u.

    Example:
        >>> from ppl_vae.diagnostics import calibration
        >>> found = calibration({"z": [0, 2, 1, 3], "y": [3, 0]}, num_draws=3)
        >>> {name: dict(group.sizes) for name, group in calibration_tree(found).children.items()}
        {'prior_sbc': {'chain': 1, 'draw': 4}, 'prior_sbc_2': {'chain': 1, 'draw': 2}}
    """
    import xarray as xr

    # Not the stream that a caller may have drawn from with this seed.
    noise = np.random.default_rng([seed, 0x7069])
    groups: dict[str, dict[str, Any]] = {}
    for name, ranks in c.ranks.items():
        group = "prior_sbc" + f"_{len(ranks)}" * (len(ranks) < c.num_data)
        values = (ranks + noise.uniform(size=len(ranks))) / (c.num_draws + 1)
        groups.setdefault(group, {})[plain(name)] = (SAMPLED, values[None])
    return xr.DataTree.from_dict({n: with_numbers(xr.Dataset(v)) for n, v in groups.items()})
