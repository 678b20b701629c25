"""The laws of a program."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro.infer
import torch
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import ELBO, Objective, PyroELBO
from ppl_vae.posterior import posterior_predictive, prior_predictive
from ppl_vae.programs import NoDensityError, Structure, log_weights, structure
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.modes import device_of, evaluating, forked_rng
from ppl_vae.programs.runs import probe, rows_first, run
from ppl_vae.testing.laws import ConformanceError, Laws
from ppl_vae.testing.rows import check_rows
from ppl_vae.testing.training import check_training

PLATES = "plates and distributions whose shapes follow len(x)"


def check_program(
    program: nn.Module,
    x: Any,
    *,
    objective: Objective | pyro.infer.ELBO = ELBO(),  # noqa: B008
    seed: int = 0,
) -> tuple[str, ...]:
    """Check a program: a module with ``.model(x)`` and ``.guide(x)``, such as `VAE` or `Program`.

    The laws: model and guide share their "latents"; every parameter that the traces depend on is
    "registered" with Pyro, and "moves" within five steps of the objective (one that only the
    prior has is excused under `Adversarial`); a run leaves train and eval "modes" alone; "log
    weights" are finite and ``(S, N)``, or refused with `NoDensityError`; the "seed" decides the
    draws, and leaves the "random state" alone; in eval mode the terms of a row do not depend on
    the other "rows"; "predictive" draws have the shapes of the data, a batch of "one row" runs; a
    "deepcopy" draws the same and shares nothing (not asked of a `Program`, whose functions may
    hold anything); the "state_dict" can be pickled. Draws per datum are not asked of a program
    that picks rows itself, has no data plate, or sums out a latent that its guide lacks.

    Args:
        program: It is left as found, Pyro's parameter store included.
        x: Two rows of data or more, as `fit` takes them.
        objective: What it is trained by.
        seed: Of the draws and steps.

    Returns:
        The laws that apply; all of them are kept.

    Raises:
        ConformanceError: At the first law that is broken.
        ValueError: If x has fewer than two rows, or is no data for this program.

    Example:
        >>> from ppl_vae import MLP, VAE, Bernoulli, Conditional, Normal, StandardNormal
        >>> decoder = Conditional(MLP(8), Bernoulli(4), given=2)
        >>> encoder = Conditional(MLP(8), Normal(2), given=4)
        >>> vae = VAE(StandardNormal(2), decoder, encoder)
        >>> laws = check_program(vae, torch.ones(6, 4))
        >>> laws[:4]
        ('latents', 'registered', 'moves', 'modes')
    """
    laws = Laws(type(program).__name__)
    batch = program_batch(program, x, name="x")
    if batch.rows < 2:
        raise ValueError(
            "Got one row of data; expected two or more, to see whether rows leak into each other. "
            "Try x[:3]."
        )
    if isinstance(objective, pyro.infer.ELBO):
        objective = PyroELBO(objective)
    store = pyro.get_param_store()
    with store.scope(store.get_state()), forked_rng(device_of(program), seed), _kept(program):
        with laws.run("latents", "the same names in model and guide, and an observed site"):
            found = structure(program, batch)
        laws.keep("latents")
        check_training(laws, program, batch, objective)
        _check_modes(laws, program, batch)
        if found.subsample_size is None:
            _check_weights(laws, program, batch, found, seed)
        if found.subsample_size is None and found.plate and _draws_all(program, batch, found):
            _check_seed(laws, program, batch, seed)
            if not found.shared:
                check_rows(laws, program, batch, found)
            _check_draws(laws, program, batch, found, seed)
            if callable(getattr(type(program), "model", None)):
                _check_copy(laws, program, batch, objective)
        with laws.run("state_dict", "tensors only in parameters and buffers"):
            pickle.loads(pickle.dumps(program.state_dict()))
        laws.keep("state_dict")
    return laws.kept


@contextmanager
def _kept(program: nn.Module) -> Iterator[None]:
    """Give parameters, those of the store included, and buffers back as they were."""
    held = [*program.parameters(), *program.buffers(), *pyro.get_param_store()._params.values()]
    values = [t.detach().clone() for t in held]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(held, values, strict=True):
                tensor.copy_(value)


def _draws_all(program: nn.Module, batch: Batch, found: Structure) -> bool:
    _, guide = probe(program, batch)
    return all(n in guide.nodes for n in found.latents)


def _check_weights(
    laws: Laws, program: nn.Module, batch: Batch, found: Structure, seed: int
) -> None:
    law, attempt = "log weights", "a prior and a guide whose log_prob is finite at their draws"
    try:
        w = log_weights(program, batch, 3, seed=seed)
    except NoDensityError as error:
        laws.hold(law, found.undefined is not None, error, "log weights", attempt)
        return
    except Exception as error:
        laws.hold(law, False, f"{type(error).__name__} ({error})", "log weights", attempt)
        return
    got = f"shape {tuple(w.shape)}, finite: {bool(w.isfinite().all())}"
    good = w.shape == (3, batch.rows) and w.isfinite().all()
    laws.hold(law, good, got, f"shape {(3, batch.rows)}, finite: True", attempt)


def _check_modes(laws: Laws, program: nn.Module, batch: Batch) -> None:
    with evaluating(program), torch.no_grad():
        run(program, batch)
        moved = [n for n, part in program.named_modules() if part.training]
    got = f"{moved} back in train mode after a run in eval mode"
    laws.hold("modes", not moved, got, "modes left alone", "no .train() or .eval() inside")


def _check_seed(laws: Laws, program: nn.Module, batch: Batch, seed: int) -> None:
    before = _random_state()
    with laws.run("predictive", PLATES):
        draws, again = (posterior_predictive(program, batch, 3, seed=seed) for _ in range(2))
    pairs = [(part[n], again[k][n]) for k, part in enumerate(draws) for n in part]
    same = all(torch.equal(a, b) for a, b in pairs)
    attempt = "torch's random numbers, and no state kept between calls"
    laws.hold("seed", same, "other draws at the same seed", "equal ones", attempt)
    moved = [n for n, state in _random_state().items() if state != before[n]]
    laws.hold("random state", not moved, f"that of {moved} moved", "it untouched", attempt)


def _check_draws(laws: Laws, program: nn.Module, batch: Batch, found: Structure, seed: int) -> None:
    with laws.run("predictive", PLATES):
        draws = posterior_predictive(program, batch, 3, seed=seed)
        fresh = prior_predictive(program, 7, like=batch, seed=seed)
    model, _ = probe(program, batch)
    for name in found.observed:
        event = tuple(rows_first(model.nodes[name], found.dim).shape[1:])
        got = tuple(draws.data[name].shape), tuple(fresh.data[name].shape)
        expected = (3, batch.rows, *event), (7, *event)
        laws.hold("predictive", got == expected, f"{got} at {name!r}", expected, PLATES)
    with laws.run("one row", "no squeeze(), and norms that have an eval mode"):
        posterior_predictive(program, batch.take(torch.arange(1)), 1, seed=seed)
    laws.keep("one row")


def _random_state() -> dict[str, str]:
    """The states of the three generators, in a form that can be compared."""
    states = {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state(legacy=True)],
        "random": random.getstate(),
    }
    return {name: repr(state) for name, state in states.items()}


def _check_copy(laws: Laws, program: nn.Module, batch: Batch, objective: Objective) -> None:
    before = _drawn(program, batch)
    with laws.run("deepcopy", "no open files, generators or fixed names in the module"):
        other = copy.deepcopy(program)
        same = torch.equal(_drawn(other, batch), before)
    laws.hold("deepcopy", same, "other draws from the copy", "the same", "no state outside self")
    attempt = "names in Pyro's store, and modules, that belong to one program"
    try:
        check_training(Laws("the copy"), other, batch, objective)
    except ConformanceError as error:
        laws.hold("deepcopy", False, error, "a copy that trains as the original", attempt)
    same = torch.equal(_drawn(program, batch), before)
    got = "an original that changes as its copy is trained"
    laws.hold("deepcopy", same, got, "nothing shared", attempt)


def _drawn(program: nn.Module, batch: Batch) -> Tensor:
    draws = posterior_predictive(program, batch, 1, seed=0)
    return torch.cat([v.flatten().double() for part in draws for v in part.values()])
