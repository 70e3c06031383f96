"""Answers for dual_value, the three losses of the discriminator, slope_norms, penalties."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.mutants.a11_gan_stability.answers import answers

# ---------------------------------------------------------------- dual_value


@answers.second
def dual_value(d, p, q, psi):
    total = (psi * q).sum()
    for row, mass in zip(d, p, strict=True):
        total = total - mass * torch.amax(psi - row, 0)
    return total


@answers.mutant("the largest instead of the smallest: infeasible, above W₁")
def dual_value(d, p, q, psi):
    return (d - psi).max(1).values @ p + psi @ q


@answers.mutant("+ψ in the minimum")
def dual_value(d, p, q, psi):
    return (d + psi).min(1).values @ p + psi @ q


@answers.mutant("forgets Σ ψ q")
def dual_value(d, p, q, psi):
    return (d - psi).min(1).values @ p


@answers.mutant("E_p f − E_q f with −ψ for f on the fakes' side")
def dual_value(d, p, q, psi):
    return (d - psi).min(1).values @ p - psi @ q


@answers.mutant("all heaps count the same")
def dual_value(d, p, q, psi):
    return (d - psi).min(1).values.mean() + psi.mean()


@answers.mutant("φ counts as a constant: half of the slope in ψ")
def dual_value(d, p, q, psi):
    return (d - psi.detach()).min(1).values @ p + psi @ q


@answers.mutant("squared costs: W₂²")
def dual_value(d, p, q, psi):
    return (d.square() - psi).min(1).values @ p + psi @ q


# ---------------------------------------------------------------- hinge_loss


@answers.second
def hinge_loss(real, fake):
    return torch.clamp(1 - real, min=0).sum() / real.numel() - torch.clamp(-1 - fake, max=0).sum() / fake.numel()


@answers.mutant("labels exchanged")
def hinge_loss(real, fake):
    return F.relu(1 + real).mean() + F.relu(1 - fake).mean()


@answers.mutant("hinge of the mean: one good fake excuses a bad one")
def hinge_loss(real, fake):
    return F.relu(1 - real.mean()) + F.relu(1 + fake.mean())


@answers.mutant("no margin: the perceptron's loss")
def hinge_loss(real, fake):
    return F.relu(-real).mean() + F.relu(fake).mean()


@answers.mutant("a smooth hinge: softplus never stops")
def hinge_loss(real, fake):
    return F.softplus(1 - real).mean() + F.softplus(1 + fake).mean()


@answers.mutant("½: the mean over data and fakes together")
def hinge_loss(real, fake):
    return torch.cat([F.relu(1 - real).flatten(), F.relu(1 + fake).flatten()]).mean()


@answers.mutant("a sigmoid first, as for logits")
def hinge_loss(real, fake):
    return F.relu(1 - real.sigmoid()).mean() + F.relu(1 + fake.sigmoid()).mean()


# ---------------------------------------------------------------- least_squares_losses


@answers.second
def least_squares_losses(real, fake, a=0.0, b=1.0, c=1.0):
    to = lambda v, target: F.mse_loss(v, torch.full_like(v, target)) / 2  # noqa: E731
    return to(real, b) + to(fake, a), to(fake, c)


@answers.mutant("no one half")
def least_squares_losses(real, fake, a=0.0, b=1.0, c=1.0):
    return (real - b).square().mean() + (fake - a).square().mean(), (fake - c).square().mean()


@answers.mutant("one half for the discriminator only")
def least_squares_losses(real, fake, a=0.0, b=1.0, c=1.0):
    return ((real - b).square().mean() + (fake - a).square().mean()) / 2, (fake - c).square().mean()


@answers.mutant("targets of data and fakes exchanged")
def least_squares_losses(real, fake, a=0.0, b=1.0, c=1.0):
    return ((real - a).square().mean() + (fake - b).square().mean()) / 2, (fake - c).square().mean() / 2


@answers.mutant("sigmoid first: no pull back on a fake that is too convincing")
def least_squares_losses(real, fake, a=0.0, b=1.0, c=1.0):
    real, fake = real.sigmoid(), fake.sigmoid()
    return ((real - b).square().mean() + (fake - a).square().mean()) / 2, (fake - c).square().mean() / 2


@answers.mutant("the generator aims at b, whatever c is")
def least_squares_losses(real, fake, a=0.0, b=1.0, c=1.0):
    return ((real - b).square().mean() + (fake - a).square().mean()) / 2, (fake - b).square().mean() / 2


@answers.mutant("targets fixed at 0, 1, 1")
def least_squares_losses(real, fake, a=0.0, b=1.0, c=1.0):
    return ((real - 1).square().mean() + fake.square().mean()) / 2, (fake - 1).square().mean() / 2


@answers.mutant("the other LSGAN: a hinge on the difference of the losses")
def least_squares_losses(real, fake, a=0.0, b=1.0, c=1.0):
    n = min(real.numel(), fake.numel())
    real, fake = real.flatten()[:n], fake.flatten()[:n]
    return real.mean() + F.relu((b - a) + real - fake).mean(), fake.mean()


@answers.mutant("the square of the mean")
def least_squares_losses(real, fake, a=0.0, b=1.0, c=1.0):
    return ((real.mean() - b).square() + (fake.mean() - a).square()) / 2, (fake.mean() - c).square() / 2


# ---------------------------------------------------------------- energy_loss


@answers.second
def energy_loss(auto, x, fake, margin):
    with torch.no_grad():
        still = fake * 1
    of_data = torch.stack([F.mse_loss(auto(v[None]), v[None]) for v in x])
    of_fakes = torch.stack([F.mse_loss(auto(v[None]), v[None]) for v in still])
    return of_data.mean() + torch.clamp(margin - of_fakes, min=0).mean()


def _energy(auto, v):
    return (auto(v) - v).square().flatten(1).mean(1)


@answers.mutant("missing detach: the generator is pushed up the energy")
def energy_loss(auto, x, fake, margin):
    return _energy(auto, x).mean() + F.relu(margin - _energy(auto, fake)).mean()


@answers.mutant("hinge of the mean energy")
def energy_loss(auto, x, fake, margin):
    return _energy(auto, x).mean() + F.relu(margin - _energy(auto, fake.detach()).mean())


@answers.mutant("sum over the numbers of an example")
def energy_loss(auto, x, fake, margin):
    d = x[0].numel()
    return d * _energy(auto, x).mean() + F.relu(margin - d * _energy(auto, fake.detach())).mean()


@answers.mutant("the root of the error: an RMSE")
def energy_loss(auto, x, fake, margin):
    root = lambda v: (_energy(auto, v) + 1e-12).sqrt()  # noqa: E731
    return root(x).mean() + F.relu(margin - root(fake.detach())).mean()


@answers.mutant("hinge turned round: punishes fakes above the margin")
def energy_loss(auto, x, fake, margin):
    return _energy(auto, x).mean() + F.relu(_energy(auto, fake.detach()) - margin).mean()


@answers.mutant("no hinge: pushes fakes up for ever")
def energy_loss(auto, x, fake, margin):
    return _energy(auto, x).mean() + margin - _energy(auto, fake.detach()).mean()


@answers.mutant("hinge on the data instead of the fakes")
def energy_loss(auto, x, fake, margin):
    return F.relu(margin - _energy(auto, x)).mean() + _energy(auto, fake.detach()).mean()


@answers.mutant("margin 1, whatever is asked for")
def energy_loss(auto, x, fake, margin):
    return _energy(auto, x).mean() + F.relu(1 - _energy(auto, fake.detach())).mean()


# ---------------------------------------------------------------- slope_norms


@answers.second
def slope_norms(critic, x, fake, share):
    found = []
    for u, v, e in zip(x.detach(), fake.detach(), share, strict=True):
        point = torch.lerp(v, u, e).unsqueeze(0).requires_grad_(True)
        slope = torch.autograd.grad(critic(point), point, torch.ones_like(share[:1]), create_graph=True)[0]
        found.append(torch.linalg.vector_norm(slope))
    return torch.stack(found)


def _between(x, fake, share):
    share = share.view(-1, *[1] * (x.ndim - 1))
    return (share * x + (1 - share) * fake).detach().requires_grad_()


def _slopes(critic, points, create_graph=True):
    return torch.autograd.grad(critic(points).sum(), points, create_graph=create_graph)[0].flatten(1)


@answers.mutant("penalty on real points only")
def slope_norms(critic, x, fake, share):
    return _slopes(critic, x.detach().clone().requires_grad_()).norm(dim=1)


@answers.mutant("on fakes only")
def slope_norms(critic, x, fake, share):
    return _slopes(critic, fake.detach().clone().requires_grad_()).norm(dim=1)


@answers.mutant("mean instead of per-sample norm: one norm for the batch, shared out")
def slope_norms(critic, x, fake, share):
    slopes = _slopes(critic, _between(x, fake, share))
    return (slopes.norm() / len(x) ** 0.5).expand(len(x))


@answers.mutant("slope of the mean output: every norm divided by b")
def slope_norms(critic, x, fake, share):
    points = _between(x, fake, share)
    (slope,) = torch.autograd.grad(critic(points).mean(), points, create_graph=True)
    return slope.flatten(1).norm(dim=1)


@answers.mutant("root mean square over the pixels instead of the norm")
def slope_norms(critic, x, fake, share):
    slopes = _slopes(critic, _between(x, fake, share))
    return slopes.norm(dim=1) / slopes.shape[1] ** 0.5


@answers.mutant("no create_graph: a constant for the parameters")
def slope_norms(critic, x, fake, share):
    return _slopes(critic, _between(x, fake, share), create_graph=False).norm(dim=1)


@answers.mutant("a share for each column of the picture (broadcasting from the right)")
def slope_norms(critic, x, fake, share):
    share = share.view(-1, 1) if x.ndim == 2 else share
    points = (share * x + (1 - share) * fake).detach().requires_grad_()
    return _slopes(critic, points).norm(dim=1)


@answers.mutant("shares exchanged")
def slope_norms(critic, x, fake, share):
    return _slopes(critic, _between(fake, x, share)).norm(dim=1)


@answers.mutant("missing detach: the penalty moves the generator")
def slope_norms(critic, x, fake, share):
    share = share.view(-1, *[1] * (x.ndim - 1))
    points = share * x + (1 - share) * fake
    points = points if points.requires_grad else points.requires_grad_()
    return _slopes(critic, points).norm(dim=1)


@answers.mutant("a bare square root: NaN where the critic is flat")
def slope_norms(critic, x, fake, share):
    return _slopes(critic, _between(x, fake, share)).square().sum(1).sqrt()


@answers.mutant("the squared norm")
def slope_norms(critic, x, fake, share):
    return _slopes(critic, _between(x, fake, share)).square().sum(1)


# ---------------------------------------------------------------- penalties


@answers.second
def penalties(norms, weight=10.0):
    paper = nn.functional.mse_loss(norms, torch.ones_like(norms))
    return paper * weight, (norms.clamp(min=1).mean() - 1) * weight


@answers.mutant("the slide's squared")
def penalties(norms, weight=10.0):
    return weight * (norms - 1).square().mean(), weight * F.relu(norms - 1).square().mean()


@answers.mutant("the paper's not squared")
def penalties(norms, weight=10.0):
    return weight * (norms - 1).abs().mean(), weight * F.relu(norms - 1).mean()


@answers.mutant("both one-sided")
def penalties(norms, weight=10.0):
    return weight * F.relu(norms - 1).square().mean(), weight * F.relu(norms - 1).mean()


@answers.mutant("distance of the mean norm from 1")
def penalties(norms, weight=10.0):
    return weight * (norms.mean() - 1).square(), weight * F.relu(norms.mean() - 1)


@answers.mutant("no λ on the slide's")
def penalties(norms, weight=10.0):
    return weight * (norms - 1).square().mean(), F.relu(norms - 1).mean()


@answers.mutant("target 0: R₁'s")
def penalties(norms, weight=10.0):
    return weight * norms.square().mean(), weight * F.relu(norms).mean()


@answers.mutant("order exchanged")
def penalties(norms, weight=10.0):
    return weight * F.relu(norms - 1).mean(), weight * (norms - 1).square().mean()


@answers.mutant("punishes flat places instead of steep ones")
def penalties(norms, weight=10.0):
    return weight * (norms - 1).square().mean(), weight * F.relu(1 - norms).mean()
