"""Answers for psnr, ssim_terms, inception_score."""

from __future__ import annotations

import math

import torch

from tests.mutants.a02_evaluation.answers import answers

# ---------------------------------------------------------------- psnr


@answers.second
def psnr(x, y, value_range=(-1.0, 1.0)):
    """Through norms, in two logarithms."""
    span = value_range[1] - value_range[0]
    norm = torch.linalg.vector_norm((x - y).double(), dim=(1, 2, 3))
    return 20 * (math.log10(span) + 0.5 * math.log10(x[0].numel()) - torch.log10(norm))


def _mse(x, y):
    return (x - y).double().square().mean((1, 2, 3))


@answers.mutant("L = 1 whatever the range")
def psnr(x, y, value_range=(-1.0, 1.0)):
    return -10 * _mse(x, y).log10()


@answers.mutant("L = 2 whatever the range")
def psnr(x, y, value_range=(-1.0, 1.0)):
    return 10 * (4 / _mse(x, y)).log10()


@answers.mutant("one error for the whole batch")
def psnr(x, y, value_range=(-1.0, 1.0)):
    span = value_range[1] - value_range[0]
    return 10 * (span**2 / (x - y).double().square().mean()).log10().expand(len(x))


@answers.mutant("natural logarithm")
def psnr(x, y, value_range=(-1.0, 1.0)):
    span = value_range[1] - value_range[0]
    return 10 * (span**2 / _mse(x, y)).log()


@answers.mutant("sum of squares over the channels")
def psnr(x, y, value_range=(-1.0, 1.0)):
    span = value_range[1] - value_range[0]
    return 10 * (span**2 / (_mse(x, y) * x.shape[1])).log10()


@answers.mutant("ε against division by zero")
def psnr(x, y, value_range=(-1.0, 1.0)):
    span = value_range[1] - value_range[0]
    return 10 * (span**2 / (_mse(x, y) + 1e-12)).log10()


# ---------------------------------------------------------------- ssim_terms


@answers.second
def ssim_terms(x, y, value_range=(-1.0, 1.0)):
    """From E[x²], E[xy], in double precision."""
    black, white = value_range
    x, y = (t.double().reshape(len(t), -1).sub(black).div(white - black) for t in (x, y))  # now L = 1
    m, k = torch.stack([x.mean(1), y.mean(1)]), 1 / x.shape[1]
    power = torch.stack([torch.einsum("bi,bi->b", t, t) * k for t in (x, y)])
    std = (power - m * m).clamp_min(0).sqrt()
    mixed = torch.einsum("bi,bi->b", x, y) * k - m[0] * m[1]
    luminance = 1 - (m[0] - m[1]) ** 2 / (m.square().sum(0) + 1e-4)
    contrast = 1 - (std[0] - std[1]) ** 2 / (std.square().sum(0) + 9e-4)
    return [luminance, contrast, (mixed + 4.5e-4) / (std.prod(0) + 4.5e-4)]


def _ssim(x, y, value_range, black=None, span=None, correction=0, axes=(1, 2, 3), share=0.5, k=(0.01, 0.03)):
    """The right terms, for mutants that change one thing."""
    span = value_range[1] - value_range[0] if span is None else span
    x, y = (t.double() - (value_range[0] if black is None else black) for t in (x, y))
    c1, c2 = (k[0] * span) ** 2, (k[1] * span) ** 2
    a, b = x.mean(axes), y.mean(axes)
    s, t = x.std(axes, correction=correction), y.std(axes, correction=correction)
    mixed = ((x - x.mean(axes, keepdim=True)) * (y - y.mean(axes, keepdim=True))).mean(axes)
    luminance = (2 * a * b + c1) / (a**2 + b**2 + c1)
    contrast = (2 * s * t + c2) / (s**2 + t**2 + c2)
    return luminance, contrast, (mixed + share * c2) / (s * t + share * c2)


@answers.mutant("does not subtract black")
def ssim_terms(x, y, value_range=(-1.0, 1.0)):
    return _ssim(x, y, value_range, black=0.0)


@answers.mutant("L = 1 whatever the range")
def ssim_terms(x, y, value_range=(-1.0, 1.0)):
    return _ssim(x, y, value_range, span=1.0)


@answers.mutant("standard deviations with 1/(N − 1)")
def ssim_terms(x, y, value_range=(-1.0, 1.0)):
    return _ssim(x, y, value_range, correction=1)


@answers.mutant("C₃ = C₂")
def ssim_terms(x, y, value_range=(-1.0, 1.0)):
    return _ssim(x, y, value_range, share=1.0)


@answers.mutant("the covariance in the contrast term")
def ssim_terms(x, y, value_range=(-1.0, 1.0)):
    luminance, contrast, structure = _ssim(x, y, value_range)
    return luminance, contrast * structure, structure


@answers.mutant("absolute structure")
def ssim_terms(x, y, value_range=(-1.0, 1.0)):
    luminance, contrast, structure = _ssim(x, y, value_range)
    return luminance, contrast, structure.abs()


@answers.mutant("each channel by itself, then the mean")
def ssim_terms(x, y, value_range=(-1.0, 1.0)):
    return [term.mean(1) for term in _ssim(x, y, value_range, axes=(2, 3))]


# ---------------------------------------------------------------- inception_score


@answers.second
def inception_score(probs):
    """The mean KL divergence, by xlogy."""
    p = probs.to(torch.float64)
    q = p.mean(0, keepdim=True)
    return math.exp((torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item() / len(p))


def _kl(p, q):
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(1)


@answers.mutant("no exp")
def inception_score(probs):
    p = probs.double()
    return _kl(p, p.mean(0)).mean()


@answers.mutant("0 log 0 = NaN")
def inception_score(probs):
    p = probs.double()
    return (p * (p.log() - p.mean(0).log())).sum(1).mean().exp()


@answers.mutant("mean of exp KL")
def inception_score(probs):
    p = probs.double()
    return _kl(p, p.mean(0)).exp().mean()


@answers.mutant("KL the other way round")
def inception_score(probs):
    p = probs.double().clamp_min(1e-30)
    return _kl(p.mean(0).expand_as(p), p).mean().exp()


@answers.mutant("bits under the natural exponential")
def inception_score(probs):
    p = probs.double()
    return (_kl(p, p.mean(0)).mean() / math.log(2)).exp()


@answers.mutant("entropy of p(y) alone: H(y|x) is forgotten")
def inception_score(probs):
    return torch.special.entr(probs.double().mean(0)).sum().exp()


@answers.mutant("uniform p(y): only confidence counts")
def inception_score(probs):
    p = probs.double()
    return _kl(p, torch.full_like(p, 1 / p.shape[1])).mean().exp()
