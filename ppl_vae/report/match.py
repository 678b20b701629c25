"""Whether q(z) and p(z) match: the size of what is surely there, and what so few draws can tell."""

from __future__ import annotations

from typing import Literal

from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnostics import ClassifierTest, MMDTest
from ppl_vae.report.numbers import p_value, value

Verdict = Literal["far apart", "apart", "near", "not known"]

# Accuracy of the classifier, and MMD² beyond that of two samples of one law.
FAR = (0.6, 0.02)
SOME = (0.53, 0.005)  # a shift by 0.2 sd in both coordinates of a standard Normal
LEVEL = 0.025  # of each of two tests

WORDS: dict[Verdict, str] = {
    "far apart": "q(z) and p(z) are far apart",
    "apart": "q(z) and p(z) differ somewhat",
    "near": "q(z) is near p(z)",
    "not known": "These few draws cannot tell whether q(z) is near p(z)",
}


def samples(d: Diagnosis) -> str:
    """Say what the draws from the prior may be taken for."""
    if d.mmd is None or d.classifier is None:
        return "What the program generates when nothing is observed."
    found = verdict(d.mmd, d.classifier)
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
    if d.mmd is None or d.classifier is None:
        return ""
    test, vote = d.mmd, d.classifier
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
    return (
        f"{WORDS[found]}: MMD² = {test.mmd2:.4f}, {value(ratio, 1)} times what two samples of one "
        f"law show ({test.null_mean:.4f}; {p_value(test.p_value)}); a classifier tells them apart "
        f"in {accuracy} of held-out draws, chance 50\u00a0% ({p_value(vote.p_value)}); {rest}."
    )


def verdict(test: MMDTest, vote: ClassifierTest) -> Verdict:
    """Judge by the size of the effects, each with its noise taken off.

    The noise of the MMD is how far chance takes it above its mean (97.5 % of relabellings lie
    below), that of the accuracy two standard errors. An effect counts for what is left of it. That
    there is little is known only if little is left when the noise is added.
    """
    effects = vote.accuracy, test.mmd2 - test.null_mean
    noises = 2 * vote.se, test.null_high - test.null_mean
    surely = [effect - noise for effect, noise in zip(effects, noises, strict=True)]
    at_most = [effect + noise for effect, noise in zip(effects, noises, strict=True)]
    if _beyond(surely, FAR):
        return "far apart"
    if _beyond(surely, SOME):
        return "apart"
    return "not known" if _beyond(at_most, FAR) else "near"


def _beyond(effects: list[float], limits: tuple[float, float]) -> bool:
    return any(effect > limit for effect, limit in zip(effects, limits, strict=True))
