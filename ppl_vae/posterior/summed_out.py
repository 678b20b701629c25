"""Draws of the discrete sites that training sums out: y ~ p(y | x, z)."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import infer_discrete
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.traces import Structure


def with_summed_out(program: nn.Module, batch: Batch, guide: Trace, found: Structure) -> Trace:
    """Put y ~ p(y | x, z) beside z ~ q(z|x), for the sites that are summed out."""
    drawn = {n: guide.nodes[n]["value"] for n in found.latents if n not in found.enumerated}
    model = poutine.infer_config(
        poutine.condition(program.model, data=drawn),
        lambda site: {"enumerate": "parallel"} if site["name"] in found.enumerated else {},
    )
    rest = infer_discrete(_Allowed(guide, found)(model), first_available_dim=-1 - found.nesting)
    exact = poutine.trace(rest).get_trace(*batch.args, **batch.kwargs)
    whole = guide.copy()
    for name in found.enumerated:
        if name in whole.nodes:
            whole.remove_node(name)
        site = exact.nodes[name]  # Pyro squeezes the plate of a single row
        whole.add_node(name, **{**site, "value": site["value"].expand(site["fn"].shape())})
    return whole


class _Allowed(Messenger):
    """Takes the values off a sum to which the guide gives no mass, as the log weights do."""

    def __init__(self, guide: Trace, found: Structure) -> None:
        super().__init__()
        self.allowed = {n: guide.nodes[n]["fn"] for n in found.enumerated if n in guide.nodes}

    def _pyro_post_sample(self, msg: Any) -> None:  # noqa: ANN401
        if msg["name"] in self.allowed:
            log_q = self.allowed[msg["name"]].log_prob(msg["value"])
            none = torch.where(log_q == -torch.inf, log_q, torch.zeros_like(log_q))
            pyro.factor(f"{msg['name']} allowed by the guide", none)
