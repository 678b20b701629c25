"""The sections of the page: a title, what to conclude, and what there is to see."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ppl_vae import plots
from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnose.numbers import error, over_data, with_error
from ppl_vae.diagnostics import ThreeTerms
from ppl_vae.plots.style import as_svg
from ppl_vae.report import checks, guides, match, words
from ppl_vae.training.progress import Bar


class Table(NamedTuple):
    """Rows of text under a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Cell(NamedTuple):
    """One program's part of a section.

    Attributes:
        sentences: What to conclude.
        image: A figure as a data URI, or None.
        alt: What the figure shows, for those who cannot see it.
        table: Numbers, or None.
    """

    sentences: tuple[str, ...]
    image: str | None = None
    alt: str = ""
    table: Table | None = None


class Section(NamedTuple):
    """A section: one cell for each program, None where it is undefined for that program."""

    key: str
    title: str
    about: str
    cells: tuple[Cell | None, ...]


Build = Callable[[Diagnosis], Cell | None]


def cells(d: Diagnosis, bar: Bar) -> dict[str, Cell | None]:
    """Build one program's part of every section: all figures are drawn here."""
    made = {}
    for key, title, _, build in CONTENTS:
        bar.say(f"{d.name}: {title}")
        made[key] = build(d)
        bar.step()
    return made


def sections(programs: Sequence[dict[str, Cell | None]]) -> list[Section]:
    """Lay the cells of programs side by side; a section that none of them has is left out."""
    laid = [
        Section(key, title, about, tuple(c[key] for c in programs))
        for key, title, about, _ in CONTENTS
    ]
    return [section for section in laid if any(cell is not None for cell in section.cells)]


def _training(d: Diagnosis) -> Cell | None:
    if d.history is None or not len(d.history):
        return None
    return _drawn(words.training(d), as_svg(plots.history(d.history)), "Training curves")


def _reconstructions(d: Diagnosis) -> Cell:
    return _drawn(words.reconstructions(d), as_svg(plots.reconstructions(d)), "Data and E[x|z]")


def _samples(d: Diagnosis) -> Cell:
    return _drawn(match.samples(d), as_svg(plots.samples(d)), "Draws from the prior, decoded")


def _latent_space(d: Diagnosis) -> Cell | None:
    if d.code_means is None:
        return None
    return _drawn(words.latent_space(d), as_svg(plots.latent_space(d)), "Codes over p(z)")


def _three_terms(d: Diagnosis) -> Cell | None:
    if d.terms is None:
        return None
    rows = tuple(_term(name, d.terms, key) for name, key in TERMS)
    head = ("", "mean over data ± MC SE", "SE over data")
    cell = _drawn(guides.three_terms(d), as_svg(plots.three_terms(d)), "The three terms")
    return cell._replace(table=Table(head, rows))


def _evidence(d: Diagnosis) -> Cell | None:
    both = (("own guide", d.evidence), ("fresh guide", d.fresh_evidence))
    rows = tuple((name, *guides.evidence_row(e)) for name, e in both if e is not None)
    if not rows:
        return None
    head = (
        "", "log p̂(x), mean ± MC SE", "bias estimate", "SE over data", "not quantified",
        "median ESS",
    )  # fmt: skip
    cell = Cell(tuple(guides.evidence(d)), table=Table(head, rows))
    if len(rows) == 2:
        drawn = _drawn("", as_svg(plots.evidence(d)), "Evidence, fresh guide less own")
        cell = cell._replace(image=drawn.image, alt=drawn.alt)
    return cell


def _khat(d: Diagnosis) -> Cell | None:
    if d.evidence is None and d.fresh_evidence is None:
        return None
    return _drawn(guides.khat(d), as_svg(plots.khat(d)), "Histogram of k-hat")


def _calibration(d: Diagnosis) -> Cell | None:
    if d.calibration is None:
        return None
    return _drawn(checks.calibration(d), as_svg(plots.calibration(d.calibration)), "ECDFs of ranks")


def _gaps(d: Diagnosis) -> Cell | None:
    if d.gaps is None:
        return None
    return _drawn(checks.gaps(d), as_svg(plots.gaps(d.gaps)), "Parts of the gap, datum by datum")


def _ais(d: Diagnosis) -> Cell | None:
    if d.ais is None or d.evidence is None:
        return None
    own = d.evidence.log_evidence[d.chosen[: len(d.ais.se)]]
    return _drawn(checks.ais(d), as_svg(plots.annealed(d.ais, own)), "AIS less the own guide")


def _reference(d: Diagnosis) -> Cell | None:
    if d.agreement is None:
        return None
    return _drawn(checks.reference(d), as_svg(plots.agreement(d.agreement)), "q(z|x) over NUTS")


def _prior_check(d: Diagnosis) -> Cell | None:
    if d.prior_check is None:
        return None
    return _drawn(
        checks.prior_check(d), as_svg(plots.calibration(d.prior_check)), "ECDFs of ranks of data"
    )


