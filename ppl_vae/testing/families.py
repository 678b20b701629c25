"""The laws of a family."""

from __future__ import annotations

import itertools

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor
from torch.distributions import Independent, TransformedDistribution

from ppl_vae.conditional import Family
from ppl_vae.distributions import Joint
from ppl_vae.programs.modes import forked_rng
from ppl_vae.testing.density import check_density
from ppl_vae.testing.laws import Laws

FAR = 64
"""How many choices of signs are tried far out."""

PROBES = (-7.0, -0.5, 0.25, 2.0, 5.0, 40.0)
"""One is outside every support but the reals."""


def check_family(family: Family, *, seed: int = 0) -> tuple[str, ...]:
    """Check a family of distributions at random parameters.

    The laws: "shapes" of the distribution, its draws and log-probs, for batches of 0, 1 and 2
    dims; "rows", each row of a batch is what it is alone; "dtype", that of the parameters; draws
    inside the "support", and no values in it that have no log-prob; a "filler" inside it, with a
    finite log-prob and gradients; "features" that are finite, row by row, and 0 where a cell is
    missing; the right "measure"; "gradients" to every parameter; "finite", no NaN and no +inf where
    parameters are ±20 (float32) or ±100 (float64); the "floor" of a learned scale, or of that of
    log x.
    Covariates that the family needs are positive numbers here, one for each event or each cell.
    Then, cell by cell, by quadrature or sums: the density is "normalised", the "draws" follow it
    (right ones fail once in 3e5 seeds), and the "moments" are its own. A joint density of more
    than two cells is integrated by importance sampling instead, without moments.

    Args:
        family: The record. A few cells an event, two where they depend on each other, make the
            strictest check.
        seed: Of parameters and draws. Torch's random state is left as found.

    Returns:
        The laws that apply; all of them are kept.

    Raises:
        ConformanceError: At the first law that is broken.

    Example:
        >>> from ppl_vae import Binomial, Delta
        >>> check_family(Binomial(3, total=4))[-3:]
        ('normalised', 'draws', 'moments')
        >>> check_family(Delta(3))
        ('shapes', 'rows', 'dtype', 'support', 'filler', 'features')
    """
    laws = Laws(family)
    shared = {n: v.detach().double() for n, v in family.shared.items()}
    device = next((v.device for v in shared.values()), torch.device("cpu"))
    with forked_rng(device, seed):
        cells = family.event_shape
        for batch, one in (((), cells), ((4,), Size([1] * len(cells))), ((2, 3), cells)):
            raw = {
                n: torch.randn((*batch, *s)).to(device, torch.float64)
                for n, s in family.shapes.items()
            }
            # Covariates: e^±0.5, one an event or one a cell.
            given = {
                n: (0.5 * torch.randn((*batch, *one))).exp().to(device, torch.float64)
                for n in family.needs
            }
            x = _check_shapes(laws, family, raw | given, shared, batch)
        _check_rows(laws, family, raw | given, shared, x)
        _check_dtype(laws, family, raw | given | shared)
        draws = family(**raw, **given, **shared).sample(Size([1000]))
        outside = draws[~family.support.check(draws)]
        got = f"draws such as {outside[:1].tolist()}"
        laws.hold("support", not len(outside), got, family.support, "a support that holds them")
        filler = torch.as_tensor(family.filler, dtype=torch.float64, device=device).expand(cells)
        within = bool(family.support.check(filler).all())
        laws.hold("filler", within, f"filler={family.filler}", family.support, "one inside it")
        _check_features(laws, family, x)
        if family.measure == "point":
            return laws.kept
        rows = [{n: v[0, i] for n, v in raw.items()} | shared for i in range(3)]
        beside = [{n: v[0, i] for n, v in given.items()} for i in range(3)]
        _check_filler(laws, family, rows[0], beside[0], filler)
        _check_support(laws, family, rows[0] | beside[0], filler)
        kind = _measure(family(**rows[0], **beside[0]))
        laws.hold("measure", kind == family.measure, family.measure, kind, f"measure={kind!r}")
        _check_gradients(laws, family, rows[0], beside[0], x[0, 0])
        _check_far(laws, family, rows[0], beside[0], x.reshape(6, *family.event_shape))
        for row, more in zip(rows, beside, strict=True):
            d = family(**row, **more)
            while isinstance(d, Independent):
                d = d.base_dist
            for part in d.parts if isinstance(d, Joint) else [d]:
                check_density(laws, part)
    return laws.kept


