"""What a program is made of, read from its traces: latents, observations, data plate, parameters.

Nothing here, and nothing built on it, knows a site by its name.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.memory import refuse_if_lost
from ppl_vae.programs.modes import probing
from ppl_vae.programs.plate import data_plate
from ppl_vae.programs.registration import name_apart
from ppl_vae.programs.runs import Site, run_checked

HEAD = 1024  # rows that are enough to see what a program is made of


class NoDensityError(ValueError):
    """Asked for a number that does not exist: log weights without a density."""


@dataclass(frozen=True)
class Structure:
    """The parts of a program, as its traces show them.

    Attributes:
        latents: Unobserved sites of the model, in its order.
        observed: Observed sites.
        enumerated: Discrete sites that are summed out.
        points: Latents whose guide is a point (Delta).
        sampled_only: Latents whose prior or guide can be drawn from but not scored.
        sampled_priors: Those of them whose prior cannot be scored.
        shared: Latents outside the data plate.
        plate: Name of the data plate; None where there is none.
        dim: Its batch dim, negative.
        nesting: The deepest plate dim in use.
        full_size: Size of the data set that a subsampling plate speaks of; None without one.
        subsample_size: Rows of a run that such a plate uses, where it picks them itself.
        params: Unconstrained parameters by store name, in order of appearance.
        undefined: Why there are no log weights, in a sentence; None where there are.
    """

    latents: tuple[str, ...]
    observed: tuple[str, ...]
    enumerated: tuple[str, ...]
    points: tuple[str, ...]
    sampled_only: tuple[str, ...]
    sampled_priors: tuple[str, ...]
    shared: tuple[str, ...]
    plate: str | None
    dim: int
    nesting: int
    full_size: int | None
    subsample_size: int | None
    params: dict[str, Tensor]
    undefined: str | None

    @property
    def coordinates(self) -> list[str]:
        """The latents that each datum has to itself and that are drawn."""
        return [n for n in self.latents if n not in (*self.shared, *self.enumerated)]

    @property
    def not_scored(self) -> str:
        """The first latent of those that can only be drawn from, in words."""
        return _not_scored(self.sampled_only[0], self.sampled_priors)

    def seen(self, rows: int) -> int:
        """How many of a batch's rows one run uses."""
        return rows if self.subsample_size is None else self.subsample_size

    def scale(self, rows: int) -> float:
        """How many data each row used stands for in the loss: 1 without subsampling."""
        if self.full_size is None:
            return 1.0
        # A plate that picks rows itself speaks of its batch, which may be a short one.
        full = self.full_size if self.subsample_size is None else rows
        return full / self.seen(rows)


def structure(program: nn.Module, batch: Batch) -> Structure:
    """Run a program on a head of the batch, leave it as found, and say what it is made of.

    Raises:
        ValueError: If the latents of model and guide differ, nothing is observed, a plate named
            for the data does not hold them, or a name in Pyro's store is taken.
    """
    refuse_if_lost(program)
    name_apart(program)
    if batch.rows > HEAD:
        batch = batch.take(torch.arange(HEAD, device=batch.device))
    with probing(program), torch.no_grad():
        with poutine.trace(param_only=True) as capture:
            model, guide = run_checked(program, batch)
        model, guide = prune_subsample_sites(model), prune_subsample_sites(guide)
        # Read here: a parameter that the run made leaves the store with the probe.
        params = {n: s["value"].unconstrained() for n, s in capture.trace.nodes.items()}
        clashes = tuple(n for n, s in capture.trace.nodes.items() if _clashes(s))
    if clashes:
        raise ValueError(
            f"Got other tensors under the names {list(clashes[:3])} in Pyro's store than the "
            "program's own; expected its own, or an earlier model of that name would be used in "
            "its place. Try another name in pyro.module, pyro.clear_param_store() before the "
            "program is first run, or pyro.get_param_store().scope() around each program's life."
        )
    latents = _match(model, guide)
    # pyro.factor comes last: it counts in log p, but is no data.
    sites = {n: s for n, s in _samples(model).items() if s["is_observed"]}
    factors = tuple(n for n, s in sites.items() if isinstance(s["fn"], dist.Unit))
    observed = (*(n for n in sites if n not in factors), *factors)
    if len(factors) == len(observed):
        raise ValueError(
            f"Got a model that observes nothing (its sites are {list(latents)}); expected at least "
            'one site with obs=. Try pyro.sample("x", decoder(z), obs=x).'
        )
    if not latents:
        raise ValueError(
            f"Got a model without latents (it observes {list(observed)}); expected at least one "
            'site that is not observed. Try z = pyro.sample("z", prior) in model and guide.'
        )
    pairs = {n: [t.nodes[n] for t in (model, guide) if n in t.nodes] for n in latents}
    frame, full_size, problem = data_plate(
        program, batch, model, observed[: len(sites) - len(factors)]
    )
    auxiliary = sorted(set(_samples(guide)) - set(latents))
    # With auxiliary draws behind it, as in Pyro's autoguides, a Delta only renames them.
    points = tuple(
        n for n in latents if not auxiliary and any(_is_point(s["fn"]) for s in pairs[n])
    )
    unscored = tuple(n for n in latents if any(map(_unscored, pairs[n])))
    mixed = tuple(n for n in latents if len({_is_discrete(s["fn"]) for s in pairs[n]}) > 1)
    shared = tuple(
        n
        for n in latents
        if frame and not (_in(model.nodes[n], frame) and all(_along(s, frame) for s in pairs[n]))
    )
    loose = [n for n in factors if frame and not _in(model.nodes[n], frame)]
    # In order of what there is to say first.
    reasons = [f"the guide at {n!r} is a point (Delta) and has no density" for n in points]
    priors = tuple(n for n in unscored if _unscored(model.nodes[n]))
    reasons += [_not_scored(n, priors) for n in unscored]
    reasons += [f"a density stands against a mass at {n!r}" for n in mixed]
    reasons += [problem] if problem else []
    reasons += [f"the factor {n!r} is outside the data plate" for n in loose]
    reasons += [
        f"the latent {n!r} is outside the data plate: it is shared by all data, so no datum has a "
        "weight of its own"
        for n in shared
    ]
    reasons += [f"the guide draws {auxiliary}, which the model lacks"] if auxiliary else []
    dims = [
        -f.dim
        for t in (model, guide)
        for s in _samples(t).values()
        for f in s["cond_indep_stack"]
        if f.vectorized
    ]
    size = frame.size if frame else batch.rows
    return Structure(
        latents=latents,
        observed=observed,
        enumerated=tuple(n for n in latents if any(map(_is_summed_out, pairs[n]))),
        points=points,
        sampled_only=unscored,
        sampled_priors=priors,
        shared=shared,
        plate=frame.name if frame else None,
        dim=frame.dim if frame else -1,
        nesting=max(dims, default=0),
        full_size=full_size,
        subsample_size=size if size != batch.rows else None,
        params=params,
        undefined=reasons[0] if reasons else None,
    )


