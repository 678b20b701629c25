"""Annealed importance sampling: the evidence without a guide, from below and from above."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.diagnostics.log_mean import log_mean
from ppl_vae.posterior.draws import as_array, prior_predictive
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.own_draws import own_draws
from ppl_vae.posterior.unconstrained import Unconstrained
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.modes import forked_rng, frozen

Floats = NDArray[np.float64]

ACCEPTANCE = 0.65
"""What step sizes are tuned to, in the pilot run: Wu et al. 2017."""

SPAN = 4.0
"""Temperatures are β = σ(t), t from −4 to 4, scaled to run from 0 to 1: dense at both ends."""


class AIS(NamedTuple):
    """Evidence by annealed importance sampling; arrays are ``(N,)``, in nats.

    Attributes:
        log_evidence: log p̂(x) = log mean of the weights of all chains: on average below log p(x).
        se: Its Monte-Carlo standard error, over chains.
        log_weights: ``(C, N)``, one a chain.
        acceptance: Share of the proposals that were accepted, by datum.
        step_size: Of the leapfrog steps at β = 1, from the pilot run.
        temperatures: How many steps from p(z) to p(z|x).
        num_chains: C.
    """

    log_evidence: Floats
    se: Floats
    log_weights: Floats
    acceptance: Floats
    step_size: Floats
    temperatures: int
    num_chains: int

    def __repr__(self) -> str:
        return (
            f"AIS(N={len(self.se)}, {self.num_chains} chains, {self.temperatures} temperatures; "
            f"mean log p(x) ≥ {self.log_evidence.mean():.3f} ± "
            f"{np.sqrt((self.se**2).sum()) / len(self.se):.2g}; "
            f"{self.acceptance.mean():.0%} accepted)"
        )


class Sandwich(NamedTuple):
    """Both bounds of the evidence of data that the program simulated; arrays are ``(N,)``.

    Attributes:
        lower: Forward, from z ~ p(z) to p(z|x): on average below log p(x).
        upper: Backward, from the z that generated x: on average above it.
        gap: mean of upper − lower, in nats per datum: what the forward run may be short of.
        gap_se: Its standard error over the data.
    """

    lower: Floats
    upper: Floats
    gap: float
    gap_se: float

    def __repr__(self) -> str:
        return (
            f"Sandwich(N={len(self.lower)}; log p(x) between {self.lower.mean():.3f} and "
            f"{self.upper.mean():.3f}, apart by {self.gap:.3f} ± {self.gap_se:.2g})"
        )


@explained
def ais(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    temperatures: int = 500,
    num_chains: int = 16,
    leapfrog: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> AIS:
    r"""Estimate log p(x) of every datum from p(z) alone: no guide can mislead it.

    Chains start at z ~ p(z) and pass through p(z) p(x|z)^β, β from 0 to 1, by Hamiltonian steps on
    unconstrained space; the weight of a chain is Π_k p(x|z_k)^{β_{k+1} − β_k}, whose mean is p(x):
    *Annealed importance sampling* (Neal, 2001), of decoders as in *On the Quantitative Analysis of
    Decoder-Based Generative Models* (Wu et al., 2017, arXiv:1611.04273). So log p̂(x) is on average
    a lower bound, tight once there are temperatures enough: `ais_sandwich` says how many. Step
    sizes come from a pilot run of a fifth of the temperatures and stay fixed: what adapts to its
    own draws is no bound.

    Args:
        program: A `VAE` or `Program`, of any guide.
        x: Data as `fit` takes them: some hundred rows, for it is slow.
        temperatures: Steps K from the prior to the posterior.
        num_chains: Chains C for each datum.
        leapfrog: Gradient steps of a proposal.
        seed: Of all draws; torch's random state is left as found.
        progress: Show a progress bar.

    Raises:
        NoDensityError: If the prior has no density, or a latent is discrete or shared by all data.
        ValueError: If a count is not a positive integer.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> found = ais(Program(world.model, world.guide), x, temperatures=50, progress=False)
        >>> bool((abs(found.log_evidence - world.log_evidence(x).numpy()) < 5 * found.se).all())
        True
    """
    batch = program_batch(program, x, name="x")
    _check(temperatures=temperatures, num_chains=num_chains, leapfrog=leapfrog)
    chains = _Chains(program, batch, temperatures, num_chains, leapfrog, progress)
    with forked_rng(batch.device, seed), frozen(program), pyro.validation_enabled(False):
        log_w, acceptance = chains.forward()
    found = log_mean(log_w)
    return AIS(
        found.value,
        found.se,
        log_w,
        acceptance,
        as_array(chains.steps[-1]),
        temperatures,
        num_chains,
    )


@explained
def ais_sandwich(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    num_data: int = 50,
    temperatures: int = 500,
    num_chains: int = 16,
    leapfrog: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Sandwich:
    """Bound log p(x) of simulated data from both sides: are the temperatures enough?

    Of x ~ p(x|z), z ~ p(z), the z that made it is an exact draw of p(z|x). Chains that run back
    from it to the prior have weights whose mean is 1 / p(x), so that −log of their mean is on
    average an upper bound: bidirectional Monte Carlo (Grosse et al., 2015, arXiv:1511.02543). The
    gap holds for data like those that the program makes; real x may need more temperatures.

    Args:
        program: A `VAE` or `Program`.
        x: Data of its kind, whose covariates and missing cells the simulated data have.
        num_data: Data to simulate.
        temperatures: As in `ais`.
        num_chains: As in `ais`.
        leapfrog: As in `ais`.
        seed: Of all draws; torch's random state is left as found.
        progress: Show progress bars.

    Raises:
        NoDensityError: As `ais`.
        ValueError: As `ais`, or where x is not given to the model as it is observed.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> program = Program(world.model, world.guide)
        >>> ais_sandwich(program, x, num_data=10, temperatures=100, progress=False).gap < 0.5
        True
    """
    _check(temperatures=temperatures, num_chains=num_chains, leapfrog=leapfrog, num_data=num_data)
    own = own_draws(program, x, num_data, seed=seed)
    batch = own.batch
    chains = _Chains(program, batch, temperatures, num_chains, leapfrog, progress)
    with forked_rng(batch.device, seed), frozen(program), pyro.validation_enabled(False):
        below, _ = chains.forward()
        above = chains.backward(own.latents)
    lower, upper = log_mean(below).value, -log_mean(above).value
    gap = upper - lower
    return Sandwich(lower, upper, float(gap.mean()), float(gap.std(ddof=1) / len(gap) ** 0.5))


def _check(**counts: int) -> None:
    for name, value in counts.items():
        least = 2 if name in ("num_chains", "num_data") else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(
                f"Got {name}={value!r}; expected an integer of {least} or more. Try {name}=16."
            )


class _Chains:
    """C chains for each of N data, side by side: rows are chain by chain."""

    def __init__(
        self,
        program: nn.Module,
        batch: Batch,
        temperatures: int,
        num_chains: int,
        leapfrog: int,
        progress: bool,
    ) -> None:
        self.program, self.progress = program, progress
        self.space = Unconstrained(program, batch)
        self.rows, self.count, self.leapfrog = batch.rows, num_chains, leapfrog
        self.batch = batch.take(torch.arange(batch.rows, device=batch.device).repeat(num_chains))
        ladder = torch.linspace(-SPAN, SPAN, temperatures + 1, dtype=torch.float64).sigmoid()
        self.ladder = ((ladder - ladder[0]) / (ladder[-1] - ladder[0])).tolist()
        self.steps = torch.empty(0)

    def forward(self) -> tuple[Floats, Floats]:
        """Run from the prior: log weights ``(C, N)`` and the share accepted ``(N,)``."""
        self._pilot()
        u = self._start()
        log_w = u.new_zeros(len(u), dtype=torch.float64)
        accepted = u.new_zeros(self.rows)
        moves = list(zip(self.ladder[:-1], self.ladder[1:], self.steps, strict=True))
        for low, high, step in self._tracked(moves, "AIS"):
            likelihood = self._likelihood(u)
            log_w += (high - low) * likelihood.double()
            u, accept = self._move(u, high, step)
            accepted += accept
        shape = (self.count, self.rows)
        share = as_array(accepted / len(moves))
        return log_w.reshape(shape).cpu().numpy(), share

    def backward(self, latents: dict[str, Tensor]) -> Floats:
        """Run from z ~ p(z|x) back to the prior: log weights of 1 / p(x), ``(C, N)``."""
        u = self.space.inverse(latents).repeat(self.count, 1)
        log_w = u.new_zeros(len(u), dtype=torch.float64)
        moves = list(zip(self.ladder[:-1], self.ladder[1:], self.steps, strict=True))
        for low, high, step in self._tracked(moves[::-1], "AIS, back"):
            u, _ = self._move(u, high, step)
            log_w -= (high - low) * self._likelihood(u).double()
        return log_w.reshape(self.count, self.rows).cpu().numpy()

    def _tracked(self, moves: list[Any], name: str) -> Any:  # noqa: ANN401
        from rich.progress import track  # importing it draws from Python's random numbers

        return track(moves, description=name, disable=not self.progress, transient=True)

    def _start(self) -> Tensor:
        """u of z ~ p(z), for the rows' own covariates."""
        seed = int(torch.randint(2**31, ()))
        drawn = prior_predictive(self.program, self.batch.rows, like=self.batch, seed=seed)
        return self.space.inverse({n: drawn.latents[n] for n in self.space.free})

    def _likelihood(self, u: Tensor) -> Tensor:
        with torch.no_grad():
            return self.space.scores(u, self.batch).log_likelihood

    def _pilot(self) -> None:
        """Find a step size for each datum at each temperature, so that ACCEPTANCE are accepted."""
        count = len(self.ladder) - 1
        every = max(1, min(5, count // 20))
        u = self._start()
        log_step = u.new_full((self.rows,), -1.0)
        found = []
        for k in range(1, count + 1, every):
            for gain in 3 * (0.5, 0.25) if k == 1 else (0.25,):
                u, accept = self._move(u, self.ladder[k], log_step.exp())
                log_step = log_step + gain * (accept - ACCEPTANCE)
            found.append(log_step)
        # The mean of three neighbours, on a line between those that were visited.
        series = torch.stack(found)
        padded = torch.cat([series[:1], series, series[-1:]])
        smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
        place = (torch.arange(1, count + 1, device=u.device) - 1) / every
        left = place.floor().long().clamp(max=len(found) - 1)
        right = (left + 1).clamp(max=len(found) - 1)
        part = (place - left).to(u)[:, None]
        self.steps = (smooth[left] * (1 - part) + smooth[right] * part).exp()

    def _move(self, u: Tensor, beta: float, step: Tensor) -> tuple[Tensor, Tensor]:
        """One Hamiltonian step that leaves p(z) p(x|z)^β as it is; the share accepted ``(N,)``."""
        size = step.repeat(self.count)[:, None]
        momentum = torch.randn_like(u)
        energy, gradient = self._energy(u, beta)
        start = energy + momentum.square().sum(-1) / 2
        v, p = u, momentum
        for _ in range(self.leapfrog):
            p = p - size / 2 * gradient
            v = v + size * p
            new, gradient = self._energy(v, beta)
            p = p - size / 2 * gradient
        drop = start - new - p.square().sum(-1) / 2
        accept = drop.exp().clamp(max=1).nan_to_num()
        taken = torch.rand_like(accept) < accept
        moved = torch.where(taken[:, None], v, u)
        return moved, accept.reshape(self.count, self.rows).mean(0)

    def _energy(self, u: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = u.detach().requires_grad_()
            scores = self.space.scores(leaf, self.batch)
            energy = -(scores.log_prior + beta * scores.log_likelihood)
            (gradient,) = torch.autograd.grad(energy.sum(), leaf)
        return energy.detach(), gradient
