"""A fresh guide for a fitted program, the model frozen."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn
from torch.distributions import biject_to

from ppl_vae.conditional import Conditional, Family, NetBuilder
from ppl_vae.data.batches import Batch
from ppl_vae.families import MultivariateNormal
from ppl_vae.nets import MLP, Features
from ppl_vae.objectives import ELBO
from ppl_vae.posterior.faults import explained
from ppl_vae.posterior.own_draws import own_draws, places_of
from ppl_vae.programs.inputs import COLUMNS, program_batch
from ppl_vae.programs.modes import forked_rng, frozen
from ppl_vae.programs.parts import support_of
from ppl_vae.programs.program import Program
from ppl_vae.programs.registration import register
from ppl_vae.programs.runs import functions, probe
from ppl_vae.programs.traces import HEAD, NoDensityError, Structure, structure
from ppl_vae.programs.vae import family_of
from ppl_vae.training import History, fit

OWN_DRAWS, OWN_EPOCHS = 4096, 10  # of the model, shown to the guide before the ELBO
FEW = 100  # draws that tell too little
FAR, HUGE = 100, 1e6  # draws of heavy tails overflow: times the largest datum; of z
SMALL = 30  # counts up to here go into a network as they are


class Refitted(Program):
    """A program with the guide that `refit_guide` fitted.

    Attributes:
        history: The training of that guide: whether ``history["elbo"]`` has levelled off.
        source: The program whose guide it replaces, and whose data it takes.
    """

    history: History
    source: nn.Module


@explained
def refit_guide(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    *,
    net: NetBuilder | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> Refitted:
    """Freeze p(z) and p(x|z), and fit a fresh q(z|x) with full covariance to x by the ELBO.

    The same fresh guide for every program is how their evidences are compared: an adversarial
    autoencoder's own encoder was never trained towards p(z|x). All latents get one joint
    Gaussian on unconstrained space, its loc and covariance given by a network of x. It starts
    from draws of the model itself, whose z is known: the ELBO alone does not leave a wrong mode,
    and the evidence is then too low by tens of nats, with a small standard error. Fitting it
    to the very x it is used on is legitimate: any q gives a lower bound on log p(x).

    Args:
        program: A `VAE` or `Program`, of any guide or none worth the name.
        x: The data whose posterior is wanted.
        net: Builder of the guide's network. Without one it is two layers of 256, which see x as
            it is where its cells are numbers up to 30, and else its `Features`: large counts as
            logarithms, classes one-hot.
        epochs: Passes over x.
        batch_size: Rows per step.
        learning_rate: Start of a rate that falls to zero along a cosine.
        seed: Seeds start values, noise and batches; torch's random state is left as found.
        progress: Show a progress bar.

    Returns:
        A program with the same model, θ bit-equal, and the new guide; its attribute `history` is
        the record of the fit.

    Raises:
        NoDensityError: If the prior has no density, or a latent is discrete or shared by all data.

    Example:
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(1, 3, seed=0, dtype=torch.float32)
        >>> x, _ = world.sample(64, seed=1)
        >>> fresh = refit_guide(
        ...     Program(world.model, world.broken_guide(scale=3.0)), x, epochs=2, progress=False
        ... )
        >>> len(fresh.history)
        2
    """
    batch = program_batch(program, x, name="x")
    found = structure(program, batch)
    if (reason := no_fresh_guide(program, batch, found)) is not None:
        raise NoDensityError(
            f"No guide can be fitted here: {reason}. Expected continuous latents inside the data "
            "plate alone, under a prior with a density. Try "
            f"{instead(found)}."
        )
    model, _ = probe(program, batch)
    sites = [model.nodes[n] for n in found.latents]
    covariates = batch.tensors
    transforms = [biject_to(support_of(s["fn"])) for s in sites]
    shapes = [
        t.inverse_shape(Size(s["fn"].event_shape)) for t, s in zip(transforms, sites, strict=True)
    ]
    sizes = [s.numel() for s in shapes]
    latent = sites[0]["value"]
    with forked_rng(latent.device, seed):
        encoder = Conditional(
            _usual_net(program, batch) if net is None else net,
            MultivariateNormal(sum(sizes)),
            given=[tuple(c.shape[1:]) for c in covariates],
        ).to(latent)
    _learn_own_draws(program, batch, found, encoder, transforms, batch_size, learning_rate, seed)
    model_of, _ = functions(program)

    def frozen_model(*args: Tensor, **kwargs: Tensor) -> Any:  # noqa: ANN401
        with frozen(program):
            return model_of(*args, **kwargs)

    def guide(*args: Tensor, **kwargs: Tensor) -> None:
        if kwargs.keys() != batch.kwargs.keys() or len(args) != len(batch.args):
            kind = "with" if len(kwargs) > len(batch.kwargs) else "without"
            raise ValueError(
                f"Got data {kind} missing cells for a guide that was refitted to the other kind; "
                "expected the same. Try refit_guide on data of this kind."
            )
        register(encoder)
        data = (*args, *(kwargs[name] for name in batch.kwargs))  # in the order of the fit
        joint = encoder(*(c.to(latent) for c in data))
        with pyro.plate(found.plate, len(data[0]), dim=found.dim):
            _sample_joint(joint, found.latents, shapes, transforms)

    fresh = Refitted(frozen_model, guide, modules=[encoder, program], plate=found.plate)
    steps = torch.optim.lr_scheduler.CosineAnnealingLR
    fresh.__dict__["source"] = program  # among its modules already
    fresh.__dict__[COLUMNS] = program.__dict__.get(COLUMNS, {})
    fresh.history, _ = fit(
        fresh,
        batch,
        objective=ELBO(),
        optimizer=(torch.optim.Adam, {"lr": learning_rate}),
        schedule=(steps, {"T_max": epochs}),
        epochs=epochs,
        batch_size=batch_size,
        clip_norm=100.0,
        seed=seed,
        progress=progress,
    )
    return fresh


def no_fresh_guide(program: nn.Module, batch: Batch, found: Structure) -> str | None:
    """Say why `refit_guide` fits none to a program; None where it does."""
    if found.plate is None:
        return found.undefined
    if found.shared:
        return f"the latents {list(found.shared)} are shared by all data"
    if found.sampled_priors:
        return f"the prior of {found.sampled_priors[0]!r} can only be drawn from"
    head = torch.arange(min(batch.rows, HEAD), device=batch.device)
    model, _ = probe(program, batch.take(head))
    if discrete := [n for n in found.latents if model.nodes[n]["fn"].support.is_discrete]:
        return f"the latents {discrete} are discrete"
    return "the latents lie in nested plates" if found.nesting > 1 else None


def instead(found: Structure) -> str:
    """Say what to try where no fresh guide can be fitted."""
    if found.sampled_priors:
        return "a prior with a density, such as GaussianMixture or FlowPrior"
    return "training the program's own guide for its posterior, by ELBO() or TraceEnum_ELBO()"


def _usual_net(program: nn.Module, batch: Batch) -> NetBuilder:
    net, family = MLP(256, 256), family_of(program)
    if family is None or (family.level == "numeric" and _largest(family) <= SMALL):
        return net
    return Features(net, family, mask="mask" in batch.kwargs)


def _largest(family: Family) -> float:
    """The largest cell that can occur."""
    return float(getattr(family.support, "upper_bound", math.inf))


def _learn_own_draws(
    program: nn.Module,
    batch: Batch,
    found: Structure,
    encoder: Conditional,
    transforms: list[torch.distributions.Transform],
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Maximise E_p(z, x)[log q(z|x)]: mass wherever the posterior has some, in every mode.

    The sleep phase of Hinton et al. 1995 (The wake-sleep algorithm). Nothing is done where x is
    not passed to the model as it is observed, so that draws of it cannot be passed in its place.
    """
    try:
        places_of(program, batch)
    except ValueError as error:
        _warn_of_draws(str(error))
        return
    own = own_draws(program, batch, OWN_DRAWS, seed=seed)
    inputs = list(own.batch.tensors)
    flat = [t.inv(own.latents[n]) for n, t in zip(found.latents, transforms, strict=True)]
    z = torch.cat([v.reshape(OWN_DRAWS, -1) for v in flat], dim=-1)
    pairs = zip(inputs, batch.tensors, strict=True)
    near = [v.to(z).abs() <= FAR * max(1.0, float(c.to(z).abs().max())) for v, c in pairs]
    kept = torch.stack([k.reshape(OWN_DRAWS, -1).all(1) for k in (*near, z.abs() < HUGE)]).all(0)
    inputs, z = [v[kept] for v in inputs], z[kept]
    if len(z) < FEW:
        _warn_of_draws(
            f"Got {len(z)} of {OWN_DRAWS} draws of the model near the data; expected {FEW} or "
            "more. Try a longer fit of the program, or data scaled as those of training."
        )
        return
    size = min(batch_size, len(z))
    adam = torch.optim.Adam(encoder.parameters(), lr=learning_rate)
    order = torch.Generator().manual_seed(seed)
    for _ in range(OWN_EPOCHS):
        for rows in torch.randperm(len(z), generator=order).split(size)[: len(z) // size]:
            loss = -encoder(*(c[rows].to(z) for c in inputs)).log_prob(z[rows]).mean()
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 100.0)
            adam.step()
    adam.zero_grad()


