"""What a person sees first: the names, what results print, and the bars."""

import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.text import Text

import ppl_vae
from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Adversarial,
    Conditional,
    Diagnosis,
    FitResult,
    History,
    Normal,
    Program,
    Shared,
    StandardNormal,
    diagnose,
    fit,
    log_evidence,
    report,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.training.progress import progress_bar

WORLD = LinearGaussian.random(2, 3, seed=0)
ELBO_ROW = {
    "epoch": 100.0, "loss": 194.341, "elbo": -194.341, "reconstruction": -184.262, "kl": 10.079,
    "validation_loss": 196.634, "validation_elbo": -196.634, "validation_kl": 9.9,
    "grad_norm": 12.0, "learning_rate": 1e-3, "seconds": 0.25,
}  # fmt: skip
CRITIC_ROW = {
    "epoch": 7.0, "loss": 185.0, "reconstruction": -184.262, "adversarial": 0.693,
    "critic_loss": 1.386, "critic_accuracy": 0.53, "grad_norm": 1.0, "seconds": 0.5,
}  # fmt: skip


def test_the_face_is_a_list_of_names_each_of_which_is_there() -> None:
    names: dict[str, object] = {}
    exec("from ppl_vae import *", names)
    assert set(names) - {"__builtins__"} == set(ppl_vae.__all__)
    assert len(set(ppl_vae.__all__)) == len(ppl_vae.__all__)
    assert not [n for n in ppl_vae.__all__ if isinstance(names[n], type(ppl_vae))]
    with pytest.raises(AttributeError, match="no attribute 'reprot'"):
        ppl_vae.reprot  # noqa: B018


def test_report_is_a_function_and_plots_a_package_after_one_import() -> None:
    code = """
import sys, ppl_vae
from ppl_vae.report import report, reports  # the package of that name changes nothing
assert ppl_vae.report is report and callable(report)
assert not {"matplotlib", "jinja2"} & set(sys.modules)
assert callable(ppl_vae.plots.history) and "matplotlib" in sys.modules
assert callable(ppl_vae.testing.check_prior)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def trained(objective: object, **arguments: object) -> FitResult:
    vae = VAE(
        StandardNormal(2),
        Conditional(MLP(8), Normal(3, scale=Shared()), given=2),
        Conditional(MLP(8), Normal(2), given=3),
    )
    x = torch.randn(60, 3)
    return fit(vae, x, objective=objective, epochs=3, seed=0, progress=False, **arguments)


def test_a_fit_prints_a_few_lines() -> None:
    result = trained(ELBO(), validation=0.2)
    said = repr(result)
    assert len(said.splitlines()) == 5 and max(map(len, said.splitlines())) <= 80
    assert "3 epochs" in said and "3 steps" in said
    assert f"elbo {result.history['elbo'][-1]:.2f}" in said
    history, state = result  # it is still the pair
    assert state is result.state and history is result.history

    adversary = repr(trained(Adversarial(critic=MLP(8)), validation=0.2))
    assert "critic_accuracy" in adversary and "best" not in adversary
    assert len(repr(trained(ELBO())).splitlines()) == 3
    assert "no epochs" in History().summary()


def test_the_best_epoch_is_that_of_the_highest_bound_or_the_lowest_loss() -> None:
    bounds = History([{"epoch": k, "validation_elbo": -1 - abs(k - 3.0)} for k in range(1, 6)])
    assert bounds.summary().endswith("held out: elbo -3.00\nbest held out: elbo -1.00 at epoch 3")
    losses = History([{"epoch": k, "validation_loss": abs(k - 2.0)} for k in range(1, 6)])
    assert losses.summary().endswith("held out: loss 3.00\nbest held out: loss 0.00 at epoch 2")


def test_evidence_prints_one_line() -> None:
    x, _ = WORLD.sample(40, seed=1)
    exact = repr(log_evidence(Program(WORLD.model, WORLD.guide), x, 50, seed=0))
    assert "\n" not in exact and len(exact) < 90
    assert "N=40" in exact and "S=50" in exact and exact.endswith("for 0%)")
    assert f"≥ {WORLD.log_evidence(x).mean():.3f} ± 0;" in exact
    found = log_evidence(Program(WORLD.model, WORLD.broken_guide(scale=0.2)), x, 50, seed=0)
    assert f"{np.mean(~found.quantified):.0%}" in repr(found) and not found.quantified.all()


def screen(monkeypatch: pytest.MonkeyPatch, width: int, terminal: bool = True) -> StringIO:
    """Stand in for the terminal."""
    file = StringIO()
    console = Console(width=width, force_terminal=terminal, color_system=None, file=file)
    monkeypatch.setattr("rich._console", console)
    return file


def lines(file: StringIO) -> list[str]:
    """What stood on the screen, one line for each time it was drawn."""
    shown = Text.from_ansi(file.getvalue().replace("\x1b[2K", "\n").replace("\r", "\n")).plain
    return [line.rstrip() for line in shown.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("width", "row", "shows"),
    [
        (80, ELBO_ROW, "epoch 100  ELBO -194.3  KL 10.08  val ELBO -196.6"),
        (120, ELBO_ROW, "epoch 100  ELBO -194.3  KL 10.08  val ELBO -196.6  recon -184.3  loss"),
        (60, ELBO_ROW, "epoch 100  ELBO -194.3"),
        (80, CRITIC_ROW, "epoch 7  recon -184.3  adv 0.69"),
        (120, CRITIC_ROW, "epoch 7  recon -184.3  adv 0.69  critic right 0.53  loss 185.0"),
    ],
)
def test_the_bar_shows_the_figures_that_the_screen_has_room_for(
    width: int, row: dict[str, float], shows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = screen(monkeypatch, width)
    label = "Adversarial" if "adversarial" in row else "ELBO"
    with progress_bar(True, 10, 0, label) as bar:
        for _ in range(4):
            bar.step()
        bar.epoch(row)
    last = lines(file)[-1]
    assert shows in last and len(last) <= width
    assert last.startswith(f"{label} ━━━") and " 40% " in last and "…" not in last


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    x, _ = WORLD.sample(30, seed=1)
    return diagnose(
        Program(WORLD.model, WORLD.guide), x, name="[/b] exact", num_samples=20, budget=0
    )


def test_a_report_shows_what_it_draws_and_leaves_the_screen_clean(
    found: Diagnosis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = screen(monkeypatch, 80)
    report(tmp_path / "r.html", found)
    shown = lines(file)
    assert any("[/b] exact: " in line for line in shown) and shown[-1].startswith("report ")
    assert " 100% " in shown[-1] and max(map(len, shown)) <= 80
    assert file.getvalue().endswith("\x1b[1A\x1b[2K")  # up a line, and erased

    for silent in (screen(monkeypatch, 80), screen(monkeypatch, 80, terminal=False)):
        report(tmp_path / "r.html", found, progress=False)
        assert silent.getvalue() == ""
    report(tmp_path / "r.html", found)  # no terminal: a bar nobody can see is not drawn
    assert silent.getvalue() == ""


def test_what_the_docstring_says_of_the_name_report_is_so() -> None:
    assert "from ppl_vae.report import reports" in (ppl_vae.__doc__ or "")
    exec("from ppl_vae.report import reports", {})
    with pytest.raises(ImportError):
        exec("import ppl_vae.report.words as w", {})
