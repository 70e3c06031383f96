"""Answers for ddpm_loss, bits_per_dim, reverse_step."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from tests.mutants.a19_ddpm.answers import answers


def _column(values, like):
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


# ---------------------------------------------------------------- ddpm_loss


@answers.second
def ddpm_loss(network, schedule, x0, weight=None):
    noise = torch.normal(torch.zeros_like(x0), 1.0)
    times = 1 + (torch.rand(len(x0), dtype=torch.float64) * schedule.steps).long()
    left = schedule.alpha_bar.index_select(0, times)
    mixed = torch.stack([left.sqrt(), (1 - left).sqrt()]).to(x0).reshape(2, -1, *[1] * (x0.dim() - 1))
    said = network(mixed[0] * x0 + mixed[1] * noise, times.type_as(x0))
    errors = F.mse_loss(said, noise, reduction="none")
    lam = torch.ones_like(left) if weight is None else weight.index_select(0, times)
    return torch.einsum("b,bn->", lam.to(x0), errors.flatten(1)) / x0.numel()


def _times(x0, schedule):
    return torch.randint(1, schedule.steps + 1, (len(x0),))


def _loss(network, schedule, x0, weight=None, t=None, eps=None, told=None, size=None):
    t = _times(x0, schedule) if t is None else t
    eps = torch.randn_like(x0) if eps is None else eps
    a = _column(schedule.alpha_bar[t], x0)
    said = network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t.to(x0.dtype) if told is None else told(t, x0))
    error = (size or torch.square)(eps - said).flatten(1).mean(1)
    return (error if weight is None else weight[t].to(error.dtype) * error).mean()


@answers.mutant("the sum over the numbers, not the mean")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight) * x0[0].numel()


@answers.mutant("the sum over the batch")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight) * len(x0)


@answers.mutant("½ in front")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight) / 2


@answers.mutant("one t for the whole batch")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, t=_times(x0[:1], schedule).expand(len(x0)))


@answers.mutant("t from 0: no noise to guess")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, t=torch.randint(0, schedule.steps, (len(x0),)))


@answers.mutant("T is never drawn")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, t=torch.randint(1, schedule.steps, (len(x0),)))


@answers.mutant("large t drawn too often")
def ddpm_loss(network, schedule, x0, weight=None):
    share = torch.rand(len(x0)).sqrt()
    return _loss(network, schedule, x0, weight, t=(share * schedule.steps).ceil().long().clamp(1))


@answers.mutant("integer t into the network")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, told=lambda t, x: t)


@answers.mutant("t/T into the network")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, told=lambda t, x: t.to(x.dtype) / schedule.steps)


@answers.mutant("the network is told t − 1")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, told=lambda t, x: (t - 1).to(x.dtype))


@answers.mutant("t as (b, 1)")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, told=lambda t, x: t.to(x.dtype)[:, None])


@answers.mutant("uniform noise")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, eps=torch.rand_like(x0))


@answers.mutant("the same noise for the whole batch")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, eps=torch.randn_like(x0[:1]).expand_as(x0))


@answers.mutant("the same noise at every call")
def ddpm_loss(network, schedule, x0, weight=None):
    rng = torch.Generator().manual_seed(0)
    eps = torch.randn(x0.shape, generator=rng, dtype=x0.dtype)
    return _loss(
        network, schedule, x0, weight, t=torch.randint(1, schedule.steps + 1, (len(x0),), generator=rng), eps=eps
    )


@answers.mutant("absolute differences")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0, weight, size=torch.abs)


@answers.mutant("weights averaged by themselves: every example gets their mean")
def ddpm_loss(network, schedule, x0, weight=None):
    t = _times(x0, schedule)
    loss = _loss(network, schedule, x0, t=t)
    return loss if weight is None else weight[t].to(loss.dtype).mean() * loss


@answers.mutant("weights ignored")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(network, schedule, x0)


@answers.mutant("the network's output detached")
def ddpm_loss(network, schedule, x0, weight=None):
    return _loss(lambda x, t: network(x, t).detach(), schedule, x0, weight)


@answers.mutant("computed without gradients")
def ddpm_loss(network, schedule, x0, weight=None):
    with torch.no_grad():
        return _loss(network, schedule, x0, weight)


@answers.mutant("the picture as the target")
def ddpm_loss(network, schedule, x0, weight=None):
    t, eps = _times(x0, schedule), torch.randn_like(x0)
    a = _column(schedule.alpha_bar[t], x0)
    error = (x0 - network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t.to(x0.dtype))).square().flatten(1).mean(1)
    return (error if weight is None else weight[t].to(error.dtype) * error).mean()


@answers.mutant("√ missing: the noise has standard deviation 1 − ᾱ")
def ddpm_loss(network, schedule, x0, weight=None):
    t, eps = _times(x0, schedule), torch.randn_like(x0)
    a = _column(schedule.alpha_bar[t], x0)
    error = (eps - network(a.sqrt() * x0 + (1 - a) * eps, t.to(x0.dtype))).square().flatten(1).mean(1)
    return (error if weight is None else weight[t].to(error.dtype) * error).mean()


@answers.mutant("α for ᾱ")
def ddpm_loss(network, schedule, x0, weight=None):
    t, eps = _times(x0, schedule), torch.randn_like(x0)
    a = _column(schedule.alpha[t], x0)
    error = (eps - network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t.to(x0.dtype))).square().flatten(1).mean(1)
    return (error if weight is None else weight[t].to(error.dtype) * error).mean()


@answers.mutant("all the noise as the target: √(1 − ᾱ) ε")
def ddpm_loss(network, schedule, x0, weight=None):
    t, eps = _times(x0, schedule), torch.randn_like(x0)
    a = _column(schedule.alpha_bar[t], x0)
    noise = (1 - a).sqrt() * eps
    error = (noise - network(a.sqrt() * x0 + noise, t.to(x0.dtype))).square().flatten(1).mean(1)
    return (error if weight is None else weight[t].to(error.dtype) * error).mean()


# ---------------------------------------------------------------- bits_per_dim


@answers.second
def bits_per_dim(prior, terms, first, steps, dims):
    nats = [p + (steps - 1) * k + f for p, k, f in zip(prior.tolist(), terms.tolist(), first.tolist(), strict=True)]
    b = len(nats)
    mean = sum(nats) / b
    variance = sum((v - mean) ** 2 for v in nats) / (b - 1)
    unit = math.log2(math.e) / dims
    return mean * unit, math.sqrt(variance / b) * unit


def _bits(nats, dims, spread=None):
    bits = nats / (dims * math.log(2))
    spread = bits.std().item() / math.sqrt(len(bits)) if spread is None else spread
    return bits.mean().item(), spread


@answers.mutant("T terms instead of T − 1")
def bits_per_dim(prior, terms, first, steps, dims):
    return _bits(prior + steps * terms + first, dims)


@answers.mutant("one term instead of the sum over t")
def bits_per_dim(prior, terms, first, steps, dims):
    return _bits(prior + terms + first, dims)


@answers.mutant("everything times T: a mean over the T + 1 parts was meant")
def bits_per_dim(prior, terms, first, steps, dims):
    return _bits((prior + terms + first) * (steps - 1), dims)


@answers.mutant("L_0 left out")
def bits_per_dim(prior, terms, first, steps, dims):
    return _bits(prior + (steps - 1) * terms, dims)


@answers.mutant("L_T left out")
def bits_per_dim(prior, terms, first, steps, dims):
    return _bits((steps - 1) * terms + first, dims)


@answers.mutant("nats for bits")
def bits_per_dim(prior, terms, first, steps, dims):
    return _bits((prior + (steps - 1) * terms + first) * math.log(2), dims)


@answers.mutant("times log 2 instead of divided by it")
def bits_per_dim(prior, terms, first, steps, dims):
    return _bits((prior + (steps - 1) * terms + first) * math.log(2) ** 2, dims)


@answers.mutant("bits per picture")
def bits_per_dim(prior, terms, first, steps, dims):
    return _bits(prior + (steps - 1) * terms + first, 1)


@answers.mutant("the standard deviation for the standard error")
def bits_per_dim(prior, terms, first, steps, dims):
    nats = prior + (steps - 1) * terms + first
    return _bits(nats, dims, nats.std().item() / (dims * math.log(2)))


@answers.mutant("standard error in nats")
def bits_per_dim(prior, terms, first, steps, dims):
    nats = prior + (steps - 1) * terms + first
    return _bits(nats, dims, nats.std().item() / math.sqrt(len(nats)))


@answers.mutant("the three parts' errors added as if they were independent")
def bits_per_dim(prior, terms, first, steps, dims):
    variance = prior.var() + ((steps - 1) * terms).var() + first.var()
    spread = (variance / len(prior)).sqrt().item() / (dims * math.log(2))
    return _bits(prior + (steps - 1) * terms + first, dims, spread)


@answers.mutant("standard deviation with b")
def bits_per_dim(prior, terms, first, steps, dims):
    bits = (prior + (steps - 1) * terms + first) / (dims * math.log(2))
    return _bits(bits, 1 / math.log(2), bits.std(correction=0).item() / math.sqrt(len(bits)))


# ---------------------------------------------------------------- reverse_step


@answers.second
@torch.no_grad()
def reverse_step(network, schedule, xt, t, variance, z):
    # by way of x̂_0 and the posterior's mean
    time = torch.full(xt.shape[:1], t, dtype=xt.dtype)
    a, before = schedule.alpha_bar[t].double(), schedule.alpha_bar[t - 1].double()
    beta, alpha = 1 - a / before, a / before
    eps, wide = network(xt, time).double(), xt.double()
    x0 = (wide - (1 - a).sqrt() * eps) / a.sqrt()
    mean = before.sqrt() * beta / (1 - a) * x0 + alpha.sqrt() * (1 - before) / (1 - a) * wide
    sigma = variance[t].sqrt() * (t != 1)
    return (mean + sigma * z).to(xt.dtype)


def _step(network, schedule, xt, t, variance, z, share=None, scale=None, sigma=None, told=None, late=False):
    with torch.no_grad():
        eps = network(xt, torch.full((len(xt),), float(t if told is None else told), dtype=xt.dtype))
    b, al, a = schedule.beta[t].item(), schedule.alpha[t].item(), schedule.alpha_bar[t].item()
    share = b / math.sqrt(1 - a) if share is None else share(b, al, a)
    mean = (xt - share * eps) / (math.sqrt(al) if scale is None else scale(b, al, a))
    s2 = variance[t].item()
    return mean + (math.sqrt(s2) if sigma is None else sigma(s2)) * z * (t > 1 or late)


@answers.mutant("noise at the last step")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, late=True)


@answers.mutant("noise only at the last step")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, sigma=lambda s2: 0.0 if t > 1 else math.sqrt(s2), late=True)


@answers.mutant("the variance as standard deviation")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, sigma=lambda s2: s2)


@answers.mutant("β̃ always, whatever variance was asked for")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, schedule.posterior_variance, z)


@answers.mutant("variance at t − 1")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance.roll(1), z)


@answers.mutant("ᾱ for α before the bracket")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, scale=lambda b, al, a: math.sqrt(a))


@answers.mutant("√ missing in 1/√α")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, scale=lambda b, al, a: al)


@answers.mutant("√ missing under β/√(1 − ᾱ)")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, share=lambda b, al, a: b / (1 - a))


@answers.mutant("all of the noise taken out at once")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, share=lambda b, al, a: math.sqrt(1 - a))


@answers.mutant("adds the guessed noise")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, share=lambda b, al, a: -b / math.sqrt(1 - a))


@answers.mutant("the slide's 1 − β read as β under the root")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, scale=lambda b, al, a: math.sqrt(b))


@answers.mutant("the network is told t − 1")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, told=t - 1)


@answers.mutant("the network is told t/T")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(network, schedule, xt, t, variance, z, told=t / schedule.steps)


@answers.mutant("a gradient graph is kept")
def reverse_step(network, schedule, xt, t, variance, z):
    eps = network(xt, torch.full((len(xt),), float(t), dtype=xt.dtype))
    return _step(lambda *_: eps, schedule, xt, t, variance, z) + 0 * eps


@answers.mutant("integer t into the network")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(lambda x, _: network(x, torch.full((len(x),), t)), schedule, xt, t, variance, z)


@answers.mutant("one t, not one for each example")
def reverse_step(network, schedule, xt, t, variance, z):
    return _step(lambda x, _: network(x, torch.tensor(float(t))), schedule, xt, t, variance, z)
