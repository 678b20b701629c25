"""The evidence of data under a program, by importance sampling from its guide."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from ppl_vae.diagnostics import Evidence, evidence
from ppl_vae.diagnostics.khat import MIN_DRAWS
from ppl_vae.posterior.faults import explained
from ppl_vae.programs.log_weights import log_weights


@explained
def log_evidence(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    num_samples: int = 1000,
    *,
    level: float = 0.95,
    seed: int | None = None,
) -> Evidence:
    """Estimate log p(x) of every datum, in nats, with its error and k-hat.

    To compare programs, and for any program trained under `Adversarial`, use one with the same
    freshly fitted guide: ``log_evidence(refit_guide(program, x), x)``.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them.
        num_samples: Draws S per datum; below 25 there is no k-hat, and a warning says so.
        level: Nominal coverage of the interval for each datum.
        seed: Fork torch's random state and start here.

    Raises:
        NoDensityError: Where there are no log weights.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> wide = Program(world.model, world.broken_guide(scale=1.3))
        >>> result = log_evidence(wide, x, 2000, seed=0)
        >>> bool((abs(result.log_evidence - world.log_evidence(x).numpy()) < 5 * result.se).all())
        True
    """
    weights = log_weights(program, x, num_samples, seed=seed)
    result = evidence(weights.double().cpu().numpy(), level=level)
    if num_samples < MIN_DRAWS:
        warnings.warn(
            f"Got num_samples={num_samples}, too few for a k-hat: whether the error of the "
            f"evidence can be trusted is not known. Try {MIN_DRAWS} or more.",
            stacklevel=3,
        )
    return result
