"""Answers for annealed_chain, score_player, weight_error."""

from __future__ import annotations

import math

import torch

from course_lib.core import Player
from course_lib.maths.langevin import geometric_ladder
from tests.mutants.a18_score.answers import answers

# ---------------------------------------------------------------- annealed_chain


@answers.second
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = torch.logspace(math.log10(largest), math.log10(smallest), len(z), dtype=torch.float64).tolist()
    for sigma, kicks in zip(ladder, z, strict=True):
        for k in range(kicks.shape[0]):
            move = math.sqrt(step) * sigma / smallest  # √α
            x = x + move * (move / 2 * score(x, sigma) + kicks[k])
    return x


def _anneal(score, x, ladder, alphas, z, spread=math.sqrt):
    for sigma, alpha, kicks in zip(ladder, alphas, z, strict=True):
        for kick in kicks:
            x = x + alpha / 2 * score(x, sigma) + spread(alpha) * kick
    return x


def _alphas(ladder, smallest, step):
    return [step * (sigma / smallest) ** 2 for sigma in ladder]


@answers.mutant("levels in rising order")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))[::-1]
    return _anneal(score, x, ladder, _alphas(ladder, smallest, step), z)


@answers.mutant("evenly spaced levels")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = torch.linspace(largest, smallest, len(z)).tolist()
    return _anneal(score, x, ladder, _alphas(ladder, smallest, step), z)


@answers.mutant("the ladder stops one rung early: i/L")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = [largest * (smallest / largest) ** (i / len(z)) for i in range(len(z))]
    return _anneal(score, x, ladder, _alphas(ladder, smallest, step), z)


@answers.mutant("α ∝ σ")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    return _anneal(score, x, ladder, [step * sigma / smallest for sigma in ladder], z)


@answers.mutant("the same step at every level")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    return _anneal(score, x, ladder, [step] * len(z), z)


@answers.mutant("steps relative to the coarsest level")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    return _anneal(score, x, ladder, _alphas(ladder, largest, step), z)


@answers.mutant("α = ε σ², not divided")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    return _anneal(score, x, ladder, _alphas(ladder, 1.0, step), z)


@answers.mutant("the finest level's score throughout")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    return _anneal(lambda v, sigma: score(v, smallest), x, ladder, _alphas(ladder, smallest, step), z)


@answers.mutant("each level starts at x again")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    for sigma, kicks in zip(ladder, z, strict=True):
        end = _anneal(score, x, [sigma], _alphas([sigma], smallest, step), [kicks])
    return end


@answers.mutant("missing √ on the noise")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    return _anneal(score, x, ladder, _alphas(ladder, smallest, step), z, spread=float)


@answers.mutant("α, not α/2, with the score")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    return _anneal(lambda v, sigma: 2 * score(v, sigma), x, ladder, _alphas(ladder, smallest, step), z)


@answers.mutant("one step a level")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    return _anneal(score, x, ladder, _alphas(ladder, smallest, step), z[:, :1])


@answers.mutant("denoises at the end")
def annealed_chain(score, x, largest, smallest, step, z):
    ladder = geometric_ladder(largest, smallest, len(z))
    x = _anneal(score, x, ladder, _alphas(ladder, smallest, step), z)
    return x + smallest**2 * score(x, smallest)


# ---------------------------------------------------------------- score_player


@answers.second
def score_player(model, lr=3e-3):
    def loss(batch, step):
        rung = torch.randint(0, len(model.sigmas), batch.shape[:1])
        sigma = torch.as_tensor([model.sigmas[i] for i in rung.tolist()], dtype=batch.dtype)
        noise = torch.randn(batch.shape, dtype=batch.dtype)
        wide = sigma.view(-1, *[1] * (batch.ndim - 1))
        gap = wide * model.score(batch + wide * noise, sigma) + noise
        return 0.5 * gap.flatten(1).square().sum(1).mean()

    return Player("NCSN", list(model.parameters()), loss, lr=lr)


def _player(model, lr, levels=None, noise=torch.randn_like, total=torch.mean):
    """The right answer, in parts that can be put wrong."""

    def drawn(n: int):
        return torch.tensor(model.sigmas)[torch.randint(len(model.sigmas), (n,))]

    def loss(batch, step):
        sigma = (levels or (lambda n, step: drawn(n)))(len(batch), step)
        return total(model.weighted_loss(batch, noise(batch), sigma))

    return Player("score", model, loss, lr)


@answers.mutant("one level for the whole batch")
def score_player(model, lr=3e-3):
    pick = lambda n, step: torch.tensor(model.sigmas)[torch.randint(len(model.sigmas), (1,))].expand(n)  # noqa: E731
    return _player(model, lr, pick)


@answers.mutant("levels in turn, one a step")
def score_player(model, lr=3e-3):
    return _player(model, lr, lambda n, step: torch.full((n,), model.sigmas[step % len(model.sigmas)]))


