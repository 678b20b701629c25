"""A program in mathematics: MathML, which browsers show without a network or a script."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from ppl_vae.diagnose import Diagnosis
from ppl_vae.programs.describe import Line

LOG = Markup("<mi>log</mi><mo>&#x2061;</mo><mspace width='0.17em'/>")
KL = Markup("<mi>KL</mi>")
THETA, PHI = Markup("<mi>θ</mi>"), Markup("<mi>φ</mi>")
GAUSSIAN = Markup("<mi>𝒩</mi>")


def drawn(line: Line) -> Markup:
    """Give one statement of a program, such as z ~ 𝒩(0, I).

    Example:
        >>> "Binomial" in drawn(Line("likelihood", "x", ("z",), "Binomial((8, 8), total=16)"))
        True
    """
    given = _join(line.given)
    weights = PHI if line.role == "guide" else THETA
    law = _law(line.family, given, weights)
    if line.family.startswith("Delta") and line.given:
        return _math(_join([line.site]) + _mo("=") + law)
    return _math(_conditioned(line.site, line.given) + _mo("∼") + law)


def identity(d: Diagnosis) -> Markup:
    """Give the three terms of log p(x) in the program's own names."""
    both = _covariates(d, "prior", "likelihood")
    evidence, posterior = _law_of(d.observed, both), _law_of(d.latents, d.observed, both)
    return _lines(
        LOG + _p("p", *evidence) + _mo("=") + _reconstruction(d),
        _mo("−") + _divergence(_p("q", *_guide(d)), _p("p", *_prior(d))),
        _mo("+") + _divergence(_p("q", *_guide(d)), _p("p", *posterior)),
    )


def objective(d: Diagnosis, name: str, weight: float | None = None) -> Markup | None:
    """Give what training maximised, where its name says it: a bound, or an adversary.

    Args:
        d: Whose variables to name.
        name: "ELBO", "Adversarial", "MMD" or another's.
        weight: That of the KL, critic or kernel; None leaves it a letter, 1 is not written.
    """
    point = any(w.role == "guide" and w.family.startswith("Delta") for w in d.lines)
    if name == "Adversarial":
        # ℓ is the encoder's side of the critic's loss, which the history does not know by name.
        score = Markup("<mi>D</mi>") + _fenced("(", _join(d.latents), ")")
        fooled = _sub(Markup("<mi>𝔼</mi>"), Markup("<mi>q</mi>"))
        judged = _fenced("[", Markup("<mi>ℓ</mi>") + _fenced("(", score, ")"), "]")
        return _lines(_reconstruction(d), _mo("−") + _weight(weight, "w") + fooled + judged)
    if name == "MMD":
        squared = Markup("<msup><mi>MMD</mi><mn>2</mn></msup>")
        both = Markup("<mi>q</mi>") + _fenced("(", _join(d.latents), ")") + _mo(",")
        both += Markup("<mi>p</mi>") + _fenced("(", _join(d.latents), ")")
        penalty = _weight(weight, "w") + squared + _fenced("(", both, ")")
        return _lines(_reconstruction(d), _mo("−") + penalty)
    if name == "ELBO" and point:
        return _math(_reconstruction(d) + _mo("+") + LOG + _p("p", *_prior(d)))
    if name == "ELBO":
        divergence = _divergence(_p("q", *_guide(d)), _p("p", *_prior(d)))
        return _lines(_reconstruction(d), _mo("−") + _weight(weight, "β") + divergence)
    return None


def _weight(value: float | None, letter: str) -> Markup:
    if value is None:
        return Markup(f"<mi>{letter}</mi>")
    return Markup("") if value == 1 else Markup(f"<mn>{value:g}</mn><mspace width='0.2em'/>")


def _law(family: str, given: Markup, weights: Markup) -> Markup:
    """Translate the library's own families; others are named, with a function of the context."""
    name = family.split("(")[0].strip()
    net = _call("f", weights, given)
    loc = _call("μ", weights, given)
    if name == "StandardNormal":
        shown = re.search(r"loc=([^,)]+), scale=([^,)]+)", family)
        return _normal(*(_number(v) for v in shown.groups())) if shown else _normal()
    if name == "GaussianMixture":
        k = Markup("<mi>k</mi>")
        variance = Markup("<msubsup><mi>s</mi>") + k + Markup("<mn>2</mn></msubsup>")
        loc = _sub(Markup("<mi>m</mi>"), k)
        centred = GAUSSIAN + _fenced("(", loc + _mo(",") + _diagonal(variance), ")")
        mixed = _sub(Markup("<mo>∑</mo>"), k) + _sub(Markup("<mi>π</mi>"), k)
        return mixed + centred
    if name in ("Bernoulli", "Binomial"):
        total = re.search(r"total=(\d+)", family)
        first = Markup(f"<mn>{total[1]}</mn><mo>,</mo>") if total else Markup("")
        squashed = Markup("<mi>σ</mi>") + _fenced("(", net, ")")
        return _named(name, first + squashed)
    if name == "MultivariateNormal" and given:
        factor = _call("L", weights, given)
        square = factor + Markup("<msup>") + _row(factor) + Markup("<mi>⊤</mi></msup>")
        return GAUSSIAN + _fenced("(", loc + _mo(",") + square, ")")
    if name == "Normal" and "scale=" in family:
        scale = family.split("scale=")[1]
        if scale.startswith("Predicted"):
            spread = _diagonal(_call("σ", weights, given, squared=True))
        elif scale.startswith("PerFeature"):
            spread = _diagonal(Markup("<msup><mi>σ</mi><mn>2</mn></msup>"))
        else:
            known = _number(scale.rstrip(")")) if scale[:1].isdigit() else Markup("<mi>σ</mi>")
            spread = Markup("<msup>") + known + Markup("<mn>2</mn></msup><mi>I</mi>")
        return GAUSSIAN + _fenced("(", loc + _mo(",") + spread, ")")
    if name == "Delta" and given:
        return _call("g", weights, given)
    return _named(name, net) if given else _named(name, Markup(""))


