r"""SDEdit: add noise to a guide (a sketch, a collage), then denoise it with an unconditional model.

.. math:: x_{t_0} = \sqrt{\bar α_{t_0}}\, x_{guide} + \sqrt{1 - \bar α_{t_0}}\, ε

and from there on as in sampling. Little noise keeps the guide, much noise keeps only its large forms and makes them
look like data. Meng et al. 2022, "SDEdit: guided image synthesis and editing with stochastic differential equations",
Algorithm 1; with noise level σ in place of t.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.diffusion.edm import Denoise, heun


def sdedit(
    denoise: Denoise,
    guide: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " steps1"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b c h w"]:
    """Pictures like the guide as seen through noise ``sigmas[0]``.

    Args:
        denoise: D(x, σ), guided or not.
        guide: pictures in [−1, 1].
        sigmas: falling noise levels; the first is the strength of the edit, e.g. ``karras_sigmas(20, highest=1.0)``.
        generator: of the noise.
    """
    noise = torch.randn(guide.shape, generator=generator, device=guide.device, dtype=guide.dtype)
    return heun(denoise, guide + float(sigmas[0]) * noise, sigmas)
