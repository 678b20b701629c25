"""What a person sees while training runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SHOWN = {
    "loss": "loss",
    "elbo": "ELBO",
    "reconstruction": "recon",
    "kl": "KL",
    "adversarial": "adv",
    "validation_elbo": "val ELBO",
}


class Bar:
    """A progress bar over the steps of all epochs, with the last epoch's figures."""

    def __init__(self, progress: Progress, steps: int, done: int, label: str) -> None:
        self.progress = progress
        self.task = progress.add_task(label, total=steps, completed=done, figures="")

    def step(self) -> None:
        """Count one step."""
        self.progress.advance(self.task)

    def epoch(self, row: dict[str, float]) -> None:
        """Show an epoch's figures, in nats per datum."""
        figures = "  ".join(f"{SHOWN[k]} {v:.2f}" for k, v in row.items() if k in SHOWN)
        self.progress.update(self.task, figures=f"epoch {row['epoch']:.0f}  {figures}")


@contextmanager
def progress_bar(show: bool, steps: int, done: int, label: str) -> Iterator[Bar]:
    """Show a bar of `steps` steps, or nothing."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not show) as progress:
        yield Bar(progress, steps, done, label)
