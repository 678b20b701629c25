"""One self-contained HTML page of one diagnosis, or of several side by side."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ppl_vae.diagnose import Diagnosis
from ppl_vae.training.progress import progress_bar


def report(path: str | Path, *diagnoses: Diagnosis, progress: bool = True) -> Path:
    """Write a page that says what was fitted, how well, and whether to trust the posterior.

    Everything is in the one file: no network, no script. What is undefined for a program (the
    three terms under a Delta guide, say) is absent, and the page says why. Several diagnoses stand
    side by side, a table of comparison first. Writing is atomic: readers see the old page or the
    new one.

    Args:
        path: Where to write, such as "report.html".
        diagnoses: What `diagnose` found, of one program or more, each under its own name.
        progress: Show a progress bar while the figures are drawn.

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
        >>> found = diagnose(Program(world.model, world.guide), x, num_samples=50, budget=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report(folder + "/report.html", found).stat().st_size < 1_000_000
        True
    """
    target = _writable(path)
    _check(diagnoses)
    _write_pages(diagnoses, {target: slice(None)}, progress)
    return target


def reports(folder: str | Path, *diagnoses: Diagnosis, progress: bool = True) -> Path:
    """Write a page for each program, and ``report.html`` with all of them side by side.

    Every figure is drawn once. The page of a program has its name, such as ``vae.html``.

    Args:
        folder: Where to write; it must be there.
        diagnoses: What `diagnose` found, of two programs or more.
        progress: Show a progress bar while the figures are drawn.

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
    own = {target.with_name(f"{stem}.html"): slice(k, k + 1) for k, stem in enumerate(stems)}
    _write_pages(diagnoses, {**own, target: slice(None)}, progress)
    return target


def _write_pages(diagnoses: Sequence[Diagnosis], pages: dict[Path, slice], progress: bool) -> None:
    """Draw every program once, then write each page of some of them."""
    # Jinja2 and matplotlib are loaded here, so that `import ppl_vae` stays quick.
    from ppl_vae.report.page import page
    from ppl_vae.report.sections import CONTENTS, cells

    steps = len(CONTENTS) * len(diagnoses)
    with progress_bar(progress, steps, 0, "report", transient=True) as bar:
        found = [cells(d, bar) for d in diagnoses]
        for target, chosen in pages.items():
            _write(target, page(diagnoses[chosen], found[chosen]))


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
