"""Imputation of tables: UCI Adult and Wine, 20 % of the cells hidden by ten published masks.

The masks are those of Nazábal et al. 2020 (arXiv:1807.03653); so are the errors: of numbers the
root mean square error over the range, of ordered classes |Δ|/(K − 1), of classes the share that is
wrong, each averaged over the columns of a type. Compared are the mean or most frequent class of a
column, scikit-learn's IterativeImputer (with logistic regressions for classes), and a VAE with
`Columns`, trained on the cells that are left (what the masks hide is never seen) and imputed by
`impute`. Families of numbers are those of `propose_columns`, the others follow the published types.

Data: uci_adult_wine.npz, keys {Adult,Wine}_x, _type, _nclass and _missing20_k (packed, 1 = hidden),
in --data-dir or $PPL_VAE_DATA.

The families, the network and the epochs were settled on mask 1 of each table, whose errors were
looked at on the way; masks 2 to 10 took no part.

An hour and more: --work keeps what each mask gave, and a run that is cut off goes on from there.

Usage: python benchmarks/tables.py [--quick] [--data-dir DIR] [--work DIR] [--cells NAME,...]
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from record import record, resumed
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LogisticRegression

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Categorical,
    Columns,
    Conditional,
    Family,
    Features,
    ImportanceWeighted,
    Normal,
    Ordinal,
    StandardNormal,
    fit,
    impute,
    propose_columns,
)
from ppl_vae.diagnostics import imputation_error

SEED, LATENT, HIDDEN, EPOCHS = 0, 10, 128, {"Adult": 40, "Wine": 150, "made up": 100}
CELLS = [f"{name}-{mask + 1}" for name in ("Adult", "Wine") for mask in range(10)]
LEVELS = {"count": "numeric", "pos": "numeric", "real": "numeric", "cat": "nominal"}

Floats = NDArray[np.float64]
Set = tuple[str, Floats, list[str], list[int], NDArray[np.bool_]]


def families(x: Floats, types: list[str], classes: list[int]) -> dict[str, Family]:
    """A family for each column, by its published type."""
    columns = enumerate(zip(types, classes, strict=True))
    return {str(d): _family(x[:, d], t, int(k)) for d, (t, k) in columns}


def _family(column: Floats, kind: str, classes: int) -> Family:
    if kind == "cat":
        return Bernoulli(()) if classes == 2 else Categorical((), classes=classes)
    if kind == "ordinal":
        return Ordinal((), classes=classes)
    return propose_columns(pd.DataFrame({"x": column})).families["x"]


def by_vae(x: Floats, types: list[str], classes: list[int], epochs: int) -> Floats:
    """Ours."""
    table = Columns(families(x, types, classes))
    size = x.shape[1]
    torch.manual_seed(SEED)
    vae = VAE(
        StandardNormal(LATENT),
        Conditional(MLP(HIDDEN), table, given=LATENT),
        Conditional(
            Features(MLP(HIDDEN), table, mask=True),
            Normal(LATENT),
            given={"x": size, "mask": size},
        ),
    )
    steps = torch.optim.lr_scheduler.CosineAnnealingLR
    fit(
        vae, x, objective=ImportanceWeighted(10), epochs=epochs, batch_size=256,
        optimizer=(torch.optim.Adam, {"lr": 2e-3}), schedule=(steps, {"T_max": epochs}),
        clip_norm=10.0, seed=SEED, progress=False,
    )  # fmt: skip
    return impute(vae, x, 200, num_draws=2, seed=SEED).point


def by_column(x: Floats, types: list[str], classes: list[int], epochs: int) -> Floats:
    """The mean of a column, or its most frequent class."""
    found = x.copy()
    for d, kind in enumerate(types):
        seen = x[~np.isnan(x[:, d]), d]
        if kind == "cat":
            value = float(np.bincount(seen.astype(int)).argmax())
        else:
            value = float(np.median(seen)) if kind == "ordinal" else float(seen.mean())
        found[np.isnan(x[:, d]), d] = value
    return found


def by_chained_equations(x: Floats, types: list[str], classes: list[int], epochs: int) -> Floats:
    """scikit-learn's IterativeImputer, Bayesian ridge regressions; classes by logistic ones.

    The columns of a class that is one-hot add up to 1: regressed on each other they stay where they
    start. Classes are predicted from all other columns, as imputed, instead.
    """
    blocks, places = [], []
    for d, (kind, k) in enumerate(zip(types, classes, strict=True)):
        column, start = x[:, d], sum(b.shape[1] for b in blocks)
        if kind == "cat":
            block = np.where(np.isnan(column)[:, None], np.nan, column[:, None] == np.arange(k))
        else:
            block = ((column - np.nanmean(column)) / np.nanstd(column))[:, None]
        blocks.append(block.astype(float))
        places.append(slice(start, start + block.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ten rounds have not converged
        filled = IterativeImputer(max_iter=10, random_state=SEED).fit_transform(np.hstack(blocks))
    found = x.copy()
    for d, (kind, k) in enumerate(zip(types, classes, strict=True)):
        values, gap = filled[:, places[d]], np.isnan(x[:, d])
        if kind == "cat":
            others = np.delete(filled, np.r_[places[d]], axis=1)
            regression = LogisticRegression(max_iter=300).fit(others[~gap], x[~gap, d])
            point = np.zeros(len(x))
            point[gap] = regression.predict(others[gap])
        else:
            point = values[:, 0] * np.nanstd(x[:, d]) + np.nanmean(x[:, d])
        if kind == "ordinal":
            point = point.round().clip(0, k - 1)
        found[gap, d] = point[gap]
    return found


METHODS: dict[str, Callable[..., Floats]] = {
    "column": by_column,
    "iterative": by_chained_equations,
    "ppl_vae": by_vae,
}


def main() -> None:
    """Impute every table under every mask by every method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 made-up rows")
    parser.add_argument("--data-dir", default=os.environ.get("PPL_VAE_DATA", "."))
    parser.add_argument("--work", default="tables", help="folder of what each mask gave")
    parser.add_argument("--cells", default=",".join(CELLS), help="such as Adult-1,Wine-1")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.quick:
        record(__file__, table(cell(made_up(), 1)), seed=SEED, started=started, quick=True)
        return

    def run(name: str) -> list[dict[str, Any]]:
        which, mask = name.split("-")
        return cell(published(Path(options.data_dir), which, int(mask)), int(mask))

    if (found := resumed(Path(options.work), CELLS, options.cells.split(","), run)) is not None:
        rows = [row for rows in found for row in rows]
        record(__file__, table(rows), seed=SEED, started=started)


