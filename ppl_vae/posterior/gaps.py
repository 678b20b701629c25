"""Where a guide loses: to its network, to its family, or to both."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import softplus

from ppl_vae.diagnostics import Evidence, evidence, log_mean_interval
from ppl_vae.posterior.draws import as_array, positive
from ppl_vae.posterior.refine import Refined, refine
from ppl_vae.programs.log_weights import log_weights

Floats = NDArray[np.float64]

WIDER = 1.1
"""The guide of largest ELBO is narrower than p(z|x): its own weights would have heavy tails."""

LIMITS = 5
"""What the brackets are made of: ELBO(q) from below and above, three more on one side."""


class Brackets(NamedTuple):
    """Lower and upper ends for the true gaps, in nats: ``(N,)`` each, or floats for a mean.

    Attributes:
        amortisation: max ELBO − ELBO(q), over shifts and scales of q by coordinate: its family,
            where that has a location and a scale of its own for each.
        approximation: log p(x) − that maximum.
        correlation: What the maximum gains by a full covariance.
        remainder: log p(x) − max ELBO, over that larger family.
    """

    amortisation: tuple[Floats, Floats]
    approximation: tuple[Floats, Floats]
    correlation: tuple[Floats, Floats]
    remainder: tuple[Floats, Floats]


class Gaps(NamedTuple):
    """log p(x) − ELBO(x) = amortisation + correlation + remainder, in nats; arrays are ``(N,)``.

    The estimates, each with its Monte-Carlo standard error, are of the guides that local steps
    found; `brackets` are for the best guides that there are.

    Attributes:
        elbo: ``(3, N)``: of the guide, of the best found in its family, of the best found with a
            full covariance.
        elbo_se: ``(3, N)``: their Monte-Carlo standard errors.
        evidence: log p̂(x) under the last guide made a tenth wider, with its interval and k-hat.
        ceiling: Upper limit of log p(x), whatever k-hat says.
        level: With which all brackets of a datum hold at once.
    """

    elbo: Floats
    elbo_se: Floats
    evidence: Evidence
    ceiling: Floats
    level: float

    @property
    def amortisation(self) -> Floats:
        """What local steps within the guide's family gain for each datum."""
        return self.elbo[1] - self.elbo[0]

    @property
    def amortisation_se(self) -> Floats:
        """Its Monte-Carlo standard error."""
        return np.hypot(self.elbo_se[1], self.elbo_se[0])

    @property
    def correlation(self) -> Floats:
        """What a full covariance gains on top."""
        return self.elbo[2] - self.elbo[1]

    @property
    def correlation_se(self) -> Floats:
        """Its Monte-Carlo standard error."""
        return np.hypot(self.elbo_se[2], self.elbo_se[1])

    @property
    def remainder(self) -> Floats:
        """KL(q ‖ p(z|x)) of the best of those: what no Gaussian-like guide can say."""
        return self.evidence.log_evidence - self.elbo[2]

    @property
    def remainder_se(self) -> Floats:
        """Its Monte-Carlo standard error."""
        return np.hypot(self.evidence.se, self.elbo_se[2])

    @property
    def approximation(self) -> Floats:
        """What the family costs: correlation + remainder."""
        return self.evidence.log_evidence - self.elbo[1]

    @property
    def brackets(self) -> Brackets:
        """Of each datum; without an upper end, inf, where its evidence is not `quantified`."""
        known = np.where(self.evidence.quantified, self.ceiling, np.inf)
        return self._brackets(self.elbo, self.elbo_se, known)

    @property
    def mean_brackets(self) -> Brackets:
        """Of the means over the data.

        The errors of the ELBOs average out; the margin of log p̂(x) is averaged as it is, since the
        bias in it does not. Data whose evidence is not `quantified` are among them.
        """
        se = np.sqrt(np.square(self.elbo_se).sum(1)) / self.elbo.shape[1]
        return self._brackets(self.elbo.mean(1), se, self.ceiling.mean())

    def _brackets(self, elbo: Floats, se: Floats, ceiling: Floats) -> Brackets:
        from scipy.special import stdtrit  # slow to import

        margin = stdtrit(self.evidence.num_samples - 1, 1 - (1 - self.level) / LIMITS) * se
        own, within, beyond = elbo - margin
        zero = np.zeros_like(own)
        rest = np.maximum(ceiling - within, 0)
        return Brackets(
            amortisation=(
                np.maximum(within - (elbo + margin)[0], 0),
                np.maximum(ceiling - own, 0),
            ),
            approximation=(zero, rest),
            correlation=(zero, rest),
            remainder=(zero, np.maximum(ceiling - beyond, 0)),
        )

    def __repr__(self) -> str:
        brackets = self.mean_brackets
        parts = (
            f"{name} {values.mean():.3f} [{low:.3f}, {high:.3f}]"
            for name, values, (low, high) in (
                ("amortisation", self.amortisation, brackets.amortisation),
                ("correlation", self.correlation, brackets.correlation),
                ("remainder", self.remainder, brackets.remainder),
            )
        )
        tail = "" if self.evidence.quantified.all() else f"; {self.evidence.tail}"
        return (
            f"Gaps(N={len(self.remainder)}; nats per datum [{self.level:.4g} bracket]: "
            f"{', '.join(parts)}{tail})"
        )


