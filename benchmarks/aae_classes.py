"""Digits with classes: the semi-supervised and the clustering adversarial autoencoder.

Makhzani et al. 2015 (arXiv:1511.05644, sections 4 and 5). One program, y ~ p(y) one of K classes,
z ~ N(0, I) the style, x | y, z the pixels; the guide gives q(y|x) and q(z|x). One critic sees y and
z side by side, so that the style may not tell the class: with a critic for each it may, as in the
paper. Semi-supervised: K = 10, and 1000 of the training images have their label, which is
observed beside x. Clustering: K = 16 and no label; each cluster takes the label of the validation
image of which q(y|x) is the surest, as in the paper, and the error is that of the test images.

Nets of 400-400 ReLU (the paper's have 1000-1000), a style of 5, Bernoulli pixels (grey above one
half), noise of sd 0.3 on the pixels that the encoding nets see in training, Adam, batches of 100.
The labelled images stand ten times among the unlabelled, so that every batch has some. The last
10,000 training images are validation; rates, weights and critics of the semi-supervised one were
chosen by their error in runs of 15 epochs on 20,000 images, which printed the test error as well.
The same classifier from the labelled images alone stands beside it. One seed.

Data: mnist.npz (train_x, train_y, test_x, test_y) in --data-dir or $PPL_VAE_DATA. Half an hour a
cell on one core: --work keeps a checkpoint and the result of each.

Usage: python benchmarks/aae_classes.py [--quick] [--data-dir DIR] [--work DIR] [--cells NAME,...]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from record import machine, record, resumed
from torch import Tensor, nn

from ppl_vae import MLP, Adversarial, Conditional, Normal, Program, fit
from ppl_vae.data import digits

SEED, BATCH, LABELLED, COPIES = 0, 100, 1000, 10
LATENT, NOISE, LABEL_WEIGHT = 5, 0.3, 50.0
CLASSES = {"semi-supervised": 10, "clustering": 16}
EPOCHS = 60
FALLING = torch.optim.lr_scheduler.CosineAnnealingLR


class Images(NamedTuple):
    """Images and labels."""

    x: Tensor
    y: Tensor


class Nets(nn.Module):
    """What the program learns."""

    def __init__(self, pixels: int, classes: int, latent: int, hidden: int) -> None:
        super().__init__()
        net = MLP(hidden, hidden)
        self.decoder = net(classes + latent, pixels)
        self.classifier = net(pixels, classes)
        self.encoder = Conditional(net, Normal(latent), given=pixels)
        self.classes, self.latent = classes, latent

    def seen(self, x: Tensor) -> Tensor:
        """What the encoding nets see: noise on the pixels while they train."""
        return x + NOISE * torch.randn_like(x) if self.training else x

    def model(self, x: Tensor, label: Tensor) -> None:
        """y, z, x, and the label where it is known: rows of zeros have none."""
        pyro.module("nets", self)
        known = label.sum(-1) > 0
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(self.classes)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent), 1.0).to_event(1))
            pixels = dist.Bernoulli(logits=self.decoder(torch.cat([y, z], -1)))
            pyro.sample("x", pixels.to_event(1), obs=x)
            with poutine.mask(mask=known), poutine.scale(scale=LABEL_WEIGHT):
                said = torch.where(known[:, None], label, torch.eye(self.classes)[0].to(x))
                q = dist.OneHotCategorical(logits=self.classifier(self.seen(x)))
                pyro.sample("label", q, obs=said)

    def guide(self, x: Tensor, label: Tensor) -> None:
        """q(y|x), which a known label settles, and q(z|x)."""
        pyro.module("nets", self)
        known = label.sum(-1, keepdim=True) > 0
        with pyro.plate("data", len(x)):
            logits = self.classifier(self.seen(x)).masked_fill(known & (label == 0), -torch.inf)
            pyro.sample("y", dist.OneHotCategorical(logits=logits))
            pyro.sample("z", self.encoder(self.seen(x)))


def main() -> None:
    """Train the cells that are not done, and write the table down if all are."""
    torch.set_flush_denormal(True)  # threads that are started later inherit it
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="scikit-learn's digits, small nets")
    parser.add_argument("--data-dir", default=os.environ.get("PPL_VAE_DATA", "."))
    parser.add_argument("--work", default="aae_classes", help="folder of checkpoints and results")
    parser.add_argument("--cells", default=",".join(CLASSES))
    options = parser.parse_args()
    started = time.perf_counter()
    if options.quick:
        rows = [cell(name, small(), hidden=64, epochs=5, labelled=200) for name in CLASSES]
        record(__file__, table(rows), seed=SEED, started=started, quick=True)
        return
    work = Path(options.work)
    sets = images(Path(options.data_dir) / "mnist.npz")

    def run(name: str) -> dict[str, Any]:
        return cell(name, sets, checkpoint=work / f"{name}.safetensors")

    if (rows := resumed(work, list(CLASSES), options.cells.split(","), run)) is None:
        return
    record(__file__, table(rows), seed=SEED, started=started)


def cell(
    name: str,
    sets: list[Images],
    *,
    checkpoint: Path | None = None,
    hidden: int = 400,
    epochs: int = EPOCHS,
    labelled: int = LABELLED,
) -> dict[str, Any]:
    """Train one program and count its errors."""
    train, valid, test = sets
    classes = CLASSES[name]
    x, label = train.x, torch.zeros(len(train.x), classes)
    more: dict[str, Any] = {}
    if name == "semi-supervised":
        # As many of each class, as in the paper.
        noise = torch.Generator().manual_seed(SEED)
        order = torch.randperm(len(x), generator=noise)
        each = [order[train.y[order] == k][: labelled // 10] for k in range(10)]
        known = torch.cat(each)
        alone = labels_alone(Images(train.x[known], train.y[known]), hidden=hidden)
        more["test_error_of_labels_alone"] = error(alone(test.x).argmax(-1), test.y)
        known = known.repeat(COPIES)
        x = torch.cat([x, train.x[known]])
        label = torch.cat([label, torch.eye(classes)[train.y[known]]])
    torch.manual_seed(SEED)
    pyro.clear_param_store()  # of the cell before, whose names are the same
    nets = Nets(x.shape[1], classes, LATENT, hidden)
    history, _ = fit(
        Program(nets.model, nets.guide, modules=[nets]),
        {"x": x, "label": label},
        objective=Adversarial(
            critic={("y", "z"): MLP(400, 400)},
            weight=10.0,
            critic_optimizer=(torch.optim.Adam, {"lr": 5e-4, "betas": (0.5, 0.999)}),
        ),
        optimizer=(torch.optim.Adam, {"lr": 2e-3}),
        schedule=(FALLING, {"T_max": epochs}),
        epochs=epochs,
        batch_size=BATCH,
        seed=SEED,
        checkpoint=checkpoint,
        progress=False,
    )
    nets.eval()
    with torch.no_grad():
        sure, said = (nets.classifier(s.x).softmax(-1) for s in (valid, test))
    meaning = torch.arange(classes)
    if name == "clustering":
        meaning = valid.y[sure.argmax(0)]
    else:
        more["validation_error"] = error(sure.argmax(-1), valid.y)
    wrong = error(meaning[said.argmax(-1)], test.y)
    share = said.argmax(-1).bincount(minlength=classes) / len(said)
    last = {k: round(v, 3) for k, v in history.rows[-1].items() if k.startswith("critic_")}
    return {
        "name": name,
        "test_error": wrong,
        "se_over_data": round((wrong * (1 - wrong) / len(test.y)) ** 0.5, 4),
        **more,
        "sureness": round(float(said.max(-1).values.mean()), 3),
        "shares_of_classes": [round(float(s), 3) for s in share],
        **last,
        "epochs": len(history),
        "training_minutes": round(float(np.sum(history["seconds"])) / 60, 1),
        "threads": torch.get_num_threads(),
        "machine": machine(),
    }


def error(said: Tensor, y: Tensor) -> float:
    """Share of the images whose class is another."""
    return round(float((said != y).double().mean()), 4)


def labels_alone(known: Images, *, hidden: int, epochs: int = 100) -> nn.Module:
    """The same classifier from the labelled images and nothing else."""
    torch.manual_seed(SEED)
    nets = Nets(known.x.shape[1], 10, LATENT, hidden)
    adam = torch.optim.Adam(nets.classifier.parameters(), lr=3e-4)
    for _ in range(epochs):
        for rows in torch.randperm(len(known.x)).split(BATCH):
            adam.zero_grad()
            said = nets.classifier(nets.seen(known.x[rows]))
            nn.functional.cross_entropy(said, known.y[rows]).backward()
            adam.step()
    return nets.classifier


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors beside the paper's, which are recalled."""
    return {
        "paper_recalled": {"semi-supervised": 0.016, "clustering": 0.0955},
        **{f"{r['name']}: test_error": r["test_error"] for r in rows},
        "labels alone: test_error": rows[0]["test_error_of_labels_alone"],
        "training_minutes": round(sum(r["training_minutes"] for r in rows), 1),
        "rows": rows,
    }


def images(file: Path) -> list[Images]:
    """Training, validation and test images, ``(N, 784)``, 0 and 1, with labels."""
    with np.load(file, allow_pickle=False) as held:
        found = [
            Images(
                (torch.from_numpy(held[f"{k}_x"]) > 127).float().reshape(-1, 784),
                torch.from_numpy(held[f"{k}_y"]).long(),
            )
            for k in ("train", "test")
        ]
    train, test = found
    return [
        Images(train.x[:50_000], train.y[:50_000]),
        Images(train.x[50_000:], train.y[50_000:]),
        test,
    ]


def small() -> list[Images]:
    """A stand-in that everybody has."""
    x, y = digits()
    x = torch.from_numpy(x > 8).reshape(-1, 64).float()
    y = torch.as_tensor(y).long()
    return [Images(x[a:b], y[a:b]) for a, b in ((0, 1300), (1300, 1500), (1500, 1797))]


if __name__ == "__main__":
    main()
