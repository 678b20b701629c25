"""One self-contained HTML page of one diagnosis, or of several side by side."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ppl_vae import plots
from ppl_vae.diagnose import Diagnosis
from ppl_vae.report import mathematics, words
from ppl_vae.report.comparison import comparison, conclusion
from ppl_vae.report.sections import Cell, cells, sections

PACKAGES = ("ppl_vae", "torch", "pyro-ppl", "numpy", "arviz-stats", "scikit-learn")


def report(path: str | Path, *diagnoses: Diagnosis) -> Path:
    """Write a page that says what was fitted, how well, and whether to trust the posterior.

    Everything is in the one file: no network, no script. What is undefined for a program (the
    three terms under a Delta guide, say) is absent, and the page says why. Several diagnoses stand
    side by side, a table of comparison first. Writing is atomic: readers see the old page or the
    new one.

    Args:
        path: Where to write, such as "report.html".
        diagnoses: What `diagnose` found, of one program or more, each under its own name.

    Returns:
        The path.

    Raises:
        ValueError: If the folder is not there, there is no diagnosis, something else than a
            `Diagnosis`, or two of one name.

    Example:
        >>> import tempfile
        >>> from ppl_vae import Program, diagnose
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(50, seed=1)
        >>> found = diagnose(Program(world.model, world.guide), x, num_samples=50)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report(folder + "/report.html", found).stat().st_size < 1_000_000
        True
    """
    target = _writable(path)
    _check(diagnoses)
    _write(target, _page(diagnoses, [cells(d) for d in diagnoses]))
    return target


def reports(folder: str | Path, *diagnoses: Diagnosis) -> Path:
    """Write a page for each program, and ``report.html`` with all of them side by side.

    Every figure is drawn once. The page of a program has its name, such as ``vae.html``.

    Args:
        folder: Where to write; it must be there.
        diagnoses: What `diagnose` found, of two programs or more.

    Returns:
        The path of ``report.html``.

    Raises:
        ValueError: As `report`, or if two names give one file.
    """
    target = _writable(Path(folder) / "report.html")
    _check(diagnoses)
    stems = [re.sub(r"\W+", "-", d.name.lower()).strip("-") or "program" for d in diagnoses]
    if len({*stems, "report"}) <= len(stems):
        raise ValueError(
            f"Got the names {[d.name for d in diagnoses]}, which give the files {stems}; expected "
            'different ones, and none called "report". Try diagnose(program, x, name="VAE").'
        )
    found = [cells(d) for d in diagnoses]
    for stem, d, own in zip(stems, diagnoses, found, strict=True):
        _write(target.with_name(f"{stem}.html"), _page([d], [own]))
    _write(target, _page(diagnoses, found))
    return target


def _page(diagnoses: Sequence[Diagnosis], found: Sequence[dict[str, Cell | None]]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = files("ppl_vae.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    several = len(diagnoses) > 1
    return environment.from_string(source).render(
        diagnoses=diagnoses,
        fitted=[_fitted(d) for d in diagnoses],
        comparison=comparison(diagnoses) if several else [],
        conclusion=conclusion(diagnoses) if several else [],
        sections=sections(found),
        made=[words.how_made(d) for d in diagnoses],
        versions=", ".join(_versions()),
    )


def _fitted(d: Diagnosis) -> dict[str, object]:
    name = words.objective_name(d)
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


def _check(diagnoses: Sequence[Diagnosis]) -> None:
    if not diagnoses:
        raise ValueError('Got no diagnosis; expected one or more. Try report("r.html", diagnosis).')
    for d in diagnoses:
        if not isinstance(d, Diagnosis):
            raise ValueError(
                f"Got a {type(d).__name__}; expected a Diagnosis. "
                "Try report(path, diagnose(program, x)), the path first."
            )
    names = [d.name for d in diagnoses]
    if len(set(names)) < len(names):
        raise ValueError(
            f"Got diagnoses named {names}; expected a name of its own for each. "
            'Try diagnose(program, x, name="VAE").'
        )


def _writable(path: str | Path) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"Got a {type(path).__name__} as path; expected the name of a file. "
            'Try report("report.html", diagnosis).'
        )
    target = Path(path)
    if not target.parent.is_dir():
        raise ValueError(
            f"Got the path {str(target)!r} in a folder that is not there. "
            f"Try Path({str(target.parent)!r}).mkdir(parents=True) first."
        )
    if target.is_dir():
        raise ValueError(
            f"Got the folder {str(target)!r}; expected a file. Try {str(target / 'report.html')!r}."
        )
    return target


def _write(target: Path, html: str) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(html, encoding="utf-8")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _versions() -> list[str]:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found
