"""The sections of the page: a title, what to conclude, and what there is to see."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ppl_vae import plots
from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnostics import ThreeTerms
from ppl_vae.plots.style import as_svg
from ppl_vae.report import guides, match, words
from ppl_vae.report.numbers import error, over_data, with_error
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


def _active_units(d: Diagnosis) -> Cell | None:
    if d.active is None:
        return None
    if len(d.active.variance) <= 6:  # a sentence holds them all
        return Cell((words.active_units(d),))
    return _drawn(words.active_units(d), as_svg(plots.active_units(d)), "Variance of each unit")


def _match(d: Diagnosis) -> Cell | None:
    if d.mmd is None:
        return None
    return _drawn(match.match(d), as_svg(plots.match(d)), "Marginals of q(z) and p(z)")


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
    ("active-units", "Active units", "Units of z whose guide mean moves with x.", _active_units),
    ("match", "q(z) against p(z)", "Tested by a kernel and by a classifier, on draws that took no "
     "part in training. Read the size first: with enough draws every trained model is rejected.",
     _match),
    ("notes", "Notes", "What is assumed beside the equations.", _notes),
)  # fmt: skip
