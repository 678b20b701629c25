"""Which of a program's own draws come from where no code ever was."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ppl_vae.diagnostics.coverage import Coverage, coverage
from ppl_vae.posterior.aggregate_match import codes_and_prior
from ppl_vae.posterior.draws import Draws, prior_predictive, side_by_side
from ppl_vae.posterior.faults import explained


class PriorCoverage(NamedTuple):
    """How much of p(z) lies among codes, and the draws that do not.

    Attributes:
        coverage: Shares and distances; see `ppl_vae.diagnostics.Coverage`.
        draws: The program's draws z ~ p(z), x ~ p(x|z), which `coverage.holes` counts through.
    """

    coverage: Coverage
    draws: Draws

    @property
    def share(self) -> float:
        """Of the prior's draws, those among codes."""
        return self.coverage.share

    @property
    def reference(self) -> float:
        """Of the prior's draws, those among other draws of the prior."""
        return self.coverage.reference

    @property
    def holes(self) -> NDArray[np.int64]:
        """The draws that lie in holes, the farthest first."""
        return self.coverage.holes

    def __repr__(self) -> str:
        return f"Prior{self.coverage!r}"


@explained
def prior_coverage(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    neighbours: int = 5,
    seed: int = 0,
) -> PriorCoverage:
    """Give the share of the prior's draws that lie among codes of data, and those that do not.

    One z ~ q(z|x) for each datum that differs, and as many z ~ p(z); see
    `ppl_vae.diagnostics.coverage`. Draws in holes are where a decoder makes things up: look at
    them with `ppl_vae.plots.holes`. Balls shrink as data are added: compare programs at one N, such
    as 2000.

    Args:
        program: A `VAE` or `Program`, of any guide and prior.
        x: Data that took no part in training, 20 or more that differ.
        neighbours: k: a ball around a code ends at its k-th nearest other code.
        seed: Of all draws; torch's random state is left as found.

    Raises:
        ValueError: If fewer than 20 data differ, a mask leaves some out, or all share the latents.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(400, seed=1)
        >>> found = prior_coverage(Program(world.model, world.guide), x)
        >>> abs(found.share - found.reference) < 0.05
        True
    """
    batch, names, codes, draws = codes_and_prior(program, x, seed)
    again = prior_predictive(program, batch.rows, like=batch, seed=seed + 2).latents
    found = coverage(
        side_by_side(draws.latents, names, 1),
        codes,
        side_by_side(again, names, 1),
        neighbours=neighbours,
    )
    return PriorCoverage(found, draws)
