"""Answers for mode_seeking, wgan_gp_players, mode_imbalance."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from course_lib.core import Player
from course_lib.maths import adversarial as adv
from tests.mutants.a11_gan_stability.answers import answers

# ---------------------------------------------------------------- mode_seeking


@answers.second
def mode_seeking(x1, x2, z1, z2, eps=1e-5):
    total = 0.0
    for a, b, c, d in zip(x1, x2, z1, z2, strict=True):
        total = total + F.l1_loss(a, b) / F.l1_loss(c, d)
    return 1 / (total / len(x1) + eps)


def _ratio(x1, x2, z1, z2):
    return (x1 - x2).abs().flatten(1).mean(1) / (z1 - z2).abs().mean(1)


@answers.mutant("mean of the inverse ratios")
def mode_seeking(x1, x2, z1, z2, eps=1e-5):
    return (1 / (_ratio(x1, x2, z1, z2) + eps)).mean()


@answers.mutant("ratio upside down: pays for collapse")
def mode_seeking(x1, x2, z1, z2, eps=1e-5):
    return _ratio(x1, x2, z1, z2).mean() + eps


@answers.mutant("minus the ratio, to be minimized")
def mode_seeking(x1, x2, z1, z2, eps=1e-5):
    return -_ratio(x1, x2, z1, z2).mean()


@answers.mutant("sums instead of means of differences")
def mode_seeking(x1, x2, z1, z2, eps=1e-5):
    return 1 / (((x1 - x2).abs().flatten(1).sum(1) / (z1 - z2).abs().sum(1)).mean() + eps)


@answers.mutant("Euclidean distances")
def mode_seeking(x1, x2, z1, z2, eps=1e-5):
    return 1 / (((x1 - x2).flatten(1).norm(dim=1) / (z1 - z2).norm(dim=1)).mean() + eps)


@answers.mutant("ratio of the batch's means, not mean of the ratios")
def mode_seeking(x1, x2, z1, z2, eps=1e-5):
    return 1 / ((x1 - x2).abs().mean() / (z1 - z2).abs().mean() + eps)


@answers.mutant("no ε: infinite for a collapsed generator")
def mode_seeking(x1, x2, z1, z2, eps=1e-5):
    return 1 / _ratio(x1, x2, z1, z2).mean()


# ---------------------------------------------------------------- wgan_gp_players


@answers.second
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    def critic_loss(batch, step):
        with torch.no_grad():
            fake = generator(torch.randn(batch.shape[0], latent))
        share = torch.rand(len(batch), *[1] * (batch.ndim - 1))
        point = (share * batch + (1 - share) * fake).requires_grad_()
        slope = torch.autograd.grad(critic(point).sum(), point, create_graph=True)[0]
        penalty = (slope.flatten(1).norm(dim=1) - 1).pow(2).mean()
        return critic(fake).mean() - critic(batch).mean() + weight * penalty

    def generator_loss(batch, step):
        return -critic(generator(torch.randn(batch.shape[0], latent))).mean()

    settings = {"lr": lr, "betas": (0.0, 0.9)}
    return [
        Player("D", list(critic.parameters()), critic_loss, repeats=repeats, **settings),
        Player("G", list(generator.parameters()), generator_loss, **settings),
    ]


def _parts(generator, critic, latent, weight, points=adv.between, penalty=adv.two_sided):
    """The two losses, with another place or form of the penalty."""

    def critic_loss(batch, step):
        fake = generator(torch.randn(len(batch), latent)).detach()
        norms = adv.gradient_norms(critic, points(batch, fake))
        return adv.wasserstein_critic_loss(critic(batch), critic(fake)) + weight * penalty(norms)

    def generator_loss(batch, step):
        return adv.wasserstein_generator_loss(critic(generator(torch.randn(len(batch), latent))))

    return critic_loss, generator_loss


def _two(generator, critic, losses, lr, repeats, betas=(0.0, 0.9)):
    return [
        Player("critic", critic, losses[0], lr, betas, repeats),
        Player("generator", generator, losses[1], lr, betas),
    ]


@answers.mutant("penalty on real points only")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    losses = _parts(generator, critic, latent, weight, points=lambda x, fake: x)
    return _two(generator, critic, losses, lr, repeats)


@answers.mutant("the slide's penalty")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    losses = _parts(generator, critic, latent, weight, penalty=adv.one_sided)
    return _two(generator, critic, losses, lr, repeats)


@answers.mutant("penalty of the mean norm")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    losses = _parts(generator, critic, latent, weight, penalty=lambda norms: (norms.mean() - 1).square())
    return _two(generator, critic, losses, lr, repeats)


@answers.mutant("one share for the whole batch")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    losses = _parts(
        generator, critic, latent, weight, points=lambda x, fake: torch.lerp(fake, x, float(torch.rand(())))
    )
    return _two(generator, critic, losses, lr, repeats)


@answers.mutant("λ = 10 whatever is asked for")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    return _two(generator, critic, _parts(generator, critic, latent, 10.0), lr, repeats)


@answers.mutant("the generator moves first, and more often")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    losses = _parts(generator, critic, latent, weight)
    return _two(generator, critic, losses, lr, repeats)[::-1]


@answers.mutant("one critic update a step")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    return _two(generator, critic, _parts(generator, critic, latent, weight), lr, 1)


@answers.mutant("Adam's usual momentum")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    return _two(generator, critic, _parts(generator, critic, latent, weight), lr, repeats, (0.9, 0.999))


@answers.mutant("missing detach in the critic's loss")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    def critic_loss(batch, step):
        fake = generator(torch.randn(len(batch), latent))
        norms = adv.gradient_norms(critic, adv.between(batch, fake))
        return adv.wasserstein_critic_loss(critic(batch), critic(fake)) + weight * adv.two_sided(norms)

    generator_loss = _parts(generator, critic, latent, weight)[1]
    return _two(generator, critic, (critic_loss, generator_loss), lr, repeats)


@answers.mutant("the same codes at every call")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    codes = torch.randn(20_000, latent)
    still = lambda z: generator(codes[: len(z)])  # noqa: E731
    return _two(generator, critic, _parts(still, critic, latent, weight), lr, repeats)


@answers.mutant("codes from U[0, 1]")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    uniform = lambda z: generator(torch.rand_like(z))  # noqa: E731
    return _two(generator, critic, _parts(uniform, critic, latent, weight), lr, repeats)


@answers.mutant("the generator's loss has the wrong sign")
def wgan_gp_players(generator, critic, latent, lr=1e-3, weight=10.0, repeats=5):
    critic_loss, generator_loss = _parts(generator, critic, latent, weight)
    return _two(generator, critic, (critic_loss, lambda batch, step: -generator_loss(batch, step)), lr, repeats)


# ---------------------------------------------------------------- mode_imbalance


@answers.second
def mode_imbalance(samples, means, std, radius=3.0):
    counts = [0] * len(means)
    for squares in (samples.unsqueeze(1) - means).square().sum(-1):
        if float(squares.min()) <= (radius * std) ** 2:
            counts[int(squares.argmin())] += 1
    n = sum(counts)
    return sum(c / n * math.log(len(means) * c / n) for c in counts if c) if n else math.nan


def _nearest(samples, means):
    return torch.cdist(samples, means).min(1)


def _kl(shares):
    return float(torch.xlogy(shares, len(shares) * shares).sum())


@answers.mutant("all samples count, good or not")
def mode_imbalance(samples, means, std, radius=3.0):
    counts = _nearest(samples, means)[1].bincount(minlength=len(means)).double()
    return _kl(counts / counts.sum())


@answers.mutant("divides by the number of all samples")
def mode_imbalance(samples, means, std, radius=3.0):
    distance, mode = _nearest(samples, means)
    return _kl(mode[distance <= radius * std].bincount(minlength=len(means)).double() / len(samples))


@answers.mutant("the other way round: KL(uniform ‖ shares)")
def mode_imbalance(samples, means, std, radius=3.0):
    distance, mode = _nearest(samples, means)
    good = distance <= radius * std
    shares = mode[good].bincount(minlength=len(means)).double() / good.sum()
    return -float((len(means) * shares).log().mean())


@answers.mutant("0 log 0 = NaN")
def mode_imbalance(samples, means, std, radius=3.0):
    distance, mode = _nearest(samples, means)
    good = distance <= radius * std
    shares = mode[good].bincount(minlength=len(means)).double() / good.sum()
    return float((shares * (len(means) * shares).log()).sum())


@answers.mutant("bits")
def mode_imbalance(samples, means, std, radius=3.0):
    distance, mode = _nearest(samples, means)
    good = distance <= radius * std
    return _kl(mode[good].bincount(minlength=len(means)).double() / good.sum()) / math.log(2)


@answers.mutant("the entropy")
def mode_imbalance(samples, means, std, radius=3.0):
    distance, mode = _nearest(samples, means)
    good = distance <= radius * std
    shares = mode[good].bincount(minlength=len(means)).double() / good.sum()
    return -float(torch.xlogy(shares, shares).sum())


@answers.mutant("uniform over the modes that were hit")
def mode_imbalance(samples, means, std, radius=3.0):
    distance, mode = _nearest(samples, means)
    counts = mode[distance <= radius * std].bincount().double()
    counts = counts[counts > 0]
    return _kl(counts / counts.sum())


@answers.mutant("radius not in standard deviations")
def mode_imbalance(samples, means, std, radius=3.0):
    distance, mode = _nearest(samples, means)
    good = distance <= radius
    return _kl(mode[good].bincount(minlength=len(means)).double() / good.sum())


@answers.mutant("0 where no sample is good")
def mode_imbalance(samples, means, std, radius=3.0):
    distance, mode = _nearest(samples, means)
    good = distance <= radius * std
    return _kl(mode[good].bincount(minlength=len(means)).double() / good.sum().clamp(min=1))
