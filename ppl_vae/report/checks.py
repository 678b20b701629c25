"""What to conclude of the checks that take time: the finding, and what more there is to know."""

from __future__ import annotations

from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnose.numbers import p_value, value, with_error


def _found(d: Diagnosis, section: str) -> str:
    """Give verdict and advice of the finding of a section."""
    said = [f"{f.verdict} {_try(f.advice)}".strip() for f in d.findings if f.section == section]
    return " ".join(said)


def _try(advice: str) -> str:
    if not advice:
        return ""
    first = advice.split()[0]
    plain = first[1:].strip(",.;").islower() or len(first) == 1  # no name such as ConditionalFlow
    return f"Try {advice[0].lower() + advice[1:] if plain else advice}"


def calibration(d: Diagnosis) -> str:
    """Say how a guide is off, and how much its draws know beyond the prior."""
    if (c := d.calibration) is None:
        return ""
    known = list(c.contraction.values())
    more = (
        f" It contracts the prior's variance by {100 * min(known):.0f} to {100 * max(known):.0f}"
        "\u00a0%, unit by unit: at 0 a guide is the prior, calibrated and of no use."
        if known
        else ""
    )
    return (
        f"{_found(d, 'calibration')} Ranked: units of z, log p(x|z), log q(z|x) (the coverage of "
        f"regions of highest density) and distances to draws of p(z).{more}"
    )


def gaps(d: Diagnosis) -> str:
    """Say which of the parts is worth the work."""
    if d.gaps is None:
        return ""
    g = d.gaps
    return (
        f"{_found(d, 'gaps')} Of {len(g.remainder)} data: a better encoder would gain "
        f"{value(float(g.amortisation.mean()))} nats, a full covariance "
        f"{value(float(g.correlation.mean()))} more; what no Normal says is worth "
        f"{value(float(g.remainder.mean()))}."
    )


def ais(d: Diagnosis) -> str:
    """Say whether the guide misses a part of the posterior."""
    if d.ais is None:
        return ""
    said = _found(d, "ais")
    if d.sandwich is not None:
        gap = with_error(d.sandwich.gap, d.sandwich.gap_se)
        said += (
            f" On data of the model's own, whose z is known, upper and lower bound are {gap} nats "
            "apart: that much may be missing on real data too, or more."
        )
    return said


def reference(d: Diagnosis) -> str:
    """Say how the guide differs from draws of the posterior."""
    if d.reference is None:
        return ""
    r = d.reference
    return (
        f"{_found(d, 'reference')} {r.num_chains} chains of {r.num_samples} draws, effective "
        f"sample size {r.ess.min():.0f} or more, {r.divergences} divergences; the classifier's "
        "accuracy claims no truth: 50\u00a0% says that it found nothing."
    )


def information(d: Diagnosis) -> str:
    """Say what the rate is spent on."""
    if (i := d.information) is None:
        return ""
    (least, most), (low, high) = i.bracket, i.marginal_kl_bracket
    return (
        f"Of the rate of {with_error(i.rate, i.rate_se)} nats, {value(least)} to "
        f"{value(most)} are I(x; z), and {value(low)} to {value(high)} the mismatch "
        f"KL(q(z) ‖ p(z)), which another prior would save; {i.num_data} data bound I(x; z) from "
        f"below by {value(i.ceiling)} at most."
    )


def prior_check(d: Diagnosis) -> str:
    """Say where the model's data differ."""
    return _found(d, "prior-check")


def typicality(d: Diagnosis) -> str:
    """Say whether the data have the density of the model's own."""
    if d.typicality is None:
        return ""
    return (
        f"{_found(d, 'typicality')} The distribution functions are apart by "
        f"{value(d.typicality.deviation)} at most."
    )


def posterior_check(d: Diagnosis) -> str:
    """Say what the decoder cannot make."""
    if (c := d.posterior_check) is None:
        return ""
    return (
        f"{_found(d, 'posterior-check')} {c.worst}: posterior predictive "
        f"{p_value(c.p_values[c.worst])}, which has no level, for the data have drawn their own z."
    )
