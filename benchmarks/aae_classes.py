"""Digits with classes: the semi-supervised and the clustering adversarial autoencoder.

Makhzani et al. 2015 (arXiv:1511.05644, sections 4 and 5). One program, y ~ p(y) one of K classes,
z ~ N(0, I) the style, x | y, z the pixels; the guide gives q(y|x) and q(z|x). One critic sees y and
z side by side, so that the style may not tell the class: with a critic for each it may, as in the
paper. Semi-supervised: K = 10, and 1000 of the training images have their label, which is
observed beside x. Clustering: K = 16 and no label; each cluster takes the label of the validation
image of which q(y|x) is the surest, as in the paper, and the error is that of the test images.

Without labels all images fall into one class within an epoch, for the critic tells soft classes
from hard ones at once. Two things end that: logits of mean 0 and variance 1 over a batch, times 2,
so that every class is used and none is sure at first; and a first stage in which the decoder gets a
style drawn from its prior, so that the class must carry what it is told of the image.

Nets of 400-400 ReLU (the paper's have 1000-1000), a style of 5, Bernoulli pixels (grey above one
half), noise of sd 0.3 on the pixels that the encoding nets see in training, Adam, batches of 100.
The labelled images stand ten times among the unlabelled, so that every batch has some. The last
10,000 training images are validation: by their error, with all their labels, were chosen rates,
weights, critics, style and stages, in some forty runs of 10 to 20 epochs on 20,000 images (those of
the semi-supervised one printed the test error as well, which chose nothing), and the rate of the
same classifier from the labelled images alone, which stands beside it. One seed.

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

from ppl_vae import MLP, Adversarial, Conditional, History, Normal, Program, fit
from ppl_vae.data import digits

SEED, BATCH, LABELLED, COPIES = 0, 100, 1000, 10
LATENT, NOISE, LABEL_WEIGHT, SHARPNESS = 5, 0.3, 50.0, 2.0
CLASSES = {"semi-supervised": 10, "clustering": 16}
EPOCHS, EPOCHS_BEFORE = 40, 8
FALLING = torch.optim.lr_scheduler.CosineAnnealingLR


class Images(NamedTuple):
    """Images and labels."""

    x: Tensor
    y: Tensor


class Nets(nn.Module):
    """What the program learns; `styled` is False while the decoder gets noise for a style."""

    def __init__(self, pixels: int, classes: int, hidden: int, *, spread: bool) -> None:
        super().__init__()
        net = MLP(hidden, hidden)
        self.decoder = net(classes + LATENT, pixels)
        self.classifier = nn.Sequential(net(pixels, classes))
        if spread:
            norm = nn.BatchNorm1d(classes).requires_grad_(False)
            nn.init.constant_(norm.weight, SHARPNESS)
            self.classifier.append(norm)
        self.encoder = Conditional(net, Normal(LATENT), given=pixels)
        self.classes, self.styled = classes, True

    def seen(self, x: Tensor) -> Tensor:
        """What the encoding nets see: noise on the pixels while they train."""
        return x + NOISE * torch.randn_like(x) if self.training else x

    def model(self, x: Tensor, label: Tensor | None = None) -> None:
        """y, z, x, and the label where it is known: rows of zeros have none."""
        pyro.module("nets", self)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(self.classes)))
            prior = dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1)
            z = pyro.sample("z", prior) if self.styled else prior.sample((len(x),))
            pixels = dist.Bernoulli(logits=self.decoder(torch.cat([y, z], -1)))
            pyro.sample("x", pixels.to_event(1), obs=x)
            if label is None:
                return
            known = label.sum(-1) > 0
            with poutine.mask(mask=known), poutine.scale(scale=LABEL_WEIGHT):
                said = torch.where(known[:, None], label, torch.eye(self.classes)[0].to(x))
                q = dist.OneHotCategorical(logits=self.classifier(self.seen(x)))
                pyro.sample("label", q, obs=said)

    def guide(self, x: Tensor, label: Tensor | None = None) -> None:
        """q(y|x), which a known label settles, and q(z|x)."""
        pyro.module("nets", self)
        with pyro.plate("data", len(x)):
            logits = self.classifier(self.seen(x))
            if label is not None:
                known = label.sum(-1, keepdim=True) > 0
                logits = logits.masked_fill(known & (label == 0), -torch.inf)
            pyro.sample("y", dist.OneHotCategorical(logits=logits))
            if self.styled:
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
    data = {"x": train.x}
    more: dict[str, Any] = {}
    if name == "semi-supervised":
        # As many of each class, as in the paper.
        noise = torch.Generator().manual_seed(SEED)
        order = torch.randperm(len(train.x), generator=noise)
        each = [order[train.y[order] == k][: labelled // 10] for k in range(10)]
        known = torch.cat(each)
        alone = Images(train.x[known], train.y[known])
        more["test_error_of_labels_alone"] = labels_alone(alone, valid, test, hidden=hidden)
        known = known.repeat(COPIES)
        unknown, label = torch.zeros(len(train.x), classes), torch.eye(classes)[train.y[known]]
        data = {"x": torch.cat([train.x, train.x[known]]), "label": torch.cat([unknown, label])}
    torch.manual_seed(SEED)
    nets = Nets(train.x.shape[1], classes, hidden, spread=name == "clustering")
    minutes = 0.0
    if name == "clustering":
        nets.styled = False
        before = trained(nets, data, "y", EPOCHS_BEFORE if checkpoint else epochs, checkpoint)
        minutes += float(np.sum(before["seconds"])) / 60
        nets.styled = True
    history = trained(nets, data, ("y", "z"), epochs, checkpoint)
    minutes += float(np.sum(history["seconds"])) / 60
    nets.eval()
    with torch.no_grad():
        valid_logits, logits = nets.classifier(valid.x), nets.classifier(test.x)
    said = logits.argmax(-1)
    if name == "clustering":
        meaning = valid.y[log_odds(valid_logits).argmax(0)]
        counts = nn.functional.one_hot(valid_logits.argmax(-1), classes).T @ nn.functional.one_hot(
            valid.y, 10
        )
        more["test_error_by_majority"] = error(counts.argmax(1)[said], test.y)
    else:
        meaning = torch.arange(classes)
    more["validation_error"] = error(meaning[valid_logits.argmax(-1)], valid.y)
    wrong = error(meaning[said], test.y)
    share = said.bincount(minlength=classes) / len(said)
    last = {k: round(v, 3) for k, v in history.rows[-1].items() if k.startswith("critic_")}
    return {
        "name": name,
        "test_error": wrong,
        "se_over_data": round((wrong * (1 - wrong) / len(test.y)) ** 0.5, 4),
        **more,
        "sureness": round(float(logits.softmax(-1).max(-1).values.mean()), 3),
        "shares_of_classes": [round(float(s), 3) for s in share],
        **last,
        "epochs": len(history),
        "training_minutes": round(minutes, 1),
        "threads": torch.get_num_threads(),
        "machine": machine(),
    }


def trained(
    nets: Nets,
    data: dict[str, Tensor],
    seen: str | tuple[str, ...],
    epochs: int,
    checkpoint: Path | None,
) -> History:
    """Train all nets, with one critic of the latents named."""
    pyro.clear_param_store()  # of the fit before, whose names are the same
    if checkpoint is not None:
        checkpoint = checkpoint.with_name(f"{checkpoint.stem} {' '.join(seen)}.safetensors")
    history, _ = fit(
        Program(nets.model, nets.guide, modules=[nets]),
        data,
        objective=Adversarial(
            critic={seen: MLP(400, 400)},
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
    return history


def log_odds(logits: Tensor) -> Tensor:
    """Log odds of each class against all others: probabilities near 1 are equal in float32."""
    others = logits[:, None].masked_fill(torch.eye(logits.shape[1], dtype=torch.bool), -torch.inf)
    return logits - others.logsumexp(-1)


def error(said: Tensor, y: Tensor) -> float:
    """Share of the images whose class is another."""
    return round(float((said != y).double().mean()), 4)


def labels_alone(known: Images, valid: Images, test: Images, *, hidden: int) -> float:
    """Test error of the same classifier from the labelled images and nothing else."""
    found = []
    for rate in (1e-4, 3e-4, 1e-3, 3e-3):
        torch.manual_seed(SEED)
        nets = Nets(known.x.shape[1], 10, hidden, spread=False)
        adam = torch.optim.Adam(nets.classifier.parameters(), lr=rate)
        falling = FALLING(adam, T_max=100)
        for _ in range(100):
            for rows in torch.randperm(len(known.x)).split(BATCH):
                adam.zero_grad()
                said = nets.classifier(nets.seen(known.x[rows]))
                nn.functional.cross_entropy(said, known.y[rows]).backward()
                adam.step()
            falling.step()
        with torch.no_grad():
            found.append([error(nets.classifier(s.x).argmax(-1), s.y) for s in (valid, test)])
    return min(found)[1]


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
