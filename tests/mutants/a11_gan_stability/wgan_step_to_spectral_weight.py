"""Answers for wgan_step, spectral_weight."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from course_lib.maths import adversarial as adv
from tests.mutants.a11_gan_stability.answers import answers

# ---------------------------------------------------------------- wgan_step


def _update(optimizer, loss) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _critic_loss(generator, critic, x, code):
    return critic(generator(code).detach()).mean() - critic(x).mean()


@torch.no_grad()
def _clip(module, bound):
    for w in module.parameters():
        w.clamp_(-bound, bound)


@answers.second
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    values = []
    for k in range(len(batches)):
        with torch.no_grad():
            fake = generator(z[k])
        loss = adv.wasserstein_critic_loss(critic(batches[k]), critic(fake))
        _apply(c_optimizer, critic, loss)
        for w in critic.parameters():
            w.data = torch.minimum(torch.full_like(w, clip), torch.maximum(torch.full_like(w, -clip), w.data))
        values.append(loss.item())
    loss = adv.wasserstein_generator_loss(critic(generator(z[-1])))
    _apply(g_optimizer, generator, loss)
    return sum(values) / len(values), float(loss.detach())


def _apply(optimizer, module: nn.Module, loss):
    """One update by the gradient of ``loss`` in the module's own parameters."""
    own = list(module.parameters())
    for parameter, slope in zip(own, torch.autograd.grad(loss, own), strict=True):
        parameter.grad = slope
    optimizer.step()


@answers.mutant("missing detach: right numbers, and a wasted backward pass through the generator")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        total += _update(c_optimizer, critic(generator(code)).mean() - critic(x).mean())
        _clip(critic, clip)
    return total / len(batches), _update(g_optimizer, -critic(generator(z[-1])).mean())


@answers.mutant("missing detach, the generator's gradients never zeroed: it also helps the critic")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    g_optimizer.zero_grad()
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        total += _update(c_optimizer, critic(generator(code)).mean() - critic(x).mean())
        _clip(critic, clip)
    loss = -critic(generator(z[-1])).mean()
    loss.backward()
    g_optimizer.step()
    return total / len(batches), loss.item()


@answers.mutant("clips the gradients instead of the weights")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        loss = _critic_loss(generator, critic, x, code)
        c_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(critic.parameters(), clip)
        c_optimizer.step()
        total += loss.item()
    return total / len(batches), _update(g_optimizer, -critic(generator(z[-1])).mean())


@answers.mutant("clips before the step: the critic ends outside")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        _clip(critic, clip)
        total += _update(c_optimizer, _critic_loss(generator, critic, x, code))
    return total / len(batches), _update(g_optimizer, -critic(generator(z[-1])).mean())


@answers.mutant("clips once, after all k steps")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        total += _update(c_optimizer, _critic_loss(generator, critic, x, code))
    _clip(critic, clip)
    return total / len(batches), _update(g_optimizer, -critic(generator(z[-1])).mean())


@answers.mutant("leaves the biases out")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        total += _update(c_optimizer, _critic_loss(generator, critic, x, code))
        with torch.no_grad():
            for w in critic.parameters():
                if w.ndim > 1:
                    w.clamp_(-clip, clip)
    return total / len(batches), _update(g_optimizer, -critic(generator(z[-1])).mean())


@answers.mutant("only from above: clamp(max=c)")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        total += _update(c_optimizer, _critic_loss(generator, critic, x, code))
        with torch.no_grad():
            for w in critic.parameters():
                w.clamp_(max=clip)
    return total / len(batches), _update(g_optimizer, -critic(generator(z[-1])).mean())


@answers.mutant("clips the generator, too")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        total += _update(c_optimizer, _critic_loss(generator, critic, x, code))
        _clip(critic, clip)
    loss = _update(g_optimizer, -critic(generator(z[-1])).mean())
    _clip(generator, clip)
    return total / len(batches), loss


@answers.mutant("the critic descends the gap")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        total += _update(c_optimizer, -_critic_loss(generator, critic, x, code))
        _clip(critic, clip)
    return total / len(batches), _update(g_optimizer, -critic(generator(z[-1])).mean())


@answers.mutant("the generator descends its score")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        total += _update(c_optimizer, _critic_loss(generator, critic, x, code))
        _clip(critic, clip)
    return total / len(batches), _update(g_optimizer, critic(generator(z[-1])).mean())


