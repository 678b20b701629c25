"""Whether q(z) and p(z) match: the size of what is surely there, and what so few draws can tell."""

from __future__ import annotations

from typing import Literal

from ppl_vae.diagnostics import ClassifierTest, MMDTest

Verdict = Literal["far apart", "apart", "near", "not known"]

# Accuracy of the classifier, and MMD² beyond that of two samples of one law.
FAR = (0.6, 0.02)
SOME = (0.53, 0.005)  # a shift by 0.2 sd in both coordinates of a standard Normal

WORDS: dict[Verdict, str] = {
    "far apart": "q(z) and p(z) are far apart",
    "apart": "q(z) and p(z) differ somewhat",
    "near": "q(z) is near p(z)",
    "not known": "These few draws cannot tell whether q(z) is near p(z)",
}


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
