"""Training on disk: one safetensors file, written atomically, loading runs no code."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from pyro.optim import PyroOptim
from torch import Tensor, nn

from ppl_vae.conditional import declared_family
from ppl_vae.data.batches import Batch
from ppl_vae.programs.modes import device_of, evaluating
from ppl_vae.programs.runs import run
from ppl_vae.programs.vae import VAE
from ppl_vae.training.loop import Loop

FORMAT = 3


class Checkpoint:
    """Saves a `Loop` after each epoch, and continues it bit for bit.

    Args:
        path: The file.
        loop: The run.
        seed: Its seed, part of what identifies a run.

    Raises:
        ValueError: If the folder is not there, or the file is of another run or no checkpoint.
    """

    def __init__(self, path: Path, loop: Loop, seed: int | None) -> None:
        if not path.parent.is_dir():
            raise ValueError(
                f"Got checkpoint={str(path)!r} in a folder that is not there; expected one that "
                f"is. Try mkdir -p {str(path.parent)!r}."
            )
        self.path, self.loop = path, loop
        state = loop.state
        self.identity = {
            "objective": _describe(loop.objective),
            "phases": [p.name for p in state.phases],
            "optimizers": {k: _describe(u.spec) for k, u in state.updaters.items()},
            "schedules": {k: _describe(u.schedule) for k, u in state.updaters.items()},
            "batch_size": loop.batch_size,
            "clip_norm": state.clip_norm,
            "rows": loop.train.rows,
            "sum of the data": _sums(loop.train),
            "validation rows": loop.held and loop.held.rows,
            "sum of the validation data": loop.held and _sums(loop.held),
            "seed": seed,
            "program": _constants(state.program),
        }

    def save(self) -> None:
        """Write the run as it stands after an epoch."""
        loop, state = self.loop, self.loop.state
        tensors = {f"program.{k}": v for k, v in state.tensors().items()}
        tensors |= {f"best.{k}": v for k, v in loop.best.items()}
        tensors |= {f"objective.{k}": v for k, v in state.objective_state.state_dict().items()}
        tensors |= {"rng.torch": torch.get_rng_state(), "rng.order": loop.order.get_state()}
        if (device := device_of(state.program)).type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
        names = {id(v): k for k, v in self._owners().items()}
        updaters = {}
        for phase, updater in state.updaters.items():
            held, plain = updater.state()
            tensors |= {f"optimizer.{phase}.{k}": v for k, v in held.items()}
            updaters[phase] = {"leaves": [names[id(p)] for p in updater.leaves], "plain": plain}
        manifest = {
            "identity": self.identity,
            "history": loop.history.rows,
            "steps": state.steps,
            "order_seed": loop.order.initial_seed(),
            "waited": loop.waited,
            "best_score": loop.best_score,
            "updaters": updaters,
        }
        _write(self.path, tensors, manifest)

    def resume(self) -> None:
        """Put the run where the file left it, if there is one."""
        if not self.path.exists():
            return
        tensors, manifest = _read(self.path)
        loop, state = self.loop, self.loop.state
        differ = [
            f"{k} was {manifest['identity'].get(k)!r}, now {v!r}"
            for k, v in self.identity.items()
            if manifest["identity"].get(k) != v
        ]
        if differ:
            raise ValueError(
                f"The checkpoint {self.path} is of another run: {'; '.join(differ)}. Expected the "
                "same arguments. Try another path, or delete the file to start anew."
            )
        # A model that makes its pyro.params as it runs must have run once before they are filled.
        with evaluating(state.program), torch.no_grad(), poutine.trace(param_only=True) as seen:
            run(state.program, loop.train.take(torch.arange(2, device=state.device)))
        state.params = {n: s["value"].unconstrained() for n, s in seen.trace.nodes.items()}
        state.load(_under(tensors, "program."))
        state.objective_state.load_state_dict(_under(tensors, "objective."))
        owners = self._owners()
        for phase, saved in manifest["updaters"].items():
            updater = state.updaters[phase]
            updater.take([owners[name] for name in saved["leaves"]])
            updater.restore(_under(tensors, f"optimizer.{phase}."), saved["plain"])
        loop.best = {k: v.to(state.device) for k, v in _under(tensors, "best.").items()}
        loop.best_score, loop.waited = manifest["best_score"], manifest["waited"]
        loop.history.rows[:] = manifest["history"]
        state.steps = manifest["steps"]
        loop.order.set_state(tensors["rng.order"])
        torch.set_rng_state(tensors["rng.torch"])
        if "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], state.device)

    def _owners(self) -> dict[str, Tensor]:
        """Everything an optimiser may move, by name."""
        critic = self.loop.state.objective_state.named_parameters()
        return {**self.loop.state.tensors(), **{f"objective.{n}": p for n, p in critic}}


def saved_order_seed(path: Path) -> int | None:
    """Give the seed that split the rows of a saved run; None where there is no file."""
    return int(_read(path)[1]["order_seed"]) if path.exists() else None


def _constants(program: nn.Module) -> str:
    """What of a `VAE` is stated and not learned: another prior would be overwritten in silence."""
    if not isinstance(program, VAE):
        return type(program).__name__
    families = [declared_family(p) for p in (program.decoder, program.encoder)]
    stated = [f"{f!r} min_scale={f.min_scale}" if f is not None else "" for f in families]
    buffers = hashlib.sha256()
    for name, value in program.prior.named_buffers():
        if "running" not in name and "num_batches" not in name:  # statistics are learned
            buffers.update(value.detach().cpu().contiguous().numpy().tobytes())
    return f"{program.prior!r} {buffers.hexdigest()[:8]} {' '.join(stated)}"


def _sums(batch: Batch) -> str:
    return repr([float(v.double().sum()) for v in batch.tensors])


def _describe(value: Any, depth: int = 6) -> str:  # noqa: ANN401
    """Say what an argument is by names and values: another process must say the same."""
    if hasattr(value, "__qualname__"):  # classes and functions
        return f"{value.__module__}.{value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} of sum {float(value.detach().double().sum())!r}"
    if isinstance(value, PyroOptim):
        value = (value.pt_optim_constructor, value.pt_optim_args, value.pt_clip_args)
    elif isinstance(value, functools.partial):
        value = (value.func, value.args, value.keywords)
    elif hasattr(value, "__dict__"):
        # What is private is state that grows in use, not an argument.
        value = {k: v for k, v in vars(value).items() if not k.startswith("_")}
    else:
        kind = ""
    if depth and isinstance(value, dict):
        return f"{kind}{{{', '.join(f'{k}: {_describe(v, depth - 1)}' for k, v in value.items())}}}"
    if depth and isinstance(value, tuple | list):
        return f"{kind}({', '.join(_describe(v, depth - 1) for v in value)})"
    shown = repr(value)
    return kind or type(value).__name__ if " at 0x" in shown or not depth else shown


def _write(path: Path, tensors: dict[str, Tensor], manifest: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    flat = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        save_file(flat, part, metadata={"ppl_vae": json.dumps({"format": FORMAT, **manifest})})
        os.replace(part, path)  # readers see the old file or the new one, never a part
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    manifest, fault = None, "no ppl_vae manifest"
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            manifest = json.loads((file.metadata() or {}).get("ppl_vae", "null"))
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        fault = str(error)
    if isinstance(manifest, dict) and manifest.get("format") != FORMAT:
        fault = f"it is of format {manifest.get('format')}, where this version writes {FORMAT}"
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(
            f"Got checkpoint={str(path)!r}, which cannot be read ({fault}); expected a file that "
            "fit wrote. Try another path, or delete the file to start anew."
        )
    return tensors, manifest


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
