"""Programs side by side in numbers, each with its error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnose.numbers import (
    SMALLEST,
    count,
    error,
    over_data,
    p_value,
    percent,
    value,
    with_error,
)
from ppl_vae.diagnostics import Evidence, mean_evidence
from ppl_vae.posterior import comparable
from ppl_vae.posterior.comparable import measured
from ppl_vae.report.guides import least_gap, missed

ABSENT = "–"


def comparison(diagnoses: Sequence[Diagnosis]) -> list[tuple[str, ...]]:
    """Give the rows of the table: what is compared, then one entry for each program.

    Rows that no program has are left out; what one lacks is a dash.
    """
    rows = [
        ("trained by", *(_objective(d) for d in diagnoses)),
        ("log p̂(x), fresh guide ± MC SE", *(_bound(d.fresh_evidence) for d in diagnoses)),
        ("  bias estimate", *(_bias(d.fresh_evidence) for d in diagnoses)),
        ("  SE over data", *(_data_se(d.fresh_evidence) for d in diagnoses)),
        ("  error not quantified", *(_share(d.fresh_evidence) for d in diagnoses)),
        (f"  less {diagnoses[0].name} ± paired SE",
         *(_difference(diagnoses[0], d) for d in diagnoses)),
        ("log p̂(x), own guide ± MC SE", *(_bound(d.evidence) for d in diagnoses)),
        ("  reconstruction ± SE over data", *(_term(d, "reconstruction") for d in diagnoses)),
        ("  KL(q(z|x) ‖ p(z)) ± SE", *(_term(d, "kl_prior") for d in diagnoses)),
        ("  KL(q(z|x) ‖ p(z|x)), at least", *(_gap(d) for d in diagnoses)),
        ("MMD² of q(z) and p(z)", *(_mmd(d) for d in diagnoses)),
        ("  of two samples of one law", *(_null(d) for d in diagnoses)),
        ("told apart (chance 50 %) ± SE", *(_classifier(d) for d in diagnoses)),
        ("  p-values of both", *(_p_values(d) for d in diagnoses)),
        ("active units", *(_active(d) for d in diagnoses)),
        ("training", *(_time(d) for d in diagnoses)),
    ]  # fmt: skip
    return [row for row in rows if any(entry != ABSENT for entry in row[1:])]


def conclusion(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """Say which program explains the data better, if that can be said."""
    first = diagnoses[0]
    without = [d for d in diagnoses if d.fresh_evidence is None]
    if without:
        never = [f"{d.name} ({d.no_fresh_guide})" for d in without if d.no_fresh_guide]
        return [
            f"There is no evidence under a fresh guide for {', '.join(d.name for d in without)}, "
            "so that no difference in evidence is given: "
            + (
                f"none can be fitted to {', '.join(never)}."
                if never
                else "diagnose(…, fresh=refit_guide(program, x))."
            )
        ]
    said = []
    for d in diagnoses[1:]:
        if (reason := incomparable(first, d)) is not None:
            said.append(f"The evidence of {d.name} is not set against {first.name}'s: {reason}.")
            continue
        mean, se = paired(first, d)
        size = f"{with_error(abs(mean), se)} nats per datum"
        if abs(mean) <= max(2 * se, SMALLEST):  # rounding is no winner
            said.append(
                f"{d.name} and {first.name} do not differ in evidence by more than these data can "
                f"show ({size})."
            )
        else:
            better, worse = (d.name, first.name) if mean > 0 else (first.name, d.name)
            said.append(
                f"Under freshly fitted guides the bound on log p(x) of {better} is higher than "
                f"that of {worse} by {size}."
            )
        lost = {e.name: missed(e) for e in (first, d) if missed(e) > 0.1}
        if lost:
            each = " and ".join(f"{value(loss)} ({name})" for name, loss in lost.items())
            mended = mean + missed(d) - missed(first)
            doubt = (
                ": the difference may be the guides' and not the models'"
                if mended * mean <= 0 or abs(mended) <= 2 * se
                else ", which does not turn this round"
            )
            said.append(
                f"The fresh guides miss a part of p(z|x) that the programs' own guides find, worth "
                f"{each} nats per datum or more{doubt}."
            )
    return said


def paired(first: Diagnosis, other: Diagnosis) -> tuple[float, float]:
    """Give the mean difference in evidence under fresh guides, and its SE over the data."""
    if first.fresh_evidence is None or other.fresh_evidence is None:
        raise ValueError(
            "Got a program without evidence under a fresh guide; expected it of both. "
            "Try diagnose(..., fresh=refit_guide(program, x))."
        )
    return over_data(other.fresh_evidence.log_evidence - first.fresh_evidence.log_evidence)


def incomparable(first: Diagnosis, other: Diagnosis) -> str | None:
    """Say why two evidences may not be compared; None where they may: see `comparable`."""
    one, two = (measured(d.lines, d.observations) for d in (first, other))
    return comparable.incomparable(one, two)


def _objective(d: Diagnosis) -> str:
    return d.trained_by or ABSENT


def _bound(found: Evidence | None) -> str:
    if found is None:
        return ABSENT
    m = mean_evidence(found)
    return with_error(m.mean, m.mc_se)


def _bias(found: Evidence | None) -> str:
    return ABSENT if found is None else error(mean_evidence(found).bias)


def _data_se(found: Evidence | None) -> str:
    return ABSENT if found is None else error(mean_evidence(found).data_se)


def _share(found: Evidence | None) -> str:
    return ABSENT if found is None else percent(float(np.mean(~found.quantified)))


def _difference(first: Diagnosis, d: Diagnosis) -> str:
    if d is first or first.fresh_evidence is None or d.fresh_evidence is None:
        return ABSENT
    return ABSENT if incomparable(first, d) is not None else with_error(*paired(first, d))


def _term(d: Diagnosis, name: str) -> str:
    if d.terms is None:
        return ABSENT
    return with_error(*over_data(getattr(d.terms, name)))


def _gap(d: Diagnosis) -> str:
    least = least_gap(d)
    return ABSENT if least is None else value(least)


def _mmd(d: Diagnosis) -> str:
    return ABSENT if d.match is None else f"{d.match.mmd.mmd2:.4f}"


def _null(d: Diagnosis) -> str:
    return ABSENT if d.match is None else f"{d.match.mmd.null_mean:.4f}"


def _classifier(d: Diagnosis) -> str:
    if d.match is None:
        return ABSENT
    vote = d.match.classifier
    return f"{100 * vote.accuracy:.1f} ± {100 * vote.se:.1f}\u00a0%"


def _p_values(d: Diagnosis) -> str:
    if d.match is None:
        return ABSENT
    both = f"{p_value(d.match.mmd.p_value)}, {p_value(d.match.classifier.p_value)}"
    return both.replace("p = ", "").replace("p < ", "< ")


def _active(d: Diagnosis) -> str:
    return ABSENT if d.active is None else f"{d.active.count} of {len(d.active.variance)}"


def _time(d: Diagnosis) -> str:
    if d.history is None or not len(d.history):
        return ABSENT
    seconds = f", {value(d.history['seconds'].sum(), 1)}\u00a0s" if "seconds" in d.history else ""
    return count(len(d.history), "epoch") + seconds
