import math

import torch
from torch import nn

from course_lib.autoencoders.likelihood import Bernoulli, Gaussian
from course_lib.autoencoders.vae import VAE, conv_vae, mlp_vae, reparameterize
from course_lib.core import FitOptions, Player, fit, minibatches, warmup_cosine
from course_lib.data import binarize, load
from course_lib.maths.gaussian import kl_diagonal, kl_to_standard_normal, multivariate_log_prob
from tests.oracles import STANDARD_ERRORS, assert_estimates

SHAPE, LATENT, SIGMA = (1, 2, 3), 2, 0.5


class Fixed(nn.Module):
    """An encoder with a linear mean and a constant log-variance."""

    def __init__(self, weight, bias, log_var):
        super().__init__()
        self.mean = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        self.mean.weight.data, self.mean.bias.data = weight, bias
        self.log_var = nn.Parameter(log_var)

    def forward(self, x):
        mean = self.mean(x.flatten(1))
        return torch.cat([mean, self.log_var.expand_as(mean)], 1)


def linear_gaussian(mean_shift=0.0, log_var_shift=0.0):
    """x = W z + b + σ ε with orthogonal columns in W, so the true posterior is diagonal and q can be equal to it.

    Returns the VAE, pictures drawn from it, and their exact log p(x); the shifts spoil the encoder.
    """
    generator = torch.Generator().manual_seed(5)
    n = math.prod(SHAPE)
    columns = torch.linalg.qr(torch.randn(n, LATENT, generator=generator, dtype=torch.float64))[0]
    scale = torch.tensor([1.5, 0.6], dtype=torch.float64)
    w, b = columns * scale, torch.randn(n, generator=generator, dtype=torch.float64)
    variance = 1 / (1 + scale.square() / SIGMA**2)  # of the posterior: (I + WᵀW/σ²)⁻¹
    gain = variance.unsqueeze(1) * w.T / SIGMA**2
    encoder = Fixed(gain, mean_shift - gain @ b, variance.log() + log_var_shift)
    decoder = nn.Sequential(nn.Linear(LATENT, n, dtype=torch.float64), nn.Unflatten(1, SHAPE))
    decoder[0].weight.data, decoder[0].bias.data = w, b
    noise = [torch.randn(5, k, generator=generator, dtype=torch.float64) for k in (LATENT, n)]
    x = noise[0] @ w.T + b + SIGMA * noise[1]
    covariance = w @ w.T + SIGMA**2 * torch.eye(n, dtype=torch.float64)
    exact = multivariate_log_prob(x, b.unsqueeze(0), covariance.unsqueeze(0))
    return VAE(encoder, decoder, LATENT, Gaussian(SIGMA)), x.unflatten(1, SHAPE), exact


def repeated_elbo(vae, x, draws=20_000):
    """(draws, b) one-sample estimates."""
    with torch.no_grad():
        return vae.elbo(x.repeat(draws, 1, 1, 1)).view(draws, len(x))


def test_elbo_is_exact_at_the_true_posterior():
    vae, x, exact = linear_gaussian()
    assert_estimates(repeated_elbo(vae, x), exact)
    with torch.no_grad():  # p(x, z) / q(z|x) = p(x) for every z: no Monte Carlo error at all
        for k in (1, 7):
            torch.testing.assert_close(vae.log_prob(x, k), exact)


def test_elbo_falls_short_by_the_kl_to_the_true_posterior():
    spoiled, x, exact = linear_gaussian(mean_shift=0.3, log_var_shift=0.8)
    truth, *_ = linear_gaussian()
    with torch.no_grad():
        gap = kl_diagonal(*spoiled.encode(x), *truth.encode(x))
    assert (gap > 0.1).all()
    estimates = repeated_elbo(spoiled, x)
    assert_estimates(estimates, exact - gap)
    assert (estimates.mean(0) < exact).all()


def test_importance_weighted_bound_rises_to_the_exact_value():
    spoiled, x, exact = linear_gaussian(mean_shift=0.3, log_var_shift=0.8)
    with torch.no_grad():
        means, errors = [], []
        for k in (1, 4, 32):
            bounds = spoiled.log_prob(x.repeat(2000, 1, 1, 1), k).view(2000, -1)
            means.append(bounds.mean(0))
            errors.append(bounds.std(0) / 2000**0.5)
        single = repeated_elbo(spoiled, x)
        limit = spoiled.log_prob(x, 100_000)
    slack = STANDARD_ERRORS * (errors[0] + single.std(0) / len(single) ** 0.5)
    assert ((means[0] - single.mean(0)).abs() < slack).all()  # L_1 is the ELBO
    assert (means[1] > means[0] + slack).all() and (means[2] > means[1]).all()
    assert (means[2] < exact + STANDARD_ERRORS * errors[2]).all()
    torch.testing.assert_close(limit, exact, atol=0.03, rtol=0)


def test_loss_is_minus_the_elbo_and_beta_weighs_the_kl():
    vae, x, _ = linear_gaussian(mean_shift=0.3)
    generator = torch.Generator()
    reconstruction, kl = vae.terms(x, generator.manual_seed(1))
    torch.testing.assert_close(kl, kl_to_standard_normal(*vae.encode(x)))
    torch.testing.assert_close(vae.elbo(x, generator.manual_seed(1)), reconstruction - kl)
    torch.testing.assert_close(vae.loss(x, generator.manual_seed(1)), -(reconstruction - kl).mean())
    vae.beta = 4.0
    torch.testing.assert_close(vae.loss(x, generator.manual_seed(1)), (4 * kl - reconstruction).mean())
    torch.testing.assert_close(vae.elbo(x, generator.manual_seed(1)), reconstruction - kl)  # whatever β is