def gaps(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    steps: int = 500,
    num_samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> Gaps:
    """Split log p(x) − ELBO(x) by datum: is it the network's fault, or the family's?

    *Inference Suboptimality in Variational Autoencoders* (Cremer et al., 2018, arXiv:1801.03558):
    the guide is refined for each datum, first within its family (a shift and a scale for each
    coordinate, which keeps independent ones so), then with a full covariance. A large first gap
    asks for a larger encoder or longer training, a large second one for `MultivariateNormal`, a
    large last one for `ConditionalFlow`.

    Local steps may stop short of the best guide of a family, and what they left undone is not known
    from them. What is known, for the maxima over all guides of the two families, is

        ELBO(found) ≤ max ELBO ≤ max ELBO, full covariance ≤ log p(x),

    with ELBO(q) and ELBO(found) estimated without bias. So the amortisation gap lies between
    ELBO(found) − ELBO(q) and log p(x) − ELBO(q), and what the family costs between 0 and
    log p(x) − ELBO(found). `brackets` are these, with limits in place of estimates: from Student's
    t over the draws for the ELBOs, from `log_mean_interval` for log p(x). There are five, of which
    each misses (1 − level)/5 of the time (Bonferroni). log p(x) is meant as the guide's draws see
    it: a mode that they never visit is missing from it.

    Args:
        program: A `VAE` or `Program` whose guide has a density.
        x: Data: some hundred rows.
        steps: Local steps of each of the two refinements.
        num_samples: Draws of z behind each ELBO and the evidence.
        level: Of the brackets.
        seed: Of all draws; torch's random state is left as found.
        progress: Show progress bars.

    Raises:
        NoDensityError: As `refine`.
        ValueError: On a level that is not between 0 and 1.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(5, seed=1)
        >>> shifted = Program(world.model, world.broken_guide(shift=1.0))
        >>> found = gaps(shifted, x, steps=100, progress=False)
        >>> bool(found.amortisation.mean() > 0.5), bool(found.remainder.mean() < 0.1)
        (True, True)
        >>> low, high = found.brackets.amortisation  # KL(q ‖ p(z|x)) is 1, and all is the network's
        >>> bool(((low < 1) & (1 < high)).all())
        True
    """
    positive(steps=steps, num_samples=num_samples)
    if not 0 < level < 1:
        raise ValueError(f"Got level={level!r}; expected a number between 0 and 1. Try 0.95.")
    same, full = (
        refine(program, x, steps=steps, correlated=c, seed=seed, progress=progress)
        for c in (False, True)
    )
    weights = [
        as_array(log_weights(p, x, num_samples, seed=seed + k))
        for k, p in enumerate((program, same, full), start=1)
    ]
    _widen(full)
    wide = as_array(log_weights(full, x, num_samples, seed=seed + 4))
    return Gaps(
        elbo=np.stack([w.mean(0) for w in weights]),
        elbo_se=np.stack([w.std(0, ddof=1) for w in weights]) / num_samples**0.5,
        evidence=evidence(wide, level=level),
        ceiling=log_mean_interval(wide, 1 - 2 * (1 - level) / LIMITS)[1],
        level=level,
    )


def _widen(refined: Refined) -> None:
    """Make the guide that `refine` found wider by `WIDER`, about its mean."""
    with torch.no_grad():
        for move in refined.parts[0].children():
            raw = move.get_parameter("raw")
            sd = WIDER * softplus(raw.diagonal(dim1=-2, dim2=-1))
            raw.mul_(WIDER).diagonal(dim1=-2, dim2=-1).copy_(sd.expm1().log())
