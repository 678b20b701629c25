"""Effect handlers that re-weight a program from outside."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor


class ScaleLatents(Messenger):
    """Multiply the log-probs of latent sites by a weight: β of the β-VAE.

    It goes around model *and* guide: an estimator with an analytic KL reads one of them only.
    The weight is a tensor, so a schedule is data and may be 0.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> from pyro import poutine
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> trace = poutine.trace(ScaleLatents(torch.tensor(0.5))(model)).get_trace()
        >>> trace.nodes["z"]["scale"]
        tensor(0.5000)
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: Any) -> None:  # noqa: ANN401
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["scale"] = msg["scale"] * self.weight
