"""What critics are told, what they cost and how they fare, against what is known of Gaussians."""

import math
from contextlib import nullcontext

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm
from torch import nn

from ppl_vae import (
    ELBO,
    MLP,
    MMD,
    VAE,
    Adversarial,
    Conditional,
    GaussianMixture,
    Hinge,
    LeastSquares,
    NonSaturating,
    Normal,
    Program,
    StandardNormal,
    VampPrior,
    Wasserstein,
    fit,
)
from ppl_vae.data import Batch
from ppl_vae.distributions import SampleOnly
from ppl_vae.objectives.critics import Critic
from ppl_vae.training import compiled as module
from ppl_vae.training.adversary import EPOCHS, adversary
from ppl_vae.training.loop import _means
from ppl_vae.training.step import TrainState, train_step
from ppl_vae.training.updater import Updater

SHIFT = 1.0
LOSSES = [NonSaturating(), LeastSquares(), Hinge(), Wasserstein()]


def shifted(shift):
    """z ~ N(0, I) in the plane, and a guide that never moves: z | x ~ N((shift, 0), I).

    On a line a slope of the wrong sign is a local minimum under a gradient penalty.
    """

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = pyro.param("a", torch.tensor(0.0)) + 0 * z[:, 0]
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = torch.tensor([shift, 0.0]).expand(len(x), 2)
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    return Program(model, guide)


def trained(loss, net, steps=300, rate=0.02):
    pyro.clear_param_store()
    torch.manual_seed(0)
    falling = (torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": steps // 10})
    _, state = fit(
        shifted(SHIFT),
        torch.zeros(20_000),
        objective=Adversarial(
            net,
            loss=loss,
            critic_optimizer=(torch.optim.Adam, {"lr": rate}),
            critic_schedule=falling,
        ),
        optimizer=(torch.optim.SGD, {"lr": 0.0}),
        epochs=steps // 10,
        batch_size=2000,
        seed=0,
        progress=False,
    )
    (critic,) = state.objective_state.critics
    z = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(1))
    moved = torch.tensor([SHIFT, 0.0])
    with torch.no_grad():
        return critic, critic(z[:100_000]), critic(z[100_000:] + moved)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs)


def squashed(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Sigmoid())


GRID = torch.stack([torch.linspace(-2.0, 3.0, 11), torch.zeros(11)], 1)
RATIO = SHIFT**2 / 2 - SHIFT * GRID[:, 0]  # log p(z) / q(z)


@pytest.mark.parametrize(
    ("loss", "net", "best"),
    [
        (NonSaturating(), linear, RATIO),
        (LeastSquares(), squashed, torch.sigmoid(RATIO)),
        # What the penalty adds to the slope of 1: the minimum of −m a + λ (a − 1)².
        (Wasserstein(5.0), linear, None),
    ],
    ids=["non-saturating", "least squares", "wasserstein"],
)
def test_the_best_score_is_that_of_the_theory(loss, net, best) -> None:
    """Of 600,000 pairs of draws a logistic slope and intercept have SEs of about 0.003; Adam's last
    steps are of about 1e-3. Ten such errors, times the distance from 0 (3 at most) for a score:
    0.1; a loss whose sides are exchanged is off by over 1."""
    critic, _, _ = trained(loss, net)
    with torch.no_grad():
        score = critic(GRID)
    if best is None:
        slope = critic.net.weight.detach()[0]
        assert abs(float(slope.norm()) - 1 - SHIFT / (2 * loss.penalty)) < 0.03
        assert float(slope[0]) < -1
    else:
        assert (score - best).abs().max() < 0.1


def integral(function):
    z = np.linspace(-9.0, 10.0, 20_001)
    p, q = norm.pdf(z), norm.pdf(z, SHIFT)
    return float(np.trapezoid(function(p, q), z))


@pytest.mark.parametrize(
    ("loss", "net", "least"),
    [
        (NonSaturating(), linear,
         integral(lambda p, q: -p * np.log(p / (p + q)) - q * np.log(q / (p + q)))),
        (LeastSquares(), squashed, integral(lambda p, q: p * q / (p + q)) / 2),
        (Hinge(), MLP(32, 32), 4 * norm.cdf(-SHIFT / 2)),
        (Wasserstein(5.0), linear, -SHIFT - SHIFT**2 / 20),
    ],
    ids=["non-saturating", "least squares", "hinge", "wasserstein"],
)  # fmt: skip
def test_the_critics_loss_at_its_best_is_that_of_the_theory(loss, net, least) -> None:
    """Fresh draws, so that no critic is below the least but by chance: 4 standard errors. Above it
    by 0.01 at most, 0.03 for the hinge, whose best score is a step that no net of 32 has."""
    critic, real, fake = trained(loss, net)
    each = loss.critic(real, fake)
    found, se = float(each.mean()), float(each.std() / len(each) ** 0.5)
    if loss.penalty:
        found += loss.penalty * (float(critic.net.weight.detach().norm()) - 1) ** 2
    assert least - 4 * se < found < least + 4 * se + (0.03 if isinstance(loss, Hinge) else 0.01)


