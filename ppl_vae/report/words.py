"""What to conclude of the program: one or two sentences a section, chosen by the numbers.

Effect sizes come before p-values, everywhere: a powerful test rejects every trained model.
"""

from __future__ import annotations

import numpy as np

from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnose.numbers import count, percent, value
from ppl_vae.training import History

BY = {
    "ELBO": "the ELBO",
    "Adversarial": "reconstruction and a critic on z, no KL term",
    "MMD": "reconstruction and a kernel on z, no KL term",
    "another objective": "an objective of which only the loss is known",
}


def penalty_weight(d: Diagnosis) -> float | None:
    """Read the weight of the KL, critic or kernel off the last epoch; None where it has none.

    The loss is that weight times the penalty, less the reconstruction.
    """
    history = d.history
    penalty = next(
        (c for c in ("kl", "adversarial", "mmd2") if history is not None and c in history), None
    )
    if history is None or penalty is None or not history[penalty][-1]:
        return None
    weight = float((history["loss"][-1] + history["reconstruction"][-1]) / history[penalty][-1])
    return round(weight, 3 if weight < 1 else 2)


def fitted(d: Diagnosis) -> str:
    """Say by what, how long and on what."""
    data = f"Everything below is on {count(len(d.data), 'datum', 'data')}"
    if d.trained_by is None:
        return f"How it was trained is not known: no history was given. {data}."
    if d.history is None or not len(d.history):
        return f"Trained by {BY[d.trained_by]}; no history was given. {data}."
    seconds = float(d.history["seconds"].sum()) if "seconds" in d.history else 0.0
    time = f" in {value(seconds, 1)}\u00a0s" if seconds else ""
    return f"Trained by {BY[d.trained_by]}: {count(len(d.history), 'epoch')}{time}. {data}."


