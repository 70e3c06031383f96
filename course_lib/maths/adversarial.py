r"""The adversarial game: what each player minimizes, its optimum, and penalties on the critic's gradient.

.. math::
    V(D, G) &= E_{x \sim p}[\log D(x)] + E_{x \sim q}[\log(1 - D(x))], \qquad D = σ(\text{logit}) \\
    D^*(x) &= \frac{p(x)}{p(x) + q(x)}, \qquad V(D^*, G) = 2\, JSD(p, q) - \log 4

with p the data and q the generator's law (Goodfellow et al. 2014, "Generative adversarial nets", eq. (1), proposition
1, theorem 1). Every loss below is **minimized**, takes the discriminator's raw outputs (logits or critic values; never
probabilities) and averages over them, so maps of logits (patch discriminators) work too.

=====================  =====================================================  ===========================
game                   discriminator minimizes                                generator minimizes
=====================  =====================================================  ===========================
minimax                −E log σ(d_real) − E log(1 − σ(d_fake))                E log(1 − σ(d_fake))
non-saturating         the same                                               −E log σ(d_fake)
least squares          ½ E (d_real − 1)² + ½ E d_fake²                        ½ E (d_fake − 1)²
hinge                  E max(0, 1 − d_real) + E max(0, 1 + d_fake)            −E d_fake
Wasserstein            E d_fake − E d_real                                    −E d_fake
energy with margin m   E e_real + E max(0, m − e_fake)                        E e_fake
=====================  =====================================================  ===========================

The loss-sensitive GAN, whose margin depends on the pictures, is in ``gans/loss_sensitive.py``. It and the least-squares
GAN are both called "LSGAN"; this course writes both names out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from course_lib.maths.divergences import jsd

Values = Float[Tensor, "..."]  # one number a picture, or a map of them
Scalar = Float[Tensor, ""]
Critic = Callable[[Tensor], Tensor]

# --- losses ---------------------------------------------------------------------------------------------------------


def cross_entropy_discriminator_loss(real: Values, fake: Values) -> Scalar:
    """−E log σ(real) − E log(1 − σ(fake)), in nats; log 4 where D = ½ everywhere. Goodfellow et al. 2014, eq. (1).

    −log σ(l) = softplus(−l): finite for every logit, where the logarithm of a sigmoid is not.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def saturating_generator_loss(fake: Values) -> Scalar:
    """E log(1 − σ(fake)): the minimax game's own. Its slope in a logit, −σ(fake), dies where D is sure of a fake."""
    return -F.softplus(fake).mean()


def non_saturating_generator_loss(fake: Values) -> Scalar:
    """−E log σ(fake): same fixed point, slope −(1 − σ(fake)), strongest where D is sure of a fake (section 3)."""
    return F.softplus(-fake).mean()


def least_squares_discriminator_loss(real: Values, fake: Values) -> Scalar:
    """½ E (real − 1)² + ½ E fake². Mao et al. 2017, eq. (9): a = 0, b = 1."""
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def least_squares_generator_loss(fake: Values) -> Scalar:
    """½ E (fake − 1)². Mao et al. 2017, eq. (9): c = 1."""
    return 0.5 * (fake - 1).square().mean()


def hinge_discriminator_loss(real: Values, fake: Values) -> Scalar:
    """E max(0, 1 − real) + E max(0, 1 + fake). Lim & Ye 2017; Miyato et al. 2018, eq. (16).

    The generator's part is the Wasserstein one, −E fake.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def wasserstein_critic_loss(real: Values, fake: Values) -> Scalar:
    """E fake − E real: minus the distance W₁ if the critic were the best 1-Lipschitz one. Arjovsky et al. 2017, eq.
    (2).

    A constant added to the critic changes nothing.
    """
    return fake.mean() - real.mean()


def wasserstein_generator_loss(fake: Values) -> Scalar:
    """−E fake."""
    return -fake.mean()


def energy_margin_loss(real: Values, fake: Values, margin: float) -> Scalar:
    """E real + E max(0, m − fake), of energies: low on data, at least m elsewhere. Zhao et al. 2017, eq. (1)."""
    return real.mean() + F.relu(margin - fake).mean()


def pulling_away(codes: Float[Tensor, "b d"]) -> Scalar:
    """Mean squared cosine between different codes of a batch, in [0, 1]; 1 if all point one way. Zhao 2017, eq. (4)."""
    b = len(codes)
    if b < 2:
        raise ValueError(f"pulling away needs at least two codes, got {b}")
    unit = F.normalize(codes, dim=1)
    return ((unit @ unit.T).square().sum() - unit.square().sum(1).square().sum()) / (b * (b - 1))


# --- the critic's gradient with respect to its input ----------------------------------------------------------------


def input_gradient(critic: Critic, x: Float[Tensor, "b *shape"]) -> Float[Tensor, "b *shape"]:
    """∇_x D at each example, differentiable in the critic's parameters (for penalties).

    Right only for critics that treat the examples one by one: not with batch normalization.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient


