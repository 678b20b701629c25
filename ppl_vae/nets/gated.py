"""A fully connected network with gates."""

from __future__ import annotations

import torch
from torch import nn

from ppl_vae.nets.mlp import MLP


class GatedMLP:
    """Builds a multilayer perceptron of gated linear units: each layer is h(x) · sigmoid(g(x)).

    h and g are linear (Dauphin et al. 2017, arXiv:1612.08083, eq. 1). With two layers of 300 it is
    the network of Tomczak and Welling 2018 (VAE with a VampPrior, section 5). A layer has twice
    the weights of an `MLP`'s. As a gate halves what passes, weights start larger than torch's: as
    Glorot and Bengio 2010 (Understanding the difficulty of training, eq. 12) have it, h and g each.

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
            layers += [_started(nn.Linear(a, 2 * b), 2), nn.GLU()]  # h and g side by side
        return nn.Sequential(*layers, _started(nn.Linear(widths[-1], out_features), 1))

    def __repr__(self) -> str:
        return f"GatedMLP({', '.join(map(str, self.hidden))})"


def _started(layer: nn.Linear, blocks: int) -> nn.Linear:
    """The layer, its weights drawn as those of so many layers side by side."""
    with torch.no_grad():
        for block in layer.weight.chunk(blocks):
            nn.init.xavier_normal_(block)
    return layer
