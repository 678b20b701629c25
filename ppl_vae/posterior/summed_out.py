"""Draws of the discrete sites that training sums out: y ~ p(y | x, z)."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import infer_discrete
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.traces import Structure


def with_summed_out(program: nn.Module, batch: Batch, guide: Trace, found: Structure) -> Trace:
    """Put y ~ p(y | x, z) beside z ~ q(z|x), for the sites that are summed out."""
    drawn = {n: guide.nodes[n]["value"] for n in found.latents if n not in found.enumerated}
    model = poutine.infer_config(
        poutine.condition(program.model, data=drawn),
        lambda site: {"enumerate": "parallel"} if site["name"] in found.enumerated else {},
    )
    classes = _Classes(found)
    shown = classes(_Allowed(guide, found)(model))  # the outer one hands its values in
    rest = infer_discrete(shown, first_available_dim=-1 - found.nesting)
    exact = poutine.trace(rest).get_trace(*batch.args, **batch.kwargs)
    whole = guide.copy()
    for name in found.enumerated:
        if name in whole.nodes:
            whole.remove_node(name)
        site = exact.nodes[name]  # Pyro squeezes the plate of a single row
        value = site["value"].expand(site["fn"].shape())
        if name in classes.one_hot:
            fn = classes.one_hot[name]
            site = {**site, "fn": fn}
            value = _one_hot(value, fn)
        whole.add_node(name, **{**site, "value": value})
    return whole


class _Classes(Messenger):
    """Shows Pyro's sampler, which packs no events, the number of a one-hot class."""

    def __init__(self, found: Structure) -> None:
        super().__init__()
        self.found = found
        self.one_hot: dict[str, dist.OneHotCategorical] = {}

    def _pyro_sample(self, msg: Any) -> None:  # noqa: ANN401
        fn = msg["fn"]
        if msg["name"] in self.found.enumerated and isinstance(fn, dist.OneHotCategorical):
            self.one_hot[msg["name"]] = fn
            msg["fn"] = dist.Categorical(logits=fn.logits)

    def _pyro_post_sample(self, msg: Any) -> None:  # noqa: ANN401
        if msg["name"] in self.one_hot:
            msg["value"] = _one_hot(msg["value"], self.one_hot[msg["name"]])


def _one_hot(number: Tensor, fn: dist.OneHotCategorical) -> Tensor:
    classes = torch.eye(fn.event_shape[0], dtype=fn.logits.dtype, device=fn.logits.device)
    return classes[number.long()]


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
