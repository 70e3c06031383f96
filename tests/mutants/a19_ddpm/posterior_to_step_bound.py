"""Answers for posterior, picture_and_noise, step_bound."""

from __future__ import annotations

import torch
from torch.distributions import Normal, kl_divergence

from tests.mutants.a19_ddpm.answers import answers


def _column(values, like):
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


# ---------------------------------------------------------------- posterior


@answers.second
def posterior(schedule, x0, xt, t):
    means, variances = [], []
    for clean, noisy, time in zip(x0, xt, t.tolist(), strict=True):
        beta, left = float(schedule.beta[time]), float(schedule.alpha_bar[time - 1])
        fresh = 1 - left  # variance of q(x_{t−1} | x_0)
        share = fresh * (1 - beta) ** 0.5 / ((1 - beta) * fresh + beta)  # gain of a Kalman filter that sees x_t
        prior = left**0.5 * clean
        means.append(prior + share * (noisy - (1 - beta) ** 0.5 * prior))
        variances.append(fresh * (1 - share * (1 - beta) ** 0.5))
    variance = torch.tensor(variances, dtype=xt.dtype)
    return torch.stack(means), variance.view(-1, *[1] * (xt.ndim - 1))


def _posterior(schedule, x0, xt, t, of_x0, of_xt, variance):
    tables = (schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t], schedule.alpha_bar[t - 1])
    of_x0, of_xt, variance = (_column(formula(*tables), xt) for formula in (of_x0, of_xt, variance))
    return of_x0 * x0 + of_xt * xt, variance


def _of_x0(beta, alpha, a, before):
    return before.sqrt() * beta / (1 - a)


def _of_xt(beta, alpha, a, before):
    return alpha.sqrt() * (1 - before) / (1 - a)


def _tilde(beta, alpha, a, before):
    return (1 - before) / (1 - a) * beta


@answers.mutant("β for β̃")
def posterior(schedule, x0, xt, t):
    return _posterior(schedule, x0, xt, t, _of_x0, _of_xt, lambda b, al, a, p: b)


@answers.mutant("the standard deviation for the variance")
def posterior(schedule, x0, xt, t):
    return _posterior(schedule, x0, xt, t, _of_x0, _of_xt, lambda *v: _tilde(*v).sqrt())


@answers.mutant("coefficients exchanged")
def posterior(schedule, x0, xt, t):
    return _posterior(schedule, x0, xt, t, _of_xt, _of_x0, _tilde)


@answers.mutant("√ missing on ᾱ_{t−1}")
def posterior(schedule, x0, xt, t):
    return _posterior(schedule, x0, xt, t, lambda b, al, a, p: p * b / (1 - a), _of_xt, _tilde)


@answers.mutant("√ missing on α")
def posterior(schedule, x0, xt, t):
    return _posterior(schedule, x0, xt, t, _of_x0, lambda b, al, a, p: al * (1 - p) / (1 - a), _tilde)


@answers.mutant("√ᾱ for √α before x_t")
def posterior(schedule, x0, xt, t):
    return _posterior(schedule, x0, xt, t, _of_x0, lambda b, al, a, p: a.sqrt() * (1 - p) / (1 - a), _tilde)


@answers.mutant("ᾱ_t where ᾱ_{t−1} belongs")
def posterior(schedule, x0, xt, t):
    same = [lambda b, al, a, p, f=f: f(b, al, a, a) for f in (_of_x0, _of_xt, _tilde)]
    return _posterior(schedule, x0, xt, t, *same)


@answers.mutant("ᾱ_{t−1} from the wrong end: the table at t + 1")
def posterior(schedule, x0, xt, t):
    after = schedule.alpha_bar[(t + 1).clamp(max=schedule.steps)]
    wrong = [lambda b, al, a, p, f=f: f(b, al, a, after) for f in (_of_x0, _of_xt, _tilde)]
    return _posterior(schedule, x0, xt, t, *wrong)


@answers.mutant("all indices off by one")
def posterior(schedule, x0, xt, t):
    return _posterior(schedule, x0, xt, (t - 1).clamp(min=1), _of_x0, _of_xt, _tilde)


@answers.mutant("variance upside down")
def posterior(schedule, x0, xt, t):
    return _posterior(schedule, x0, xt, t, _of_x0, _of_xt, lambda b, al, a, p: (1 - a) / (1 - p).clamp_min(1e-9) * b)


