"""A program in words: what is drawn from what."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyro.distributions.torch_distribution import TorchDistributionMixin as TorchDistribution
from torch import nn

from ppl_vae.conditional import Conditional
from ppl_vae.data.batches import Batch
from ppl_vae.distributions import Joint, Marginal
from ppl_vae.programs.parts import inputs_of, needs_of
from ppl_vae.programs.runs import probe
from ppl_vae.programs.traces import Structure, structure
from ppl_vae.programs.vae import VAE


class Line(NamedTuple):
    """One statement of a program.

    Attributes:
        role: "prior", "likelihood" or "guide".
        site: The variable drawn.
        given: The variables it is drawn given.
        family: Its distribution, in words.
        measure: "density", "mass", of a table one a column; None where the distribution does not
            say its support.
    """

    role: str
    site: str
    given: tuple[str, ...]
    family: str
    measure: str | None = None


def describe(program: nn.Module, batch: Batch) -> tuple[tuple[Line, ...], Structure]:
    """Say what a program states, from its traces; a `VAE`'s parts speak for themselves."""
    found = structure(program, batch)
    model, guide = probe(program, batch)
    words: dict[tuple[str, str], tuple[str, tuple[str, ...], str | None]] = {}
    if isinstance(program, VAE):
        words = {
            ("prior", "z"): _part(program.prior, ()),
            ("likelihood", "x"): _part(program.decoder, ("z",)),
            ("guide", "z"): _part(program.encoder, ("x",)),
        }
    lines = []

    def add(role: str, name: str, given: tuple[str, ...], fn: TorchDistribution) -> None:
        family, given, measure = words.get((role, name), (_family(fn), given, None))
        lines.append(Line(role, name, given, family, measure or _measure(fn)))

    # Given what was drawn before: a factorisation that always holds.
    for k, name in enumerate(found.latents):
        add("prior", name, found.latents[:k], model.nodes[name]["fn"])
    for name in found.observed:
        add("likelihood", name, found.latents, model.nodes[name]["fn"])
    drawn = [n for n in guide.nodes if n in found.latents]
    for k, name in enumerate(drawn):
        add("guide", name, (*found.observed, *drawn[:k]), guide.nodes[name]["fn"])
    return tuple(lines), found


def _part(part: nn.Module, usual: tuple[str, ...]) -> tuple[str, tuple[str, ...], str | None]:
    """What a part is, what it is given, its measure; a mask is part of what is seen of x."""
    given = (*(n for n in inputs_of(part, usual) if n != "mask"), *needs_of(part))
    if isinstance(part, Conditional):
        measure: str = part.family.measure
        if measure == "mixed":  # which column has which
            measure = ", ".join(f.measure for f in part.family.columns)
        return repr(part.family), given, None if measure == "point" else measure
    return (type(part).__name__ if usual else repr(part).split("\n")[0]), given, None


def _measure(fn: TorchDistribution) -> str | None:
    if isinstance(fn, Marginal):
        fn = fn.base
    if isinstance(fn, Joint):
        parts = [_measure(part) for part in fn.parts]
        known = [m for m in parts if m is not None]
        if len(known) < len(parts):
            return None
        return known[0] if len({*known}) == 1 else ", ".join(known)
    try:
        return "mass" if fn.support.is_discrete else "density"
    except (AttributeError, NotImplementedError):
        return None


def _family(fn: Any) -> str:  # noqa: ANN401
    shape = tuple(fn.event_shape)
    if isinstance(fn, Marginal):
        fn = fn.base
    while type(fn).__name__ in ("Independent", "MaskedDistribution", "ExpandedDistribution"):
        fn = fn.base_dist
    return f"{type(fn).__name__}{shape if shape else ''}"
