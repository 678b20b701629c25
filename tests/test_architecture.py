"""The direction of imports and the other rules of the house, read from the source.

Each rule is a function from a checkout to a list of sentences, one for each place that breaks it.
The tests run it on this checkout, where the list must be empty, and on a small tree with the fault.
"""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = "ppl_vae"

# A part of the library imports only from those before it.
ORDER = (
    "data",
    "diagnostics",
    "distributions",
    "nets",
    "conditional",
    "families",
    "priors",
    "guides",
    "programs",
    "objectives",
    "training",
    "posterior",
    "diagnose",
    "plots",
    "report",
    "demo",
    "cli",
)
# These import what they like, and no part imports them.
LEAVES = ("__init__", "testing")

# Not loaded by `import ppl_vae`: each takes long to import, or is optional.
HEAVY = (
    "arviz",
    "arviz_base",
    "arviz_plots",
    "arviz_stats",
    "jinja2",
    "matplotlib",
    "pandas",
    "sklearn",
    "typer",
    "xarray",
    "zuko",
)


@dataclass(frozen=True)
class Import:
    """One import statement: the file and line, the importing module, the imported one."""

    where: str
    source: str
    target: str


def files(root: Path, *folders: str) -> list[Path]:
    """The Python files in these folders."""
    return sorted(p for folder in folders for p in (root / folder).rglob("*.py"))


