"""Codes z ~ q(z|x) with their gradients, and z ~ p(z): what adversaries and kernels compare."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.modes import on_copies, probing
from ppl_vae.programs.runs import functions, rows_first, run_model
from ppl_vae.programs.traces import Structure, structure


class ClassProbabilities(Messenger):
    """Give the probabilities of a one-hot class where it would be drawn: a code with a gradient.

    So does Makhzani et al. 2015 (arXiv:1511.05644, section 4): the encoder's softmax is the code,
    and a critic that sees one-hot draws of p(y) makes it decide.

    Example:
        >>> import pyro
        >>> with ClassProbabilities():
        ...     pyro.sample("y", dist.OneHotCategorical(torch.tensor([0.25, 0.75])))
        tensor([0.2500, 0.7500])
    """

    def _pyro_sample(self, msg: Any) -> None:  # noqa: ANN401
        if isinstance(msg["fn"], torch.distributions.OneHotCategorical) and not msg["is_observed"]:
            msg["fn"] = dist.Delta(msg["fn"].probs, event_dim=1)


def run_coded(program: nn.Module, batch: Batch) -> tuple[Trace, Trace]:
    """Trace the guide, classes as probabilities, and the model at its draws: (model, guide)."""
    guide = run_codes(program, batch)
    return run_model(program, batch, latents=guide), guide


def run_codes(program: nn.Module, batch: Batch) -> Trace:
    """Trace the guide, classes as probabilities."""
    _, guide = functions(program)
    return poutine.trace(ClassProbabilities()(guide)).get_trace(*batch.args, **batch.kwargs)


def prior_run(program: nn.Module, batch: Batch) -> Trace:
    """Trace the model on its own, all latents jointly, without moving anything."""
    with torch.no_grad(), poutine.block(), on_copies(program):
        return run_model(program, batch)


def idle_codes(program: nn.Module, batch: Batch) -> Trace:
    """Do as `run_codes` does, without gradients and without moving anything."""
    with torch.no_grad(), poutine.block(), on_copies(program):
        return run_codes(program, batch)


def codes_of(trace: Trace, found: Structure, latents: Sequence[str]) -> Tensor:
    """Latents of a run side by side: ``(N, D)``."""
    rows = [rows_first(trace.nodes[n], found.dim) for n in latents]
    return torch.cat([z.reshape(len(z), -1) for z in rows], dim=-1)


def reconstruction(model: Trace, found: Structure) -> Tensor:
    """log p(x|z) of a run, summed: ``()``."""
    model.compute_log_prob(lambda name, site: site["is_observed"])
    return torch.stack([model.nodes[n]["log_prob_sum"] for n in found.observed]).sum()


def coded_structure(program: nn.Module, batch: Batch) -> Structure:
    """Say what a program is made of, if each datum has codes with a gradient.

    Raises:
        ValueError: If it has not.
    """
    found = structure(program, batch)
    if found.plate is None or found.shared:
        raise ValueError(
            f"Got a program without one code per datum: {found.undefined}; the objective expected "
            "one. Try moving every latent inside the data plate."
        )
    with probing(program), torch.no_grad():
        guide = run_codes(program, batch)
    if lost := [n for n in found.latents if n not in guide.nodes]:
        raise ValueError(
            f"Got sites {lost} that are summed out and not in the guide; expected a code for each "
            "datum. Try objective=pyro.infer.TraceEnum_ELBO(), or a OneHotCategorical in the guide."
        )
    fixed = [n for n in found.latents if not guide.nodes[n]["fn"].has_rsample]
    if fixed:
        raise ValueError(
            f"Got a guide whose draws at {fixed} carry no gradient to the encoder; expected a "
            "reparameterised distribution. Try Normal, MultivariateNormal or Delta, a "
            "OneHotCategorical for a class, or objective=pyro.infer.TraceEnum_ELBO() where classes "
            "are summed out."
        )
    return found


class Reach(NamedTuple):
    """What a run of the program reaches.

    Attributes:
        codes: Names in Pyro's store of the parameters that codes hang on.
        prior: Of those that the prior alone hangs on.
    """

    codes: frozenset[str]
    prior: frozenset[str]


def reach(program: nn.Module, batch: Batch, found: Structure) -> Reach:
    """Find the parameters that move the codes, and those that only log p(z) hangs on.

    The second are the prior's own: a VampPrior's pseudo-inputs, not the encoder that it borrows.
    """
    with probing(program), torch.enable_grad():
        with poutine.trace(param_only=True) as capture:
            model, guide = run_coded(program, batch)
            codes = {n: guide.nodes[n]["value"].detach() for n in found.latents}
            fixed = poutine.trace(poutine.condition(functions(program)[0], data=codes))
            prior = fixed.get_trace(*batch.args, **batch.kwargs)
        params = {n: s["value"].unconstrained() for n, s in capture.trace.nodes.items()}
        log_prior = torch.zeros(())
        for site in (prior.nodes[n] for n in found.latents):
            # It may only be drawn from; and probabilities are no class.
            with suppress(NotImplementedError, ValueError):
                log_prior = log_prior + site["fn"].log_prob(site["value"]).sum()
        of_codes = _reached(codes_of(guide, found, found.latents).sum(), params)
        of_data = _reached(reconstruction(model, found), params)
        return Reach(of_codes, _reached(log_prior, params) - of_codes - of_data)


def _reached(value: Tensor, params: Mapping[str, Tensor]) -> frozenset[str]:
    leaves = {n: p for n, p in params.items() if p.requires_grad}
    if not value.requires_grad or not leaves:
        return frozenset()
    each = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, retain_graph=True)
    return frozenset(n for n, g in zip(leaves, each, strict=True) if g is not None)


def warn_of_idle_prior(own: Reach, remedy: str) -> None:
    """Say which parameters of a prior do not move: codes are pulled towards it, it towards none."""
    if own.prior:
        names = sorted(n.rpartition("$$$")[2] for n in own.prior)  # of a module, or of the store
        warnings.warn(
            f"Got a prior with trainable parameters {names}; they do not move under an "
            "objective that pulls q(z) towards p(z), never p(z) towards q(z). Try "
            f"objective={remedy} where p(z) has a density, prior.requires_grad_(False), or learn "
            "the prior first, under ELBO().",
            stacklevel=4,
        )