def test_the_wasserstein_critic_measures_the_distance() -> None:
    """W₁ of a shift is the shift; the penalty makes it (1 + m / 2λ) of it: 5 SE, and 0.02 for a
    slope whose direction is learnt of batches."""
    _, real, fake = trained(Wasserstein(5.0), linear)
    se = float(((real.var() + fake.var()) / len(real)).sqrt())
    expected = SHIFT * (1 + SHIFT / 10)
    assert abs(float(real.mean() - fake.mean()) - expected) < 5 * se + 0.02


@pytest.mark.parametrize("loss", LOSSES, ids=lambda v: type(v).__name__)
def test_the_encoder_is_pulled_towards_the_prior(loss) -> None:
    """At a critic that has learnt, a step against the gradient moves codes to the prior's side."""
    critic, _, _ = trained(loss, MLP(16), steps=100)
    z = (torch.randn(1000, 2) + torch.tensor([SHIFT, 0.0])).requires_grad_()
    value, norms = critic.fooled(z, loss)
    (gradient,) = torch.autograd.grad(value, z)
    torch.testing.assert_close(norms, gradient.norm(dim=1).sum())
    assert gradient[:, 0].mean() > 0  # −gradient points to 0
    shown = loss.generator(critic.out_of_reach(z))
    torch.testing.assert_close(value, shown.sum())
    torch.testing.assert_close(gradient, torch.autograd.grad(shown.sum(), z)[0])
    assert not any(p.grad is not None and p.grad.any() for p in critic.parameters())


def test_a_constant_critic_fares_as_it_should() -> None:
    net = nn.Linear(2, 1)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    critic = Critic("critic", ("z",), (), net, 2)
    for loss in LOSSES:  # a guess in every case
        _, parts = critic.lesson(torch.randn(40, 2), torch.randn(40, 2), loss)
        assert parts["critic_accuracy"] == 20
    nn.init.constant_(net.bias, 30.0)
    critic = Critic("critic", ("z",), (), net, 2)
    _, parts = critic.lesson(torch.randn(40, 2), torch.randn(40, 2), NonSaturating())
    assert parts["critic_accuracy"] == 20  # all of one side
    assert parts["critic_saturation"] == 20  # sure of draws of the prior, and right
    z = torch.randn(40, 2, requires_grad=True)
    assert not critic.fooled(z, Hinge())[1].any()


# What a phase may touch


