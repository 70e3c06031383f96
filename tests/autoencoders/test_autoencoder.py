import math

import pytest
import torch
from scipy.linalg import subspace_angles

from course_lib.autoencoders.autoencoder import (
    conv_autoencoder,
    linear_autoencoder,
    mlp_autoencoder,
    principal_angles,
    principal_subspace,
)
from course_lib.core import FitOptions, Player, fit, minibatches, warmup_cosine
from course_lib.data import load


def test_principal_angles_are_scipys():
    for d, r in ((5, 1), (9, 3), (30, 7)):
        a, b = torch.randn(d, r, dtype=torch.float64), torch.randn(d, r, dtype=torch.float64)
        want = sorted(subspace_angles(a.numpy(), b.numpy()))
        assert principal_angles(a, b).tolist() == pytest.approx(want, abs=1e-9)


def test_principal_angles_by_hand():
    eye = torch.eye(4, dtype=torch.float64)
    turned = torch.stack([eye[0], math.cos(0.3) * eye[1] + math.sin(0.3) * eye[2]], 1)
    assert principal_angles(eye[:, :2], turned).tolist() == pytest.approx([0, 0.3])
    assert principal_angles(eye[:, :2], eye[:, 2:]).tolist() == pytest.approx([math.pi / 2] * 2)
    # the subspace counts, not its basis
    mixed = eye[:, :2] @ torch.tensor([[1.0, 5.0], [-2.0, 0.5]], dtype=torch.float64)
    assert principal_angles(eye[:, :2], mixed).max() < 1e-12


def test_tiny_angles_are_not_lost_to_rounding():
    e = torch.eye(3, dtype=torch.float64)
    tilted = e[:, :1] + 1e-10 * e[:, 1:2]
    assert principal_angles(e[:, :1], tilted).item() == pytest.approx(1e-10)  # acos of the cosine gives 0


def test_principal_subspace_is_that_of_the_covariance():
    x = torch.randn(300, 6, dtype=torch.float64) * torch.tensor([5, 4, 3, 0.2, 0.1, 0.1]).double() + 7
    basis, mean = principal_subspace(x, 3)
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(basis.T @ basis, torch.eye(3, dtype=torch.float64))
    _, vectors = torch.linalg.eigh(x.T.cov())
    assert principal_angles(basis, vectors[:, -3:]).max() < 1e-9


def test_linear_autoencoder_finds_the_principal_subspace():
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(8, 8))[0]
    x = (torch.randn(256, 8) * torch.tensor([2.0, 1.5, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1])) @ turn + 1.0
    model = linear_autoencoder((8,), 2)
    steps = 2500
    player = Player.of(model, lr=0.02)
    history = fit(player, lambda step: x, steps, options=FitOptions(schedule=warmup_cosine(steps, 50)))
    basis, mean = principal_subspace(x, 2)
    decoder = model.decoder[0].weight.detach()
    assert principal_angles(decoder, basis).max() < 1e-3
    centred = x - mean
    residual = (centred - centred @ basis @ basis.T).square().sum(1).mean().item()
    assert history.losses["autoencoder"][-1].item() == pytest.approx(residual, rel=1e-3)


def test_loss_is_the_squared_error_of_a_picture():
    model = mlp_autoencoder((1, 8, 8), 3, 16)
    x = torch.rand(5, 1, 8, 8) * 2 - 1
    want = sum((model(x[i : i + 1]) - x[i : i + 1]).square().sum() for i in range(5)) / 5
    torch.testing.assert_close(model.loss(x), want)


def test_convolutional_sizes():
    for channels, size in ((1, 28), (3, 32)):
        model = conv_autoencoder(channels, size, 4, 4)
        x = torch.rand(2, channels, size, size)
        assert model.encode(x).shape == (2, 4) and model(x).shape == x.shape
        assert model(10 * x).abs().max() <= 1
    with pytest.raises(ValueError, match="multiple of 4, got 30"):
        conv_autoencoder(1, 30, 4)


@pytest.mark.parametrize(("kind", "steps"), [("mlp", 400), ("conv", 200)])
def test_beats_pca_with_as_many_numbers_on_real_digits(kind, steps):
    """Short real training: below the error of linear compression to the same code length, on held-out digits."""
    train, test = load("digits", "train").x, load("digits", "test").x
    basis, mean = principal_subspace(train.flatten(1), 8)
    centred = test.flatten(1) - mean
    pca = (centred - centred @ basis @ basis.T).square().sum(1).mean().item()
    model = mlp_autoencoder((1, 28, 28), 8, 256) if kind == "mlp" else conv_autoencoder(1, 28, 8, 16)
    player = Player.of(model, lr=2e-3)
    fit(player, minibatches(train, 128), steps, options=FitOptions(schedule=warmup_cosine(steps)))
    with torch.no_grad():
        error = model.loss(test).item()
    assert error < 0.9 * pca and error < 105  # pca is 117
