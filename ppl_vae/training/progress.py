"""What a person sees while training runs, and while a report is drawn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

FIGURES = {  # the last are the first to go where the screen is narrow
    "elbo": "ELBO",
    "kl": "KL",
    "validation_elbo": "val ELBO",
    "reconstruction": "recon",
    "adversarial": "adv",
    "mmd2": "MMD²",
    "critic_accuracy": "critic right",
    "loss": "loss",
    "validation_loss": "val loss",
}
WIDE = 100  # columns from which on the bar itself may be longer


class Bar:
    """A count of steps with some words beside it; silent without a `Progress`."""

    def __init__(self, progress: Progress | None, steps: int, done: int, label: str) -> None:
        self.progress = progress
        if progress is not None:
            self.task = progress.add_task(label, total=steps, completed=done, words="")
            # Five columns with a space between them: label, bar, 100%, words, 0:00:00.
            width = progress.console.width
            self.room = width - len(label) - _length(width) - len("100%") - len("0:00:00") - 4

    def step(self) -> None:
        """Count one step."""
        if self.progress is not None:
            self.progress.advance(self.task)

    def say(self, words: str) -> None:
        """Show words, as many as there is room for."""
        if self.progress is not None:
            self.progress.update(self.task, words=words[: max(0, self.room)])

    def epoch(self, row: dict[str, float]) -> None:
        """Show as many of an epoch's figures as there is room for, in nats per datum."""
        if self.progress is None:
            return
        words = f"epoch {row['epoch']:.0f}"
        for column, name in FIGURES.items():
            if column in row:
                more = f"{words}  {name} {_short(row[column])}"
                if len(more) > self.room:
                    break
                words = more
        self.say(words)


@contextmanager
def quietly_rich() -> Iterator[None]:
    """Import parts of rich, which draws from `random` when imported, without a trace of it."""
    stream = random.getstate()
    yield
    random.setstate(stream)


@contextmanager
def progress_bar(
    show: bool, steps: int, done: int, label: str, *, transient: bool = False
) -> Iterator[Bar]:
    """Show a bar of `steps` steps, or nothing; a transient one is gone when it is done."""
    if not show:
        yield Bar(None, steps, done, label)
        return
    with quietly_rich():
        from rich import get_console
        from rich import progress as rich

    console = get_console()
    if transient and not (console.is_terminal or console.is_jupyter):
        yield Bar(None, steps, done, label)  # rich would leave an empty line in a file
        return
    columns = (
        rich.TextColumn("[bold]{task.description}"),
        rich.BarColumn(bar_width=_length(console.width)),
        rich.TextColumn("{task.percentage:>3.0f}%"),
        rich.TextColumn("{task.fields[words]}", markup=False),
        rich.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with rich.Progress(*columns, transient=transient) as progress:
        yield Bar(progress, steps, done, label)


def _length(width: int) -> int:
    return 16 if width >= WIDE else 10


def _short(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"
