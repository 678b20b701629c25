"""How the evidence is taken: runs of one shape, within a budget, compiled or not; one result."""

import itertools
import re
import time
import tracemalloc
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import (
    MLP,
    VAE,
    Bernoulli,
    Conditional,
    Normal,
    Program,
    StandardNormal,
    UniformBox,
    VampPrior,
    log_evidence,
    log_weights,
)
from ppl_vae.data import LinearGaussian
from ppl_vae.diagnostics import evidence
from ppl_vae.posterior import compiled_weights, weight_runs
from ppl_vae.posterior.compiled_weights import CompiledWeights
from ppl_vae.posterior.footprint import Footprint
from ppl_vae.programs import weighted_at, weighted_draws
from ppl_vae.programs.inputs import program_batch
from ppl_vae.programs.tiles import tiles
from ppl_vae.programs.weighing import Weighing
from ppl_vae.training.inductor import interpreted, why_not

MIB = 2**20
WORLD = LinearGaussian.random(2, 5, seed=0)
X, _ = WORLD.sample(30, seed=1)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_tiles_cover_every_draw_of_every_datum_once(rows):
    for data, draws in itertools.product([1, 2, 9, 40, 100], [1, 3, 8, 50, 101]):
        cut = tiles(data, draws, rows)
        assert cut.data * cut.draws <= rows
        seen = np.zeros((draws, data), dtype=int)
        for k, j in itertools.product(range(cut.chunks), range(cut.pieces)):
            index, at = cut.chunk(k, torch.device("cpu"))
            assert index.shape == (cut.data,) and index.max() < data
            assert index[: at.stop - at.start].tolist() == list(range(at.start, at.stop))
            seen[cut.piece(j), at] += 1
        assert (seen == 1).all()
        # What is thrown away: below one datum a chunk and one draw a piece.
        assert cut.chunks * cut.data - data < cut.chunks
        assert cut.pieces * cut.draws - draws < cut.pieces


def noisy(x):
    with pyro.plate("data", len(x)):
        loc = x.mean(-1, keepdim=True) + torch.randn_like(x[:, :2])
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def of_two(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(x[:, 0], 1.0))
        pyro.sample("z", dist.Normal(a, 1.0))


def model_of_two(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(torch.zeros(len(x)).to(x), 1.0))
        z = pyro.sample("z", dist.Normal(a, 1.0))
        pyro.sample("x", dist.Normal(z[:, None], 1.0).to_event(1), obs=x)


def images(kind="bernoulli"):
    torch.manual_seed(0)
    encoder = Conditional(MLP(8), Normal(2), given=6)
    prior = {
        "bernoulli": lambda: StandardNormal(2),
        "box": lambda: UniformBox(2, low=-1, high=3),
        "vamp": lambda: VampPrior(torch.rand(5, 6).round(), encoder),
    }[kind]()
    vae = VAE(prior, Conditional(MLP(8), Bernoulli(6), given=2), encoder)
    return vae, torch.bernoulli(torch.full((20, 6), 0.5))


def stage(program, x):
    return Weighing(program, program_batch(program, x)).one_stage


def test_a_guide_is_run_once_a_datum_where_that_says_all():
    vae, images_ = images()
    assert stage(Program(WORLD.model, WORLD.guide), X) and stage(vae, images_)
    assert not stage(Program(WORLD.model, noisy), X)  # noise of its own
    assert not stage(Program(model_of_two, of_two), X)  # z depends on a
    seen = []
    vae.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    weighted_draws(vae, images_, 2000, seed=0)
    assert max(seen) == 32  # never the 4000 rows of a run: 16, twice, in the trial of the model


def test_a_guide_with_noise_of_its_own_has_new_noise_for_every_draw():
    z = weighted_draws(Program(WORLD.model, noisy), X, 4000, seed=0).latents["z"]
    # z is the mean of x plus two unit normals: the variance over draws is 2, its relative standard
    # error sqrt(2 / 4000) = 2.2 %; 60 of them within 4.5: false alarm 4e-4.
    assert (z.var(0) / 2 - 1).abs().max() < 0.1


