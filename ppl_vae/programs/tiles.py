"""How draws of data are cut into runs, all of one shape: noise goes by it, and not by memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 4096
FEW = 8  # data that a run holds at least, where there are so many


class Tiles(NamedTuple):
    """Runs of `data` × `draws` rows, the same for all data: `chunks` × `pieces` of them.

    What is left over at the end of data and draws is filled up and thrown away: a shape of its own
    would have to be compiled for it. That is below one datum a chunk, and one draw a piece.

    Attributes:
        data: Different data of a run.
        draws: Draws of each datum in a run.
        chunks: Parts of the data.
        pieces: Runs until a chunk has all its draws.
        rows: N.
        num_samples: S.
    """

    data: int
    draws: int
    chunks: int
    pieces: int
    rows: int
    num_samples: int

    def chunk(self, k: int, device: torch.device) -> tuple[Tensor, slice]:
        """Which data a chunk runs on, ``(data,)``, and where those it counts for are among all."""
        at = slice(k * self.data, min((k + 1) * self.data, self.rows))
        index = torch.arange(at.start, at.start + self.data, device=device)
        return index.clamp_(max=self.rows - 1), at

    def piece(self, k: int) -> slice:
        """Which draws a piece gives."""
        return slice(k * self.draws, min((k + 1) * self.draws, self.num_samples))


def tiles(data: int, num_samples: int, rows: int = ROWS) -> Tiles:
    """Cut S draws of each of N data into runs of at most `rows` rows.

    Raises:
        ValueError: If `num_samples` or `rows` is not a positive integer.

    Example:
        >>> t = tiles(10_000, 5000)
        >>> t.data, t.draws, t.chunks, t.pieces
        (8, 500, 1250, 10)
    """
    for name, value in {"num_samples": num_samples, "rows": rows}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Got {name}={value!r}; expected a positive integer. Try {name}=500.")
    together = min(data, rows, max(FEW, rows // num_samples))
    chunks = -(-data // together)
    together = -(-data // chunks)
    pieces = -(-num_samples // max(1, rows // together))
    return Tiles(together, -(-num_samples // pieces), chunks, pieces, data, num_samples)