def _check_shapes(
    laws: Laws,
    family: Family,
    raw: dict[str, Tensor],
    shared: dict[str, Tensor],
    batch: tuple[int, ...],
) -> Tensor:
    event = tuple(family.event_shape)
    with laws.run("shapes", "parameters of the declared shapes, after any batch dims"):
        d = family(**raw, **shared)
        x = d.sample()
        log_prob = d.log_prob(x)
    got = [tuple(s) for s in (d.batch_shape, d.event_shape, x.shape, log_prob.shape)]
    expected = [batch, event, batch + event, batch]
    attempt = "leaving cells as batch dims: the record declares them independent"
    laws.hold("shapes", got == expected, f"batch, event, draw, log_prob {got}", expected, attempt)
    return x


def _check_rows(
    laws: Laws, family: Family, raw: dict[str, Tensor], shared: dict[str, Tensor], x: Tensor
) -> None:
    if family.measure == "point":
        x = family(**raw, **shared).sample()
    together = family(**raw, **shared).log_prob(x)
    for i in itertools.product(range(2), range(3)):
        alone = family(**{n: v[i] for n, v in raw.items()}, **shared).log_prob(x[i])
        # The same float64 sums in another order: 1e-16 times some hundred terms.
        same = (together[i] - alone).abs() <= 1e-10 * (1 + alone.abs())
        attempt = "broadcasting on the left, and sums over event dims only"
        laws.hold("rows", same, f"{together[i]} in a batch", f"{alone}, as alone", attempt)


def _check_dtype(laws: Laws, family: Family, raw: dict[str, Tensor]) -> None:
    for dtype in (torch.float32, torch.float64):
        d = family(**{n: v.to(dtype) for n, v in raw.items()})
        x = d.sample()
        got = {t.dtype for t in (x, d.log_prob(x)) if t.is_floating_point()}
        attempt = "no constants of a fixed dtype; plain numbers have none"
        laws.hold("dtype", got == {dtype}, got, {dtype}, attempt)


def _check_filler(
    laws: Laws, family: Family, raw: dict[str, Tensor], given: dict[str, Tensor], filler: Tensor
) -> None:
    leaves = {n: v.clone().requires_grad_() for n, v in raw.items()}
    with laws.run("filler", "an event of fillers inside the support"):
        log_prob = family(**leaves, **given).log_prob(filler)
    found = _gradients(log_prob, leaves).values()
    good = log_prob.isfinite() and all(g is None or g.isfinite().all() for g in found)
    got = f"log_prob {log_prob} of filler={family.filler}, or a gradient that is not finite"
    laws.hold("filler", good, got, "finite ones", "a filler off the edge of the support")


def _check_support(laws: Laws, family: Family, given: dict[str, Tensor], x: Tensor) -> None:
    """Ask for log-probs of what the support holds: a guard that is too wide lets data in."""
    d = family(**given)
    while isinstance(d, Independent):
        d = d.base_dist
    if d.event_shape and not isinstance(d, Joint):
        return  # cells that depend, on a simplex say: what one may be hangs on the others
    for probe in PROBES:
        for cell in range(x.numel()):
            probed = x.flatten().index_fill(0, torch.tensor(cell, device=x.device), probe)
            probed = probed.reshape(x.shape)
            if not family.support.check(probed).all():
                continue
            attempt = "the support of the distribution"
            with laws.run("support", attempt):
                log_prob = family(**given).log_prob(probed)
            good = not (log_prob.isnan() or log_prob == torch.inf)
            got = f"log_prob {log_prob} of {probe:g}, which lies in {family.support}"
            laws.hold("support", good, got, "a number", attempt)


