"""Answers for implicit_loss, sliced_loss, denoising_loss, denoise."""

from __future__ import annotations

import torch

from course_lib.energy import score_matching as sm
from tests.mutants.a18_score.answers import answers

# ---------------------------------------------------------------- implicit_loss


@answers.second
def implicit_loss(score, x):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda point: score(point[None])[0]))(x)
    return torch.einsum("bii->b", jacobian) + 0.5 * torch.einsum("bi,bi->b", score(x), score(x))


def _trace(score, x, graph=True):
    x = x.detach().requires_grad_()
    s = score(x)
    rows = [torch.autograd.grad(s[:, i].sum(), x, create_graph=graph, retain_graph=True)[0] for i in range(x.shape[1])]
    return torch.stack(rows, 1).diagonal(dim1=1, dim2=2).sum(1), s, torch.stack(rows, 1)


@answers.mutant("sum of the whole Jacobian, one backward pass")
def implicit_loss(score, x):
    x = x.detach().requires_grad_()
    s = score(x)
    return torch.autograd.grad(s.sum(), x, create_graph=True)[0].sum(1) + s.square().sum(1) / 2


@answers.mutant("½ missing")
def implicit_loss(score, x):
    trace, s, _ = _trace(score, x)
    return trace + s.square().sum(1)


@answers.mutant("½ on the trace, too")
def implicit_loss(score, x):
    trace, s, _ = _trace(score, x)
    return (trace + s.square().sum(1)) / 2


@answers.mutant("minus the trace")
def implicit_loss(score, x):
    trace, s, _ = _trace(score, x)
    return s.square().sum(1) / 2 - trace


@answers.mutant("no create_graph: the trace is a constant")
def implicit_loss(score, x):
    trace, s, _ = _trace(score, x, graph=False)
    return trace.detach() + s.square().sum(1) / 2


@answers.mutant("trace of the Gram matrix of the Jacobian: its Frobenius norm")
def implicit_loss(score, x):
    _, s, jacobian = _trace(score, x)
    return jacobian.square().sum((1, 2)) + s.square().sum(1) / 2


@answers.mutant("mean over the dimensions")
def implicit_loss(score, x):
    trace, s, _ = _trace(score, x)
    return (trace + s.square().sum(1) / 2) / x.shape[1]


@answers.mutant("length, not its square")
def implicit_loss(score, x):
    trace, s, _ = _trace(score, x)
    return trace + s.norm(dim=1) / 2


@answers.mutant("already the mean over the batch")
def implicit_loss(score, x):
    trace, s, _ = _trace(score, x)
    return (trace + s.square().sum(1) / 2).mean()


# ---------------------------------------------------------------- sliced_loss


@answers.second
def sliced_loss(score, x, v):
    t = torch.zeros(len(x), 1, dtype=x.dtype, requires_grad=True)
    s = score(x + t * v)  # the slope along v at t = 0: d(v·s)/dt
    (slope,) = torch.autograd.grad((v * s).sum(), t, create_graph=True)
    return slope[:, 0] + 0.5 * (s * s).sum(1)


def _pulled(score, x, v, graph=True):
    x = x.detach().requires_grad_()
    s = score(x)
    return torch.autograd.grad((s * v).sum(), x, create_graph=graph, retain_graph=True)[0], s


@answers.mutant("½ (vᵀs)²: the other slice")
def sliced_loss(score, x, v):
    pulled, s = _pulled(score, x, v)
    return (pulled * v).sum(1) + (s * v).sum(1).square() / 2


@answers.mutant("½ missing")
def sliced_loss(score, x, v):
    pulled, s = _pulled(score, x, v)
    return (pulled * v).sum(1) + s.square().sum(1)


@answers.mutant("v on one side only")
def sliced_loss(score, x, v):
    pulled, s = _pulled(score, x, v)
    return pulled.sum(1) + s.square().sum(1) / 2


@answers.mutant("v on the other side only: grad of the plain sum")
def sliced_loss(score, x, v):
    pulled, s = _pulled(score, x, torch.ones_like(v))
    return (pulled * v).sum(1) + s.square().sum(1) / 2


@answers.mutant("the exact trace instead")
def sliced_loss(score, x, v):
    return sm.implicit_loss(score, x)


@answers.mutant("right number, by the whole Jacobian")
def sliced_loss(score, x, v):
    x = x.detach().requires_grad_()
    s = score(x)
    rows = [torch.autograd.grad(s[:, i].sum(), x, create_graph=True)[0] for i in range(x.shape[1])]
    return torch.einsum("bi,bij,bj->b", v, torch.stack(rows, 1), v) + s.square().sum(1) / 2


@answers.mutant("directions of length one")
def sliced_loss(score, x, v):
    v = v / v.norm(dim=1, keepdim=True)
    pulled, s = _pulled(score, x, v)
    return (pulled * v).sum(1) + s.square().sum(1) / 2


@answers.mutant("no create_graph: the slope is a constant")
def sliced_loss(score, x, v):
    pulled, s = _pulled(score, x, v, graph=False)
    return (pulled * v).sum(1) + s.square().sum(1) / 2


@answers.mutant("minus the slope")
def sliced_loss(score, x, v):
    pulled, s = _pulled(score, x, v)
    return s.square().sum(1) / 2 - (pulled * v).sum(1)


@answers.mutant("draws directions of its own")
def sliced_loss(score, x, v):
    v = sm.rademacher(x)
    pulled, s = _pulled(score, x, v)
    return (pulled * v).sum(1) + s.square().sum(1) / 2


