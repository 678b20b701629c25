"""The evidence of MNIST's 10,000 test images by 5000 samples each: wall time and peak memory.

One hidden layer of 400 each way, ReLU, z = 40; trained for one epoch, for the time does not depend
on the weights. `log_evidence` is called once, with a memory budget. Between its runs, every so
many, the floor is timed on as many rows: the decoder's matrix products, and the log-prob of the
pixels with its softplus in one fused kernel, all compiled by the same compiler; its mean time is
scaled to all rows. A run of the program by Pyro's handlers is timed in the same way. What these
take is off the wall time. Wall time has everything: tracing, compiling, drawing, comparing with the
program, sums, k-hat.

Peak memory is that of the process during the call less what it held before; the compiler is not
loaded before, and the floor's own compiling and arrays are in it, too.

Data: mnist_static.npz, as in mnist_static.py, in --data-dir or $PPL_VAE_DATA; random images where
it is not there.

Usage: python benchmarks/mnist_evidence.py [--quick] [--data-dir DIR] [--budget MIB] [--threads N]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from mnist_static import static
from record import record
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae import MLP, VAE, Bernoulli, Conditional, Normal, StandardNormal, fit, log_evidence
from ppl_vae.diagnostics import mean_evidence
from ppl_vae.posterior import evidence
from ppl_vae.posterior.compiled_weights import CompiledWeights
from ppl_vae.training.inductor import compiled, trace, why_not

SEED = 0
LATENT = 40
EVERY = 25  # runs of ours to one of the floor,
RARELY = 250  # and to one by Pyro's handlers
MIB = 2**20


def images(folder: Path, quick: bool) -> tuple[Tensor, Tensor, str]:
    """Training and test images, and what they are."""
    if not quick and (folder / "mnist_static.npz").exists():
        train, _, test = static(folder)
        return train, test, "static MNIST, test"
    rows = 64 if quick else 10_000
    generator = torch.Generator().manual_seed(SEED)
    x = torch.bernoulli(torch.full((1000 + rows, 784), 0.2), generator=generator)
    return x[:1000], x[1000:], "random"


class Stopwatch:
    """Times runs of ours, and what is put between them."""

    def __init__(self, program: VAE) -> None:
        self.linear = [m for m in program.decoder.modules() if isinstance(m, nn.Linear)]
        self.floor: Any = None
        self.seconds: dict[str, list[float]] = {
            k: [] for k in ("ours", "floor", "handlers", "compiling", "summing", "between")
        }
        self.runs = 0

    def timed(self, name: str, function: Any, *arguments: Any) -> Any:
        """Call, and note how long it took."""
        start = time.perf_counter()
        found = function(*arguments)
        self.seconds[name].append(time.perf_counter() - start)
        return found

    def put_between(self) -> None:
        """Have `log_evidence` time its pieces, and the others between them."""
        run, start, summarise = (
            CompiledWeights.__call__,
            CompiledWeights.__init__,
            evidence.evidence,
        )

        def timed_run(weights: CompiledWeights, part: Any) -> Tensor:
            found: Tensor = self.timed("ours", run, weights, part)
            self.runs += 1
            if self.runs % EVERY == 1:
                self.timed("between", self.others, weights, part)
            if self.runs % 500 == 0:
                print(self.runs, "runs,", self.milliseconds(), flush=True)
            return found

        CompiledWeights.__call__ = timed_run  # type: ignore[method-assign]
        CompiledWeights.__init__ = lambda *a: self.timed("compiling", start, *a)  # type: ignore[method-assign]
        evidence.evidence = lambda *a, **k: self.timed("summing", lambda: summarise(*a, **k))  # type: ignore[attr-defined]

    def milliseconds(self) -> dict[str, float]:
        """The median run of each."""
        names = ("ours", "floor", "handlers")
        return {k: round(1e3 * statistics.median(self.seconds[k]), 2) for k in names}

    def others(self, weights: CompiledWeights, part: Any) -> None:
        """The floor on the rows of this run, and now and then the program itself."""
        (x,) = part.args
        if self.floor is None:
            self.draws = weights.draws
            self.z = torch.zeros(len(x) * self.draws, LATENT)
            self.floor = compiled(trace(self.by_hand, (self.z, x)), (self.z, x))
            self.floor(self.z, x)
        with torch.random.fork_rng(devices=[]):
            self.z.normal_()
            self.timed("floor", self.floor, self.z, x)
            if self.runs % RARELY == 1:
                self.timed("handlers", weights.weighing, part, weights.draws)

    def by_hand(self, _: list[Tensor], z: Tensor, x: Tensor) -> list[Tensor]:
        """log p(x|z) of logits."""
        first, second = self.linear
        logits = second(torch.relu(first(z)))
        return [(x.repeat(self.draws, 1) * logits - softplus(logits)).sum(-1)]


STATUS = Path("/proc/self/status")  # of Linux; elsewhere the highest peak so far has to do


def resident() -> float:
    """MiB that the process holds; from now on its peak is counted anew."""
    if not STATUS.exists():
        return peak()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _kib("VmRSS") / 1024


def peak() -> float:
    """The most MiB that the process has held since."""
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return _kib("VmHWM") / 1024


def _kib(name: str) -> int:
    (line,) = (v for v in STATUS.read_text().splitlines() if v.startswith(f"{name}:"))
    return int(line.split()[1])


def main() -> None:
    """Train a little, take the evidence once, write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 random images, 500 samples each")
    parser.add_argument("--data-dir", default=os.environ.get("PPL_VAE_DATA", "."))
    parser.add_argument("--budget", type=int, default=512, help="MiB")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if (reason := why_not()) is not None:
        print(json.dumps({"script": "mnist_evidence", "skipped": reason}))
        return
    started = time.perf_counter()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    train, test, name = images(Path(options.data_dir), options.quick)
    draws = 500 if options.quick else 5000
    vae = VAE(
        StandardNormal(LATENT),
        Conditional(MLP(400), Bernoulli(784), given=LATENT),
        Conditional(MLP(400), Normal(LATENT), given=784),
    )
    fit(vae, train, epochs=1, batch_size=100, seed=SEED, compile=False, progress=False)
    del train
    watch = Stopwatch(vae)
    watch.put_between()
    before = resident()
    begun = time.perf_counter()
    result = log_evidence(
        vae,
        test,
        draws,
        seed=SEED,
        budget=options.budget * MIB,
        compile=True if options.quick else "auto",
    )
    seconds = time.perf_counter() - begun - sum(watch.seconds["between"])
    rise = peak() - before
    rows = len(test) * draws
    per_run = len(watch.z)
    floor = statistics.mean(watch.seconds["floor"]) * rows / per_run
    median = watch.milliseconds()
    mean = mean_evidence(result)
    figures = {
        "images": f"{len(test)}, {name}",
        "samples": draws,
        "wall_s": round(seconds, 2),
        "floor_s": round(floor, 2),
        "wall_over_floor": round(seconds / floor, 3),
        "run_over_floor_medians": round(median["ours"] / median["floor"], 3),
        "handlers_over_floor_medians": round(median["handlers"] / median["floor"], 3),
        "ms_per_run_medians": median,
        "rows_of_a_run": per_run,
        "floor_runs_timed": len(watch.seconds["floor"]),
        "compiling_s": round(sum(watch.seconds["compiling"]), 2),
        "sums_and_khat_s": round(sum(watch.seconds["summing"]), 2),
        "parts_of_the_data": len(watch.seconds["summing"]),
        "budget_MiB": options.budget,
        "peak_rise_MiB": round(rise, 1),
        "log_p_per_datum": round(mean.mean, 3),
        "mc_se": round(mean.mc_se, 4),
        "bias": round(mean.bias, 4),
        "threads": options.threads,
    }
    record(__file__, figures, seed=SEED, started=started, quick=options.quick)


if __name__ == "__main__":
    main()
