r"""Denoising diffusion implicit models: fewer steps, less noise, from the same trained network.

.. math::
    x_s = \sqrt{\bar α_s}\, \hat x_0 + \sqrt{1 - \bar α_s - σ^2}\, \hat ε + σ z, \qquad
    σ = η \sqrt{\frac{1 - \bar α_s}{1 - \bar α_t}} \sqrt{1 - \frac{\bar α_t}{\bar α_s}}

for s < t. η = 1 and s = t − 1 is DDPM's posterior; η = 0 is deterministic, an ODE solver that also runs backwards.
Song, Meng & Ermon 2021, "Denoising diffusion implicit models", eqs. (12) and (16), whose α is DDPM's ᾱ.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from course_lib.diffusion.ddpm import DDPM
from course_lib.diffusion.parametrization import eps_from_x0
from course_lib.maths.schedules import Schedule

# (x_t, t) ↦ (x̂_0, ε̂); ``DDPM.x0_and_eps`` is one
Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def respaced(steps: int, total: int) -> list[int]:
    """Times T = t_S > … > t_1 ≥ 1 > 0 for S steps, evenly spaced (Song 2021 appendix D.2, "linear"), and the final 0.

    Raises:
        ValueError: not 1 ≤ steps ≤ total.
    """
    if not 1 <= steps <= total:
        raise ValueError(f"a schedule of {total} steps can be walked in 1 … {total} steps, not {steps}")
    return [round(total * i / steps) for i in range(steps, -1, -1)]


def ddim_sigma(schedule: Schedule, t: int, s: int, eta: float) -> Float64[Tensor, ""]:
    """σ of the step from t to s < t.  Song 2021 eq. (16)."""
    a_t, a_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    return eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)).sqrt()


def ddim_step(
    schedule: Schedule,
    x0: Float[Tensor, "b *s"],
    eps: Float[Tensor, "b *s"],
    t: int,
    s: int,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b *s"]:
    """x_s from the predictions made at x_t.  Song 2021 eq. (12). s > t is a step towards noise (η = 0 only)."""
    a_s = schedule.alpha_bar[s]
    if not eta:
        return a_s.sqrt() * x0 + (1 - a_s).sqrt() * eps
    sigma = ddim_sigma(schedule, t, s, eta)
    z = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    # at s = 0 nothing is left under the root, and rounding must not make that negative
    return a_s.sqrt() * x0 + (1 - a_s - sigma.square()).clamp_min(0).sqrt() * eps + sigma * z


@torch.no_grad()
def walk(
    predict: Predict,
    schedule: Schedule,
    x: Float[Tensor, "b *s"],
    times: Sequence[int],
    eta: float = 0.0,
    clip: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b *s"]:
    """Follow ``times`` from x at ``times[0]``; falling times sample, rising ones encode.

    Args:
        predict: ``model.x0_and_eps``, or anything with its signature.
        schedule: the model's.
        x: x_t at the first time.
        times: e.g. ``respaced(50, T)``, or its reverse from 1 on to find the x_T of a picture.
        eta: η; 0 deterministic, 1 as noisy as DDPM.
        clip: clamp x̂_0 to [−1, 1], and make ε̂ agree with it.
        generator: of the steps' noise.
    """
    for t, s in itertools.pairwise(times):
        at = torch.full((len(x),), t, device=x.device)
        x0, eps = predict(x, at)
        if clip:
            x0 = x0.clamp(-1, 1)
            eps = eps_from_x0(x0, x, schedule.at(at, x)[2])
        x = ddim_step(schedule, x0, eps, t, s, eta, generator)
    return x


def ddim_sample(
    model: DDPM,
    n: int,
    steps: int = 50,
    eta: float = 0.0,
    labels: Int[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n *s"]:
    """n new examples in ``steps`` calls of the network."""
    predict = lambda x, t: model.x0_and_eps(x, t, labels)  # noqa: E731
    times = respaced(steps, model.schedule.steps)
    return walk(predict, model.schedule, model.noise(n, generator), times, eta, model.clip, generator)


def ddim_encode(
    model: DDPM, x0: Float[Tensor, "b *s"], steps: int = 50, labels: Int[Tensor, " b"] | None = None
) -> Float[Tensor, "b *s"]:
    """The x_T from which deterministic sampling leads (nearly) back to x_0: the same steps, the other way round."""
    predict = lambda x, t: model.x0_and_eps(x, t, labels)  # noqa: E731
    # the network has never seen t = 0; ε̂ at t = 1 serves for the first step
    times = [max(t, 1) for t in reversed(respaced(steps, model.schedule.steps))]
    return walk(predict, model.schedule, x0, times)


def slerp(x: Float[Tensor, "b *s"], y: Float[Tensor, "b *s"], share: float) -> Float[Tensor, "b *s"]:
    """The point at ``share`` of the arc from x to y, which stays as long as noise is (Song 2021 appendix D.5)."""
    flat_x, flat_y = x.flatten(1), y.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat_x, flat_y).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = cosine.arccos().view(-1, *[1] * (x.ndim - 1))
    return (((1 - share) * angle).sin() * x + (share * angle).sin() * y) / angle.sin()