def test_loss_does_not_grow_with_the_batch():
    """A KL summed over the batch but a reconstruction averaged over it is a common mistake."""
    vae, x, _ = linear_gaussian()
    with torch.no_grad():
        few, many = (torch.stack([vae.loss(x.repeat(r, 1, 1, 1)) for _ in range(800)]) for r in (1, 8))
    spread = STANDARD_ERRORS * (few.var() / 800 + many.var() / 800).sqrt()
    assert (few.mean() - many.mean()).abs() < spread < 0.5


def test_samples_of_the_prior_have_the_model_s_mean_and_spread():
    vae, *_ = linear_gaussian()
    big = VAE(vae.encoder, nn.Sequential(vae.decoder, Scale(0.05)), LATENT, Gaussian(SIGMA))  # keep within [−1, 1]
    with torch.no_grad():
        x = big.sample(20_000).flatten(1)
    w, b = vae.decoder[0].weight.detach(), vae.decoder[0].bias.detach()
    assert_estimates(x, 0.05 * b)
    centred = x - 0.05 * b
    assert_estimates(centred[:, :, None] * centred[:, None, :], 0.05**2 * w @ w.T)


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_reparameterized_samples_follow_q_and_carry_its_gradient():
    mean, log_var = torch.tensor([0.7, -1.0]), torch.tensor([-0.4, 0.9])
    rows = (mean.expand(20_000, 2).clone().requires_grad_(), log_var.expand(20_000, 2).clone().requires_grad_())
    z = reparameterize(*rows)
    assert_estimates(z.detach(), mean)
    assert_estimates((z.detach() - mean).square(), log_var.exp())
    # E z² = μ² + σ², so its gradient is 2μ by μ and σ² by log σ²
    by_mean, by_log_var = torch.autograd.grad(z.square().sum(), rows)
    assert_estimates(by_mean, 2 * mean)
    assert_estimates(by_log_var, log_var.exp())


def test_decode_is_the_mean_picture():
    z = torch.randn(4, 3)
    vae = mlp_vae((1, 8, 8), 3, hidden=16)
    torch.testing.assert_close(vae.decode(z), 2 * vae.decoder(z).sigmoid() - 1)
    grey = mlp_vae((1, 8, 8), 3, Gaussian(0.3), 16)
    torch.testing.assert_close(grey.decode(z), grey.decoder(z).clamp(-1, 1))
    assert isinstance(conv_vae(3, 8, 3).likelihood, Gaussian) and isinstance(vae.likelihood, Bernoulli)


def test_the_same_generator_gives_the_same_numbers():
    vae = mlp_vae((1, 8, 8), 3, hidden=16)
    x = binarize(torch.zeros(4, 1, 8, 8))
    for draw in (
        vae.elbo,
        lambda x, generator: vae.log_prob(x, 5, generator),
        lambda x, generator: vae.sample(4, generator),
    ):
        a, b, c = (draw(x, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        assert torch.equal(a, b) and not torch.equal(a, c)


# --- short real trainings ---------------------------------------------------------------------------------------------


def pixelwise_bernoulli(train, test):
    """Mean test log-likelihood of the best model with independent pixels (add-one smoothing), in nats."""
    p = ((train + 1) / 2).sum(0).add(1) / (len(train) + 2)
    return Bernoulli().log_prob(p.logit().expand_as(test), test).mean().item()


def test_beats_independent_pixels_on_real_digits():
    """The bound is below the truth and still far above the exact log-likelihood of the pixelwise model."""
    train, test = load("digits", "train").x, binarize(load("digits", "test").x, torch.Generator().manual_seed(0))
    baseline = pixelwise_bernoulli(train, test)
    vae = mlp_vae((1, 28, 28), 16, hidden=256)
    batches = minibatches(train, 100)
    fit(Player("vae", vae, lambda x, step: vae.loss(binarize(x)), lr=2e-3), batches, 500,
        options=FitOptions(schedule=warmup_cosine(500, 20)))  # fmt: skip
    with torch.no_grad():
        elbo, bound = vae.elbo(test).mean().item(), vae.log_prob(test, 32).mean().item()
    assert elbo > -150 and elbo > baseline + 40
    assert bound > elbo + 1  # importance weighting tightens it
    kl = kl_to_standard_normal(*vae.encode(test)).mean()
    assert kl > 5  # no posterior collapse


def test_convolutional_gaussian_beats_independent_pixels_on_real_digits():
    """Grey digits, σ = 0.3 for both: the best pixelwise model is the mean picture."""
    train, test = load("digits", "train").x, load("digits", "test").x
    baseline = Gaussian(0.3).log_prob(train.mean(0).expand_as(test), test).mean().item()
    vae = conv_vae(1, 28, 16, Gaussian(0.3), width=16)
    fit(Player.of(vae, lr=3e-3), minibatches(train, 64), 300, options=FitOptions(schedule=warmup_cosine(300, 20)))
    with torch.no_grad():
        elbo = vae.elbo(test).mean().item()
    assert elbo > -700 and elbo > baseline + 200