@answers.mutant("the finest level only")
def score_player(model, lr=3e-3):
    return _player(model, lr, lambda n, step: torch.full((n,), model.sigmas[-1]))


@answers.mutant("never the finest level: randint excludes its upper end already")
def score_player(model, lr=3e-3):
    return _player(model, lr, lambda n, step: torch.tensor(model.sigmas)[torch.randint(len(model.sigmas) - 1, (n,))])


@answers.mutant("σ uniform between the ends of the ladder")
def score_player(model, lr=3e-3):
    low, high = model.sigmas[-1], model.sigmas[0]
    return _player(model, lr, lambda n, step: low + (high - low) * torch.rand(n))


@answers.mutant("rungs in proportion to σ²: weighted twice")
def score_player(model, lr=3e-3):
    ladder = torch.tensor(model.sigmas)
    return _player(model, lr, lambda n, step: ladder[torch.multinomial(ladder.square(), n, replacement=True)])


@answers.mutant("the same levels at every call")
def score_player(model, lr=3e-3):
    fixed = torch.tensor(model.sigmas)[torch.randint(len(model.sigmas), (4000,))]
    return _player(model, lr, lambda n, step: fixed[:n])


@answers.mutant("the same noise at every call")
def score_player(model, lr=3e-3):
    kept = torch.randn(4000, 2)
    return _player(model, lr, noise=lambda batch: kept[: len(batch)])


@answers.mutant("one noise for the whole batch")
def score_player(model, lr=3e-3):
    return _player(model, lr, noise=lambda batch: torch.randn_like(batch[:1]).expand_as(batch))


@answers.mutant("noise from U[0, 1]")
def score_player(model, lr=3e-3):
    return _player(model, lr, noise=torch.rand_like)


@answers.mutant("the sum over the batch")
def score_player(model, lr=3e-3):
    return _player(model, lr, total=torch.sum)


@answers.mutant("another learning rate")
def score_player(model, lr=3e-3):
    return _player(model, 1e-3)


@answers.mutant("the loss is detached")
def score_player(model, lr=3e-3):
    return _player(model, lr, total=lambda v: v.detach().mean().requires_grad_())


@answers.mutant("unweighted")
def score_player(model, lr=3e-3):
    def loss(batch, step):
        sigma = torch.tensor(model.sigmas)[torch.randint(len(model.sigmas), (len(batch),))]
        return (model.weighted_loss(batch, torch.randn_like(batch), sigma) / sigma**2).mean()

    return Player("score", model, loss, lr)


# ---------------------------------------------------------------- weight_error


@answers.second
def weight_error(samples, means, std, weights, radius=4.0):
    counts = [0] * len(means)
    for point in samples.double():
        apart = (means.double() - point).norm(dim=1)
        if float(apart.min()) <= radius * std:
            counts[int(apart.argmin())] += 1
    shares = [c / len(samples) for c in counts]
    return 0.5 * sum(abs(s - w) for s, w in zip([*shares, 1 - sum(shares)], [*weights.tolist(), 0.0], strict=True))


def _good(samples, means, bound):
    distance, nearest = torch.cdist(samples, means).min(1)
    return nearest[distance <= bound].bincount(minlength=len(means)).double()


@answers.mutant("nobody is astray")
def weight_error(samples, means, std, weights, radius=4.0):
    return float((_good(samples, means, math.inf) / len(samples) - weights).abs().sum()) / 2


@answers.mutant("shares among the good samples")
def weight_error(samples, means, std, weights, radius=4.0):
    counts = _good(samples, means, radius * std)
    return float((counts / counts.sum() - weights).abs().sum()) / 2


@answers.mutant("the astray are no class of their own")
def weight_error(samples, means, std, weights, radius=4.0):
    return float((_good(samples, means, radius * std) / len(samples) - weights).abs().sum()) / 2


@answers.mutant("½ missing")
def weight_error(samples, means, std, weights, radius=4.0):
    shares = _good(samples, means, radius * std) / len(samples)
    return float((shares - weights).abs().sum() + 1 - shares.sum())


@answers.mutant("the largest difference")
def weight_error(samples, means, std, weights, radius=4.0):
    return float((_good(samples, means, radius * std) / len(samples) - weights).abs().max())


@answers.mutant("against equal weights")
def weight_error(samples, means, std, weights, radius=4.0):
    shares = _good(samples, means, radius * std) / len(samples)
    return float((shares - 1 / len(means)).abs().sum() + 1 - shares.sum()) / 2


@answers.mutant("radius not in standard deviations")
def weight_error(samples, means, std, weights, radius=4.0):
    shares = _good(samples, means, radius) / len(samples)
    return float((shares - weights).abs().sum() + 1 - shares.sum()) / 2


@answers.mutant("squared differences")
def weight_error(samples, means, std, weights, radius=4.0):
    shares = _good(samples, means, radius * std) / len(samples)
    return float((shares - weights).square().sum() + (1 - shares.sum()) ** 2) / 2
