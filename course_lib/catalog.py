"""Every system once: what it is called, how to build a tiny one, where it comes from, where it is taught.

The contract tests run over this list: a system that is missing here is not tested for gradients, shapes, state-dict
round trip, determinism and device placement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.autoencoders.autoencoder import conv_autoencoder, linear_autoencoder, mlp_autoencoder
from course_lib.autoencoders.conditional_vae import ConditionalVAE
from course_lib.autoencoders.likelihood import Gaussian
from course_lib.autoencoders.vae import conv_vae, mlp_vae
from course_lib.core.player import Batch

PICTURE = (1, 8, 8)


@dataclass(frozen=True)
class System:
    """One row of the course.

    Attributes:
        name: the field's name for it.
        build: constructs a tiny one (seconds to train, not useful).
        batch: ``batch(n, device)``: random input for its loss.
        sample: ``sample(model, n)``: what it generates (for an autoencoder: decoded codes).
        shape: of one sample.
        paper: authors and year.
        lecture: number of the lecture that teaches it.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[int, torch.device], Batch]
    sample: Callable[[nn.Module, int], Tensor]
    shape: tuple[int, ...]
    paper: str
    lecture: str


def _pictures(n: int, device: torch.device) -> Tensor:
    return torch.rand(n, *PICTURE, device=device) * 2 - 1


def _labelled(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _pictures(n, device), torch.randint(10, (n,), device=device)


def _decoded(model: nn.Module, n: int) -> Tensor:
    weight = next(model.parameters())
    return model.decode(torch.randn(n, 3, device=weight.device, dtype=weight.dtype))


def _of_labels(model: nn.Module, n: int) -> Tensor:
    return model.sample(torch.arange(n, device=next(model.parameters()).device) % 10)


def _sampled(model: nn.Module, n: int) -> Tensor:
    return model.sample(n)


_SYSTEMS = (
    System("linear autoencoder", lambda: linear_autoencoder(PICTURE, 3), _pictures, _decoded, PICTURE,
           "Baldi & Hornik 1989", "03"),
    System("MLP autoencoder", lambda: mlp_autoencoder(PICTURE, 3, 16), _pictures, _decoded, PICTURE,
           "Hinton & Salakhutdinov 2006", "03"),
    System("convolutional autoencoder", lambda: conv_autoencoder(1, 8, 3, 4), _pictures, _decoded, PICTURE,
           "Hinton & Salakhutdinov 2006", "03"),
    System("VAE", lambda: mlp_vae(PICTURE, 3, hidden=16), _pictures, _sampled, PICTURE,
           "Kingma & Welling 2014", "04"),
    System("VAE, Gaussian pixels", lambda: mlp_vae(PICTURE, 3, Gaussian(0.3), 16), _pictures, _sampled, PICTURE,
           "Kingma & Welling 2014", "04"),
    System("convolutional VAE", lambda: conv_vae(1, 8, 3, width=4), _pictures, _sampled, PICTURE,
           "Kingma & Welling 2014", "04"),
    System("β-VAE", lambda: mlp_vae(PICTURE, 3, hidden=16, beta=4.0), _pictures, _sampled, PICTURE,
           "Higgins et al. 2017", "04"),
    System("conditional VAE", lambda: ConditionalVAE(PICTURE, 10, 3, 16), _labelled, _of_labels, PICTURE,
           "Sohn, Lee & Yan 2015", "04"),
)  # fmt: skip

CATALOG: dict[str, System] = {system.name: system for system in _SYSTEMS}
