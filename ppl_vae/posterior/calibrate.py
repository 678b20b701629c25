"""Calibration of a guide, on data that its own program simulates."""

from __future__ import annotations

from typing import Any

from torch import nn

from ppl_vae.diagnostics.calibration import Calibration
from ppl_vae.posterior.draws import positive
from ppl_vae.posterior.simulated import simulate
from ppl_vae.programs.inputs import program_batch


def calibrate(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    num_data: int = 1000,
    num_draws: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Simulate z ~ p(z), x ~ p(x|z), and rank z among draws of q(z|x): is the guide calibrated?

    The fitted program is its own simulator (see `ppl_vae.diagnostics.ranks`), so that this tests
    the guide *at the fitted model*: it says nothing of whether the model fits the data. Ranked are
    each unit of z; log p(x|z), which sees a guide that is the prior, or that ignores correlations;
    log q(z|x), the coverage of highest-density regions; and distances to draws of the prior (TARP).

    An adversarial autoencoder's encoder is not trained towards p(z|x): it fails this, as expected,
    and is no worse a model for it. A program whose latents have no density is ranked by units and
    distances alone.

    Args:
        program: A `VAE` or `Program`.
        x: Data of its kind, whose covariates and missing cells the simulated data have.
        num_data: Data N to simulate.
        num_draws: Draws S of q(z|x) for each.
        level: Of the bands of the single tests.
        seed: Of all draws; torch's random state is left as found.

    Returns:
        The tests; their `p_value` is of all together.

    Raises:
        ValueError: Where x is not given to the model as it is observed, or all data share a latent.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> right, narrow = world.guide, world.broken_guide(scale=0.5)
        >>> calibrate(Program(world.model, right), x, num_data=200).p_value > 0.01
        True
        >>> calibrate(Program(world.model, narrow), x, num_data=200).p_value < 1e-6
        True
    """
    batch = program_batch(program, x, name="x")
    positive(num_data=num_data, num_draws=num_draws)
    return simulate(program, batch, num_data, num_draws, seed=seed).calibration(level)
