"""Pyro's Trace_ELBO, with its parts kept and an analytic KL where one exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO
from pyro.infer.util import torch_item
from pyro.poutine import Trace
from torch import Tensor

from ppl_vae.distributions import kl_divergence
from ppl_vae.programs.runs import Site


class Estimator(Trace_ELBO):
    """Trace_ELBO that also says reconstruction and KL, from the same traces.

    Args:
        num_particles: Draws of z per datum.
        analytic_kl: Put KL(q ‖ p) in closed form for the sites of `closed_kl`, sample the others.
    """

    def __init__(self, num_particles: int, analytic_kl: bool) -> None:
        super().__init__(num_particles=num_particles)
        self.analytic_kl = analytic_kl
        self.parts: dict[str, Tensor] = {}

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Tensor, **kwargs: Tensor
    ) -> Tensor:
        """Minus the ELBO summed over the batch; its gradient is Pyro's estimate."""
        loss = 0.0
        surrogate = torch.zeros(())
        self.parts = {}
        for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
            value, differentiable = self._differentiable_loss_particle(model_trace, guide_trace)
            loss = loss + value / self.num_particles
            surrogate = surrogate + differentiable / self.num_particles
        # In double precision the value is Pyro's own float to the last bit.
        exact = torch.as_tensor(loss, dtype=torch.float64, device=surrogate.device)
        return exact + (surrogate - surrogate.detach())

    def _differentiable_loss_particle(self, model: Trace, guide: Trace) -> tuple[float, Tensor]:
        if not self.analytic_kl:
            self._note(model, guide, {})
            return super()._differentiable_loss_particle(model, guide)
        closed = closed_kl(model, guide)
        self._note(model, guide, closed)
        # What has a closed form leaves both traces, and Pyro estimates the rest.
        rest_model, rest_guide = _without(model, closed), _without(guide, closed)
        value, surrogate = super()._differentiable_loss_particle(rest_model, rest_guide)
        for name, kl in closed.items():
            site = guide.nodes[name]
            term = scale_and_mask(kl, site["scale"], site["mask"]).sum()
            value, surrogate = value + torch_item(term), surrogate + term
        return value, surrogate

    def _note(self, model: Trace, guide: Trace, closed: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, site in model.nodes.items():
                if site["type"] != "sample":
                    continue
                if site["is_observed"]:
                    self._add("reconstruction", unscaled(site))
                elif name in closed:
                    self._add("kl", scale_and_mask(closed[name], mask=site["mask"]).sum())
                else:
                    self._add("kl", unscaled(guide.nodes[name]) - unscaled(site))

    def _add(self, part: str, value: Tensor) -> None:
        value = value / self.num_particles
        self.parts[part] = self.parts[part] + value if part in self.parts else value


def closed_kl(model: Trace, guide: Trace) -> dict[str, Tensor]:
    """KL(q ‖ p) per datum, by site, where a closed form exists and may take the sample's place.

    It may where all that p(z_k | ·) is given comes before z_k in the guide too (a guide that runs
    bottom-up fails this), neither it nor a draw before it needs the score-function gradient, and
    both sides have one scale and one mask.
    """
    drawn = [n for n, s in model.nodes.items() if s["type"] == "sample" and not s["is_observed"]]
    order = [n for n in guide.nodes if n in drawn]
    closed = {}
    for k, name in enumerate(drawn):
        if name not in order:
            continue
        p, q = model.nodes[name], guide.nodes[name]
        upto = order[: order.index(name) + 1]
        fits = set(drawn[:k]) <= set(upto) and all(guide.nodes[n]["fn"].has_rsample for n in upto)
        if fits and _same(p["scale"], q["scale"]) and _same(p["mask"], q["mask"]):
            kl = kl_divergence(q["fn"], p["fn"])
            if kl is not None:
                closed[name] = kl
    return closed


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.shape == b.shape and torch.equal(a, b))
    return a is b or (type(a) is type(b) and not isinstance(a, Tensor) and a == b)


def unscaled(site: Site) -> Tensor:
    """Give the log-prob of a site summed over the rows that a mask leaves, whatever its scale."""
    if isinstance(site["scale"], float) and site["scale"] == 1.0:
        return site["log_prob_sum"].detach()
    return scale_and_mask(site["unscaled_log_prob"], mask=site["mask"]).sum()


def _without(trace: Trace, names: dict[str, Tensor]) -> Trace:
    rest = trace.copy()
    for name in names:
        rest.remove_node(name)
    return rest
