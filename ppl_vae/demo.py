"""A VAE of handwritten digits, the same under another objective and another prior, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from ppl_vae.conditional import Conditional
from ppl_vae.data import digits
from ppl_vae.diagnose import Diagnosis, diagnose
from ppl_vae.families import Binomial, Normal
from ppl_vae.nets import MLP
from ppl_vae.objectives import ELBO, Adversarial, Objective
from ppl_vae.posterior import refit_guide
from ppl_vae.priors import GaussianMixture, StandardNormal
from ppl_vae.programs import VAE
from ppl_vae.training import fit

HELD_OUT = 500  # of 1797 digits

WEIGHT = 20.0  # of the critic: at 10 the match of q(z) and p(z) comes slower

NEXT = (
    "Swap another part: FlowPrior, StudentTPrior or VampPrior where the mixture was; "
    "MultivariateNormal(2) where the guide's Normal(2) was. See docs/choose/.",
    "Open the latent space: eight dimensions in prior, decoder and encoder. Watch the "
    "reconstructions, the three terms and the active units.",
    "Bring your own data: fit(program, x) takes any array, and counts, binary and real cells have "
    "a family each. Two Pyro functions of your own are a program too: Program(model, guide).",
)


class DemoResult(NamedTuple):
    """What the demo leaves.

    Attributes:
        vae: What was found out about the VAE.
        aae: The same of the AAE: another objective.
        mixture: The same of the VAE under a learned mixture of ten: another prior.
        page: The report of all three side by side.
    """

    vae: Diagnosis
    aae: Diagnosis
    mixture: Diagnosis
    page: Path


def demo(
    out: str | Path = "ppl_vae_demo",
    *,
    seed: int = 0,
    epochs: int = 100,
    refit_epochs: int = 100,
    num_samples: int = 500,
    budget: float = 8.0,
    progress: bool = True,
    console: Console | None = None,
) -> DemoResult:
    """Train a program on digits, swap its objective, swap its prior; diagnose on digits held out.

    The program is z ~ N(0, I) in two dimensions, x|z ~ Binomial(16, decoder(z)), with the guide
    z|x ~ N(encoder(x)). Under `ELBO` it is a VAE, under `Adversarial` an AAE; the third has a
    mixture of ten Gaussians as p(z), learned with the rest. Writes a page for each, and
    ``report.html``, which has all three side by side.

    Args:
        out: The folder to write to; it is made if it is not there.
        seed: Seeds the split, start values, training and all draws: one seed, one result.
        epochs: Passes over the training digits, for each.
        refit_epochs: Passes over the held-out digits for the fresh guides, for each.
        num_samples: Draws of z per digit in the diagnosis.
        budget: Seconds for the slower parts of each diagnosis; a quick machine does more of them.
        progress: Show progress bars.
        console: Where to print; the terminal when absent.

    Returns:
        The three diagnoses and the path of the report.

    Raises:
        ValueError: If `out` is a file, or lies in a folder that cannot be made.
    """
    from ppl_vae.report import reports
    from ppl_vae.report.comparison import conclusion

    start = time.perf_counter()
    console = console or Console()
    folder = _folder(out)
    found = train_and_diagnose(
        seed=seed, epochs=epochs, refit_epochs=refit_epochs, num_samples=num_samples,
        budget=budget, progress=progress, console=console,
    )  # fmt: skip
    page = reports(folder, *found, progress=progress)
    console.print()
    console.print(table(*found[:2]))
    for sentence in conclusion(found):
        console.print(escape(sentence), highlight=False)
    console.print(f"{time.perf_counter() - start:.0f} s in all, seed {seed}.\n", highlight=False)
    console.print(
        f"All three side by side: [bold]{escape(str(page))}[/bold]", soft_wrap=True, highlight=False
    )
    console.print("\nThe next three things to try:")
    steps = Table.grid(padding=(0, 1))
    for number, step in enumerate(NEXT, start=1):
        steps.add_row(f"{number}.", escape(step))
    console.print(steps, highlight=False)
    return DemoResult(*found, page)


def train_and_diagnose(
    *,
    seed: int,
    epochs: int,
    refit_epochs: int,
    num_samples: int,
    budget: float,
    progress: bool,
    console: Console,
) -> tuple[Diagnosis, Diagnosis, Diagnosis]:
    """Train the three programs, and diagnose them on the digits held out.

    The arguments are those of `demo`.

    Returns:
        The diagnoses of the VAE, the AAE and the VAE under a mixture.
    """
    train, held_out, labels = _split(seed)
    console.print(
        f"{len(train)} digits to train on, {len(held_out)} held out; 8 x 8 counts of 0..16, so "
        "x|z is Binomial(16). One program; then another objective, then another prior.",
        highlight=False,
    )

    def diagnosed(name: str, program: VAE, objective: Objective) -> Diagnosis:
        said = f"[bold]{name}[/bold], {escape(repr(program.prior))} under"
        console.print(f"\n{said} {type(objective).__name__}:", highlight=False)
        history = fit(
            program, train, objective=objective, epochs=epochs, validation=held_out, seed=seed,
            progress=progress,
        ).history  # fmt: skip
        console.print("A fresh guide on the held-out digits, p(z) and p(x|z) frozen:")
        fresh = refit_guide(program, held_out, epochs=refit_epochs, seed=seed, progress=progress)
        return diagnose(
            program, held_out, name=name, labels=labels, history=history, fresh=fresh,
            num_samples=num_samples, budget=budget, seed=seed, progress=progress,
        )  # fmt: skip

    return (
        diagnosed("VAE", _program(seed, lambda: StandardNormal(2)), ELBO()),
        diagnosed("AAE", _program(seed, lambda: StandardNormal(2)), Adversarial(weight=WEIGHT)),
        diagnosed("mixture", _program(seed, _mixture), ELBO()),
    )


def table(*diagnoses: Diagnosis) -> Table:
    """Lay diagnoses side by side as a table for the terminal, each number with its error.

    Args:
        diagnoses: What `diagnose` found, of one program or more.
    """
    from ppl_vae.report.comparison import comparison

    title = f"On {len(diagnoses[0].data)} held-out digits, nats per datum"
    shown = Table(title=title, box=SIMPLE, pad_edge=False)
    shown.add_column("")
    for d in diagnoses:
        shown.add_column(escape(d.name), justify="right")
    for row in comparison(diagnoses):
        shown.add_row(*map(escape, row))
    return shown


def _program(seed: int, prior: Callable[[], nn.Module]) -> VAE:
    """Build the program; the same start values every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Conditional(MLP(128, 128), Binomial((8, 8), total=16), given=2)
        encoder = Conditional(MLP(128, 128), Normal(2), given=(8, 8))
        return VAE(prior(), decoder, encoder)


def _mixture() -> GaussianMixture:
    return GaussianMixture(torch.randn(10, 2), learned=True)


def _split(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    x, labels = digits()
    order = np.random.default_rng(seed).permutation(len(x))
    held, kept = order[:HELD_OUT], order[HELD_OUT:]
    return x[kept], x[held], labels[held]


def _folder(out: str | Path) -> Path:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"Got the folder {str(folder)!r}, which cannot be made ({error.strerror}); expected "
            "one to write reports to. Try --out ppl_vae_demo."
        ) from error
    return folder
