"""Answers for straight_through, vq_terms, perplexity."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from tests.mutants.a06_autoregressive.answers import answers

# ---------------------------------------------------------------- straight_through


class _CopyGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, words):
        return words.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


@answers.second
def straight_through(z, table):
    b, d, h, w = z.shape
    flat = z.detach().permute(0, 2, 3, 1).reshape(-1, d)
    scores = flat @ table.detach().T - table.detach().square().sum(1) / 2  # −½ distance² + ½ ‖z‖²
    code = scores.argmax(1)
    words = table.detach().index_select(0, code).reshape(b, h, w, d).permute(0, 3, 1, 2)
    return _CopyGradient.apply(z, words), code.reshape(b, h, w)


def _nearest(z, table):
    return (z.movedim(1, -1).unsqueeze(-2) - table).square().sum(-1).argmin(-1)


def _words(table, code):
    return table[code].movedim(-1, 1)


@answers.mutant("bare look-up: no gradient to z")
def straight_through(z, table):
    code = _nearest(z, table)
    return _words(table, code), code


@answers.mutant("detaches the bare look-up")
def straight_through(z, table):
    code = _nearest(z, table)
    return _words(table, code).detach(), code


@answers.mutant("no detach: the z cancel")
def straight_through(z, table):
    code = _nearest(z, table)
    return z + (_words(table, code) - z), code


@answers.mutant("detaches z only: the gradient goes to the codebook too")
def straight_through(z, table):
    code = _nearest(z, table)
    return z + _words(table, code) - z.detach(), code


@answers.mutant("passes z on: not quantized")
def straight_through(z, table):
    return z, _nearest(z, table)


@answers.mutant("largest dot product")
def straight_through(z, table):
    code = (z.movedim(1, -1) @ table.T).argmax(-1)
    return z + (_words(table, code) - z).detach(), code


@answers.mutant("sum of absolute differences")
def straight_through(z, table):
    code = (z.movedim(1, -1).unsqueeze(-2) - table).abs().sum(-1).argmin(-1)
    return z + (_words(table, code) - z).detach(), code


@answers.mutant("view instead of movedim: vectors across places")
def straight_through(z, table):
    b, d, h, w = z.shape
    code = torch.cdist(z.reshape(-1, d), table).argmin(1)
    return z + (table[code].view(b, d, h, w) - z).detach(), code.view(b, h, w)


@answers.mutant("farthest word")
def straight_through(z, table):
    code = (z.movedim(1, -1).unsqueeze(-2) - table).square().sum(-1).argmax(-1)
    return z + (_words(table, code) - z).detach(), code


@answers.mutant("words left at the last axis")
def straight_through(z, table):
    code = _nearest(z, table)
    vectors = z.movedim(1, -1)
    return vectors + (table[code] - vectors).detach(), code


# ---------------------------------------------------------------- vq_terms


@answers.second
def vq_terms(z, e, beta):
    d = z.shape[1]
    return d * F.mse_loss(e, z.detach()) + beta * d * F.mse_loss(z, e.detach())


@answers.mutant("β on the codebook's side")
def vq_terms(z, e, beta):
    return (beta * (z.detach() - e).square() + (z - e.detach()).square()).sum(1).mean()


@answers.mutant("no stop-gradients")
def vq_terms(z, e, beta):
    return ((1 + beta) * (z - e).square()).sum(1).mean()


@answers.mutant("stop-gradients exchanged")
def vq_terms(z, e, beta):
    return ((z - e.detach()).square() + beta * (z.detach() - e).square()).sum(1).mean()


@answers.mutant("the codebook term moves the encoder too")
def vq_terms(z, e, beta):
    return ((z - e).square() + beta * (z - e.detach()).square()).sum(1).mean()


@answers.mutant("the commitment moves the words too")
def vq_terms(z, e, beta):
    return ((z.detach() - e).square() + beta * (z - e).square()).sum(1).mean()


@answers.mutant("mean over channels")
def vq_terms(z, e, beta):
    return ((z.detach() - e).square() + beta * (z - e.detach()).square()).mean()


@answers.mutant("sum over places")
def vq_terms(z, e, beta):
    return ((z.detach() - e).square() + beta * (z - e.detach()).square()).sum()


@answers.mutant("norms that are not squared")
def vq_terms(z, e, beta):
    return ((z.detach() - e).norm(dim=1) + beta * (z - e.detach()).norm(dim=1)).mean()


@answers.mutant("forgets β")
def vq_terms(z, e, beta):
    return ((z.detach() - e).square() + (z - e.detach()).square()).sum(1).mean()


@answers.mutant("codebook term only")
def vq_terms(z, e, beta):
    return (z.detach() - e).square().sum(1).mean()


# ---------------------------------------------------------------- perplexity


@answers.second
def perplexity(code, words):
    p = F.one_hot(code.flatten(), words).double().mean(0)
    return torch.exp(-torch.special.xlogy(p, p).sum())


def _share(code, words):
    return torch.bincount(code.flatten(), minlength=words).double() / code.numel()


@answers.mutant("p log p without 0 log 0 = 0")
def perplexity(code, words):
    p = _share(code, words)
    return torch.exp(-(p * p.log()).sum())


@answers.mutant("number of words in use")
def perplexity(code, words):
    return torch.tensor(float(len(code.unique())))


@answers.mutant("the entropy itself")
def perplexity(code, words):
    return torch.special.entr(_share(code, words)).sum()


@answers.mutant("exp of an entropy in bits")
def perplexity(code, words):
    return (torch.special.entr(_share(code, words)).sum() / math.log(2)).exp()


@answers.mutant("2 to the power of an entropy in nats")
def perplexity(code, words):
    return 2.0 ** torch.special.entr(_share(code, words)).sum()


@answers.mutant("exp of the mean instead of the sum over words")
def perplexity(code, words):
    return torch.special.entr(_share(code, words)).mean().exp()


@answers.mutant("inverse of Σ p²: another effective number")
def perplexity(code, words):
    return 1 / _share(code, words).square().sum()


@answers.mutant("mean over pictures of each one's perplexity")
def perplexity(code, words):
    each = [torch.special.entr(_share(c, words)).sum().exp() for c in (code if code.dim() > 1 else code[None])]
    return torch.stack(each).mean()


@answers.mutant("a small number against log 0, added to every share")
def perplexity(code, words):
    p = _share(code, words) + 1e-2
    return torch.exp(-(p * p.log()).sum())
