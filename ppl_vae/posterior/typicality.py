"""Whether log p(x) of data is what a program expects of its own."""

from __future__ import annotations

from typing import Any

from torch import nn

from ppl_vae.diagnostics import typicality as compared
from ppl_vae.diagnostics.typicality import Typicality
from ppl_vae.posterior.draws import as_array, positive, with_plate
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.own_draws import own_draws
from ppl_vae.posterior.simulated import log_mean_weight
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import log_weights
from ppl_vae.programs.masks import refuse_left_out


@explained
def typicality(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    num_simulated: int = 1000,
    num_samples: int = 100,
    seed: int = 0,
) -> Typicality:
    """Compare log p̂(x) of data with that of data which the model makes: does it know such data?

    Scores of single data (`percentile`) find what is out of place; they are read from both ends,
    for a model may give more density to data of another kind than to its own (Nalisnick et al.
    2019, Do deep generative models know what they don't know?, arXiv:1810.09136). All of them
    together test the model: both sides are estimated by the same guide with as many draws, so that
    they have one law if the data have the law p(x), however bad the guide is. Of a decoder whose
    noise is wrong it sees what no single cell shows.

    Args:
        program: A `VAE` or `Program` whose guide has a density.
        x: Data that took no part in training.
        num_simulated: Data M that the model makes, under the covariates of x in turn.
        num_samples: Draws of z behind each log p̂.
        seed: Of all draws; torch's random state is left as found.

    Raises:
        NoDensityError: Where there are no log weights.
        ValueError: Where x is not given to the model as it is observed, or a mask leaves rows out.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(200, seed=1)
        >>> noisy = LinearGaussian(world.weight, world.bias, 2 * world.scale)
        >>> typicality(Program(world.model, world.guide), x).p_value > 0.01
        True
        >>> typicality(Program(noisy.model, noisy.guide), x).p_value < 1e-6
        True
    """
    batch = program_batch(program, x, name="x")
    positive(num_simulated=num_simulated, num_samples=num_samples)
    refuse_left_out(program, batch, with_plate(program, batch))
    own = own_draws(program, batch, num_simulated, seed=seed)
    data, simulated = (
        log_mean_weight(as_array(log_weights(program, b, num_samples, seed=seed + k)))
        for k, b in ((1, batch), (2, own.batch))
    )
    return compared(data, simulated)
