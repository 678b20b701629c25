"""A prior of any shape, with a region for each label: a swiss roll that has no density.

Makhzani et al. 2015 (arXiv:1511.05644, section 2.3). The prior is p(z|label), which draws from the
label's stretch of the roll, or from all of it where the label is not known (a row of zeros); the
critic is shown the label beside z, and so matches q(z|label) with p(z|label). Every other image
has its label here.

    python examples/aae_regions.py
"""

import math

import torch
from torch import Size, Tensor, nn

from ppl_vae import (
    MLP,
    VAE,
    Adversarial,
    Binomial,
    Conditional,
    Normal,
    fit,
    posterior_predictive,
)
from ppl_vae.data import digits
from ppl_vae.distributions import SampleOnly


class Roll(nn.Module):
    """p(z|label): a spiral of two turns, cut into ten stretches of equal mass."""

    event_shape = Size([2])
    inputs = ("label",)

    def forward(self, label: Tensor) -> SampleOnly:
        """Return p(z|label) for rows of ten, one-hot or zeros."""
        known, which = label.sum(-1) > 0, label.argmax(-1)

        def draw(shape: Size) -> Tensor:
            u = torch.rand(shape, device=label.device)
            root = torch.where(known, (which + u) / 10, u).sqrt()
            angle = 4 * math.pi * root
            return 3 * root[..., None] * torch.stack([angle.cos(), angle.sin()], -1)

        return SampleOnly(draw, self.event_shape, label.shape[:-1], name="a roll")


x, labels = digits()
label = torch.eye(10)[torch.as_tensor(labels).long()]
few = label * (torch.arange(len(label)) % 2 == 0)[:, None]

torch.manual_seed(0)
aae = VAE(
    Roll(),
    Conditional(MLP(128), Binomial((8, 8), total=16), given=2),
    Conditional(MLP(128, 128), Normal(2), given=(8, 8)),
)
objective = Adversarial(MLP(128, 128), weight=100.0, given=("label",))
fit(
    aae,
    {"x": x, "label": few},
    objective=objective,
    epochs=50,
    batch_size=64,
    seed=0,
    progress=False,
)

codes = posterior_predictive(aae, {"x": x, "label": few}, 1, seed=0).latents["z"][0]
# The place along the roll: the stretch whose points are the nearest.
grid = Roll()(label.new_zeros(4000, 10)).sample()
root = grid.norm(dim=-1) / 3
stretch = (10 * root.square()).long().clamp(max=9)[torch.cdist(codes, grid).argmin(1)]
right = stretch == label.argmax(-1)
hidden = few.sum(-1) == 0
print(f"on its label's stretch: {right[~hidden].float().mean():.0%} of images with a label, "
      f"{right[hidden].float().mean():.0%} of those without, 10% by chance")  # fmt: skip
