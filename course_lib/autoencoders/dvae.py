r"""dVAE: discrete codes trained through the Gumbel-softmax instead of a straight-through codebook.

Gumbel-max: argmax_k (log π_k + g_k) with g_k = −log(−log u_k) is an exact draw from π. Relaxed with a temperature τ,

.. math:: z_k = \mathrm{softmax}_k\!\left((\log π_k + g_k) / τ\right) \to \text{one-hot as } τ \to 0,

it has a gradient. The bound is E_q[log p(x|z)] − KL(q(z|x) ‖ uniform).

Jang, Gu & Poole 2017, "Categorical reparameterization with Gumbel-softmax"; Maddison, Mnih & Teh 2017; as the first
stage of DALL·E: Ramesh et al. 2021, "Zero-shot text-to-image generation", section 2.1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoencoders.likelihood import Gaussian
from course_lib.autoencoders.vqvae import code_decoder, code_encoder


def gumbel(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise, −log(−log u)."""
    u = torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
    tiny = torch.finfo(like.dtype).tiny
    return -(-u.clamp_min(tiny).log()).clamp_min(tiny).log()


def gumbel_softmax(
    logits: Float[Tensor, "b k *s"], temperature: float, generator: torch.Generator | None = None
) -> Float[Tensor, "b k *s"]:
    """A relaxed one-hot draw over axis 1; its argmax is an exact draw from softmax(logits)."""
    return ((logits + gumbel(logits.shape, logits, generator)) / temperature).softmax(1)


class DVAE(nn.Module):
    """Encoder to logits over K words at each of h/4 × w/4 places, Gumbel-softmax, decoder.

    Args:
        channels: of the pictures.
        words, dim: size of the codebook.
        width: of the convolutions.
        sigma: deviation of the Gaussian likelihood; weighs reconstruction against KL.
        kl_weight: weight of the KL in ``loss`` (1 = the bound; DALL·E used 6.6).
    """

    def __init__(
        self,
        channels: int,
        words: int = 64,
        dim: int = 16,
        width: int = 64,
        sigma: float = 0.3,
        kl_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.words, self.kl_weight, self.likelihood = words, kl_weight, Gaussian(sigma)
        self.temperature = 1.0
        self.encoder, self.decoder = code_encoder(channels, words, width), code_decoder(dim, channels, width)
        self.table = nn.Parameter(torch.randn(words, dim))

    def encode(self, x: Float[Tensor, "b c h w"]) -> Int[Tensor, "b h4 w4"]:
        """The likeliest word at every place."""
        return self.encoder(x).argmax(1)

    def decode(self, code: Int[Tensor, "b h4 w4"]) -> Float[Tensor, "b c h w"]:
        """Pictures of a map of words, in [−1, 1]."""
        return self.likelihood.mean(self.decoder(F.embedding(code, self.table).movedim(-1, 1)))

    def terms(
        self, x: Float[Tensor, "b c h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Relaxed one-sample estimate of E_q[log p(x|z)], and KL(q(z|x) ‖ uniform), in nats per picture."""
        logits = self.encoder(x)
        z = gumbel_softmax(logits, self.temperature, generator)
        out = self.decoder(torch.einsum("bkhw,kd->bdhw", z, self.table))
        log_q = logits.log_softmax(1)
        kl = (log_q.exp() * (log_q + math.log(self.words))).flatten(1).sum(1)
        return self.likelihood.log_prob(out, x), kl

    def loss(self, x: Float[Tensor, "b c h w"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """−E_q[log p(x|z)] + kl_weight · KL, averaged over the batch."""
        reconstruction, kl = self.terms(x, generator)
        return (self.kl_weight * kl - reconstruction).mean()
