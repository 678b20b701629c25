"""Nets as records: what they compute, in which layout, and what they refuse."""

import pytest
import torch
from torch import nn

from ppl_vae import (
    VAE,
    Bernoulli,
    Conditional,
    Convolutions,
    Deconvolutions,
    GatedMLP,
    Normal,
    StandardNormal,
)
from ppl_vae.testing import check_program


def test_a_gated_layer_is_h_times_the_sigmoid_of_g() -> None:
    net = GatedMLP(3)(2, 1)
    x = torch.randn(5, 2)
    (h, g), (b, c) = net[0].weight.split(3), net[0].bias.split(3)
    by_hand = net[2]((x @ h.T + b) * torch.sigmoid(x @ g.T + c))
    torch.testing.assert_close(net(x), by_hand)


def test_sizes_of_a_gated_net() -> None:
    net = GatedMLP(300, 200)(784, 40)
    shapes = [tuple(p.shape) for p in net.parameters() if p.dim() == 2]
    assert shapes == [(600, 784), (400, 300), (40, 200)]
    assert repr(GatedMLP(300, 200)) == "GatedMLP(300, 200)"
    assert GatedMLP()(3, 2)(torch.zeros(4, 3)).shape == (4, 2)
    with pytest.raises(ValueError, match="hidden widths"):
        GatedMLP(0)
    with pytest.raises(ValueError, match="GatedMLP sees flat rows"):
        GatedMLP(3)((1, 2, 2), 3)


@pytest.mark.parametrize("sides", [(28, 28), (7, 6), (5, 9), (1, 3)], ids=str)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_sides_of_any_length_go_down_and_come_up_again(sides, layers) -> None:
    image = (2, *sides)
    down = Convolutions(*[3] * layers)(image, 5)
    x = torch.randn(4, *image)
    seen = [x.shape[-2:]]
    for layer in down[:-2]:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            assert x.shape[-2:] == tuple(-(-s // 2) for s in seen[-1])  # halves, rounded up
            seen.append(x.shape[-2:])
    assert down(torch.randn(4, *image)).shape == (4, 5)

    up = Deconvolutions(*[3] * layers, image=image)(5, 2 * torch.Size(image).numel())
    h = up[1](up[0](torch.randn(4, 5)))
    found = [h.shape[-2:]]
    for layer in up[2:-1]:
        h = layer(h)
        if isinstance(layer, nn.ConvTranspose2d):
            found.append(h.shape[-2:])
    assert found == seen[::-1] and h.shape == (4, 4, *sides)


def test_parameters_come_out_as_whole_images_in_the_familys_order() -> None:
    image = (2, 7, 6)
    part = Conditional(Deconvolutions(4, 3, image=image), Normal(image), given=3)
    last = [m for m in part.net if isinstance(m, nn.ConvTranspose2d)][-1]
    with torch.no_grad():  # each plane is its bias
        last.weight.zero_()
        last.bias.copy_(torch.arange(4.0))
    d = part(torch.randn(5, 3))
    planes = torch.arange(4.0)[:, None, None].expand(5, 4, 7, 6)
    assert torch.equal(d.mean, planes[:, :2])
    assert torch.equal(d.stddev, 1e-3 + nn.functional.softplus(planes[:, 2:]))


def test_every_cell_and_every_weight_counts() -> None:
    # Sizes that are no multiple of the stride must not cut off a row or a column.
    x = torch.randn(3, 1, 7, 6, requires_grad=True)
    net = Convolutions(4, 4, activation=nn.Tanh)((1, 7, 6), 2)
    net(x).sum().backward()
    assert (x.grad != 0).all() and all((p.grad != 0).any() for p in net.parameters())
    z = torch.randn(3, 2, requires_grad=True)
    out = Deconvolutions(4, 4, image=(7, 6), activation=nn.Tanh)(2, 42)(z)
    assert out.shape == (3, 42) and len(out[0].unique()) > 21
    gradients = torch.stack([torch.autograd.grad(v, z, retain_graph=True)[0][0] for v in out[0]])
    assert (gradients != 0).all()


def test_a_vae_of_images_passes_the_kit() -> None:
    image = (1, 7, 6)
    vae = VAE(
        StandardNormal(2),
        Conditional(Deconvolutions(4, 4, image=image), Bernoulli(image), given=2),
        Conditional(Convolutions(4, 4), Normal(2), given=image, flatten=False),
    )
    check_program(vae, (torch.rand(20, *image) > 0.5).float())


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Convolutions(), r"channels \(\); expected positive integers"),
        (lambda: Convolutions(4, 0), "channels"),
        (lambda: Convolutions(4, activation="relu"), "activation='relu'"),
        (lambda: Deconvolutions(True, image=(2, 2)), "channels"),
        (lambda: Deconvolutions(4, image=28), "image=28; expected the shape"),
        (lambda: Deconvolutions(4, image=(0, 2)), r"image=\(0, 2\)"),
        (lambda: Convolutions(4)(784, 2), r"the input 784; expected the shape \(C, H, W\)"),
        (lambda: Convolutions(4)((28, 28), 2), r"input \(28, 28\)"),
        (lambda: Deconvolutions(4, image=(2, 2))((1, 2, 2), 4), "begin with flat rows"),
        (lambda: Deconvolutions(4, image=(2, 2))(3, 6), "6 parameters.*multiple of the 4 cells"),
    ],
)
def test_what_makes_no_net_is_refused(build, says) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        build()
    assert "Try" in str(caught.value)


def test_nets_say_what_they_are() -> None:
    assert repr(Convolutions(32, 64)) == "Convolutions(32, 64)"
    up = Deconvolutions(64, 32, image=(1, 28, 28))
    assert repr(up) == "Deconvolutions(64, 32, image=(1, 28, 28))"


def test_a_gated_network_starts_as_glorots():
    torch.manual_seed(0)
    net = GatedMLP(300)(400, 200)
    for weight in (*net[0].weight.chunk(2), net[2].weight):
        out, inputs = weight.shape
        # The variance of n draws of a Normal is right to √(2/n), here below 0.6 %: 6 of these.
        assert weight.var().item() == pytest.approx(
            2 / (out + inputs), rel=6 * (2 / weight.numel()) ** 0.5
        )
