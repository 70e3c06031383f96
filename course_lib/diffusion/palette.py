r"""Palette: image-to-image diffusion by showing the degraded picture to the network as further channels.

.. math:: E_{(x, y), ε, t} ‖ m ⊙ (ε - ε_θ([x_t, y, m], t)) ‖^2

y is the picture that is given (grey, or with a hole), m marks the pixels that are wanted; where m is 0, x_t is the
given picture itself, without noise. Colorization wants all pixels and is given grey ones; inpainting wants a hole,
outpainting a border.

Saharia et al. 2022, "Palette: image-to-image diffusion models", eq. (3) and section 3 (masked loss; one model for all
tasks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.diffusion.ddim import respaced, walk
from course_lib.diffusion.ddpm import DDPM, q_sample
from course_lib.diffusion.parametrization import VELOCITY, Parametrization
from course_lib.maths.schedules import Schedule

# (pictures, generator) ↦ (given pictures, mask of the wanted pixels); both (b, ·, h, w)
Task = Callable[[Tensor, torch.Generator | None], tuple[Tensor, Tensor]]
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def colorization(x: Float[Tensor, "b 3 h w"], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Given: the grey picture in all three channels. Wanted: everything."""
    grey = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    return grey.expand_as(x), torch.ones_like(grey)


def inpainting(x: Float[Tensor, "b c h w"], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Given: all but a rectangle of a third to two thirds of the side, anywhere. Wanted: what is in it."""
    low, high, at = _rectangle(x, generator)
    mask = ((at >= low) & (at < high)).all(1, keepdim=True).to(x.dtype)
    return x * (1 - mask), mask


def outpainting(x: Float[Tensor, "b c h w"], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Given: a rectangle of a third to two thirds of the side. Wanted: what is around it."""
    given, mask = inpainting(x, generator)
    return x - given, 1 - mask


def _rectangle(x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """Corners (b, 2, 1, 1) of a random rectangle, and the coordinates (1, 2, h, w) of the pixels, in 0 … 1."""
    u = torch.rand(2, len(x), 2, 1, 1, generator=generator, device=x.device, dtype=x.dtype)
    side = (1 + u[0]) / 3
    low = u[1] * (1 - side)
    rows, columns = ((torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n for n in x.shape[-2:])
    at = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).unsqueeze(0)
    return low, low + side, at


class Palette(nn.Module):
    """One network for several tasks.

    Args:
        network: ``network(pictures, t)`` reading 2c + 1 channels (noisy, given, mask) and writing c.
        schedule: β_1 … β_T.
        shape: (c, h, w).
        tasks: share every batch in ``loss`` among them.
        parametrization: of the network's output.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        shape: tuple[int, int, int],
        tasks: Sequence[Task] = (colorization, inpainting, outpainting),
        parametrization: Parametrization = VELOCITY,
    ) -> None:
        super().__init__()
        self.ddpm = DDPM(network, schedule, shape, parametrization)
        self.tasks = tuple(tasks)

    def loss(self, x0: Float[Tensor, "b c h w"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Squared error over the wanted pixels; each task gets an equal share of the batch."""
        shares = zip(self.tasks, x0.chunk(len(self.tasks)), strict=False)  # a tiny batch may not reach all
        pairs = [task(share, generator) for task, share in shares]
        given, mask = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        schedule = self.ddpm.schedule
        t = torch.randint(1, schedule.steps + 1, (len(x0),), generator=generator, device=x0.device)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        xt = torch.lerp(x0, q_sample(schedule, x0, t, eps), mask.expand_as(x0))
        target = self.ddpm.parametrization.target(x0, eps, schedule.at(t, x0)[2])
        out = self.ddpm.predict(torch.cat([xt, given, mask], 1), t)
        return (mask * (out - target).square()).sum() / (mask.sum() * x0.shape[1])

    @torch.no_grad()
    def restore(
        self,
        given: Float[Tensor, "b c h w"],
        mask: Float[Tensor, "b 1 h w"],
        steps: int = 50,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """A picture that agrees with what is given, by DDIM; where the mask is 0 it is ``given`` itself."""
        schedule = self.ddpm.schedule

        def predict(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            seen = torch.lerp(given, xt, mask.expand_as(xt))
            alpha_bar = schedule.at(t, xt)[2]
            out = self.ddpm.predict(torch.cat([seen, given, mask], 1), t)
            p = self.ddpm.parametrization
            return p.x0(out, xt, alpha_bar), p.eps(out, xt, alpha_bar)

        noise = self.ddpm.noise(len(given), generator)
        x = walk(predict, schedule, noise, respaced(steps, schedule.steps), eta, True, generator)
        return torch.lerp(given, x, mask.expand_as(x))