# ---------------------------------------------------------------- denoising_loss


@answers.second
def denoising_loss(score, x, noise, sigma):
    values = sigma.reshape([len(x)] + [1] * (x.dim() - 1))
    target = -noise / values
    gap = (score(x + noise * values, sigma) - target).reshape(len(x), -1)
    return 0.5 * sigma.pow(2) * torch.linalg.vector_norm(gap, dim=1).pow(2)


def _wide(sigma, x):
    return sigma.view(-1, *[1] * (x.ndim - 1))


def _half(v):
    return v.square().flatten(1).sum(1) / 2


@answers.mutant("no weight: the finest level drowns the rest")
def denoising_loss(score, x, noise, sigma):
    wide = _wide(sigma, x)
    return _half(score(x + wide * noise, sigma) + noise / wide)


@answers.mutant("weight σ")
def denoising_loss(score, x, noise, sigma):
    wide = _wide(sigma, x)
    return sigma * _half(score(x + wide * noise, sigma) + noise / wide)


@answers.mutant("target +ε/σ")
def denoising_loss(score, x, noise, sigma):
    wide = _wide(sigma, x)
    return _half(wide * score(x + wide * noise, sigma) - noise)


@answers.mutant("target −ε/σ²: the displacement taken for the noise")
def denoising_loss(score, x, noise, sigma):
    wide = _wide(sigma, x)
    return _half(wide * score(x + wide * noise, sigma) + noise / wide)


@answers.mutant("target −ε: a noise predictor, weighted")
def denoising_loss(score, x, noise, sigma):
    wide = _wide(sigma, x)
    return _half(wide * (score(x + wide * noise, sigma) + noise))


@answers.mutant("target x₀")
def denoising_loss(score, x, noise, sigma):
    wide = _wide(sigma, x)
    return _half(wide * (score(x + wide * noise, sigma) - x))


@answers.mutant("noise of variance σ")
def denoising_loss(score, x, noise, sigma):
    wide = _wide(sigma, x)
    return _half(wide * score(x + wide.sqrt() * noise, sigma) + noise)


@answers.mutant("the network sees the clean point")
def denoising_loss(score, x, noise, sigma):
    return _half(_wide(sigma, x) * score(x, sigma) + noise)


@answers.mutant("½ missing")
def denoising_loss(score, x, noise, sigma):
    wide = _wide(sigma, x)
    return 2 * _half(wide * score(x + wide * noise, sigma) + noise)


@answers.mutant("mean over an example's numbers")
def denoising_loss(score, x, noise, sigma):
    wide = _wide(sigma, x)
    return _half(wide * score(x + wide * noise, sigma) + noise) / x[0].numel()


@answers.mutant("σ along the last axis")
def denoising_loss(score, x, noise, sigma):
    return _half(sigma * score(x + sigma * noise, sigma) + noise)


# ---------------------------------------------------------------- denoise


@answers.second
def denoise(score, x, sigma):
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda p: score(p[None])[0], point) for point in x])
    covariance = sigma**2 * (torch.eye(x.shape[1], dtype=x.dtype) + sigma**2 * jacobian)
    return x + sigma * sigma * score(x), covariance.diagonal(dim1=1, dim2=2).sum(1)


@answers.mutant("σ for σ² in the mean")
def denoise(score, x, sigma):
    trace, s = sm.divergence(score, x)
    return x + sigma * s, x.shape[1] * sigma**2 + sigma**4 * trace


@answers.mutant("away from the data")
def denoise(score, x, sigma):
    trace, s = sm.divergence(score, x)
    return x - sigma**2 * s, x.shape[1] * sigma**2 + sigma**4 * trace


@answers.mutant("half a Langevin step: σ²/2")
def denoise(score, x, sigma):
    trace, s = sm.divergence(score, x)
    return x + sigma**2 / 2 * s, x.shape[1] * sigma**2 + sigma**4 * trace


@answers.mutant("the score itself")
def denoise(score, x, sigma):
    trace, s = sm.divergence(score, x)
    return sigma**2 * s, x.shape[1] * sigma**2 + sigma**4 * trace


@answers.mutant("σ² for σ⁴")
def denoise(score, x, sigma):
    trace, s = sm.divergence(score, x)
    return x + sigma**2 * s, x.shape[1] * sigma**2 + sigma**2 * trace


@answers.mutant("σ² once, not for each dimension")
def denoise(score, x, sigma):
    trace, s = sm.divergence(score, x)
    return x + sigma**2 * s, sigma**2 + sigma**4 * trace


@answers.mutant("minus the trace: more noise left than was added")
def denoise(score, x, sigma):
    trace, s = sm.divergence(score, x)
    return x + sigma**2 * s, x.shape[1] * sigma**2 - sigma**4 * trace


@answers.mutant("the variance that was added, whatever the point")
def denoise(score, x, sigma):
    return x + sigma**2 * score(x), torch.full_like(x[:, 0], x.shape[1] * sigma**2)


@answers.mutant("the mean variance of a number")
def denoise(score, x, sigma):
    trace, s = sm.divergence(score, x)
    return x + sigma**2 * s, sigma**2 + sigma**4 * trace / x.shape[1]


@answers.mutant("standard deviation")
def denoise(score, x, sigma):
    trace, s = sm.divergence(score, x)
    return x + sigma**2 * s, (x.shape[1] * sigma**2 + sigma**4 * trace).sqrt()