def _normal(loc: Markup | None = None, scale: Markup | None = None) -> Markup:
    spread = Markup("<mi>I</mi>")
    if scale is not None:
        spread = Markup("<msup>") + scale + Markup("<mn>2</mn></msup>") + spread
    centre = loc if loc is not None else Markup("<mn>0</mn>")
    return GAUSSIAN + _fenced("(", centre + _mo(",") + spread, ")")


def _number(value: str) -> Markup:
    # "[…]": one number per coordinate, too many to show
    if "…" in value:
        return Markup("<mi>s</mi>")
    return Markup("<mn>") + escape(value) + Markup("</mn>")


def _diagonal(scale: Markup) -> Markup:
    return Markup("<mi>diag</mi><mo>&#x2061;</mo>") + _fenced("(", scale, ")")


def _named(name: str, inside: Markup) -> Markup:
    return _join([name]) + _fenced("(", inside, ")")


def _call(letter: str, weights: Markup, given: Markup, *, squared: bool = False) -> Markup:
    name = Markup(f"<mi>{letter}</mi>")
    two = Markup("<mn>2</mn></msubsup>")
    function = Markup("<msubsup>") + name + weights + two if squared else _sub(name, weights)
    return function + _fenced("(", given, ")")


def _conditioned(site: str, given: Sequence[str]) -> Markup:
    return _join([site]) + (_mo("|") + _join(given) if given else Markup(""))


def _reconstruction(d: Diagnosis) -> Markup:
    mean = _sub(Markup("<mi>𝔼</mi>"), Markup("<mi>q</mi>"))
    likelihood = _law_of(d.observed, d.latents, _covariates(d, "likelihood"))
    return mean + _fenced("[", LOG + _p("p", *likelihood), "]")


def _prior(d: Diagnosis) -> tuple[Markup, Markup | None]:
    return _law_of(d.latents, _covariates(d, "prior"))


def _guide(d: Diagnosis) -> tuple[Markup, Markup | None]:
    return _law_of(d.latents, d.observed, _covariates(d, "guide"))


def _covariates(d: Diagnosis, *roles: str) -> tuple[str, ...]:
    """What is given beside latents and data."""
    given = (name for line in d.lines if line.role in roles for name in line.given)
    return tuple(dict.fromkeys(n for n in given if n not in (*d.latents, *d.observed)))


def _law_of(of: Sequence[str], *given: Sequence[str]) -> tuple[Markup, Markup | None]:
    names = [name for group in given for name in group]
    return _join(of), _join(names) if names else None


def _divergence(q: Markup, p: Markup) -> Markup:
    return KL + _fenced("(", q + _mo("‖") + p, ")")


def _p(letter: str, of: Markup, given: Markup | None = None) -> Markup:
    inside = of if given is None else of + _mo("|") + given
    return Markup(f"<mi>{letter}</mi>") + _fenced("(", inside, ")")


def _join(names: Sequence[str]) -> Markup:
    return _mo(",").join(Markup("<mi>") + escape(n) + Markup("</mi>") for n in names)


def _sub(base: Markup, index: Markup) -> Markup:
    return Markup("<msub>") + base + index + Markup("</msub>")


def _row(inside: Markup) -> Markup:
    return Markup("<mrow>") + inside + Markup("</mrow>")


def _fenced(left: str, inside: Markup, right: str) -> Markup:
    opened = Markup(f"<mo stretchy='false'>{left}</mo>")
    return _row(opened + inside + Markup(f"<mo stretchy='false'>{right}</mo>"))


def _mo(symbol: str) -> Markup:
    if symbol in "−+":  # with space on both sides where one starts a term, too
        return Markup(f"<mo form='infix'>{symbol}</mo>")
    bar = " stretchy='false' lspace='0.17em' rspace='0.17em'" if symbol in "|‖" else ""
    return Markup(f"<mo{bar}>{symbol}</mo>")


def _lines(*terms: Markup) -> Markup:
    """Terms that a narrow column may break apart: browsers do not break within a formula."""
    return Markup(" ").join(_math(term) for term in terms)


def _math(inside: Markup) -> Markup:
    return Markup("<math>") + inside + Markup("</math>")
