"""Answers for kid, precision_recall, bradley_terry, diagnose."""

from __future__ import annotations

import torch

from course_lib.metrics import fid as library_fid
from course_lib.metrics import precision_recall as library_precision_recall
from tests.mutants.a02_evaluation.answers import answers

# ---------------------------------------------------------------- kid


@answers.second
def kid(real, fake):
    """One kernel matrix of both sets, with a matrix of weights."""
    n, m = len(real), len(fake)
    z = torch.cat([real, fake]).double()
    weights = torch.full((n + m, n + m), -1 / (n * m), dtype=torch.float64)
    weights[:n, :n], weights[n:, n:] = 1 / (n * (n - 1)), 1 / (m * (m - 1))
    weights.fill_diagonal_(0)
    return float((weights * (torch.einsum("id,jd->ij", z, z) / z.shape[1] + 1).pow(3)).sum())


def _kid(real, fake, kernel=None, diagonal=False):
    """The right estimate, for mutants that change one thing."""
    kernel = kernel or (lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3)

    def within(a):
        k = kernel(a, a)
        return k.mean() if diagonal else (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))

    x, y = real.double(), fake.double()
    return within(x) + within(y) - 2 * kernel(x, y).mean()


@answers.mutant("with the diagonals: biased")
def kid(real, fake):
    return _kid(real, fake, diagonal=True)


@answers.mutant("diagonals left out, but divided by n²")
def kid(real, fake):
    def within(a):
        k = (a @ a.T / a.shape[1] + 1) ** 3
        return (k.sum() - k.trace()) / len(a) ** 2

    x, y = real.double(), fake.double()
    return within(x) + within(y) - 2 * ((x @ y.T / x.shape[1] + 1) ** 3).mean()


@answers.mutant("clipped at zero")
def kid(real, fake):
    return _kid(real, fake).clamp_min(0)


@answers.mutant("x·y not divided by d")
def kid(real, fake):
    return _kid(real, fake, lambda a, b: (a @ b.T + 1) ** 3)


@answers.mutant("power 2")
def kid(real, fake):
    return _kid(real, fake, lambda a, b: (a @ b.T / a.shape[1] + 1) ** 2)


@answers.mutant("forgets the 2 of the cross term")
def kid(real, fake):
    x, y = real.double(), fake.double()
    return _kid(real, fake) + ((x @ y.T / x.shape[1] + 1) ** 3).mean()


@answers.mutant("root of the squared discrepancy")
def kid(real, fake):
    return _kid(real, fake).abs().sqrt()


# ---------------------------------------------------------------- precision_recall


@answers.second
def precision_recall(real, fake, k=3):
    """Radii from sorted distances with an infinite diagonal; one function for both directions."""

    def covered(points, centres):
        gaps = (centres[:, None] - centres[None]).double().norm(dim=2)
        gaps.fill_diagonal_(torch.inf)
        radii = gaps.sort(1).values[:, k - 1]
        distances = (points[:, None] - centres[None]).double().norm(dim=2)
        return ((distances - radii).amin(1) <= 0).double().mean()

    return covered(fake, real), covered(real, fake)


def _radii(x, k, itself=1):
    x = x.double()
    return torch.cdist(x, x).kthvalue(k + itself, dim=1).values


def _covered(points, centres, radii):
    return (torch.cdist(points.double(), centres.double()) <= radii).any(1).double().mean().item()


@answers.mutant("a point is its own first neighbour")
def precision_recall(real, fake, k=3):
    return _covered(fake, real, _radii(real, k, 0)), _covered(real, fake, _radii(fake, k, 0))


@answers.mutant("precision and recall exchanged")
def precision_recall(real, fake, k=3):
    return _covered(real, fake, _radii(fake, k)), _covered(fake, real, _radii(real, k))


@answers.mutant("real balls for both: recall is coverage")
def precision_recall(real, fake, k=3):
    radii = _radii(real, k)
    hit = (torch.cdist(real.double(), fake.double()) <= radii.unsqueeze(1)).any(1).double().mean().item()
    return _covered(fake, real, radii), hit


@answers.mutant("counts balls: density")
def precision_recall(real, fake, k=3):
    inside = torch.cdist(fake.double(), real.double()) <= _radii(real, k)
    return inside.double().sum(1).mean().item() / k, _covered(real, fake, _radii(fake, k))


@answers.mutant("one mean radius for all points")
def precision_recall(real, fake, k=3):
    return (
        _covered(fake, real, _radii(real, k).mean()),
        _covered(real, fake, _radii(fake, k).mean()),
    )


@answers.mutant("only the ball of the nearest point")
def precision_recall(real, fake, k=3):
    def covered(points, centres):
        distance, nearest = torch.cdist(points.double(), centres.double()).min(1)
        return (distance <= _radii(centres, k)[nearest]).double().mean().item()

    return covered(fake, real), covered(real, fake)


@answers.mutant("k is always 3")
def precision_recall(real, fake, k=3):
    return _covered(fake, real, _radii(real, min(3, len(real) - 1))), _covered(
        real, fake, _radii(fake, min(3, len(fake) - 1))
    )


# ---------------------------------------------------------------- bradley_terry


