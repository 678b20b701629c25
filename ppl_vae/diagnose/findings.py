"""What to conclude of each result, in words: effect sizes first, for tests reject all models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ppl_vae.diagnose.diagnosis import Diagnosis
from ppl_vae.diagnose.finding import Finding, Grade
from ppl_vae.diagnose.matched import WORDS, verdict
from ppl_vae.diagnose.numbers import p_value, percent, value, with_error
from ppl_vae.diagnose.ranked import calibration_finding, prior_check_finding
from ppl_vae.diagnostics import mean_evidence

SMALL, LARGE = 0.1, 1.0
"""Nats per datum: of no weight, and of much."""

AGREED = 1.05
"""R-hat of so few draws where chains agree."""


def findings(d: Diagnosis) -> tuple[Finding, ...]:
    """Say what each part of a diagnosis found, of the guide first, then of the model."""
    return tuple(
        f
        for build in (
            _weights, _gap, _annealed, calibration_finding, _split, _beside_reference, _codes,
            _match, prior_check_finding, _typicality, _posterior_check,
        )
        for f in build(d)
    )  # fmt: skip


def _weights(d: Diagnosis) -> Iterator[Finding]:
    found = d.evidence
    if found is None:
        if d.undefined is not None:
            yield Finding(
                "log p(x)", "–", "–", "unknown", f"Not defined: {d.undefined}.",
                "A Normal guide, or refit_guide(program, x).", "evidence",
            )  # fmt: skip
        return
    mean, doubtful = mean_evidence(found), float(np.mean(~found.quantified))
    grade: Grade = "good" if doubtful <= 0.05 else "look" if doubtful <= 0.5 else "bad"
    if found.unknown.all():
        grade = "unknown"
    said = {
        "good": "A lower bound, tight to its error for nearly all data.",
        "look": f"A lower bound; its error is not quantified for {percent(doubtful)} of the data.",
        "bad": f"A lower bound and no more: k-hat is too high for {percent(doubtful)} of the data.",
        "unknown": "A lower bound; too few draws for a k-hat.",
    }[grade]
    yield Finding(
        "log p(x)",
        "at least " + with_error(mean.mean, mean.mc_se),
        f"ESS {np.median(found.ess):.0f} of {found.num_samples}",
        grade,
        said,
        "" if grade == "good" else "refine(program, x), MultivariateNormal or ConditionalFlow as "
        "the guide, or more draws.",
        "evidence",
    )  # fmt: skip


def _gap(d: Diagnosis) -> Iterator[Finding]:
    if d.terms is None:
        return
    gap = float(d.terms.kl_posterior.mean())
    error = float(np.sqrt((d.terms.kl_posterior_se**2).sum()) / len(d.terms.kl_posterior))
    if not np.isfinite(gap):
        yield Finding(
            "KL to p(z|x)", "∞", "–", "bad",
            "The guide draws where the posterior has no mass.",
            "A guide whose support is the prior's.", "three-terms",
        )  # fmt: skip
        return
    blind = d.evidence is not None and not d.evidence.quantified.all()
    least = "at least " if blind else ""
    grade: Grade = "good" if gap < SMALL else "look" if gap < LARGE else "bad"
    said = {
        "good": "On what it visits q(z|x) is close to p(z|x).",
        "look": "q(z|x) is off by a moderate amount.",
        "bad": "q(z|x) is far from p(z|x).",
    }
    yield Finding(
        "KL to p(z|x)",
        least + with_error(gap, error),
        f"{percent(float(np.mean(d.terms.kl_posterior > LARGE)))} above 1 nat",
        grade,
        said[grade],
        "" if grade == "good" else "gaps(program, x) says what to change.",
        "three-terms",
    )  # fmt: skip


def _annealed(d: Diagnosis) -> Iterator[Finding]:
    if d.ais is None or d.evidence is None:
        return
    rows = d.chosen[: len(d.ais.se)]
    apart = d.ais.log_evidence - d.evidence.log_evidence[rows]
    error = float(np.sqrt((d.ais.se**2 + d.evidence.se[rows] ** 2).sum()) / len(rows))
    mean = float(apart.mean())
    worst = int(rows[apart.argmax()])
    missed = int(np.sum(apart > LARGE))
    if mean > SMALL + 2 * error or missed:
        grade: Grade = "bad" if mean > LARGE or missed > len(rows) / 10 else "look"
        said = (
            f"Without the guide there is more: it misses a part of p(z|x), most of datum {worst} "
            f"({value(float(apart.max()))} nats)."
        )
        advice = "A richer guide; draw from reference_posterior(program, x) to see the modes."
    elif mean < -SMALL - 2 * error:
        grade, said = "unknown", "AIS falls short of the guide: it says nothing with so few steps."
        advice = "ais(program, x, temperatures=2000)."
    else:
        grade, said, advice = "good", "AIS, which no guide misleads, finds no more.", ""
    if d.sandwich is not None and grade == "good" and d.sandwich.gap > LARGE:
        grade = "unknown"
        said += f" But it is loose by {value(d.sandwich.gap)} nats on data of the model's own."
        advice = "ais(program, x, temperatures=2000)."
    yield Finding(
        "AIS beside q", with_error(mean, error),
        f"{missed} of {len(rows)} above 1 nat", grade, said, advice, "ais",
    )  # fmt: skip


def _split(d: Diagnosis) -> Iterator[Finding]:
    if d.gaps is None:
        return
    names = ("amortisation", "correlation", "remainder")
    means = {n: float(getattr(d.gaps, n).mean()) for n in names}
    worst = max(means, key=lambda n: means[n])
    low, high = getattr(d.gaps.mean_brackets, worst)
    size = means[worst]
    grade: Grade = "good" if size < SMALL else "look" if size < LARGE else "bad"
    said = {
        "amortisation": "The encoder does not give each datum the best q of its family.",
        "correlation": "The family ignores correlations of z given x.",
        "remainder": "p(z|x) is like no Normal.",
    }[worst]
    advice = {
        "amortisation": "refine(program, x), a larger encoder, more data or longer training.",
        "correlation": "MultivariateNormal as the guide.",
        "remainder": "ConditionalFlow as the guide.",
    }[worst]
    yield Finding(
        f"gap: {worst}",
        f"{value(size)}, in {value(low)} to {value(high)}",
        ", ".join(f"{n} {value(m)}" for n, m in means.items() if n != worst),
        grade,
        "Nothing to be gained by another guide." if grade == "good" else said,
        "" if grade == "good" else advice,
        "gaps",
    )


def _beside_reference(d: Diagnosis) -> Iterator[Finding]:
    if d.agreement is None or d.reference is None:
        return
    a, rhat = d.agreement, float(d.reference.rhat.max())
    off, wide = float(np.median(a.rms_mean_error)), float(np.median(a.sd_ratio))
    told = float(np.nanmedian(a.c2st)) if not np.isnan(a.c2st).all() else float("nan")
    if rhat > AGREED or np.isnan(told) or d.reference.divergences:
        grade: Grade = "unknown"
        said = (
            f"The chains do not agree (R-hat {value(rhat)}, {d.reference.divergences} divergences):"
            " no reference, or modes far apart."
        )
        advice = "reference_posterior(program, x, num_samples=4000, warmup=2000)."
    else:
        grade = "good" if told < 0.6 else "look" if told < 0.75 else "bad"
        said = {
            "good": "q(z|x) is much like draws of p(z|x).",
            "look": "q(z|x) differs from draws of p(z|x) in location, width or shape.",
            "bad": "q(z|x) is not like draws of p(z|x).",
        }[grade]
        advice = "" if grade == "good" else "gaps(program, x) says what to change."
    yield Finding(
        "NUTS beside q",
        f"mean {value(off)} sd off, sd × {value(wide)}",
        f"told apart in {percent(told)}",
        grade,
        f"{said} Of {len(a.c2st)} data, R-hat up to {value(rhat)}.",
        advice,
        "reference",
    )


def _codes(d: Diagnosis) -> Iterator[Finding]:
    if d.active is None:
        return
    units = len(d.active.variance)
    shown, effect = f"{d.active.count} of {units} units", ""
    if (i := d.information) is not None:
        shown = "{} to {} nats".format(*map(value, i.bracket))
        effect = f"{d.active.count} of {units} units active"
    rate = None if d.terms is None else float(d.terms.kl_prior.mean())
    if d.active.count == 0 or (rate is not None and rate < 0.05):
        grade: Grade = "bad"
        said = "Collapsed: z tells nothing of x."
        advice = "ELBO(warmup=…), a smaller kl_weight, or a weaker decoder."
    elif d.active.count < units:
        idle = units - d.active.count
        grade = "look"
        said = f"{idle} unit{'s' * (idle > 1)} of z say nothing of x; that may be all there is."
        advice = "ELBO(warmup=…) if more were wanted."
    else:
        grade, said, advice = "good", "All units of z are in use.", ""
    if i is not None and grade == "good" and i.lower > i.ceiling - 0.5:
        said += " Each datum has a code of its own: I(x; z) is not known from above."
    yield Finding("I(x; z)" if i else "active units", shown, effect or "–", grade, said, advice,
                  "active-units")  # fmt: skip


def _match(d: Diagnosis) -> Iterator[Finding]:
    if d.match is None:
        return
    found = verdict(d.match.mmd, d.match.classifier)
    grades: dict[str, Grade] = {"far apart": "bad", "apart": "look", "near": "good"}
    grade = grades.get(found, "unknown")
    low, high = d.match.mmd.interval()
    vote = d.match.classifier
    advice = "GaussianMixture(learned=True), VampPrior or FlowPrior as the prior."
    if d.trained_by == "Adversarial":
        advice = "Adversarial(weight=…) with more weight, longer training, or another critic."
    yield Finding(
        "q(z) against p(z)",
        f"MMD² {low:.2g} to {high:.2g}",
        f"told apart in {100 * vote.accuracy:.0f} ± {100 * vote.se:.0f}\u00a0%",
        grade,
        f"{WORDS[found]} ({p_value(d.match.p_value)}).",
        "" if grade == "good" else "More data." if grade == "unknown" else advice,
        "match",
    )


def _typicality(d: Diagnosis) -> Iterator[Finding]:
    if (t := d.typicality) is None:
        return
    apart = float(np.median(t.log_evidence) - np.median(t.simulated))
    grade: Grade = "good" if t.p_value > 0.05 else "look" if t.deviation < 0.1 else "bad"
    side = "less" if apart < 0 else "more"
    said = {
        "good": "log p(x) of the data is like that of the model's own.",
        "look": f"The data have slightly {side} density than the model's own.",
        "bad": f"The data have {side} density than the model's own: it is no model of them.",
    }
    outside = float(np.mean((t.percentile < 0.005) | (t.percentile > 0.995)))
    yield Finding(
        "typicality",
        f"{value(apart)} nats",
        f"{percent(outside)} where 1\u00a0% should be",
        grade,
        f"{said[grade].rstrip('.')} ({p_value(t.p_value)}).",
        ""
        if grade == "good"
        else "Another likelihood; a scale that is learned; see the rows that "
        "stand out: diagnosis.typicality.percentile.",
        "typicality",
    )


def _posterior_check(d: Diagnosis) -> Iterator[Finding]:
    if (c := d.posterior_check) is None or not c.effects:
        return
    size = abs(c.effects[c.worst])
    grade: Grade = "good" if size < 0.2 else "look" if size < 0.5 else "bad"
    high = c.effects[c.worst] > 0
    yield Finding(
        "posterior predictive",
        f"{value(c.observed[c.worst])}, made {value(float(c.replicated[c.worst].mean()))}",
        f"{value(c.effects[c.worst])} sd",
        grade,
        "The decoder makes such data where the guide puts them."
        if grade == "good"
        else f"{c.worst}: what the decoder makes is too {'low' if high else 'high'}, even given z.",
        "" if grade == "good" else "Another likelihood, or a larger decoder.",
        "posterior-check",
    )