class Nets(nn.Module):
    """Classes and style, as in the paper: two critics."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        self.classifier, self.encoder = MLP(8)(4, 3), MLP(8)(4, 2)

    def model(self, x):
        pyro.module("nets", self)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample(
                "x", dist.Normal(self.decoder(torch.cat([y, z], -1)), 1.0).to_event(1), obs=x
            )

    def guide(self, x):
        pyro.module("nets", self)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.OneHotCategorical(logits=self.classifier(x)))
            pyro.sample("z", dist.Normal(self.encoder(x), 0.1).to_event(1))


def with_classes():
    pyro.clear_param_store()
    nets = Nets()
    return Program(nets.model, nets.guide, modules=[nets])


def autoencoder(prior=None):
    def normed(inputs, outputs):
        return nn.Sequential(
            nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs)
        )

    return VAE(
        prior or StandardNormal(2),
        Conditional(normed, Normal(4, scale=0.5), given=2),
        Conditional(normed, Normal(2), given=4),
    )


def state_of(program, objective, x):
    program.train()
    state = objective.init(program, Batch((x,), {}))
    state.train()
    return state


def moves(program, state, phase, x, optimizer=(torch.optim.AdamW, {"lr": 1e-2})):
    """Take a step of one phase, and name what is not bit-equal after it."""
    kept = [{k: v.clone() for k, v in m.state_dict().items()} for m in (program, state)]
    train = TrainState(program, state, (phase,), {phase.name: Updater(optimizer)}, None)
    train_step(train, Batch((x,), {}))
    return tuple(
        {k for k, v in m.state_dict().items() if not torch.equal(before[k], v)}
        for m, before in zip((program, state), kept, strict=True)
    )


SGD = (torch.optim.SGD, {"lr": 0.01})


@pytest.mark.parametrize("alone", [False, True], ids=["one phase", "generator by itself"])
@pytest.mark.parametrize("classes", [False, True], ids=["one critic", "two critics"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda v: type(v).__name__)
def test_a_phase_moves_its_own_side_only(loss, classes, alone) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    program = with_classes() if classes else autoencoder()
    critic = {"y": MLP(8), "z": MLP(8)} if classes else MLP(8)
    objective = Adversarial(critic, loss=loss, generator_optimizer=SGD if alone else None)
    state = state_of(program, objective, x)
    phases = {p.name: p for p in objective.phases(program, state)}
    assert list(phases) == (
        ["reconstruction", "generator", "critic"] if alone else ["generator", "critic"]
    )
    everything = set(program.state_dict()) - {k for k in program.state_dict() if "prior" in k}
    own = {k for k in everything if "encoder" in k or "classifier" in k}
    statistics = {k for k in own if "running" in k or "num_batches" in k}
    for _ in range(2):  # the second step has moments behind it
        if alone:
            assert moves(program, state, phases["reconstruction"], x) == (everything, set())
            assert moves(program, state, phases["generator"], x) == (own - statistics, set())
        else:
            assert moves(program, state, phases["generator"], x) == (everything, set())
        moved, critics = moves(program, state, phases["critic"], x)
        assert not moved
        assert critics == set(state.state_dict()) - {"epoch"}


def prior_of(kind, x):
    if kind == "mixture":
        return GaussianMixture(torch.randn(3, 2), learned=True)
    return VampPrior(x[:5])


@pytest.mark.parametrize("kind", ["mixture", "vamp"])
def test_a_prior_learns_in_a_phase_of_its_own(kind) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    program = autoencoder(prior_of(kind, x))
    objective = Adversarial(MLP(8), learn_prior=True)
    with pytest.warns(UserWarning, match="moves as") if kind == "vamp" else nullcontext():
        state = state_of(program, objective, x)
    generator, critic, prior = objective.phases(program, state)
    own = {n for n, _ in program.named_parameters() if n.startswith("prior")}
    assert own
    for _ in range(2):
        moved, _ = moves(program, state, generator, x)
        assert moved and not moved & own  # nor by the decay of AdamW's weights
        assert moves(program, state, critic, x)[0] == set()
        assert moves(program, state, prior, x) == (own, set())


def test_a_prior_that_learns_ends_where_codes_are() -> None:
    """Codes are pulled to nothing (weight 0), so that the prior alone moves, to the mean and spread
    of codes z ~ N(3, 0.5²): 5 standard errors of the 4000 draws of an epoch at the end, where the
    rate is nothing."""
    torch.manual_seed(0)
    pyro.clear_param_store()

    def model(x):
        loc, scale = (
            pyro.param("loc", torch.tensor(0.0)),
            pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive),
        )
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, scale))
            pyro.sample("x", dist.Normal(pyro.param("a", torch.tensor(0.0)) + 0 * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.tensor(3.0), 0.5).expand([len(x)]))

    falling = (torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": 150})
    fit(
        Program(model, guide), torch.zeros(4000),
        objective=Adversarial(linear, weight=0.0, learn_prior=True),
        optimizer=(torch.optim.Adam, {"lr": 0.05}), schedule=falling, epochs=150,
        batch_size=1000, seed=0, progress=False,
    )  # fmt: skip
    assert abs(float(pyro.param("loc").detach()) - 3.0) < 5 * 0.5 / math.sqrt(4000)
    assert abs(float(pyro.param("scale").detach()) - 0.5) < 5 * 0.5 / math.sqrt(8000)


@pytest.mark.parametrize("weight", [0.5, 20.0])
def test_the_history_is_what_was_minimised(weight) -> None:
    """loss = −reconstruction + weight · adversarial, and the gradient has the weight in it."""
    x = torch.randn(64, 4)
    history, _ = fit(autoencoder(), x, objective=Adversarial(MLP(8), weight=weight), epochs=3,
                     seed=0, progress=False)  # fmt: skip
    expected = weight * history["adversarial"] - history["reconstruction"]
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    program = autoencoder()
    objective = Adversarial(MLP(8), weight=weight)
    state = state_of(program, objective, x)
    generator, _ = objective.phases(program, state)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = generator.loss(state, x)[1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = program.guide(x).detach().requires_grad_()
    lost = NonSaturating().generator(state.critics[0](z)).sum()
    (gradient,) = torch.autograd.grad(weight * lost, z)
    assert float(parts["critic_gradient"]) == pytest.approx(float(gradient.norm(dim=1).sum()))


def test_critic_steps_are_taken() -> None:
    for steps in (1, 3):
        state = fit(
            autoencoder(), torch.randn(64, 4), objective=Adversarial(MLP(8), critic_steps=steps),
            epochs=2, batch_size=32, seed=0, progress=False,
        ).state  # fmt: skip
        counts = {
            name: {int(v["step"]) for v in u.optimizer.state.values()}
            for name, u in state.updaters.items()
        }
        assert counts == {"generator": {4}, "critic": {4 * steps}}


def test_rates_and_schedules_are_each_phases_own() -> None:
    epochs = 3
    halving = (torch.optim.lr_scheduler.StepLR, {"step_size": 1, "gamma": 0.5})
    objective = Adversarial(
        MLP(8),
        critic_optimizer=(torch.optim.Adam, {"lr": 4e-3}),
        critic_schedule=halving,
        generator_optimizer=(torch.optim.SGD, {"lr": 8e-3}),
        generator_schedule=(
            torch.optim.lr_scheduler.ConstantLR,
            {"factor": 0.25, "total_iters": 9},
        ),
    )
    state = fit(
        autoencoder(), torch.randn(64, 4), objective=objective, schedule=None, epochs=epochs,
        batch_size=32, seed=0, progress=False,
    ).state  # fmt: skip
    rates = {name: u.learning_rate for name, u in state.updaters.items()}
    assert rates == pytest.approx(
        {"reconstruction": 1e-3, "generator": 2e-3, "critic": 4e-3 / 2**epochs}
    )


class Seen(nn.Module):
    """A critic that keeps what it is shown."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.batches = []

    def forward(self, z):
        self.batches.append(z.detach().clone())
        return self.linear(z)