def _typicality(d: Diagnosis) -> Cell | None:
    if d.typicality is None:
        return None
    return _drawn(
        checks.typicality(d), as_svg(plots.typicality(d.typicality)), "log p(x), data and model"
    )


def _posterior_check(d: Diagnosis) -> Cell | None:
    if d.posterior_check is None or not d.posterior_check.effects:
        return None
    svg = as_svg(plots.posterior_check(d.posterior_check))
    return _drawn(checks.posterior_check(d), svg, "Effects of discrepancies")


def _active_units(d: Diagnosis) -> Cell | None:
    if d.active is None:
        return None
    if len(d.active.variance) <= 6:  # a sentence holds them all
        return Cell(tuple(filter(None, (words.active_units(d), checks.information(d)))))
    said = f"{words.active_units(d)} {checks.information(d)}".strip()
    return _drawn(said, as_svg(plots.active_units(d)), "Variance of each unit")


def _match(d: Diagnosis) -> Cell | None:
    if d.match is None:
        return None
    return _drawn(match.match(d), as_svg(plots.match(d)), "Marginals of q(z) and p(z)")


def _holes(d: Diagnosis) -> Cell | None:
    if d.coverage is None:
        return None
    return _drawn(match.holes(d), as_svg(plots.holes(d.coverage, d.samples)), "Draws in holes")


def _notes(d: Diagnosis) -> Cell | None:
    said = [note[:1].upper() + note[1:].rstrip(".") + "." for note in d.notes]
    return Cell(tuple(said)) if said else None


def _drawn(sentence: str, svg: bytes, alt: str) -> Cell:
    uri = "data:image/svg+xml;base64," + b64encode(svg).decode()
    return Cell((sentence,) if sentence else (), uri, alt)


def _term(name: str, terms: ThreeTerms, key: str) -> tuple[str, str, str]:
    """Name, mean ± Monte-Carlo SE, SE over the data; with its sign, so that the column adds up."""
    values, errors = getattr(terms, key), getattr(terms, key + "_se")
    values = -values if name.startswith("−") else values
    mean, spread = over_data(values)
    mc = float((errors**2).sum() ** 0.5 / len(values))
    return name, with_error(mean, mc), error(spread)


TERMS = (
    ("reconstruction", "reconstruction"),
    ("− KL(q(z|x) ‖ p(z))", "kl_prior"),
    ("= ELBO", "elbo"),
    ("+ KL(q(z|x) ‖ p(z|x))", "kl_posterior"),
    ("= log p̂(x)", "log_evidence"),
)

CONTENTS: tuple[tuple[str, str, str, Build], ...] = (
    ("training", "Training", "Nats per datum, averaged over each epoch.", _training),
    ("reconstructions", "Reconstructions", "Data, and E[x|z] at one draw z ~ q(z|x).",
     _reconstructions),
    ("samples", "Draws from the prior", "z ~ p(z), decoded.", _samples),
    ("latent-space", "Latent space", "The means of q(z|x), over draws of p(z) in grey.",
     _latent_space),
    ("three-terms", "The three terms of log p(x)", "Under the program's own guide, nats per datum.",
     _three_terms),
    ("evidence", "Evidence", "log p̂(x) = log of the mean importance weight: a stochastic lower "
     "bound on log p(x), nats per datum.", _evidence),
    ("khat", "k-hat", "How heavy the tail of the importance weights is; beyond the line their "
     "variance cannot be trusted.", _khat),
    ("calibration", "Calibration of the guide", "z ~ p(z), x ~ p(x|z), and where z ranks among "
     "draws of q(z|x): uniform if q(z|x) is p(z|x), at the model as it was fitted.", _calibration),
    ("gaps", "What the guide loses", "log p(x) − ELBO(x), by what would gain it back.", _gaps),
    ("ais", "Evidence without a guide", "Annealed importance sampling from p(z): no guide can "
     "mislead it.", _ais),
    ("reference", "The guide beside draws of p(z|x)", "By NUTS from the model as it was fitted, "
     "for a few data; no guide takes part.", _reference),
    ("active-units", "Codes", "What z says of x, in all and unit by unit.", _active_units),
    ("match", "q(z) against p(z)", "Tested by a kernel and by a classifier, on draws that took no "
     "part in training. Read the size first: with enough draws every trained model is rejected.",
     _match),
    ("holes", "Holes in q(z)", "How much of p(z) lies in a ball around a code, up to its fifth "
     "nearest other code; outside, the decoder is asked for what it never learned.", _holes),
    ("prior-check", "Prior predictive check", "Data among data that the model makes: uniform ranks "
     "if the model is right. The guide has no part in it.", _prior_check),
    ("typicality", "Typicality", "log p̂(x) of the data beside that of data which the model made.",
     _typicality),
    ("posterior-check", "Posterior predictive check", "Data beside x ~ p(x|z), z ~ q(z|x): can the "
     "decoder make such data where the guide puts them?", _posterior_check),
    ("notes", "Notes", "What is assumed beside the equations.", _notes),
)  # fmt: skip
