"""Everything that can be said of a fitted program, from one set of draws."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ppl_vae import diagnostics
from ppl_vae.data.batches import Batch
from ppl_vae.diagnose.diagnosis import Diagnosis
from ppl_vae.diagnose.findings import findings
from ppl_vae.diagnose.stages import DRAWS, STAGES, Subject, pace, run_stages
from ppl_vae.diagnostics.evidence import NO_KHAT
from ppl_vae.diagnostics.khat import MIN_DRAWS
from ppl_vae.diagnostics.match import LEAST
from ppl_vae.posterior import posterior_predictive, prior_predictive
from ppl_vae.posterior.aggregate_match import independent
from ppl_vae.posterior.draws import as_array, observed_arrays, side_by_side
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.refit import no_fresh_guide
from ppl_vae.posterior.simulated import unit_names
from ppl_vae.programs.describe import describe
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import weighted_draws
from ppl_vae.programs.masks import refuse_left_out
from ppl_vae.programs.memory import objective_of
from ppl_vae.programs.program import Program
from ppl_vae.training import History
from ppl_vae.training.progress import progress_bar


@explained
def diagnose(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    name: str = "program",
    labels: ArrayLike | None = None,
    history: History | None = None,
    fresh: Program | None = None,
    num_samples: int = 500,
    budget: float = 30.0,
    seed: int = 0,
    progress: bool = True,
) -> Diagnosis:
    """Run the diagnostics that a program allows, on data that it preferably has not seen.

    Evidence, the three terms and the match of q(z) and p(z) are always there. The rest is done in
    order of value as long as there is time: calibration and typicality, predictive checks, mutual
    information, the gaps, annealed importance sampling. ``print(diagnosis)`` says what was found,
    what to try, and what was left out; each part is a function of its own in `ppl_vae`, for more
    draws or more data. What is done depends on the time, but no number does: a seed is one result.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them; at least 20 rows.
        name: What the reports call it.
        labels: One label per datum, to colour the latent space by; None and NaN are "missing".
        history: The training history, to be drawn.
        fresh: The program with a freshly fitted guide, from `refit_guide`: its evidence is what
            programs may be compared by.
        num_samples: Draws of z per datum.
        budget: Seconds for all that is not always there. A part begins if what it will take, from
            how quick the program was so far, is left: about so many seconds, not exactly. 0 for
            none, ``float("inf")`` for all.
        seed: Seeds all draws; torch's random state is left as found.
        progress: Show a progress bar.

    Raises:
        ValueError: If the data do not fit, are too few, differ in number from the labels, or a mask
            leaves some of them out.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(100, seed=1)
        >>> found = diagnose(Program(world.model, world.guide), x, num_samples=50, budget=0)
        >>> found.active.count, float(found.terms.kl_posterior.max()) < 1e-9
        (2, True)
    """
    start = time.perf_counter()
    batch = program_batch(program, x, name="x")
    _check(batch, labels, seed, budget)
    lines, found = describe(program, batch)
    if found.plate is not None:
        refuse_left_out(program, batch, found)
    drawn = evidence = terms = None
    per_run = pace(program, batch)
    begun = time.perf_counter()
    if found.undefined is None:
        drawn = weighted_draws(program, batch, num_samples, seed=seed)
        per_row = (time.perf_counter() - begun) / (num_samples * batch.rows)
        log_weights = as_array(drawn.log_weights)
        evidence = diagnostics.evidence(log_weights)
        if drawn.log_likelihood is not None:
            terms = diagnostics.three_terms(log_weights, as_array(drawn.log_likelihood))
    if drawn is not None and drawn.latents:
        latents = drawn.latents
    else:
        # At most 50, for x is drawn beside z; two tell the noise of their mean.
        count = min(max(num_samples, 2), 50)
        begun = time.perf_counter()
        latents = posterior_predictive(program, batch, count, seed=seed).latents
        per_row = (time.perf_counter() - begun) / (count * batch.rows)
    predictive = posterior_predictive(program, batch, 1, seed=seed)
    prior = prior_predictive(program, batch.rows, like=batch, seed=seed + 1)
    site = found.observed[0]
    observations = observed_arrays(program, batch)
    chosen = independent(lines, batch).cpu().numpy()
    # An index of categories is no coordinate.
    own = found.coordinates
    codes: dict[str, Any] = dict.fromkeys(CODES)
    if own:
        again = prior_predictive(program, batch.rows, like=batch, seed=seed + 3).latents
        codes = _codes(latents, predictive.latents, prior.latents, again, own, chosen, seed)
    fresh_evidence = None
    if fresh is not None:
        draws = weighted_draws(fresh, batch, num_samples, seed=seed + 2)
        fresh_evidence = diagnostics.evidence(as_array(draws.log_weights))
    always = time.perf_counter() - start
    subject = Subject(
        program,
        batch,
        found,
        drawn,
        np.random.default_rng([seed, 0xC405]).permutation(chosen),
        seed,
        per_row,
        per_run,
    )
    with progress_bar(progress, len(STAGES), 0, "diagnose", transient=True) as bar:
        parts, left_out, seconds = run_stages(subject, budget, bar)
    if own and codes["match"] is None:
        left_out["q(z) against p(z)"] = f"fewer than {LEAST} data differ"
    if "calibration" in parts and "typicality" not in parts:
        left_out["typicality"] = f"it takes log weights of {DRAWS} draws or more"
    blind = evidence is not None and num_samples < MIN_DRAWS
    result = Diagnosis(
        name=name,
        lines=lines,
        latents=found.latents,
        shared=found.shared,
        observed=found.observed,
        undefined=found.undefined,
        evidence=evidence,
        fresh_evidence=fresh_evidence,
        terms=terms,
        **codes,
        observations=observations,
        data=observations[site],
        reconstructions=as_array(predictive.means.get(site, predictive.data[site])[0]),
        samples=as_array(prior.means.get(site, prior.data[site])),
        generated=as_array(prior.data[site]),
        labels=None if labels is None else _named(labels),
        history=history,
        notes=(
            *getattr(program, "notes", list)(),
            *_missing(observations),
            *([NO_KHAT] if blind else []),
            *([UNKNOWN] if history is None and objective_of(program) is None else []),
        ),
        num_samples=num_samples,
        seed=seed,
        chosen=subject.chosen,
        left_out=left_out,
        seconds={"evidence, codes and match": always, **seconds},
        objective=objective_of(program),
        no_fresh_guide=no_fresh_guide(program, batch, found),
        summed_out=found.enumerated,
        **parts,
    )
    return replace(result, findings=findings(result))


UNKNOWN = (
    "by which objective the program was trained is not known, and what is advised is for an ELBO: "
    "give the history that fit gave back"
)
CODES = ("codes", "code_means", "prior_codes", "units", "active", "unit_kl", "match", "coverage")


def _codes(
    latents: Mapping[str, Tensor],
    one: Mapping[str, Tensor],
    prior: Mapping[str, Tensor],
    again: Mapping[str, Tensor],
    own: list[str],
    chosen: NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:
    """Say what is to be said of z, all latents side by side."""
    draws, codes = side_by_side(latents, own, 2), side_by_side(one, own, 2)[0]
    prior_codes = side_by_side(prior, own, 1)
    means = draws.mean(0)
    spread = prior_codes.std(0).clip(min=1e-12)  # the threshold is for a prior of unit scale
    units = unit_names(own, [prior[n][0].numel() for n in own])
    found = {
        "codes": codes,
        "code_means": means,
        "prior_codes": prior_codes,
        "units": tuple(units),
        "active": diagnostics.active_units(
            means / spread, noise=draws.var(0, ddof=1).mean(0) / len(draws) / spread**2
        ),
        "unit_kl": diagnostics.unit_kl(draws, prior_codes) if len(draws) > 2 else None,
        "match": None,
        "coverage": None,
    }
    if len(chosen) >= LEAST:  # of data that are given twice the codes are not independent
        found["match"] = diagnostics.match(codes[chosen], prior_codes, names=units, seed=seed)
        found["coverage"] = diagnostics.coverage(
            prior_codes, codes[chosen], side_by_side(again, own, 1)[chosen]
        )
    return found


def _check(batch: Batch, labels: ArrayLike | None, seed: int, budget: float) -> None:
    if batch.rows < LEAST:
        raise ValueError(
            f"Got {batch.rows} rows; expected at least {LEAST} to test q(z) against p(z). Try more "
            "data."
        )
    if labels is not None and np.shape(labels) != (batch.rows,):
        raise ValueError(
            f"Got labels of shape {np.shape(labels)}; expected {(batch.rows,)}, one a row. "
            "Try the labels of these rows only, np.ravel(labels) of a single column, or None."
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ValueError(f"Got seed={seed!r}; expected an integer from 0 on. Try seed=0.")
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not budget >= 0:
        raise ValueError(
            f"Got budget={budget!r}; expected seconds, 0 or more. Try budget=60, or float('inf')."
        )


def _named(labels: ArrayLike) -> NDArray[Any]:
    """Numbers as they are; other labels as text, those that are missing among them."""
    given = np.asarray(labels)
    if given.dtype != object:
        return given
    import pandas as pd  # not before it is needed: it is slow to load

    return np.array(["missing" if pd.isna(v) else str(v) for v in given])


def _missing(observations: Mapping[str, NDArray[np.float64]]) -> list[str]:
    return [
        f"{gaps} of {x.size} cells of {site} are missing: the evidence is that of the cells seen, "
        "and all that is said takes them to be missing at random, for reasons that lie in cells "
        "that are seen; predictive checks and calibration, for reasons that lie in none of them"
        for site, x in observations.items()
        if (gaps := int(np.isnan(x).sum()))
    ]
