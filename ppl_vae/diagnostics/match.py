"""Whether the codes of all data together have the law of the prior: effect sizes, then p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from ppl_vae.diagnostics.arrays import as_sample
from ppl_vae.diagnostics.calibration import holm
from ppl_vae.diagnostics.two_sample import (
    ClassifierTest,
    MMDTest,
    classifier_two_sample,
    mmd_test,
)

LEAST = 20
"""Draws that each side needs."""


@dataclass(frozen=True, eq=False)
class Match:
    """How far q(z) = E_x q(z|x) is from p(z).

    Attributes:
        mmd: A kernel's: blind to nothing, strong in few dimensions.
        classifier: A classifier's: its accuracy says what the difference means.
        units: Kolmogorov-Smirnov distance of each unit, by name, 0 to 1.
        unit_p_values: Of those, adjusted for how many there are (Holm).
        p_value: Of all of them together (Holm).
        num_data: Draws of either side.
    """

    mmd: MMDTest
    classifier: ClassifierTest
    units: dict[str, float]
    unit_p_values: dict[str, float]
    p_value: float
    num_data: int

    def __repr__(self) -> str:
        low, high = self.mmd.interval()
        return (
            f"Match(N={self.num_data}; MMD² {low:.2g} to {high:.2g}; told apart in "
            f"{self.classifier.accuracy:.1%}, chance 50%; p = {self.p_value:.2g})"
        )


def match(
    codes: ArrayLike,
    prior: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    permutations: int = 200,
    seed: int,
) -> Match:
    """Test whether codes and draws of the prior have one law: by a kernel, a classifier, each unit.

    A powerful test rejects every trained model: read the effect sizes first. For a VAE the
    mismatch is part of the rate (see `information`); for an adversarial autoencoder it is what the
    critic was to remove, and a critic at its wits' end is no evidence that it has.

    Args:
        codes: One z ~ q(z|x) for each of N different data that took no part in training.
        prior: As many z ~ p(z).
        names: Of the units; z[0], z[1] and so on.
        permutations: Of the kernel's test: no p-value is below one over that.
        seed: Of permutations and classifier.

    Shapes:
        codes ``(N, D)``, prior ``(M, D)``, both of at least 20 rows.

    Raises:
        ValueError: On anything not finite, different D, or too few rows.

    Example:
        >>> import numpy as np
        >>> z = np.random.default_rng(0).standard_normal((400, 3))
        >>> found = match(z[:200] + [0, 1, 0], z[200:], seed=0)
        >>> max(found.units, key=found.units.get), found.p_value < 0.01
        ('z[1]', True)
    """
    from scipy.stats import ks_2samp

    first, second = (as_sample(v, name, LEAST) for name, v in (("codes", codes), ("prior", prior)))
    mmd = mmd_test(first, second, permutations=permutations, seed=seed)
    classifier = classifier_two_sample(first, second, seed=seed)
    labels = [f"z[{d}]" for d in range(first.shape[1])] if names is None else list(names)
    if len(labels) != first.shape[1]:
        raise ValueError(
            f"names: got {len(labels)} for {first.shape[1]} units, expected one each. Try None."
        )
    found = {n: ks_2samp(a, b) for n, a, b in zip(labels, first.T, second.T, strict=True)}
    units = holm({n: float(f.pvalue) for n, f in found.items()})
    together = holm(
        {"mmd": mmd.p_value, "classifier": classifier.p_value, "units": min(units.values())}
    )
    return Match(
        mmd,
        classifier,
        {n: float(f.statistic) for n, f in found.items()},
        units,
        min(together.values()),
        len(first),
    )
