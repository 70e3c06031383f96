"""Answers for merge, frechet_distance, fid."""

from __future__ import annotations

import torch

from course_lib.metrics import fid as library_fid
from tests.mutants.a02_evaluation.answers import answers

# ---------------------------------------------------------------- merge


@answers.second
def merge(a, b):
    """Deviations of both means from the common one."""
    n = a.n + b.n
    mean = (a.n * a.mean + b.n * b.mean) / n
    scatter = sum(
        (part.n - 1) * part.covariance + part.n * (part.mean - mean)[:, None] @ (part.mean - mean)[None, :]
        for part in (a, b)
    )
    return type(a)(n, mean, scatter / (n - 1))


def _merge(a, b, between=None, within=None, mean=None, denominator=None):
    """The right moments, for mutants that change one thing."""
    n, delta = a.n + b.n, b.mean - a.mean
    between = torch.outer(delta, delta) * (a.n * b.n / n) if between is None else between
    within = (a.n - 1) * a.covariance + (b.n - 1) * b.covariance if within is None else within
    mean = a.mean + delta * (b.n / n) if mean is None else mean
    return type(a)(n, mean, (within + between) / (denominator or n - 1))


@answers.mutant("forgets the term between the means")
def merge(a, b):
    return _merge(a, b, between=torch.zeros_like(a.covariance))


@answers.mutant("adds δδᵀ without n_a n_b/n")
def merge(a, b):
    return _merge(a, b, between=torch.outer(b.mean - a.mean, b.mean - a.mean))


@answers.mutant("δ² on the diagonal instead of δδᵀ")
def merge(a, b):
    return _merge(a, b, between=((b.mean - a.mean) ** 2).diag() * (a.n * b.n / (a.n + b.n)))


@answers.mutant("n Σ as scatter")
def merge(a, b):
    return _merge(a, b, within=a.n * a.covariance + b.n * b.covariance)


@answers.mutant("divides by n")
def merge(a, b):
    return _merge(a, b, denominator=a.n + b.n)


@answers.mutant("E[xxᵀ] − μμᵀ, which cancels")
def merge(a, b):
    def second(part):
        return ((part.n - 1) * part.covariance + part.n * torch.outer(part.mean, part.mean)).clone()

    n = a.n + b.n
    mean = (a.n * a.mean + b.n * b.mean) / n
    return type(a)(n, mean, (second(a) + second(b) - n * torch.outer(mean, mean)) / (n - 1))


@answers.mutant("changes the mean of the first part")
def merge(a, b):
    right = _merge(a, b)
    a.mean.copy_(right.mean)
    return right


# ---------------------------------------------------------------- frechet_distance


@answers.second
def frechet_distance(mu1, cov1, mu2, cov2):
    """Nuclear norm of Σ₂^½ Σ₁^½ from singular value decompositions."""

    def factor(cov):
        u, s, _ = torch.linalg.svd(cov.double())
        return u * s.sqrt()

    nuclear = torch.linalg.matrix_norm(factor(cov2).T @ factor(cov1), ord="nuc")
    trace = torch.einsum("ii", cov1.double() + cov2.double())
    return (torch.dist(mu1.double(), mu2.double()) ** 2 + trace - 2 * nuclear).item()


def _root(cov):
    values, vectors = torch.linalg.eigh(cov.double())
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _cross(cov1, cov2):
    r = _root(cov1)
    return _root(r @ cov2.double() @ r).trace()


def _fixed(mu1, cov1, mu2, cov2):
    return (mu1 - mu2).double().square().sum() + cov1.double().trace() + cov2.double().trace()


@answers.mutant("no square root: tr Σ₁Σ₂")
def frechet_distance(mu1, cov1, mu2, cov2):
    return _fixed(mu1, cov1, mu2, cov2) - 2 * (cov1 @ cov2).trace()


