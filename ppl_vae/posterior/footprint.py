"""How much memory a piece of work takes, counted in the tensors that it makes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.overrides import TorchFunctionMode


class Footprint(TorchFunctionMode):
    """Counts the bytes of tensors that live at once, among those that torch's functions return.

    What a function takes inside and gives back before it returns is not seen.

    Attributes:
        peak: The most so far.

    Example:
        >>> x = torch.ones(1000)  # 4000 bytes, made before
        >>> with Footprint() as footprint:
        ...     y = ((x + 1) * 2).view(10, 100).sum(0)
        >>> footprint.peak  # the sum and its double; a view is no tensor more
        8000
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._living: set[int] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Call, and count what comes back."""
        given = [v for v in (*args, *(kwargs or {}).values()) if isinstance(v, Tensor)]
        before = {v.data_ptr() for v in map(_storage, given) if v is not None}
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, tuple | list) else (found,):
            if isinstance(value, Tensor) and (storage := _storage(value)) is not None:
                self._count(storage, before)
        return found

    def _count(self, storage: UntypedStorage, before: set[int]) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if place in before or place in self._living:  # a view, or changed in place
            return
        self._living.add(place)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._living.discard(place)
        self._now -= size


def _storage(tensor: Tensor) -> UntypedStorage | None:
    """Give what a tensor lies in; None where it lies in no piece of memory of its own."""
    if tensor.layout is not torch.strided:
        return None
    try:
        storage = tensor.untyped_storage()
        storage.data_ptr()
    except (NotImplementedError, RuntimeError):  # inside torch.vmap, for one
        return None
    return storage
