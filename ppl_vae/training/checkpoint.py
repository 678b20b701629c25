"""Training on disk: one safetensors file, written atomically, loading runs no code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppl_vae.training.step import TrainState

FORMAT = 1


def program_tensors(state: TrainState) -> dict[str, Tensor]:
    """Name every parameter and buffer that training may change.

    Parameters of the program's modules go by their path; those that live only in Pyro's store
    by their name there.
    """
    program = state.program
    owned = {id(p) for p in program.parameters()}
    named = {f"parameter.{n}": p for n, p in program.named_parameters()}
    named |= {f"buffer.{n}": b for n, b in program.named_buffers()}
    return named | {f"store.{n}": p for n, p in state.params.items() if id(p) not in owned}


def copy_into(tensors: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Write values into tensors of the same names, in place."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


def save(path: Path, tensors: dict[str, Tensor], manifest: dict[str, Any]) -> None:
    """Write a checkpoint: readers see the old file or the new one, never a part."""
    from safetensors.torch import save_file

    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    flat = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        save_file(flat, part, metadata={"ppl_vae": json.dumps({"format": FORMAT, **manifest})})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint.

    Raises:
        ValueError: If the file is not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            manifest = json.loads((file.metadata() or {}).get("ppl_vae", "null"))
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"Got {path}, which is no safetensors file ({error}); expected a checkpoint that fit "
            "wrote. Try another path, or delete the file to start anew."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(
            f"Got {path} without a ppl_vae manifest of format {FORMAT}; expected a checkpoint that "
            "fit wrote. Try another path, or delete the file to start anew."
        )
    return tensors, manifest


def take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Give the tensors under a prefix, without it."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
