"""What a person sees while training runs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SHOWN = {
    "loss": "loss",
    "elbo": "ELBO",
    "reconstruction": "recon",
    "kl": "KL",
    "adversarial": "adv",
    "validation_elbo": "val ELBO",
}


class Bar:
    """Steps of all epochs, with the last epoch's figures; silent without a `Progress`."""

    def __init__(self, progress: Progress | None, steps: int, done: int, label: str) -> None:
        self.progress = progress
        if progress is not None:
            self.task = progress.add_task(label, total=steps, completed=done, figures="")

    def step(self) -> None:
        """Count one step."""
        if self.progress is not None:
            self.progress.advance(self.task)

    def epoch(self, row: dict[str, float]) -> None:
        """Show an epoch's figures, in nats per datum."""
        if self.progress is not None:
            figures = "  ".join(f"{SHOWN[k]} {v:.2f}" for k, v in row.items() if k in SHOWN)
            self.progress.update(self.task, figures=f"epoch {row['epoch']:.0f}  {figures}")


@contextmanager
def progress_bar(show: bool, steps: int, done: int, label: str) -> Iterator[Bar]:
    """Show a bar of `steps` steps, or nothing."""
    if not show:
        yield Bar(None, steps, done, label)
        return
    stream = random.getstate()
    from rich import progress as rich  # draws from `random` when imported

    random.setstate(stream)
    columns = (
        rich.TextColumn("[bold]{task.description}"),
        rich.BarColumn(bar_width=16),
        rich.TextColumn("{task.percentage:>3.0f}%"),
        rich.TextColumn("{task.fields[figures]}"),
        rich.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with rich.Progress(*columns) as progress:
        yield Bar(progress, steps, done, label)