def training(d: Diagnosis) -> str:
    """Say whether the curves have levelled off, and whether held-out data follow."""
    history = d.history
    if history is None:
        return ""
    score = next(c for c in ("elbo", "reconstruction", "loss") if c in history)
    said = []
    if len(history) >= 10:
        said += _trend(d, history, score)
    if f"validation_{score}" in history:
        said += _held_out(history, score)
    for column in history.critics("accuracy"):
        right = float(history[column][-max(1, len(history) // 10) :].mean())
        who = history.critic_of(column)
        said.append(f"The {who} is right in {percent(right)} of its cases, a coin in 50 %.")
    if history.critics("accuracy"):
        said.append(
            "That a critic cannot tell would be no evidence that q(z) = p(z): see the match below."
        )
    return " ".join(said) or "Too few epochs to say more than what the curve shows."


def _trend(d: Diagnosis, history: History, score: str) -> list[str]:
    """Say whether the curve still rises, has levelled off, or is getting worse."""
    name = {"elbo": "ELBO", "reconstruction": "reconstruction", "loss": "loss"}[score]
    curve = history[score]
    tenth = max(2, len(curve) // 10)
    rise = float(curve[-tenth:].mean() - curve[-2 * tenth : -tenth].mean())
    if not np.isfinite(rise):
        return [f"The {name} is not finite in some of the last {2 * tenth} epochs."]
    gain = -rise if score == "loss" else rise
    least = 0.015 * float(np.ptp(curve[len(curve) // 10 :]))
    # Two means of `tenth` epochs each; of differences, so that a steady trend is no noise.
    noise = float(np.diff(curve[-2 * tenth :]).std(ddof=1)) / tenth**0.5
    if gain > least:
        rest = "more epochs may help"
    elif gain >= -max(least, 2 * noise):
        rest = "it has all but levelled off"
    elif score == "loss" or penalty_weight(d) == 1:  # the curve is what was trained
        rest = "it is getting worse. Try a smaller learning rate"
    else:
        rest = (
            "it is getting worse, which the other part of the objective may ask for. If not, try "
            "a smaller learning rate"
        )
    return [
        f"Over the last {2 * tenth} epochs the {name} {'fell' if rise < 0 else 'rose'} by "
        f"{value(abs(rise))} nats per datum: {rest}."
    ]


def _held_out(history: History, score: str) -> list[str]:
    """Say whether held-out data follow the training data."""
    held, trained = history[f"validation_{score}"], history[score]
    known = np.flatnonzero(np.isfinite(held))
    said = []
    if len(known) < len(held):
        said.append(
            f"On held-out data the {score if score != 'elbo' else 'ELBO'} was not finite in "
            f"{len(held) - len(known)} of {count(len(held), 'epoch')}: are all of its values sound?"
        )
    if not len(known):
        return said
    outside = held[known] * (-1 if score == "loss" else 1)
    best = int(outside.argmax())
    lost = float(outside[best] - outside[-1])
    if lost > 0.5 and best < len(known) - 1:
        epoch = int(history["epoch"][known[best]])
        return [
            *said,
            f"On held-out data it was best at epoch {epoch} and has lost {value(lost)} nats since: "
            "the program overfits.",
        ]
    apart = float(held[known[-1]] - trained[known[-1]])
    if np.isfinite(apart):
        side = "below" if apart < 0 else "above"
        said.append(
            f"Held-out data end {value(abs(apart))} nats per datum {side} the training data."
        )
    return said


def reconstructions(d: Diagnosis) -> str:
    """Say how much of the variance of x the reconstruction explains."""
    left = float(np.nansum(np.where(np.isnan(d.data), 0, (d.data - d.reconstructions) ** 2)))
    total = float(np.nansum((d.data - np.nanmean(d.data, axis=0)) ** 2))
    if bad := int(np.sum(~np.isfinite(d.reconstructions))):
        return (
            f"E[x|z] is not finite in {count(bad, 'cell')} of {d.reconstructions.size}, so that "
            "how much of the variance of x it explains is not known. Classes have no mean, and "
            "heavy tails may have none."
        )
    if not total:
        return "The data do not vary, so there is nothing to explain."
    share = 1 - left / total
    if share <= 0:
        return "E[x|z] explains none of the variance of x: the mean of the data does as well."
    much = "most" if share > 0.65 else ("about half" if share > 0.35 else "a small part")
    return (
        f"E[x|z] with one draw z ~ q(z|x) explains {percent(share)} of the variance of x, {much} "
        "of it (the mean of the data explains none)."
    )


def latent_space(d: Diagnosis) -> str:
    """Say how labels lie in z, or else how wide the codes lie beside the prior."""
    if d.code_means is None or d.prior_codes is None:
        return ""
    if d.labels is not None and 1 < len(np.unique(d.labels)) <= len(d.labels) / 2:
        from scipy.spatial import cKDTree

        _, nearest = cKDTree(d.code_means).query(d.code_means, k=2)
        same = float(np.mean(d.labels == d.labels[nearest[:, 1]]))
        _, sizes = np.unique(d.labels, return_counts=True)
        chance = float(np.sum((sizes / sizes.sum()) ** 2))
        return (
            f"{percent(same)} of the data share the label of their nearest neighbour in z, where "
            f"{percent(chance)} would by chance. The labels took no part in training."
        )
    ratio = float(np.sqrt(d.code_means.var(axis=0).sum() / d.prior_codes.var(axis=0).sum()))
    return f"The means of q(z|x) spread {value(ratio)} times as wide as the prior."


def active_units(d: Diagnosis) -> str:
    """Say how many units are in use."""
    if d.active is None:
        return ""
    units = len(d.active.variance)
    shown = ", ".join(value(float(v)) for v in d.active.variance) if units <= 6 else ""
    said = f"{d.active.count} of {count(units, 'unit')} {'is' if units == 1 else 'are'} active"
    whose = "its mean" if units == 1 else "their means"
    said += f" (variance of {whose} over the data: {shown})" if shown else ""
    if d.active.count < units:
        idle = units - d.active.count
        it, does = ("it", "does") if idle == 1 else ("they", "do")
        return (
            f"{said}; {count(idle, 'unit')} {'is' if idle == 1 else 'are'} not: {it} {does} not "
            "depend on x. If more were wanted, try ELBO(warmup=…) or a smaller kl_weight."
        )
    return f"{said}: none has collapsed onto the prior."


def how_made(d: Diagnosis) -> str:
    """Say how the numbers were made."""
    said = f"{d.name}: N = {len(d.data)} data, seed {d.seed}"
    if d.evidence is not None or d.fresh_evidence is not None:
        said += f", S = {d.num_samples} draws of z for each datum behind terms, evidence and k-hat"
    if d.match is not None:
        mmd = d.match.mmd
        said += (
            f"; {d.match.num_data} draws of q(z) and as many of p(z) behind the match (bandwidth "
            f"{mmd.bandwidth:.3g}, {mmd.permutations} permutations, classifier scored on "
            f"{d.match.classifier.held_out})"
        )
    return said + "."