@answers.mutant("a generator step after each critic step")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total, value = 0.0, 0.0
    for i, x in enumerate(batches):
        total += _update(c_optimizer, _critic_loss(generator, critic, x, z[i]))
        _clip(critic, clip)
        value = _update(g_optimizer, -critic(generator(z[i + 1])).mean())
    return total / len(batches), value


@answers.mutant("no zero_grad")
def wgan_step(generator, critic, g_optimizer, c_optimizer, batches, z, clip=0.01):
    total = 0.0
    for x, code in zip(batches, z[:-1], strict=True):
        loss = _critic_loss(generator, critic, x, code)
        loss.backward()
        c_optimizer.step()
        _clip(critic, clip)
        total += loss.item()
    loss = -critic(generator(z[-1])).mean()
    loss.backward()
    g_optimizer.step()
    return total / len(batches), loss.item()


# ---------------------------------------------------------------- spectral_weight


@answers.second
def spectral_weight(weight, u):
    matrix = weight.reshape(len(weight), -1)
    still = matrix.detach()
    v = still.mT @ u
    v = v / v.norm()
    stretched = still @ v
    u[:] = stretched / stretched.norm()
    return weight / (torch.outer(u.clone(), v) * matrix).sum()


def _iterate(matrix, u):
    v = F.normalize(matrix.mT @ u, dim=0)
    return F.normalize(matrix @ v, dim=0), v


@answers.mutant("u is not kept: the same rough estimate for ever")
def spectral_weight(weight, u):
    matrix = weight.flatten(1)
    with torch.no_grad():
        u, v = _iterate(matrix, u)
    return weight / (u @ matrix @ v)


@answers.mutant("starts from a random u each time")
def spectral_weight(weight, u):
    matrix = weight.flatten(1)
    with torch.no_grad():
        new, v = _iterate(matrix, torch.randn_like(u))
        u.copy_(new)
    return weight / (new @ matrix @ v)


@answers.mutant("missing detach: gradient through the power iteration")
def spectral_weight(weight, u):
    matrix = weight.flatten(1)
    new, v = _iterate(matrix, u.clone())
    sigma = new @ matrix @ v
    u.copy_(new.detach())
    return weight / sigma


@answers.mutant("σ is detached")
def spectral_weight(weight, u):
    matrix = weight.detach().flatten(1)
    new, v = _iterate(matrix, u)
    u.copy_(new)
    return weight / (new @ matrix @ v)


@answers.mutant("the graph holds the kept u, which the next call overwrites")
def spectral_weight(weight, u):
    matrix = weight.flatten(1)
    with torch.no_grad():
        new, v = _iterate(matrix, u)
        u.copy_(new)
    return weight / (u @ (matrix @ v))


@answers.mutant("Frobenius norm")
def spectral_weight(weight, u):
    matrix = weight.flatten(1)
    with torch.no_grad():
        u.copy_(_iterate(matrix, u)[0])
    return weight / matrix.norm()


@answers.mutant("a kernel is normalized as (out·in·k, k)")
def spectral_weight(weight, u):
    if weight.ndim == 2:
        matrix = weight
        with torch.no_grad():
            new, v = _iterate(matrix, u)
            u.copy_(new)
        return weight / (new @ matrix @ v)
    return weight / torch.linalg.svdvals(weight.flatten(0, -2))[0]


@answers.mutant("fifteen iterations a call")
def spectral_weight(weight, u):
    matrix = weight.flatten(1)
    with torch.no_grad():
        new = u
        for _ in range(15):
            new, v = _iterate(matrix, new)
        u.copy_(new)
    return weight / (new @ matrix @ v)


@answers.mutant("σ with the old u")
def spectral_weight(weight, u):
    matrix = weight.flatten(1)
    old = u.clone()
    with torch.no_grad():
        new, v = _iterate(matrix, u)
        u.copy_(new)
    return weight / (old @ matrix @ v)


@answers.mutant("normalizes the weight itself, in place")
def spectral_weight(weight, u):
    with torch.no_grad():
        new, v = _iterate(weight.flatten(1), u)
        u.copy_(new)
        weight /= new @ weight.flatten(1) @ v
    return weight


@answers.mutant("u without its length one")
def spectral_weight(weight, u):
    matrix = weight.flatten(1)
    with torch.no_grad():
        v = F.normalize(matrix.mT @ u, dim=0)
        new = matrix @ v
        u.copy_(new)
    return weight / (new @ matrix @ v)
