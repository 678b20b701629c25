"""The laws of a prior."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from functools import partial

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ppl_vae.programs.modes import device_of, drawing, dtype_of, evaluating, forked_rng
from ppl_vae.testing.density import check_density
from ppl_vae.testing.laws import Laws


def check_prior(
    prior: nn.Module, *, context: Tensor | Sequence[Tensor] = (), seed: int = 0
) -> tuple[str, ...]:
    """Check a prior: a module that gives p(z), or p(z|c) of covariates c.

    The laws: it runs "alone"; "shapes" of the distribution, and of draws and log-probs in a plate
    of five rows; draws inside the "support"; the "seed" decides the draws; its "tensors" are all
    parameters or buffers; a "deepcopy" gives the same and shares nothing; its "state_dict",
    pickled and loaded, restores every value; "dtype", that of the module after ``.to``;
    "gradients" of log_prob to every trainable parameter.
    Then, in one or two dims by quadrature: the density is "normalised", the "draws" follow it
    (right ones fail once in 1e6 seeds), and the "moments" are its own; in more dims by importance
    sampling, without moments. A prior that can only be sampled is excused from what needs log_prob.
    All that is asked of p(z|c) at the first row of c; and "rows", each row is what it is alone.

    Args:
        prior: The module; it is left as found. One or two dims make the strictest check.
        context: What p(z|c) is called with, ``(N, *given)`` each; nothing for p(z).
        seed: Of the draws. Torch's random state is left as found.

    Returns:
        The laws that apply; all of them are kept.

    Raises:
        ConformanceError: At the first law that is broken.

    Example:
        >>> from ppl_vae import StandardNormal
        >>> check_prior(StandardNormal(2))[-3:]
        ('normalised', 'draws', 'moments')
    """
    laws = Laws(prior)
    context = (context,) if isinstance(context, Tensor) else tuple(context)
    at = partial(_at, [c[0] for c in context])
    with forked_rng(device_of(prior), seed), evaluating(prior):
        what = "self, c" if context else "self"
        with laws.run("alone", f"a forward({what}) that returns a Pyro distribution"):
            d = at(prior)
        kind = type(d).__name__
        good = isinstance(d, TorchDistributionMixin)
        laws.hold("alone", good, f"a {kind}", "a Pyro distribution", "pyro.distributions")
        scored, z = _check_shapes(laws, prior, d)
        laws.hold("support", d.support.check(z).all(), z[0].tolist(), d.support, "a wider support")
        _check_seed(laws, prior, at, seed)
        loose = [n for part in prior.modules() for n, v in vars(part).items() if _loose(n, v)]
        attempt = "register_buffer or nn.Parameter for every tensor of the module"
        laws.hold("tensors", not loose, f"plain tensors in {loose}", "none", attempt)
        _check_copies(laws, prior, at, z)
        _check_dtype(laws, prior, at, scored)
        if scored:
            _check_gradients(laws, prior, at, z)
            with torch.no_grad():
                check_density(laws, at(copy.deepcopy(prior).double(), torch.float64))
                if context:
                    _check_rows(laws, copy.deepcopy(prior).double(), context)
    return laws.kept


_Call = Callable[..., TorchDistributionMixin]
"""Gives the distribution of a prior, or of a copy of it, at the context that is checked."""


def _at(
    context: Sequence[Tensor], prior: nn.Module, dtype: torch.dtype | None = None
) -> TorchDistributionMixin:
    dtype = dtype_of(prior) if dtype is None else dtype
    return prior(*(c.to(dtype) if c.is_floating_point() else c for c in context))


def _check_rows(laws: Laws, prior: nn.Module, context: Sequence[Tensor]) -> None:
    attempt = "a batch_shape that is that of c, and nothing that mixes its rows"
    with laws.run("rows", attempt):
        rows = _at(context, prior, torch.float64)
        z = rows.sample()
        together = rows.log_prob(z)
    got = (rows.batch_shape, tuple(together.shape))
    expected = (context[0].shape[:1],) * 2
    laws.hold("rows", got == expected, got, expected, attempt)
    for i, value in enumerate(z):
        alone = _at([c[i] for c in context], prior, torch.float64).log_prob(value)
        # The same float64 sums in another order: 1e-16 times some hundred terms.
        same = (together[i] - alone).abs() <= 1e-10 * (1 + alone.abs())
        laws.hold("rows", same, f"{together[i]} in a batch", f"{alone}, as alone", attempt)


def _check_shapes(laws: Laws, prior: nn.Module, d: TorchDistributionMixin) -> tuple[bool, Tensor]:
    """Give five draws, and whether they have a log_prob."""
    event = tuple(getattr(prior, "event_shape", ()))
    attempt = "declaring event_shape, .to_event(...), and an expand that keeps the event"
    with laws.run("shapes", attempt):
        rows = d.expand((5,))
        z = rows.sample()
        try:
            shapes = [tuple(rows.log_prob(z).shape)]
        except NotImplementedError:
            shapes = []
    scored = bool(shapes)
    shapes += [tuple(s) for s in (d.batch_shape, d.event_shape, z.shape)]
    expected = [(5,)] * scored + [(), event, (5, *event)]
    laws.hold("shapes", shapes == expected, shapes, expected, attempt)
    return scored, z


def _loose(name: str, value: object) -> bool:
    """Say whether an attribute holds a tensor that ``.to`` and ``state_dict`` pass over."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return name not in ("_parameters", "_buffers", "_modules") and any(
            _loose("", v) for v in value
        )
    return isinstance(value, Tensor)


