"""Running a program: traces of its guide, and of its model at the guide's draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_site_shape
from torch import Tensor, nn

from ppl_vae.data.batches import Batch, first_gap
from ppl_vae.programs.modes import probing

Site = dict[str, Any]
PyroFunction = Callable[..., Any]


def functions(program: nn.Module) -> tuple[PyroFunction, PyroFunction]:
    """Give a program's model and guide."""
    return cast(PyroFunction, program.model), cast(PyroFunction, program.guide)


def run_guide(program: nn.Module, batch: Batch) -> Trace:
    """Trace the guide."""
    _, guide = functions(program)
    return poutine.trace(guide).get_trace(*batch.args, **batch.kwargs)


def run_model(program: nn.Module, batch: Batch, *, latents: Trace | None = None) -> Trace:
    """Trace the model: on its own, or replayed against the latents of another trace."""
    model, _ = functions(program)
    if latents is not None:
        model = poutine.replay(model, trace=latents)
    return poutine.trace(model).get_trace(*batch.args, **batch.kwargs)


def run(program: nn.Module, batch: Batch) -> tuple[Trace, Trace]:
    """Trace the guide, then the model replayed against it: (model, guide)."""
    guide = run_guide(program, batch)
    return run_model(program, batch, latents=guide), guide


def probe(program: nn.Module, batch: Batch) -> tuple[Trace, Trace]:
    """Run a program once and leave it as found: traces (model, guide) without subsampling sites."""
    with probing(program), torch.no_grad():
        model, guide = run(program, batch)
    return prune_subsample_sites(model), prune_subsample_sites(guide)


def rows_first(site: Site, dim: int) -> Tensor:
    """Give a site's value with the data plate, batch dim `dim`, in front: ``(N, ...)``."""
    value = site["value"]
    return value.movedim(value.dim() - len(site["fn"].event_shape) + dim, 0)


def row_dims(latents: Mapping[str, Tensor], trace: Trace, dim: int) -> dict[str, int]:
    """Say where `rows_first` took the rows of values ``(N, ...)`` from: for ``movedim(0, ...)``."""
    return {n: v.dim() - len(trace.nodes[n]["fn"].event_shape) + dim for n, v in latents.items()}


def run_checked(program: nn.Module, batch: Batch) -> tuple[Trace, Trace]:
    """Do as `run` does, and say what is wrong with a site whose shape does not fit its plates.

    Raises:
        ValueError: If there is one.
    """
    try:
        traces = run(program, batch)
        for trace in traces:
            for site in prune_subsample_sites(trace).nodes.values():
                if site["type"] == "sample":
                    _check_shape(site)
        return traces
    except ValueError as error:
        cause = error.__cause__
        if isinstance(cause, ValueError) and str(cause).startswith("Got "):
            raise cause from None  # our own sentence, without Pyro's table of shapes below it
        numbers = str(error).startswith(("Expected parameter", "Expected value argument"))
        if numbers and (gap := first_gap(batch)) is not None:
            said = str(error).splitlines()[0].partition(" to satisfy")[0]
            raise ValueError(
                f"Got NaN or infinity in argument {gap[0]!r} of the data, which model and guide "
                f"have to fill and mask ({said}); expected finite numbers. Try the rows without "
                "them, pyro.poutine.mask, or a VAE, which leaves missing cells out."
            ) from None  # a table of all values
        if str(error).startswith("subsample_size does not match len(subsample)"):
            raise ValueError(
                f"Got {batch.rows} rows for a plate that picks more of them ("
                f"{str(error).partition(', ')[2].partition('.')[0]}); expected as many or more. "
                "Try larger batches, a smaller subsample_size, or a plate of the size len(x)."
            ) from error
        if not any(said in str(error) for said in ("Shape mismatch inside", "invalid log_prob")):
            raise
        raise ValueError(
            f"Got a site whose batch shape does not fit its plates ({str(error).splitlines()[0]}); "
            "expected one log-prob per datum. Try .to_event(1) on its distribution (the last dim "
            "is then part of the event), or y[:, 0] for a column that stands alone."
        ) from error


def _check_shape(site: Site) -> None:
    """A value that broadcasts against its plates would be scored N × N times."""
    try:
        scored = {**site, "log_prob": site["fn"].log_prob(site["value"])}
    except (NotImplementedError, ValueError):  # no density; or a value that training would name
        return
    depth = max((-f.dim for f in site["cond_indep_stack"] if f.vectorized), default=0)
    check_site_shape(scored, max(depth, scored["log_prob"].dim()))
