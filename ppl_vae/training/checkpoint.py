"""Training on disk: one safetensors file, written atomically, loading runs no code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.programs.modes import device_of, evaluating
from ppl_vae.programs.traces import run
from ppl_vae.training.loop import Loop

FORMAT = 1


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
            "objective": repr(loop.objective),
            "phases": [p.name for p in state.phases],
            "optimizers": {k: repr(u.spec) for k, u in state.updaters.items()},
            "batch_size": loop.batch_size,
            "clip_norm": state.clip_norm,
            "rows": loop.train.rows,
            "sum of the data": repr([float(v.double().sum()) for v in loop.train.tensors]),
            "seed": seed,
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
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(
            f"Got checkpoint={str(path)!r}, which cannot be read ({fault}); expected a file that "
            "fit wrote. Try another path, or delete the file to start anew."
        )
    return tensors, manifest


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
