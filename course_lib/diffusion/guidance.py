r"""Guidance: steer a trained denoiser towards a label.

Bayes' rule on scores, with the label's share scaled:

.. math::
    ∇ \log p_s(x | y) &= ∇ \log p(x) + s\, ∇ \log p(y | x) & &\text{(a classifier's gradient)} \\
                      &= ∇ \log p(x) + s\, [∇ \log p(x | y) - ∇ \log p(x)] & &\text{(no classifier)}

A denoiser is D(x, σ) = x + σ² ∇ log p_σ(x) (Tweedie), so the same lines hold for D with σ² before the classifier's
gradient. Scale s: 0 unconditional, 1 conditional, above 1 exaggerated.

Dhariwal & Nichol 2021, "Diffusion models beat GANs on image synthesis", Algorithm 2; Ho & Salimans 2022,
"Classifier-free diffusion guidance", eq. (6), whose w is s − 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.diffusion.edm import Denoise
from course_lib.nn.classifier import Classifier


def drop_labels(
    labels: Int[Tensor, " b"], nobody: int, share: float, generator: torch.Generator | None = None
) -> Int[Tensor, " b"]:
    """Labels, a random ``share`` of them replaced by ``nobody``: so that one network learns p(x | y) and p(x)."""
    coin = torch.rand(labels.shape, generator=generator, device=labels.device)
    return torch.where(coin < share, nobody, labels)


def classifier_free(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor], labels: Int[Tensor, " b"], nobody: int, scale: float
) -> Denoise:
    """Guided denoiser: D(x, ∅) + s (D(x, y) − D(x, ∅)), both terms from one pass over a doubled batch.

    Args:
        denoise: ``denoise(x, sigma, labels)``, e.g. ``edm.denoiser(model)``.
        labels: y, one per example.
        nobody: the label that says "no label".
        scale: s; at 0 and 1 only the pass that counts is made.
    """
    none = torch.full_like(labels, nobody)
    if scale in (0, 1):
        return lambda x, sigma: denoise(x, sigma, labels if scale else none)

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        both = denoise(torch.cat([x, x]), torch.cat([sigma, sigma]), torch.cat([none, labels]))
        without, told = both.chunk(2)
        return torch.lerp(without, told, scale)

    return guided


def classifier_guidance(
    denoise: Denoise, log_prob: Callable[[Tensor, Tensor], Float[Tensor, " b"]], scale: float
) -> Denoise:
    """Guided denoiser: D(x, σ) + s σ² ∇_x log p(y | x, σ).

    Args:
        denoise: unconditional.
        log_prob: ``log_prob(x, sigma)`` = log p(y | x = x_0 + σ n) of the wanted labels, differentiable in x.
        scale: s.
    """

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_prob(at, sigma).sum(), at)
        return denoise(x, sigma) + scale * sigma.square().view(-1, *[1] * (x.ndim - 1)) * gradient

    return guided


class NoisyClassifier(nn.Module):
    """p(y | x_0 + σ n): a classifier that is told how noisy its picture is, by one more channel.

    Args:
        channels, classes, width: of the classifier inside.
        lowest, highest: noise levels to train on, drawn evenly in log σ.
    """

    def __init__(
        self, channels: int = 1, classes: int = 10, width: int = 24, lowest: float = 0.006, highest: float = 80.0
    ) -> None:
        super().__init__()
        self.classifier = Classifier(channels + 1, classes, width)
        self.lowest, self.highest = lowest, highest

    def forward(self, x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b k"]:
        """Logits."""
        s = sigma.view(-1, 1, 1, 1)
        level = (s.log() / 4).expand(-1, 1, *x.shape[2:])
        return self.classifier(torch.cat([x / (1 + s.square()).sqrt(), level], 1))

    def loss(self, batch: tuple[Tensor, Tensor], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Cross-entropy on pictures at random noise levels."""
        x, y = batch
        share = torch.rand(len(x), generator=generator, device=x.device)
        sigma = self.lowest * (self.highest / self.lowest) ** share
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return F.cross_entropy(self(x + sigma.view(-1, 1, 1, 1) * noise, sigma), y)

    def log_prob_of(self, labels: Int[Tensor, " b"]) -> Callable[[Tensor, Tensor], Float[Tensor, " b"]]:
        """log p(y | x, σ) of these labels, as ``classifier_guidance`` wants it."""
        return lambda x, sigma: self(x, sigma).log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
