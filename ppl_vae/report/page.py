"""The page itself: the template, filled."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ppl_vae import plots
from ppl_vae.diagnose import Diagnosis
from ppl_vae.diagnose.finding import MARKS
from ppl_vae.report import mathematics, words
from ppl_vae.report.comparison import comparison, conclusion
from ppl_vae.report.sections import Cell, sections

PACKAGES = ("ppl_vae", "torch", "pyro-ppl", "numpy", "arviz-stats", "scikit-learn")


def page(diagnoses: Sequence[Diagnosis], found: Sequence[dict[str, Cell | None]]) -> str:
    """Lay out the cells of programs as one HTML page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = files("ppl_vae.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    several = len(diagnoses) > 1
    shown = sections(found)
    return environment.from_string(source).render(
        diagnoses=diagnoses,
        fitted=[_fitted(d) for d in diagnoses],
        comparison=comparison(diagnoses) if several else [],
        conclusion=conclusion(diagnoses) if several else [],
        findings=any(d.findings for d in diagnoses),
        marks=MARKS,
        sections=shown,
        keys=[s.key for s in shown],
        made=[words.how_made(d) for d in diagnoses],
        versions=", ".join(_versions()),
    )


def _fitted(d: Diagnosis) -> dict[str, object]:
    name = d.trained_by
    weight = words.penalty_weight(d)
    formula = None if name is None else mathematics.objective(d, name, weight)
    return {
        "sentence": words.fitted(d),
        "lines": [(line, mathematics.drawn(line)) for line in d.lines],
        "objective": formula,
        "identity": None if d.terms is None else mathematics.identity(d),
        "diagram": Markup(plots.diagram(d, name)),
        "undefined": d.undefined,
    }


def _versions() -> list[str]:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found
