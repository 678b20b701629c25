"""An amortised guide improved for given data, datum by datum."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Size, Tensor, nn
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import ReshapeTransform
from torch.nn.functional import softplus

from ppl_vae.data.batches import Batch
from ppl_vae.objectives import ELBO
from ppl_vae.posterior.draws import positive
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.refit import instead, no_fresh_guide
from ppl_vae.programs.inputs import COLUMNS, program_batch
from ppl_vae.programs.modes import drawing, frozen
from ppl_vae.programs.parts import support_of
from ppl_vae.programs.program import Program
from ppl_vae.programs.registration import register
from ppl_vae.programs.runs import functions, probe, rows_first, run_guide
from ppl_vae.programs.traces import NoDensityError, structure
from ppl_vae.training import History, fit

DRAWS = 64  # of the guide, to see where each datum's is and how wide
ONE = 0.5413248546129181  # softplus⁻¹(1)


class Refined(Program):
    """A program with the guide that `refine` improved; it is for the data it was improved for.

    Attributes:
        history: The steps: whether ``history["elbo"]`` has levelled off.
        source: The program whose guide it starts from.
    """

    history: History
    source: nn.Module
    rows: Batch

    def admit(self, batch: Batch, name: str) -> Batch:
        """Take the data of `refine`, each row with its number.

        Raises:
            ValueError: If they are other data.
        """
        if "_row" in batch.kwargs:  # it has been here
            return batch
        known = self.rows
        same = known.kwargs.keys() == batch.kwargs.keys() and all(
            a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())
            for a, b in zip(known.tensors, batch.tensors, strict=True)
        )
        if not same:
            raise ValueError(
                f"Got other data in {name} than the guide was refined for; expected the same "
                f"{known.rows} rows in the same order. Try refine(program, {name})."
            )
        index = torch.arange(batch.rows, device=batch.device)
        return Batch(batch.args, {**batch.kwargs, "_row": index})


@explained
def refine(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    steps: int = 500,
    num_particles: int = 1,
    learning_rate: float = 0.05,
    correlated: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Refined:
    """Improve q(z|x) for given data by local steps on the ELBO, from where it is (semi-amortised).

    Each datum's guide is moved by an affine map of its own on unconstrained space,
    z ↦ c + s (a + L (z − c)/s), where c and s are the mean and the standard deviation of q(z|x), a
    starts at 0 and the lower triangular L at the identity: the first step starts from the guide's
    own output, and a Gaussian guide may end with any mean and covariance. The amortisation gap
    (Cremer et al. 2018, arXiv:1801.03558) is what is gained. p(z) and p(x|z) stay as they are.

    Args:
        program: A `VAE` or `Program` with a guide that has a density.
        x: The data, all of which are in every step: some thousand rows at a time.
        steps: Gradient steps, the same for all data.
        num_particles: Draws of z per datum and step.
        learning_rate: Of Adam, in units of each guide's own standard deviations; it falls to zero
            along a cosine.
        correlated: Whether L has entries below its diagonal. Without them a guide of independent
            coordinates stays one: it is then the best of its family for these data.
        seed: Seeds the noise; torch's random state is left as found.
        progress: Show a progress bar.

    Returns:
        A program with the same model and the refined guide, for these data in this order.

    Raises:
        NoDensityError: If the guide has no density, or a latent is discrete or shared by all data.

    Example:
        >>> from ppl_vae import Program, log_weights
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0, dtype=torch.float32)
        >>> x, _ = world.sample(20, seed=1)
        >>> wide = Program(world.model, world.broken_guide(scale=2.0))
        >>> better = refine(wide, x, steps=100, progress=False)
        >>> gain = log_weights(better, x, 100, seed=0) - log_weights(wide, x, 100, seed=0)
        >>> bool(gain.mean() > 0.1)
        True
    """
    if isinstance(program, Refined):
        raise ValueError(
            "Got a program whose guide is refined already; expected one as it was trained. Try "
            "refine(program.source, x, steps=...) with more steps."
        )
    positive(steps=steps, num_particles=num_particles)
    batch = program_batch(program, x, name="x")
    found = structure(program, batch)
    model, _ = probe(program, batch)
    sites = {n: model.nodes[n]["fn"] for n in found.latents}
    discrete = [n for n, fn in sites.items() if not found.sampled_only and fn.support.is_discrete]
    if found.undefined is not None or discrete or found.nesting > 1 or found.dim != -1:
        fresh = no_fresh_guide(program, batch, found) is None
        remedy = "refit_guide(program, x), or a Normal guide" if fresh else instead(found)
        raise NoDensityError(
            "No guide can be refined here: "
            + (found.undefined or f"the latents {discrete or list(sites)} are discrete, or lie in ")
            + ("" if found.undefined else "nested plates")
            + ". Expected continuous latents inside the data plate alone, and a guide with a "
            f"density. Try {remedy}."
        )
    # The prior's: a guide that was pushed onto it need not know it as its own.
    frees = {n: _free(fn) for n, fn in sites.items()}
    moves = nn.ModuleList([_Move(*at, correlated) for at in _where(program, batch, frees)])
    model_of, guide_of = functions(program)

    def frozen_model(*args: Tensor, _row: Tensor, **kwargs: Tensor) -> Any:  # noqa: ANN401
        with frozen(program):
            return model_of(*args, **kwargs)

    def guide(*args: Tensor, _row: Tensor, **kwargs: Tensor) -> None:
        register(moves)
        at = {n: (*frees[n], move) for n, move in zip(sites, moves, strict=True)}
        with frozen(program), _Moved(at, _row):
            guide_of(*args, **kwargs)

    better = Refined(frozen_model, guide, modules=[moves, program], plate=found.plate)
    better.__dict__.update(source=program, rows=batch)
    better.__dict__[COLUMNS] = program.__dict__.get(COLUMNS, {})
    numbered = better.admit(batch, "x")
    better.history, _ = fit(
        better,
        numbered if batch.rows > 1 else numbered.take(torch.zeros(2, dtype=torch.long)),
        objective=ELBO(num_particles=num_particles),
        # A shorter memory of squares: one wild draw of the start would slow all that follows.
        optimizer=(torch.optim.Adam, {"lr": learning_rate, "betas": (0.9, 0.99)}),
        schedule=(torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": steps}),
        epochs=steps,
        batch_size=max(2, batch.rows),
        seed=seed,
        progress=progress,
        compile=False,
    )
    return better


class _Move(nn.Module):
    """An affine map for each row: the identity to begin with."""

    centre: Tensor
    spread: Tensor

    def __init__(self, centre: Tensor, spread: Tensor, correlated: bool) -> None:
        super().__init__()
        rows, size = centre.shape
        self.correlated = correlated
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)
        self.shift = nn.Parameter(torch.zeros_like(centre))
        self.raw = nn.Parameter(ONE * torch.eye(size).to(centre).expand(rows, -1, -1).clone())

    def forward(self, row: Tensor) -> Transform:
        centre, spread, raw = self.centre[row], self.spread[row], self.raw[row]
        diagonal = softplus(raw.diagonal(dim1=-2, dim2=-1))
        factor = torch.diag_embed(diagonal)
        if self.correlated:
            factor = factor + raw.tril(-1)
        return _Affine(centre, spread, self.shift[row], factor)


class _Affine(Transform):
    """z ↦ c + s (a + L (z − c)/s), L lower triangular."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, centre: Tensor, spread: Tensor, shift: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.centre, self.spread, self.shift, self.factor = centre, spread, shift, factor

    def detached(self) -> _Affine:
        return _Affine(self.centre, self.spread, self.shift.detach(), self.factor.detach())

    def _call(self, z: Tensor) -> Tensor:
        white = ((z - self.centre) / self.spread)[..., None]
        return self.centre + self.spread * (self.shift + (self.factor @ white)[..., 0])

    def _inverse(self, y: Tensor) -> Tensor:
        moved = ((y - self.centre) / self.spread - self.shift)[..., None]
        white = torch.linalg.solve_triangular(self.factor, moved, upper=False)[..., 0]
        return self.centre + self.spread * white

    def log_abs_det_jacobian(self, z: Tensor, y: Tensor) -> Tensor:
        log_det = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_det.expand(z.shape[:-1])