def gradient_norms(critic: Critic, x: Float[Tensor, "b *shape"]) -> Float[Tensor, " b"]:
    """‖∇_x D‖₂ of each example (over all its pixels, never over the batch)."""
    return input_gradient(critic, x).flatten(1).norm(dim=1)


def two_sided(norms: Float[Tensor, " b"]) -> Scalar:
    """E (‖∇D‖ − 1)². Gulrajani et al. 2017, "Improved training of Wasserstein GANs", eq. (3)."""
    return (norms - 1).square().mean()


def one_sided(norms: Float[Tensor, " b"]) -> Scalar:
    """E max(0, ‖∇D‖ − 1): the slide's variant, which leaves flat critics alone and does not square.

    (The paper's one-sided variant, section 4, squares.)
    """
    return F.relu(norms - 1).mean()


def between(
    real: Float[Tensor, "b *shape"], fake: Float[Tensor, "b *shape"], generator: torch.Generator | None = None
) -> Float[Tensor, "b *shape"]:
    """A uniformly random point on the line from each fake to its real partner: P_penalty of WGAN-GP."""
    share = torch.rand(len(real), generator=generator, device=real.device, dtype=real.dtype)
    return torch.lerp(fake, real, share.view(-1, *[1] * (real.ndim - 1)))


def r1_penalty(critic: Critic, real: Float[Tensor, "b *shape"]) -> Scalar:
    """½ E ‖∇D‖² on data. Mescheder, Geiger & Nowozin 2018, "Which training methods for GANs do actually converge?",
    eq. (9), without γ."""
    return 0.5 * input_gradient(critic, real).square().flatten(1).sum(1).mean()


# --- the optimum ----------------------------------------------------------------------------------------------------


def optimal_discriminator(p: Float[Tensor, "*n"], q: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """D* = p / (p + q) from densities of data and generator at the same points; ½ where both vanish."""
    total = p + q
    return torch.where(total > 0, p / torch.where(total > 0, total, 1.0), 0.5)


def game_value(d: Float[Tensor, " n"], p: Float[Tensor, " n"], q: Float[Tensor, " n"]) -> Scalar:
    """V = Σ p log D + Σ q log(1 − D) in nats.

    Args:
        d: D, in [0, 1], at the cells of a grid. Where it has rounded to 1 although q > 0 (p/q above 10¹⁶ in double
            precision) the value is −∞.
        p, q: probability of each cell (density × its size); 0 log 0 = 0.
    """
    return (torch.xlogy(p, d) + torch.xlogy(q, 1 - d)).sum()


def optimal_value(p: Float[Tensor, " n"], q: Float[Tensor, " n"]) -> Scalar:
    """max_D V = 2 JSD(p, q) − log 4 in nats: −log 4 at p = q, 0 where they do not overlap."""
    return 2 * jsd(p, q) - math.log(4)


# --- diversity ------------------------------------------------------------------------------------------------------


def mode_seeking_ratio(
    x1: Float[Tensor, "b *shape"],
    x2: Float[Tensor, "b *shape"],
    z1: Float[Tensor, "b d"],
    z2: Float[Tensor, "b d"],
) -> Float[Tensor, " b"]:
    """d(x₁, x₂) / d(z₁, z₂) with mean absolute differences, of pictures made from two codes under one condition.

    Mao et al. 2019, "Mode seeking generative adversarial networks", eq. (3). Near 0 where the generator collapsed.
    """
    return (x1 - x2).abs().flatten(1).mean(1) / (z1 - z2).abs().mean(1)


def mode_seeking_loss(ratio: Float[Tensor, " b"], eps: float = 1e-5) -> Scalar:
    """1 / (mean ratio + ε), which the authors minimize in place of maximizing the ratio."""
    return 1 / (ratio.mean() + eps)
