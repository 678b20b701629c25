"""What ranks say in words: of a guide, and of a model."""

from __future__ import annotations

from collections.abc import Iterator

from ppl_vae.diagnose.diagnosis import Diagnosis
from ppl_vae.diagnose.finding import Finding, Grade
from ppl_vae.diagnose.numbers import p_value, value
from ppl_vae.diagnostics import Calibration

LEVEL = 0.05
FAINT, STRONG = 0.05, 0.1
"""Distances of two distribution functions: of a scale that is off by a fifth, and by a third."""

UNIT = {
    "at both ends": "q(z|x) is too narrow",
    "in the middle": "q(z|x) is too wide",
    "low": "q(z|x) lies too high",
    "high": "q(z|x) lies too low",
}
LIKELIHOOD = {
    "low": "draws of q explain x better than the z that made it does: too narrow",
    "high": "draws of q explain x worse than the z that made it does: too wide, or of the wrong "
    "shape",
}
DENSITY = {
    "low": "z lies where q(z|x) has little density more often than it should: too narrow",
    "high": "z lies in the middle of q(z|x) more often than it should: too wide",
}


def calibration_finding(d: Diagnosis) -> Iterator[Finding]:
    """Say whether draws of q(z|x) are calibrated at the fitted model."""
    if (c := d.calibration) is None:
        return
    grade = _grade(c)
    farthest = _farthest(c)
    test = c.tests[farthest]
    wrong = [n for n, p in c.p_values.items() if p <= LEVEL]
    advice = ""
    if grade == "good":
        said = f"No fault found on {c.num_data} data that the model made."
    elif d.trained_by == "Adversarial":
        said = f"As expected: an adversary's encoder is not trained towards p(z|x). {_why(c)}"
        advice = "refit_guide(program, x) for a posterior; the model is no worse."
    else:
        said = _why(c)
        if set(wrong) <= {"log p(x|z)", "log q(z|x)", "distance"}:
            advice = "MultivariateNormal as the guide: its units are right one by one."
        else:
            advice = "refine(program, x), a larger encoder, or a richer guide; gaps says which."
    yield Finding(
        "calibration",
        f"{value(test.deviation)} ± {value(_chance(c, farthest))}",
        f"{len(wrong)} of {len(c.tests)} off",
        grade,
        f"{said.rstrip('.')} ({p_value(c.p_value)}).",
        advice,
        "calibration",
    )


def prior_check_finding(d: Diagnosis) -> Iterator[Finding]:
    """Say whether the model makes data like these."""
    if (c := d.prior_check) is None:
        return
    grade, farthest = _grade(c), _farthest(c)
    test = c.tests[farthest]
    where = {
        "low": f"{farthest} of the data is lower than the model's",
        "high": f"{farthest} of the data is higher than the model's",
        "at both ends": f"{farthest} of the data varies more than the model's",
        "in the middle": f"{farthest} of the data varies less than the model's",
    }[test.shape]
    wrong = sum(p <= LEVEL for p in c.p_values.values())
    yield Finding(
        "prior predictive",
        f"{value(test.deviation)} ± {value(_chance(c, farthest))}",
        f"{wrong} of {len(c.tests)} off",
        grade,
        f"{'The model makes such data' if grade == 'good' else where} ({p_value(c.p_value)}).",
        ""
        if grade == "good"
        else "Another prior if q(z) and p(z) differ; else another likelihood.",
        "prior-check",
    )


def _grade(c: Calibration) -> Grade:
    if c.p_value > LEVEL:
        return "good"
    return "bad" if c.tests[_farthest(c)].deviation > STRONG else "look"


def _farthest(c: Calibration) -> str:
    return max(c.tests, key=lambda n: c.tests[n].deviation)


def _chance(c: Calibration, name: str) -> float:
    """Give how far chance takes an ECDF: half the width of its band at its widest."""
    test = c.tests[name]
    return float((test.high - test.low).max() / 2)


def _why(c: Calibration) -> str:
    name = c.worst
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
