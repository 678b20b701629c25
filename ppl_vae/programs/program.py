"""A pair of Pyro functions that somebody else wrote, as a program."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
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
                    f"Got {function!r} as {role}; expected a Pyro function of the batch."
                )
        modules = list(modules)
        if any(not isinstance(m, nn.Module) for m in modules):
            raise ValueError("Got modules that are not all nn.Module; expected modules=[net, ...].")
        self.parts = nn.ModuleList(modules)
        self.model, self.guide, self.plate = model, guide, plate
        known = {id(m) for m in self.modules()}
        missing = {
            name
            for f in (model, guide)
            for name, m in _reachable(f)
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


def _has_mode(part: nn.Module) -> bool:
    return bool(list(part.buffers(recurse=False))) or isinstance(
        part, nn.modules.dropout._DropoutNd
    )


def _reachable(function: Callable[..., Any]) -> list[tuple[str, nn.Module]]:
    """Modules that a function's closure or named globals hold: a hint, not a proof."""
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    cells = getattr(function, "__closure__", None) or ()
    named = dict(zip(code.co_freevars, (c.cell_contents for c in cells), strict=True))
    for name in code.co_names:
        if name in function.__globals__:
            named[name] = function.__globals__[name]
    return [(name, value) for name, value in named.items() if isinstance(value, nn.Module)]
