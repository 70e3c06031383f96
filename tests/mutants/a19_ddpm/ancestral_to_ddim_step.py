"""Answers for ancestral, ddim_step."""

from __future__ import annotations

import math

import torch

from tests.mutants.a19_ddpm.answers import answers

# ---------------------------------------------------------------- ancestral


@answers.second
def ancestral(model, n, keep=()):
    shape, t, kept = (n, *model.shape), model.schedule.steps, {}
    x = torch.normal(0.0, 1.0, shape)
    while True:
        if t in keep:
            kept[t] = x
        if t == 0:
            return x, kept
        x = model.p_sample(x, t * torch.ones(n, dtype=torch.int64))
        t -= 1


def _walk(model, n, keep, times=None, start=None, at=None, after=None, fed_back=True, offset=0):
    x = torch.randn(n, *model.shape) if start is None else start
    steps = model.schedule.steps
    kept, first = {steps + offset: x}, x
    for t in range(steps, 0, -1) if times is None else times:
        x = model.p_sample(x if fed_back else first, torch.full((n,), t) if at is None else at(t))
        x = x if after is None else after(x)
        kept[t - 1 + offset] = x
    return x, {t: kept[t] for t in keep if t in kept}


@answers.mutant("time runs forwards")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, range(1, model.schedule.steps + 1))


@answers.mutant("from T − 1 to 0, as for tables that begin at 0")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, range(model.schedule.steps - 1, -1, -1))


@answers.mutant("stops before the step at t = 1")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, range(model.schedule.steps, 1, -1))


@answers.mutant("begins at T − 1")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, range(model.schedule.steps - 1, 0, -1))


@answers.mutant("a step at t = 0, too")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, range(model.schedule.steps, -1, -1))


@answers.mutant("starts from zero")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, start=torch.zeros(n, *model.shape))


@answers.mutant("starts from uniform noise")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, start=torch.rand(n, *model.shape))


@answers.mutant("one start for all examples")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, start=torch.randn(1, *model.shape).expand(n, *model.shape))


@answers.mutant("starts from noise of the wrong size: √(1 − ᾱ_1)")
def ancestral(model, n, keep=()):
    small = (1 - model.schedule.alpha_bar[1]).sqrt().float()
    return _walk(model, n, keep, start=small * torch.randn(n, *model.shape))


@answers.mutant("each step from x_T again")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, fed_back=False)


@answers.mutant("floating-point t")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, at=lambda t: torch.full((n,), float(t)))


@answers.mutant("one t, not one for each example")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, at=lambda t: torch.full((1,), t))


@answers.mutant("clipped to [−1, 1] after every step")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, after=lambda x: x.clamp(-1, 1))


@answers.mutant("x_{t−1} kept under t")
def ancestral(model, n, keep=()):
    return _walk(model, n, keep, offset=1)


@answers.mutant("everything is kept")
def ancestral(model, n, keep=()):
    return _walk(model, n, range(model.schedule.steps + 1))


# ---------------------------------------------------------------- ddim_step


@answers.second
def ddim_step(schedule, xt, eps, t, s, eta, z):
    # in the units of x/√ᾱ, where σ is the noise level
    a_t, a_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    noise = eta**2 * (1 - a_s) * (1 - a_t / a_s) / (1 - a_t)
    level_t, level_s = ((1 - a_t) / a_t).sqrt(), ((1 - a_s - noise).clamp(min=0) / a_s).sqrt()
    moved = xt.double() / a_t.sqrt() + (level_s - level_t) * eps
    return (a_s.sqrt() * moved + noise.sqrt() * z).to(xt.dtype)


def _sigma(a_t, a_s, eta):
    return eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))


def _ddim(schedule, xt, eps, t, s, eta, z, sigma=_sigma, x0=None, left=None, noise=None):
    a_t, a_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
    guess = (xt - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t) if x0 is None else x0(a_t)
    size = sigma(a_t, a_s, eta)
    share = math.sqrt(max(0.0, 1 - a_s - size**2)) if left is None else left(a_s, size)
    return math.sqrt(a_s) * guess + share * eps + (size if noise is None else noise(size)) * z


@answers.mutant("η ignored: always deterministic")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, 0.0, z)


@answers.mutant("η ignored: always as noisy as DDPM")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, 1.0, z)


@answers.mutant("√η: η scales the variance")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, math.sqrt(eta), z)


@answers.mutant("noise added, but nothing taken from the direction")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, eta, z, left=lambda a, size: math.sqrt(1 - a))


@answers.mutant("σ for σ² under the root")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, eta, z, left=lambda a, size: math.sqrt(max(0.0, 1 - a - size)))


@answers.mutant("the variance as standard deviation: σ² z")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, eta, z, noise=lambda size: size**2)


@answers.mutant("√ missing: (1 − ᾱ_s − σ²) ε̂")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, eta, z, left=lambda a, size: max(0.0, 1 - a - size**2))


@answers.mutant("x̂_0 not divided by √ᾱ")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, eta, z, x0=lambda a: xt - math.sqrt(1 - a) * eps)


@answers.mutant("x_t in the place of x̂_0")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, eta, z, x0=lambda a: xt)


@answers.mutant("x̂_0 clipped")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    guess = lambda a: ((xt - math.sqrt(1 - a) * eps) / math.sqrt(a)).clamp(-1, 1)  # noqa: E731
    return _ddim(schedule, xt, eps, t, s, eta, z, x0=guess)


@answers.mutant("ᾱ_{t−1} for ᾱ_s: right for neighbours only")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, t - 1, eta, z)


@answers.mutant("the paper's α read as DDPM's: √ of α_t instead of ᾱ_t")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    a_t, a_s = schedule.alpha[t].item(), schedule.alpha[s].item()
    x0 = (xt - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    size = eta * math.sqrt(max(0.0, (1 - a_s) / (1 - a_t) * (1 - min(1.0, a_t / a_s))))
    return math.sqrt(a_s) * x0 + math.sqrt(max(0.0, 1 - a_s - size**2)) * eps + size * z


@answers.mutant("first root of σ upside down")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    wrong = lambda a, b, eta: eta * math.sqrt((1 - a) / max(1e-12, 1 - b) * (1 - a / b))  # noqa: E731
    return _ddim(schedule, xt, eps, t, s, eta, z, sigma=wrong)


@answers.mutant("σ² = β of the jump instead of its β̃")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, eta, z, sigma=lambda a, b, eta: eta * math.sqrt(1 - a / b))


@answers.mutant("a root of rounding: NaN where nothing is left")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    a_t, a_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    x0 = (xt - (1 - a_t).sqrt() * eps) / a_t.sqrt()
    size = eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)).sqrt()
    return a_s.sqrt() * x0 + (1 - a_s - size**2 - 1e-12).sqrt() * eps + size * z


@answers.mutant("η² under the root of σ, and η before it")
def ddim_step(schedule, xt, eps, t, s, eta, z):
    return _ddim(schedule, xt, eps, t, s, eta**2, z)
