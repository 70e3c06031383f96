r"""Variational autoencoder.

.. math::
    \log p_θ(x) = E_{q}[\log p_θ(x|z)] - KL(q_φ(z|x) ‖ p(z)) + KL(q_φ(z|x) ‖ p_θ(z|x))
                \ge E_{q}[\log p_θ(x|z)] - KL(q_φ(z|x) ‖ p(z)) = ELBO(x)

with q_φ(z|x) = N(μ(x), diag σ²(x)), p(z) = N(0, I) and z = μ + σ ⊙ ε (reparameterization).

Kingma & Welling 2014, "Auto-encoding variational Bayes"; Rezende, Mohamed & Wierstra 2014. β ≠ 1: Higgins et al. 2017.
Importance-weighted bound: Burda, Grosse & Salakhutdinov 2016, eq. (8). All values in nats per picture.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.autoencoders.likelihood import Bernoulli, Gaussian
from course_lib.maths.gaussian import kl_to_standard_normal, normal_log_prob, standard_normal_log_prob
from course_lib.nn.conv import conv_decoder, conv_encoder
from course_lib.nn.mlp import mlp


class VAE(nn.Module):
    """Encoder, decoder and what the decoder's output means.

    Args:
        encoder: pictures (b, c, h, w) to (b, 2·latent): means, then log-variances.
        decoder: codes (b, latent) to pictures (b, c, h, w), in the units of the likelihood (logits for Bernoulli).
        latent: dimension of z.
        likelihood: ``Bernoulli()`` for binary pictures (±1), ``Gaussian(sigma)`` for grey ones.
        beta: weight of the KL term in ``loss``; 1 is the ELBO.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent: int,
        likelihood: Bernoulli | Gaussian,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.latent, self.likelihood, self.beta = latent, likelihood, beta

    def encode(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"]]:
        """Mean and log-variance of q(z | x)."""
        mean, log_var = self.encoder(x).chunk(2, dim=-1)
        return mean, log_var

    def decode(self, z: Float[Tensor, "b z"]) -> Float[Tensor, "b c h w"]:
        """E[x | z], a picture in [−1, 1]."""
        return self.likelihood.mean(self.decoder(z))

    def terms(
        self, x: Float[Tensor, "b c h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """One-sample estimate of E_q[log p(x|z)], and the exact KL(q(z|x) ‖ p(z))."""
        mean, log_var = self.encode(x)
        z = reparameterize(mean, log_var, generator)
        return self.likelihood.log_prob(self.decoder(z), x), kl_to_standard_normal(mean, log_var)

    def elbo(self, x: Float[Tensor, "b c h w"], generator: torch.Generator | None = None) -> Float[Tensor, " b"]:
        """Unbiased one-sample estimate of the evidence lower bound of each picture (whatever β is)."""
        reconstruction, kl = self.terms(x, generator)
        return reconstruction - kl

    def loss(self, x: Float[Tensor, "b c h w"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """−E_q[log p(x|z)] + β KL(q(z|x) ‖ p(z)), averaged over the batch."""
        reconstruction, kl = self.terms(x, generator)
        return (self.beta * kl - reconstruction).mean()

    def log_prob(
        self, x: Float[Tensor, "b c h w"], k: int = 64, generator: torch.Generator | None = None
    ) -> Float[Tensor, " b"]:
        """Importance-weighted bound L_k ≤ log p(x): k = 1 is the ELBO in expectation, k → ∞ is log p(x).

        L_k = log (1/k) Σ_i p(x, z_i) / q(z_i | x) with z_i ~ q(z | x).
        """
        mean, log_var = (t.repeat_interleave(k, 0) for t in self.encode(x))  # (b k, z)
        z = reparameterize(mean, log_var, generator)
        log_joint = self.likelihood.log_prob(self.decoder(z), x.repeat_interleave(k, 0)) + standard_normal_log_prob(z)
        log_weight = log_joint - normal_log_prob(z, mean, log_var)
        return log_weight.view(len(x), k).logsumexp(1) - math.log(k)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n c h w"]:
        """E[x | z] for n codes from the prior (the mean looks better than a draw of independent pixels)."""
        weight = next(self.parameters())
        z = torch.randn(n, self.latent, generator=generator, device=weight.device, dtype=weight.dtype)
        return self.decode(z)


def reparameterize(
    mean: Float[Tensor, "*b z"], log_var: Float[Tensor, "*b z"], generator: torch.Generator | None = None
) -> Float[Tensor, "*b z"]:
    """z = μ + σ ⊙ ε with ε ~ N(0, I): a sample through which gradients reach μ and σ."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (0.5 * log_var).exp() * noise


def mlp_vae(
    shape: tuple[int, int, int],
    latent: int = 20,
    likelihood: Bernoulli | Gaussian | None = None,
    hidden: int = 400,
    beta: float = 1.0,
) -> VAE:
    """Two hidden layers each way; Bernoulli pixels unless told otherwise."""
    n = math.prod(shape)
    encoder = nn.Sequential(nn.Flatten(), mlp([n, hidden, hidden, 2 * latent]))
    decoder = nn.Sequential(mlp([latent, hidden, hidden, n]), nn.Unflatten(1, shape))
    return VAE(encoder, decoder, latent, likelihood or Bernoulli(), beta)


def conv_vae(
    channels: int,
    size: int,
    latent: int = 32,
    likelihood: Bernoulli | Gaussian | None = None,
    width: int = 32,
    beta: float = 1.0,
) -> VAE:
    """Convolutional pyramid for square pictures (side a multiple of 4); Gaussian pixels unless told otherwise."""
    encoder = conv_encoder(channels, size, 2 * latent, width)
    decoder = conv_decoder(latent, channels, size, width)
    return VAE(encoder, decoder, latent, likelihood or Gaussian(), beta)
