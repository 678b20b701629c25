"""Whether a prior, a decoder and an encoder make one program."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import Transform, biject_to, constraints

from ppl_vae.conditional import declared_family

OWN = ("x", "z", "mask")  # what a program passes itself; every other name is a covariate's


def event_of(part: nn.Module, role: str) -> Size:
    """Give the event shape that a part declares.

    Raises:
        ValueError: If it is no module, or declares none.
    """
    shape = getattr(part, "event_shape", None)
    if not isinstance(part, nn.Module) or not isinstance(shape, tuple):
        raise ValueError(
            f"Got {type(part).__name__} as {role}; expected an nn.Module that returns a "
            "distribution and declares its event_shape. Try StandardNormal(10) for a prior, "
            "Conditional(MLP(400), family, given=...) for the others."
        )
    return Size(shape)


def inputs_of(part: nn.Module, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Name what a part is called with: its own word, or the usual."""
    named = getattr(part, "inputs", None)
    return usual if named is None else tuple(named)


def needs_of(part: nn.Module) -> Mapping[str, constraints.Constraint]:
    """Name what a part takes past its network, and say where that may lie."""
    family = declared_family(part)
    return {} if family is None else family.needs


def call(part: nn.Module, usual: tuple[str, ...], values: dict[str, Tensor]) -> TorchDistribution:
    """Call a part with what it names among `values`."""
    names, needs = inputs_of(part, usual), needs_of(part)
    if lost := [n for n in (*names, *needs) if n not in values]:
        raise ValueError(
            f"Got no {lost[0]!r} for a {type(part).__name__} that is given {[*names, *needs]}; "
            f"expected it by name. Try {lost[0]}=... beside x."
        )
    context = [values[n] for n in names]
    distribution = part(*context, **{n: values[n] for n in needs})
    if not isinstance(distribution, TorchDistribution):
        raise ValueError(
            f"Got a {type(distribution).__name__} from a {type(part).__name__}; expected a Pyro "
            "distribution. Try return pyro.distributions.Normal(loc, scale).to_event(1)."
        )
    event = event_of(part, "part")
    if distribution.event_shape != event:
        raise ValueError(
            f"Got a distribution of batch shape {tuple(distribution.batch_shape)} and event shape "
            f"{tuple(distribution.event_shape)} from a {type(part).__name__}; expected one event "
            f"of shape {tuple(event)}, its event_shape, for each datum. Try .to_event() "
            "on the distribution that it returns."
        )
    return distribution


def lend(prior: nn.Module, encoder: nn.Module) -> None:
    """Lend the encoder to a prior that is made of it and has none yet."""
    borrow = getattr(prior, "borrow", None)
    if borrow is not None and not prior.borrowed:
        borrow(encoder)