@answers.second
def bradley_terry(wins):
    """Newton's method on the log-likelihood."""
    wins = wins.double()
    played = wins + wins.T
    theta = torch.zeros(len(wins), dtype=torch.float64)
    for _ in range(60):
        p = torch.sigmoid(theta[:, None] - theta[None])
        slope = (wins - played * p).sum(1)
        curvature = played * p * (1 - p)
        hessian = curvature.sum(1).diag() - curvature
        theta = theta + torch.linalg.pinv(hessian, hermitian=True) @ slope
        theta = theta - theta.mean()
    return theta


def _minorize(wins, won=None, steps=5000):
    wins = wins.double()
    played, won = wins + wins.T, wins.sum(1) if won is None else won
    p = torch.ones_like(won)
    for _ in range(steps):
        p = won / (played / (p.unsqueeze(1) + p)).sum(1)
        p = p / p.log().mean().exp()
    return p


@answers.mutant("log-odds of the win rate")
def bradley_terry(wins):
    rate = wins.double().sum(1) / (wins + wins.T).double().sum(1)
    return rate.logit() - rate.logit().mean()


@answers.mutant("strengths p instead of θ = log p")
def bradley_terry(wins):
    return _minorize(wins, steps=500)


@answers.mutant("stops after ten steps")
def bradley_terry(wins):
    return _minorize(wins, steps=10).log()


@answers.mutant("counts losses as wins")
def bradley_terry(wins):
    return _minorize(wins.T, steps=500).log()


@answers.mutant("first system at zero instead of mean zero")
def bradley_terry(wins):
    theta = _minorize(wins, steps=500).log()
    return theta - theta[0]


@answers.mutant("every pair weighs the same")
def bradley_terry(wins):
    wins = wins.double()
    share = wins / (wins + wins.T).clamp_min(1)
    return _minorize(share, steps=500).log()


@answers.mutant("gradient ascent of a hundred timid steps")
def bradley_terry(wins):
    wins = wins.double()
    played, theta = wins + wins.T, torch.zeros(len(wins), dtype=torch.float64)
    for _ in range(100):
        theta = theta + 0.1 / played.sum(1).max() * (wins - played * (theta[:, None] - theta).sigmoid()).sum(1)
    return theta


# ---------------------------------------------------------------- diagnose


@answers.second
def diagnose(fake, training, held_out):
    """By the 5 % quantile of normal distances, density and coverage."""
    near, usual = torch.cdist(fake, training).min(1).values, torch.cdist(held_out, training).min(1).values
    if (near < usual.quantile(0.05)).double().mean() > 0.5:
        return "memorized"
    normal = library_precision_recall.density_coverage(held_out, training)
    seen = library_precision_recall.density_coverage(held_out, fake)
    if seen.density < 0.75 * normal.density:
        return "blur"
    return "dropped modes" if seen.coverage < normal.coverage - 0.1 else "fine"


def _copied(fake, training, held_out):
    near, usual = (torch.cdist(x, training).amin(1).median() for x in (fake, held_out))
    return near < 0.5 * usual


def _lower(fake, training, held_out):
    """How far precision and recall are below normal."""
    got = library_precision_recall.precision_recall(held_out, fake)
    usual = library_precision_recall.precision_recall(held_out, training)
    return usual.precision - got.precision, usual.recall - got.recall


@answers.mutant("no look at the training set")
def diagnose(fake, training, held_out):
    precision, recall = _lower(fake, training, held_out)
    return "blur" if precision > 0.085 else "dropped modes" if recall > 0.085 else "fine"


@answers.mutant("precision and recall mixed up")
def diagnose(fake, training, held_out):
    if _copied(fake, training, held_out):
        return "memorized"
    precision, recall = _lower(fake, training, held_out)
    return "dropped modes" if precision > 0.085 else "blur" if recall > 0.085 else "fine"


@answers.mutant("recall first: blur looks like dropped modes")
def diagnose(fake, training, held_out):
    if _copied(fake, training, held_out):
        return "memorized"
    precision, recall = _lower(fake, training, held_out)
    return "dropped modes" if recall > 0.085 else "blur" if precision > 0.085 else "fine"


@answers.mutant("only exact copies are memorized")
def diagnose(fake, training, held_out):
    if torch.cdist(fake, training).amin(1).median() < 1e-6:
        return "memorized"
    precision, recall = _lower(fake, training, held_out)
    return "blur" if precision > 0.085 else "dropped modes" if recall > 0.085 else "fine"


@answers.mutant("a distance threshold in absolute numbers")
def diagnose(fake, training, held_out):
    if torch.cdist(fake, training).amin(1).median() < 4.0:
        return "memorized"
    precision, recall = _lower(fake, training, held_out)
    return "blur" if precision > 0.085 else "dropped modes" if recall > 0.085 else "fine"


@answers.mutant("FID alone, by size")
def diagnose(fake, training, held_out):
    normal = library_fid.frechet_distance(*_gaussian(training), *_gaussian(held_out))
    ratio = library_fid.frechet_distance(*_gaussian(training), *_gaussian(fake)) / normal
    return "memorized" if ratio < 0.5 else "fine" if ratio < 3 else "blur"


def _gaussian(x):
    return x.mean(0), torch.cov(x.T)


@answers.mutant("everything is fine")
def diagnose(fake, training, held_out):
    return "fine"