@pytest.mark.parametrize(("rows", "draws"), [(4096, 2000), (11, 300)])
def test_draws_of_one_run_of_the_guide_are_independent_and_of_its_law(rows, draws):
    x = X[:1].expand(8, -1).contiguous()  # one datum eight times: its draws must not be
    program = Program(WORLD.model, WORLD.broken_guide(scale=1.3))
    drawn = weighted_draws(program, x, draws, seed=0, rows=rows)
    z, q = drawn.latents["z"], WORLD.broken_posterior(X[:1], scale=1.3)
    z, n = z.flatten(0, 1), 8 * draws
    assert len(z.unique(dim=0)) == n
    mean, cov, truth = z.mean(0), torch.cov(z.T), q.covariance_matrix[0]
    square = truth.diagonal()
    assert ((mean - q.mean[0]) / (square / n).sqrt()).abs().max() < 4.5
    # The variance of a sample covariance is (C_ii C_jj + C_ij^2) / n; five z-scores in all, each
    # beyond 4.5 once in 150,000.
    se = ((square[:, None] * square + truth**2) / n).sqrt()
    assert ((cov - truth) / se).abs().max() < 4.5
    exact = torch.stack([q.log_prob(v) for v in z[:50, None]])[:, 0]
    assert torch.allclose(drawn.log_guide.flatten()[:50], exact, rtol=0, atol=1e-9)


def of_cells(dim):
    def shaped(x):
        return x if dim == -2 else x.T

    def plates(x):
        return pyro.plate("rows", len(x), dim=dim), pyro.plate("cells", 5, dim=-3 - dim)

    def model(x):
        rows, cells = plates(x)
        with rows, cells:
            z = pyro.sample("z", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=shaped(x))

    def guide(x):
        rows, cells = plates(x)
        with rows, cells:
            loc = shaped(x)[..., None] * torch.tensor([0.3, 0.2]).to(x)
            pyro.sample("z", dist.Normal(loc, 0.7).to_event(1))

    return Program(model, guide)


def masked():
    def model(x):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=x[:, 0] > 0):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=x[:, 0] > 0):
            pyro.sample("z", dist.Normal(x[:, :2], 0.7).to_event(1))

    return Program(model, guide)


@pytest.mark.parametrize("rows", [4096, 11])
@pytest.mark.parametrize(
    "program", [of_cells(-1), of_cells(-2), masked()], ids=["-1", "-2", "mask"]
)
def test_draws_of_one_run_of_the_guide_are_scored_as_given_latents_are(program, rows):
    assert stage(program, X)
    drawn = weighted_draws(program, X, 7, seed=0, rows=rows)
    again = weighted_at(program, X, drawn.latents)
    assert drawn.log_weights.std() > 0.1  # rows that were mixed up would show
    for one, two in zip(drawn, again, strict=True):
        if not isinstance(one, dict):
            assert torch.allclose(one, two, rtol=0, atol=1e-9)


def test_the_budget_changes_nothing_and_the_weights_are_those_of_log_weights(monkeypatch):
    program = Program(WORLD.model, WORLD.broken_guide(scale=1.2))
    widths = []
    whole = evidence

    def noted(weights, level):
        widths.append(weights.shape[1])
        return whole(weights, level=level)

    monkeypatch.setattr("ppl_vae.posterior.evidence.evidence", noted)
    found = {b: log_evidence(program, X, 1000, seed=0, budget=b) for b in (None, 103 * MIB)}
    assert widths[0] == 30 and sum(widths[1:]) == 30 and len(widths) > 2
    assert max(widths[1:]) * 64 * 1000 < 3 * MIB
    by_hand = evidence(log_weights(program, X, 1000, seed=0).numpy())
    for result in found.values():
        for one, two in zip(result, by_hand, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("draws", "data"), [(100, 400), (5000, 40), (30, 1000)])
def test_a_weight_takes_what_the_budget_counts(draws, data):
    weights = np.random.default_rng(0).normal(size=(draws, data)).astype(np.float32)
    evidence(weights[:, :2])  # what is imported and kept
    tracemalloc.start()
    try:
        evidence(weights.astype(np.float64))
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Torch holds 4 or 8 bytes more a weight; small arrays beside the weights get 100 kB.
    assert taken < (weight_runs.BYTES - 8) * draws * data + 1e5, taken / draws / data


