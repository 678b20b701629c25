"""Where a guide loses: to its network, to its family, or to both."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ppl_vae.diagnostics import Evidence, evidence
from ppl_vae.posterior.draws import as_array
from ppl_vae.posterior.refine import refine
from ppl_vae.programs.log_weights import log_weights

Floats = NDArray[np.float64]


class Gaps(NamedTuple):
    """log p(x) − ELBO(x) = amortisation + correlation + remainder, in nats; arrays are ``(N,)``.

    Each with its Monte-Carlo standard error. The first two are short of the truth by what the local
    steps left undone, and the last is too large by the same; it is also short by the bias of log
    p̂(x).

    Attributes:
        amortisation: What local steps within the guide's family gain for each datum.
        correlation: What a full covariance gains on top.
        remainder: KL(q ‖ p(z|x)) of the best of those: what no Gaussian-like guide can say.
        evidence: log p̂(x) under the last guide, with its interval and k-hat.
    """

    amortisation: Floats
    amortisation_se: Floats
    correlation: Floats
    correlation_se: Floats
    remainder: Floats
    remainder_se: Floats
    evidence: Evidence

    @property
    def approximation(self) -> Floats:
        """What the family costs: correlation + remainder."""
        return self.correlation + self.remainder

    def __repr__(self) -> str:
        parts = (
            f"{name} {values.mean():.3f}"
            for name, values in (
                ("amortisation", self.amortisation),
                ("correlation", self.correlation),
                ("remainder", self.remainder),
            )
        )
        return f"Gaps(N={len(self.remainder)}; nats per datum: {', '.join(parts)})"


def gaps(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    steps: int = 500,
    num_samples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Gaps:
    """Split log p(x) − ELBO(x) by datum: is it the network's fault, or the family's?

    *Inference Suboptimality in Variational Autoencoders* (Cremer et al., 2018, arXiv:1801.03558):
    the guide is refined for each datum, first within its family (a shift and a scale for each
    coordinate, which keeps independent ones so), then with a full covariance. A large first gap
    asks for a larger encoder or longer training, a large second one for `MultivariateNormal`, a
    large last one for `ConditionalFlow`.

    Args:
        program: A `VAE` or `Program` whose guide has a density.
        x: Data: some hundred rows.
        steps: Local steps of each of the two refinements.
        num_samples: Draws of z behind each ELBO and the evidence.
        seed: Of all draws; torch's random state is left as found.
        progress: Show progress bars.

    Raises:
        NoDensityError: As `refine`.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(5, seed=1)
        >>> shifted = Program(world.model, world.broken_guide(shift=1.0))
        >>> found = gaps(shifted, x, steps=100, progress=False)
        >>> bool(found.amortisation.mean() > 0.5), bool(found.remainder.mean() < 0.1)
        (True, True)
    """
    same, full = (
        refine(program, x, steps=steps, correlated=c, seed=seed, progress=progress)
        for c in (False, True)
    )
    own, within, beyond = (
        as_array(log_weights(p, x, num_samples, seed=seed + k))
        for k, p in enumerate((program, same, full), start=1)
    )
    best = evidence(beyond)
    relative = np.exp(beyond - best.log_evidence)  # w / p̂: its errors and those of log w cancel
    return Gaps(
        *_difference(within, own),
        *_difference(beyond, within),
        best.log_evidence - beyond.mean(0),
        (relative - beyond).std(0, ddof=1) / num_samples**0.5,
        best,
    )


def _difference(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Difference of two means over draws, with its standard error."""
    se = np.sqrt((one.var(0, ddof=1) + other.var(0, ddof=1)) / len(one))
    return one.mean(0) - other.mean(0), se
