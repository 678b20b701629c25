"""Does training reach every parameter of a program?"""

from __future__ import annotations

import warnings

import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import MMD, Adversarial, Objective
from ppl_vae.programs import Structure
from ppl_vae.programs.modes import evaluating
from ppl_vae.programs.runs import run
from ppl_vae.testing.laws import Laws
from ppl_vae.training.step import TrainState, train_step
from ppl_vae.training.unregistered import leaves
from ppl_vae.training.updater import Updater

STEPS = 5
"""A layer that starts at zero keeps those before it still for one step; five are plenty."""

Leaves = dict[int, Tensor]


def check_training(laws: Laws, program: nn.Module, batch: Batch, objective: Objective) -> None:
    """Check "registered" and "moves"; the program has then been trained for a few steps."""
    names = {id(p): n for n, p in program.named_parameters()}

    def named(found: Leaves) -> list[str]:
        return [names.get(k, f"one of shape {tuple(p.shape)}") for k, p in found.items()]

    with evaluating(program), warnings.catch_warnings():  # gives the modes back
        warnings.simplefilter("ignore")  # what `fit` would warn of is no breach
        program.train()
        with laws.run("moves", "an objective that suits the program, or mending the program"):
            state = objective.init(program, batch)
            registered, reached, prior_only = _leaves_of(program, batch, state.found)
        lost = {k: p for k, p in reached.items() if k not in registered}
        got = f"parameters that Pyro does not know: {named(lost)}"
        attempt = "pyro.module(name, net) in model or guide, for each net"
        laws.hold("registered", not lost, got, "all of them in its store", attempt)
        trained = registered | {id(p): p for p in program.parameters() if p.requires_grad}
        if not trained:
            return
        phases = objective.phases(program, state)
        updaters = {p.name: Updater((torch.optim.Adam, {"lr": 1e-3})) for p in phases}
        training = TrainState(program, state, phases, updaters, None)
        before = {k: p.detach().clone() for k, p in trained.items()}
        for _ in range(STEPS):
            with laws.run("moves", "data, start values and floors that keep the loss finite"):
                train_step(training, batch)
    still = {k: p for k, p in trained.items() if torch.equal(p, before[k])}
    if isinstance(objective, Adversarial | MMD) and not getattr(objective, "learn_prior", False):
        still = {k: p for k, p in still.items() if k not in prior_only}
    attempt = "using them in the model or guide, or requires_grad_(False) for what is fixed"
    got = f"no change in {named(still)} after {STEPS} steps"
    laws.hold("moves", not still, got, "every trainable parameter to move", attempt)


def _leaves_of(program: nn.Module, batch: Batch, found: Structure) -> tuple[Leaves, Leaves, Leaves]:
    """What Pyro knows, what the traces depend on, and what only the prior's density depends on."""
    with poutine.trace(param_only=True) as capture:
        model, guide = run(program, batch)
    known = [site["value"].unconstrained() for site in capture.trace.nodes.values()]
    prior: list[Tensor] = []
    rest: list[Tensor] = []
    for trace, names in ((model, (*found.latents, *found.observed)), (guide, found.latents)):
        for name in names:
            if (site := trace.nodes.get(name)) is None:
                continue
            rest += [site["value"]] if trace is guide else []
            if name not in found.sampled_only:
                log_prob = site["fn"].log_prob(site["value"])
                (prior if trace is model and name in found.latents else rest).append(log_prob)
    needed, density = ({id(p): p for p in leaves(roots)} for roots in (rest, prior))
    only = {k: p for k, p in density.items() if k not in needed}
    return {id(p): p for p in known}, needed | density, only