def test_a_footprint_counts_what_lives_at_once():
    x = torch.zeros(1000)
    with Footprint() as one:
        y = x + 1
        for _ in range(5):
            y = y + 1  # the old and the new one
        y.add_(1)
        y.view(10, 100).T[0].unsqueeze(0)
    assert one.peak == 8000
    with Footprint() as two:
        parts = torch.ones(100, dtype=torch.float64).split(10)
        torch.stack(parts)
    assert two.peak == 1600


def test_a_budget_that_does_not_do_says_what_would():
    program = Program(WORLD.model, WORLD.guide)
    with pytest.raises(ValueError, match=r"budget=1000 bytes; expected \d+ or more") as caught:
        log_evidence(program, X, 100, seed=0, budget=1000)
    least = int(re.search(r"expected (\d+)", str(caught.value))[1])
    log_evidence(program, X, 100, seed=0, budget=least)
    with pytest.raises(ValueError, match="or more"):
        log_evidence(program, X, 100, seed=0, budget=least - 1)
    for bad in (True, 1e9, "1GB"):
        with pytest.raises(ValueError, match="expected bytes or None"):
            log_evidence(program, X, 100, budget=bad)
    with pytest.raises(ValueError, match='expected True, False or "auto"'):
        log_evidence(program, X, 100, compile="yes")


needs_compiler = pytest.mark.skipif(why_not() is not None, reason="nothing can be compiled here")


@pytest.fixture
def graphs(monkeypatch):
    """Graphs are run as they are: what the compiler would be given, without its ten seconds."""
    monkeypatch.setattr(compiled_weights, "why_not", lambda: None)
    monkeypatch.setattr(compiled_weights, "compiled", lambda graph, _: interpreted(graph))


def flow_like():
    def guide(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(x[:, :2], 1.0).to_event(1)
            bend = dist.transforms.SigmoidTransform()
            pyro.sample("z", dist.TransformedDistribution(base, [bend]))

    def model(x):
        with pyro.plate("data", len(x)):
            ones = torch.ones(2).to(x)
            z = pyro.sample("z", dist.Beta(2 * ones, 2 * ones).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)

    return Program(model, guide), X


def summed_out():
    def model(x):
        with pyro.plate("data", len(x)):
            weights = torch.tensor([0.3, 0.7], dtype=x.dtype)
            y = pyro.sample("y", dist.Categorical(weights), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(2.0 * y - 1.0, torch.ones(len(x)).to(x)))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0], 2.0))

    return Program(model, guide), X


PROGRAMS = {
    "world": lambda: (Program(WORLD.model, WORLD.broken_guide(scale=1.2)), X),
    "two stages": lambda: (Program(model_of_two, of_two), X),
    "noise of its own": lambda: (Program(WORLD.model, noisy), X),
    "bent": flow_like,
    "summed out": summed_out,
    "images": images,
    "box": lambda: images("box"),
    "vamp": lambda: images("vamp"),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.usefixtures("graphs")
def test_a_graph_gives_the_same_weights_and_leaves_the_same_noise(name):
    program, x = PROGRAMS[name]()
    found, after = [], []
    for compile in (False, True):
        torch.manual_seed(3)
        found.append(log_evidence(program, x, 900, compile=compile))
        after.append(torch.rand(3))
    assert torch.equal(*after)
    # Rounding: float32 sums of a few dozen terms of size 10; k-hat is a fit to differences.
    np.testing.assert_allclose(found[0].log_evidence, found[1].log_evidence, atol=1e-5)
    np.testing.assert_allclose(found[0].khat, found[1].khat, atol=1e-2)


@needs_compiler
def test_compiled_runs_are_the_program(monkeypatch):
    taken = []
    run = CompiledWeights.__call__
    monkeypatch.setattr(CompiledWeights, "__call__", lambda s, p: taken.append(1) or run(s, p))
    vae, x = images()
    eager, compiled = (log_evidence(vae, x, 3000, seed=0, compile=c) for c in (False, True))
    assert len(taken) == tiles(20, 3000).chunks * tiles(20, 3000).pieces - 1 > 10
    np.testing.assert_allclose(eager.log_evidence, compiled.log_evidence, atol=1e-5)
    np.testing.assert_allclose(eager.khat, compiled.khat, atol=1e-2)


@pytest.mark.usefixtures("graphs")
def test_auto_compiles_from_a_number_of_draws_on_where_there_is_room(monkeypatch):
    made = []
    start = CompiledWeights.__init__
    monkeypatch.setattr(
        CompiledWeights, "__init__", lambda self, *a: made.append(1) or start(self, *a)
    )
    program, x = PROGRAMS["world"]()
    monkeypatch.setattr(weight_runs, "WORTH", 30 * 900)
    log_evidence(program, x, 899, seed=0)
    assert not made
    log_evidence(program, x, 900, seed=0, budget=150 * MIB)  # no room for the compiler
    assert not made
    with pytest.raises(ValueError, match="or more"):
        log_evidence(program, x, 900, seed=0, budget=150 * MIB, compile=True)
    log_evidence(program, x, 900, seed=0, budget=350 * MIB)
    assert made


def clock(x):
    pause = time.perf_counter() % 1  # Python's, so that a graph would freeze it
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :2] + 1e-12 * pause, 1.0).to_event(1))