def refuse_subsampling(found: Structure) -> None:
    """Refuse a data plate that picks some rows itself, where every row is asked about.

    Raises:
        ValueError: If the program has one.
    """
    if found.subsample_size is not None:
        raise ValueError(
            f"The data plate {found.plate!r} subsamples its rows; expected every row of the batch "
            "to be used. Try a model of the same networks whose plate has the size len(x): fit "
            "makes the batches."
        )


def _samples(trace: Trace) -> dict[str, Site]:
    # A pyro.deterministic is recorded as an observed sample; it is neither latent nor data.
    return {
        n: s
        for n, s in trace.nodes.items()
        if s["type"] == "sample" and not s["infer"].get("_deterministic")
    }


def _match(model: Trace, guide: Trace) -> tuple[str, ...]:
    in_model = {n: s for n, s in _samples(model).items() if not s["is_observed"]}
    in_guide = {n: s for n, s in _samples(guide).items() if not s["is_observed"]}
    lost = [n for n, s in in_model.items() if n not in in_guide and not _is_summed_out(s)]
    extra = [
        n for n, s in in_guide.items() if n not in in_model and not s["infer"].get("is_auxiliary")
    ]
    if lost or extra:
        raise ValueError(
            f"Got latents {list(in_model)} in the model and {list(in_guide)} in the guide; "
            "expected the same names. Try renaming the guide's site, giving data obs= in the "
            'model, or infer={"enumerate": "parallel"} for a discrete site that is summed out.'
        )
    return tuple(in_model)


def _clashes(site: Site) -> bool:
    offered = site["args"][1] if len(site["args"]) > 1 else None
    return isinstance(offered, nn.Parameter) and site["value"].unconstrained() is not offered


def _is_point(fn: TorchDistribution) -> bool:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def _unscored(site: Site) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            site["fn"].log_prob(site["value"])
    except NotImplementedError:
        return True
    return False


def _not_scored(name: str, priors: tuple[str, ...]) -> str:
    side = "prior" if name in priors else "guide"
    return f"the {side} at {name!r} can only be sampled, not scored"


def _is_discrete(fn: TorchDistribution) -> bool:
    try:
        return bool(fn.support.is_discrete)
    except NotImplementedError:
        return False


def _is_summed_out(site: Site) -> bool:
    infer = site["infer"]
    return infer.get("enumerate") == "parallel" and infer.get("num_samples") is None


def _in(site: Site, plate: CondIndepStackFrame) -> bool:
    return any(f.name == plate.name for f in site["cond_indep_stack"])


def _along(site: Site, plate: CondIndepStackFrame) -> bool:
    # The guide may call its plate by another name: the dim and size are what count.
    return any(f.dim == plate.dim and f.size == plate.size for f in site["cond_indep_stack"])
