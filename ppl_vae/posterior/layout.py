"""How the sites of a program become variables of a tree: dims, coords, whole numbers as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ppl_vae.posterior.draws import as_array
from ppl_vae.posterior.labels import Labels, labels_of, plain
from ppl_vae.programs.describe import Line
from ppl_vae.programs.traces import Structure

if TYPE_CHECKING:
    import xarray as xr

MAX_COLUMNS = 32
SAMPLED = ("chain", "draw")
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the sites of a program go: a latent as it is, an observed site by columns or cells.

    Attributes:
        row: The dim of the data.
        coords: Labels by dim, and those of the cells of stacked sites: ``(dim, labels)``.
        shared: Latents that all data have in common.
        columns: By observed site, the names of its cells, a variable each; None where it is one
            variable, its rows and cells stacked.
        masses: By site, whether it has a mass: its values are then whole numbers. Of a table of
            both, one a column.
    """

    row: str
    coords: Mapping[str, tuple[str, Array]]
    shared: tuple[str, ...]
    columns: Mapping[str, Sequence[str] | None]
    masses: Mapping[str, Sequence[bool]]

    def latents(self, draws: Mapping[str, Tensor]) -> xr.Dataset:
        """Lay out draws ``(S, N, *event)`` of latents, ``(S, *event)`` of shared ones."""
        variables = {}
        for site, value in draws.items():
            own = SAMPLED if site in self.shared else (*SAMPLED, self.row)
            name, rest = plain(site), value.dim() + 1 - len(own)
            dims = [f"{name}_dim_{i}" if rest > 1 else f"{name}_dim" for i in range(rest)]
            values = _whole(as_array(value)[None], all(self.masses[site]))
            variables[name] = ((*own, *dims), values)
        return self.dataset(variables)

    def observed(self, values: Mapping[str, Tensor], dims: tuple[str, ...] = ()) -> xr.Dataset:
        """Lay out values ``(N, *event)`` of observed sites; ``(S, N, *event)`` under `SAMPLED`."""
        variables = {}
        for site, value in values.items():
            array, masses = as_array(value), self.masses[site]
            array = array[None] if dims else array
            lead, names = array.shape[: len(dims)], self.columns[site]
            if names is None:
                stacked = _whole(array.reshape(*lead, -1), all(masses))
                variables[plain(site)] = ((*dims, cell_dim(site, self.columns)), stacked)
                continue
            array = array.reshape(*array.shape[: len(dims) + 1], -1)
            for i, name in enumerate(names):
                column = _whole(array[..., i], masses[i % len(masses)])
                variables[name] = ((*dims, self.row), column)
        return self.dataset(variables)

    def dataset(self, variables: Mapping[str, tuple[tuple[str, ...], Array]]) -> xr.Dataset:
        """Put variables into a group, with the coords of its dims."""
        import xarray as xr

        group = with_numbers(xr.Dataset(variables))
        known = {name: c for name, c in self.coords.items() if c[0] in group.sizes}
        return group.assign_coords(known)


def with_numbers(group: xr.Dataset) -> xr.Dataset:
    """Number the entries of every dim: ArviZ selects by coords."""
    return group.assign_coords({str(dim): np.arange(n) for dim, n in group.sizes.items()})


def layout_of(
    x: Any,  # noqa: ANN401
    lines: Sequence[Line],
    found: Structure,
    observed: Mapping[str, Tensor],
    columns: Sequence[str] | None,
) -> Layout:
    """Find names for everything.

    Raises:
        ValueError: If the columns' names do not tell them apart.
    """
    if columns is not None:
        _must_name(columns, observed)
    labels = {site: labels_of(x, value) for site, value in observed.items()}
    names = {site: _names(site, v, labels[site], columns, observed) for site, v in observed.items()}
    variables = [n for site, own in names.items() for n in own or [plain(site)]]
    first = next(iter(labels.values()))
    row = "row" if first.row in (*SAMPLED, "cell", *found.latents, *variables) else first.row
    dims = (*SAMPLED, row)
    if clash := {plain(n) for n in found.latents} & set(dims):
        raise ValueError(
            f"Got the latents {sorted(clash)}; expected other names than the dims {dims}. Try "
            "another name for the site."
        )
    if len({*variables, *dims}) < len(variables) + len(dims):
        raise ValueError(
            f"Got the columns {variables}; expected names that differ from each other and from "
            f"the dims {dims}. Try columns=, or renaming them."
        )
    rows = np.arange(len(next(iter(observed.values())))) if first.rows is None else first.rows
    coords = {row: (row, rows)}
    for site, value in observed.items():
        if names[site] is None:
            dim = cell_dim(site, names)
            axes = [(row, rows), *labels[site].axes(value)]
            grid = np.meshgrid(*(v for _, v in axes), indexing="ij")
            coords |= {f"{dim}_{n}": (dim, g.ravel()) for (n, _), g in zip(axes, grid, strict=True)}
    masses = {
        line.site: [m == "mass" for m in (line.measure or "").split(", ")]
        for line in lines
        if line.role != "guide"
    }
    return Layout(row, coords, found.shared, names, masses)


def cell_dim(site: str, sites: Mapping[str, Any]) -> str:
    """Name the dim of an observed site that is stacked: those of two differ in length."""
    return "cell" if len(sites) == 1 else f"{plain(site)}_cell"


def _names(
    site: str,
    value: Tensor,
    labels: Labels,
    columns: Sequence[str] | None,
    observed: Mapping[str, Tensor],
) -> Sequence[str] | None:
    size = value[0].numel()
    if columns is not None:
        return columns
    if labels.columns is not None and (size <= MAX_COLUMNS or not labels.cells):
        alone = len(observed) == 1
        return labels.columns if alone else [f"{plain(site)}_{c}" for c in labels.columns]
    if size > MAX_COLUMNS:
        return None
    return [plain(site)] if size == 1 else [f"{plain(site)}_{i}" for i in range(size)]


def _must_name(columns: Sequence[str], observed: Mapping[str, Tensor]) -> None:
    if len(observed) > 1:
        raise ValueError(
            f"Got columns for the observed sites {list(observed)}; expected a single site. "
            "Try None: each site's columns are then numbered, or named by its own DataFrame."
        )
    (value,) = observed.values()
    if len(columns) != (size := value[0].numel()):
        raise ValueError(
            f"Got {len(columns)} column names; expected {size}, one for each column. Try columns=, "
            "or an array, whose columns are numbered."
        )


def _whole(values: Array, mass: bool) -> Array:
    """Counts and classes as integers: ArviZ goes by the dtype. NaN, where missing, stays a float.

    Its predictive plots rank integers at random among equal ones, and floats below them all.
    """
    return values.astype(np.int64) if mass and (values == np.rint(values)).all() else values
