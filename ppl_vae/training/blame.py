"""Where a number stopped being finite."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from ppl_vae.data.batches import Batch, first_gap
from ppl_vae.programs.modes import buffers_kept, device_of, forked_rng
from ppl_vae.programs.runs import Site, run


class NonFiniteError(ValueError):
    """Training met a loss or gradient that is not finite; the program is in its last good state."""


def blame(
    program: nn.Module,
    batch: Batch,
    rng: Tensor,
    leaves: dict[str, Tensor],
) -> str:
    """Run a bad step again and say which site, or else which gradient, is not finite."""
    with (
        torch.no_grad(),
        forked_rng(device_of(program)),
        buffers_kept(program),
        poutine.block(),
        pyro.validation_enabled(False),
    ):
        torch.set_rng_state(rng)
        model, guide = run(program, batch)
        for side, trace in (("guide", guide), ("model", model)):
            for name, site in prune_subsample_sites(trace).nodes.items():
                if site["type"] == "sample" and (fault := _fault(site)):
                    return f"site {name!r} of the {side} ({fault}){_data(batch)}"
    bad = [n for n, p in leaves.items() if p.grad is not None and not p.grad.isfinite().all()]
    if bad:
        return f"every site is finite, but the gradient of {', '.join(bad[:3])} is not"
    return "every site is finite when the step is run again"


def _data(batch: Batch) -> str:
    gap = first_gap(batch)
    if gap is None:
        return ""
    return (
        f"; the data of this step hold NaN or infinity in argument {gap[0]!r}, which model and "
        "guide have to fill and mask"
    )


def _fault(site: Site) -> str | None:
    try:
        log_prob = site["fn"].log_prob(site["value"])
    except NotImplementedError:
        log_prob = torch.zeros(())
    ranges = {"value": site["value"], "log-prob": log_prob, **_parameters(site["fn"])}
    if all(v.isfinite().all() for v in ranges.values()):
        return None
    return "; ".join(f"{k} {_range(v)}" for k, v in ranges.items())


def _parameters(fn: Any) -> dict[str, Tensor]:  # noqa: ANN401
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    held = {k: getattr(fn, k, None) for k in ("loc", "scale", "scale_tril", "logits", "rate", "v")}
    return {k: v for k, v in held.items() if isinstance(v, Tensor)}


def _range(values: Tensor) -> str:
    finite = values[values.isfinite()]
    lost = values.numel() - finite.numel()
    shown = f"in [{finite.min():.4g}, {finite.max():.4g}]" if finite.numel() else "nowhere finite"
    return shown + (
        f" with {lost} of {values.numel()} not finite" if lost and finite.numel() else ""
    )
