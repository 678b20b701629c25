"""Runs that stop and go on, and what training does beside our own objectives and defaults."""

import warnings
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, MultiStepLR, SequentialLR

from ppl_vae import (
    ELBO,
    MLP,
    VAE,
    Adversarial,
    Conditional,
    GaussianMixture,
    Normal,
    Program,
    StandardNormal,
    fit,
)
from ppl_vae.objectives import ObjectiveState, Phase
from ppl_vae.programs.traces import structure
from ppl_vae.training.blame import NonFiniteError
from ppl_vae.training.updater import _decode, _encode, _encoded

ADAM = (torch.optim.Adam, {"lr": 1e-3})


def small(prior=None, seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return VAE(
        prior or StandardNormal(1),
        Conditional(MLP(), Normal(3, scale=1.0), given=1),
        Conditional(MLP(), Normal(1), given=3),
    )


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(24, 3, generator=torch.Generator().manual_seed(1))


def trained(x, program=None, **arguments):
    pyro.clear_param_store()
    program = program or small()
    arguments = {"epochs": 2, "batch_size": 12, "seed": 0, "progress": False} | arguments
    return program, fit(program, x, **arguments).history


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def whole_and_resumed(x, path, make):
    """Two epochs and two more, against four; `make` gives fresh arguments, as a process would."""
    whole = trained(x, epochs=4, **make())
    trained(x, epochs=2, checkpoint=path, **make())
    return whole, trained(x, small(seed=9), epochs=4, checkpoint=path, **make())


def steps(optimizer):
    return MultiStepLR(optimizer, [1, 3])


def sequence(optimizer):
    return SequentialLR(
        optimizer, [ExponentialLR(optimizer, 0.9), MultiStepLR(optimizer, [1, 2])], [1]
    )


def critic(sizes: int, out: int) -> nn.Module:
    return nn.Linear(sizes, out)


def critic_builder():
    def build(sizes: int, out: int) -> nn.Module:
        return nn.Linear(sizes, out)

    return build


RUNS = {
    "MultiStepLR": lambda: {"schedule": (MultiStepLR, {"milestones": [1, 3]})},
    "a function": lambda: {"schedule": steps},
    "SequentialLR": lambda: {"schedule": sequence},
    "Trace_ELBO": lambda: {"objective": Trace_ELBO()},
    "PyroOptim": lambda: {"optimizer": pyro.optim.Adam({"lr": 1e-2}, {"clip_norm": 1.0})},
    "ClippedAdam": lambda: {"optimizer": pyro.optim.ClippedAdam({"lr": 1e-2})},
    "a critic's builder": lambda: {"objective": Adversarial(critic=critic_builder())},
    "a critic's lambda": lambda: {"objective": Adversarial(critic=lambda a, b: nn.Linear(a, b))},
}


@pytest.mark.parametrize("name", RUNS)
def test_resumed_is_whole(name, x, tmp_path) -> None:
    (whole, rows), (resumed, others) = whole_and_resumed(x, tmp_path / "run", RUNS[name])
    assert same(whole, resumed)
    assert rows["loss"].tolist() == others["loss"].tolist()
    if "learning_rate" in rows:
        assert rows["learning_rate"].tolist() == others["learning_rate"].tolist()


def test_a_split_without_a_seed_is_kept(x, tmp_path) -> None:
    path = tmp_path / "run"

    def given(epochs: int) -> dict:
        return {"seed": None, "validation": 0.2, "patience": 9, "epochs": epochs}

    program = small()
    torch.manual_seed(3)
    whole, _ = trained(x, program, **given(4))
    program = small()
    torch.manual_seed(3)
    trained(x, program, checkpoint=path, **given(2))
    program = small(seed=9)
    torch.manual_seed(77)
    resumed, _ = trained(x, program, checkpoint=path, **given(4))
    assert same(whole, resumed)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({}, {"schedule": (ExponentialLR, {"gamma": 0.5})}, "schedules was"),
        ({"schedule": (ExponentialLR, {"gamma": 0.5})}, {}, "schedules was"),
        ({}, {"validation": 0.2}, "validation rows was None"),
        ({}, {"optimizer": pyro.optim.Adam({"lr": 1e-3})}, "optimizers was"),
        (
            {"objective": Adversarial(critic=MLP(4))},
            {"objective": Adversarial(critic=MLP(4, activation=nn.Tanh))},
            "objective was",
        ),
        ({"objective": Trace_ELBO()}, {"objective": Trace_ELBO(num_particles=2)}, "objective was"),
    ],
)
def test_another_run_is_refused_in_a_sentence(before, after, says, x, tmp_path) -> None:
    trained(x, checkpoint=tmp_path / "run", **before)
    with pytest.raises(ValueError, match=f"of another run: .*{says}"):
        trained(x, epochs=3, checkpoint=tmp_path / "run", **after)


