"""A fully connected network, as a record that builds."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


class MLP:
    """Builds a multilayer perceptron once its sizes are known.

    Args:
        hidden: Widths of the hidden layers; none gives one linear layer.
        activation: Builder of the nonlinearity between layers.

    Raises:
        ValueError: If a width is not a positive integer.

    Example:
        >>> net = MLP(400, 200)(784, 10)
        >>> [tuple(p.shape) for p in net.parameters() if p.dim() == 2]
        [(400, 784), (200, 400), (10, 200)]
    """

    def __init__(self, *hidden: int, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        if any(isinstance(h, bool) or not isinstance(h, int) or h < 1 for h in hidden):
            raise ValueError(
                f"Got hidden widths {hidden}; expected positive integers. Try MLP(400)."
            )
        try:
            built: object = activation()
        except TypeError:  # no builder: a module, a function of tensors, a name
            built = None
        if not isinstance(built, nn.Module):
            raise ValueError(
                f"Got activation={activation!r}; expected a class or function that is called "
                "without arguments and returns a module. Try nn.ReLU, without brackets."
            )
        self.hidden = hidden
        self.activation = activation

    def __call__(self, in_features: int, out_features: int) -> nn.Module:
        """Build the network: ``(*B, in_features)`` to ``(*B, out_features)``."""
        if not isinstance(in_features, int):
            raise ValueError(
                f"Got in_features={in_features!r}; expected a number: an MLP sees flat rows. Try "
                "Conditional(..., flatten=True), or a convolutional net."
            )
        widths = (in_features, *self.hidden)
        layers: list[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(a, b), self.activation()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], out_features))

    def __repr__(self) -> str:
        return f"MLP({', '.join(map(str, self.hidden))})"
