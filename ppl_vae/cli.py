"""The command `ppl-vae`: thin, it parses, calls the library and prints."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import Annotated

import typer

PACKAGES = (
    *("ppl_vae", "torch", "pyro-ppl", "numpy", "scipy", "xarray"),
    *("arviz-base", "arviz-stats", "arviz-plots", "matplotlib", "scikit-learn"),
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Deep latent-variable models as probabilistic programs.",
)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(min=0, help="One seed, one result.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the reports.")] = Path("ppl_vae_demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the training.")] = False,
) -> None:
    """Train a VAE and an AAE on digits and write one report of both."""
    import torch

    from ppl_vae.demo import demo as run

    # Networks this small are quickest on one thread, and their sums then come in one order
    # everywhere: a seed means the same on any number of cores.
    torch.set_num_threads(1)
    if quick:
        run(out, seed=seed, epochs=10, refit_epochs=10, num_samples=100, budget=0)
    else:
        run(out, seed=seed)


@app.command()
def info() -> None:
    """Say which versions, processors and tools are here, and what each is needed for."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(show_header=False, box=None, pad_edge=False)
    for name, found in facts().items():
        shown.add_row(name, found)
    Console().print(shown, highlight=False)


def facts() -> dict[str, str]:
    """Look at the machine as far as the library depends on it.

    Example:
        >>> facts()["bundled data"].split(":")[0]
        'digits'
    """
    import torch

    from ppl_vae.training.inductor import why_not

    compiler = which(os.environ.get("CXX", "g++"))  # the one that compiles steps
    headers = Path(sysconfig.get_path("include"), "Python.h")
    need = "needed only to compile training steps; everything works without"
    missing = why_not()
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "cores": f"{os.cpu_count()}, of which torch uses {torch.get_num_threads()} threads",
        "devices": ", ".join(devices),
        "C++ compiler": compiler or f"none ({need})",
        "Python headers": str(headers) if headers.is_file() else f"none ({need})",
        "compiled steps": "possible" if missing is None else f"not possible: {missing}",
        "bundled data": "digits: 1797 images of 8 x 8 counts 0..16 (ppl_vae.data.digits)",
    }


def main() -> None:
    """Run the command; what the library refuses is a sentence, and exit status 1."""
    try:
        app()
    except ValueError as error:
        print(f"ppl-vae: {error}", file=sys.stderr)
        sys.exit(1)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
