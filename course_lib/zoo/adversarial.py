"""Generators of digits: DCGAN, conditional GAN, InfoGAN."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.core.player import BatchAt, minibatches
from course_lib.data.door import load as load_data
from course_lib.gans.cgan import cgan
from course_lib.gans.gan import GAN
from course_lib.gans.infogan import InfoGAN, conv_infogan
from course_lib.gans.networks import conv_discriminator, conv_generator
from course_lib.gans.players import lazily
from course_lib.gans.r1 import r1
from course_lib.zoo.recipe import Measured, Recipe

LATENT = 64  # beside a label
HIDDEN = 128  # units of the discriminator's hidden layer
BATCH = 64
PICTURES = 2000  # that are judged


def _dcgan() -> GAN:
    """R1 in place of the discriminator's batch normalization; a hidden layer, or it would judge patches only."""
    pair = conv_generator(16, 1, 28, 32), conv_discriminator(1, 28, 32, None, HIDDEN)
    return GAN(*pair, 16, regularizers=[lazily(r1(0.1), 8)])


def _cgan() -> GAN:
    model = cgan(1, 28, 10, LATENT, 32, None)
    model.regularizers = (lazily(r1(0.1), 8),)
    return model


def _infogan() -> InfoGAN:
    # little else to say a class with than the code
    model = conv_infogan(1, 28, latent=16, width=32, norm=None, hidden=HIDDEN)
    model.regularizers = (lazily(r1(0.1), 8),)
    return model


def _batches(labels: bool) -> Callable[[int, torch.device], BatchAt]:
    def batches(seed: int, device: torch.device) -> BatchAt:
        digits = load_data("digits", device=device)
        return minibatches((digits.x, digits.labels) if labels else digits.x, BATCH, seed)

    return batches


def _judged(draw: Callable[[nn.Module, Tensor, torch.Generator], Tensor]) -> Callable[[nn.Module], Measured]:
    """Share of the model's pictures of which the digit classifier is at least 90 % sure."""

    @torch.no_grad()
    def measure(model: nn.Module) -> Measured:
        from course_lib.zoo import load  # the package imports this file

        device = next(model.parameters()).device
        labels = torch.arange(PICTURES, device=device) % 10
        pictures = draw(model.eval(), labels, torch.Generator(device).manual_seed(0))
        sure = (load("digit_classifier", device).probabilities(pictures).max(1).values >= 0.9).double()
        what = f"of {PICTURES} samples are recognized by digit_classifier with probability 0.9 or more"
        return Measured(what, float(sure.mean()), float(sure.std() / len(sure) ** 0.5))

    return measure


def _anything(model: nn.Module, labels: Tensor, generator: torch.Generator) -> Tensor:
    return model.sample(len(labels), generator=generator)


def _of_labels(model: nn.Module, labels: Tensor, generator: torch.Generator) -> Tensor:
    return model.sample(len(labels), labels, generator=generator)


RECIPES = {
    "dcgan_digits": Recipe(
        "DCGAN of digits: non-saturating, lazy R1, no labels",
        _dcgan,
        None,
        _batches(labels=False),
        _judged(_anything),
        steps=7000,
        ema=0.998,
        needs=("digit_classifier",),
        players=lambda model: model.players(1e-3, (0.0, 0.99), discriminator_lr=2e-3),
    ),
    "cgan_digits": Recipe(
        "conditional GAN of digits: both players are told the label",
        _cgan,
        None,
        _batches(labels=True),
        _judged(_of_labels),
        steps=3500,
        ema=0.998,
        needs=("digit_classifier",),
        players=lambda model: model.players(1e-3, (0.0, 0.99), discriminator_lr=2e-3),
    ),
    "infogan_digits": Recipe(
        "InfoGAN of digits: a code of ten categories and two numbers, no labels",
        _infogan,
        None,
        _batches(labels=False),
        _judged(_anything),
        steps=2500,
        ema=0.998,
        needs=("digit_classifier",),
        players=lambda model: model.players(1e-3, (0.0, 0.99), discriminator_lr=2e-3),
    ),
}
