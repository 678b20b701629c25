"""Data as tensors: cast once, held in memory, taken by index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

ROWS = 4096  # looked at together: a check makes nothing of the data's size


class Batch(NamedTuple):
    """What is passed to model and guide, ``model(*args, **kwargs)``: row i of each is datum i."""

    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (*self.args, *self.kwargs.values())

    @property
    def rows(self) -> int:
        """Number of data."""
        return len(self.tensors[0])

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.tensors[0].device

    def take(self, index: Tensor) -> Batch:
        """Give the rows of `index`, an integer tensor ``(B,)``."""
        # index_select takes whole rows, several times as fast as indexing.
        return Batch(
            tuple(a.index_select(0, index) for a in self.args),
            {k: v.index_select(0, index) for k, v in self.kwargs.items()},
        )


def first_gap(batch: Batch) -> tuple[int | str, int, tuple[int, ...]] | None:
    """Give the argument, row and cell of the first NaN or infinity, by place or name; None without.

    Example:
        >>> first_gap(Batch((), {"x": torch.tensor([[1.0, 2.0], [3.0, torch.nan]])}))
        ('x', 1, (1,))
    """
    named: list[tuple[int | str, Tensor]] = [*enumerate(batch.args), *batch.kwargs.items()]
    for key, value in named:
        for start in range(0, len(value), ROWS):
            bad = ~value[start : start + ROWS].isfinite()
            if bad.any():
                row, *cell = bad.nonzero()[0].tolist()
                return key, start + row, tuple(cell)
    return None


def as_batch(
    data: Any,  # noqa: ANN401
    *,
    dtype: torch.dtype,
    device: torch.device,
    keep_tensors: bool = False,
    name: str = "data",
) -> Batch:
    """Cast arrays to tensors of one dtype on one device.

    Floating, integer and boolean arrays become `dtype`. A float may be rounded by up to a
    thousandth of its column's standard deviation; a cast that loses more, loses an integer or
    overflows is refused.

    Args:
        data: An array, tensor or DataFrame; a tuple of them (positional arguments of model and
            guide); or a dict (keyword arguments).
        dtype: A floating dtype.
        device: Where the tensors go.
        keep_tensors: Leave the dtype of tensors as it is, and cast arrays only.
        name: What the error messages call it.

    Raises:
        ValueError: If there is no row, lengths differ, or an array is not numeric or does not
            fit `dtype`.

    Example:
        >>> batch = as_batch(np.eye(3), dtype=torch.float32, device=torch.device("cpu"))
        >>> batch.rows, batch.args[0].dtype
        (3, torch.float32)
    """
    named: dict[str, Any]
    if isinstance(data, Batch):
        return data
    if isinstance(data, Mapping):
        named = {str(k): v for k, v in data.items()}
    elif isinstance(data, tuple):
        named = {f"{name}[{i}]": v for i, v in enumerate(data)}
    else:
        named = {name: data}
    if not named:
        raise ValueError(
            f"Got an empty {type(data).__name__} as {name}; expected at least one array. "
            "Try the array itself."
        )
    tensors = {k: _cast(v, k, dtype, device, keep_tensors) for k, v in named.items()}
    lengths = {k: len(v) for k, v in tensors.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"Got arrays of different lengths in {name}: {lengths}; expected one row per datum in "
            "each. Try cutting them to a common length."
        )
    indexed = {k: v.index for k, v in named.items() if hasattr(v, "iloc")}
    for key, index in indexed.items():
        first, other = next(iter(indexed.items()))
        if not index.equals(other):
            raise ValueError(
                f"Got pandas objects with different indexes in {name}, {first!r} and {key!r}; "
                f"expected the same rows in the same order. Try {key}.loc[{first}.index], or "
                ".to_numpy() where rows go by their places."
            )
    if not min(lengths.values()):
        shapes = [tuple(v.shape) for v in tensors.values()]
        raise ValueError(
            f"Got no rows in {name} (shape {', '.join(map(str, shapes))}); expected at least one "
            "datum. Try looking at how the rows were selected."
        )
    if isinstance(data, Mapping):
        return Batch((), tensors)
    return Batch(tuple(tensors.values()), {})


def columns_of(data: Any) -> dict[str, tuple[str, ...]]:  # noqa: ANN401
    """Name the columns of each argument that is a DataFrame: arrays do not know theirs.

    The first argument is called x, whether or not it is passed by that name.

    Example:
        >>> import pandas as pd
        >>> columns_of((pd.DataFrame({"age": [1.0], "dose": [2.0]}), np.eye(1)))
        {'x': ('age', 'dose')}
    """
    positional = {"x" if k == 0 else str(k): v for k, v in enumerate(_as_tuple(data))}
    named = data if isinstance(data, Mapping) else positional
    return {str(k): tuple(map(str, v.columns)) for k, v in named.items() if hasattr(v, "columns")}


def refuse_other_columns(
    known: Mapping[str, tuple[str, ...]],
    given: Mapping[str, tuple[str, ...]],
    name: str,
    where: str = "training",
) -> None:
    """Refuse DataFrames whose columns are not those of training, in their order.

    Raises:
        ValueError: With the first column that differs.
    """
    for key, columns in given.items():
        trained = known.get(key, columns)
        if len(trained) != len(columns) or trained == columns:
            continue  # the shape is refused elsewhere
        got, expected = next((a, b) for a, b in zip(columns, trained, strict=True) if a != b)
        raise ValueError(
            f"Got the column {got!r} in {name} where {where} has {expected!r}; expected the "
            f"columns {list(trained)[:6]}{'…' if len(trained) > 6 else ''} in this order. Try "
            f"selecting the columns of {where}, or .to_numpy() if only the names differ."
        )


def _as_tuple(data: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return data if isinstance(data, tuple) else (data,)


def as_numbers(value: Any, name: str) -> Tensor:  # noqa: ANN401
    """Cast a number, list or array that a part is built from to torch's default dtype.

    Raises:
        ValueError: If it is not made of real numbers.

    Example:
        >>> as_numbers([1, 2], "weights")
        tensor([1., 2.])
    """
    try:
        return torch.as_tensor(value, dtype=torch.get_default_dtype())
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Got {name}={value!r}; expected numbers. Try a tensor, or a list of numbers."
        ) from error


def _cast(
    value: Any,  # noqa: ANN401
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    keep_tensors: bool,
) -> Tensor:
    tensor = value.detach() if isinstance(value, Tensor) else _numeric(value, name)
    if tensor.layout != torch.strided:
        raise ValueError(
            f"Got a tensor of layout {tensor.layout} as {name}; expected a dense one. "
            "Try x.to_dense()."
        )
    if tensor.is_complex():
        raise ValueError(
            f"Got complex numbers in {name}; expected real ones. "
            "Try np.stack([x.real, x.imag], axis=-1)."
        )
    if tensor.dim() == 0:
        raise ValueError(
            f"Got a single number as {name}; expected an array with one row per datum. "
            "Try x.reshape(1, -1) for a single datum."
        )
    if keep_tensors and isinstance(value, Tensor):
        return tensor.to(device)
    whole = not tensor.is_floating_point()
    cast = tensor.to(dtype)
    pieces = list(zip(tensor.split(ROWS), cast.split(ROWS), strict=True))
    if whole and not all(torch.equal(b.to(a.dtype), a) for a, b in pieces):
        raise ValueError(
            f"Got integers in {name} beyond {2 / torch.finfo(dtype).eps:.0f}; expected ones that "
            f"{dtype} holds exactly. Try program.double(), or floats if rounding is meant."
        )
    if not whole and not all(torch.equal(a.isfinite(), b.isfinite()) for a, b in pieces):
        raise ValueError(
            f"Got values up to {tensor[tensor.isfinite()].abs().max().item():g} in {name}, which "
            f"overflow; expected values that {dtype} holds. Try rescaling them, or "
            "program.double()."
        )
    if not whole and torch.finfo(dtype).eps > torch.finfo(tensor.dtype).eps and len(tensor) > 1:
        parts = [(a - b.to(a.dtype)).abs().nan_to_num().amax(0) for a, b in pieces]
        lost = torch.stack(parts).amax(0)
        spread = tensor.std(0)
        if spread.isnan().any():  # cells are missing
            spread = torch.as_tensor(np.nanstd(tensor.cpu().numpy(), axis=0), device=tensor.device)
        # A constant has a spread too, by the rounding of its mean.
        low, high = tensor.nan_to_num(torch.inf).amin(0), tensor.nan_to_num(-torch.inf).amax(0)
        if bool((lost > 1e-3 * spread.nan_to_num()).logical_and(low < high).any()):
            raise ValueError(
                f"Got values in {name} that {dtype} rounds by more than a thousandth of their "
                "standard deviation (a small spread at a large offset); expected ones that survive "
                "the cast. Try subtracting the mean, or program.double()."
            )
    return cast.to(device)


def _numeric(value: Any, name: str) -> Tensor:  # noqa: ANN401
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        value = np.ma.filled(value.astype(np.float64), np.nan)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged rows, and what numpy refuses
        raise ValueError(
            f"Got a {type(value).__name__} as {name} that is no array ({error}); expected rows of "
            "one shape. Try torch.stack(rows), or padding them to one length."
        ) from error
    if array.ndim == 0 and array.dtype.kind not in "fiubc":
        raise ValueError(
            f"Got a {type(value).__name__} as {name}; expected an array, a tensor or a DataFrame, "
            "or a tuple or dict of them. Try np.asarray(...), or .toarray() of a sparse matrix."
        )
    types: Any = getattr(value, "dtypes", None)
    columns = (
        [str(c) for c, t in types.items() if getattr(t, "kind", "O") not in "fiub"]
        if hasattr(types, "items")
        else []
    )
    if array.dtype.kind == "O" and hasattr(types, "items") and not columns:
        # Columns of different kinds, each numeric: booleans beside floats, pandas' nullable ones.
        array = value.to_numpy(dtype=np.float64, na_value=np.nan)
    if array.dtype.kind not in "fiubc":
        raise ValueError(
            f"Got {name} of dtype {array.dtype}{f' (columns {columns})' if columns else ''}; "
            "expected numbers. Try leaving text out, or encoding categories as integers."
        )
    if array.dtype.kind == "f" and array.dtype.itemsize not in (2, 4, 8):
        array = array.astype(np.float64)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), copy=True))
