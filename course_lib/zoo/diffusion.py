"""Denoisers of digits and emoji, told a label or none: what lectures 20 and 21 sample from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.core.player import Batch, BatchAt, minibatches
from course_lib.data.door import load as load_data
from course_lib.diffusion.ddim import ddim_sample
from course_lib.diffusion.ddpm import DDPM
from course_lib.diffusion.guidance import NoisyClassifier, drop_labels
from course_lib.diffusion.palette import Palette, inpainting
from course_lib.diffusion.parametrization import VELOCITY
from course_lib.maths.schedules import cosine_schedule
from course_lib.maths.statistics import mean_stderr
from course_lib.nn.unet import UNet, UNetConfig
from course_lib.zoo.recipe import Loss, Measured, Recipe

LABELS = 10  # of digits, and categories of emoji
NOBODY = LABELS  # the label that says "no label"
PICTURES, STEPS = 256, 25  # drawn for the card
EMOJI = "3,211 Twemoji pictures (`emoji`, training split; graphics CC-BY 4.0, Twitter and contributors)"


def _digits() -> DDPM:
    network = UNet(1, 1, UNetConfig(32, (1, 2, 2), 1, (2,), LABELS))
    return DDPM(network, cosine_schedule(), (1, 28, 28), VELOCITY)


def _emoji() -> DDPM:
    """Patches of 2 × 2 pixels as channels: four times the steps in the same time, and emoji are flat and bold."""
    network = UNet(3, 3, UNetConfig(48, (1, 2), 2, (1,), LABELS, patch=2))
    return DDPM(network, cosine_schedule(), (3, 32, 32), VELOCITY)


def _palette() -> Palette:
    """Reads noisy picture, given picture and mask: seven channels."""
    return Palette(UNet(7, 3, UNetConfig(48, (1, 2), 2, (1,), patch=2)), cosine_schedule(), (3, 32, 32))


def _unlabelled(data: str, size: int) -> Callable[[int, torch.device], BatchAt]:
    return lambda seed, device: minibatches(load_data(data, device=device).x, size, seed)


def _batches(data: str, size: int) -> Callable[[int, torch.device], BatchAt]:
    def batches(seed: int, device: torch.device) -> BatchAt:
        pictures = load_data(data, device=device)
        return minibatches((pictures.x, pictures.labels), size, seed)

    return batches


def _hiding_labels(share: float) -> Callable[[nn.Module, int], Loss]:
    """The model's loss, a share of the labels replaced by "no label"."""

    def of(model: nn.Module, steps: int) -> Loss:
        def loss(batch: Batch, step: int) -> Tensor:
            x, y = batch
            return model.loss((x, drop_labels(y, NOBODY, share)))

        return loss

    return of


def _own(model: nn.Module, steps: int) -> Loss:
    return lambda batch, step: model.loss(batch)


@torch.no_grad()
def _recognized(model: nn.Module) -> Measured:
    from course_lib.zoo import load  # the package imports this file

    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    pictures = torch.cat([ddim_sample(model, 64, STEPS, 1.0, generator=generator) for _ in range(PICTURES // 64)])
    sure = (load("digit_classifier", device).probabilities(pictures).max(1).values >= 0.9).double()
    what = (
        f"of {PICTURES} samples (DDIM, η = 1, {STEPS} steps, no labels) are recognized by digit_classifier with "
        "probability 0.9 or more"
    )
    return Measured(what, float(sure.mean()), float(sure.std() / len(sure) ** 0.5))


def _held_out(data: str, most: int) -> Callable[[nn.Module], Measured]:
    @torch.no_grad()
    def measure(model: nn.Module) -> Measured:
        pictures = load_data(data, "test", device=next(model.parameters()).device)
        x, y = pictures.x[:most], pictures.labels[:most]
        generator = torch.Generator(x.device).manual_seed(0)
        # every picture at one of evenly spaced times: less spread than at random ones
        t = 1 + torch.arange(len(x), device=x.device) * model.schedule.steps // len(x)
        eps = torch.randn(x.shape, generator=generator, device=x.device)
        mean, stderr = mean_stderr(
            torch.cat([model.errors(*p) for p in zip(*(v.split(64) for v in (x, t, eps, y)), strict=True)])
        )
        return Measured(
            f"squared error of v per pixel on {len(x)} test pictures with labels", float(mean), float(stderr)
        )

    return measure


@torch.no_grad()
def _noisy_accuracy(model: nn.Module) -> Measured:
    pictures = load_data("digits", "test", device=next(model.parameters()).device)
    generator = torch.Generator(pictures.x.device).manual_seed(0)
    noise = torch.randn(pictures.x.shape, generator=generator, device=pictures.x.device)
    logits = model(pictures.x + noise, torch.ones(len(noise), device=noise.device))
    right = (logits.argmax(1) == pictures.labels).double()
    mean, stderr = mean_stderr(right)
    return Measured(
        f"accuracy on {len(right)} test digits with noise of standard deviation 1", float(mean), float(stderr)
    )


def _inpainted(model: nn.Module) -> Measured:
    x = load_data("emoji", "test", device=next(model.parameters()).device).x[:128]
    generator = torch.Generator(x.device).manual_seed(0)
    given, mask = inpainting(x, generator)
    wanted = mask.flatten(1).sum(1) * x.shape[1]
    error = (model.restore(given, mask, STEPS, generator=generator) - x).square().flatten(1).sum(1) / wanted
    mean, stderr = mean_stderr(10 * (4 / error.clamp_min(1e-6)).log10())
    what = f"dB PSNR inside the hole of {len(x)} inpainted test emoji (DDIM, {STEPS} steps)"
    return Measured(what, float(mean), float(stderr))


RECIPES = {
    "ddpm_digits": Recipe(
        "diffusion model of digits (v, cosine schedule), 40 % of the labels hidden while it learnt",
        _digits,
        _hiding_labels(0.4),
        _batches("digits", 64),
        _recognized,
        steps=8000,
        lr=2e-3,
        ema=0.999,
        clip=1.0,
        needs=("digit_classifier",),
    ),
    "ddpm_emoji": Recipe(
        "diffusion model of emoji at 32×32 (v, cosine schedule), a quarter of the categories hidden while it learnt",
        _emoji,
        _hiding_labels(0.25),
        _batches("emoji", 32),
        _held_out("emoji", 256),
        steps=20_000,
        lr=1e-3,
        ema=0.9995,
        clip=1.0,
        data=EMOJI,
        dtype=torch.float16,
    ),
    "palette_emoji": Recipe(
        "Palette for emoji at 32×32: one network that colorizes, inpaints and outpaints",
        _palette,
        _own,
        _unlabelled("emoji", 48),
        _inpainted,
        steps=5000,
        lr=1e-3,
        ema=0.999,
        clip=1.0,
        data=EMOJI,
        dtype=torch.float16,
    ),
    "noisy_digit_classifier": Recipe(
        "classifier of digits at any noise level, for classifier guidance",
        NoisyClassifier,
        _own,
        _batches("digits", 64),
        _noisy_accuracy,
        steps=2500,
        lr=2e-3,
        ema=0.998,
    ),
}