@answers.mutant("coefficients in float32")
def posterior(schedule, x0, xt, t):
    tables = [v[i].to(xt.dtype) for v, i in ((schedule.beta, t), (schedule.alpha, t), (schedule.alpha_bar, t))]
    tables.append(schedule.alpha_bar[t - 1].to(xt.dtype))
    of_x0, of_xt, variance = (_column(f(*tables), xt) for f in (_of_x0, _of_xt, _tilde))
    return of_x0 * x0 + of_xt * xt, variance


@answers.mutant("one variance for all: that of the first example")
def posterior(schedule, x0, xt, t):
    mean, variance = _posterior(schedule, x0, xt, t, _of_x0, _of_xt, _tilde)
    return mean, variance[:1].expand_as(variance)


@answers.mutant("t as (b, 1): broadcasts over the rows of pictures")
def posterior(schedule, x0, xt, t):
    tables = (schedule.beta[t], schedule.alpha[t], schedule.alpha_bar[t], schedule.alpha_bar[t - 1])
    of_x0, of_xt, variance = (f(*tables).to(xt.dtype)[:, None] for f in (_of_x0, _of_xt, _tilde))
    return of_x0 * x0 + of_xt * xt, variance


# ---------------------------------------------------------------- picture_and_noise


@answers.second
def picture_and_noise(out, xt, alpha_bar, predicts):
    if predicts not in {"eps", "x0", "v"}:
        raise ValueError(predicts)
    angle = alpha_bar.sqrt().arccos().reshape([len(xt)] + [1] * (xt.dim() - 1))
    cos, sin = angle.cos(), angle.sin()
    # bring everything to v, then rotate back
    v = {"eps": lambda: (out - sin * xt) / cos, "x0": lambda: (cos * xt - out) / sin, "v": lambda: out}[predicts]()
    x0, eps = cos * xt - sin * v, sin * xt + cos * v
    return (out if predicts == "x0" else x0), (out if predicts == "eps" else eps)


def _both(out, xt, alpha_bar, predicts, **changed):
    a = _column(alpha_bar, xt)
    signal, noise = a.sqrt(), (1 - a).sqrt()
    rules = {
        "eps": lambda: ((xt - noise * out) / signal, out),
        "x0": lambda: (out, (xt - signal * out) / noise),
        "v": lambda: (signal * xt - noise * out, noise * xt + signal * out),
    }
    rules |= {word: (lambda rule=rule: rule(out, xt, a)) for word, rule in changed.items()}
    if predicts not in rules:
        raise ValueError(predicts)
    return rules[predicts]()


@answers.mutant("v with the signs of its definition")
def picture_and_noise(out, xt, alpha_bar, predicts):
    wrong = lambda o, x, a: (a.sqrt() * x + (1 - a).sqrt() * o, a.sqrt() * o - (1 - a).sqrt() * x)  # noqa: E731
    return _both(out, xt, alpha_bar, predicts, v=wrong)


@answers.mutant("v: noise and signal exchanged in ε")
def picture_and_noise(out, xt, alpha_bar, predicts):
    wrong = lambda o, x, a: (a.sqrt() * x - (1 - a).sqrt() * o, a.sqrt() * x + (1 - a).sqrt() * o)  # noqa: E731
    return _both(out, xt, alpha_bar, predicts, v=wrong)


@answers.mutant("ε: divides by ᾱ without the root")
def picture_and_noise(out, xt, alpha_bar, predicts):
    wrong = lambda o, x, a: ((x - (1 - a).sqrt() * o) / a, o)  # noqa: E731
    return _both(out, xt, alpha_bar, predicts, eps=wrong)


@answers.mutant("ε: the variance times ε is taken off")
def picture_and_noise(out, xt, alpha_bar, predicts):
    wrong = lambda o, x, a: ((x - (1 - a) * o) / a.sqrt(), o)  # noqa: E731
    return _both(out, xt, alpha_bar, predicts, eps=wrong)


@answers.mutant("ε: the noise taken off, but the picture not enlarged again")
def picture_and_noise(out, xt, alpha_bar, predicts):
    wrong = lambda o, x, a: (x - (1 - a).sqrt() * o, o)  # noqa: E731
    return _both(out, xt, alpha_bar, predicts, eps=wrong)


@answers.mutant("x₀: ε is the difference of the two pictures")
def picture_and_noise(out, xt, alpha_bar, predicts):
    wrong = lambda o, x, a: (o, (x - o) / (1 - a).sqrt())  # noqa: E731
    return _both(out, xt, alpha_bar, predicts, x0=wrong)


@answers.mutant("x₀: divides by 1 − ᾱ without the root")
def picture_and_noise(out, xt, alpha_bar, predicts):
    wrong = lambda o, x, a: (o, (x - a.sqrt() * o) / (1 - a))  # noqa: E731
    return _both(out, xt, alpha_bar, predicts, x0=wrong)


