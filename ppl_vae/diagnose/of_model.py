"""What to conclude of the codes and of the model, in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ppl_vae.diagnose.diagnosis import Diagnosis
from ppl_vae.diagnose.finding import Finding, Grade
from ppl_vae.diagnose.matched import WORDS, verdict
from ppl_vae.diagnose.numbers import p_value, percent, value
from ppl_vae.diagnose.of_guide import LARGE
from ppl_vae.diagnose.ranked import LEVEL, STRONG, chance_of, farthest_of, grade_of
from ppl_vae.diagnostics import uniformity

LITTLE = 0.05
"""Nats per datum: a rate below it is that of a guide which is the prior."""

FEW = 100
"""Data, of which a test would miss a large difference of two distribution functions."""


def codes(d: Diagnosis) -> Iterator[Finding]:
    """Say whether z is in use."""
    if d.active is None:
        return
    units = len(d.active.variance)
    shown, effect = f"{d.active.count} of {units} units", ""
    if (i := d.information) is not None:
        shown = "{} to {} nats".format(*map(value, i.bracket))
        effect = f"{d.active.count} of {units} units active"
    rate = None if d.terms is None else float(d.terms.kl_prior.mean())
    if len(d.chosen) < 2:
        grade: Grade = "unknown"
        said, advice = "All data are the same: what z tells of them cannot be seen.", "Other data."
    elif d.active.count == 0 if rate is None else rate < LITTLE:
        grade = "bad"
        said = "Collapsed: z tells nothing of x."
        if rate is not None and d.active.count:
            said = f"Near collapse: z tells {value(rate, 3)} nats of x or less."
        advice = "ELBO(warmup=…), a smaller kl_weight, or a weaker decoder."
        if d.matched:
            advice = "A smaller weight of what holds q(z) to p(z), or a weaker decoder."
    elif d.active.count < units:
        idle = units - d.active.count
        grade = "look"
        units_say = "unit of z says" if idle == 1 else "units of z say"
        said = f"{idle} {units_say} nothing of x; that may be all there is."
        advice = "ELBO(warmup=…) if more were wanted."
        if d.matched:
            advice = "A smaller weight of what holds q(z) to p(z), if more were wanted."
    else:
        grade, said, advice = "good", "All units of z are in use.", ""
    if i is not None and grade == "good" and i.lower > i.ceiling - 0.5:
        said += " Each datum has a code of its own: I(x; z) is not known from above."
    yield Finding("I(x; z)" if i else "active units", shown, effect or "–", grade, said, advice,
                  "active-units")  # fmt: skip


def match(d: Diagnosis) -> Iterator[Finding]:
    """Say how far q(z) is from p(z)."""
    if d.match is None:
        return
    found = verdict(d.match.mmd, d.match.classifier)
    grades: dict[str, Grade] = {"far apart": "bad", "apart": "look", "near": "good"}
    grade = grades.get(found, "unknown")
    low, high = d.match.mmd.interval()
    vote = d.match.classifier
    size = len(d.units)
    advice = (
        f"GaussianMixture(torch.randn(10, {size}), learned=True), VampPrior(x[:100]) or "
        f"FlowPrior({size}) as the prior."
    )
    if d.terms is not None and not float(d.terms.kl_posterior.mean()) < LARGE:
        advice = "The guide first, which is far from p(z|x); then another prior, such as VampPrior."
    if d.trained_by == "Adversarial":
        advice = "Adversarial(weight=…) with more weight, longer training, or another critic."
    if d.trained_by == "MMD":
        advice = "MMD(weight=…) with more weight, larger batches, or Adversarial()."
    yield Finding(
        "q(z) against p(z)",
        f"MMD² {low:.2g} to {high:.2g}",
        f"told apart in {100 * vote.accuracy:.0f} ± {100 * vote.se:.0f}\u00a0%",
        grade,
        f"{WORDS[found]} ({p_value(d.match.p_value)}).{_without(d)}",
        "" if grade == "good" else "More data." if grade == "unknown" else advice,
        "match",
    )


def _without(d: Diagnosis) -> str:
    """Name what is no part of z here."""
    names = ", ".join(d.summed_out)
    return f" Of {names}, summed out, nothing is said." if names else ""


def coverage(d: Diagnosis) -> Iterator[Finding]:
    """Say whether the prior draws from where no code is."""
    if (c := d.coverage) is None:
        return
    noise = 2 * float(np.hypot(c.se, c.reference_se))
    lost = c.reference - c.share
    grade: Grade = "bad" if lost - noise > HOLES else "look" if lost - noise > FEW_HOLES else "good"
    if grade == "good" and lost + noise > HOLES:
        grade = "unknown"
    said = {
        "bad": "Much of p(z) lies where no datum is sent: the decoder was never trained there",
        "look": "Some of p(z) lies where no datum is sent",
        "good": "The prior draws from where codes are",
        "unknown": "Too few data to say whether the prior draws from where codes are",
    }[grade]
    yield Finding(
        "holes in q(z)",
        f"{percent(1 - c.share)} of draws",
        f"{percent(1 - c.reference)} of p(z) itself",
        grade,
        f"{said}.{_without(d)}",
        {"good": "", "unknown": "More data."}.get(
            grade, "As for q(z) against p(z); plots.holes(diagnosis.coverage, diagnosis.samples)."
        ),
        "holes",
    )


HOLES, FEW_HOLES = 0.1, 0.02
"""Shares of a prior's draws in holes beyond those that codes of its own law would leave."""


