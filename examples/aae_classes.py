"""One program of classes and style under two objectives: Kingma's M2 and Makhzani's AAE.

y is one of ten classes, z ~ N(0, I) the style; some images have their label. Under
`TraceEnum_ELBO` the classes are summed out (Kingma et al. 2014, arXiv:1406.5298); under
`Adversarial` the code of an image is q(y|x) itself, and a critic each holds q(y) to p(y) and q(z)
to p(z) (Makhzani et al. 2015, arXiv:1511.05644, section 4).

    python examples/aae_classes.py
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn

from ppl_vae import MLP, Adversarial, Program, fit
from ppl_vae.data import digits

CLASSES, STYLE = 10, 4


class Digits(nn.Module):
    """The nets, the model and the guide."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = MLP(128)(CLASSES + STYLE, 64)
        self.classifier, self.encoder = MLP(128)(64, CLASSES), MLP(128)(64, 2 * STYLE)

    def model(self, x: Tensor, label: Tensor) -> None:
        """p(y) p(z) p(x|y, z), and q(label|x) where a label is known: a row that is not zero."""
        pyro.module("digits", self)
        known = label.sum(-1) > 0
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(CLASSES)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(STYLE), 1.0).to_event(1))
            batch = torch.broadcast_shapes(y.shape[:-1], z.shape[:-1])  # all classes, summed out
            both = torch.cat([v.expand(*batch, -1) for v in (y, z)], -1)
            pyro.sample("x", dist.Binomial(16, logits=self.decoder(both)).to_event(1), obs=x)
            said = torch.where(known[:, None], label, torch.eye(CLASSES)[0].to(x))
            with poutine.mask(mask=known), poutine.scale(scale=50.0):
                q = dist.OneHotCategorical(logits=self.classifier(x / 16))
                pyro.sample("label", q, obs=said)

    def guide(self, x: Tensor, label: Tensor) -> None:
        """q(y|x), which a known label settles, and q(z|x)."""
        pyro.module("digits", self)
        ruled_out = (label.sum(-1, keepdim=True) > 0) & (label == 0)
        with pyro.plate("data", len(x)):
            logits = self.classifier(x / 16).masked_fill(ruled_out, -torch.inf)
            q = dist.OneHotCategorical(logits=logits)
            pyro.sample("y", q, infer={"enumerate": "parallel"})
            loc, raw = self.encoder(x / 16).chunk(2, -1)
            scale = nn.functional.softplus(raw) + 1e-3
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


x, labels = digits()
x, labels = torch.as_tensor(x).float().reshape(-1, 64), torch.as_tensor(labels).long()
label = torch.eye(CLASSES)[labels] * (torch.arange(len(x)) % 10 == 0)[:, None]
train = {"x": x[:1400], "label": label[:1400]}

for objective in (
    TraceEnum_ELBO(max_plate_nesting=1),
    Adversarial({"y": MLP(64), "z": MLP(64)}, weight=20.0),
):
    torch.manual_seed(0)
    pyro.clear_param_store()
    nets = Digits()
    program = Program(nets.model, nets.guide, modules=[nets])
    fit(program, train, objective=objective, epochs=40, seed=0, progress=False)
    with torch.no_grad():
        wrong = nets.classifier(x[1400:] / 16).argmax(-1) != labels[1400:]
    print(f"{type(objective).__name__}: {wrong.float().mean():.1%} of held-out digits are wrong, "
          "140 labels")  # fmt: skip
