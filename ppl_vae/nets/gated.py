"""A fully connected network with gates."""

from __future__ import annotations

from torch import nn

from ppl_vae.nets.mlp import MLP


class GatedMLP:
    """Builds a multilayer perceptron of gated linear units: each layer is h(x) · sigmoid(g(x)).

    h and g are linear (Dauphin et al. 2017, arXiv:1612.08083, eq. 1). With two layers of 300 it is
    the network of Tomczak and Welling 2018 (VAE with a VampPrior, section 5). A layer has twice
    the weights of an `MLP`'s.

    Args:
        hidden: Widths of the hidden layers; none gives one linear layer.

    Raises:
        ValueError: If a width is not a positive integer.

    Example:
        >>> net = GatedMLP(300, 300)(784, 40)
        >>> [tuple(p.shape) for p in net.parameters() if p.dim() == 2]
        [(600, 784), (600, 300), (40, 300)]
    """

    def __init__(self, *hidden: int) -> None:
        self.hidden = MLP(*hidden).hidden  # which checks them

    def __call__(self, in_features: int, out_features: int) -> nn.Module:
        """Build the network: ``(*B, in_features)`` to ``(*B, out_features)``."""
        if not isinstance(in_features, int):
            raise ValueError(
                f"Got in_features={in_features!r}; expected a number: a GatedMLP sees flat rows. "
                "Try Conditional(..., flatten=True), or a convolutional net."
            )
        widths = (in_features, *self.hidden)
        layers: list[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(a, 2 * b), nn.GLU()]  # h and g side by side
        return nn.Sequential(*layers, nn.Linear(widths[-1], out_features))

    def __repr__(self) -> str:
        return f"GatedMLP({', '.join(map(str, self.hidden))})"