def test_state_comes_back_from_json_or_is_refused(x, tmp_path) -> None:
    state = {"a": {3: (1, 2.5)}, "b": [{"c": None}], "d": ()}
    assert _decode(_encode(state)) == state
    with pytest.raises(ValueError, match="no checkpoint can hold .* Try another schedule"):
        _encoded({"f": print})

    class Rate:
        def __init__(self) -> None:
            self.keep = torch.ones(2)

        def __call__(self, epoch: int) -> float:
            return 1.0

    with pytest.raises(ValueError, match="no checkpoint can hold"):
        trained(x, checkpoint=tmp_path / "run", schedule=(LambdaLR, {"lr_lambda": Rate()}))
    assert not list(tmp_path.iterdir())


# ---- gradients


def test_gradients_left_behind_do_not_count(x) -> None:
    stale = small(GaussianMixture(torch.zeros(2, 1), learned=True))
    fresh = small(GaussianMixture(torch.zeros(2, 1), learned=True))
    for p in stale.parameters():
        p.grad = torch.ones_like(p)
    trained(x, stale)
    trained(x, fresh)
    assert same(stale, fresh)


def test_an_adversary_moves_no_prior_even_after_an_elbo_fit(x) -> None:
    decaying = (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.5})
    program = small(GaussianMixture(torch.ones(2, 1), learned=True))
    trained(x, program, optimizer=decaying)
    before = {k: v.clone() for k, v in program.prior.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(x, program, optimizer=decaying, objective=Adversarial(critic=MLP(4)))
    assert all(torch.equal(v, before[k]) for k, v in program.prior.state_dict().items())


# ---- objectives of one's own


@dataclass(frozen=True)
class Own:
    """Two phases of the same loss, and a score to choose."""

    value: float | None = None
    sub: ELBO = ELBO()

    def init(self, program, batch) -> ObjectiveState:
        return ObjectiveState(structure(program, batch))

    def phases(self, program, state) -> tuple[Phase, ...]:
        loss = self.sub.phases(program, state)[0].loss
        return Phase("one", loss), Phase("two", loss)

    def score(self, means) -> float | None:
        return self.value


def test_patience_without_a_score_is_refused_before_training(x) -> None:
    program, before = small(), small()
    with pytest.raises(ValueError, match="patience=1 under Own.*score is None.*Try patience=None"):
        trained(x, program, objective=Own(), validation=0.2, patience=1)
    assert same(program, before)
    _, history = trained(x, objective=Own(1.0), validation=0.2, patience=1, epochs=9)
    assert len(history) == 2


def test_looking_for_a_score_changes_no_bit(x) -> None:
    a, history = trained(x, objective=Own(1.0), validation=x, patience=9, epochs=1)
    b, other = trained(x, objective=Own(1.0), validation=x, epochs=1)
    assert same(a, b)
    assert history["validation_loss"].tolist() == other["validation_loss"].tolist()


def test_phases_that_share_an_updater_step_the_schedule_once(x) -> None:
    _, history = trained(
        x, objective=Own(), epochs=3, optimizer=ADAM, schedule=(ExponentialLR, {"gamma": 0.1})
    )
    assert history["learning_rate"].tolist() == pytest.approx([1e-3, 1e-4, 1e-5])


def test_validation_runs_the_critic_in_eval_mode(x) -> None:
    seen = set()

    class Critic(nn.Linear):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            seen.add((self.training, torch.is_grad_enabled(), len(z)))
            return super().forward(z)

    trained(x, objective=Adversarial(critic=Critic), validation=x[:5], epochs=2)
    assert {training for training, _, rows in seen if rows == 5} == {False}
    assert (True, True, 12) in seen  # and given back


def test_a_parameter_made_after_the_best_epoch_stays(x) -> None:
    torch.manual_seed(0)
    guide_net = nn.Linear(3, 1)
    runs = []

    def model(x):
        runs.append(torch.is_grad_enabled())
        loc = pyro.param("loc", torch.zeros(3))
        if sum(runs) > 4:  # two steps of two phases: from the second epoch on
            loc = loc + pyro.param("late", torch.zeros(3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(loc + z, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("guide_net", guide_net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(guide_net(x), 1.0).to_event(1))

    program = Program(model, guide, modules=[guide_net])
    _, history = trained(x, program, objective=Own(1.0, ELBO()), validation=x, patience=3, epochs=4)
    assert len(history) == 4
    assert "late" in pyro.get_param_store()


# ---- the last good state


@pytest.mark.parametrize("objective", [ELBO(), Own()])
def test_an_update_to_infinity_is_undone(objective, x) -> None:
    program, before = small(), small()
    with pytest.raises(NonFiniteError, match="not finite after the update.*last good state"):
        trained(10 * x, program, objective=objective, optimizer=(torch.optim.SGD, {"lr": 1e38}))
    assert same(program, before)


def test_large_is_not_infinite(x) -> None:
    program = small()
    with torch.no_grad():
        program.prior.register_parameter("far", nn.Parameter(torch.full((2,), 1e30)))
    trained(x, program)  # its sum of squares overflows, no number of it does
    assert (program.prior.far == 1e30).all()


# ---- columns


def test_columns_do_not_vanish_silently(x) -> None:
    def model(x):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", 24, subsample=x):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("loc", dist.Normal(pyro.param("m", torch.zeros(3)), 1.0).to_event(1))

    with pytest.warns(UserWarning, match="'loc' is outside the data plate.*no elbo and no kl"):
        _, history = trained(x, Program(model, guide))
    assert "elbo" not in history
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(x)