def shown(program, objective, epoch=0.0, **data):
    """What the critics are shown in their phase: (prior, codes) each."""
    batch = Batch((), data)
    state = objective.init(program, batch)
    state.epoch.fill_(epoch)
    phase = objective.phases(program, state)[-1]
    for critic in state.critics:
        critic.net.batches.clear()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        phase.loss(state, **data)
    return [critic.net.batches[:2] for critic in state.critics]


def test_instance_noise_is_there_and_falls_to_nothing() -> None:
    torch.manual_seed(0)
    x, program = torch.randn(4000, 4), autoencoder()
    plain = shown(program, Adversarial(Seen), x=x)[0]
    for epoch, sd in ((0.0, 2.0), (5.0, 1.0), (10.0, 0.0), (20.0, 0.0)):
        noisy = Adversarial(Seen, instance_noise=2.0, noise_epochs=10)
        both = shown(program, noisy, epoch, x=x)[0]
        # Of a prior's variance, 1 + sd²; its SE over 8000 numbers is √(2/8000) of it.
        assert float(both[0].var()) == pytest.approx(1 + sd**2, rel=5 * math.sqrt(2 / 8000))
        # Codes have a spread of their own, and as much more; both variances have that SE, or so.
        codes = float(plain[1].var())
        assert float(both[1].var()) == pytest.approx(codes + sd**2, rel=10 * math.sqrt(2 / 8000))
    assert float(plain[0].var()) == pytest.approx(1, rel=5 * math.sqrt(2 / 8000))


def conditional():
    """A prior whose place hangs on a label, and a decoder that is told it."""
    prior = Conditional(linear, Normal(2, scale=1.0), given={"label": 3})
    with torch.no_grad():
        prior.net.weight.copy_(10 * torch.eye(3)[:2])
        prior.net.bias.zero_()
    prior.requires_grad_(False)
    return VAE(
        prior,
        Conditional(MLP(8), Normal(4, scale=0.5), given={"z": 2, "label": 3}),
        Conditional(MLP(8), Normal(2), given=4),
    )


def test_critics_are_shown_covariates_as_they_are() -> None:
    label = torch.eye(3)[torch.arange(600) % 3]
    data = {"x": torch.randn(600, 4), "label": label}
    ((real, fake),) = shown(
        conditional(), Adversarial(Seen, given=("label",), instance_noise=0.5), **data
    )
    assert real.shape == fake.shape == (600, 5)
    assert torch.equal(real[:, 2:], label) and torch.equal(fake[:, 2:], label)
    # The prior's draws are those of the label beside them: p(z|c), not p(z).
    centres = 10 * torch.eye(3)[:, :2]
    assert (real[:, :2] - label @ centres).abs().max() < 6
    with pytest.raises(ValueError, match="given=\\['age'\\].*expected a covariate"):
        shown(conditional(), Adversarial(Seen, given=("age",)), **data)


def test_a_critic_that_is_shown_the_data_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"given=\['x'\], which the model observes.*Try given=\(\)"
    ):
        shown(
            conditional(), Adversarial(Seen, given=("x",)), x=torch.randn(60, 4),
            label=torch.eye(3)[torch.arange(60) % 3],
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"given=\['x'\], which the model observes"):
        Adversarial(linear, given=("x",)).init(autoencoder(), Batch((torch.randn(8, 4),), {}))


def test_each_critic_is_shown_its_own_latents_and_classes_by_their_probabilities() -> None:
    program, x = with_classes(), torch.randn(500, 4)
    found = shown(program, Adversarial({"z": Seen, "y": Seen}), x=x)
    (z_real, z_fake), (y_real, y_fake) = found
    assert z_real.shape == z_fake.shape == (500, 2) and y_real.shape == y_fake.shape == (500, 3)
    assert set(y_real.unique().tolist()) == {0.0, 1.0}  # drawn: one of three
    assert torch.allclose(y_fake.sum(1), torch.ones(500)) and 0 < float(y_fake.min())
    ((together, _),) = shown(with_classes(), Adversarial({("y", "z"): Seen}), x=x)
    assert together.shape == (500, 5)
    for wrong in ({"y": Seen}, {"y": Seen, "z": Seen, "w": Seen}, {"y": Seen, ("y", "z"): Seen}):
        with pytest.raises(ValueError, match=r"latents \['y', 'z'\].*Try critic="):
            Adversarial(wrong).init(with_classes(), Batch((x,), {}))


