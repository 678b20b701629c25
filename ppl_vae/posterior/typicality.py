"""Whether log p(x) of data is what the model expects of its own: misfit, and data out of place."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ppl_vae.posterior.draws import as_array
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.own_draws import own_draws
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import log_weights

Floats = NDArray[np.float64]


class Typicality(NamedTuple):
    """log p̂(x) of data beside that of data which the model made.

    Attributes:
        log_evidence: Of the data, ``(N,)``, nats.
        simulated: Of the model's own, ``(M,)``.
        percentile: Share of the model's own that have less, ``(N,)``: near 0 where a datum is out
            of place; near 1 where it is too good to be true, which may be out of place too.
        deviation: The effect size: the largest distance of the two distribution functions.
        p_value: Of that distance (Kolmogorov and Smirnov): do the data have the law p(x)?
    """

    log_evidence: Floats
    simulated: Floats
    percentile: Floats
    deviation: float
    p_value: float

    def __repr__(self) -> str:
        return (
            f"Typicality(N={len(self.log_evidence)}; log p(x) {self.log_evidence.mean():.2f}, of "
            f"the model's own {self.simulated.mean():.2f}; apart by {self.deviation:.2f}, p = "
            f"{self.p_value:.2g})"
        )


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
        ValueError: Where x is not given to the model as it is observed.

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
    from scipy.stats import ks_2samp

    batch = program_batch(program, x, name="x")
    own = own_draws(program, batch, num_simulated, seed=seed)
    data, simulated = (
        _log_mean(as_array(log_weights(program, b, num_samples, seed=seed + k)))
        for k, b in ((1, batch), (2, own.batch))
    )
    test = ks_2samp(data, simulated)
    return Typicality(
        data,
        simulated,
        np.searchsorted(np.sort(simulated), data) / len(simulated),
        float(test.statistic),
        float(test.pvalue),
    )


def _log_mean(log_w: Floats) -> Floats:
    found: Floats = np.logaddexp.reduce(log_w, axis=0) - np.log(len(log_w))
    return found
