"""Milliseconds per training step: this library, Pyro, torch by hand, NumPyro and the floor.

Every row is one model, one objective, batches of 128, Adam at 1e-3; every column trains it in
turn, round after round in a rotating order, and the median round counts. The time is that of
whole epochs, with everything that belongs to a step: shuffling, taking the batch, loss,
gradient, update, and for this library logging, the check that all is finite, and clipping.
The last figure is the share of an epoch of the large net that is not its steps: shuffling, taking
batches, sums, looks at Python's state.

"floor" is matrix products, log-prob and fused Adam alone, called from torch one by one; compiled
code, which has no calls between them, can be below it where they are small.

NumPyro (`pip install -e '.[bench]'`) is timed where it is installed, its epoch in one
`fori_loop`.

Usage: python benchmarks/step_time.py [--quick] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from record import record
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Adversarial,
    Bernoulli,
    Conditional,
    ImportanceWeighted,
    Normal,
    StandardNormal,
    VampPrior,
)
from ppl_vae.programs.inputs import program_batch
from ppl_vae.training.engine import Engine
from ppl_vae.training.inductor import why_not
from ppl_vae.training.loop import Loop
from ppl_vae.training.progress import Bar
from ppl_vae.training.step import TrainState
from ppl_vae.training.updater import Updater

SEED = 0
BATCH = 128
STEPS = 40  # of an epoch, whole batches only; fewer where a step is long
ADAM = (torch.optim.Adam, {"lr": 1e-3})
SMALL, LARGE = (64, 64, 8), (784, 400, 20)
PARTICLES, PSEUDO = 50, 500
Run = Callable[[], None]  # one epoch


class Net(nn.Module):
    """Encoder and decoder by hand."""

    def __init__(self, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        data, hidden, latent = sizes
        self.encoder = nn.Sequential(
            nn.Linear(data, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)
        )
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, data))

    def guide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Loc and scale of q(z|x)."""
        loc, raw = self.encoder(x).chunk(2, -1)
        return loc, softplus(raw) + 1e-3


