"""Arguments of an objective that mean nothing, refused when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import torch
from torch import nn

from ppl_vae.objectives.critic_losses import CriticLoss
from ppl_vae.objectives.critics import Nets


def refuse_number(name: str, value: float, *, usual: float) -> None:
    """Refuse what is no finite number of 0 or more.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(value, Real) or not 0 <= value < float("inf"):
        raise ValueError(
            f"Got {name}={value!r}; expected a finite number of 0 or more. Try {name}={usual}."
        )


def refuse_noise_epochs(epochs: float | None, noise: float) -> None:
    """Refuse epochs in which no noise falls.

    Raises:
        ValueError: If there is none, or they are no positive number.
    """
    if epochs is not None and not (
        noise and isinstance(epochs, Real) and 0 < epochs < float("inf")
    ):
        raise ValueError(
            f"Got noise_epochs={epochs!r} with instance_noise={noise!r}; expected epochs above 0 "
            "in which some noise falls to 0. Try instance_noise=0.5, noise_epochs=20."
        )


def refuse_count(name: str, value: object) -> None:
    """Refuse what is no positive integer.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"Got {name}={value!r}; expected a positive integer. Try 1.")


def refuse_critics(critic: Nets) -> None:
    """Refuse what builds no critic, and critics of what is no latent.

    Raises:
        ValueError: If there is one.
    """
    for key in critic if isinstance(critic, Mapping) else ():
        names = (key,) if isinstance(key, str) else key
        if not names or not _are_names(names):
            raise ValueError(
                f"Got a critic of {key!r}; expected a latent, or a tuple of latents. Try "
                'critic={"z": MLP(128, 128)}.'
            )
    for net in critic.values() if isinstance(critic, Mapping) else [critic]:
        if isinstance(net, nn.Module) or not callable(net):
            raise ValueError(
                f"Got a {type(net).__name__} as critic; expected a builder (in_features, 1) -> "
                "nn.Module, so that it can be sized to the latents. Try MLP(128, 128)."
            )


def refuse_loss(loss: CriticLoss) -> None:
    """Try a critic's loss on three scores.

    Raises:
        ValueError: If it is none, or does not give a value for each.
    """
    scores = torch.zeros(3)
    try:
        if isinstance(loss, type):
            raise TypeError("a class, which has to be called: mind the brackets")
        shapes = {tuple(v.shape) for v in (loss.critic(scores, scores), loss.generator(scores))}
        fault = "" if shapes == {(3,)} else f"shapes {sorted(shapes)} of 3 scores"
        loss.boundary(scores, scores).detach()
        float(loss.penalty)
    except (AttributeError, TypeError, ValueError) as error:
        fault = str(error)
    if fault:
        raise ValueError(
            f"Got loss={loss!r} ({fault}); expected a critic's loss, with a value for each score. "
            "Try NonSaturating(), LeastSquares(), Hinge() or Wasserstein()."
        )


def refuse_names(argument: str, names: object) -> None:
    """Refuse what is no tuple of names.

    Raises:
        ValueError: If it is none.
    """
    if not _are_names(names):
        raise ValueError(
            f"Got {argument}={names!r}; expected a tuple of names. Try {argument}=('label',)."
        )


def refuse_form(name: str, spec: object) -> None:
    """Refuse what is no optimizer class and its arguments.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(spec, tuple) or len(spec) != 2 or not isinstance(spec[0], type):
        shown = getattr(spec, "__name__", type(spec).__name__)
        raise ValueError(
            f"Got {name}={shown}; expected a torch optimizer class and its arguments. Try "
            "(torch.optim.Adam, {'lr': 1e-3})."
        )


def _are_names(names: object) -> bool:
    return isinstance(names, tuple) and all(isinstance(n, str) for n in names)
