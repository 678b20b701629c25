"""What to conclude from the importance weights: how good a guide is, and what may be compared."""

from __future__ import annotations

import numpy as np

from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnose.numbers import count, error, percent, value, with_error
from ppl_vae.diagnostics import Evidence, mean_evidence

WORST = 5  # data that are named
FAR = 1.0  # nats: a difference in log p̂ of one datum that is worth a word


def three_terms(d: Diagnosis) -> str:
    """Say what the guide costs."""
    if d.terms is None or d.evidence is None:
        return ""
    rate, gap = float(d.terms.kl_prior.mean()), float(d.terms.kl_posterior.mean())
    if not np.isfinite([rate, gap]).all():
        return "The guide draws where the posterior has no mass: a KL is infinite."
    if gap < 0.1:
        judged = "on what it visits it is close to p(z|x)"
    elif gap < FAR:
        judged = "a moderate gap to p(z|x)"
    else:
        judged = "for some data it is far from p(z|x)"
    said = f"The guide costs {value(gap, 3 if gap < 0.1 else 2)} nats per datum: {judged}"
    least = least_gap(d)
    if least is not None and least > gap + 0.1:
        said += (
            ". Even that is too little: the fresh guide finds more of p(z|x), and shows a gap of "
            f"at least {value(least)}"
        )
    elif float(np.mean(~d.evidence.quantified)) > 0.2:
        rest = (
            "the true gap may be larger" if d.evidence.high.any() else "its error is not quantified"
        )
        said += f"; as k-hat is {_of_the_data(d.evidence)}, {rest}"
    told = f" z tells only {value(rate)} nats about x (the rate)." if rate < 0.05 else ""
    return f"{said}.{told} The three add up to log p̂(x) by construction."


def least_gap(d: Diagnosis) -> float | None:
    """Give a lower bound on the mean KL(q(z|x) ‖ p(z|x)): the better bound less the ELBO."""
    if d.terms is None or d.evidence is None:
        return None
    means = [float(e.log_evidence.mean()) for e in (d.evidence, d.fresh_evidence) if e is not None]
    return max(means) - float(d.terms.elbo.mean())


def evidence(d: Diagnosis) -> list[str]:
    """Say what the evidence may be used for, and which of two guides falls short."""
    said = []
    if d.matched and d.evidence is not None:
        said.append(
            "Where q(z) is pulled to p(z), the encoder is not trained towards p(z|x): its own "
            "evidence says little of the model; only that under the fresh guide may be compared."
        )
    elif d.evidence is not None and d.fresh_evidence is not None:
        said.append("Compare programs by the evidence under the fresh guide.")
    if d.fresh_evidence is None and d.no_fresh_guide is not None:
        said.append(
            f"There is no fresh guide: {d.no_fresh_guide}. Its evidence under its own guide is a "
            "bound, and what it lacks differs between programs."
        )
    elif d.fresh_evidence is None:
        said.append(
            "No fresh guide was given, without which this may not be compared with other programs: "
            "diagnose(…, fresh=refit_guide(program, x))."
        )
    doubtful = [
        f"{_of_the_data(found)} under the {name} guide"
        for name, found in (("own", d.evidence), ("fresh", d.fresh_evidence))
        if found is not None and not found.quantified.all()
    ]
    if doubtful:
        said.append(
            f"k-hat is {', and '.join(doubtful)}: there the evidence is a lower bound, error not "
            "quantified, and the Monte-Carlo error and bias of the mean may be too small."
        )
    if d.evidence is not None and d.fresh_evidence is not None and missed(d) > 0.1:
        short = d.evidence.log_evidence - d.fresh_evidence.log_evidence
        found = count(int(np.sum(short > FAR)), "datum", "data")
        said.append(
            f"Both guides bound the same log p(x) from below, and for {found} the own one's "
            f"is higher by more than {value(FAR, 0)} nat: there the fresh guide misses a part of "
            f"p(z|x), which costs it {value(missed(d))} nats per datum or more. Fit it for longer."
        )
    return said


def missed(d: Diagnosis) -> float:
    """Give what the fresh guide misses beside the own one, a mean over the data, at least.

    Both bound the same log p(x); differences of under a nat are taken for noise.
    """
    if d.evidence is None or d.fresh_evidence is None:
        return 0.0
    short = d.evidence.log_evidence - d.fresh_evidence.log_evidence
    return float(np.where(short > FAR, short, 0.0).mean())


def khat(d: Diagnosis) -> str:
    """Say for how many data the error of the evidence is quantified."""
    said = []
    for name, found in (("own", d.evidence), ("fresh", d.fresh_evidence)):
        if found is None:
            continue
        exact, unknown = int(found.exact.sum()), int(found.unknown.sum())
        if unknown == len(found.khat):
            said.append(f"Under the {name} guide k-hat is not known for any of the data.")
            continue
        more = f", {exact} exact to precision" if exact else ""
        more += f", {unknown} not known" if unknown else ""
        share = percent(float(np.mean(found.quantified)))
        said.append(
            f"{share} of the data are at or below {found.limit:.2g} under the {name} guide{more}."
        )
    if d.evidence is not None and d.evidence.high.any():
        worst = np.argsort(-np.nan_to_num(d.evidence.khat, nan=-np.inf))[:WORST]
        worst = worst[d.evidence.high[worst]]
        named = ", ".join(f"{k} ({value(float(d.evidence.khat[k]))})" for k in worst)
        said.append(
            f"Highest under the own guide: {'datum' if len(worst) == 1 else 'data'} {named}."
        )
    said.append("k-hat is no test: it is blind to a mode that the guide never visits.")
    return " ".join(said)


def _of_the_data(found: Evidence) -> str:
    """Say for how much of the data k-hat is too high, and for how much it is not known."""
    shares = ("too high", found.high), ("not known", found.unknown)
    said = [f"{what} for {percent(float(np.mean(of)))}" for what, of in shares if of.any()]
    return f"{' and '.join(said)} of the data"


def evidence_row(found: Evidence) -> tuple[str, str, str, str, str]:
    """Give mean ± MC SE, bias, SE over data, share not quantified, median ESS."""
    m = mean_evidence(found)
    return (
        with_error(m.mean, m.mc_se),
        error(m.bias),
        error(m.data_se),
        percent(m.unquantified / len(found.quantified)),
        f"{np.median(found.ess):.0f} of {found.num_samples}",
    )
