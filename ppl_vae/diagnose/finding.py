"""A finding, and findings as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Literal, NamedTuple

from ppl_vae.training.progress import quietly_rich

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

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


def table(findings: Sequence[Finding], title: str, left_out: Mapping[str, str]) -> Group:
    """Lay findings out for `rich.print`: what was found, how much it is; what to conclude."""
    with quietly_rich():
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

    heads = ("", "value ± error", "effect size")
    rows = [(f"{MARKS[f.grade]} {f.check}", f.value, f.effect) for f in findings]
    widths = [max(len(row[k]) for row in (heads, *rows)) + 3 for k in range(3)]

    def line(row: tuple[str, ...]) -> str:
        return "".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip()

    shown: list[RenderableType] = [Text(title, style="bold"), Text(line(heads), style="dim")]
    for f, row in zip(findings, rows, strict=True):
        text = Text(line(row))
        text.stylize(COLOURS[f.grade], 0, 1)
        text.stylize("bold", 2, 2 + len(f.check))
        shown += [text, Padding(Text(f.verdict), (0, 0, 0, 4))]
        if f.advice:
            shown.append(Padding(Text(f"→ {f.advice}", style="italic"), (0, 0, 0, 4)))
    shown += [Text(f"Left out: {name} ({reason})") for name, reason in left_out.items()]
    return Group(*shown)


def as_text(findings: Sequence[Finding], title: str, left_out: Mapping[str, str]) -> str:
    """Give the table as plain text, as wide as the terminal, 100 columns at most.

    Example:
        >>> found = Finding("k-hat", "0.2 ± 0.1", "small", "good", "Nothing found.", "", "khat")
        >>> print(as_text([found], "program", {}))
        program
                  value ± error   effect size
        ✓ k-hat   0.2 ± 0.1       small
            Nothing found.
    """
    with quietly_rich():
        from rich.console import Console

    text = StringIO()
    width = min(get_terminal_size((100, 24)).columns, 100)
    Console(file=text, width=width, color_system=None, highlight=False).print(
        table(findings, title, left_out)
    )
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