def normal_log_prob(z: Tensor, loc: Tensor | float, scale: Tensor) -> Tensor:
    """log N(z; loc, scale²), summed over the last dim."""
    return (-0.5 * ((z - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def log_likelihood(net: Net, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z)."""
    logits = net.decoder(z)
    return -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)


def elbo_by_hand(net: Net, x: Tensor) -> Tensor:
    """Minus the ELBO with a sampled KL, as Trace_ELBO has it."""
    loc, scale = net.guide(x)
    z = loc + scale * torch.randn_like(scale)
    kl = normal_log_prob(z, loc, scale) - normal_log_prob(z, 0.0, torch.ones_like(scale))
    return (kl - log_likelihood(net, x, z)).sum()


def iwae_by_hand(net: Net, x: Tensor) -> Tensor:
    """Minus the importance-weighted bound."""
    loc, scale = net.guide(x)
    z = loc + scale * torch.randn(PARTICLES, *scale.shape)
    kl = normal_log_prob(z, loc, scale) - normal_log_prob(z, 0.0, torch.ones_like(scale))
    weights = log_likelihood(net, x, z) - kl
    return -(weights.logsumexp(0) - math.log(PARTICLES)).sum()


def vamp_by_hand(net: Net, x: Tensor, pseudo: Tensor) -> Tensor:
    """Minus the ELBO under a VampPrior, its component densities by matrix products as ours."""
    loc, scale = net.guide(x)
    z = loc + scale * torch.randn_like(scale)
    centre, spread = net.guide(pseudo)
    precision = spread**-2
    squares = z**2 @ precision.T - 2 * z @ (centre * precision).T + (centre**2 * precision).sum(-1)
    constant = spread.log().sum(-1) + 0.5 * z.shape[-1] * math.log(2 * math.pi)
    prior = (-0.5 * squares - constant).logsumexp(-1) - math.log(PSEUDO)
    return (normal_log_prob(z, loc, scale) - prior - log_likelihood(net, x, z)).sum()


def loop_of(program: VAE, objective: Any, x: Tensor, compiled: bool) -> Loop:
    """What `fit` runs."""
    batch = program_batch(program, x)
    state_of = objective.init(program, batch.take(torch.arange(BATCH)))
    phases = objective.phases(program, state_of)
    updaters = {
        p.name: Updater(ADAM if p.leaves is None else objective.critic_optimizer) for p in phases
    }
    state = TrainState(program, state_of, phases, updaters, clip_norm=1e6)
    engine = Engine(objective, compiled, 0)
    program.train()
    return Loop(state, objective, engine, batch, None, BATCH, None, torch.Generator())


def ours(program: VAE, objective: Any, x: Tensor, compiled: bool) -> Run:
    """An epoch of `fit`."""
    loop, bar = loop_of(program, objective, x, compiled), Bar(None, 0, 0, "")
    return lambda: loop.history.rows.append(loop._epoch(0, len(x) // BATCH, bar))


def beside_steps(sizes: tuple[int, int, int], epochs: int) -> float:
    """The share of an epoch of 50,000 rows that is not its steps."""
    loop = loop_of(build(sizes), ELBO(), drawn(sizes, 50_000), True)
    bar, shares = Bar(None, 0, 0, ""), []
    inner, spent = loop.engine.step, [0.0]

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        found = inner(*arguments)
        spent[0] += time.perf_counter() - start
        return found

    loop.engine.step = timed  # type: ignore[method-assign]
    for _ in range(epochs + 1):
        spent[0], start = 0.0, time.perf_counter()
        loop._epoch(0, len(loop.train.args[0]) // BATCH, bar)
        shares.append(1 - spent[0] / (time.perf_counter() - start))
    return statistics.median(shares[1:])


def by_hand(net: nn.Module, loss: Callable[[Tensor], Tensor], x: Tensor, compiled: bool) -> Run:
    """An epoch of the loop that everybody writes."""
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    if compiled:
        loss = torch.compile(loss)

    def epoch() -> None:
        total = 0.0
        for index in torch.randperm(len(x)).split(BATCH):
            adam.zero_grad()
            value = loss(x[index])
            value.backward()
            adam.step()
            total += value.item()

    return epoch


def adversary_by_hand(net: Net, latent: int, x: Tensor, compiled: bool) -> Run:
    """An epoch of the AAE by hand: generator, then critic."""
    critic = nn.Sequential(
        nn.Linear(latent, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
    )
    adams = [torch.optim.Adam(m.parameters(), lr=1e-3, fused=True) for m in (net, critic)]

    def generator(x: Tensor) -> Tensor:
        loc, scale = net.guide(x)
        z = loc + scale * torch.randn_like(scale)
        return 10 * softplus(-critic(z)).sum() - log_likelihood(net, x, z).sum()

    def discriminator(x: Tensor) -> Tensor:
        with torch.no_grad():
            loc, scale = net.guide(x)
            fake = loc + scale * torch.randn_like(scale)
        return softplus(-critic(torch.randn_like(fake))).sum() + softplus(critic(fake)).sum()

    losses = [torch.compile(f) if compiled else f for f in (generator, discriminator)]

    def epoch() -> None:
        total = 0.0
        for index in torch.randperm(len(x)).split(BATCH):
            batch = x[index]
            for loss, adam in zip(losses, adams, strict=True):
                for other in adams:
                    other.zero_grad()
                value = loss(batch)
                value.backward()
                adam.step()
                total += value.item()

    return epoch


def svi(program: VAE, loss: Any, x: Tensor) -> Run:
    """An epoch of Pyro's own loop."""
    stepper = SVI(program.model, program.guide, pyro.optim.Adam({"lr": 1e-3}), loss)

    def epoch() -> None:
        total = 0.0
        for index in torch.randperm(len(x)).split(BATCH):
            total += stepper.step(x[index])

    return epoch


def floor(sizes: tuple[int, int, int], x: Tensor) -> Run:
    """Matrix products, the likelihood's log-prob and its gradient, and fused Adam."""
    data, hidden, latent = sizes
    shapes = [(hidden, data), (2 * latent, hidden), (hidden, latent), (data, hidden)]
    weights = [nn.Parameter(torch.randn(s) / s[1] ** 0.5) for s in shapes]
    adam = torch.optim.Adam(weights, lr=1e-3, fused=True)
    inputs = [torch.randn(BATCH, s[1]) for s in shapes]
    outputs = [torch.randn(BATCH, s[0]) for s in shapes]
    logits = torch.randn(BATCH, data, requires_grad=True)

    def epoch() -> None:
        for _ in range(len(x) // BATCH):
            with torch.no_grad():
                for k, (w, into, out) in enumerate(zip(weights, inputs, outputs, strict=True)):
                    into @ w.T
                    w.grad = out.T @ into
                    if k:
                        out @ w
            loss = binary_cross_entropy_with_logits(logits, x[:BATCH], reduction="sum")
            torch.autograd.grad(loss, logits)
            adam.step()

    return epoch


def numpyro(sizes: tuple[int, int, int], x: Tensor) -> Run | None:
    """An epoch of NumPyro's SVI in one `fori_loop`; None where it is not installed."""
    try:
        import jax
        import jax.numpy as jnp
        import numpyro.distributions as dist
        from jax import lax, random
        from jax.example_libraries import stax
        from numpyro import module, optim, plate, sample
        from numpyro.infer import SVI as NumpyroSVI
        from numpyro.infer import Trace_ELBO as NumpyroELBO
    except ImportError:
        return None
    data, hidden, latent = sizes
    rows = jnp.asarray(x.numpy())
    encode = stax.serial(stax.Dense(hidden), stax.Relu, stax.Dense(2 * latent))
    decode = stax.serial(stax.Dense(hidden), stax.Relu, stax.Dense(data))

    def model(batch: Any) -> None:
        net = module("decoder", decode, (BATCH, latent))
        with plate("data", BATCH):
            z = sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
            sample("x", dist.Bernoulli(logits=net(z)).to_event(1), obs=batch)

    def guide(batch: Any) -> None:
        net = module("encoder", encode, (BATCH, data))
        loc, raw = jnp.split(net(batch), 2, axis=-1)
        with plate("data", BATCH):
            sample("z", dist.Normal(loc, jax.nn.softplus(raw) + 1e-3).to_event(1))

    stepper = NumpyroSVI(model, guide, optim.Adam(1e-3), NumpyroELBO())
    state = stepper.init(random.PRNGKey(0), rows[:BATCH])

    @jax.jit
    def epoch_of(state: Any, key: Any) -> Any:
        order = random.permutation(key, len(rows))

        def body(k: Any, carry: Any) -> Any:
            state, total = carry
            index = lax.dynamic_slice_in_dim(order, k * BATCH, BATCH)
            state, loss = stepper.update(state, rows[index])
            return state, total + loss

        return lax.fori_loop(0, len(rows) // BATCH, body, (state, 0.0))

    held = {"state": state, "key": random.PRNGKey(1)}

    def epoch() -> None:
        held["key"], key = random.split(held["key"])
        held["state"], total = epoch_of(held["state"], key)
        total.block_until_ready()

    return epoch


def build(sizes: tuple[int, int, int], pseudo: Tensor | None = None) -> VAE:
    """The same nets as a program."""
    data, hidden, latent = sizes
    encoder = Conditional(MLP(hidden), Normal(latent), given=data)
    prior = StandardNormal(latent) if pseudo is None else VampPrior(pseudo, encoder)
    return VAE(prior, Conditional(MLP(hidden), Bernoulli(data), given=latent), encoder)


def drawn(sizes: tuple[int, int, int], rows: int = STEPS * BATCH) -> Tensor:
    """Data with something to learn: on pure noise units die, and their momentum turns denormal."""
    data, hidden, latent = sizes
    with torch.no_grad():
        net = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, data))
        return torch.bernoulli((10 * net(2 * torch.randn(rows, latent)) - 1).sigmoid())


def contenders(row: str) -> dict[str, Run]:
    """Everything that trains the model of a row."""
    sizes = SMALL if row.startswith("64") else LARGE
    data, _, latent = sizes
    x = drawn(sizes, (8 if "IWAE" in row else STEPS) * BATCH)
    pseudo = x[:PSEUDO].clone() if "Vamp" in row else None
    objective: Any = {
        "IWAE": ImportanceWeighted(PARTICLES),
        "Adve": Adversarial(),
        "Vamp": ELBO(),
        "ELBO": ELBO(),
    }[row.split()[1][:4]]
    found: dict[str, Run | None] = {
        "ours compiled": ours(build(sizes, pseudo), objective, x, True),
        "ours eager": ours(build(sizes, pseudo), objective, x, False),
    }
    for name, compiled in (("torch by hand", False), ("torch by hand, compiled", True)):
        net = Net(sizes)
        if "Adv" in row:
            found[name] = adversary_by_hand(net, latent, x, compiled)
        elif pseudo is not None:
            inputs = nn.Parameter(pseudo.clone())
            net.register_parameter("pseudo", inputs)
            found[name] = by_hand(
                net, lambda b, n=net, u=inputs: vamp_by_hand(n, b, u), x, compiled
            )
        else:
            of = iwae_by_hand if "IWAE" in row else elbo_by_hand
            found[name] = by_hand(net, lambda b, n=net, f=of: f(n, b), x, compiled)
    if "Adv" not in row:
        loss = (
            RenyiELBO(alpha=0.0, num_particles=PARTICLES, vectorize_particles=True)
            if "IWAE" in row
            else Trace_ELBO()
        )
        found["Pyro SVI.step"] = svi(build(sizes, pseudo), loss, x)
    if row.endswith("ELBO"):
        found["NumPyro"] = numpyro(sizes, x)
        found["floor"] = floor(sizes, x)
    return {k: v for k, v in found.items() if v is not None}


def measure(runs: dict[str, Run], steps: int, rounds: int, budget: float) -> dict[str, float]:
    """Median milliseconds per step, each column in turn, in a rotating order."""
    repeats = {}
    for name, run in runs.items():
        run()  # compiles
        start = time.perf_counter()
        run()
        repeats[name] = max(1, round(budget / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = time.perf_counter()
            for _ in range(repeats[name]):
                runs[name]()
            times[name].append((time.perf_counter() - start) / repeats[name] / steps * 1e3)
    return {name: statistics.median(v) for name, v in times.items()}


def main() -> None:
    """Measure every row and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small net alone, briefly")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="rows whose name holds this")
    options = parser.parse_args()
    if (reason := why_not()) is not None:
        print(json.dumps({"script": "step_time", "skipped": reason}))
        return
    started = time.perf_counter()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    rows = ["64-64-8 ELBO"]
    if not options.quick:
        rows += ["64-64-8 Adversarial"]
        rows += [f"784-400-20 {o}" for o in ("ELBO", "IWAE-50", "VampPrior-500", "Adversarial")]
    table: dict[str, dict[str, float]] = {}
    for row in [r for r in rows if options.only in r]:
        pyro.clear_param_store()
        runs = contenders(row)
        if options.quick:
            runs.pop("torch by hand, compiled")
        steps = 8 if "IWAE" in row else STEPS
        rounds, budget = (3, 0.2) if options.quick else (9, 0.7)
        table[row] = measure(runs, steps, rounds, budget)
        ms = table[row]
        print(row, {k: round(v, 3) for k, v in ms.items()}, flush=True)
    ratios = {
        row: {
            f"ours / {k}": round(ms["ours compiled"] / v, 3)
            for k, v in ms.items()
            if "ours" not in k
        }
        | {"ours / ours eager": round(ms["ours compiled"] / ms["ours eager"], 3)}
        for row, ms in table.items()
    }
    rounded = {row: {k: round(v, 4) for k, v in ms.items()} for row, ms in table.items()}
    figures: dict[str, Any] = {"ms_per_step": rounded, "ratios": ratios}
    if not options.quick:
        figures["share_of_an_epoch_beside_its_steps"] = round(beside_steps(LARGE, 3), 4)
    figures["threads"] = options.threads
    record(__file__, figures, seed=SEED, started=started, quick=options.quick)


if __name__ == "__main__":
    main()
