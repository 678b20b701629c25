"""The core: log w = log p(x, z) − log q(z|x) for every datum and draw, of any program."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from pyro.poutine import Trace
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from ppl_vae.data.batches import Batch
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.modes import drawing
from ppl_vae.programs.runs import Site, probe, row_dims, rows_first, run
from ppl_vae.programs.traces import (
    NoDensityError,
    Structure,
    refuse_subsampling,
    structure,
)

ROWS = 4096


class WeightedDraws(NamedTuple):
    """Draws z ~ q(z|x) with their log weights: everything about a posterior is read from these.

    Attributes:
        log_weights: log p(x, z) − log q(z|x), ``(S, N)``, nats per datum.
        log_likelihood: log p(x|z), ``(S, N)``; None where discrete sites were summed out.
        latents: Draws by site, ``(S, N, *event)``, constrained as the program has them.
        log_guide: log q(z|x), ``(S, N)``; None with `log_likelihood`. What is left of the three is
            log p(z).
    """

    log_weights: Tensor
    log_likelihood: Tensor | None
    latents: dict[str, Tensor]
    log_guide: Tensor | None = None


def log_weights(
    program: nn.Module,
    x: Any,
    num_samples: int,
    *,
    seed: int | None = None,
    rows: int = ROWS,  # noqa: ANN401
) -> Tensor:
    """Give log w = log p(x, z) − log q(z|x), z ~ q(z|x): shape ``(S, N)``, nats per datum.

    Their mean over draws is the ELBO of each datum, the log of the mean of their exponentials
    estimates log p(x). With the exact posterior as guide every weight equals log p(x).
    Scales (β, subsampling) are dropped, masks kept; discrete sites marked for enumeration are
    summed out. See `weighted_draws` for the arguments.

    Example:
        >>> from ppl_vae.data import LinearGaussian
        >>> from ppl_vae import Program
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> w = log_weights(Program(world.model, world.guide), x, 10)
        >>> bool((w - world.log_evidence(x)).abs().max() < 1e-9)
        True
    """
    return _draw(program, x, num_samples, seed, rows, keep=False).log_weights


def weighted_draws(
    program: nn.Module,
    x: Any,
    num_samples: int,
    *,
    seed: int | None = None,
    rows: int = ROWS,  # noqa: ANN401
) -> WeightedDraws:
    """Draw z ~ q(z|x) with log weights, in eval mode and without gradients.

    Rows of the data are repeated through the unmodified program, so whatever runs on a batch
    runs here. Memory is that of one run on `rows` rows, plus the result.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them.
        num_samples: Draws S per datum.
        seed: Fork torch's random state and start here; None draws from the global stream.
        rows: Rows of one run. Part of what a seed means: another number gives other draws.

    Raises:
        NoDensityError: Where there are no weights: a point (Delta) or implicit guide, a prior
            that can only be sampled, a latent outside the data plate.
        ValueError: If the data do not fit, or `num_samples` or `rows` is not a positive integer.
    """
    return _draw(program, x, num_samples, seed, rows, keep=True)


def _draw(
    program: nn.Module, x: Any, num_samples: int, seed: int | None, rows: int, *, keep: bool
) -> WeightedDraws:
    for name, value in {"num_samples": num_samples, "rows": rows}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Got {name}={value!r}; expected a positive integer. Try {name}=500.")
    batch = program_batch(program, x, name="x")
    found = scored(program, batch)
    index = torch.arange(batch.rows, device=batch.device)
    blocks = index.repeat(num_samples).split(rows)
    with drawing(program, seed):
        pieces = [_block(program, batch.take(block), found, keep) for block in blocks]

    def join(parts: list[Tensor]) -> Tensor:
        joined = torch.cat(parts)
        return joined.reshape(num_samples, batch.rows, *joined.shape[1:])

    likelihoods = [p.log_likelihood for p in pieces if p.log_likelihood is not None]
    guides = [p.log_guide for p in pieces if p.log_guide is not None]
    return WeightedDraws(
        join([p.log_weights for p in pieces]),
        join(likelihoods) if likelihoods else None,
        {n: join([p.latents[n] for p in pieces]) for n in pieces[0].latents},
        join(guides) if guides else None,
    )


def weighted_at(
    program: nn.Module,
    x: Any,  # noqa: ANN401
    latents: Mapping[str, Tensor],
    *,
    rows: int = ROWS,
) -> WeightedDraws:
    """Score given z as draws of the guide are: log w, log p(x|z) and log q(z|x), ``(S, N)``.

    Args:
        program: A `VAE` or `Program`.
        x: Data as `fit` takes them.
        latents: By site, ``(S, N, *event)``, as `weighted_draws` gives them.
        rows: Rows of one run.

    Raises:
        NoDensityError: As `weighted_draws`, and where discrete sites are summed out: then no z is
            all of what is latent.

    Example:
        >>> from ppl_vae import Program
        >>> from ppl_vae.data import LinearGaussian
        >>> world = LinearGaussian.random(2, 5, seed=0)
        >>> x, _ = world.sample(3, seed=1)
        >>> program = Program(world.model, world.guide)
        >>> draws = weighted_draws(program, x, 10)
        >>> again = weighted_at(program, x, draws.latents)
        >>> torch.allclose(again.log_guide, draws.log_guide)
        True
    """
    batch = program_batch(program, x, name="x")
    found = scored(program, batch)
    if found.enumerated:
        raise NoDensityError(
            f"There is no log q(z|x) of given latents here: {list(found.enumerated)} are summed "
            "out. Expected all latents to be drawn. Try log_weights."
        )
    model, _ = probe(program, batch)
    shape = next(iter(latents.values())).shape[:2]
    flat = {n: v.flatten(0, 1) for n, v in latents.items()}
    dims = row_dims(flat, model, found.dim)
    index = torch.arange(batch.rows, device=batch.device).repeat(shape[0])
    pieces = []
    with drawing(program, None):
        for part in torch.arange(len(index), device=batch.device).split(rows):
            piece = batch.take(index[part])
            values = {n: v[part].movedim(0, dims[n]) for n, v in flat.items()}
            at_model, at_guide = (
                poutine.trace(poutine.condition(side, data=values)).get_trace(
                    *piece.args, **piece.kwargs
                )
                for side in (program.model, program.guide)
            )
            pieces.append(_scores(at_model, at_guide, found, piece.rows, keep=True))
    log_w, likelihood, _, guide = zip(*pieces, strict=True)
    return WeightedDraws(
        torch.cat(log_w).reshape(shape),
        torch.cat(likelihood).reshape(shape),
        dict(latents),
        torch.cat(guide).reshape(shape),
    )


def scored(program: nn.Module, batch: Batch) -> Structure:
    """Look at a program whose draws are to be scored.

    Raises:
        NoDensityError: Where there is nothing to score them by.
    """
    found = structure(program, batch)
    if found.undefined is not None:
        raise NoDensityError(
            f"There are no log weights here: {found.undefined}. Expected a guide and a prior with "
            f"densities, and every latent inside the data plate. Try {_remedy(found)}."
        )
    refuse_subsampling(found)
    return found


def _remedy(found: Structure) -> str:
    if found.shared or found.plate is None:
        return (
            "posterior_predictive, which needs no weights, or to_datatree"
            if found.plate is not None
            else 'with pyro.plate("data", len(x)) around the latents and the data'
        )
    return "a Normal or MultivariateNormal guide, or refit_guide(program, x)"


def _block(program: nn.Module, batch: Batch, found: Structure, keep: bool) -> WeightedDraws:
    if found.enumerated:
        return WeightedDraws(_summed_out(program, batch, found), None, {})
    return _scores(*run(program, batch), found, batch.rows, keep)


def _scores(model: Trace, guide: Trace, found: Structure, rows: int, keep: bool) -> WeightedDraws:
    model, guide = prune_subsample_sites(model), prune_subsample_sites(guide)
    sites = (*found.latents, *found.observed)
    log_p = {n: per_row(model.nodes[n], found.dim, rows) for n in sites}
    log_q = [per_row(guide.nodes[n], found.dim, rows) for n in found.latents]
    likelihood = torch.stack([log_p[n] for n in found.observed]).sum(0)
    prior = [log_p[n] for n in found.latents]
    total = likelihood + sum(p - q for p, q in zip(prior, log_q, strict=True))
    if not keep:
        return WeightedDraws(total, None, {})
    latents = {n: rows_first(guide.nodes[n], found.dim) for n in found.latents}
    return WeightedDraws(total, likelihood, latents, torch.stack(log_q).sum(0))


def per_row(site: Site, dim: int, rows: int) -> Tensor:
    """Log-prob of a site summed over all but the data plate, ``(N,)``; scale dropped, mask kept."""
    log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
    full = torch.broadcast_shapes(log_prob.shape, (rows,) + (1,) * (-dim - 1))
    return log_prob.expand(full).movedim(dim, 0).reshape(rows, -1).sum(-1)


def _summed_out(program: nn.Module, batch: Batch, found: Structure) -> Tensor:
    """log Σ_y p(x, z, y) / q(z | y), the enumerated y summed out: ``(N,)``.

    log q(y) of an enumerated guide site cancels, but where q(y) = 0 (a label known) the term
    leaves the sum.
    """
    free = -1 - found.nesting
    guide = poutine.trace(EnumMessenger(first_available_dim=free)(program.guide)).get_trace(
        *batch.args, **batch.kwargs
    )
    enumerated_model = EnumMessenger(first_available_dim=free)(program.model)
    model = poutine.trace(poutine.replay(enumerated_model, trace=guide)).get_trace(
        *batch.args, **batch.kwargs
    )
    model, guide = prune_subsample_sites(model), prune_subsample_sites(guide)
    for site in guide.nodes.values():  # the guide may call the data plate by another name
        if site["type"] == "sample":
            site["cond_indep_stack"] = tuple(
                f._replace(name=found.plate) if f.dim == found.dim else f
                for f in site["cond_indep_stack"]
            )
    model.compute_log_prob()
    guide.compute_log_prob()
    model.pack_tensors()
    guide.pack_tensors(model.plate_to_symbol)
    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    summed: set[str] = set()
    for trace, sign in ((model, 1.0), (guide, -1.0)):
        for site in trace.nodes.values():
            if site["type"] != "sample":
                continue
            term = packed.scale_and_mask(
                site["packed"]["unscaled_log_prob"], mask=site["packed"]["mask"]
            )
            dims = term._pyro_dims
            if symbol := site["infer"].get("_enumerate_symbol"):
                summed.add(symbol)
            if sign < 0 and symbol:
                term = torch.where(term == -torch.inf, term, torch.zeros_like(term))
            elif sign < 0:
                term = -term
            term._pyro_dims = dims
            # Packing squeezes dims of size 1, so plates of size 1 are no ordinals.
            ordinal = frozenset(
                model.plate_to_symbol[f.name]
                for f in site["cond_indep_stack"]
                if f.vectorized and f.size > 1
            )
            factors.setdefault(ordinal, []).append(term)
    data = {model.plate_to_symbol[found.plate]: batch.rows} if batch.rows > 1 else {}
    total = contract_to_tensor(
        factors, summed, target_ordinal=frozenset(data), ring=LogRing(dim_to_size=dict(data))
    )
    return total.reshape(-1).expand(batch.rows)