def _check_features(laws: Laws, family: Family, x: Tensor) -> None:
    with laws.run("features", "cells (*B, *E) to (*B, *E) or (*B, *E, W)"):
        found = family.as_features(x)
        alone = torch.stack([family.as_features(row) for row in x.flatten(0, 1)])
        hidden = family.as_features(x, torch.zeros_like(x, dtype=torch.bool))
    attempt = "finite features of every value, each cell's from itself alone"
    laws.hold("features", found.isfinite().all(), "features that are not finite", "finite", attempt)
    got = (tuple(found.shape[:2]), tuple(alone.shape))
    expected = ((2, 3), (6, *found.shape[2:]))
    laws.hold("features", found.dim() == 3 and got == expected, got, expected, attempt)
    same = torch.allclose(found.flatten(0, 1), alone)
    laws.hold("features", same, "other features in a batch than alone", "the same", attempt)
    laws.hold("features", not hidden.any(), "features of missing cells", "0", attempt)


def _check_gradients(
    laws: Laws, family: Family, raw: dict[str, Tensor], given: dict[str, Tensor], x: Tensor
) -> None:
    leaves = {n: v.clone().requires_grad_() for n, v in raw.items()}
    for name, gradient in _gradients(family(**leaves, **given).log_prob(x), leaves).items():
        good = gradient is not None and gradient.isfinite().all() and gradient.any()
        attempt = "removing a detach(), a rounding, or a parameter that is not used"
        laws.hold("gradients", good, f"{gradient} at {name!r}", "finite, not all zero", attempt)


def _check_far(
    laws: Laws, family: Family, raw: dict[str, Tensor], given: dict[str, Tensor], x: Tensor
) -> None:
    for dtype, size in ((torch.float32, 20.0), (torch.float64, 100.0)):
        for signs in _signs(len(raw)):
            far = {
                n: torch.full_like(v, a * size, dtype=dtype).requires_grad_()
                for (n, v), a in zip(raw.items(), signs, strict=True)
            }
            where = f"at {dict(zip(raw, signs, strict=True))} times {size:g} in {dtype}"
            attempt = "softplus for exp, logits for probabilities, a floor under scales"
            with laws.run("finite", attempt):
                d = family(**far, **{n: v.to(dtype) for n, v in given.items()})
                log_prob = d.log_prob(x.to(dtype) if x.is_floating_point() else x)
            good = not (log_prob.isnan() | (log_prob == torch.inf)).any()
            if good and log_prob.isfinite().all():
                found = _gradients(log_prob.sum(), far).values()
                good = not any(g is not None and g.isnan().any() for g in found)
            got = f"log_prob {log_prob.tolist()} {where}, or a gradient that is NaN"
            laws.hold("finite", good, got, "no NaN, no +inf", attempt)
            if family.min_scale is not None and dtype == torch.float64:
                spread, floor = _spread(d), family.min_scale
                # 1e-9: float64 rounding of a sum of squares and its root. Heavy tails have none.
                below = (spread < floor * (1 - 1e-9)).any()
                attempt = "min_scale + softplus(raw)"
                laws.hold("floor", not below, f"{spread.min():g} {where}", floor, attempt)


def _signs(parameters: int) -> list[tuple[int, ...]]:
    """All choices of a sign for each, or 64 of them: a table has many parameters."""
    if 2**parameters <= FAR:
        return list(itertools.product((-1, 1), repeat=parameters))
    return [tuple(row) for row in (2 * torch.randint(2, (FAR, parameters)) - 1).tolist()]


def _measure(d: TorchDistribution) -> str:
    if isinstance(d, Joint):
        kinds = {_measure(part) for part in d.parts}
        return kinds.pop() if len(kinds) == 1 else "mixed"
    return "mass" if d.support.is_discrete else "density"


def _spread(d: TorchDistribution) -> Tensor:
    """The standard deviation of cells; of log x, say, where x is another's draw transformed."""
    while isinstance(d, Independent | TransformedDistribution):
        d = d.base_dist
    spread: Tensor = d.stddev
    return spread


def _gradients(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor | None]:
    if not value.requires_grad:
        return dict.fromkeys(leaves)
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))
