"""Names of rows, columns and cells that data bring along: DataFrames, and arrays of xarray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Labels(NamedTuple):
    """What the axes of an observed site are called.

    Attributes:
        row: The dim of the data: that of a DataArray, the name of a DataFrame's index, or "row".
        rows: One label for each datum; None where nothing tells them apart.
        columns: One name for each cell, of a table whose columns have names.
        cells: Of each dim of an event its name and labels, of a DataArray.
    """

    row: str = "row"
    rows: NDArray[Any] | None = None
    columns: tuple[str, ...] | None = None
    cells: tuple[tuple[str, NDArray[Any]], ...] = ()

    def axes(self, values: Tensor) -> tuple[tuple[str, NDArray[Any]], ...]:
        """Give name and labels of each axis of an event: numbers, where it has none."""
        sizes = values.shape[1:]
        return self.cells or tuple((f"dim_{i}", np.arange(n)) for i, n in enumerate(sizes, 1))


def labels_of(data: Any, values: Tensor) -> Labels:  # noqa: ANN401
    """Find the names that belong to an observed site.

    They are those of the argument that has the site's shape, and of several such of the one whose
    values the site has. Rows are named by any argument.

    Args:
        data: Data as `fit` takes them.
        values: What the site was given, ``(N, *event)``.

    Example:
        >>> import pandas as pd, torch
        >>> table = pd.DataFrame({"a": [1.0, 2.0], "b/c": [3.0, 4.0]}, index=["r", "s"])
        >>> labels_of({"x": table}, torch.tensor(table.to_numpy())).columns
        ('a', 'b_c')
    """
    given = [a for a in _arguments(data) if hasattr(a, "shape") and len(a) == len(values)]
    own = [a for a in given if a.shape == values.shape]
    if len(own) > 1:
        own = [a for a in own if _same(a, values)]
    own = [a for a in own if _is_named(a)][:1]
    first = next((a for a in (*own, *given) if _is_named(a)), None)
    if first is None:
        return Labels()
    row, index = _dim(first, 0)
    labels = Labels(row, None if index is None else _told_apart(index))
    if not own:
        return labels
    if hasattr(first, "columns"):
        return labels._replace(columns=tuple(plain(c) for c in first.columns))
    if not hasattr(first, "dims") or first.ndim < 2:
        return labels
    axes = [_dim(first, axis) for axis in range(1, first.ndim)]
    sizes = first.shape[1:]
    cells = tuple(
        (name, np.arange(n) if index is None else as_coordinate(index))
        for (name, index), n in zip(axes, sizes, strict=True)
    )
    named = first.ndim == 2 and axes[0][1] is not None
    columns = tuple(plain(c) for c in axes[0][1]) if named else None
    return labels._replace(columns=columns, cells=cells)


def plain(name: object) -> str:
    """Give a name without slashes, which a tree takes for a path."""
    return str(name).replace("/", "_")


def as_coordinate(index: Any) -> NDArray[Any]:  # noqa: ANN401
    """Give a pandas index as an array that can be saved: netCDF knows no objects."""
    labels: NDArray[Any] = index.to_numpy()
    return labels.astype(str) if labels.dtype == object else labels


def _arguments(data: Any) -> Iterable[Any]:  # noqa: ANN401
    if isinstance(data, Mapping):
        return data.values()
    return data if isinstance(data, tuple) else (data,)


def _is_named(argument: Any) -> bool:  # noqa: ANN401
    """Whether it is of pandas, or of xarray."""
    return hasattr(argument, "iloc") or hasattr(argument, "indexes")


def _same(argument: Any, values: Tensor) -> bool:  # noqa: ANN401
    """Whether the site has these values, where it has any."""
    with np.errstate(over="ignore"):
        given, seen = (_numbers(v) for v in (argument, values))
    return bool(((given == seen) | np.isnan(seen)).all())


def _numbers(argument: Any) -> NDArray[np.float32]:  # noqa: ANN401
    if isinstance(argument, Tensor):
        argument = argument.detach().double().cpu()
    elif hasattr(argument, "iloc"):  # pandas' own types know missing cells by another name
        argument = argument.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(argument).astype(np.float32)


def _dim(argument: Any, axis: int) -> tuple[str, Any]:  # noqa: ANN401
    """The name of an axis, and its index if there is one."""
    if hasattr(argument, "iloc"):
        index, name = argument.index, argument.index.name
    else:
        index, name = argument.indexes.get(argument.dims[axis]), argument.dims[axis]
    default = "row" if axis == 0 else f"dim_{axis}"
    return plain(name) if name not in (None, f"dim_{axis}") else default, index


def _told_apart(index: Any) -> NDArray[Any] | None:  # noqa: ANN401
    return as_coordinate(index) if index.nlevels == 1 and index.is_unique else None