@answers.mutant("the pair in the other order")
def picture_and_noise(out, xt, alpha_bar, predicts):
    return _both(out, xt, alpha_bar, predicts)[::-1]


@answers.mutant("the picture clipped to [−1, 1]")
def picture_and_noise(out, xt, alpha_bar, predicts):
    x0, eps = _both(out, xt, alpha_bar, predicts)
    return x0.clamp(-1, 1), eps


@answers.mutant("every unknown word means v")
def picture_and_noise(out, xt, alpha_bar, predicts):
    return _both(out, xt, alpha_bar, predicts if predicts in ("eps", "x0") else "v")


@answers.mutant("one ᾱ for each column")
def picture_and_noise(out, xt, alpha_bar, predicts):
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if predicts == "eps":
        return (xt - noise * out) / signal, out
    if predicts == "x0":
        return out, (xt - signal * out) / noise
    if predicts == "v":
        return signal * xt - noise * out, noise * xt + signal * out
    raise ValueError(predicts)


# ---------------------------------------------------------------- step_bound


@answers.second
def step_bound(schedule, eps, guess, t, variance):
    beta, alpha, a = (_column(v[t], eps) for v in (schedule.beta, schedule.alpha, schedule.alpha_bar))
    before = _column(schedule.alpha_bar[t - 1], eps)
    shift = -beta / (alpha * (1 - a)).sqrt()  # μ = x_t/√α + shift · ε; x_t cancels
    q = Normal(shift * eps, ((1 - before) / (1 - a) * beta).sqrt())
    p = Normal(shift * guess, _column(variance[t], eps).sqrt())
    return kl_divergence(q, p).flatten(1).sum(-1)


def _bound(schedule, eps, guess, t, variance, weight=None, constant=None):
    beta, alpha, a, before = schedule.at64(t)
    tilde, chosen, d = schedule.posterior_variance[t], variance[t], eps[0].numel()
    weight = weight or (lambda b, al, a, p, s: b.square() / (2 * s * al * (1 - a)))
    constant = constant or (lambda r, d: d / 2 * (r - 1 - r.log()))
    error = (eps - guess).square().flatten(1).sum(1)
    return weight(beta, alpha, a, before, chosen) * error + constant(tilde / chosen, d)


@answers.mutant("½ missing")
def step_bound(schedule, eps, guess, t, variance):
    return 2 * _bound(schedule, eps, guess, t, variance)


@answers.mutant("½ missing in the weight")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, lambda b, al, a, p, s: b.square() / (s * al * (1 - a)))


@answers.mutant("mean over the numbers instead of the sum")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance) / eps[0].numel()


@answers.mutant("constant left out: right for σ² = β̃ only")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, constant=lambda r, d: 0 * r)


@answers.mutant("constant of one number instead of d")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, constant=lambda r, d: (r - 1 - r.log()) / 2)


@answers.mutant("the KL the other way round in the constant")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, constant=lambda r, d: d / 2 * (1 / r - 1 + r.log()))


@answers.mutant("sign of the logarithm")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, constant=lambda r, d: d / 2 * (r - 1 + r.log()))


@answers.mutant("log of the standard deviations")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, constant=lambda r, d: d / 2 * (r - 1 - r.log() / 2))


@answers.mutant("β̃ in the weight, whatever σ² is")
def step_bound(schedule, eps, guess, t, variance):
    tilde = schedule.posterior_variance[t]
    return _bound(schedule, eps, guess, t, variance, lambda b, al, a, p, s: b.square() / (2 * tilde * al * (1 - a)))


@answers.mutant("σ for σ²")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance.sqrt())


@answers.mutant("ᾱ for α in the weight")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, lambda b, al, a, p, s: b.square() / (2 * s * a * (1 - a)))


@answers.mutant("α left out of the weight")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, lambda b, al, a, p, s: b.square() / (2 * s * (1 - a)))


@answers.mutant("β not squared")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, lambda b, al, a, p, s: b / (2 * s * al * (1 - a)))


@answers.mutant("1 − ᾱ_{t−1} for 1 − ᾱ_t")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, lambda b, al, a, p, s: b.square() / (2 * s * al * (1 - p)))


@answers.mutant("weight 1: L_simple is not the bound")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance, lambda b, al, a, p, s: torch.ones_like(b))


@answers.mutant("bits for nats")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance) / torch.tensor(2.0).log()


@answers.mutant("one number for the batch")
def step_bound(schedule, eps, guess, t, variance):
    return _bound(schedule, eps, guess, t, variance).mean().expand(len(eps))