def module_name(root: Path, path: Path) -> str:
    """Turn `ppl_vae/data/batches.py` into ppl_vae.data.batches; a package has its folder's name."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root: Path, *folders: str) -> Iterator[Import]:
    """Every import: at the top, inside functions, for type checking only, and by import_module.

    Within the library the target is the module that holds the name, as far as files tell.
    """
    modules = {module_name(root, p) for p in files(root, LIBRARY)}
    for path in files(root, *folders):
        source = module_name(root, path)
        package = source if path.name == "__init__.py" else source.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for target in _targets(node, package):
                while target.startswith(LIBRARY + ".") and target not in modules:
                    target = target.rpartition(".")[0]
                yield Import(f"{path.relative_to(root)}:{node.lineno}", source, target)


def _targets(node: ast.AST, package: str) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            return [f"{base}.{alias.name}" for alias in node.names]
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
    return []


def part(module: str) -> str:
    """The part of the library that a module belongs to; `__init__` for ppl_vae itself."""
    return module.split(".")[1] if "." in module else "__init__"


def wrong_direction(root: Path) -> list[str]:
    """A part may import only from those before it in ORDER."""
    found = [
        f"{LIBRARY}/{name} has no place in ORDER; give it one"
        for name in sorted({part(module_name(root, p)) for p in files(root, LIBRARY)})
        if name not in ORDER + LEAVES
    ]
    for i in imports(root, LIBRARY):
        if i.target.split(".")[0] != LIBRARY:
            continue
        low, high = part(i.target), part(i.source)
        if low == high or high in LEAVES:
            continue
        if low in LEAVES:
            found.append(f"{i.where}: {high} imports {low}, which no part may import")
        elif {low, high} <= set(ORDER) and ORDER.index(low) > ORDER.index(high):
            found.append(f"{i.where}: {high} imports {low}, which comes after it")
    return found


def cycles(root: Path) -> list[str]:
    """No module imports itself by way of others; imports inside functions count."""
    graph: dict[str, set[str]] = {}
    for i in imports(root, LIBRARY):
        if i.target.split(".")[0] == LIBRARY:
            graph.setdefault(i.source, set()).add(i.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ["a cycle of imports: " + " <- ".join(error.args[1])]
    return []


def matplotlib_outside_plots(root: Path) -> list[str]:
    """matplotlib is imported in ppl_vae/plots only."""
    return [
        f"{i.where}: imports {i.target} outside plots"
        for i in imports(root, LIBRARY)
        if i.target.split(".")[0] in {"matplotlib", "mpl_toolkits", "pylab"}
        and part(i.source) != "plots"
    ]


def arviz_umbrella(root: Path) -> list[str]:
    """ArviZ is used by its three parts: the package `arviz` itself is not installed."""
    folders = (LIBRARY, "tests", "examples", "benchmarks", "docs")
    return [
        f"{i.where}: imports arviz; import arviz_base, arviz_stats or arviz_plots"
        for i in imports(root, *folders)
        if i.target.split(".")[0] == "arviz"
    ]


def asserts(root: Path) -> list[str]:
    """The library checks input by errors that teach: `assert` goes away under `python -O`."""
    return [
        f"{path.relative_to(root)}:{node.lineno}: assert in the library; raise ValueError"
        for path in files(root, LIBRARY)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]


RULES = (wrong_direction, cycles, matplotlib_outside_plots, arviz_umbrella, asserts)


@pytest.mark.parametrize("rule", RULES)
def test_this_checkout_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    assert files(ROOT, LIBRARY), "no library found: the rules would hold of nothing"
    assert rule(ROOT) == []


SOUND = {
    "ppl_vae/__init__.py": "from ppl_vae.priors import Prior as Prior",
    "ppl_vae/data/__init__.py": "from ppl_vae.data.arrays import cast as cast",
    "ppl_vae/data/arrays.py": "import numpy",
    "ppl_vae/priors/__init__.py": "from ppl_vae.priors.prior import Prior as Prior",
    "ppl_vae/priors/prior.py": "from ppl_vae.data import cast\nfrom ..data import arrays",
    "ppl_vae/plots/__init__.py": "import matplotlib.pyplot as plt\nfrom ppl_vae import priors",
    "ppl_vae/testing.py": "from ppl_vae import priors",
}


@pytest.mark.parametrize(
    ("rule", "path", "code", "says"),
    [
        (wrong_direction, "ppl_vae/data/x.py", "from ppl_vae.priors import Prior", "after it"),
        (wrong_direction, "ppl_vae/data/x.py", "from ppl_vae import priors", "after it"),
        (wrong_direction, "ppl_vae/data/x.py", "from ..priors.prior import Prior", "after it"),
        (wrong_direction, "ppl_vae/data/x.py", "import ppl_vae.plots", "after it"),
        (wrong_direction, "ppl_vae/data/x.py", "def f():\n from ppl_vae import plots", "after it"),
        (
            wrong_direction,
            "ppl_vae/data/x.py",
            "import importlib\nimportlib.import_module('ppl_vae.plots')",
            "after it",
        ),
        (wrong_direction, "ppl_vae/plots/x.py", "from ppl_vae import Prior", "no part may import"),
        (wrong_direction, "ppl_vae/plots/x.py", "from ppl_vae import testing", "no part may"),
        (wrong_direction, "ppl_vae/utils.py", "", "no place in ORDER"),
        (cycles, "ppl_vae/data/arrays.py", "from ppl_vae.data import cast", "a cycle"),
        (cycles, "ppl_vae/data/arrays.py", "def f():\n from . import cast", "a cycle"),
        (cycles, "ppl_vae/data/arrays.py", "import ppl_vae.priors.prior", "a cycle"),
        (matplotlib_outside_plots, "ppl_vae/report.py", "from matplotlib import pyplot", "outside"),
        (matplotlib_outside_plots, "ppl_vae/report.py", "def f():\n import matplotlib", "outside"),
        (arviz_umbrella, "ppl_vae/plots/x.py", "import arviz as az", "imports arviz"),
        (arviz_umbrella, "examples/x.py", "from arviz import loo", "imports arviz"),
        (asserts, "ppl_vae/data/x.py", "def f(x):\n    assert x > 0", "data/x.py:2: assert"),
    ],
)
def test_the_rule_sees_the_fault(
    rule: Callable[[Path], list[str]], path: str, code: str, says: str, tmp_path: Path
) -> None:
    for name, text in SOUND.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert rule(tmp_path) == []
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(code)
    found = rule(tmp_path)
    assert len(found) == 1 and says in found[0]


# Run in a fresh interpreter, whose random states are first set to known ones.
STATE = """
import json, random, sys, warnings
import numpy, torch
random.seed(1); numpy.random.seed(2); torch.manual_seed(3)
import pyro
{code}
print(json.dumps({{
    "modules": sorted({{name.split(".")[0] for name in sys.modules}}),
    "state": {{
        "default dtype": str(torch.get_default_dtype()),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch validation": torch.distributions.Distribution._validate_args,
        "pyro settings": {{name: str(value) for name, value in pyro.settings.get().items()}},
        "parameters": sorted(pyro.get_param_store()),
        "effect handlers": len(pyro.poutine.runtime._PYRO_STACK),
        "torch random": torch.get_rng_state().sum().item(),
        "torch next": torch.rand(()).item(),
        "numpy next": numpy.random.rand(),
        "random next": random.random(),
        "warning filters": [  # SciPy registers its own category when it is loaded
            str(f) for f in warnings.filters if not f[2].__module__.startswith("scipy.")
        ],
    }},
}}))
"""


def after(code: str, path: Path = ROOT) -> dict:
    """What a fresh interpreter holds after `import pyro` and then `code`."""
    done = subprocess.run(
        [sys.executable, "-c", STATE.format(code=code)],
        cwd=path,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pyro_alone() -> dict:
    return after("")


def test_import_changes_no_state_and_loads_nothing_heavy(pyro_alone: dict) -> None:
    ours = after("import ppl_vae")
    assert "ppl_vae" in ours["modules"]
    assert ours["state"] == pyro_alone["state"]
    assert set(ours["modules"]) & set(HEAVY) == set()


def test_a_changed_state_and_a_heavy_import_are_seen(pyro_alone: dict) -> None:
    changes = {
        "default dtype": "torch.set_default_dtype(torch.float64)",
        "gradients": "torch.set_grad_enabled(False)",
        "threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
        "deterministic": "torch.use_deterministic_algorithms(True)",
        "torch validation": "torch.distributions.Distribution.set_default_validate_args(False)",
        "pyro settings": "pyro.settings.set(validate_infer=False)",
        "parameters": "pyro.param('a', torch.zeros(1))",
        "effect handlers": "pyro.poutine.block().__enter__()",
        "torch random": "torch.rand(1)",
        "torch next": "torch.rand(1)",
        "numpy next": "numpy.random.rand()",
        "random next": "random.random()",
        "warning filters": "warnings.simplefilter('ignore')",
    }
    found = after("import pandas\n" + "\n".join(changes.values()))
    same = [name for name, value in found["state"].items() if value == pyro_alone["state"][name]]
    assert same == []
    assert set(found["state"]) == set(changes)
    assert "pandas" in found["modules"] and "pandas" not in pyro_alone["modules"]