def prior_predictive(d: Diagnosis) -> Iterator[Finding]:
    """Say whether the model makes data like these."""
    if (c := d.prior_check) is None:
        return
    grade, farthest = grade_of(c), farthest_of(c)
    test = c.tests[farthest]
    gaps = any(np.isnan(x).any() for x in d.observations.values())
    if gaps and grade == "bad":
        grade = "look"
    where = {
        "low": f"{farthest} of the data is lower than the model's",
        "high": f"{farthest} of the data is higher than the model's",
        "at both ends": f"{farthest} of the data varies more than the model's",
        "in the middle": f"{farthest} of the data varies less than the model's",
    }[test.shape]
    said, advice = where, "Another prior if q(z) and p(z) differ; else another likelihood."
    if gaps:
        said += "; or cells are missing for reasons that lie in others"
    if grade == "good":
        said, advice = "No difference between the data and those that the model makes", ""
    elif grade == "unknown":
        said, advice = "No difference found, but so few data would hide a large one", "More data."
    wrong = sum(p <= LEVEL for p in c.p_values.values())
    yield Finding(
        "prior predictive",
        f"{value(test.deviation)} ± {value(chance_of(c, farthest))}",
        f"{wrong} of {len(c.tests)} off",
        grade,
        f"{said} ({p_value(c.p_value)}).",
        advice,
        "prior-check",
    )


def typical(d: Diagnosis) -> Iterator[Finding]:
    """Say whether log p(x) of the data is that of the model's own."""
    if (t := d.typicality) is None:
        return
    apart = float(np.median(t.log_evidence) - np.median(t.simulated))
    grade: Grade = "good" if t.p_value > LEVEL else "look" if t.deviation < STRONG else "bad"
    if grade == "good" and len(t.log_evidence) < FEW:
        grade = "unknown"
    how = {
        "low": "has less density than the model's own",
        "high": "has more density than the model's own",
        "at both ends": "varies more in density than the model's own",
        "in the middle": "varies less in density than the model's own",
    }[uniformity(t.percentile).shape]
    said = {
        "good": "log p(x) of the data is like that of the model's own",
        "unknown": "No difference in log p(x), but so few data would hide a large one",
        "look": f"What was observed {how}, slightly",
        "bad": f"What was observed {how}: it is no model of them",
    }[grade]
    ends = np.flatnonzero((t.percentile == 0) | (t.percentile == 1))
    out = ends[np.argsort(-abs(t.log_evidence[ends] - np.median(t.simulated)))][:5]
    named = f" Farthest out: {', '.join(map(str, out))}." if len(out) else ""
    outside = float(np.mean((t.percentile < 0.005) | (t.percentile > 0.995)))
    yield Finding(
        "typicality",
        f"{value(apart)} nats",
        f"{percent(outside)} where 1\u00a0% should be",
        grade,
        f"{said} ({p_value(t.p_value)}).{named}",
        "Another likelihood; a scale that is learned; a look at the rows that stand out: "
        "diagnosis.typicality.percentile."
        if grade in ("look", "bad")
        else "",
        "typicality",
    )


def posterior_predictive(d: Diagnosis) -> Iterator[Finding]:
    """Say whether means and spreads of the data are those of what the decoder makes of z ~ q."""
    if (c := d.posterior_check) is None or not c.effects:
        return
    wide = max(c.spread_ratios, key=lambda n: abs(np.log(c.spread_ratios[n])))
    size, ratio = abs(c.effects[c.worst]), c.spread_ratios[wide]
    off = float(abs(np.log(ratio)))
    grade: Grade = (
        "good" if size < 0.2 and off < np.log(1.25)
        else "look" if size < 0.5 and off < np.log(2.0)
        else "bad"
    )  # fmt: skip
    if grade == "good":
        said = "Means and spreads are those of what the decoder makes where the guide is."
    elif size / 0.2 > off / np.log(1.25):
        side = "low" if c.effects[c.worst] > 0 else "high"
        said = f"{c.worst}: what the decoder makes of z ~ q(z|x) is too {side}."
    else:
        side = "little" if ratio > 1 else "much"
        said = f"{wide}: what the decoder makes of z ~ q(z|x) varies too {side}."
    yield Finding(
        "posterior predictive",
        f"{c.worst}: {value(c.observed[c.worst])}, made "
        f"{value(float(c.replicated[c.worst].mean()))}",
        f"{value(c.effects[c.worst])} sd, spread × {value(ratio)}",
        grade,
        said,
        "" if grade == "good" else "The guide, if it is off; else another likelihood or decoder.",
        "posterior-check",
    )
