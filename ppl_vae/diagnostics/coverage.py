"""Whether codes are everywhere where a prior draws: by balls around codes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.arrays import Floats, as_sample

BLOCK = 1024  # rows of the matrix of distances held at a time


class Coverage(NamedTuple):
    """How much of a prior lies among codes.

    Attributes:
        share: Of the prior's draws, those inside a ball around a code.
        se: Its standard error over draws of the prior, at these codes.
        reference: The same share with other draws of the prior in the codes' place: what codes of
            the very law of the prior would show.
        reference_se: Its standard error.
        distances: Of each of the prior's draws from the code whose ball is the nearest, in radii
            of that ball: above 1 where it lies in a hole, infinite where balls have no size,
            ``(M,)``.
        neighbours: k, the code at which a ball ends.
        num_codes: Codes N.
    """

    share: float
    se: float
    reference: float
    reference_se: float
    distances: NDArray[np.float64]
    neighbours: int
    num_codes: int

    @property
    def holes(self) -> NDArray[np.int64]:
        """The prior's draws that lie in no ball, the farthest first."""
        order = np.argsort(-self.distances)
        return order[self.distances[order] > 1]

    def __repr__(self) -> str:
        return (
            f"Coverage(N={self.num_codes}; {self.share:.1%} ± {self.se:.1%} of the prior's draws "
            f"among codes; {self.reference:.1%} ± {self.reference_se:.1%} among its own)"
        )


def coverage(
    prior: ArrayLike, codes: ArrayLike, again: ArrayLike, *, neighbours: int = 5
) -> Coverage:
    """Give the share of a prior's draws inside the balls around codes, to the k-th nearest code.

    Coordinates are taken in units of the prior's standard deviation. The recall of Kynkäänniemi et
    al. 2019 (arXiv:1904.06991, eq. 1; number recalled, not checked), with the prior in the place of
    real data. A draw outside all balls lies in a hole: the decoder is asked there for what it never
    learned. Balls of an outlier are large, so that a high share is no proof of a match (`match` is
    made for that), but a share below the reference is holes.

    Args:
        prior: Draws z ~ p(z).
        codes: One z ~ q(z|x) for each of N different data.
        again: Other draws z ~ p(z), as many as codes.
        neighbours: k: a ball around a code ends at its k-th nearest other code.

    Shapes:
        prior ``(M, D)``, codes and again ``(N, D)``.

    Raises:
        ValueError: On anything not finite, different D, sizes that differ between codes and again,
            or fewer than k + 1 codes.

    Example:
        >>> z = np.random.default_rng(0).standard_normal((1500, 2))
        >>> coverage(z[:500], z[500:1000], z[1000:]).share > 0.95
        True
        >>> coverage(z[:500], np.abs(z[500:1000]), z[1000:]).share < 0.7
        True
    """
    if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
        raise ValueError(f"neighbours: got {neighbours!r}, expected a positive integer. Try 5.")
    least = neighbours + 1
    points = as_sample(prior, "prior", 2)
    centres, other = as_sample(codes, "codes", least), as_sample(again, "again", least)
    if not points.shape[1] == centres.shape[1] == other.shape[1] or len(centres) != len(other):
        raise ValueError(
            f"got prior, codes and again of shapes {points.shape}, {centres.shape} and "
            f"{other.shape}; expected one width, and as many again as codes. Try draws of the same "
            "latents in the same order."
        )
    # In units of the prior's own spread: a ball in other units would see the widest unit alone.
    spread = np.concatenate([points, other]).std(0)
    spread = np.where(spread > 0, spread, 1.0)
    points, centres, other = points / spread, centres / spread, other / spread
    distances = _in_radii(points, centres, neighbours)
    share = float(np.mean(distances <= 1))
    reference = float(np.mean(_in_radii(points, other, neighbours) <= 1))
    return Coverage(
        share=share,
        se=_se(share, len(points)),
        reference=reference,
        reference_se=_se(reference, len(points)),
        distances=distances,
        neighbours=neighbours,
        num_codes=len(centres),
    )


def _in_radii(points: Floats, centres: Floats, neighbours: int) -> Floats:
    """Give the least distance of each point from a centre, in radii of that centre's ball."""
    from scipy.spatial.distance import cdist

    radii = np.concatenate(
        [
            np.partition(cdist(centres[s : s + BLOCK], centres), neighbours, axis=1)[:, neighbours]
            for s in range(0, len(centres), BLOCK)
        ]
    )  # the 0th is the centre itself
    # Balls of equal codes (classes, a collapsed guide) have no size, and hold themselves alone.
    found = []
    for start in range(0, len(points), BLOCK):
        apart = cdist(points[start : start + BLOCK], centres)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(apart == 0, 0.0, apart / radii)
        found.append(ratios.min(axis=1))
    return np.concatenate(found)


def _se(share: float, count: int) -> float:
    return float(np.sqrt(share * (1 - share) / count))