def check_parts(prior: nn.Module, decoder: nn.Module, encoder: nn.Module) -> None:
    """Check that three parts fit together.

    Raises:
        ValueError: If they do not.
    """
    program = nn.ModuleList([prior, decoder, encoder])
    own = {id(part) for part in program.modules()}
    if strangers := [b for b in getattr(prior, "borrowed", ()) if id(b) not in own]:
        raise ValueError(
            f"Got a {type(prior).__name__} that borrows a {type(strangers[0]).__name__} which "
            "is no part of this program; expected the program's own. Try the same encoder in "
            "both: VAE(VampPrior(u, encoder), decoder, encoder)."
        )
    family = declared_family(decoder)
    if family is not None and family.measure == "point":
        raise ValueError(
            "Got a Delta as likelihood; expected a p(x|z) with a density or a mass: data off a "
            "point are impossible. Try Normal(..., scale=Shared())."
        )
    latent, event = event_of(prior, "prior"), event_of(decoder, "decoder")
    for role, part, usual, allowed in (
        ("prior", prior, (), ()),
        ("decoder", decoder, ("z",), ("z",)),
        ("encoder", encoder, ("x",), ("x", "mask")),
    ):
        _check_inputs(role, part, usual, allowed)
    if not inputs_of(prior, ()):
        drawn = prior()
        if drawn.event_shape != latent or drawn.batch_shape:
            raise ValueError(
                f"Got a prior of batch shape {tuple(drawn.batch_shape)} and event shape "
                f"{tuple(drawn.event_shape)}; expected () and {tuple(latent)}, as its event_shape "
                "says. Try .to_event() on the distribution that it returns."
            )
    named = inputs_of(encoder, ("x",))
    if named[:2] != ("x", "mask") and any(getattr(m, "sees_gaps", 0) for m in encoder.modules()):
        raise ValueError(
            f"Got the encoder's inputs {list(named)} under Features(mask=True); expected x and "
            'then its mask. Try given={"x": ..., "mask": ...}, covariates after them.'
        )
    _check_support(prior, encoder)
    support = support_of_prior(prior)
    # Of a p(z|c) of one's own it is not known before there are covariates.
    push = None if support is None else push_onto(support, encoder)
    free = latent if push is None else push.inverse_shape(latent)
    _must_fit("encoder's event", event_of(encoder, "encoder"), "prior's event", free)
    known = {"z": ("prior's event", latent), "x": ("decoder's event", event)}
    known["mask"] = known["x"]
    shapes: dict[str, Size] = {}
    for role, part, usual in (
        ("prior", prior, ()),
        ("decoder", decoder, ("z",)),
        ("encoder", encoder, ("x",)),
    ):
        if (given := _given(part)) is not None:
            for name, shape in zip(inputs_of(part, usual), given, strict=True):
                if name in known:
                    _must_fit(f"{role}'s given", shape, *known[name])
                elif shapes.setdefault(name, shape) != shape:
                    raise ValueError(
                        f"Got the covariate {name!r} of shape {tuple(shapes[name])} in one part "
                        f"and {tuple(shape)} in the {role}; expected one shape. Try the same in "
                        "every given=."
                    )


def covariate_shapes(*parts: nn.Module) -> dict[str, Size | None]:
    """Shapes of the covariates that parts name, None where a part does not say."""
    found: dict[str, Size | None] = {}
    for part in parts:
        given = _given(part)
        for k, name in enumerate(inputs_of(part, ())):
            if name not in OWN and found.get(name) is None:
                found[name] = given[k] if given else None
        for name in needs_of(part):
            found.setdefault(name, None)
    return found


def support_of(distribution: TorchDistribution) -> constraints.Constraint:
    """Where a latent may lie, in words that `biject_to` knows."""
    try:
        support: constraints.Constraint = distribution.support
    except NotImplementedError:  # what can only be sampled need not know its support
        return constraints.real_vector
    # Of a mixture it is that of a component.
    mixed = type(support).__name__ == "MixtureSameFamilyConstraint"
    return _cell(support) if mixed else support


def support_of_prior(prior: nn.Module) -> constraints.Constraint | None:
    """Where the latent may lie; None where only a call with covariates can tell."""
    if inputs_of(prior, ()):
        family = declared_family(prior)
        return None if family is None else family.support
    return support_of(prior())


def push_onto(support: constraints.Constraint, encoder: nn.Module) -> Transform | None:
    """The bijection that takes an encoder on unconstrained space onto the prior's support."""
    family = declared_family(encoder)
    on_reals = family is None or is_real(family.support)
    return biject_to(support) if on_reals and not is_real(support) else None


def lands_on(guide: TorchDistribution, wanted: constraints.Constraint) -> bool:
    """Whether a guide lies on the prior's support already, and is not to be pushed there.

    Raises:
        ValueError: If it lies neither there nor on the reals.
    """
    own = support_of(guide)
    if is_real(own):
        return False
    if not same_support(own, wanted):
        raise ValueError(
            f"Got a guide with support {_said(own)} under a prior with support {_said(wanted)}; "
            "expected one on the same support, which is used as it is, or on the reals, which is "
            "pushed there. Try a Normal."
        )
    return True


