"""Answers for r1_penalty, training_step, dirac_step, covered_modes."""

from __future__ import annotations

import torch
from torch import nn

from course_lib.maths import adversarial as adv
from tests.mutants.a09_gan_theory.answers import answers

# ---------------------------------------------------------------- r1_penalty


@answers.second
def r1_penalty(discriminator, x):
    copy = x.clone().detach().requires_grad_(True)
    slopes = torch.autograd.grad([*discriminator(copy)], copy, create_graph=True)[0]
    return slopes.pow(2).sum() / (2 * x.shape[0])


def _slopes(discriminator, x, create_graph=True):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(discriminator(x).sum(), x, create_graph=create_graph)[0].flatten(1)


@answers.mutant("no one half")
def r1_penalty(discriminator, x):
    return _slopes(discriminator, x).square().sum(1).mean()


@answers.mutant("mean over the pixels")
def r1_penalty(discriminator, x):
    return 0.5 * _slopes(discriminator, x).square().mean()


@answers.mutant("the norm, not its square")
def r1_penalty(discriminator, x):
    return 0.5 * _slopes(discriminator, x).norm(dim=1).mean()


@answers.mutant("slope 1 is the target: WGAN-GP's penalty")
def r1_penalty(discriminator, x):
    return 0.5 * (_slopes(discriminator, x).norm(dim=1) - 1).square().mean()


@answers.mutant("no create_graph: a constant for the parameters")
def r1_penalty(discriminator, x):
    return 0.5 * _slopes(discriminator, x, create_graph=False).square().sum(1).mean()


@answers.mutant("slopes of the mean logit: divided by b twice more")
def r1_penalty(discriminator, x):
    return 0.5 * (_slopes(discriminator, x) / len(x)).square().sum(1).mean()


@answers.mutant("makes the caller's x require a gradient")
def r1_penalty(discriminator, x):
    x.requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return 0.5 * slope.square().flatten(1).sum(1).mean()


# ---------------------------------------------------------------- training_step


@answers.second
def training_step(generator, discriminator, g_optimizer, d_optimizer, x, z, gamma=0.0):
    with torch.no_grad():
        fake = generator(z)
    loss_d = adv.cross_entropy_discriminator_loss(discriminator(x), discriminator(fake))
    loss_d = loss_d + gamma * adv.r1_penalty(discriminator, x)
    _apply(d_optimizer, discriminator, loss_d)
    loss_g = adv.non_saturating_generator_loss(discriminator(generator(z)))
    _apply(g_optimizer, generator, loss_g)
    return float(loss_d.detach()), float(loss_g.detach())


def _apply(optimizer, module: nn.Module, loss):
    """One update by the gradient of ``loss`` in the module's own parameters."""
    own = list(module.parameters())
    for parameter, slope in zip(own, torch.autograd.grad(loss, own), strict=True):
        parameter.grad = slope
    optimizer.step()


def _loss_d(discriminator, x, fake, gamma):
    loss = adv.cross_entropy_discriminator_loss(discriminator(x), discriminator(fake))
    return loss + gamma * adv.r1_penalty(discriminator, x)


def _update(optimizer, loss):
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    optimizer.step()


@answers.mutant("missing detach, gradients zeroed once: the generator also helps the discriminator")
def training_step(generator, discriminator, g_optimizer, d_optimizer, x, z, gamma=0.0):
    g_optimizer.zero_grad()
    d_optimizer.zero_grad()
    loss_d = _loss_d(discriminator, x, generator(z), gamma)
    loss_d.backward()
    d_optimizer.step()
    loss_g = adv.non_saturating_generator_loss(discriminator(generator(z)))
    loss_g.backward()
    g_optimizer.step()
    return loss_d.item(), loss_g.item()


@answers.mutant("missing detach, zeroed afterwards: right numbers, a wasted backward pass")
def training_step(generator, discriminator, g_optimizer, d_optimizer, x, z, gamma=0.0):
    loss_d = _loss_d(discriminator, x, generator(z), gamma)
    _update(d_optimizer, loss_d)
    loss_g = adv.non_saturating_generator_loss(discriminator(generator(z)))
    _update(g_optimizer, loss_g)
    return loss_d.item(), loss_g.item()


@answers.mutant("saturating instead of non-saturating")
def training_step(generator, discriminator, g_optimizer, d_optimizer, x, z, gamma=0.0):
    fake = generator(z)
    loss_d = _loss_d(discriminator, x, fake.detach(), gamma)
    _update(d_optimizer, loss_d)
    loss_g = adv.saturating_generator_loss(discriminator(fake))
    _update(g_optimizer, loss_g)
    return loss_d.item(), loss_g.item()


@answers.mutant("simultaneous: the generator is judged by the old discriminator")
def training_step(generator, discriminator, g_optimizer, d_optimizer, x, z, gamma=0.0):
    fake = generator(z)
    loss_d = _loss_d(discriminator, x, fake.detach(), gamma)
    loss_g = adv.non_saturating_generator_loss(discriminator(fake))
    g_slopes = torch.autograd.grad(loss_g, list(generator.parameters()))
    _update(d_optimizer, loss_d)
    for parameter, slope in zip(generator.parameters(), g_slopes, strict=True):
        parameter.grad = slope
    g_optimizer.step()
    return loss_d.item(), loss_g.item()


@answers.mutant("the generator's turn moves the discriminator, too")
def training_step(generator, discriminator, g_optimizer, d_optimizer, x, z, gamma=0.0):
    fake = generator(z)
    loss_d = _loss_d(discriminator, x, fake.detach(), gamma)
    _update(d_optimizer, loss_d)
    loss_g = adv.non_saturating_generator_loss(discriminator(fake))
    d_optimizer.zero_grad()
    _update(g_optimizer, loss_g)
    d_optimizer.step()
    return loss_d.item(), loss_g.item()