def _warn_of_draws(cause: str) -> None:
    warnings.warn(
        f"The fresh guide starts without draws of the model, which show it all modes. {cause}",
        stacklevel=6,
    )


def _sample_joint(
    joint: dist.MultivariateNormal,
    names: tuple[str, ...],
    shapes: list[Size],
    transforms: list[torch.distributions.Transform],
) -> None:
    """Draw the blocks of one Gaussian in turn: z_k | z_<k from its Cholesky factor."""
    loc, factor = joint.loc, joint.scale_tril
    noise = loc.new_zeros(*loc.shape[:-1], 0)
    start = 0
    for name, shape, transform in zip(names, shapes, transforms, strict=True):
        stop = start + shape.numel()
        given = loc[..., start:stop] + (factor[..., start:stop, :start] @ noise[..., None])[..., 0]
        block = factor[..., start:stop, start:stop]
        q: Any = dist.MultivariateNormal(given, scale_tril=block)
        reshape = torch.distributions.transforms.ReshapeTransform(Size([shape.numel()]), shape)
        steps = [
            t
            for t, idle in ((reshape, len(shape) == 1), (transform, _identity(transform)))
            if not idle
        ]
        value = pyro.sample(name, dist.TransformedDistribution(q, steps) if steps else q)
        flat = transform.inv(value).reshape(*given.shape)
        white = torch.linalg.solve_triangular(block, (flat - given)[..., None], upper=False)
        noise = torch.cat([noise, white[..., 0]], dim=-1)
        start = stop


def _identity(transform: torch.distributions.Transform) -> bool:
    inner = getattr(transform, "base_transform", transform)
    return inner == torch.distributions.transforms.identity_transform
