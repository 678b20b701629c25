"""What a program is made of, read from its traces: latents, observations, data plate, parameters.

Nothing here, and nothing built on it, knows a site by its name.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.modes import probing

Site = dict[str, Any]


class NoDensityError(ValueError):
    """Asked for a number that does not exist: log weights without a density."""


@dataclass(frozen=True)
class Structure:
    """The parts of a program, as its traces show them.

    Attributes:
        latents: Unobserved sites of the model, in its order.
        observed: Observed sites.
        enumerated: Discrete sites that are summed out.
        plate: Name of the data plate; None where there is none.
        dim: Its batch dim, negative.
        nesting: The deepest plate dim in use.
        scale: Full size of the data plate over the rows that one run sees (1 without
            subsampling).
        params: Unconstrained parameters by store name, in order of appearance.
        clashes: Store names that a run offered another parameter for than the store holds.
        points: Latents whose guide is a point (Delta).
        sampled_only: Latents whose prior or guide can be drawn from but not scored.
        shared: Latents outside the data plate.
        undefined: Why there are no log weights, in a sentence; None where there are.
    """

    latents: tuple[str, ...]
    observed: tuple[str, ...]
    enumerated: tuple[str, ...]
    plate: str | None
    dim: int
    nesting: int
    scale: float
    params: dict[str, Tensor]
    clashes: tuple[str, ...]
    points: tuple[str, ...]
    sampled_only: tuple[str, ...]
    shared: tuple[str, ...]
    undefined: str | None


def run(program: nn.Module, batch: Batch) -> tuple[Trace, Trace]:
    """Trace the guide, then the model replayed against it."""
    guide = poutine.trace(program.guide).get_trace(*batch.args, **batch.kwargs)
    model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(
        *batch.args, **batch.kwargs
    )
    return model, guide


def structure(program: nn.Module, batch: Batch) -> Structure:
    """Run a program once, leave it as found, and say what it is made of.

    Raises:
        ValueError: If the latents of model and guide differ, or nothing is observed.
    """
    with probing(program), torch.no_grad():
        with poutine.trace(param_only=True) as capture:
            model, guide = run(program, batch)
        model, guide = prune_subsample_sites(model), prune_subsample_sites(guide)
        latents = _match(model, guide)
        observed = tuple(
            n for n, s in model.nodes.items() if s["type"] == "sample" and s["is_observed"]
        )
        if not observed:
            raise ValueError(
                "The model observes nothing; expected at least one site with obs=. "
                'Try pyro.sample("x", decoder(z), obs=x).'
            )
        sites = {n: model.nodes[n] for n in (*latents, *observed)}
        enumerated = tuple(
            n
            for n in latents
            if {**sites[n]["infer"], **guide.nodes.get(n, {"infer": {}})["infer"]}.get("enumerate")
        )
        frame, problem = _data_plate(program, batch, sites, observed)
        points = tuple(
            n for n in latents if n in guide.nodes and not has_density(guide.nodes[n]["fn"])
        )
        unscored = tuple(
            n for n in latents if any(_unscored(t.nodes[n]) for t in (model, guide) if n in t.nodes)
        )
        shared = tuple(n for n in latents if frame and not _inside(n, frame, model, guide))
        auxiliary = sorted(set(_samples(guide)) - set(latents))
        undefined = [
            *(f"the guide at {n!r} is a point (Delta) and has no density" for n in points),
            *(
                f"the prior or guide at {n!r} can only be sampled: it has no density"
                for n in unscored
            ),
            *([problem] if problem else []),
            *(
                f"the latent {n!r} is outside the data plate: shared by all data, it gives no datum a "
                "weight of its own"
                for n in shared
            ),
            *(
                [f"the guide has auxiliary sites {auxiliary} that the model lacks"]
                if auxiliary
                else []
            ),
        ]
        return Structure(
            latents=latents,
            observed=observed,
            enumerated=enumerated,
            plate=frame.name if frame else None,
            dim=frame.dim if frame else -1,
            nesting=max(
                (
                    -f.dim
                    for t in (model, guide)
                    for s in t.nodes.values()
                    if s["type"] == "sample"
                    for f in s["cond_indep_stack"]
                    if f.vectorized
                ),
                default=0,
            ),
            scale=(frame.full_size or frame.size) / frame.size if frame else 1.0,
            params={n: s["value"].unconstrained() for n, s in capture.trace.nodes.items()},
            clashes=tuple(n for n, s in capture.trace.nodes.items() if _clashes(s)),
            points=points,
            sampled_only=unscored,
            shared=shared,
            undefined=undefined[0] if undefined else None,
        )


def rows_first(site: Site, dim: int) -> Tensor:
    """Give a site's value with the data plate, batch dim `dim`, in front: ``(N, ...)``."""
    value = site["value"]
    return value.movedim(value.dim() - len(site["fn"].event_shape) + dim, 0)


