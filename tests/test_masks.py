"""Rows that a program's own mask leaves out: padding is no data, whoever asks."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppl_vae
from ppl_vae import Program, log_evidence
from ppl_vae.data.batches import Batch
from ppl_vae.programs.masks import kept_cells, left_out
from ppl_vae.programs.traces import structure

OF_ALL = [
    ppl_vae.aggregate_match,
    ppl_vae.prior_coverage,
    ppl_vae.mutual_information,
    ppl_vae.prior_check,
    ppl_vae.posterior_check,
    ppl_vae.calibrate,
    ppl_vae.typicality,
    ppl_vae.diagnose,
]


@pytest.fixture(autouse=True)
def own_store():
    with pyro.get_param_store().scope():
        yield


def padded():
    """Two latents, and a mask of rows over both and over the data."""

    def model(x, seen):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=seen):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            u = pyro.sample("u", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + u[:, None], 1.0).to_event(1), obs=x)

    def guide(x, seen):
        a = pyro.param("a", torch.tensor(0.3))
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=seen):
            pyro.sample("z", dist.Normal(a * x, 0.7).to_event(1))
            pyro.sample("u", dist.Normal(a * x[:, 0], 0.7))

    return Program(model, guide)


def data():
    torch.manual_seed(0)
    return 1.5 * torch.randn(60, 2), torch.arange(60) % 3 > 0


@pytest.mark.parametrize("function", OF_ALL, ids=lambda f: f.__name__)
def test_what_speaks_of_all_data_refuses_rows_that_are_left_out(function) -> None:
    quick = {"budget": 0, "num_samples": 30, "progress": False}
    quick = quick if function is ppl_vae.diagnose else {}
    x, seen = data()
    with pytest.raises(ValueError, match=r"Got 20 of 60 rows.*mask leaves out.*Try.*x\[kept\]"):
        function(padded(), (x, seen), **quick)
    function(padded(), (x[seen], seen[seen]), **quick)


def test_the_evidence_of_rows_that_are_left_out_is_that_of_no_data_and_said_to_be() -> None:
    x, seen = data()
    with pytest.warns(UserWarning, match="20 of 60 rows.*that of no data, 0"):
        found = log_evidence(padded(), (x, seen), 200, seed=0)
    assert (found.log_evidence[~seen.numpy()] == 0).all()
    assert (found.log_evidence[seen.numpy()] < 0).all()


@pytest.mark.parametrize("where", ["poutine", "outside", "inside", "expanded"])
def test_every_form_of_a_mask_is_seen(where) -> None:
    seen = torch.arange(6) % 2 == 0

    def site():
        q = dist.Normal(torch.zeros(6, 4, 2), 1.0)
        if where == "outside":
            return q.to_event(2).mask(seen)
        if where == "inside":
            return q.to_event(1).mask(seen[:, None]).to_event(1)
        if where == "expanded":
            return dist.Normal(0.0, 1.0).expand([6, 4, 2]).mask(seen[:, None, None]).to_event(2)
        return q.to_event(2)

    def run():
        with pyro.plate("data", 6):
            if where == "poutine":
                with pyro.poutine.mask(mask=seen):
                    return pyro.sample("z", site())
            return pyro.sample("z", site())

    node = pyro.poutine.trace(run).get_trace().nodes["z"]
    (cells,) = kept_cells(node, -1)
    assert len(cells) == 6
    assert torch.equal(cells.any(1), seen) and torch.equal(cells.all(1), seen)
    scored = node["fn"].log_prob(node["value"])
    if where != "poutine":
        assert torch.equal(scored != 0, seen)  # as Pyro has it


def test_a_row_of_which_one_latent_counts_is_not_left_out() -> None:
    """A label that is known for some rows is masked there; the rest of the row is data."""
    x, seen = data()

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.poutine.mask(mask=seen):
                pyro.sample("u", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x, seen):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x, 0.7).to_event(1))
            with pyro.poutine.mask(mask=seen):
                pyro.sample("u", dist.Normal(0.0, 1.0))

    program, batch = Program(model, guide), Batch((x, seen), {})
    assert not left_out(program, batch, structure(program, batch)).any()
    evidence = log_evidence(program, (x, seen), 50, seed=0)
    assert np.isfinite(evidence.log_evidence).all()


@pytest.mark.parametrize("masked", ["model", "guide"])
@pytest.mark.parametrize("function", [log_evidence, ppl_vae.aggregate_match])
def test_a_mask_of_one_side_alone_is_refused(masked, function) -> None:
    """Rows of one side alone weigh -log q, or log p: neither is evidence."""
    x, seen = data()

    def model(x, seen):
        keep = seen if masked == "model" else True
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=keep):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x, seen):
        keep = seen if masked == "guide" else True
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=keep):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x, 0.7).to_event(1))

    with pytest.raises(ValueError, match="mask of 'z'.*other rows in the model.*Try one"):
        function(Program(model, guide), (x, seen))
    function(Program(model, guide), (x[seen], seen[seen]))


def test_a_mask_of_what_all_data_share_leaves_out_no_row() -> None:
    x, _ = data()

    def model(x):
        with pyro.poutine.mask(mask=torch.tensor(False)):
            level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(level, 1.0))
            pyro.sample("x", dist.Normal(z[:, None], 1.0).expand([len(x), 2]).to_event(1), obs=x)

    def guide(x):
        with pyro.poutine.mask(mask=torch.tensor(False)):
            pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x[:, 0], 0.7))

    program, batch = Program(model, guide), Batch((x,), {})
    assert not left_out(program, batch, structure(program, batch)).any()