def test_a_program_of_classes_trains_as_a_graph_as_it_does_by_hand(monkeypatch) -> None:
    """torch's one_hot, which OneHotCategorical draws by, asks for the value of a tensor."""
    monkeypatch.setattr(module, "compiled", lambda graph, _: module.interpreted(graph))
    x = torch.randn(64, 4)
    program = with_classes()
    columns = fit(program, x, objective=Adversarial({"y": MLP(8), "z": MLP(8)}), epochs=2, seed=0,
                  progress=False).history.columns  # fmt: skip
    assert {"critic_y_accuracy", "critic_z_accuracy", "critic_y_gradient"} <= set(columns)
    compiled, eager = (
        fit(with_seed(), x, objective=Adversarial(MLP(8)), epochs=4, batch_size=32, seed=0,
            progress=False, compile=c)
        for c in (True, False)
    )  # fmt: skip
    assert compiled.state.compiled == 7
    np.testing.assert_allclose(compiled.history["loss"], eager.history["loss"], rtol=1e-5)


def with_seed():
    torch.manual_seed(0)
    return with_classes()


def padded(seen=None):
    """Rows that a mask leaves out, as padding is: latents and data."""

    def model(x, seen):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=seen):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = pyro.param("a", torch.tensor(1.0)) * z
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x, seen):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=seen):
            loc = pyro.param("b", torch.tensor(0.5)) * x
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    return Program(model, guide)


