"""Codes z ~ q(z|x) with their gradients, and z ~ p(z): what adversaries and kernels compare."""

from __future__ import annotations

import math
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
from ppl_vae.objectives.estimator import unscaled
from ppl_vae.programs.masks import kept_cells
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
        fn = msg["fn"]
        drawn = isinstance(fn, torch.distributions.OneHotCategorical) and not fn.has_rsample
        if drawn and not msg["is_observed"]:
            msg["fn"] = dist.Delta(fn.probs, event_dim=1)


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


def row_weights(trace: Trace, found: Structure, latents: Sequence[str], rows: int) -> Tensor | None:
    """Say how much each row counts: ``(N,)``, or None where all count once.

    A row that a mask leaves out counts for nothing; what `poutine.scale` says of latents, beside
    the scale of a plate that subsamples, is its weight (their mean, where latents differ).
    """
    sites = [trace.nodes[name] for name in latents]
    kept = [cells.all(1) for site in sites for cells in kept_cells(site, found.dim)]
    own = [s["scale"] / found.scale(rows) for s in sites]
    if all(not isinstance(w, Tensor) and math.isclose(w, 1.0) for w in own):
        if not kept:
            return None
        weight = torch.ones_like(kept[0], dtype=sites[0]["value"].dtype)
    else:
        each = [_by_row(w, s, found).mean(1) for w, s in zip(own, sites, strict=True)]
        weight = torch.stack(each).mean(0)
    for seen in kept:
        weight = weight * seen
    return weight


def _by_row(scale: Any, site: Any, found: Structure) -> Tensor:  # noqa: ANN401
    """Spread a scale of a site over its cells, a row for each datum: ``(N, cells)``."""
    shape = site["fn"].batch_shape
    cells = torch.as_tensor(scale).to(site["value"]).expand(shape)
    return cells.movedim(found.dim, 0).reshape(shape[found.dim], -1)


def scored(model: Trace, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Give the log-prob of sites of a run, summed: for a loss, and for a history without scales."""
    model.compute_log_prob(lambda name, site: name in names)
    sites = [model.nodes[name] for name in names]
    figures = torch.stack([unscaled(site).detach() for site in sites])
    return torch.stack([site["log_prob_sum"] for site in sites]).sum(), figures.sum()


def coded_structure(program: nn.Module, batch: Batch) -> tuple[Structure, Trace]:
    """Say what a program is made of, if each datum has codes with a gradient.

    Returns:
        What it is made of, and a run of its guide, without gradients.

    Raises:
        ValueError: If it has not.
    """
    found = structure(program, batch)
    if found.plate is None or found.shared:
        why = f"the latents {list(found.shared)} are shared" if found.shared else found.undefined
        raise ValueError(
            f"Got a program without one code per datum: {why}; the objective expected one. Try "
            "moving every latent inside the data plate."
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
    for name in found.latents:
        for cells in kept_cells(guide.nodes[name], found.dim):
            if (cells.any(1) & ~cells.all(1)).any():
                raise ValueError(
                    f"Got a mask that leaves out a part of some datum's {name!r}; expected whole "
                    "data, for a code with a hole has no place among draws of the prior. Try "
                    "ELBO(), or a latent for each datum as a whole."
                )
    return found, guide


class Reach(NamedTuple):
    """What a run of the program reaches.

    Attributes:
        codes: Names in Pyro's store of the parameters that codes hang on.
        prior: Of those that only log p(z) hangs on.
        scored: The latents whose log p(z) that is.
        borrowed: Those that log p(z) and codes hang on: the prior moves as the encoder does.
        idle: Of those that neither codes nor log p(x|z) hang on, and draws of a prior do that can
            only be drawn from.
    """

    codes: frozenset[str]
    prior: frozenset[str]
    scored: tuple[str, ...]
    borrowed: frozenset[str]
    idle: frozenset[str]


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
        of_codes = _reached(codes_of(guide, found, found.latents).sum(), params)
        others = of_codes | _reached(scored(model, found.observed)[0], params)
        of_prior: dict[str, frozenset[str]] = {}
        borrowed: frozenset[str] = frozenset()
        for name in found.latents:
            site = prior.nodes[name]
            # Codes of a class are probabilities, which a mass does not score.
            if name not in found.sampled_priors and not site["fn"].support.is_discrete:
                reached = _reached(site["fn"].log_prob(site["value"]).sum(), params)
                of_prior[name], borrowed = reached - others, borrowed | (reached & of_codes)
        drawn: frozenset[str] = frozenset()
        for name in found.sampled_priors:
            with suppress(NotImplementedError):
                drawn |= _reached(prior.nodes[name]["fn"].rsample().sum(), params) - others
    own: frozenset[str] = frozenset().union(*of_prior.values())
    judged = tuple(name for name, reached in of_prior.items() if reached)
    return Reach(of_codes, own, judged, borrowed, drawn - own)


def _reached(value: Tensor, params: Mapping[str, Tensor]) -> frozenset[str]:
    leaves = {n: p for n, p in params.items() if p.requires_grad}
    if not value.requires_grad or not leaves:
        return frozenset()
    each = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, retain_graph=True)
    return frozenset(n for n, g in zip(leaves, each, strict=True) if g is not None)


def warn_of_prior(own: Reach, remedy: str | None) -> None:
    """Say what becomes of a prior's parameters: codes are pulled towards it, it towards none.

    Args:
        own: What a run of the program reaches.
        remedy: What would train those that do not move; None where they are trained.
    """
    if own.borrowed:
        warnings.warn(
            f"Got a prior that is made of the encoder's own parameters {_named(own.borrowed)}; it "
            "moves as the encoder does, and nothing holds the two in place under an objective that "
            "pulls q(z) towards p(z), never p(z) towards q(z). Try ELBO(), under which a VampPrior "
            "is trained, or a prior of its own, such as GaussianMixture(...).",
            stacklevel=4,
        )
    elif remedy is not None and (still := own.prior | own.idle):
        names = _named(still)
        warnings.warn(
            f"Got a prior with trainable parameters {names}; they do not move under an "
            "objective that pulls q(z) towards p(z), never p(z) towards q(z). Try "
            f"objective={remedy} where p(z) has a density, prior.requires_grad_(False), or learn "
            "the prior first, under ELBO().",
            stacklevel=4,
        )


def _named(params: frozenset[str]) -> list[str]:
    return sorted(n.rpartition("$$$")[2] for n in params)  # of a module, or of the store
