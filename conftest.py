"""Every test and doctest starts from the same state, and leaves the process as it found it.

This file is at the root, not in tests/, because the doctests of ppl_vae need it too.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec

import hypothesis
import pyro
import pytest
import torch

os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(1)  # sums in one order: the same bits on every machine size, in every worker

if find_spec("zuko") is None:  # an extra: the examples of flows are left out without it
    collect_ignore = [
        "ppl_vae/nets/flow.py",
        "ppl_vae/priors/flow.py",
        "ppl_vae/guides/conditional_flow.py",
    ]

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Empty Pyro's parameter store, seed torch, NumPy and random; refuse a leak of global state."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    before = global_state()
    yield
    after = global_state()
    if after != before:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        pyro.enable_validation(True)
        pytest.fail(f"the test changed global state: before {before}, after {after}")


def global_state() -> dict[str, object]:
    """Read the switches that a library may not leave turned."""
    return {
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "torch validation": torch.distributions.Distribution._validate_args,
        "pyro validation": pyro.settings.get("validate_distributions_pyro"),
        "effect handlers": len(pyro.poutine.runtime._PYRO_STACK),
    }


@pytest.fixture
def float64() -> Iterator[None]:
    """Make float64 the default dtype for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
