"""Answers for alpha_bars, cosine_betas, noised."""

from __future__ import annotations

import math

import torch

from tests.mutants.a19_ddpm.answers import answers

# ---------------------------------------------------------------- alpha_bars


@answers.second
def alpha_bars(betas):
    table, left = [1.0], 1.0
    for beta in betas.double().tolist():
        left -= beta * left
        table.append(left)
    return torch.tensor(table, dtype=torch.float64)


@answers.mutant("α for ᾱ: no product")
def alpha_bars(betas):
    return torch.cat([torch.ones(1, dtype=torch.float64), 1 - betas.double()])


@answers.mutant("ᾱ_0 left out: every index is off by one")
def alpha_bars(betas):
    return (1 - betas.double()).cumprod(0)


@answers.mutant("ᾱ_0 = α_1: the first factor doubled instead of 1")
def alpha_bars(betas):
    alpha = 1 - betas.double()
    return torch.cat([alpha[:1], alpha.cumprod(0)])


@answers.mutant("the product of the betas")
def alpha_bars(betas):
    return torch.cat([torch.ones(1, dtype=torch.float64), betas.double().cumprod(0)])


@answers.mutant("one minus the sum of the betas: noise does not shrink")
def alpha_bars(betas):
    return torch.cat([torch.ones(1, dtype=torch.float64), 1 - betas.double().cumsum(0)])


@answers.mutant("exp of minus the sum: the limit of many small steps")
def alpha_bars(betas):
    return torch.cat([torch.ones(1, dtype=torch.float64), (-betas.double().cumsum(0)).exp()])


@answers.mutant("√ᾱ: what multiplies the signal")
def alpha_bars(betas):
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas.double()).cumprod(0).sqrt()])


@answers.mutant("a product in float32, converted at the end")
def alpha_bars(betas):
    return torch.cat([torch.ones(1), (1 - betas.float()).cumprod(0)]).double()


@answers.mutant("from T down")
def alpha_bars(betas):
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas.double()).flip(0).cumprod(0)])


# ---------------------------------------------------------------- cosine_betas


@answers.second
def cosine_betas(steps, offset=0.008, largest=0.999):
    # cos² u = (1 + cos 2u) / 2
    left = [(1 + math.cos(math.pi * (t / steps + offset) / (1 + offset))) / 2 for t in range(steps + 1)]
    betas = [(left[t - 1] - left[t]) / left[t - 1] for t in range(1, steps + 1)]
    return torch.tensor(betas, dtype=torch.float64).minimum(torch.tensor(largest, dtype=torch.float64))


def _betas(steps, offset, largest, f):
    share = torch.arange(steps + 1, dtype=torch.float64) / steps
    values = f(share, offset)
    return (1 - values[1:] / values[:-1]).clamp(max=largest)


@answers.mutant("a cosine that is not squared")
def cosine_betas(steps, offset=0.008, largest=0.999):
    return _betas(steps, offset, largest, lambda u, s: (math.pi / 2 * (u + s) / (1 + s)).cos())


@answers.mutant("no offset")
def cosine_betas(steps, offset=0.008, largest=0.999):
    return _betas(steps, offset, largest, lambda u, s: (math.pi / 2 * u).cos().square())


@answers.mutant("not divided by 1 + s")
def cosine_betas(steps, offset=0.008, largest=0.999):
    return _betas(steps, offset, largest, lambda u, s: (math.pi / 2 * (u + s)).cos().square())


@answers.mutant("the offset counted in steps instead of in shares of T")
def cosine_betas(steps, offset=0.008, largest=0.999):
    return _betas(steps, offset, largest, lambda u, s: (math.pi / 2 * (u + s / steps) / (1 + s)).cos().square())


@answers.mutant("π for π/2")
def cosine_betas(steps, offset=0.008, largest=0.999):
    return _betas(steps, offset, largest, lambda u, s: (math.pi * (u + s) / (1 + s)).cos().square())


@answers.mutant("not cut at β_max")
def cosine_betas(steps, offset=0.008, largest=0.999):
    return _betas(steps, offset, 1.0, lambda u, s: (math.pi / 2 * (u + s) / (1 + s)).cos().square())


@answers.mutant("cut at 0.999, whatever is asked for")
def cosine_betas(steps, offset=0.008, largest=0.999):
    return _betas(steps, offset, 0.999, lambda u, s: (math.pi / 2 * (u + s) / (1 + s)).cos().square())


