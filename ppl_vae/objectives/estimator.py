"""Pyro's Trace_ELBO, with its parts kept and an analytic KL where one exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO
from pyro.poutine import Trace
from torch import Tensor

from ppl_vae.distributions import kl_divergence
from ppl_vae.programs.traces import Site


class Estimator(Trace_ELBO):
    """Trace_ELBO that also says reconstruction and KL, from the same traces.

    Args:
        num_particles: Draws of z per datum.
        analytic_kl: Put KL(q ‖ p) in closed form where `kl_divergence` has one; elsewhere it is
            sampled. Which it was is in `analytic`, by site.
    """

    def __init__(self, num_particles: int, analytic_kl: bool) -> None:
        super().__init__(num_particles=num_particles)
        self.analytic_kl = analytic_kl
        self.analytic: dict[str, bool] = {}
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
        found = {
            name: kl_divergence(guide.nodes[name]["fn"], site["fn"])
            for name, site in model.nodes.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        closed = {name: kl for name, kl in found.items() if kl is not None}
        self.analytic = {name: name in closed for name in found}
        self._note(model, guide, closed)
        # What has a closed form leaves both traces, and Pyro estimates the rest.
        rest_model, rest_guide = _without(model, closed), _without(guide, closed)
        value, surrogate = super()._differentiable_loss_particle(rest_model, rest_guide)
        for name, kl in closed.items():
            site = guide.nodes[name]
            term = scale_and_mask(kl, site["scale"], site["mask"]).sum()
            value, surrogate = value + term.item(), surrogate + term
        return value, surrogate

    def _note(self, model: Trace, guide: Trace, closed: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, site in model.nodes.items():
                if site["type"] != "sample":
                    continue
                if site["is_observed"]:
                    self._add("reconstruction", _unscaled(site))
                elif name in closed:
                    self._add("kl", scale_and_mask(closed[name], mask=site["mask"]).sum())
                else:
                    self._add("kl", _unscaled(guide.nodes[name]) - _unscaled(site))

    def _add(self, part: str, value: Tensor) -> None:
        value = value / self.num_particles
        self.parts[part] = self.parts[part] + value if part in self.parts else value


def _unscaled(site: Site) -> Tensor:
    if isinstance(site["scale"], float) and site["scale"] == 1.0:
        return site["log_prob_sum"].detach()
    return scale_and_mask(site["unscaled_log_prob"], mask=site["mask"]).sum()


def _without(trace: Trace, names: dict[str, Tensor]) -> Trace:
    rest = trace.copy()
    for name in names:
        rest.remove_node(name)
    return rest
