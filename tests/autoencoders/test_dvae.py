import math

import pytest
import torch

from course_lib.autoencoders.dvae import DVAE, gumbel, gumbel_softmax
from course_lib.autoencoders.likelihood import Gaussian
from course_lib.core import FitOptions, Player, fit, minibatches, warmup_cosine
from course_lib.data import load
from tests.oracles import assert_estimates, assert_frequencies

LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)


def many(n=50_000):
    return LOGITS.expand(n, -1)


def test_gumbel_noise_has_the_gumbel_law():
    g = gumbel((200_000,), torch.zeros(1, dtype=torch.float64))
    euler = 0.5772156649015329
    assert_estimates(g, euler)
    assert_estimates((g - euler).square(), math.pi**2 / 6)
    for t in (-1.0, 0.0, 2.0):  # P(g ≤ t) = exp(−exp(−t))
        assert_estimates((g <= t).double(), math.exp(-math.exp(-t)))


def test_gumbel_noise_is_finite_even_where_the_uniform_is_zero_or_almost_one(monkeypatch):
    for u in (0.0, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.full((3,), u))
        assert torch.isfinite(gumbel((3,), torch.zeros(1))).all()


def test_gumbel_max_draws_from_the_softmax():
    z = gumbel_softmax(many(), 0.7)
    assert_frequencies(z.argmax(1), LOGITS.softmax(0))


def test_the_relaxed_draw_lies_on_the_simplex_and_becomes_one_hot():
    noise = lambda: torch.Generator().manual_seed(4)  # noqa: E731
    farthest = []
    for temperature in (10.0, 1.0, 0.1, 1e-3):
        z = gumbel_softmax(many(500), temperature, noise())
        torch.testing.assert_close(z.sum(1), torch.ones(500).double())
        assert (z >= 0).all()
        farthest.append((1 - z.amax(1)).mean().item())
    assert farthest == sorted(farthest, reverse=True) and farthest[-1] < 1e-2 < 0.5 < farthest[0]
    # the temperature does not change which word wins
    assert torch.equal(z.argmax(1), gumbel_softmax(many(500), 10.0, noise()).argmax(1))


def test_the_gradient_is_that_of_a_tempered_softmax():
    logits, tau = many(3).clone().requires_grad_(), 0.5
    z = gumbel_softmax(logits, tau, torch.Generator().manual_seed(0))
    (by_logits,) = torch.autograd.grad(z[:, 2].sum(), logits)
    want = z[:, 2:3] * (torch.eye(4)[2] - z) / tau
    torch.testing.assert_close(by_logits, want.detach())
    assert by_logits.abs().max() > 0


def test_it_works_over_axis_one_of_maps():
    z = gumbel_softmax(torch.randn(2, 5, 3, 4), 1.0)
    torch.testing.assert_close(z.sum(1), torch.ones(2, 3, 4))


def test_terms_are_the_gaussian_likelihood_and_the_kl_to_uniform():
    model, x = DVAE(1, 6, 3, 8).double(), torch.rand(3, 1, 8, 8).double() * 2 - 1
    reconstruction, kl = model.terms(x, torch.Generator().manual_seed(2))
    logits = model.encoder(x)
    q = torch.distributions.Categorical(logits=logits.movedim(1, -1))
    uniform = torch.distributions.Categorical(probs=torch.ones(6).double() / 6)
    want = torch.distributions.kl_divergence(q, uniform.expand(q.batch_shape)).sum((1, 2))
    torch.testing.assert_close(kl, want)
    z = gumbel_softmax(logits, model.temperature, torch.Generator().manual_seed(2))
    decoded = model.decoder((z.movedim(1, -1) @ model.table).movedim(-1, 1))
    torch.testing.assert_close(reconstruction, Gaussian(0.3).log_prob(decoded, x))
    torch.testing.assert_close(DVAE.loss(model, x, torch.Generator().manual_seed(2)), (kl - reconstruction).mean())


def test_kl_is_zero_for_a_uniform_encoder_and_at_most_the_log_of_the_words():
    model, x = DVAE(1, 6, 3, 8), torch.zeros(2, 1, 8, 8)
    for head, want in ((0.0, 0.0), (1e3, 4 * math.log(6))):
        torch.nn.init.zeros_(model.encoder[-1].weight)
        model.encoder[-1].bias.data = torch.eye(6)[2] * head
        assert model.terms(x)[1].tolist() == pytest.approx([want] * 2, abs=1e-4)


def test_weight_of_the_kl():
    torch.manual_seed(0)
    model, x = DVAE(1, 6, 3, 8, kl_weight=6.6), torch.rand(2, 1, 8, 8)
    reconstruction, kl = model.terms(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.loss(x, torch.Generator().manual_seed(0)), (6.6 * kl - reconstruction).mean())


def test_cold_words_decode_as_the_relaxation_does():
    model, x = DVAE(1, 6, 3, 8), torch.rand(2, 1, 8, 8)
    model.encoder[-1].weight.data *= 1e3  # a certain encoder: the draw is the likeliest word
    model.temperature = 1e-2
    code = model.encode(x)
    assert code.shape == (2, 2, 2)
    z = gumbel_softmax(model.encoder(x), 1e-2)
    relaxed = model.decoder(torch.einsum("bkhw,kd->bdhw", z, model.table)).clamp(-1, 1)
    torch.testing.assert_close(model.decode(code), relaxed)


def test_beats_the_mean_digit():
    """Short real training, annealing the temperature: discrete codes (no relaxation) reconstruct held-out digits."""
    train, test = load("digits", "train").x, load("digits", "test").x
    steps = 250
    model = DVAE(1, 32, 8, 16)

    def loss(x, step):
        model.temperature = max(0.3, 1.0 - step / steps)
        return model.loss(x) / 784

    fit(Player("dvae", model, loss, lr=3e-3), minibatches(train, 64), steps,
        options=FitOptions(schedule=warmup_cosine(steps, 10)))  # fmt: skip
    with torch.no_grad():
        error = (model.decode(model.encode(test)) - test).square().sum((1, 2, 3)).mean().item()
        kl = model.terms(test)[1].mean().item()
    mean_error = (train.mean(0) - test).square().sum((1, 2, 3)).mean().item()
    assert error < 0.4 * mean_error, (error, mean_error)
    assert 10 < kl < 49 * math.log(32), kl
