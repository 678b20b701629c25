"""What was found out about a fitted program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae import diagnostics
from ppl_vae.diagnose.finding import Finding, as_text, table
from ppl_vae.posterior import AIS, Gaps, PosteriorCheck, Reference, Sandwich
from ppl_vae.programs.describe import Line
from ppl_vae.training import History

if TYPE_CHECKING:
    from rich.console import Group

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found out about a fitted program on given data: arrays and small results.

    ``print(diagnosis)`` gives the findings as a table. What has no meaning for the program is None,
    and `undefined` or `left_out` says why; so is what did not fit into the time.

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
        active: Active units; variances are in units of the prior's.
        unit_kl: KL(q(z_d|x) ‖ p(z_d)) of each unit, its law taken for a Normal, ``(D,)``.
        match: q(z) against p(z).
        coverage: How much of p(z) lies among codes.
        calibration: Of the guide, on data that the program simulated.
        typicality: log p̂(x) of the data beside that of data which the program simulated.
        prior_check: Data beside those that the model makes.
        posterior_check: Data beside those that the decoder makes where the guide puts them.
        information: How much codes say of data, and how much of the rate is mismatch.
        gaps: Where the guide loses, of the first of `chosen`.
        ais: Evidence without a guide, of the first of `chosen`.
        sandwich: Both bounds by AIS, of data that the program simulated.
        reference: Draws of p(z|x) by NUTS, of the first of `chosen`.
        agreement: The guide beside them.
        chosen: Rows in a random order, of which slow parts took the first, ``(N',)``.
        left_out: Why parts were left out, by name.
        objective: The objective's class, where the program was trained by `fit`.
        no_fresh_guide: Why `refit_guide` has none for the program; None where it has.
        summed_out: Names of the latents that are summed out, which are no part of `codes`.
        findings: All of it in words, what is worst where it stands.
        codes: One z ~ q(z|x) for each datum, ``(N, D)``, all latents side by side.
        code_means: E_q[z|x], ``(N, D)``.
        prior_codes: z ~ p(z), ``(N, D)``.
        units: Names of the units of z.
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
        seconds: Wall time of each part, by name.
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
    unit_kl: Floats | None
    match: diagnostics.Match | None
    coverage: diagnostics.Coverage | None
    codes: Floats | None
    code_means: Floats | None
    prior_codes: Floats | None
    units: tuple[str, ...]
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
    chosen: NDArray[np.int64]
    left_out: Mapping[str, str]
    seconds: Mapping[str, float]
    calibration: diagnostics.Calibration | None = None
    typicality: diagnostics.Typicality | None = None
    prior_check: diagnostics.Calibration | None = None
    posterior_check: PosteriorCheck | None = None
    information: diagnostics.Information | None = None
    gaps: Gaps | None = None
    ais: AIS | None = None
    sandwich: Sandwich | None = None
    reference: Reference | None = None
    agreement: diagnostics.Agreement | None = None
    objective: str | None = None
    no_fresh_guide: str | None = None
    summed_out: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def trained_by(self) -> str | None:
        """The objective, as far as program and history show it; None where neither does."""
        if self.objective in ("Adversarial", "MMD"):
            return self.objective
        if self.history is None or not len(self.history):
            known = {None: None, "ELBO": "ELBO", "ImportanceWeighted": "ELBO"}
            return known.get(self.objective, "another objective")
        if self.history.critics("loss"):
            return "Adversarial"
        if "mmd2" in self.history:
            return "MMD"
        # A foreign estimator logs its loss alone; a Delta guide under ours leaves the rest.
        return "ELBO" if "reconstruction" in self.history else "another objective"

    @property
    def matched(self) -> bool:
        """Whether training pulled q(z) to p(z), and so no q(z|x) to its p(z|x)."""
        return self.trained_by in ("Adversarial", "MMD")

    @property
    def title(self) -> str:
        """What the findings are of."""
        return (
            f"{self.name}: {len(self.data)} data, {self.num_samples} draws of z for each, seed "
            f"{self.seed}; {sum(self.seconds.values()):.0f} s"
        )

    def __str__(self) -> str:
        return as_text(self.findings, self.title, self.left_out)

    def __rich__(self) -> Group:
        return table(self.findings, self.title, self.left_out)

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