@answers.mutant("square roots of the entries")
def frechet_distance(mu1, cov1, mu2, cov2):
    return _fixed(mu1, cov1, mu2, cov2) - 2 * (cov1 @ cov2).clamp_min(0).sqrt().trace()


@answers.mutant("tr Σ₁^½ Σ₂^½: right only where they commute")
def frechet_distance(mu1, cov1, mu2, cov2):
    return _fixed(mu1, cov1, mu2, cov2) - 2 * (_root(cov1) @ _root(cov2)).trace()


@answers.mutant("diagonals only")
def frechet_distance(mu1, cov1, mu2, cov2):
    a, b = cov1.diagonal().sqrt(), cov2.diagonal().sqrt()
    return (mu1 - mu2).square().sum() + (a - b).square().sum()


@answers.mutant("‖μ₁ − μ₂‖ not squared")
def frechet_distance(mu1, cov1, mu2, cov2):
    gap = (mu1 - mu2).double()
    return gap.norm() + _fixed(mu1, cov1, mu1, cov2) - 2 * _cross(cov1, cov2)


@answers.mutant("W₂ instead of its square")
def frechet_distance(mu1, cov1, mu2, cov2):
    return (_fixed(mu1, cov1, mu2, cov2) - 2 * _cross(cov1, cov2)).clamp_min(0).sqrt()


@answers.mutant("forgets the factor 2")
def frechet_distance(mu1, cov1, mu2, cov2):
    return _fixed(mu1, cov1, mu2, cov2) - _cross(cov1, cov2)


@answers.mutant("NaN from eigenvalues just below zero")
def frechet_distance(mu1, cov1, mu2, cov2):
    values, vectors = torch.linalg.eigh(cov1.double())
    r = (vectors * values.sqrt()) @ vectors.T
    return _fixed(mu1, cov1, mu2, cov2) - 2 * torch.linalg.eigvalsh(r @ cov2.double() @ r).sqrt().sum()


# ---------------------------------------------------------------- fid


@answers.second
def fid(real, fake):
    """Means and covariances by hand."""
    moments = []
    for x in (real, fake):
        mean = x.double().sum(0) / len(x)
        centred = x.double() - mean
        moments += [mean, torch.einsum("ni,nj->ij", centred, centred) / (len(x) - 1)]
    return float(library_fid.frechet_distance(*moments))


def _fid(real, fake, cov):
    real, fake = real.double(), fake.double()
    return library_fid.frechet_distance(real.mean(0), cov(real), fake.mean(0), cov(fake))


@answers.mutant("covariances with 1/n")
def fid(real, fake):
    return _fid(real, fake, lambda x: torch.cov(x.T, correction=0))


@answers.mutant("variances only")
def fid(real, fake):
    return _fid(real, fake, lambda x: x.var(0).diag())


@answers.mutant("correlations")
def fid(real, fake):
    return _fid(real, fake, lambda x: torch.corrcoef(x.T))


@answers.mutant("second moments, not centred")
def fid(real, fake):
    return _fid(real, fake, lambda x: x.T @ x / (len(x) - 1))


@answers.mutant("features as samples: torch.cov without the transpose")
def fid(real, fake):
    n = min(len(real), len(fake))
    x, y = real[:n].double(), fake[:n].double()
    return library_fid.frechet_distance(x.mean(1), torch.cov(x), y.mean(1), torch.cov(y))


@answers.mutant("moments in float32")
def fid(real, fake):
    real, fake = real.float(), fake.float()
    covariances = [
        x.T @ x / (len(x) - 1) - torch.outer(x.mean(0), x.mean(0)) * len(x) / (len(x) - 1) for x in (real, fake)
    ]
    return library_fid.frechet_distance(real.mean(0), covariances[0], fake.mean(0), covariances[1])


@answers.mutant("the root of the distance")
def fid(real, fake):
    return _fid(real, fake, lambda x: torch.cov(x.T)).clamp_min(0).sqrt()