@pytest.mark.parametrize(
    "objective", [Adversarial(linear, loss=loss) for loss in LOSSES] + [MMD()],
    ids=lambda o: type(getattr(o, "loss", o)).__name__,
)  # fmt: skip
def test_rows_that_a_mask_leaves_out_count_nowhere(objective) -> None:
    """What stands in padding changes no loss, no gradient and no figure of a critic."""
    x, seen = torch.randn(20, 2), torch.arange(20) < 12
    found = []
    for filler in (0.0, 100.0):
        pyro.clear_param_store()
        torch.manual_seed(0)
        program = padded()
        data = torch.where(seen[:, None], x, torch.tensor(filler))
        state = objective.init(program, Batch((data, seen), {}))
        losses = []
        for phase in objective.phases(program, state):
            with torch.random.fork_rng():
                torch.manual_seed(1)
                loss, parts = phase.loss(state, data, seen)
            loss.backward()
            losses += [loss.detach(), *parts.values()]
        found.append([*losses, pyro.param("b").unconstrained().grad.clone()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_critics_figures_are_means_of_the_rows_that_count(loss) -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(2, 20, 2)
    critic = Critic("critic", ("z",), (), nn.Linear(2, 1), 2)
    rows = (torch.arange(20) < 12).float()
    for weight in (1.0, 0.01):
        found = []
        for part in ((real, fake, loss, weight * rows), (real[:12], fake[:12], loss)):
            torch.manual_seed(1)  # the penalty's points: a number a row
            _, parts = critic.lesson(*part)
            found.append(_means({k: float(v) for k, v in parts.items()}, len(part[0])))
        if loss.penalty:  # drawn for 20 rows and for 12
            found = [{k: v for k, v in f.items() if k != "critic_loss"} for f in found]
        assert found[0] == pytest.approx(found[1], rel=1e-5)
        gradients = [
            critic.fooled(z.clone().requires_grad_(), loss, *more)[1] / count
            for z, count, *more in ((fake, 12 * weight, weight * rows), (fake[:12], 12))
        ]
        torch.testing.assert_close(*gradients)
    _, parts = critic.lesson(real, fake, loss, 0 * rows)
    assert all(v == 0 for v in parts.values())  # none counts: nothing is added, and no NaN


def test_an_epochs_figures_are_means_of_the_rows_that_count() -> None:
    """Rows that count, in batches of any make-up, fare as they do alone."""

    def one(inputs, outputs):
        net = nn.Linear(inputs, outputs)
        nn.init.ones_(net.weight), nn.init.zeros_(net.bias)
        return net

    still = (torch.optim.SGD, {"lr": 0.0})
    objective = Adversarial(one, critic_optimizer=still)
    x = torch.randn(60, 2) + 1
    seen = torch.rand(60) < 0.2
    columns = {}
    for name, rows in (("mixed", torch.arange(60)), ("alone", seen.nonzero()[:, 0])):
        pyro.clear_param_store()
        history, _ = fit(
            padded(), (x[rows], seen[rows]), objective=objective, optimizer=still, epochs=100,
            batch_size=4, seed=0, progress=False,
        )  # fmt: skip
        columns[name] = {c: history[c] for c in history.columns if c.startswith("critic")}
    assert columns["mixed"].keys() == columns["alone"].keys() and len(columns["mixed"]) == 4
    for name, found in columns["mixed"].items():
        other = columns["alone"][name]
        se = np.hypot(found.std(ddof=1), other.std(ddof=1)) / 10
        # 1 in 16,000 each for a Normal. Batches without a row that counts are a third or more.
        assert abs(found.mean() - other.mean()) < 4 * se + 1e-6, name


def test_a_critic_that_judges_nothing_says_so() -> None:
    pyro.clear_param_store()
    x, none = torch.randn(20, 2), torch.zeros(20, dtype=torch.bool)
    with pytest.warns(UserWarning, match="judged nothing in this epoch.*mask") as said:
        history, _ = fit(
            padded(), (x, none), objective=Adversarial(linear), epochs=3, seed=0, progress=False
        )
    assert len([w for w in said if "judged" in str(w.message)]) == 1
    assert np.isnan(history["critic_accuracy"]).all()


def scaled(scale):
    """A program in which `poutine.scale` weighs all of it, or each row."""

    def of(function):
        def weighed(x):
            with pyro.poutine.scale(scale=scale):
                function(x)

        return weighed

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = pyro.param("a", torch.tensor(1.0)) * z
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = pyro.param("b", torch.tensor(0.5)) * x
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    return Program(of(model), of(guide))


OBJECTIVES = [Adversarial(linear, loss=loss) for loss in LOSSES] + [MMD()]


@pytest.mark.parametrize(
    "objective", OBJECTIVES, ids=lambda o: type(getattr(o, "loss", o)).__name__
)
def test_a_scale_weighs_critic_and_kernel_as_it_weighs_the_rest(objective) -> None:
    x, last = torch.randn(20, 2), torch.arange(20) >= 12
    whole, hundredth, slight, filled = (
        losses_of(objective, scaled(scale), data)
        for scale, data in (
            (1.0, x),
            (0.01, x),
            (torch.where(last, 1e-9, 1.0), x),
            (torch.where(last, 1e-9, 1.0), x + 100.0 * last[:, None]),
        )
    )
    for a, b in zip(whole, hundredth, strict=True):
        torch.testing.assert_close(0.01 * a, b, rtol=1e-4, atol=1e-4)
    for a, b in zip(slight, filled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(),
        MMD(),
        Adversarial(linear),
        Adversarial(linear, generator_optimizer=(torch.optim.Adam, {"lr": 1e-3})),
    ],
    ids=["elbo", "kernel", "critic", "two optimizers"],
)
def test_a_scale_is_in_the_loss_and_not_in_the_histories_reconstruction(objective) -> None:
    found = []
    for scale in (1.0, 0.01):
        pyro.clear_param_store()
        torch.manual_seed(0)
        program, x = scaled(scale), torch.randn(20, 2)
        state = objective.init(program, Batch((x,), {}))
        torch.manual_seed(1)
        _, parts = objective.phases(program, state)[0].loss(state, x)
        found.append(float(parts["reconstruction"]))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def losses_of(objective, program, *data):
    """Each phase's loss, and the gradients of program and critics."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    state = objective.init(program, Batch(data, {}))
    losses = []
    for phase in objective.phases(program, state):
        torch.manual_seed(1)
        loss, _ = phase.loss(state, *data)
        loss.backward()
        losses.append(loss.detach())
    own = [p.grad for p in state.parameters()]
    return [*losses, *own, pyro.param("b").unconstrained().grad.clone()]


def test_a_mask_within_a_datum_is_refused() -> None:
    seen = torch.arange(3) < torch.tensor([[3], [2], [1]])

    def steps(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("t", 3, dim=-1):
            with pyro.poutine.mask(mask=seen):
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("t", 3, dim=-1):
            with pyro.poutine.mask(mask=seen):
                pyro.sample("z", dist.Normal(pyro.param("b", torch.tensor(0.5)) * x, 1.0))

    for objective in (Adversarial(linear), MMD()):
        pyro.clear_param_store()
        with pytest.raises(ValueError, match="a part of some datum's 'z'.*Try ELBO"):
            objective.init(Program(steps, guide), Batch((torch.randn(3, 3),), {}))


def test_it_can_be_evaluated_and_starts_anew_where_the_store_does() -> None:
    x = torch.randn(32, 4)
    for loss in LOSSES:
        pyro.clear_param_store()
        program, objective = autoencoder(), Adversarial(MLP(4), loss=loss)
        svi = pyro.infer.SVI(program.model, program.guide, pyro.optim.Adam({"lr": 0.01}), objective)
        assert math.isfinite(svi.step(x)) and math.isfinite(svi.evaluate_loss(x))
    pyro.clear_param_store()
    first = objective._svi[next(iter(objective._svi))][1].critics[0]
    svi.step(x)
    assert objective._svi[next(iter(objective._svi))][1].critics[0] is not first
    with pytest.raises(ValueError, match="optimizer of its own"):
        Adversarial(critic_optimizer=SGD)(program.model, program.guide, x)


def test_classes_that_are_drawn_with_a_gradient_stay_drawn() -> None:
    from ppl_vae.objectives.codes import ClassProbabilities

    with ClassProbabilities():
        y = pyro.sample("y", dist.OneHotCategoricalStraightThrough(torch.ones(3)))
    assert set(y.tolist()) == {0.0, 1.0}


def test_a_prior_learns_beside_classes_that_no_mass_scores() -> None:
    pyro.clear_param_store()
    nets = Nets()

    def model(x):
        pyro.module("nets", nets)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3)))
            loc = pyro.param("loc", torch.zeros(2))
            z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
            mean = nets.decoder(torch.cat([y, z], -1))
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    program = Program(model, nets.guide, modules=[nets])
    fit(program, torch.randn(64, 4), objective=Adversarial(MLP(8), learn_prior=True), epochs=2,
        progress=False)  # fmt: skip
    assert pyro.param("loc").detach().abs().min() > 0


def test_a_prior_that_is_only_drawn_from_is_said_to_stay() -> None:
    class Push(nn.Module):
        event_shape = torch.Size([2])

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self):
            draw = lambda shape: self.linear(torch.randn(*shape, 2))  # noqa: E731
            return SampleOnly(draw, self.event_shape)

    with pytest.warns(UserWarning, match=r"'prior.linear.bias'.*do not move"):
        Adversarial(MLP(4)).init(autoencoder(Push()), Batch((torch.randn(8, 4),), {}))


def test_a_layer_that_nothing_uses_is_not_said_to_be_the_priors(recwarn) -> None:
    program = autoencoder(StandardNormal(2))
    program.decoder.spare = nn.Linear(3, 3)
    Adversarial(MLP(4)).init(program, Batch((torch.randn(8, 4),), {}))
    assert not [w for w in recwarn if "prior" in str(w.message)]


@pytest.mark.parametrize("objective", [Adversarial(linear), MMD()], ids=["critic", "kernel"])
def test_a_mask_of_a_distribution_counts_as_one_of_poutine(objective) -> None:
    """``.mask(...)``, before and behind ``.to_event``, is ``poutine.mask``."""

    def masked(where):
        def model(x, seen):
            with pyro.plate("data", len(x)), pyro.poutine.mask(mask=seen):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
                loc = pyro.param("a", torch.tensor(1.0)) * z
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

        def guide(x, seen):
            with pyro.plate("data", len(x)):
                q = dist.Normal(pyro.param("b", torch.tensor(0.5)) * x, 1.0)
                if where == "outside":
                    q = q.to_event(1).mask(seen)
                if where == "inside":
                    q = q.mask(seen[:, None]).to_event(1)
                if where == "poutine":
                    with pyro.poutine.mask(mask=seen):
                        return pyro.sample("z", q.to_event(1))
                if where == "parts":
                    q = q.mask(torch.tensor([True, False])).to_event(1)
                pyro.sample("z", q)

        return Program(model, guide)

    batch = Batch((torch.randn(20, 2), torch.arange(20) < 12), {})
    values = {}
    for where in ("poutine", "outside", "inside"):
        pyro.clear_param_store()
        torch.manual_seed(0)
        state = objective.init(masked(where), batch)
        losses = []
        for phase in objective.phases(masked(where), state):
            torch.manual_seed(1)
            loss, parts = phase.loss(state, *batch.args)
            losses += [float(v) for v in (loss.detach(), *parts.values())]
        values[where] = losses
    assert values["outside"] == pytest.approx(values["poutine"], rel=1e-6)
    assert values["inside"] == pytest.approx(values["poutine"], rel=1e-6)
    with pytest.raises(ValueError, match="leaves out a part of some datum's 'z'"):
        objective.init(masked("parts"), batch)


def test_covariates_of_a_plate_that_picks_rows_are_refused() -> None:
    def model(x, label):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = pyro.param("a", torch.tensor(1.0)) * z
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x[rows])

    def guide(x, label):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            loc = pyro.param("b", torch.tensor(0.5)) * x[rows]
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    pyro.clear_param_store()
    batch = Batch((), {"x": torch.randn(8, 2), "label": torch.arange(8.0)[:, None]})
    with pytest.raises(ValueError, match="picks rows of its own"):
        Adversarial(MLP(4), given=("label",)).init(Program(model, guide), batch)


def test_a_label_that_is_no_class_is_found_in_a_graph_too(monkeypatch) -> None:
    monkeypatch.setattr(module, "compiled", lambda graph, _: module.interpreted(graph))
    net = nn.Linear(4, 3)

    def model(x, label):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            code = nn.functional.one_hot(label, 3).to(x)
            pyro.sample("x", dist.Normal(net(z) + code, 1.0).to_event(1), obs=x)

    def guide(x, label):
        with pyro.plate("data", len(x)):
            scale = pyro.param("s", torch.tensor(1.0))
            pyro.sample("z", dist.Normal(scale * x.new_zeros(len(x), 4), 1.0).to_event(1))

    pyro.clear_param_store()
    label = torch.arange(40) % 3
    label[-1] = 7
    with pytest.raises((RuntimeError, ValueError), match="[Cc]lass values"):
        fit(Program(model, guide), (torch.randn(40, 3), label), epochs=3, batch_size=8, seed=3,
            progress=False, compile=True)  # fmt: skip


# Words of warning


def test_the_adversary_is_said_to_have_won_or_to_be_blind_once() -> None:
    """A healthy game, one that is at its end, and one that is switched off."""
    healthy = {"critic_accuracy": 0.6, "critic_gradient": 1.0}
    won = {"critic_accuracy": 0.97, "critic_gradient": 1.0}
    blind = {"critic_my_z_accuracy": 0.5, "critic_my_z_gradient": 1e-5}
    assert not adversary([healthy] * 50, 10.0)
    (said,) = adversary([healthy] * 5 + [won] * EPOCHS, 10.0)
    assert "has won" in said
    assert not adversary([won] * (EPOCHS - 1), 10.0)
    assert not adversary([won] * (EPOCHS + 1), 10.0)  # said before
    (said,) = adversary([blind] * EPOCHS, 10.0)
    assert said.startswith("The critic of my_z has") and "it is blind" in said
    assert not adversary([blind] * EPOCHS, 0.0)
    # A small weight is no blindness: the gradient is judged before it is weighed.
    light = {"critic_accuracy": 0.5, "critic_gradient": 3e-5}
    assert not adversary([light] * EPOCHS, 1e-4) and adversary([light] * EPOCHS, 1.0)
    assert len(adversary([{**blind, **won}] * EPOCHS, 10.0)) == 2
    others = {"elbo": -3.0, "label_accuracy": 0.99}
    assert not adversary([others] * EPOCHS, 1.0)


def test_a_dead_critic_is_noticed_while_training() -> None:
    def dead(inputs, outputs):
        net = nn.Sequential(nn.Linear(inputs, 4), nn.ReLU(), nn.Linear(4, outputs))
        with torch.no_grad():
            net[0].bias.fill_(-1e3)
        return net

    with pytest.warns(UserWarning, match="it is blind"):
        fit(autoencoder(), torch.randn(64, 4), objective=Adversarial(dead), epochs=EPOCHS,
            progress=False)  # fmt: skip


# What is refused


class Mean:
    """A loss that gives a mean, as everybody writes it."""

    penalty = 0.0

    def critic(self, real, fake):
        return (fake - real).mean()

    def generator(self, fake):
        return -fake.mean()

    def boundary(self, real, fake):
        return real.mean()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"critic_steps": 0}, "critic_steps=0"),
        ({"critic_steps": True}, "critic_steps=True"),
        ({"instance_noise": -1.0}, "instance_noise=-1.0"),
        ({"noise_epochs": 3}, "noise_epochs=3"),
        ({"instance_noise": 0.5, "noise_epochs": "5"}, "noise_epochs='5'"),
        ({"loss": Hinge}, "mind the brackets"),
        ({"loss": "hinge"}, "expected a critic's loss"),
        ({"loss": Mean()}, "a value for each score"),
        ({"given": "label"}, r"given=\('label',\)"),
        ({"given": None}, r"given=\('label',\)"),
        ({"critic": {1: MLP(4)}}, "a critic of 1"),
        ({"critic": {(): MLP(4)}}, "a critic of"),
        ({"critic": {"z": MLP(4)(2, 1)}}, "expected a builder"),
        ({"generator_optimizer": torch.optim.Adam}, "generator_optimizer=Adam"),
        ({"generator_schedule": SGD}, "without a generator_optimizer"),
    ],
)
def test_bad_arguments_are_refused(arguments, said) -> None:
    with pytest.raises(ValueError, match=said) as error:
        Adversarial(**arguments)
    assert "expected" in str(error.value) and "Try" in str(error.value)


def test_what_cannot_be_is_refused_in_words() -> None:
    x = Batch((torch.randn(8, 4),), {})
    with pytest.raises(ValueError, match="learn_prior=True, but no trainable parameter"):
        Adversarial(MLP(4), learn_prior=True).init(autoencoder(), x)

    def normed(inputs, outputs):
        return nn.Sequential(nn.Linear(inputs, 4), nn.BatchNorm1d(4), nn.Linear(4, outputs))

    with pytest.raises(ValueError, match="BatchNorm under Wasserstein"):
        Adversarial(normed, loss=Wasserstein()).init(autoencoder(), x)
    with pytest.raises(ValueError, match="penalty=0"):
        Wasserstein(0)
    program = autoencoder()
    with pytest.raises(ValueError, match="moves all at once"):
        Adversarial(MLP(4), critic_steps=2)(program.model, program.guide, torch.randn(8, 4))
    with pytest.raises(ValueError, match="critic_optimizer=.*cannot be built"):
        fit(program, torch.randn(8, 4), epochs=1, progress=False,
            objective=Adversarial(critic_optimizer=(torch.optim.Adam, {"rate": 1})))  # fmt: skip
    unknown = (torch.optim.lr_scheduler.ExponentialLR, {"factor": 0.9})
    with pytest.raises(ValueError, match="critic_schedule=.*cannot be built"):
        fit(program, torch.randn(8, 4), epochs=1, progress=False,
            objective=Adversarial(critic_schedule=unknown))  # fmt: skip
