"""A finding, and findings as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Literal, NamedTuple

from ppl_vae.training.progress import quietly_rich

if TYPE_CHECKING:
    from rich.table import Table

Grade = Literal["good", "look", "bad", "unknown"]
"""Nothing found; worth a look; do not trust it; not known from what was done."""

COLOURS: dict[Grade, str] = {"good": "green", "look": "yellow", "bad": "red", "unknown": "dim"}
MARKS: dict[Grade, str] = {"good": "✓", "look": "!", "bad": "✗", "unknown": "?"}


class Finding(NamedTuple):
    """What one check found, in words.

    Attributes:
        check: What was looked at.
        value: What was found, with its error; in nats per datum where nothing else is said.
        effect: How much that is, on a scale that means the same for every program.
        grade: "good", "look", "bad" or "unknown".
        verdict: What to conclude.
        advice: What to try; empty where nothing is to be done.
        section: Where the report shows it.
    """

    check: str
    value: str
    effect: str
    grade: Grade
    verdict: str
    advice: str
    section: str


def table(findings: Sequence[Finding], title: str) -> Table:
    """Lay findings out for `rich.print`: what was found, how much it is, what to conclude."""
    with quietly_rich():
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table

    shown = Table(title=escape(title), box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    shown.add_column("")
    shown.add_column("value ± error", max_width=20)
    shown.add_column("effect size", max_width=16)
    shown.add_column("verdict, and what to try", ratio=1, overflow="fold")
    for f in findings:
        said = escape(f.verdict) + (f"\n[italic]→ {escape(f.advice)}[/italic]" if f.advice else "")
        mark = f"[{COLOURS[f.grade]}]{MARKS[f.grade]}[/] {escape(f.check)}"
        shown.add_row(mark, escape(f.value), escape(f.effect), said)
    return shown


def as_text(findings: Sequence[Finding], title: str, width: int = 110) -> str:
    """Give the table as plain text.

    Example:
        >>> found = Finding("k-hat", "0.2 ± 0.1", "small", "good", "Nothing found.", "", "khat")
        >>> print(as_text([found], "program", width=72).splitlines()[0].strip())
        program
    """
    with quietly_rich():
        from rich.console import Console

    text = StringIO()
    Console(file=text, width=width, color_system=None, highlight=False).print(
        table(findings, title)
    )
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
