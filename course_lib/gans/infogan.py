r"""InfoGAN: part of the noise becomes a code that can be read back from the picture, without labels.

.. math::
    \min_{G,Q} \max_D\; V(D, G) - λ L_I(G, Q), \qquad
    L_I = E_{c, z}[\log Q(c \mid G(z, c))] + H(c) \;\le\; I(c; G(z, c))

The bound: I(c; x) = H(c) − H(c|x) = H(c) + E[log P(c|x)], and E[log P(c|x)] − E[log Q(c|x)] is a KL divergence, ≥ 0.
And I(c; x) ≤ H(c), for a categorical code log K. The code is (categorical with K values, m continuous ones
from U(−1, 1)); Q is a categorical and m Gaussians, and shares D's trunk.

Chen, Duan, Houthooft, Schulman, Sutskever & Abbeel 2016, "InfoGAN", eq. (4)-(6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.gans.gan import NON_SATURATING
from course_lib.gans.networks import Heads, Norm, conv_generator, conv_trunk, trunk_features
from course_lib.gans.players import Game, Regularizer, duel, noise
from course_lib.maths.gaussian import normal_log_prob

LEAST_LOG_VAR = -6.0  # a code read off exactly would make log Q(c|x) infinite


class Code(NamedTuple):
    """c: what the picture should show.

    Attributes:
        category: 0 … K − 1.
        continuous: m numbers in [−1, 1].
    """

    category: Int[Tensor, " b"]
    continuous: Float[Tensor, "b m"]


class InfoGAN(nn.Module):
    """Generator of (z, c), and a discriminator whose trunk Q reads c from.

    Q's head belongs to the discriminator's player, as in the authors' code: that player minimizes its game loss − λ L_I
    over trunk and heads, the generator its own − λ L_I over G, so every parameter has one owner.

    Args:
        generator: (b, latent + K + m) to data (b, …).
        discriminator: data (b, …) to (logit (b,), category logits (b, K), continuous (b, 2m): means, then
            log-variances).
        latent: dimension of z.
        categories: K.
        continuous: m.
        weights: λ for the categorical and for the continuous part.
        game: for V.
        regularizers: terms added to the discriminator's loss; their critic is the first head.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent: int,
        categories: int = 10,
        continuous: int = 2,
        weights: tuple[float, float] = (1.0, 0.1),
        game: Game = NON_SATURATING,
        regularizers: Sequence[Regularizer] = (),
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.latent = generator, discriminator, latent
        self.categories, self.continuous, self.weights, self.game = categories, continuous, weights, game
        self.regularizers = tuple(regularizers)

    @property
    def code_entropy(self) -> tuple[float, float]:
        """H of the two parts in nats: log K, and m log 2 (differential)."""
        return math.log(self.categories), self.continuous * math.log(2)

    def draw_code(self, n: int, generator: torch.Generator | None = None) -> Code:
        """n codes from their prior."""
        weight = next(self.parameters())
        category = torch.randint(self.categories, (n,), generator=generator, device=weight.device)
        uniform = torch.rand(n, self.continuous, generator=generator, device=weight.device, dtype=weight.dtype)
        return Code(category, 2 * uniform - 1)

    def decode(self, z: Float[Tensor, "b z"], code: Code) -> Float[Tensor, "b *shape"]:
        """G(z, c)."""
        one_hot = F.one_hot(code.category, self.categories).to(z.dtype)
        return self.generator(torch.cat([z, one_hot, code.continuous], 1))

    def log_q(self, x: Float[Tensor, "b *shape"], code: Code) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """log Q(c | x) of the categorical and the continuous part, in nats."""
        return self._log_q(self.discriminator(x), code)

    def _log_q(self, outputs: tuple[Tensor, ...], code: Code) -> tuple[Tensor, Tensor]:
        _, logits, continuous = outputs
        mean, raw = continuous.chunk(2, dim=1)
        log_var = LEAST_LOG_VAR + F.softplus(raw - LEAST_LOG_VAR)  # ≈ raw, smoothly kept above the least
        log_category = -F.cross_entropy(logits, code.category, reduction="none")
        return log_category, normal_log_prob(code.continuous, mean, log_var)

    def information(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Estimates, in nats, of L_I ≤ I(c; G(z, c)) for the categorical (≤ log K) and the continuous part."""
        code = self.draw_code(n, generator)
        x = self.decode(noise(self, n, self.latent, generator), code)
        return tuple(part.mean() + h for part, h in zip(self.log_q(x, code), self.code_entropy, strict=True))

    def _information_loss(self, outputs: tuple[Tensor, ...], code: Code) -> Tensor:
        """−λ L_I without the constant H(c)."""
        category, continuous = self._log_q(outputs, code)
        return -(self.weights[0] * category.mean() + self.weights[1] * continuous.mean())

    def discriminator_loss(self, batch: Float[Tensor, "b *shape"], step: int = 0) -> Float[Tensor, ""]:
        """The game's loss − λ L_I, over trunk, D's and Q's heads."""
        code = self.draw_code(len(batch))
        with torch.no_grad():
            fake = self.decode(noise(self, len(batch), self.latent), code)
        outputs = self.discriminator(fake)
        loss = self.game.discriminator(self.discriminator(batch)[0], outputs[0]) + self._information_loss(outputs, code)
        for regularizer in self.regularizers:
            loss = loss + regularizer(lambda x: self.discriminator(x)[0], batch, fake, step)
        return loss

    def generator_loss(self, batch: Float[Tensor, "b *shape"], step: int = 0) -> Float[Tensor, ""]:
        """The game's loss − λ L_I, over G."""
        code = self.draw_code(len(batch))
        outputs = self.discriminator(self.decode(noise(self, len(batch), self.latent), code))
        return self.game.generator(outputs[0]) + self._information_loss(outputs, code)

    players = duel  # [discriminator, generator] for ``fit``

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n *shape"]:
        """G(z, c) for n codes of each kind."""
        z = noise(self, n, self.latent, generator)
        return self.decode(z, self.draw_code(n, generator))


def conv_infogan(
    channels: int,
    size: int,
    latent: int = 62,
    categories: int = 10,
    continuous: int = 2,
    width: int = 32,
    norm: Norm | None = nn.BatchNorm2d,
    hidden: int = 0,
) -> InfoGAN:
    """The DCGAN pair; the paper's codes for MNIST by default.

    ``norm`` is the discriminator's: None with R1. ``hidden``: units of a fully connected layer before its heads, 0 =
    none; the paper's has 1,024.
    """
    generator = conv_generator(latent + categories + continuous, channels, size, width)
    trunk = conv_trunk(channels, size, width, norm, hidden)
    heads = Heads(trunk, trunk_features(size, width, hidden), (1, categories, 2 * continuous))
    return InfoGAN(generator, heads, latent, categories, continuous)
