r"""DCGAN: the convolutional GAN, and walks through its latent space.

Rules (section 3): strided convolutions instead of pooling, batch normalization in both networks (not after the
generator's last layer nor the discriminator's first), no hidden fully connected layers, ReLU in G with tanh at the
end, LeakyReLU 0.2 in D; weights from N(0, 0.02²), Adam with lr 2e-4 and β₁ = 0.5.

Radford, Metz & Chintala 2016, "Unsupervised representation learning with deep convolutional generative adversarial
networks".
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.gans.gan import GAN
from course_lib.gans.networks import conv_discriminator, conv_generator


def dcgan(channels: int = 1, size: int = 28, latent: int = 64, width: int = 32) -> GAN:
    """The paper's pair for pictures (channels, size, size); train with ``players()`` as they are.

    Batch normalization in the discriminator lets examples see each other: for R1 or a gradient penalty build the GAN
    from ``conv_discriminator(..., norm=None)``.

    Args:
        channels: 1 or 3.
        size: 28, 32, 64 …
        latent: dimension of z.
        width: channels of the finest feature maps; they double as the side halves.
    """
    return GAN(conv_generator(latent, channels, size, width), conv_discriminator(channels, size, width), latent)


def slerp(
    start: Float[Tensor, "*b z"], end: Float[Tensor, "*b z"], share: float | Float[Tensor, "*b 1"]
) -> Float[Tensor, "*b z"]:
    """The point at ``share`` of the way along the great circle, lengths interpolated linearly.

    Codes from N(0, I_z) lie near the sphere of radius √z; the straight line cuts through its empty inside (White 2016,
    "Sampling generative networks").
    """
    r0, r1 = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    a, b = start / r0, end / r1
    angle = (a * b).sum(-1, keepdim=True).clamp(-1, 1).acos()
    near = angle.sin() < 1e-4  # parallel: the line is the arc
    sine = torch.where(near, 1.0, angle.sin())
    arc = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine
    return torch.where(near, torch.lerp(a, b, torch.as_tensor(share, dtype=a.dtype)), arc) * torch.lerp(
        r0, r1, torch.as_tensor(share, dtype=a.dtype)
    )
