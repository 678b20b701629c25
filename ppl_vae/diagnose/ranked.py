"""What ranks of several quantities say: how far the farthest is, and what chance does."""

from __future__ import annotations

from ppl_vae.diagnose.finding import Grade
from ppl_vae.diagnostics import Calibration

LEVEL = 0.05
STRONG = 0.1
"""Distance of two distribution functions: of a scale that is off by a third."""


def grade_of(c: Calibration) -> Grade:
    """Judge by the size of what was rejected; where nothing was, by what could have been seen."""
    if c.p_value > LEVEL:
        return "unknown" if chance_of(c, farthest_of(c)) > 2 * STRONG else "good"
    return "bad" if c.tests[farthest_of(c)].deviation > STRONG else "look"


def farthest_of(c: Calibration) -> str:
    """Name the quantity that is farthest off, among those that are rejected if any is."""
    rejected = [n for n in c.tests if c.p_values[n] <= LEVEL]
    return max(rejected or c.tests, key=lambda n: c.tests[n].deviation)


def chance_of(c: Calibration, name: str) -> float:
    """Give how far chance takes an ECDF: half the width of its band at its widest."""
    test = c.tests[name]
    return float((test.high - test.low).max() / 2)