def counts():
    calls = []

    def guide(x):
        calls.append(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))

    return guide


def decides(x):
    wide = 2.0 if x.sum() > 0 else 1.0
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :2], wide).to_event(1))


@pytest.mark.parametrize("guide", [clock, counts(), decides], ids=["clock", "counts", "decides"])
@pytest.mark.usefixtures("graphs")
def test_what_a_graph_would_freeze_is_run_as_it_is(guide):
    program = Program(WORLD.model, guide)
    truth = log_evidence(program, X, 900, seed=0, compile=False)
    with pytest.raises(ValueError, match="compile=True, but a run cannot be compiled"):
        log_evidence(program, X, 900, seed=0, compile=True)
    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match="without the comp"):
        patch.setattr(weight_runs, "WORTH", 1)
        found = log_evidence(program, X, 900, seed=0)
    np.testing.assert_allclose(found.log_evidence, truth.log_evidence, rtol=1e-9)


@pytest.mark.usefixtures("graphs")
def test_a_graph_found_to_be_wrong_late_costs_time_and_no_truth(monkeypatch):
    program, x = PROGRAMS["world"]()
    truth = log_evidence(program, x, 2000, seed=0, compile=False)
    run = CompiledWeights.__call__

    def spoilt(self, part):
        if self.taken == 5:
            right = self.function
            self.function = lambda *tensors: [v + 1e-3 for v in right(*tensors)]
        return run(self, part)

    monkeypatch.setattr(CompiledWeights, "__call__", spoilt)
    monkeypatch.setattr(weight_runs, "WORTH", 1)
    with pytest.warns(UserWarning, match="is not the program"):
        found = log_evidence(program, x, 2000, seed=0)
    np.testing.assert_array_equal(found.log_evidence, truth.log_evidence)
    with pytest.raises(ValueError, match="is not the program"):
        log_evidence(program, x, 2000, seed=0, compile=True)


@pytest.mark.usefixtures("graphs")
def test_what_a_distribution_refuses_is_refused_in_a_graph_too():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Bernoulli(logits=z[:, None].expand_as(x)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(-1), 1.0))

    x = torch.zeros(3000, 4)
    x[2000, 1] = 0.5  # behind the head that is looked at, and behind the first run
    for compile in (False, True):
        with pytest.raises(ValueError, match="within the support"):
            log_evidence(Program(model, guide), x, 30, seed=0, compile=compile)


@pytest.mark.usefixtures("graphs")
def test_weights_of_zero_are_weights_and_runs_that_are_none_are_left_to_the_program():
    def model(x):
        with pyro.plate("data", len(x)):
            zero = torch.zeros(len(x)).to(x)
            z = pyro.sample("z", dist.Uniform(zero - 1, zero + 1, validate_args=False))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x = torch.linspace(-1, 1, 20)
    found = [log_evidence(Program(model, guide), x, 900, seed=0, compile=c) for c in (False, True)]
    assert (found[0].ess < 800).all()
    np.testing.assert_allclose(found[0].log_evidence, found[1].log_evidence, atol=1e-5)


