"""What to conclude of the match of q(z) and p(z)."""

from __future__ import annotations

from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnose.matched import WORDS, verdict
from ppl_vae.diagnose.numbers import p_value, value

LEVEL = 0.025  # of each of two tests


def samples(d: Diagnosis) -> str:
    """Say what the draws from the prior may be taken for."""
    if d.match is None:
        return "What the program generates when nothing is observed."
    found = verdict(d.match.mmd, d.match.classifier)
    rest = {
        "far apart": "so that many of these come from places in z where the decoder was never "
        "trained",
        "apart": "so that some of these come from places in z that no datum is sent to",
        "near": "so that these show what was learnt of p(x)",
        "not known": "nor whether these come from places in z where the decoder was trained",
    }[found]
    return f"{WORDS[found]} (see the match below), {rest}."


def match(d: Diagnosis) -> str:
    """Say how far apart q(z) and p(z) are, then whether chance could do it."""
    if d.match is None:
        return ""
    test, vote = d.match.mmd, d.match.classifier
    found = verdict(test, vote)
    at_least = 2 * (vote.accuracy - 2 * vote.se) - 1
    if found == "not known":
        rest = "more data would tell"
    elif found == "near" and min(test.p_value, vote.p_value) > LEVEL:
        rest = "both are what chance does with so many draws"
    elif at_least >= 0.005:  # or it would be printed as nothing
        rest = f"their total variation distance is then about {value(at_least)} or more"
    else:
        rest = "that is more than chance does with so many draws"
    ratio = test.mmd2 / max(test.null_mean, 1e-12)
    accuracy = f"{100 * vote.accuracy:.1f} ± {100 * vote.se:.1f}\u00a0%"
    units = d.match.units
    unit = max(units, key=lambda n: units[n])
    farthest = (
        f" Of single units {unit} is the farthest: its distribution functions are apart by "
        f"{value(units[unit])} ({p_value(d.match.unit_p_values[unit])}, all units "
        "considered)."
    )
    return (
        f"{WORDS[found]}: MMD² = {test.mmd2:.4f}, {value(ratio, 1)} times what two samples of one "
        f"law show ({test.null_mean:.4f}; {p_value(test.p_value)}); a classifier tells them apart "
        f"in {accuracy} of held-out draws, chance 50\u00a0% ({p_value(vote.p_value)}); {rest}."
        f"{farthest}"
    )


def holes(d: Diagnosis) -> str:
    """Say how much of the prior lies in holes, and how much would if all were well."""
    if (c := d.coverage) is None:
        return ""
    return (
        f"{100 * (1 - c.share):.1f} ± {100 * c.se:.1f}\u00a0% of the prior's draws lie in no ball "
        f"around {c.num_codes} codes; around as many draws of the prior itself it is "
        f"{100 * (1 - c.reference):.1f} ± {100 * c.reference_se:.1f}\u00a0%."
    )