@answers.mutant("no zero_grad")
def training_step(generator, discriminator, g_optimizer, d_optimizer, x, z, gamma=0.0):
    fake = generator(z)
    loss_d = _loss_d(discriminator, x, fake.detach(), gamma)
    loss_d.backward()
    d_optimizer.step()
    loss_g = adv.non_saturating_generator_loss(discriminator(fake))
    loss_g.backward()
    g_optimizer.step()
    return loss_d.item(), loss_g.item()


@answers.mutant("sigmoid twice")
def training_step(generator, discriminator, g_optimizer, d_optimizer, x, z, gamma=0.0):
    fake = generator(z)
    loss_d = _loss_d(lambda v: discriminator(v).sigmoid(), x, fake.detach(), gamma)
    _update(d_optimizer, loss_d)
    loss_g = adv.non_saturating_generator_loss(discriminator(fake).sigmoid())
    _update(g_optimizer, loss_g)
    return loss_d.item(), loss_g.item()


@answers.mutant("R1 on the fakes")
def training_step(generator, discriminator, g_optimizer, d_optimizer, x, z, gamma=0.0):
    fake = generator(z)
    loss_d = adv.cross_entropy_discriminator_loss(discriminator(x), discriminator(fake.detach()))
    loss_d = loss_d + gamma * adv.r1_penalty(discriminator, fake)
    _update(d_optimizer, loss_d)
    loss_g = adv.non_saturating_generator_loss(discriminator(fake))
    _update(g_optimizer, loss_g)
    return loss_d.item(), loss_g.item()


# ---------------------------------------------------------------- dirac_step


@answers.second
def dirac_step(theta, psi, lr, gamma=0.0):
    e = torch.exp(theta * psi)
    return theta + lr * psi / (1 + e), psi * (1 - lr * gamma) - lr * theta * e / (1 + e)


@answers.mutant("alternating instead of simultaneous")
def dirac_step(theta, psi, lr, gamma=0.0):
    psi = psi - lr * ((theta * psi).sigmoid() * theta + gamma * psi)
    return theta + lr * (-theta * psi).sigmoid() * psi, psi


@answers.mutant("saturating instead of non-saturating")
def dirac_step(theta, psi, lr, gamma=0.0):
    w = (theta * psi).sigmoid()
    return theta + lr * w * psi, psi - lr * (w * theta + gamma * psi)


@answers.mutant("the penalty's slope is γψ/2")
def dirac_step(theta, psi, lr, gamma=0.0):
    a = theta * psi
    return theta + lr * (-a).sigmoid() * psi, psi - lr * (a.sigmoid() * theta + gamma / 2 * psi)


@answers.mutant("the penalty pushes away")
def dirac_step(theta, psi, lr, gamma=0.0):
    a = theta * psi
    return theta + lr * (-a).sigmoid() * psi, psi - lr * (a.sigmoid() * theta - gamma * psi)


@answers.mutant("the discriminator ascends its loss")
def dirac_step(theta, psi, lr, gamma=0.0):
    a = theta * psi
    return theta + lr * (-a).sigmoid() * psi, psi + lr * (a.sigmoid() * theta + gamma * psi)


@answers.mutant("linearized: ½ for every σ")
def dirac_step(theta, psi, lr, gamma=0.0):
    return theta + lr * psi / 2, psi - lr * (theta / 2 + gamma * psi)


# ---------------------------------------------------------------- covered_modes


@answers.second
def covered_modes(samples, means, std, radius=3.0, at_least=20):
    counts, good = [0] * len(means), 0
    for squares in (samples.unsqueeze(1) - means).square().sum(-1):
        nearest = int(squares.argmin())
        if float(squares[nearest]) ** 0.5 <= radius * std:
            counts[nearest] += 1
            good += 1
    return sum(c >= at_least for c in counts), good / len(samples)


def _nearest(samples, means):
    return torch.cdist(samples, means).min(1)


@answers.mutant("counts all samples nearest to a mode, good or not")
def covered_modes(samples, means, std, radius=3.0, at_least=20):
    distance, mode = _nearest(samples, means)
    counts = mode.bincount(minlength=len(means))
    return int((counts >= at_least).sum()), float((distance <= radius * std).float().mean())


@answers.mutant("radius not in standard deviations")
def covered_modes(samples, means, std, radius=3.0, at_least=20):
    distance, mode = _nearest(samples, means)
    good = distance <= radius
    counts = mode[good].bincount(minlength=len(means))
    return int((counts >= at_least).sum()), float(good.float().mean())


@answers.mutant("one sample covers a mode")
def covered_modes(samples, means, std, radius=3.0, at_least=20):
    distance, mode = _nearest(samples, means)
    good = distance <= radius * std
    return len(mode[good].unique()), float(good.float().mean())


@answers.mutant("a sample counts for every mode within reach")
def covered_modes(samples, means, std, radius=3.0, at_least=20):
    within = torch.cdist(samples, means) <= radius * std
    return int((within.sum(0) >= at_least).sum()), float(within.any(1).float().mean())


@answers.mutant("more than at_least")
def covered_modes(samples, means, std, radius=3.0, at_least=20):
    distance, mode = _nearest(samples, means)
    good = distance <= radius * std
    counts = mode[good].bincount(minlength=len(means))
    return int((counts > at_least).sum()), float(good.float().mean())


@answers.mutant("the share of modes, and counts of samples")
def covered_modes(samples, means, std, radius=3.0, at_least=20):
    distance, mode = _nearest(samples, means)
    good = distance <= radius * std
    counts = mode[good].bincount(minlength=len(means))
    return float((counts >= at_least).float().mean()), int(good.sum())
