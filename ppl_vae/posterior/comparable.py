"""When two log evidences may be compared: of the same data, under the same kind of measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.programs.describe import Line


class Measured(NamedTuple):
    """What a log evidence is a number of: one observed site.

    Attributes:
        site: Its name, for messages: sites are told apart by their data.
        data: Digest of the values observed, row by row, to float32: cells in the same order count
            as the same data, whatever the shape of an event.
        measure: As in `Line`; None where the distribution does not say its support.
        family: The distribution, which stands in for a measure that is not known.
    """

    site: str
    data: str
    measure: str | None
    family: str

    @property
    def kind(self) -> str:
        """The measure in few words: "density", "mass"; of a table of both, which one where."""
        if self.measure is None:
            return f"unknown measure of {self.family}"
        return self.measure if "," not in self.measure else f"mixed {_hash(self.measure.encode())}"


def measured(lines: Sequence[Line], observations: Mapping[str, ArrayLike]) -> tuple[Measured, ...]:
    """Say what the evidence of a program is a number of.

    Args:
        lines: The program in words, from `describe`.
        observations: What each observed site was given, ``(N, *event)``; NaN where missing.

    Example:
        >>> normal = Line("likelihood", "x", ("z",), "Normal", "density")
        >>> one, log = (measured([normal], {"x": v}) for v in ([1.0, 2.0], [0.0, 0.7]))
        >>> one[0].kind, incomparable(one, log)
        ('density', 'they are not on the same data')
    """
    likelihoods = {line.site: line for line in lines if line.role == "likelihood"}
    return tuple(
        Measured(site, _digest(values), likelihoods[site].measure, likelihoods[site].family)
        for site, values in observations.items()
    )


def incomparable(one: Sequence[Measured], other: Sequence[Measured]) -> str | None:
    """Say why two evidences may not be compared; None where they may.

    They may where both observe the same: as many sites, each with the same data under the same
    kind of measure. Other data are also the same data in other units, or under a transform: a
    density changes by the Jacobian.
    """
    if len(one) != len(other):
        there, here = (", ".join(m.site for m in sites) for sites in (one, other))
        return f"they do not observe the same ({there} there and {here} here)"
    for a, b in zip(_by_data(one), _by_data(other), strict=True):
        if a.data != b.data:
            return "they are not on the same data"
        if a.kind == b.kind:
            continue
        if a.measure is None or b.measure is None:
            return f"whether each has a density or a mass at {a.site} is not known"
        if {a.measure, b.measure} == {"density", "mass"}:
            return "one is a density, the other a probability mass"
        return "a cell is a density in one, a probability mass in the other"
    return None


def kind(sites: Sequence[Measured]) -> str:
    """Put it in one short line that is the same for evidences that may be compared, and no others.

    Example:
        >>> kind(measured([Line("likelihood", "x", ("z",), "Poisson", "mass")], {"x": [1, 2]}))
        'evidence (mass, data 8446b1815d43)'
    """
    ordered = _by_data(sites)
    data = (
        ordered[0].data if len(ordered) == 1 else _hash("".join(m.data for m in ordered).encode())
    )
    return f"evidence ({' and '.join(m.kind for m in ordered)}, data {data})"


def _by_data(sites: Sequence[Measured]) -> list[Measured]:
    return sorted(sites, key=lambda m: (m.data, m.kind))


def _digest(values: ArrayLike) -> str:
    given = np.asarray(values, dtype=np.float64)
    flat = given.reshape(len(given), int(np.prod(given.shape[1:])))
    with np.errstate(over="ignore"):
        rounded = flat.astype(np.float32) + np.float32(0)  # as programs of either dtype have it
    rounded[np.isnan(rounded)] = np.nan  # there are many, as there are two zeros
    return _hash(repr(rounded.shape).encode() + rounded.tobytes())


def _hash(given: bytes) -> str:
    return blake2b(given, digest_size=6).hexdigest()
