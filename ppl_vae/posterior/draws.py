"""Draws from a program: z given x, x given z, and both from the prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn

from ppl_vae.data.batches import Batch, as_batch
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.log_weights import ROWS
from ppl_vae.programs.modes import drawing, dtype_of
from ppl_vae.programs.traces import Structure, probe, rows_first, run_guide, structure
from ppl_vae.programs.vae import VAE


class Draws(NamedTuple):
    """Joint draws, by site. Posterior draws are ``(S, N, *event)``, others ``(S, *event)``.

    Attributes:
        latents: z; those shared by all data (outside the plate) are drawn and left out.
        data: x drawn from p(x|z).
        means: E[x|z], where the distribution knows its mean.
    """

    latents: dict[str, Tensor]
    data: dict[str, Tensor]
    means: dict[str, Tensor]


def posterior_predictive(
    program: nn.Module,
    x: Any,
    num_samples: int,
    *,
    seed: int | None = None,  # noqa: ANN401
) -> Draws:
    """Draw z ~ q(z|x), then new data from p(x|z): shapes ``(S, N, *event)``.

    Args:
        program: A `VAE` or `Program`.
        x: The data to condition on.
        num_samples: Draws S per datum.
        seed: Fork torch's random state and start here.

    Raises:
        ValueError: If a discrete site of the model is summed out in training, so that the guide
            says nothing of it.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> draws = posterior_predictive(Program(world.model, world.guide), x, 10, seed=0)
        >>> draws.latents["z"].shape, draws.data["x"].shape
        (torch.Size([10, 3, 2]), torch.Size([10, 3, 5]))
    """
    batch = program_batch(program, x, name="x")
    found = _with_plate(program, batch)
    index = torch.arange(batch.rows).repeat(_positive(num_samples))
    pieces = []
    with drawing(program, seed):
        for rows in index.split(ROWS):
            piece = batch.take(rows.to(batch.tensors[0].device))
            guide = run_guide(program, piece)
            if lost := [n for n in found.latents if n not in guide.nodes]:
                raise ValueError(
                    f"The guide draws no {lost}, which training sums out; expected draws of every "
                    "latent. Try pyro.infer.infer_discrete for these sites."
                )
            free = poutine.uncondition(program.model)
            model = poutine.trace(poutine.replay(free, trace=guide)).get_trace(
                *piece.args, **piece.kwargs
            )
            pieces.append(_collect(model, found))
    return _shaped(pieces, (num_samples, batch.rows))


def prior_predictive(
    program: nn.Module,
    num_samples: int,
    *,
    like: Any,
    seed: int | None = None,  # noqa: ANN401
) -> Draws:
    """Draw z ~ p(z) and x ~ p(x|z) by running the model: shapes ``(S, *event)``.

    Args:
        program: A `VAE` or `Program`.
        num_samples: Draws S.
        like: Any data of the program's kind: a model runs on a batch. Only their shapes matter,
            unless the model takes covariates, whose rows are then used in turn.
        seed: Fork torch's random state and start here.
    """
    batch = program_batch(program, like, name="like")
    found = _with_plate(program, batch)
    index = torch.arange(_positive(num_samples)) % batch.rows
    pieces = []
    with drawing(program, seed):
        for rows in index.split(ROWS):
            piece = batch.take(rows.to(batch.tensors[0].device))
            free = poutine.uncondition(program.model)
            model = poutine.trace(free).get_trace(*piece.args, **piece.kwargs)
            pieces.append(_collect(model, found))
    return _shaped(pieces, (num_samples,))


def data_given(
    program: nn.Module,
    latents: Tensor | Mapping[str, Tensor],
    *,
    like: Any,  # noqa: ANN401
    seed: int | None = None,
) -> Draws:
    """Draw x ~ p(x|z) for given z: shapes ``(S, *event)``.

    Args:
        program: A `VAE` or `Program`.
        latents: ``(S, *event)``, by site where there are several.
        like: Any data of the program's kind, as in `prior_predictive`.
        seed: Fork torch's random state and start here.

    Raises:
        ValueError: If the sites are not the program's latents, or the data plate is not the
            innermost one.
    """
    batch = program_batch(program, like, name="like")
    found = _with_plate(program, batch)
    if not isinstance(latents, Mapping) and len(found.latents) == 1:
        latents = {found.latents[0]: latents}
    if not isinstance(latents, Mapping) or set(latents) != set(found.latents):
        got = sorted(latents) if isinstance(latents, Mapping) else type(latents).__name__
        raise ValueError(
            f"Got latents {got}; expected a tensor for each of {list(found.latents)}. "
            f"Try {{{found.latents[0]!r}: z}}."
        )
    latents = as_batch(
        dict(latents),
        dtype=dtype_of(program),
        device=batch.tensors[0].device,
        keep_tensors=not isinstance(program, VAE),
        name="latents",
    ).kwargs
    for name, value in latents.items():
        if not value.isfinite().all():
            raise ValueError(
                f"Got NaN or infinity in the latent {name!r}; expected finite numbers. "
                "Try leaving such rows out."
            )
    if found.dim != -1 and found.nesting > 1:
        raise ValueError(
            f"Got the data plate {found.plate!r} at dim {found.dim}; expected -1. Try "
            "pyro.plate(..., dim=-1) for the data and dim=-2 for the other plate."
        )
    count = len(next(iter(latents.values())))
    index = torch.arange(count) % batch.rows
    dims = dict.fromkeys(latents, 0)
    return _shaped(_model_at(program, batch, index, latents, dims, found, seed), (count,))


def data_at(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    latents: Mapping[str, Tensor],
    *,
    seed: int | None = None,
) -> Draws:
    """Draw new data at posterior draws ``(S, N, *event)``, such as those of `weighted_draws`.

    Args:
        program: A `VAE` or `Program`.
        x: The data of which `latents` are draws.
        latents: Draws by site.
        seed: Fork torch's random state and start here; not the seed of `latents`, or z and the
            noise of x are functions of the same numbers.
    """
    batch = program_batch(program, x, name="x")
    found = _with_plate(program, batch)
    model, _ = probe(program, batch)
    shape = next(iter(latents.values())).shape[:2]
    flat = {n: v.flatten(0, 1) for n, v in latents.items()}
    # Where `rows_first` took the rows from.
    dims = {n: v.dim() - len(model.nodes[n]["fn"].event_shape) + found.dim for n, v in flat.items()}
    index = torch.arange(batch.rows).repeat(shape[0])
    return _shaped(_model_at(program, batch, index, flat, dims, found, seed), tuple(shape))


def observed_values(program: nn.Module, x: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """Give what each observed site was given, ``(N, *event)``: not always one argument as it is.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them.
    """
    batch = program_batch(program, x, name="x")
    found = _with_plate(program, batch)
    model, _ = probe(program, batch)
    return {n: rows_first(model.nodes[n], found.dim) for n in found.observed}


def _model_at(
    program: nn.Module,
    batch: Batch,
    index: Tensor,
    latents: Mapping[str, Tensor],
    dims: Mapping[str, int],
    found: Structure,
    seed: int | None,
) -> list[Draws]:
    """Run the model with `latents`, rows in front, on the rows `index`; the plate is at `dims`."""
    pieces = []
    with drawing(program, seed):
        for at in torch.arange(len(index)).split(ROWS):
            piece = batch.take(index[at].to(batch.tensors[0].device))
            values = {n: v[at].movedim(0, dims[n]) for n, v in latents.items()}
            fixed = poutine.condition(poutine.uncondition(program.model), data=values)
            model = poutine.trace(fixed).get_trace(*piece.args, **piece.kwargs)
            pieces.append(_collect(model, found))
    return pieces


def _collect(model: Trace, found: Structure) -> Draws:
    means = {}
    for name in found.observed:
        site = model.nodes[name]
        try:
            means[name] = rows_first({**site, "value": site["fn"].mean}, found.dim)
        except NotImplementedError:
            continue
    return Draws(
        {n: rows_first(model.nodes[n], found.dim) for n in found.latents if n not in found.shared},
        {n: rows_first(model.nodes[n], found.dim) for n in found.observed},
        means,
    )


def _shaped(pieces: list[Draws], shape: tuple[int, ...]) -> Draws:
    def join(part: int) -> dict[str, Tensor]:
        names = pieces[0][part]
        joined = {n: torch.cat([p[part][n] for p in pieces]) for n in names}
        return {n: v.reshape(*shape, *v.shape[1:]) for n, v in joined.items()}

    return Draws(join(0), join(1), join(2))


def _with_plate(program: nn.Module, batch: Batch) -> Structure:
    found = structure(program, batch)
    if found.plate is None:
        raise ValueError(
            f"Draws per datum need a data plate: {found.undefined}. Try "
            'with pyro.plate("data", len(x)): around the latents and the data.'
        )
    return found


def _positive(num_samples: int) -> int:
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(
            f"Got num_samples={num_samples!r}; expected a positive integer. Try num_samples=100."
        )
    return num_samples
