"""The evidence of data under a program, by importance sampling from its guide."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from torch import Tensor, nn

from ppl_vae.diagnostics import Evidence, evidence
from ppl_vae.diagnostics.khat import MIN_DRAWS
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.weight_runs import WeightRuns, cannot_compile
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.masks import left_out
from ppl_vae.programs.modes import drawing, noise_kept
from ppl_vae.programs.tiles import tiles
from ppl_vae.programs.weighing import Weighing
from ppl_vae.training.compiled import CannotCompile
from ppl_vae.training.engine import Compile


@explained
def log_evidence(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    num_samples: int = 1000,
    *,
    level: float = 0.95,
    seed: int | None = None,
    budget: int | None = None,
    compile: Compile = "auto",  # noqa: A002
) -> Evidence:
    """Estimate log p(x) of every datum, in nats, with its error and k-hat.

    To compare programs, and for any program trained under `Adversarial`, use one with the same
    freshly fitted guide: ``log_evidence(refit_guide(program, x), x)``.

    The weights are those of `log_weights`, a part of the data at a time, and are not kept.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them.
        num_samples: Draws S per datum; below 25 there is no k-hat, and a warning says so.
        level: Nominal coverage of the interval for each datum.
        seed: Fork torch's random state and start here.
        budget: Bytes that the call may add to the process, whatever S and N: a run of the program
            on up to 4096 rows, of which the first one is measured, the libraries that it loads, and
            the weights of as many data at a time as fit into the rest. It changes no draw. None
            takes 256 MiB for weights.
        compile: Trace a run of the program and compile it: the same draws, and weights equal up to
            rounding, in a half of the time for nets of some hundred units. It takes about ten
            seconds, so that "auto" does it from 5,000,000 draws in all, S · N, on, where the budget
            has 200 MiB for the compiler; where it cannot be, a warning says why. True compiles from
            the second run on, or raises.

    Raises:
        NoDensityError: Where there are no log weights.
        ValueError: If the data do not fit, a run and the weights of a few data do not fit into the
            budget, or `compile` is True and the program cannot be compiled.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> wide = Program(world.model, world.broken_guide(scale=1.3))
        >>> result = log_evidence(wide, x, 2000, seed=0)
        >>> bool((abs(result.log_evidence - world.log_evidence(x).numpy()) < 5 * result.se).all())
        True
    """
    if not isinstance(compile, bool) and compile != "auto":
        raise ValueError(
            f'Got compile={compile!r}; expected True, False or "auto". Try compile="auto".'
        )
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int)):
        raise ValueError(f"Got budget={budget!r}; expected bytes or None. Try budget=2**30.")
    batch = program_batch(program, x, name="x")
    cut = tiles(batch.rows, num_samples)
    weighing = Weighing(program, batch)
    if count := int(left_out(program, batch, weighing.found).sum()):
        warnings.warn(
            f"Got {count} of {batch.rows} rows that the program's own mask leaves out: their "
            "log p(x) is that of no data, 0, and a mean over data would count it. Try the rows "
            "that the mask keeps, x[kept].",
            stacklevel=3,
        )
    with drawing(program, seed):
        weighing.wake(batch)
        rewind = noise_kept(batch.device)
        runs = WeightRuns(weighing, batch, cut, budget=budget, compile=compile)
        try:
            result = _estimate(runs, level)
        except CannotCompile as error:  # found out late: what was drawn so far may be wrong
            cannot_compile(str(error), compile is True, error)
            rewind()
            runs = WeightRuns(weighing, batch, cut, budget=budget, compile=False)
            result = _estimate(runs, level)
    if num_samples < MIN_DRAWS:
        warnings.warn(
            f"Got num_samples={num_samples}, too few for a k-hat: whether the error of the "
            f"evidence can be trusted is not known. Try {MIN_DRAWS} or more.",
            stacklevel=3,
        )
    return result


def _estimate(runs: WeightRuns, level: float) -> Evidence:
    """Fill as many columns as there is room for, take their evidence, and begin again."""
    cut, rows, parts = runs.cut, runs.batch.rows, []
    held: Tensor | None = None
    start = end = 0  # of the data whose weights are held
    for k in range(cut.chunks):
        index, at = cut.chunk(k, runs.batch.device)
        part = runs.batch.take(index)
        for j in range(cut.pieces):
            found = runs(part)
            if held is None:
                width = min(runs.columns, rows)
                held = found.new_empty(cut.num_samples, width)
            room = held[cut.piece(j), at.start - start : at.stop - start]
            room.copy_(found[: room.shape[0], : room.shape[1]])
        end = at.stop
        if held is not None and (end == rows or min(end + cut.data, rows) - start > held.shape[1]):
            parts.append(_of_columns(held[:, : end - start], start, level))
            start = end
    return _joined(parts)


def _of_columns(weights: Tensor, start: int, level: float) -> Evidence:
    try:
        return evidence(weights.double().cpu().numpy(), level=level)
    except ValueError as error:
        if not start:
            raise
        raise ValueError(f"{error} Here row {start} of x is N = 0.") from error


def _joined(parts: list[Evidence]) -> Evidence:
    first = parts[0]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(p, name) for p in parts])
        for name, value in first._asdict().items()
        if isinstance(value, np.ndarray)
    }
    return first._replace(**arrays)
