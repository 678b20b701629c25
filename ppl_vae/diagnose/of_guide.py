"""What to conclude of the guide, in words: effect sizes first, for powerful tests reject all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ppl_vae.diagnose.diagnosis import Diagnosis
from ppl_vae.diagnose.finding import Finding, Grade
from ppl_vae.diagnose.numbers import p_value, percent, value, with_error
from ppl_vae.diagnose.ranked import LEVEL, chance_of, farthest_of, grade_of
from ppl_vae.diagnostics import Calibration, mean_evidence
from ppl_vae.posterior.simulated import DERIVED

SMALL, LARGE = 0.1, 1.0
"""Nats per datum: of no weight, and of much."""

AGREED = 1.05
"""R-hat of so few draws where chains agree."""

ROUNDING = 1e-3
"""Nats: a standard error below it is of no weight, whatever its tail."""

UNIT = {
    "at both ends": "q(z|x) is too narrow, or off by what varies with x",
    "in the middle": "q(z|x) is too wide",
    "low": "q(z|x) lies too high",
    "high": "q(z|x) lies too low",
}
LIKELIHOOD = {
    "low": "draws of q explain x better than the z that made it does: too narrow",
    "high": "draws of q explain x worse than the z that made it does: too wide, in the wrong "
    "place, or of the wrong shape",
}
DENSITY = {
    "low": "z lies where q(z|x) has little density more often than it should: too narrow, or "
    "in the wrong place",
    "high": "z lies in the middle of q(z|x) more often than it should: too wide",
}


PULLED = "where q(z) is pulled to p(z), no q(z|x) is trained for this."


def posterior_of(d: Diagnosis) -> str:
    """Say how to come by a guide that is trained for p(z|x), as under this objective none is."""
    if d.no_fresh_guide is None:
        return "refit_guide(program, x)"
    return "The same program under ELBO(), or TraceEnum_ELBO() for classes"


def weights(d: Diagnosis) -> Iterator[Finding]:
    """Say what the evidence is worth."""
    found = d.evidence
    if found is None:
        if d.undefined is not None:
            yield Finding(
                "log p(x)", "–", "–", "unknown", f"Not defined: {d.undefined}.",
                "A guide with a density: refit_guide(program, x) fits one." if not d.no_fresh_guide
                else "Densities of prior and guide, and latents that each datum has to itself.",
                "evidence",
            )  # fmt: skip
        return
    # A tail of rounding errors is no tail.
    doubt = ~found.quantified & ~(found.se < ROUNDING)
    mean, doubtful = mean_evidence(found), float(np.mean(doubt))
    grade: Grade = "good" if doubtful <= 0.05 else "look" if doubtful <= 0.5 else "bad"
    if found.unknown.all():
        grade = "unknown"
    lowest = int(found.log_evidence.argmin())
    said = {
        "good": "A lower bound, tight to its error, as far as q visits, for nearly all data.",
        "look": f"A lower bound; its error is not quantified for {percent(doubtful)} of the data.",
        "bad": f"A lower bound and no more: k-hat is too high for {percent(doubtful)} of the data.",
        "unknown": "A lower bound; too few draws for a k-hat.",
    }[grade]
    yield Finding(
        "log p(x)",
        "at least " + with_error(mean.mean, mean.mc_se),
        f"ESS {np.median(found.ess):.0f} of {found.num_samples}",
        grade,
        f"{said} Lowest: datum {lowest} ({value(float(found.log_evidence[lowest]))}).",
        "" if grade == "good"
        else f"{posterior_of(d)}: {PULLED}" if d.matched
        else "A richer guide, or more draws." if d.no_fresh_guide is not None
        else "refine(program, x), a richer guide, or more draws.",
        "evidence",
    )  # fmt: skip


def gap(d: Diagnosis) -> Iterator[Finding]:
    """Say how far the guide is from the posterior, as its own draws show it."""
    if d.terms is None:
        return
    size = float(d.terms.kl_posterior.mean())
    error = float(np.sqrt((d.terms.kl_posterior_se**2).sum()) / len(d.terms.kl_posterior))
    if not np.isfinite(size):
        yield Finding(
            "KL to p(z|x)", "∞", "–", "bad",
            "The guide draws where the posterior has no mass.",
            "A guide whose support is the prior's.", "three-terms",
        )  # fmt: skip
        return
    blind = d.evidence is not None and not d.evidence.quantified.all()
    least = "at least " if blind else ""
    grade: Grade = "good" if size < SMALL else "look" if size < LARGE else "bad"
    said = {
        "good": "On what it visits q(z|x) is close to p(z|x).",
        "look": "q(z|x) is off by a moderate amount.",
        "bad": "q(z|x) is far from p(z|x).",
    }
    yield Finding(
        "KL to p(z|x)",
        least + with_error(size, error),
        f"{percent(float(np.mean(d.terms.kl_posterior > LARGE)))} above 1 nat",
        grade,
        said[grade],
        "" if grade == "good"
        else f"{posterior_of(d)}: {PULLED}" if d.matched
        else "A richer guide." if d.no_fresh_guide is not None
        else "gaps(program, x) says what to change.",
        "three-terms",
    )  # fmt: skip


def annealed(d: Diagnosis) -> Iterator[Finding]:
    """Say whether there is more of the posterior than the guide finds."""
    if d.ais is None or d.evidence is None:
        return
    rows = d.chosen[: len(d.ais.se)]
    apart = d.ais.log_evidence - d.evidence.log_evidence[rows]
    each = np.hypot(d.ais.se, d.evidence.se[rows])
    mean, error = float(apart.mean()), float(np.sqrt((each**2).sum()) / len(rows))
    surely = apart > LARGE + 2 * each
    worst = int(rows[apart.argmax()])
    more = "ais(program, x, temperatures=2000)."
    if mean > SMALL + 2 * error or surely.any():
        grade: Grade = "bad" if mean > LARGE or surely.mean() > 0.1 else "look"
        said = (
            f"Without the guide there is more: it misses a part of p(z|x), most of datum {worst} "
            f"({value(float(apart.max()))} nats)."
        )
        advice = "gaps(program, x) says what to change, reference_posterior shows the modes."
    elif mean < -SMALL - 2 * error or error > LARGE:
        grade, advice = "unknown", more
        said = "With so few steps AIS is short of the guide, or too noisy: it says nothing."
    elif d.sandwich is not None and d.sandwich.gap > LARGE:
        grade, advice = "unknown", more
        said = (
            f"AIS finds no more, but is loose by {value(d.sandwich.gap)} nats on data of the "
            "model's own."
        )
    else:
        grade, said, advice = "good", "AIS, which starts from the prior, finds no more.", ""
    yield Finding(
        "AIS beside q", with_error(mean, error),
        f"{int(surely.sum())} of {len(rows)} above 1 nat", grade, said, advice, "ais",
    )  # fmt: skip


def calibration(d: Diagnosis) -> Iterator[Finding]:
    """Say whether draws of q(z|x) are calibrated at the fitted model."""
    if (c := d.calibration) is None:
        return
    grade = grade_of(c)
    farthest = farthest_of(c)
    test = c.tests[farthest]
    wrong = [n for n, p in c.p_values.items() if p <= LEVEL]
    advice = ""
    if grade in ("good", "unknown"):
        said = f"No fault found on {c.num_data} data that the model made."
    elif d.matched:
        said = "As expected: under this objective no q(z|x) is trained towards p(z|x). "
        said += _why(c, farthest)
        advice = f"{posterior_of(d)} for a posterior; the model is no worse."
        if d.undefined is not None and d.no_fresh_guide is not None:
            advice = "The model is no worse; a posterior takes a prior with a density."
    else:
        said = _why(c, farthest)
        if set(wrong) <= set(DERIVED) and not _correlated(d):
            advice = "MultivariateNormal as the guide: no fault was found in single units."
        else:
            advice = "refine(program, x), a larger encoder, or a richer guide; gaps says which."
            if d.no_fresh_guide is not None:
                advice = "A larger encoder, or a richer guide."
    yield Finding(
        "calibration",
        f"{value(test.deviation)} ± {value(chance_of(c, farthest))}",
        f"{len(wrong)} of {len(c.tests)} off",
        grade,
        f"{said.rstrip('.')} ({p_value(c.p_value)}).",
        advice,
        "calibration",
    )


def _why(c: Calibration, name: str) -> str:
    shape = c.tests[name].shape
    if name == "log p(x|z)":
        said = LIKELIHOOD.get(shape, "draws of q explain x otherwise than z does")
    elif name == "log q(z|x)":
        said = DENSITY.get(shape, "the density of q at z is not what it is at its own draws")
    elif name == "distance":
        said = "z and the draws of q are not equally far from draws of the prior"
    else:
        said = UNIT[shape]
    return f"{name}: {said}."


def _correlated(d: Diagnosis) -> bool:
    return not any(w.role == "guide" and w.family.startswith("Normal") for w in d.lines)


def split(d: Diagnosis) -> Iterator[Finding]:
    """Say what would gain back what the guide loses."""
    if d.gaps is None:
        return
    names = ("amortisation", "correlation", "remainder")
    means = {n: float(getattr(d.gaps, n).mean()) for n in names}
    worst = max(means, key=lambda n: means[n])
    low, high = getattr(d.gaps.mean_brackets, worst)
    total = sum(means.values())
    grade: Grade = "good" if total < SMALL else "look" if total < LARGE else "bad"
    said_nothing = "Nothing to be gained by local steps from this guide."
    if grade == "good" and high > LARGE:  # the last part's bracket holds all that is left
        grade = "unknown"
        said_nothing = "Nothing gained by local steps, but how much is left is not known."
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
        f"{value(means[worst])}, in {value(low)} to {value(high)}",
        ", ".join(f"{n} {value(m)}" for n, m in means.items() if n != worst),
        grade,
        said_nothing if grade in ("good", "unknown") else said,
        {"good": "", "unknown": "gaps(program, x, steps=2000)."}.get(grade, advice),
        "gaps",
    )


def beside_reference(d: Diagnosis) -> Iterator[Finding]:
    """Say how unlike draws of the posterior those of the guide are."""
    if d.agreement is None or d.reference is None:
        return
    a, rhat = d.agreement, d.reference.rhat
    known = ~np.isnan(a.c2st) & (rhat <= AGREED)
    lost = int((~known).sum())
    told = float(a.c2st[known].max()) if known.any() else float("nan")
    advice = "reference_posterior(program, x, num_samples=4000, warmup=2000)."
    if not known.any():
        grade: Grade = "unknown"
        said = "No reference: the chains do not agree, or have too few effective draws."
    elif d.reference.divergences:
        grade = "unknown"
        said = f"{d.reference.divergences} divergences: the reference itself may be off."
    else:
        grade = "good" if told < 0.6 else "look" if told < 0.75 else "bad"
        said = {
            "good": "q(z|x) is much like draws of p(z|x).",
            "look": "q(z|x) differs from draws of p(z|x) in location, width or shape.",
            "bad": "q(z|x) is not like draws of p(z|x).",
        }[grade]
        advice = "" if grade == "good" else "gaps(program, x) says what to change."
    said += f" Of {len(a.c2st)} data, R-hat up to {value(float(rhat.max()))}"
    said += f"; {lost} without a reference: modes far apart?" if lost else "."
    off, wide = a.rms_mean_error[known], a.sd_ratio[known]
    yield Finding(
        "NUTS beside q",
        f"mean {value(float(np.median(off)))} sd off, sd × {value(float(np.median(wide)))}"
        if known.any()
        else "–",
        f"told apart in up to {percent(told)}" if known.any() else "–",
        grade,
        said,
        advice,
        "reference",
    )
