"""Swap anything: a subset of the covering set of prior × family × guide × objective."""

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load():
    """The benchmark as a module: its set is the test's."""
    sys.path.insert(0, str(FOLDER))  # it imports record.py beside it
    try:
        spec = importlib.util.spec_from_file_location("matrix", FOLDER / "matrix.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


if not FOLDER.is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
if importlib.util.find_spec("zuko") is None:  # importing it would switch validation off
    pytest.skip("flows need zuko", allow_module_level=True)
matrix = load()
ROWS = matrix.covering()
EVIDENCE = list(itertools.product(matrix.ONE_DIMENSION, matrix.FAMILIES))


def test_every_pair_of_choices_is_covered_and_runs_if_it_can():
    everything = [matrix.Row(*values) for values in itertools.product(*matrix.AXES)]

    def pairs(rows):
        return {(i, r[i], j, r[j]) for r in rows for i, j in itertools.combinations(range(4), 2)}

    def run(rows):
        return [row for row in rows if matrix.refusal(row) is None]

    assert pairs(ROWS) == pairs(everything)
    assert pairs(run(ROWS)) == pairs(run(everything))
    assert len(ROWS) < 250  # of 4,590


@pytest.mark.parametrize("row", ROWS[::8], ids=" · ".join)
def test_a_combination_runs_or_is_refused(row):
    matrix.check(row)


@pytest.mark.parametrize(("prior", "family"), EVIDENCE[::9])
def test_its_evidence_is_that_of_quadrature(prior, family):
    # 16 pairs of 3 data at 6 standard errors of bounded weights: false alarm 1e-7.
    assert np.abs(matrix.errors_of_evidence(prior, family)).max() < 6