@answers.mutant("scaled to a largest β instead of cut")
def cosine_betas(steps, offset=0.008, largest=0.999):
    betas = _betas(steps, offset, 1.0, lambda u, s: (math.pi / 2 * (u + s) / (1 + s)).cos().square())
    return betas * largest / betas.max()


@answers.mutant("1 − ᾱ_t, the noise so far, for β_t")
def cosine_betas(steps, offset=0.008, largest=0.999):
    f = (math.pi / 2 * (torch.arange(steps + 1, dtype=torch.float64) / steps + offset) / (1 + offset)).cos().square()
    return (1 - f[1:] / f[0]).clamp(max=largest)


@answers.mutant("t off by one: f(t − 1)/f(t − 2), with β_1 = 0")
def cosine_betas(steps, offset=0.008, largest=0.999):
    betas = _betas(steps, offset, largest, lambda u, s: (math.pi / 2 * (u + s) / (1 + s)).cos().square())
    return torch.cat([betas.new_zeros(1), betas[:-1]])


@answers.mutant("β_0 = 0 in front: T + 1 entries")
def cosine_betas(steps, offset=0.008, largest=0.999):
    betas = _betas(steps, offset, largest, lambda u, s: (math.pi / 2 * (u + s) / (1 + s)).cos().square())
    return torch.cat([betas.new_zeros(1), betas])


@answers.mutant("float32")
def cosine_betas(steps, offset=0.008, largest=0.999):
    f = (math.pi / 2 * (torch.arange(steps + 1) / steps + offset) / (1 + offset)).cos().square()
    return (1 - f[1:] / f[:-1]).clamp(max=largest)


# ---------------------------------------------------------------- noised


@answers.second
def noised(schedule, x0, t, eps):
    rows = []
    for x, time, noise in zip(x0, t.tolist(), eps, strict=True):
        left = schedule.alpha_bar[time].item()
        rows.append(x * left**0.5 + noise * (1 - left) ** 0.5)
    return torch.stack(rows)


def _column(values, like):
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


@answers.mutant("α for ᾱ: one step only")
def noised(schedule, x0, t, eps):
    a = _column(schedule.alpha[t], x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@answers.mutant("√ missing on the signal")
def noised(schedule, x0, t, eps):
    a = _column(schedule.alpha_bar[t], x0)
    return a * x0 + (1 - a).sqrt() * eps


@answers.mutant("the variance as standard deviation")
def noised(schedule, x0, t, eps):
    a = _column(schedule.alpha_bar[t], x0)
    return a.sqrt() * x0 + (1 - a) * eps


@answers.mutant("1 − √ᾱ: signal and noise as shares that sum to one")
def noised(schedule, x0, t, eps):
    a = _column(schedule.alpha_bar[t], x0).sqrt()
    return a * x0 + (1 - a) * eps


@answers.mutant("no shrinking: noise piles up on the picture")
def noised(schedule, x0, t, eps):
    a = _column(schedule.alpha_bar[t], x0)
    return x0 + (1 - a).sqrt() * eps


@answers.mutant("t off by one: ᾱ_{t−1}, as for tables that begin at t = 1")
def noised(schedule, x0, t, eps):
    a = _column(schedule.alpha_bar[t - 1], x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@answers.mutant("signal and noise exchanged")
def noised(schedule, x0, t, eps):
    a = _column(schedule.alpha_bar[t], x0)
    return (1 - a).sqrt() * x0 + a.sqrt() * eps


@answers.mutant("t as (b, 1): right for points, broadcasts over the rows of pictures")
def noised(schedule, x0, t, eps):
    a = schedule.alpha_bar[t].to(x0.dtype)[:, None]
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@answers.mutant("t as it is: one time for each column")
def noised(schedule, x0, t, eps):
    a = schedule.alpha_bar[t].to(x0.dtype)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@answers.mutant("the first example's time for the whole batch")
def noised(schedule, x0, t, eps):
    a = schedule.alpha_bar[t[0]].to(x0.dtype)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


@answers.mutant("the tables' float64 leaks into the pictures")
def noised(schedule, x0, t, eps):
    a = schedule.alpha_bar[t].view(-1, *[1] * (x0.ndim - 1))
    return a.sqrt() * x0 + (1 - a).sqrt() * eps
