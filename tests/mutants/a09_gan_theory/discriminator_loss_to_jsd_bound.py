"""Answers for the three losses, fake_weights, optimal_discriminator, jsd_bound."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from tests.mutants.a09_gan_theory.answers import answers

# ---------------------------------------------------------------- discriminator_loss


@answers.second
def discriminator_loss(real, fake):
    on_data = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    return on_data + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))


@answers.mutant("sigmoid twice: the network is thought to end in one")
def discriminator_loss(real, fake):
    return F.softplus(-real.sigmoid()).mean() + F.softplus(fake.sigmoid()).mean()


@answers.mutant("½: the mean over data and fakes together")
def discriminator_loss(real, fake):
    logits, labels = torch.cat([real, fake]), torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    return F.binary_cross_entropy_with_logits(logits, labels)


@answers.mutant("labels exchanged")
def discriminator_loss(real, fake):
    return F.softplus(real).mean() + F.softplus(-fake).mean()


@answers.mutant("maximized: V instead of −V")
def discriminator_loss(real, fake):
    return -F.softplus(-real).mean() - F.softplus(fake).mean()


@answers.mutant("sigmoid, then log: infinite for sure verdicts")
def discriminator_loss(real, fake):
    return -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()


@answers.mutant("clamps the probability: no slope where it is needed most")
def discriminator_loss(real, fake):
    d_real, d_fake = (a.sigmoid().clamp(1e-7, 1 - 1e-7) for a in (real, fake))
    return -d_real.log().mean() - (1 - d_fake).log().mean()


# ---------------------------------------------------------------- saturating_loss


@answers.second
def saturating_loss(fake):
    return F.logsigmoid(-fake).mean()


@answers.mutant("non-saturating instead of saturating")
def saturating_loss(fake):
    return F.softplus(-fake).mean()


@answers.mutant("wrong sign: the generator helps the discriminator")
def saturating_loss(fake):
    return F.softplus(fake).mean()


@answers.mutant("sigmoid twice")
def saturating_loss(fake):
    return -F.softplus(fake.sigmoid()).mean()


@answers.mutant("log of a rounded 1 − σ")
def saturating_loss(fake):
    return (1 - fake.sigmoid()).log().mean()


# ---------------------------------------------------------------- non_saturating_loss


@answers.second
def non_saturating_loss(fake):
    return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


@answers.mutant("saturating instead of non-saturating")
def non_saturating_loss(fake):
    return -F.softplus(fake).mean()


@answers.mutant("label 0 for the fakes: the discriminator's part")
def non_saturating_loss(fake):
    return F.softplus(fake).mean()


@answers.mutant("sigmoid twice")
def non_saturating_loss(fake):
    return F.softplus(-fake.sigmoid()).mean()


@answers.mutant("log of the mean instead of mean of the logs")
def non_saturating_loss(fake):
    return -fake.sigmoid().mean().log()


@answers.mutant("sigmoid, then log")
def non_saturating_loss(fake):
    return -fake.sigmoid().log().mean()


# ---------------------------------------------------------------- fake_weights


@answers.second
def fake_weights(logits):
    return 1 / (1 + (-logits).exp()), 1 / (1 + logits.exp())


@answers.mutant("exchanged")
def fake_weights(logits):
    return (-logits).sigmoid(), logits.sigmoid()


@answers.mutant("1 − σ loses its digits")
def fake_weights(logits):
    return logits.sigmoid(), 1 - logits.sigmoid()


@answers.mutant("slopes, not weights: negative")
def fake_weights(logits):
    return -logits.sigmoid(), -(-logits).sigmoid()


@answers.mutant("σ(1 − σ): forgets to divide by what the log differentiates to")
def fake_weights(logits):
    w = logits.sigmoid() * (-logits).sigmoid()
    return w, w


@answers.mutant("divides by the number of fakes")
def fake_weights(logits):
    return logits.sigmoid() / logits.numel(), (-logits).sigmoid() / logits.numel()


# ---------------------------------------------------------------- optimal_discriminator


@answers.second
def optimal_discriminator(log_p, log_q):
    return torch.exp(log_p - torch.logaddexp(log_p, log_q))


@answers.mutant("q/(p + q)")
def optimal_discriminator(log_p, log_q):
    return (log_q - log_p).sigmoid()


@answers.mutant("exp first: 0/0 in many dimensions")
def optimal_discriminator(log_p, log_q):
    return log_p.exp() / (log_p.exp() + log_q.exp())


@answers.mutant("the logit, not the probability")
def optimal_discriminator(log_p, log_q):
    return log_p - log_q


@answers.mutant("the ratio p/q")
def optimal_discriminator(log_p, log_q):
    return (log_p - log_q).exp()


@answers.mutant("an ε in the denominator")
def optimal_discriminator(log_p, log_q):
    return log_p.exp() / (log_p.exp() + log_q.exp() + 1e-8)


# ---------------------------------------------------------------- jsd_bound


@answers.second
def jsd_bound(d, p, q, dx):
    on_data = torch.where(p > 0, p * torch.where(p > 0, d, 1.0).log(), 0.0)
    on_fakes = torch.where(q > 0, q * torch.log1p(-torch.where(q > 0, d, 0.0)), 0.0)
    return 0.5 * torch.trapezoid(on_data + on_fakes, dx=dx) + math.log(2)


@answers.mutant("forgets the one half")
def jsd_bound(d, p, q, dx):
    return (torch.xlogy(p, d) + torch.xlogy(q, 1 - d)).sum() * dx + math.log(4)


@answers.mutant("log 2 instead of log 4")
def jsd_bound(d, p, q, dx):
    return ((torch.xlogy(p, d) + torch.xlogy(q, 1 - d)).sum() * dx + math.log(2)) / 2


@answers.mutant("0 log 0 = NaN")
def jsd_bound(d, p, q, dx):
    return ((p * d.log() + q * (1 - d).log()).sum() * dx + math.log(4)) / 2


@answers.mutant("clamps D")
def jsd_bound(d, p, q, dx):
    d = d.clamp(1e-4, 1 - 1e-4)
    return ((p * d.log() + q * (1 - d).log()).sum() * dx + math.log(4)) / 2


@answers.mutant("densities summed without dx")
def jsd_bound(d, p, q, dx):
    return ((torch.xlogy(p, d) + torch.xlogy(q, 1 - d)).sum() / p.sum() + math.log(4)) / 2 / dx


@answers.mutant("p and q exchanged")
def jsd_bound(d, p, q, dx):
    return ((torch.xlogy(q, d) + torch.xlogy(p, 1 - d)).sum() * dx + math.log(4)) / 2


@answers.mutant("the exact JSD whatever D says")
def jsd_bound(d, p, q, dx):
    best = torch.where(p + q > 0, p / (p + q), 0.5)
    return ((torch.xlogy(p, best) + torch.xlogy(q, 1 - best)).sum() * dx + math.log(4)) / 2
