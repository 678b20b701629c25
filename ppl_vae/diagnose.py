"""Everything that can be said of a fitted program, from one set of draws."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ppl_vae import diagnostics
from ppl_vae.diagnostics.evidence import NO_KHAT
from ppl_vae.diagnostics.khat import MIN_DRAWS
from ppl_vae.posterior import posterior_predictive, prior_predictive
from ppl_vae.posterior.draws import as_array, observed_values, side_by_side
from ppl_vae.posterior.faults import explained
from ppl_vae.programs.describe import Line, describe
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import weighted_draws
from ppl_vae.programs.program import Program
from ppl_vae.training import History

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found out about a fitted program on given data: arrays and small results.

    What has no meaning for the program is None, and `undefined` says why.

    Attributes:
        name: What the reports call it.
        lines: The program in words.
        latents: Names of the latent sites.
        shared: Those outside the data plate, which no datum has to itself. Without any other, what
            is said of codes is None.
        observed: Names of the observed sites.
        undefined: Why there are no log weights under its own guide; None where there are.
        evidence: Evidence of each datum under the program's own guide.
        fresh_evidence: The same under a freshly fitted guide, if one was given.
        terms: The three terms of log p(x), under the program's own guide.
        active: Active units.
        mmd: Squared MMD of q(z) and p(z), with permutation p-value.
        classifier: Classifier two-sample test of q(z) and p(z).
        codes: One z ~ q(z|x) for each datum, ``(N, D)``, all latents side by side.
        code_means: E_q[z|x], ``(N, D)``.
        prior_codes: z ~ p(z), ``(N, D)``.
        observations: What each observed site was given, ``(N, *event)``.
        data: The first of them, ``(N, *event)``.
        reconstructions: E[x|z] at `codes`, ``(N, *event)``.
        samples: E[x|z] at `prior_codes` (draws of x where no mean is known), ``(N, *event)``.
        generated: x ~ p(x|z) at `prior_codes`, ``(N, *event)``.
        labels: One label per datum, or None.
        history: The training history, or None.
        notes: What is assumed beside the equations.
        num_samples: Draws of z per datum behind evidence and terms.
        seed: The seed of all draws.
        seconds: Wall time.
    """

    name: str
    lines: tuple[Line, ...]
    latents: tuple[str, ...]
    shared: tuple[str, ...]
    observed: tuple[str, ...]
    undefined: str | None
    evidence: diagnostics.Evidence | None
    fresh_evidence: diagnostics.Evidence | None
    terms: diagnostics.ThreeTerms | None
    active: diagnostics.ActiveUnits | None
    mmd: diagnostics.MMDTest | None
    classifier: diagnostics.ClassifierTest | None
    codes: Floats | None
    code_means: Floats | None
    prior_codes: Floats | None
    observations: Mapping[str, Floats]
    data: Floats
    reconstructions: Floats
    samples: Floats
    generated: Floats
    labels: NDArray[Any] | None
    history: History | None
    notes: tuple[str, ...]
    num_samples: int
    seed: int
    seconds: float

    def __repr__(self) -> str:
        parts = [f"{line.role} {line.family}" for line in self.lines]
        if self.evidence is not None:
            parts.append(
                f"evidence at least {self.evidence.log_evidence.mean():.2f} nats per datum"
            )
            parts.append(self.evidence.tail)
        if self.undefined is not None:
            parts.append(f"no log weights: {self.undefined}")
        return f"Diagnosis({self.name!r}, {len(self.data)} data; {'; '.join(parts)})"


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
    seed: int = 0,
) -> Diagnosis:
    """Run the diagnostics that a program allows, on data that it preferably has not seen.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them; at least 20 rows.
        name: What the reports call it.
        labels: One label per datum, to colour the latent space by; None and NaN are "missing".
        history: The training history, to be drawn.
        fresh: The program with a freshly fitted guide, from `refit_guide`: its evidence is what
            programs may be compared by.
        num_samples: Draws of z per datum.
        seed: Seeds all draws; torch's random state is left as found.

    Raises:
        ValueError: If the data do not fit, are too few, or differ in number from the labels.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(100, seed=1)
        >>> found = diagnose(Program(world.model, world.guide), x, num_samples=50)
        >>> found.active.count, float(found.terms.kl_posterior.max()) < 1e-9
        (2, True)
    """
    start = time.perf_counter()
    batch = program_batch(program, x, name="x")
    if batch.rows < 20:
        raise ValueError(
            f"Got {batch.rows} rows; expected at least 20 to test q(z) against p(z). Try more data."
        )
    if labels is not None and np.shape(labels) != (batch.rows,):
        raise ValueError(
            f"Got labels of shape {np.shape(labels)}; expected {(batch.rows,)}, one a row. "
            "Try the labels of these rows only, np.ravel(labels) of a single column, or None."
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"Got seed={seed!r}; expected an integer. Try seed=0.")
    lines, found = describe(program, batch)
    evidence = terms = None
    latents: dict[str, Tensor] = {}
    if found.undefined is None:
        draws = weighted_draws(program, batch, num_samples, seed=seed)
        log_weights = as_array(draws.log_weights)
        evidence = diagnostics.evidence(log_weights)
        if draws.log_likelihood is not None:
            terms = diagnostics.three_terms(log_weights, as_array(draws.log_likelihood))
        latents = draws.latents
    blind = evidence is not None and num_samples < MIN_DRAWS
    predictive = posterior_predictive(program, batch, 1, seed=seed)
    if not latents:
        # At most 50, for x is drawn beside z; two tell the noise of their mean.
        few = min(max(num_samples, 2), 50)
        latents = posterior_predictive(program, batch, few, seed=seed).latents
    prior = prior_predictive(program, batch.rows, like=batch, seed=seed + 1)
    site = found.observed[0]
    observations = {n: as_array(v) for n, v in observed_values(program, batch).items()}
    # An index of categories is no coordinate.
    own = [n for n in found.latents if n not in (*found.shared, *found.enumerated)]
    codes = code_means = prior_codes = None
    active = mmd = classifier = None
    if own:
        codes = side_by_side(predictive.latents, own, 2)[0]
        draws_of_z = side_by_side(latents, own, 2)
        code_means = draws_of_z.mean(0)
        prior_codes = side_by_side(prior.latents, own, 1)
        active = diagnostics.active_units(
            code_means, noise=draws_of_z.var(0, ddof=1).mean(0) / len(draws_of_z)
        )
        mmd = diagnostics.mmd_test(codes, prior_codes, seed=seed)
        classifier = diagnostics.classifier_two_sample(codes, prior_codes, seed=seed)
    return Diagnosis(
        name=name,
        lines=lines,
        latents=found.latents,
        shared=found.shared,
        observed=found.observed,
        undefined=found.undefined,
        evidence=evidence,
        fresh_evidence=None
        if fresh is None
        else diagnostics.evidence(
            as_array(weighted_draws(fresh, batch, num_samples, seed=seed + 2).log_weights)
        ),
        terms=terms,
        active=active,
        mmd=mmd,
        classifier=classifier,
        codes=codes,
        code_means=code_means,
        prior_codes=prior_codes,
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
        ),
        num_samples=num_samples,
        seed=seed,
        seconds=time.perf_counter() - start,
    )


def _named(labels: ArrayLike) -> NDArray[Any]:
    """Numbers as they are; other labels as text, those that are missing among them."""
    given = np.asarray(labels)
    if given.dtype != object:
        return given
    import pandas as pd  # not before it is needed: it is slow to load

    return np.array(["missing" if pd.isna(v) else str(v) for v in given])


def _missing(observations: Mapping[str, Floats]) -> list[str]:
    return [
        f"{gaps} of {x.size} cells of {site} are missing: the evidence is that of the cells seen, "
        "and all that is said takes them to be missing at random, for reasons that lie in cells "
        "that are seen"
        for site, x in observations.items()
        if (gaps := int(np.isnan(x).sum()))
    ]