def same_support(one: constraints.Constraint, other: constraints.Constraint) -> bool:
    """Whether two constraints are one: of one kind, with equal bounds in every cell."""
    one, other = _cell(one), _cell(other)
    mine, its = vars(one), vars(other)
    return type(one) is type(other) and all(
        name in its and bool((torch.as_tensor(value) == torch.as_tensor(its[name])).all())
        for name, value in mine.items()
        if isinstance(value, Tensor | Real)
    )


def is_real(support: constraints.Constraint) -> bool:
    """Whether a support is the reals, or a vector or block of them."""
    inner = _cell(support)
    return inner is constraints.real or type(inner) is type(constraints.real)


def _given(part: nn.Module) -> list[Size] | None:
    """Shapes of what a part is called with, in order, where it says so."""
    given = getattr(part, "given", None)
    return given if isinstance(given, list) else None


def _check_inputs(
    role: str, part: nn.Module, usual: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    named = inputs_of(part, usual)
    given = _given(part)
    if given is not None and getattr(part, "inputs", None) is None and len(given) != len(usual):
        shapes = [tuple(s) for s in given]
        kind = f"one context, {usual[0]}," if usual else "no context"
        example = {"prior": '{"c": 3}', "decoder": '{"z": 2, "c": 3}'}.get(
            role, '{"x": 64, "mask": 64}'
        )
        raise ValueError(
            f"Got the {role}'s given={shapes}; expected {kind} or names for several, so that the "
            f"program knows which is which. Try given={example}."
        )
    if odd := [n for n in named if n in OWN and n not in allowed]:
        raise ValueError(
            f"Got {odd[0]!r} among the {role}'s inputs {list(named)}; expected "
            f"{' and '.join(map(repr, allowed)) or 'none of x, z and mask'}, and covariates under "
            "other names. Try leaving it out."
        )
    if usual and usual[0] not in named:
        raise ValueError(
            f"Got the {role}'s inputs {list(named)}; expected {usual[0]!r} among them. Try "
            f"given={{{usual[0]!r}: ..., ...}}."
        )


def _check_support(prior: nn.Module, encoder: nn.Module) -> None:
    family = declared_family(encoder)
    support = support_of_prior(prior)
    if support is None or family is None or (is_real(family.support) and not support.is_discrete):
        return
    cell = _cell(support)
    if not same_support(cell, family.support):
        raise ValueError(
            f"Got the guide {family} under a prior with support {_said(cell)}; expected one that "
            "lives inside it: on the same support, or on the reals under a continuous prior, "
            "which is pushed onto its support. Try Normal."
        )


def _cell(support: Any) -> constraints.Constraint:  # noqa: ANN401
    """That of one cell, where a support is one of independent cells."""
    inner: constraints.Constraint = getattr(support, "base_constraint", support)
    return inner


def _said(support: constraints.Constraint) -> str:
    """A support in words: one number for a bound that is the same in all cells."""
    cell = _cell(support)
    bounds = {n: torch.as_tensor(v) for n, v in vars(cell).items() if isinstance(v, Tensor | Real)}
    if not bounds:
        return str(cell)
    said = {n: f"{v.min():g}" if v.min() == v.max() else f"{v.tolist()}" for n, v in bounds.items()}
    return f"{type(cell).__name__.strip('_')}({', '.join(f'{n}={v}' for n, v in said.items())})"


def _must_fit(what: str, got: Size, where: str, expected: Size) -> None:
    if Size(got) != expected:
        raise ValueError(
            f"Got the {what} shape {tuple(got)}; expected the {where} shape {tuple(expected)}. Try "
            "one latent size in prior, encoder and decoder, and one data shape in encoder and "
            "decoder."
        )