class _Moved(Messenger):
    """Moves the draws of a guide, each row by its own map."""

    def __init__(self, moves: dict[str, Any], row: Tensor) -> None:
        super().__init__()
        self.moves, self.row = moves, row

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.moves and not msg["is_observed"]:
            to_reals, flat, move = self.moves[msg["name"]]
            before, after = [to_reals.inv, flat], [flat.inv, to_reals]
            msg["fn"] = _Landed(msg["fn"], before, move(self.row), after)


class _Landed(dist.TransformedDistribution):
    """A moved distribution whose log q(z) depends on the map through z alone.

    The gradient of the ELBO stays unbiased, and its noise goes to zero as q nears the posterior
    (sticking the landing, Roeder et al. 2017, arXiv:1703.09194, eq. 6).
    """

    def __init__(
        self,
        base: Any,
        before: list[Transform],
        move: _Affine,
        after: list[Transform],  # noqa: ANN401
    ) -> None:
        super().__init__(base, [*before, move, *after], validate_args=False)
        self.parts = before, move, after

    @property
    def has_rsample(self) -> bool:
        """Draws follow the map, whether or not those of the guide follow anything."""
        return True

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            value = self.base_dist.sample(sample_shape)
        for transform in self.transforms:
            value = transform(value)
        return value

    def expand(self, batch_shape: Size, _instance: None = None) -> _Landed:
        before, move, after = self.parts
        shape = Size(batch_shape) + self.base_dist.batch_shape[len(self.batch_shape) :]
        return _Landed(self.base_dist.expand(shape), before, move, after)

    def log_prob(self, value: Tensor) -> Tensor:
        before, move, after = self.parts
        still = [*before, move.detached(), *after]
        moved = dist.TransformedDistribution(self.base_dist, still, validate_args=False)
        log_prob: Tensor = moved.log_prob(value)
        return log_prob


def _free(fn: Any) -> tuple[Transform, Transform]:  # noqa: ANN401
    """The map of the reals onto a support, and the one that makes a vector of an event."""
    to_reals = biject_to(support_of(fn))
    shape = to_reals.inverse_shape(Size(fn.event_shape))
    return to_reals, ReshapeTransform(shape, Size([shape.numel()]))


def _where(
    program: nn.Module, batch: Batch, frees: dict[str, tuple[Transform, Transform]]
) -> list[tuple[Tensor, Tensor]]:
    """Mean and standard deviation of the guide on unconstrained space, ``(N, K)`` each, by site."""
    drawn: dict[str, list[Tensor]] = {n: [] for n in frees}
    with drawing(program, seed=0):
        for _ in range(DRAWS):
            guide = run_guide(program, batch)
            for name, values in drawn.items():
                to_reals, flat = frees[name]
                values.append(flat(to_reals.inv(rows_first(guide.nodes[name], -1))))
    stacked = [torch.stack(v) for v in drawn.values()]
    return [(v.mean(0), v.std(0)) for v in stacked]
