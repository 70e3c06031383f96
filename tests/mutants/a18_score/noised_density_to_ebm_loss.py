"""Answers for noised_density, mixture_score, langevin_chain, replay_step, ebm_loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.mutants.a18_score.answers import answers

# ---------------------------------------------------------------- noised_density


@answers.second
def noised_density(y, x, p, sigma):
    around = torch.distributions.Normal(x, sigma)
    return torch.stack([(p * around.log_prob(point).exp()).sum() * (x[-1] - x[0]) / (len(x) - 1) for point in y])


def _offsets(y, x, sigma):
    return (y[:, None] - x) / sigma


@answers.mutant("σ² for the standard deviation")
def noised_density(y, x, p, sigma):
    kernel = torch.exp(-0.5 * _offsets(y, x, sigma**2) ** 2) / (sigma**2 * math.sqrt(2 * math.pi))
    return kernel @ p * (x[1] - x[0])


@answers.mutant("σ for the variance")
def noised_density(y, x, p, sigma):
    kernel = torch.exp(-0.5 * _offsets(y, x, sigma**0.5) ** 2) / math.sqrt(2 * math.pi * sigma)
    return kernel @ p * (x[1] - x[0])


@answers.mutant("no width of the cells")
def noised_density(y, x, p, sigma):
    return torch.exp(-0.5 * _offsets(y, x, sigma) ** 2) / (sigma * math.sqrt(2 * math.pi)) @ p


@answers.mutant("½ missing in the exponent")
def noised_density(y, x, p, sigma):
    kernel = torch.exp(-(_offsets(y, x, sigma) ** 2)) / (sigma * math.sqrt(2 * math.pi))
    return kernel @ p * (x[1] - x[0])


@answers.mutant("the Gaussian without its constant")
def noised_density(y, x, p, sigma):
    return torch.exp(-0.5 * _offsets(y, x, sigma) ** 2) @ p * (x[1] - x[0])


@answers.mutant("weights that sum to 1 for each y: a moving average of the density")
def noised_density(y, x, p, sigma):
    return (-0.5 * _offsets(y, x, sigma) ** 2).softmax(1) @ p


@answers.mutant("normalizes p first")
def noised_density(y, x, p, sigma):
    kernel = torch.exp(-0.5 * _offsets(y, x, sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    return kernel @ p / p.sum()


@answers.mutant("noise on the values of the density")
def noised_density(y, x, p, sigma):
    nearest = (y[:, None] - x).abs().argmin(1)
    return p[nearest] + sigma * torch.randn_like(y)


@answers.mutant("multiplies the density by a Gaussian")
def noised_density(y, x, p, sigma):
    nearest = (y[:, None] - x).abs().argmin(1)
    return p[nearest] * torch.exp(-0.5 * (y / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


# ---------------------------------------------------------------- mixture_score


@answers.second
def mixture_score(x, weights, means, stds, sigma):
    v = stds**2 + sigma**2
    law = torch.distributions.Independent(torch.distributions.Normal(means, v.sqrt()[:, None].expand_as(means)), 1)
    logits = law.log_prob(x[:, None]) + torch.log(weights)
    r = torch.exp(logits - logits.logsumexp(1, keepdim=True))
    return (r / v) @ means - (r / v).sum(1, keepdim=True) * x


def _score(x, weights, means, variance, constant=None, soft=None):
    """The right answer, in parts that can be put wrong."""
    pull = means - x.unsqueeze(1)
    constant = -x.shape[1] / 2 * variance.log() if constant is None else constant
    r = (weights.log() + constant - pull.square().sum(-1) / (2 * (variance if soft is None else soft))).softmax(1)
    return ((r / variance).unsqueeze(-1) * pull).sum(1)


@answers.mutant("points away from the means")
def mixture_score(x, weights, means, stds, sigma):
    return -_score(x, weights, means, stds**2 + sigma**2)


@answers.mutant("the score of p: no noise")
def mixture_score(x, weights, means, stds, sigma):
    return _score(x, weights, means, stds**2)


@answers.mutant("standard deviations add")
def mixture_score(x, weights, means, stds, sigma):
    return _score(x, weights, means, (stds + sigma) ** 2)


@answers.mutant("σ for σ²")
def mixture_score(x, weights, means, stds, sigma):
    return _score(x, weights, means, stds**2 + sigma)


@answers.mutant("divides by the standard deviation")
def mixture_score(x, weights, means, stds, sigma):
    v = stds**2 + sigma**2
    r = (weights.log() - x.shape[1] / 2 * v.log() - (means - x.unsqueeze(1)).square().sum(-1) / (2 * v)).softmax(1)
    return ((r / v.sqrt()).unsqueeze(-1) * (means - x.unsqueeze(1))).sum(1)


@answers.mutant("the Gaussians without their constants")
def mixture_score(x, weights, means, stds, sigma):
    return _score(x, weights, means, stds**2 + sigma**2, constant=0.0)


@answers.mutant("the constant of one dimension")
def mixture_score(x, weights, means, stds, sigma):
    v = stds**2 + sigma**2
    return _score(x, weights, means, v, constant=-v.log() / 2)


@answers.mutant("no weights")
def mixture_score(x, weights, means, stds, sigma):
    return _score(x, torch.ones_like(weights), means, stds**2 + sigma**2)


@answers.mutant("the weights for the responsibilities")
def mixture_score(x, weights, means, stds, sigma):
    return ((weights / (stds**2 + sigma**2))[:, None] * (means - x.unsqueeze(1))).sum(1)


@answers.mutant("responsibilities of the clean mixture")
def mixture_score(x, weights, means, stds, sigma):
    v = stds**2 + sigma**2
    return _score(x, weights, means, v, constant=-x.shape[1] / 2 * (stds**2).log(), soft=stds**2)


@answers.mutant("densities, not their logarithms: 0/0 far away")
def mixture_score(x, weights, means, stds, sigma):
    v, pull = stds**2 + sigma**2, means - x.unsqueeze(1)
    joint = weights * v ** (-x.shape[1] / 2) * torch.exp(-pull.square().sum(-1) / (2 * v))
    return ((joint / joint.sum(1, keepdim=True) / v).unsqueeze(-1) * pull).sum(1)


@answers.mutant("the nearest mean only")
def mixture_score(x, weights, means, stds, sigma):
    nearest = torch.cdist(x, means).argmin(1)
    return (means[nearest] - x) / (stds**2 + sigma**2)[nearest, None]


# ---------------------------------------------------------------- langevin_chain


@answers.second
def langevin_chain(score, x, step, z):
    end = x.clone()
    for k in range(z.shape[0]):
        end = torch.add(end, score(end), alpha=0.5 * step).add(z[k], alpha=step**0.5)
    return end


def _chain(score, x, step, z, drift=0.5, spread=None):
    for noise in z:
        x = x + drift * step * score(x) + (math.sqrt(step) if spread is None else spread) * noise
    return x


@answers.mutant("missing √ on the noise")
def langevin_chain(score, x, step, z):
    return _chain(score, x, step, z, spread=step)


@answers.mutant("step, not step/2, with the score")
def langevin_chain(score, x, step, z):
    return _chain(score, x, step, z, drift=1.0)


@answers.mutant("two conventions mixed: α/2 and √(2α)")
def langevin_chain(score, x, step, z):
    return _chain(score, x, step, z, spread=math.sqrt(2 * step))


@answers.mutant("downhill")
def langevin_chain(score, x, step, z):
    return _chain(score, x, step, z, drift=-0.5)


@answers.mutant("no noise: gradient ascent")
def langevin_chain(score, x, step, z):
    return _chain(score, x, step, z, spread=0.0)


@answers.mutant("the same noise in every step")
def langevin_chain(score, x, step, z):
    return _chain(score, x, step, z[:1].expand_as(z))


@answers.mutant("the score of the start for all steps")
def langevin_chain(score, x, step, z):
    slope = score(x)
    return _chain(lambda v: slope, x, step, z)


@answers.mutant("noise first, then the score")
def langevin_chain(score, x, step, z):
    for noise in z:
        x = x + math.sqrt(step) * noise
        x = x + step / 2 * score(x)
    return x


@answers.mutant("changes x in place")
def langevin_chain(score, x, step, z):
    for noise in z:
        x += step / 2 * score(x) + math.sqrt(step) * noise
    return x


@answers.mutant("no noise in the last step")
def langevin_chain(score, x, step, z):
    for k, noise in enumerate(z):
        x = x + step / 2 * score(x) + (math.sqrt(step) * noise if k < len(z) - 1 else 0)
    return x


# ---------------------------------------------------------------- replay_step


@answers.second
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = buffer[chosen].detach().clone()
    x[fresh] = noise[fresh]
    for k in range(len(z)):
        leaf = x.clone().requires_grad_(True)
        slope = torch.autograd.grad(energy(leaf), leaf, torch.ones(len(leaf), dtype=leaf.dtype))[0]
        x = x + step * temperature / 2 * (-slope / temperature) + (step * temperature) ** 0.5 * z[k]
        x = x.clip(-extent, extent)
    buffer.data[chosen] = x
    return x


def _start(buffer, chosen, fresh, noise) -> Tensor:
    return torch.where(fresh.view(-1, *[1] * (noise.ndim - 1)), noise, buffer[chosen])


def _run(energy, x, z, step, temperature, extent, spread=None, downhill=1.0, total=torch.sum) -> Tensor:
    spread = math.sqrt(step * temperature) if spread is None else spread
    for kick in z:
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(total(energy(x)), x)
        x = (x.detach() - downhill * step / 2 * slope + spread * kick).clamp(-extent, extent)
    return x.detach()


@answers.mutant("not written back")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    return _run(energy, _start(buffer, chosen, fresh, noise), z, step, temperature, extent)


@answers.mutant("written to the first rows")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, _start(buffer, chosen, fresh, noise), z, step, temperature, extent)
    buffer[: len(x)] = x
    return x


@answers.mutant("fresh chains are not kept")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, _start(buffer, chosen, fresh, noise), z, step, temperature, extent)
    buffer[chosen[~fresh]] = x[~fresh]
    return x


@answers.mutant("no restarts")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, buffer[chosen], z, step, temperature, extent)
    buffer[chosen] = x
    return x


@answers.mutant("the mask upside down: almost all restart")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, _start(buffer, chosen, ~fresh, noise), z, step, temperature, extent)
    buffer[chosen] = x
    return x


@answers.mutant("no temperature")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, _start(buffer, chosen, fresh, noise), z, step, temperature, extent, math.sqrt(step))
    buffer[chosen] = x
    return x


@answers.mutant("the temperature outside of the root")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, _start(buffer, chosen, fresh, noise), z, step, temperature, extent, math.sqrt(step) * temperature)
    buffer[chosen] = x
    return x


@answers.mutant("uphill in energy")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, _start(buffer, chosen, fresh, noise), z, step, temperature, extent, downhill=-1.0)
    buffer[chosen] = x
    return x


@answers.mutant("step, not step/2")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, _start(buffer, chosen, fresh, noise), z, step, temperature, extent, downhill=2.0)
    buffer[chosen] = x
    return x


@answers.mutant("slope of the mean energy: the smaller the more chains")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, _start(buffer, chosen, fresh, noise), z, step, temperature, extent, total=torch.mean)
    buffer[chosen] = x
    return x


@answers.mutant("into the box at the end only")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _run(energy, _start(buffer, chosen, fresh, noise), z, step, temperature, math.inf).clamp(-extent, extent)
    buffer[chosen] = x
    return x


@answers.mutant("backward(): slopes pile up in the network")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _start(buffer, chosen, fresh, noise)
    for kick in z:
        x = x.detach().requires_grad_()
        energy(x).sum().backward()
        x = (x.detach() - step / 2 * x.grad + math.sqrt(step * temperature) * kick).clamp(-extent, extent)
    buffer[chosen] = x.detach()
    return x.detach()


@answers.mutant("missing detach: the ends carry a graph")
def replay_step(energy, buffer, chosen, fresh, noise, z, step, temperature, extent):
    x = _start(buffer, chosen, fresh, noise).requires_grad_()
    for kick in z:
        (slope,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        x = (x - step / 2 * slope + math.sqrt(step * temperature) * kick).clamp(-extent, extent)
    buffer[chosen] = x.detach()
    return x


# ---------------------------------------------------------------- ebm_loss


@answers.second
def ebm_loss(energy, x, fake, weight):
    with torch.no_grad():
        fake = fake.clone()
    e = energy(torch.cat([x, fake]))
    share = torch.cat([e.new_full((len(x),), 1 / len(x)), e.new_full((len(fake),), -1 / len(fake))])
    return share @ e + weight * (share.abs() @ e**2)


@answers.mutant("the other sign: pushes data up")
def ebm_loss(energy, x, fake, weight):
    real, dream = energy(x), energy(fake.detach())
    return dream.mean() - real.mean() + weight * (real.square().mean() + dream.square().mean())


@answers.mutant("missing detach")
def ebm_loss(energy, x, fake, weight):
    real, dream = energy(x), energy(fake)
    return real.mean() - dream.mean() + weight * (real.square().mean() + dream.square().mean())


@answers.mutant("the chains' energy detached instead of the chains")
def ebm_loss(energy, x, fake, weight):
    real, dream = energy(x), energy(fake.detach()).detach()
    return real.mean() - dream.mean() + weight * (real.square().mean() + dream.square().mean())


@answers.mutant("no squared energies")
def ebm_loss(energy, x, fake, weight):
    return energy(x).mean() - energy(fake.detach()).mean()


@answers.mutant("squares of the mean energies")
def ebm_loss(energy, x, fake, weight):
    real, dream = energy(x).mean(), energy(fake.detach()).mean()
    return real - dream + weight * (real.square() + dream.square())


@answers.mutant("squares of the data's energies only")
def ebm_loss(energy, x, fake, weight):
    real, dream = energy(x), energy(fake.detach())
    return real.mean() - dream.mean() + weight * real.square().mean()


@answers.mutant("one mean over all squares: half, and unequal shares")
def ebm_loss(energy, x, fake, weight):
    real, dream = energy(x), energy(fake.detach())
    return real.mean() - dream.mean() + weight * torch.cat([real, dream]).square().mean()


@answers.mutant("squares of a difference")
def ebm_loss(energy, x, fake, weight):
    real, dream = energy(x), energy(fake.detach())
    return real.mean() - dream.mean() + weight * (real.mean() - dream.mean()).square()


@answers.mutant("both phases push down")
def ebm_loss(energy, x, fake, weight):
    real, dream = energy(x), energy(fake.detach())
    return real.mean() + dream.mean() + weight * (real.square().mean() + dream.square().mean())


@answers.mutant("sums")
def ebm_loss(energy, x, fake, weight):
    real, dream = energy(x), energy(fake.detach())
    return real.sum() - dream.sum() + weight * (real.square().sum() + dream.square().sum())
