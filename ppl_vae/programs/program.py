"""A pair of Pyro functions that somebody else wrote, as a program."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from torch import nn

from ppl_vae.programs.registration import picklable


class Program(nn.Module):
    """Model and guide, any two Pyro callables, as one program to `fit` and diagnose.

    Nothing is read by a site's name: latents, observations and the data plate are found in
    the traces.

    Args:
        model: A Pyro function ``model(*batch)``.
        guide: A Pyro function ``guide(*batch)`` with the model's latent sites.
        modules: The networks whose buffers and train/eval mode matter (BatchNorm, Dropout):
            they are saved, restored and switched with the program. Parameters are found in
            Pyro's store in any case. Modules given as model or guide need not be repeated.
        plate: The name of the data plate, where two plates have the batch's size.

    Raises:
        ValueError: If model or guide is not callable, or a module is not an `nn.Module`.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("rows", len(x)):
        ...         latent = pyro.sample("latent", dist.Normal(0.0, 1.0))
        ...         pyro.sample("obs", dist.Normal(latent, 0.5), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("rows", len(x)):
        ...         pyro.sample("latent", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x, 1.0))
        >>> program = Program(model, guide)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        modules: Iterable[nn.Module] = (),
        plate: str | None = None,
    ) -> None:
        super().__init__()
        for role, function in {"model": model, "guide": guide}.items():
            if not callable(function):
                raise ValueError(
                    f"Got {function!r} as {role}; expected a Pyro function of the batch. "
                    "Try Program(model, guide)."
                )
        if isinstance(modules, nn.Module) or not isinstance(modules, Iterable):
            raise ValueError(
                f"Got a {type(modules).__name__} as modules; expected a list of nn.Module. "
                "Try modules=[net]."
            )
        modules = list(modules)
        if odd := [m for m in modules if not isinstance(m, nn.Module)]:
            raise ValueError(
                f"Got {odd[0]!r} in modules; expected each to be an nn.Module. "
                "Try modules=[encoder, decoder], the nets themselves."
            )
        if plate is not None and not isinstance(plate, str):
            raise ValueError(
                f"Got plate={plate!r}; expected the name of the data plate. "
                'Try plate="data", as in pyro.plate("data", len(x)).'
            )
        self.parts = nn.ModuleList(modules)
        self.model, self.guide, self.plate = model, guide, plate
        known = {id(m) for m in self.modules()}
        missing = {
            name
            for f in (model, guide)
            for name, m in reachable(f)
            if any(id(part) not in known for part in m.modules() if _has_mode(part))
        }
        if missing:
            warnings.warn(
                f"The nets {sorted(missing)} hold BatchNorm, Dropout or buffers, and are not among "
                "modules=: their train/eval mode is not switched and their buffers are not saved. "
                f"Try Program(model, guide, modules=[{', '.join(sorted(missing))}]).",
                stacklevel=2,
            )

    def __getstate__(self) -> dict[str, object]:
        """Allow pickling after training, where model and guide allow it."""
        return picklable(self)


def of_functions(model: Callable[..., Any], guide: Callable[..., Any]) -> Program:
    """Make a program of what `pyro.infer.SVI` hands to a loss: functions, or methods."""
    owners = {
        id(o): o for f in (model, guide) if isinstance(o := getattr(f, "__self__", f), nn.Module)
    }
    return Program(model, guide, modules=owners.values())


def origin(program: nn.Module) -> nn.Module:
    """Give the program that one with another guide was made of, or itself: data are as it has them.

    Args:
        program: Such as a `Refitted` one, or one made of that.
    """
    while isinstance(source := program.__dict__.get("source"), nn.Module):
        program = source
    return program


def _has_mode(part: nn.Module) -> bool:
    return bool(list(part.buffers(recurse=False))) or isinstance(
        part, nn.modules.dropout._DropoutNd
    )


def reachable(function: Callable[..., Any]) -> list[tuple[str, nn.Module]]:
    """Modules that a function's closure or named globals hold: a hint, not a proof.

    Args:
        function: A model or guide.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    named = {}
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(code.co_freevars, cells, strict=True):
        with suppress(ValueError):  # a name that is bound later
            named[name] = cell.cell_contents
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        named[type(owner).__name__.lower()] = owner
    for name in code.co_names:
        if name in function.__globals__:
            named[name] = function.__globals__[name]
    return [(name, value) for name, value in named.items() if isinstance(value, nn.Module)]
