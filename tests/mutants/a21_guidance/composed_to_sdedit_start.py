"""Answers for composed, sdedit_start."""

from __future__ import annotations

import math

import torch

from tests.mutants.a21_guidance.answers import answers


def _column(values, like):
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


# ---------------------------------------------------------------- composed


@answers.second
def composed(out, xt, given, mask, alpha_bar):
    picture = given.clone()
    for i, a in enumerate(alpha_bar.tolist()):
        guess = (a**0.5 * xt[i] - (1 - a) ** 0.5 * out[i]).clip(-1, 1)
        wanted = mask[i, 0] == 1
        picture[i, :, wanted] = guess[:, wanted]
    return picture


def _x0(out, xt, alpha_bar):
    a = _column(alpha_bar, xt)
    return a.sqrt() * xt - (1 - a).sqrt() * out


@answers.mutant("not clamped")
def composed(out, xt, given, mask, alpha_bar):
    return torch.where(mask > 0, _x0(out, xt, alpha_bar), given)


@answers.mutant("clamped after the composition: what is given, too")
def composed(out, xt, given, mask, alpha_bar):
    return torch.where(mask > 0, _x0(out, xt, alpha_bar), given).clamp(-1, 1)


@answers.mutant("clamped to [0, 1]")
def composed(out, xt, given, mask, alpha_bar):
    return torch.where(mask > 0, _x0(out, xt, alpha_bar).clamp(0, 1), given)


@answers.mutant("mask the other way round")
def composed(out, xt, given, mask, alpha_bar):
    return torch.where(mask > 0, given, _x0(out, xt, alpha_bar).clamp(-1, 1))


@answers.mutant("not composed: the network's own rim")
def composed(out, xt, given, mask, alpha_bar):
    return _x0(out, xt, alpha_bar).clamp(-1, 1)


@answers.mutant("what is given left out")
def composed(out, xt, given, mask, alpha_bar):
    return mask * _x0(out, xt, alpha_bar).clamp(-1, 1)


@answers.mutant("what is given added everywhere: right only where it is 0 in the hole")
def composed(out, xt, given, mask, alpha_bar):
    return mask * _x0(out, xt, alpha_bar).clamp(-1, 1) + given


@answers.mutant("the noisy x_t outside of the hole")
def composed(out, xt, given, mask, alpha_bar):
    return torch.where(mask > 0, _x0(out, xt, alpha_bar).clamp(-1, 1), xt)


@answers.mutant("v taken for ε")
def composed(out, xt, given, mask, alpha_bar):
    a = _column(alpha_bar, xt)
    return torch.where(mask > 0, ((xt - (1 - a).sqrt() * out) / a.sqrt()).clamp(-1, 1), given)


@answers.mutant("v taken for x_0")
def composed(out, xt, given, mask, alpha_bar):
    return torch.where(mask > 0, out.clamp(-1, 1), given)


@answers.mutant("the sign of v")
def composed(out, xt, given, mask, alpha_bar):
    return torch.where(mask > 0, _x0(-out, xt, alpha_bar).clamp(-1, 1), given)


@answers.mutant("√ missing")
def composed(out, xt, given, mask, alpha_bar):
    a = _column(alpha_bar, xt)
    return torch.where(mask > 0, (a * xt - (1 - a) * out).clamp(-1, 1), given)


@answers.mutant("the first example's ᾱ for the batch")
def composed(out, xt, given, mask, alpha_bar):
    return torch.where(mask > 0, _x0(out, xt, alpha_bar[:1]).clamp(-1, 1), given)


@answers.mutant("blended around the hole: nothing stays bit for bit")
def composed(out, xt, given, mask, alpha_bar):
    soft = 0.99 * mask + 0.005
    return soft * _x0(out, xt, alpha_bar).clamp(-1, 1) + (1 - soft) * given


# ---------------------------------------------------------------- sdedit_start


@answers.second
def sdedit_start(guide, strength, times, alpha_bar, noise):
    if strength < 0 or strength > 1:
        raise ValueError(strength)
    steps = len(times) - 1
    remaining = [time for i, time in enumerate(times) if steps - i <= strength * steps + 0.5]
    left = alpha_bar[remaining[0]].to(guide.dtype)
    return left**0.5 * guide + (1 - left) ** 0.5 * noise, remaining


def _start(guide, strength, times, alpha_bar, noise, *, count=None, first=None, mix=None):
    if not 0 <= strength <= 1:
        raise ValueError(strength)
    steps = len(times) - 1
    k = math.floor(strength * steps + 0.5) if count is None else count(steps)
    remaining = list(times[steps - k :])
    a = float(alpha_bar[remaining[0] if first is None else first(remaining, k)])
    return mix(a) if mix else math.sqrt(a) * guide + math.sqrt(1 - a) * noise, remaining


@answers.mutant("strength the other way round")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, 1 - strength, times, alpha_bar, noise)


@answers.mutant("rounded down")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, count=lambda n: int(strength * n))


@answers.mutant("rounded up")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, count=lambda n: math.ceil(strength * n))


@answers.mutant("half to even: Python's round")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, count=lambda n: round(strength * n))


@answers.mutant("the first k steps instead of the last")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    k = math.floor(strength * (len(times) - 1) + 0.5)
    _start(guide, strength, times, alpha_bar, noise)
    a = float(alpha_bar[times[0]])
    return math.sqrt(a) * guide + math.sqrt(1 - a) * noise, list(times[: k + 1])


@answers.mutant("times[−k:]: one time short, and everything at strength 0")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    _start(guide, strength, times, alpha_bar, noise)
    k = math.floor(strength * (len(times) - 1) + 0.5)
    remaining = list(times[-k:])
    a = float(alpha_bar[remaining[0]])
    return math.sqrt(a) * guide + math.sqrt(1 - a) * noise, remaining


@answers.mutant("all times, whatever the strength")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise)[0], list(times)


@answers.mutant("the last time, 0, left out")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    x, remaining = _start(guide, strength, times, alpha_bar, noise)
    return x, remaining[:-1]


@answers.mutant("ᾱ of step k, not of time t_k")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, first=lambda remaining, k: k)


@answers.mutant("ᾱ of the next time: noise of one step too few")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, first=lambda remaining, k: remaining[min(1, k)])


@answers.mutant("√ missing")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, mix=lambda a: a * guide + (1 - a) * noise)


@answers.mutant("the guide does not shrink: x for x_t")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, mix=lambda a: guide + math.sqrt(1 - a) * noise)


@answers.mutant("in σ: g + σ z, not multiplied by √ᾱ")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, mix=lambda a: guide + math.sqrt(1 / a - 1) * noise)


@answers.mutant("strength as the share of noise")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, mix=lambda a: (1 - strength) * guide + strength * noise)


@answers.mutant("guide and noise exchanged")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(noise, strength, times, alpha_bar, guide)


@answers.mutant("pure noise at every strength")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, strength, times, alpha_bar, noise, mix=lambda a: noise)


@answers.mutant("strengths beyond 1 cut instead of refused")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    return _start(guide, min(max(strength, 0.0), 1.0), times, alpha_bar, noise)


@answers.mutant("the table's float64 leaks into the pictures")
def sdedit_start(guide, strength, times, alpha_bar, noise):
    a = alpha_bar[times[-1 - math.floor(min(max(strength, 0.0), 1.0) * (len(times) - 1) + 0.5)]].expand(1)
    return _start(guide, strength, times, alpha_bar, noise, mix=lambda _: a.sqrt() * guide + (1 - a).sqrt() * noise)
