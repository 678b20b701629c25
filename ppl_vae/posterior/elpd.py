"""Held-out evidence of several programs, as ArviZ compares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ppl_vae.diagnostics import mean_evidence
from ppl_vae.posterior.comparable import incomparable, kind, measured
from ppl_vae.posterior.draws import observed_arrays
from ppl_vae.posterior.evidence import log_evidence
from ppl_vae.programs.describe import describe
from ppl_vae.programs.inputs import program_batch

if TYPE_CHECKING:
    import pandas as pd
    from arviz_stats.utils import ELPDData


def elpd(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    num_samples: int = 1000,
    *,
    seed: int | None = None,
) -> ELPDData:
    """Give the evidence of held-out data as an ``ELPDData``, for `compare` and ArviZ.

    Programs are compared by log p_θ(x_i) of data that θ has not seen. `arviz_stats.loo` is not
    the way: with one latent per datum it estimates the same number by a harmonic mean, and θ
    has seen x_i.

    Its ``kind`` names what is measured: density or mass, and a digest of the data that the
    program observes. `arviz_stats.compare` takes no two kinds, and so compares no density with a
    mass, nor densities of x and log x, nor of other rows.

    Args:
        program: A `VAE` or `Program`. Compare programs under the same freshly fitted guide: see
            `refit_guide`.
        x: *Held-out* data, as `fit` takes them; the same for all programs.
        num_samples: Draws S per datum.
        seed: Fork torch's random state and start here.

    Returns:
        ``elpd_i`` is log p̂(x_i) in nats, a stochastic lower bound; ``elpd`` their sum and ``se``
        its standard error over the data; ``pareto_k`` the k-hat of each. The attributes of
        ``elpd_i`` have the Monte-Carlo error ``mc_se`` of the sum, and the ``bias`` estimated.

    Raises:
        NoDensityError: Where there are no log weights.
        ValueError: If the data do not fit.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(20, seed=1)
        >>> wide = Program(world.model, world.broken_guide(scale=1.3))
        >>> elpd(wide, x, 200, seed=0).n_data_points
        20
    """
    import xarray as xr
    from arviz_stats.utils import ELPDData

    batch = program_batch(program, x, name="x")
    found = log_evidence(program, batch, num_samples, seed=seed)
    lines, _ = describe(program, batch)
    sites = measured(lines, observed_arrays(program, batch))
    mean, rows = mean_evidence(found), batch.rows
    about = {"observed": sites, "mc_se": rows * mean.mc_se, "bias": rows * mean.bias}
    return ELPDData(
        kind=kind(sites),
        elpd=rows * mean.mean,
        se=rows * mean.data_se,
        p=float("nan"),
        n_samples=found.num_samples,
        n_data_points=rows,
        scale="log",
        warning=bool((~found.quantified).any()),
        good_k=found.limit,
        elpd_i=xr.DataArray(found.log_evidence, dims=["row"], attrs=about),
        pareto_k=xr.DataArray(found.khat, dims=["row"]),
    )


def compare(scores: Mapping[str, ELPDData]) -> pd.DataFrame:
    """Set programs side by side by their held-out evidence, the best first.

    This is `arviz_stats.compare`, with a sentence where evidences may not be compared, with
    stacking weights that are right for data of hundreds of cells too (ArviZ takes the exponential
    of log p(x), which under- or overflows beyond 700 nats), and with the error of the bounds.

    Args:
        scores: By the names of the programs, what `elpd` gave for each.

    Returns:
        ArviZ's table, one program a row, sums over the data in nats: ``elpd``, ``elpd_diff`` to
        the best and ``dse``, its paired standard error over the data. Beside them ``mc_se``, the
        Monte-Carlo error of ``elpd``, and ``bias``, what the bound falls short by on average: a
        difference smaller than these is none. ``warning``: some k-hat is too large, and both
        are then too small.

    Raises:
        ValueError: If these are not scores of two programs or more, on the same data and under the
            same kind of measure.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world, other = (LinearGaussian.random(2, 5, seed=k) for k in (0, 1))
        >>> x, _ = world.sample(200, seed=1)
        >>> programs = {"right": world, "wrong": other}
        >>> table = compare(
        ...     {n: elpd(Program(w.model, w.guide), x, 50) for n, w in programs.items()}
        ... )
        >>> list(table.index), bool(table.loc["wrong", "elpd_diff"] > 5 * table.loc["wrong", "dse"])
        (['right', 'wrong'], True)
    """
    from arviz_stats import compare as compared  # type: ignore[attr-defined]
    from arviz_stats.utils import ELPDData

    if not isinstance(scores, Mapping) or len(scores) < 2:
        got = f"{len(scores)} score(s)" if isinstance(scores, Mapping) else type(scores).__name__
        raise ValueError(
            f"Got {got}; expected those of two programs or more, by name. "
            'Try compare({"a": elpd(a, x_test), "b": elpd(b, x_test)}).'
        )
    for name, score in scores.items():
        if not isinstance(score, ELPDData) or "observed" not in getattr(score.elpd_i, "attrs", {}):
            what = score.kind if isinstance(score, ELPDData) else type(score).__name__
            raise ValueError(
                f"Got {what!r} for {name!r}; expected held-out evidence: leave-one-out scores are "
                "no such thing where each datum has a latent. Try elpd(program, x_test)."
            )
    first, *others = scores
    for name in others:
        one, other = (scores[n].elpd_i.attrs["observed"] for n in (first, name))
        if (reason := incomparable(one, other)) is not None:
            raise ValueError(
                f"Got {first!r} and {name!r}, whose evidences may not be compared: {reason}. "
                "Expected the same x_test (its rows, order, units and transform: a density of "
                "log x is another number than one of x) under likelihoods of one kind. Try "
                "elpd(program, x_test) of each on one x_test, densities apart from masses."
            )
    # Weights depend on differences alone, those of a datum.
    top = np.max([s.elpd_i.values for s in scores.values()], axis=0)
    table = compared({n: replace(s, elpd_i=s.elpd_i - top) for n, s in scores.items()})
    for column in ("mc_se", "bias"):
        table[column] = [scores[n].elpd_i.attrs[column] for n in table.index]
    return table
