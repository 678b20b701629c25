"""Write down what a benchmark found: figures, seed, versions, machine and wall time, as JSON."""

import ast
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("ppl_vae", "torch", "pyro-ppl", "numpy", "scipy", "arviz-stats", "numpyro", "jax")


def record(
    script: str, figures: dict[str, Any], *, seed: int, started: float, quick: bool = False
) -> Path:
    """Write ``results/<script>.json`` and print its headline, all but the tables, as one line.

    Args:
        script: The script's ``__file__``.
        figures: What it found; anything that JSON can hold, no NaN.
        seed: The seed that it was run with.
        started: `time.perf_counter()` when it started.
        quick: A trial run: it goes to ``results/<script>.quick.json``, which is not committed.

    Returns:
        The file written.
    """
    name = Path(script).stem
    found = {
        "script": name,
        "quick": quick,
        "figures": figures,
        "seed": seed,
        "wall_time_s": round(time.perf_counter() - started, 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": machine(),
    }
    path = Path(script).parent / "results" / f"{name}{'.quick' if quick else ''}.json"
    text = json.dumps(found, indent=2, allow_nan=False)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    headline = {k: v for k, v in figures.items() if not isinstance(v, list)}
    shown = {"script": name, **headline, "wall_time_s": found["wall_time_s"]}
    print(json.dumps(shown, allow_nan=False))
    return path


def resumed(
    work: Path, names: Sequence[str], chosen: Sequence[str], run: Callable[[str], Any]
) -> list[Any] | None:
    """Run the pieces of a long benchmark that are not done yet, each kept in a file of its own.

    Args:
        work: The folder of those files; a run that is cut off goes on from there, and two
            processes may share the work.
        names: Of all pieces.
        chosen: Those to run now.
        run: Gives what a piece found, anything that JSON can hold.

    Returns:
        What all pieces found, in order; None, with a line that says so, while some are missing.

    Raises:
        ValueError: If another version of the script wrote a piece.
    """
    work.mkdir(parents=True, exist_ok=True)
    script = sys.modules[run.__module__].__file__
    if script is None:
        raise ValueError("run: got a function of no file, expected one of the script.")
    # Comments and layout may change; what is run may not.
    code = ast.dump(ast.parse(Path(script).read_text(encoding="utf-8")))
    version = hashlib.sha256(code.encode()).hexdigest()[:16]
    for name in chosen:
        found = work / f"{name}.json"
        if not found.exists():
            value = json.dumps({"script": version, "found": run(name)})
            found.write_text(value, encoding="utf-8")
    if missing := [name for name in names if not (work / f"{name}.json").exists()]:
        print(json.dumps({"not_done": missing}))
        return None
    pieces = [json.loads((work / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    if old := [n for n, p in zip(names, pieces, strict=True) if p.get("script") != version]:
        raise ValueError(
            f"Got pieces in {work} that another version of {Path(script).name} wrote: {old}; "
            "expected all of this one. Try another --work, or delete them."
        )
    return [piece["found"] for piece in pieces]


def versions() -> dict[str, str]:
    """Name the installed version of every package that a figure may depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Describe the processor, cores, memory and system; nothing that names the computer."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