def has_density(fn: TorchDistribution) -> bool:
    """Whether a guide's distribution has a density at all: a Delta has none."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return not isinstance(fn, dist.Delta)


def _samples(trace: Trace) -> dict[str, Site]:
    return {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and not s["is_observed"]}


def _match(model: Trace, guide: Trace) -> tuple[str, ...]:
    in_model, in_guide = _samples(model), _samples(guide)
    lost = [n for n, s in in_model.items() if n not in in_guide and not s["infer"].get("enumerate")]
    extra = [
        n for n, s in in_guide.items() if n not in in_model and not s["infer"].get("is_auxiliary")
    ]
    if lost or extra:
        raise ValueError(
            f"Model and guide do not share their latents. Model: {list(in_model)}; guide: "
            f"{list(in_guide)}; expected the same names. Rename the guide's site, or mark a "
            'discrete site of the model with infer={"enumerate": "parallel"} to have it summed out.'
        )
    return tuple(in_model)


def _clashes(site: Site) -> bool:
    offered = site["args"][1] if len(site["args"]) > 1 else None
    return isinstance(offered, nn.Parameter) and site["value"].unconstrained() is not offered


def _data_plate(
    program: nn.Module, batch: Batch, sites: dict[str, Site], observed: tuple[str, ...]
) -> tuple[CondIndepStackFrame | None, str | None]:
    """The data plate, or what is wrong with it."""
    stacks = [{f.name: f for f in sites[n]["cond_indep_stack"]} for n in observed]
    common = {n: f for n, f in stacks[0].items() if all(n in s for s in stacks)}
    named = getattr(program, "plate", None)
    if named is not None and named not in common:
        raise ValueError(
            f"No plate {named!r} holds every observed site; they share {list(common)}."
        )
    fits = {
        n: f
        for n, f in common.items()
        if f.vectorized
        and (n == named if named else f.size == batch.rows or f.full_size == batch.rows)
    }
    if len(fits) > 1:
        return None, (
            f"the plates {list(fits)} both have the batch's size {batch.rows}; name the data's "
            "with Program(model, guide, plate=...)"
        )
    if not fits:
        sequential = [n for n, f in common.items() if not f.vectorized]
        return None, (
            f"the data plate {sequential} is sequential; write `with pyro.plate(...)`"
            if sequential
            else f"no plate of the batch's size {batch.rows} holds every observed site"
        )
    return next(iter(fits.values())), None


def _unscored(site: Site) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            site["fn"].log_prob(site["value"])
    except NotImplementedError:
        return True
    return False


def _inside(name: str, plate: CondIndepStackFrame, *traces: Trace) -> bool:
    # The guide may call its plate by another name: the dim and size are what count.
    return all(
        any(f.dim == plate.dim and f.size == plate.size for f in t.nodes[name]["cond_indep_stack"])
        for t in traces
        if name in t.nodes
    )