@pytest.mark.parametrize("times", [2, 20])
@pytest.mark.usefixtures("graphs")
def test_a_run_that_is_finite_for_the_program_alone_is_taken_by_it(times, monkeypatch):
    program, x = PROGRAMS["world"]()
    truth = log_evidence(program, x, 2000, seed=0, compile=False)
    run = CompiledWeights.__call__

    def doubtful(self, part):
        right = self.function
        if 0 < self.taken <= times:
            self.function = lambda *tensors: [v * torch.nan for v in right(*tensors)]
        found = run(self, part)
        self.function = right
        return found

    monkeypatch.setattr(CompiledWeights, "__call__", doubtful)
    monkeypatch.setattr(weight_runs, "WORTH", 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = log_evidence(program, x, 2000, seed=0)
    assert [("not finite" in str(w.message)) for w in caught] == [True] * (times > 3)
    np.testing.assert_allclose(found.log_evidence, truth.log_evidence, atol=1e-9)


def test_a_weight_that_is_no_number_is_named_by_its_row_of_all_data(monkeypatch):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("rare", torch.where(z > 9, torch.inf, 0.0))  # so rare that none looks there

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x = torch.zeros(30)
    x[20] = 6.0  # z > 9 in one draw of 740
    torch.manual_seed(0)
    monkeypatch.setattr(weight_runs, "FREELY", 8 * 64 * 1000)  # eight data a time
    with pytest.raises(ValueError, match=r"inf at S = \d+, N = 4 .*row 16 of x is N = 0"):
        log_evidence(Program(model, guide), x, 1000, seed=0)


def test_noise_of_the_guide_is_seen_wherever_it_acts():
    x = torch.zeros(100, 2)

    def guide(x):  # draws for the last rows alone
        late = torch.arange(len(x)) >= 90
        with pyro.plate("data", len(x)):
            loc = torch.where(late[:, None], torch.randn(len(x), 2), x[:, :2])
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    assert not stage(Program(model, guide), x)


def test_what_a_guide_leaves_for_the_model_is_of_the_models_rows():
    class Shared:
        h: torch.Tensor

    left = Shared()

    def guide(x):
        left.h = x.mean(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(left.h, 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = (z + left.h)[:, None].expand(-1, 3)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    program = Program(model, guide)
    found = weighted_draws(program, x, 50, seed=0)
    again = weighted_at(program, x, found.latents)
    assert torch.allclose(found.log_weights, again.log_weights, atol=1e-4)


def test_given_latents_must_be_those_of_the_program():
    x = X[:5]
    drawn = weighted_draws(Program(model_of_two, of_two), x, 4, seed=0).latents
    (a, b) = drawn
    for wrong in ({a: drawn[a]}, {**drawn, "q": drawn[a]}, {n: v[:, :3] for n, v in drawn.items()}):
        with pytest.raises(ValueError, match="expected each of"):
            weighted_at(Program(model_of_two, of_two), x, wrong)


def test_a_program_may_map_over_rows():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.vmap(lambda r: r.sum())(x), 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None], 1.0).expand([len(x), 2]).to_event(1), obs=x)

    found = log_evidence(Program(model, guide), torch.zeros(4, 2), 100, seed=0)
    assert np.isfinite(found.log_evidence).all()


@pytest.mark.slow
def test_a_decision_by_the_size_of_a_result_is_not_frozen():
    x = torch.zeros(400, 2)
    x[243] = 6.0

    def guide(x):
        scale = 3.0 if (x > 5).nonzero().numel() else 1.0
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, scale).to_event(1))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match="the size of a result hangs on the data"):
        log_evidence(Program(model, guide), x, 200, seed=0, compile=True)


def test_parameters_that_are_born_in_a_run_use_up_no_noise_of_the_draws():
    def guide(x):
        loc = pyro.param("born", lambda: torch.randn(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, torch.ones(2)).to_event(1).expand([len(x)]))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    x = torch.zeros(6, 2)
    first = weighted_draws(Program(model, guide), x, 20, seed=0).latents["z"]
    again = weighted_draws(Program(model, guide), x, 20, seed=0).latents["z"]
    assert torch.equal(first, again)