def _check_seed(laws: Laws, prior: nn.Module, at: _Call, seed: int) -> None:
    draws = []
    for _ in range(2):
        with drawing(prior, seed):
            draws.append(at(prior).sample((5,)))
    same = torch.equal(draws[0], draws[1])
    laws.hold("seed", same, "other draws at the same seed", "equal ones", "torch's random numbers")


def _check_dtype(laws: Laws, prior: nn.Module, at: _Call, scored: bool) -> None:
    for dtype in (torch.float32, torch.float64):
        d = at(copy.deepcopy(prior).to(dtype), dtype)
        z = d.sample()
        got = [z.dtype] if z.is_floating_point() else []
        got += [d.log_prob(z).dtype] if scored else []
        attempt = "register_buffer or nn.Parameter for every tensor of the module"
        laws.hold("dtype", set(got) <= {dtype}, got, dtype, attempt)


def _check_copies(laws: Laws, prior: nn.Module, at: _Call, z: Tensor) -> None:
    before = _fingerprint(prior, at, z)
    with laws.run("deepcopy", "no open files or closures in the module"):
        other = copy.deepcopy(prior)
    attempt = "register_buffer or nn.Parameter for every tensor of the module"
    same = torch.equal(_fingerprint(other, at, z), before)
    laws.hold("deepcopy", same, "another distribution", "the same", attempt)
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            if tensor.is_floating_point():
                tensor.add_(1)
    same = torch.equal(_fingerprint(prior, at, z), before)
    laws.hold("deepcopy", same, "an original that moves with its copy", "its own tensors", attempt)
    with laws.run("state_dict", attempt):
        other.load_state_dict(pickle.loads(pickle.dumps(prior.state_dict())))
    same = torch.equal(_fingerprint(other, at, z), before)
    got = "another distribution after loading"
    laws.hold("state_dict", same, got, "the same", attempt)


def _fingerprint(prior: nn.Module, at: _Call, z: Tensor) -> Tensor:
    with drawing(prior, 0):
        d = at(prior)
        draws = d.sample((5,)).flatten()
        try:
            return torch.cat([draws, d.log_prob(z).flatten()])
        except NotImplementedError:
            return draws


def _check_gradients(laws: Laws, prior: nn.Module, at: _Call, z: Tensor) -> None:
    trained = {n: p for n, p in prior.named_parameters() if p.requires_grad}
    if not trained:
        return
    log_prob = at(prior).log_prob(z).sum()
    found = (
        torch.autograd.grad(log_prob, list(trained.values()), allow_unused=True)
        if log_prob.requires_grad
        else [None] * len(trained)
    )
    for name, gradient in zip(trained, found, strict=True):
        good = gradient is not None and gradient.isfinite().all() and gradient.any()
        attempt = "removing a detach() or no_grad(), or a parameter that is not used"
        laws.hold("gradients", good, f"{gradient} at {name!r}", "finite, not all zero", attempt)
