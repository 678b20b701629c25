"""Whether an amortised guide is calibrated, on average over data that its program simulates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.uniformity import Uniformity, uniformity


@dataclass(frozen=True, eq=False)
class Calibration:
    """Simulation-based calibration: one uniformity test a quantity, and their verdict together.

    Attributes:
        tests: By the name of the quantity.
        p_values: Adjusted for how many there are (Holm 1979): the chance that a calibrated guide
            has any as small.
        num_draws: Draws S that the truth was ranked among.
        contraction: 1 − mean_x Var(z_d|x) / Var(z_d), by unit: 0 where the guide is the prior,
            which is calibrated and says nothing.
        num_data: How many data.
        ranks: By the name of the quantity, ``(N,)``: what was tested.
    """

    tests: Mapping[str, Uniformity]
    p_values: Mapping[str, float]
    num_draws: int
    contraction: Mapping[str, float]
    num_data: int
    ranks: Mapping[str, NDArray[np.int64]]

    def __repr__(self) -> str:
        return (
            f"Calibration(N={self.num_data}, {len(self.tests)} tests, {self.num_draws} draws; p = "
            f"{self.p_value:.2g}, worst {self.worst}: ECDF off by "
            f"{self.tests[self.worst].deviation:.2f})"
        )

    @property
    def p_value(self) -> float:
        """Of all tests together."""
        return min(self.p_values.values())

    @property
    def worst(self) -> str:
        """The quantity whose test has the smallest p-value; of equal ones the farthest."""
        return min(self.tests, key=lambda n: (self.tests[n].p_value, -self.tests[n].deviation))


def calibration(
    ranks: Mapping[str, ArrayLike],
    *,
    num_draws: int,
    contraction: Mapping[str, float] | None = None,
    level: float = 0.95,
) -> Calibration:
    """Test ranks of several quantities for uniformity, each alone and all together.

    Of the units of z alone a guide equal to the prior passes, and one that ignores correlations:
    add log p(x|z), which sees both (Modrák et al. 2023, Simulation-based calibration checking for
    Bayesian computation: the choice of test quantities shapes sensitivity, arXiv:2211.02383), and
    log q(z|x), whose ranks are those of highest-density regions: expected coverage.

    Args:
        ranks: By name, ``(N,)`` each, from `ranks` and `tarp_ranks`; fewer where a quantity is not
            known of all data.
        num_draws: S.
        contraction: By unit, to be read beside.
        level: Of the bands of the single tests.

    Raises:
        ValueError: If there are none, or they lie outside 0 to S.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> low, even = rng.binomial(99, 0.3, size=200), rng.integers(0, 100, size=200)
        >>> found = calibration({"z[0]": low, "z[1]": even}, num_draws=99)
        >>> found.worst, found.p_value < 1e-9, found.p_values["z[1]"] > 0.01
        ('z[0]', True, True)
    """
    if not ranks:
        raise ValueError(
            "ranks: got none, expected those of one quantity or more. Try {'z': ranks(...)[:, 0]}."
        )
    tests = {n: uniformity(r, num_draws=num_draws, level=level) for n, r in ranks.items()}
    return Calibration(
        tests,
        holm({n: t.p_value for n, t in tests.items()}),
        num_draws,
        contraction or {},
        max(t.num_data for t in tests.values()),
        {n: np.asarray(r, dtype=np.int64) for n, r in ranks.items()},
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values of several tests: the family-wise error rate stays, whatever depends on what.

    Holm 1979 (A simple sequentially rejective multiple test procedure).

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted, largest = {}, 0.0
    for k, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - k) * p))
        adjusted[name] = largest
    return adjusted
