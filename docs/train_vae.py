"""Train lecture 04's VAEs in one process or many, and draw the README's picture with them.

python docs/train_vae.py --picture docs/course.png            # about four minutes on two cores
torchrun --nproc-per-node 2 docs/train_vae.py --device cuda   # each process takes its share of every batch
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from course_lib.autoencoders.conditional_vae import ConditionalVAE
from course_lib.autoencoders.vae import VAE, mlp_vae
from course_lib.core import FitOptions, Player, fit, minibatches, pick_device, warmup_cosine
from course_lib.core.io import image_grid
from course_lib.data import binarize, load

SHAPE = (1, 28, 28)


def train(model: torch.nn.Module, steps: int, device: torch.device) -> None:
    """Fit a VAE to dynamically binarized digits (a conditional one to digits and labels)."""
    data = load("digits", "train", device=device)
    draw = minibatches((data.x, data.labels), 128)

    def binary(step: int):
        # the batch, noise included, depends on the step alone, so that every process sees the same one
        x, y = draw(step)
        x = binarize(x, torch.Generator(device).manual_seed(step))
        return (x, y) if isinstance(model, ConditionalVAE) else x

    options = FitOptions(device=device, schedule=warmup_cosine(steps, 100))
    history = fit(Player.of(model.to(device), lr=1e-3), binary, steps, options=options)
    name, losses = next(iter(history.losses.items()))
    print(f"{name}: {losses[-100:].mean():.1f} nats after {steps} steps, {history.seconds:.0f} s")


@torch.no_grad()
def picture(path: Path, flat: VAE, deep: VAE, conditional: ConditionalVAE) -> None:
    """Four panels: manifold, samples, walks between test digits, one handwriting per row."""
    import matplotlib.pyplot as plt

    from course_lib.viz.figures import draw_image, use_course_style

    use_course_style()
    generator = torch.Generator().manual_seed(4)
    quantile = torch.linspace(0.03, 0.97, 10)
    axis = 2**0.5 * torch.erfinv(2 * quantile - 1)
    manifold = flat.decode(torch.cartesian_prod(axis, axis))
    samples = deep.sample(100, generator)
    test = load("digits", "test")
    ends = deep.encode(test.x[:20])[0]
    share = torch.linspace(0, 1, 10).view(1, 10, 1)
    walks = deep.decode(torch.lerp(ends[:10, None], ends[10:, None], share).flatten(0, 1))
    style = torch.randn(10, 1, conditional.latent, generator=generator).expand(-1, 10, -1).flatten(0, 1)
    handwriting = conditional.decode(style, torch.arange(10).repeat(10))
    panels = {
        "a manifold of digits (2 latents)": manifold,
        "samples from the prior (20 latents)": samples,
        "walks between test digits": walks,
        "one handwriting a row (conditional)": handwriting,
    }
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.5))
    for ax, (title, images) in zip(axes, panels.items(), strict=True):
        draw_image(ax, 255 - image_grid(images.cpu(), 10, pad=0, background=0), title)
        ax.title.set_fontsize(11)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--steps", type=int, default=6000, help="steps of each of the three models")
    parser.add_argument("--picture", type=Path, help="write the README's picture here")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    torch.manual_seed(0)
    flat, deep, conditional = mlp_vae(SHAPE, latent=2), mlp_vae(SHAPE, latent=20), ConditionalVAE(SHAPE, 10, latent=8)
    for model in (flat, deep, conditional):
        train(model, arguments.steps, device)
    if arguments.picture:
        picture(arguments.picture, *(model.cpu() for model in (flat, deep, conditional)))


if __name__ == "__main__":
    main()