def cell(data: Set, mask: int) -> list[dict[str, Any]]:
    """One table under one mask, by every method."""
    name, truth, types, classes, hidden = data
    levels: Any = [LEVELS.get(t, t) for t in types]
    gappy, kinds = np.where(hidden, np.nan, truth), np.array(types)
    rows = []
    for method, run in METHODS.items():
        begun = time.perf_counter()
        point = run(gappy, types, classes, EPOCHS[name])
        errors = imputation_error(truth, point, hidden, levels, classes=classes)
        found = {t: float(np.nanmean(errors[kinds == t])) for t in sorted(set(types))}
        row = {"data": name, "mask": mask, "method": method, **found}
        rows.append({**row, "seconds": round(time.perf_counter() - begun, 1)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean error over the masks and its spread, by data, type and method; who is best how often."""
    figures: dict[str, Any] = {}
    best = total = 0
    for data in dict.fromkeys(r["data"] for r in rows):
        mine = [r for r in rows if r["data"] == data]
        for kind in [k for k in mine[0] if k not in ("data", "mask", "method", "seconds")]:
            means = {}
            for method in METHODS:
                values = [r[kind] for r in mine if r["method"] == method]
                means[method] = float(np.mean(values))
                spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
                figures[f"{data}_{kind}_{method}"] = f"{means[method]:.4f}{spread}"
            best += min(means, key=lambda m: means[m]) == "ppl_vae"
            total += 1
    figures["types_on_which_ppl_vae_is_best"] = f"{best} of {total}"
    figures["rows"] = [
        {k: round(v, 5) if isinstance(v, float) else v for k, v in r.items()} for r in rows
    ]
    return figures


def published(folder: Path, name: str, mask: int) -> Set:
    """Adult or Wine, and what one of the masks hides."""
    with np.load(folder / "uci_adult_wine.npz", allow_pickle=False) as file:
        x, types = file[f"{name}_x"].copy(), file[f"{name}_type"].tolist()
        x[:, [t in ("cat", "ordinal") for t in types]] -= 1  # codes start at 0
        hidden = np.unpackbits(file[f"{name}_missing20_{mask}"], axis=1)[:, : x.shape[1]]
        return name, x, types, file[f"{name}_nclass"].tolist(), hidden.astype(bool)


def made_up() -> Set:
    """A small table of every type, for a smoke run."""
    rng = np.random.default_rng(SEED)
    z = rng.standard_normal(300)
    x = np.stack(
        [
            3 + z + 0.3 * rng.standard_normal(300),
            np.exp(z + 0.3 * rng.standard_normal(300)),
            rng.poisson(np.exp(0.5 * z + 1)),
            (z + 0.5 * rng.standard_normal(300) > 0) + 1.0 * (z > 1),
            np.digitize(z, [-1, 0, 1]),
        ],
        axis=1,
    )
    types, classes = ["real", "pos", "count", "cat", "ordinal"], [0, 0, 0, 3, 4]
    return "made up", x, types, classes, rng.random(x.shape) < 0.2


if __name__ == "__main__":
    main()
