"""Answers for hidden_labels, free_guided, guided_pair, two_variances."""

from __future__ import annotations

import math

import torch

from course_lib.diffusion.parametrization import EPSILON, VELOCITY, X0
from tests.mutants.a21_guidance.answers import answers


def _column(values, like):
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


# ---------------------------------------------------------------- hidden_labels


@answers.second
def hidden_labels(labels, nobody, share):
    new = labels.clone()
    new[torch.bernoulli(torch.full(labels.shape, float(share))).bool()] = nobody
    return new


@answers.mutant("kept, not hidden, with this probability")
def hidden_labels(labels, nobody, share):
    return torch.where(torch.rand(len(labels)) < share, labels, nobody)


@answers.mutant("one coin for the whole batch")
def hidden_labels(labels, nobody, share):
    return torch.where(torch.rand(1) < share, nobody, labels)


@answers.mutant("exactly this share of each batch, rounded")
def hidden_labels(labels, nobody, share):
    new = labels.clone()
    new[torch.randperm(len(labels))[: round(share * len(labels))]] = nobody
    return new


@answers.mutant("the first ones of each batch")
def hidden_labels(labels, nobody, share):
    return torch.where(torch.arange(len(labels)) < share * len(labels), nobody, labels)


@answers.mutant("in place")
def hidden_labels(labels, nobody, share):
    labels[torch.rand(len(labels)) < share] = nobody
    return labels


@answers.mutant("a random label instead of nobody")
def hidden_labels(labels, nobody, share):
    return torch.where(torch.rand(len(labels)) < share, torch.randint(0, nobody, labels.shape), labels)


@answers.mutant("label 0 instead of nobody")
def hidden_labels(labels, nobody, share):
    return torch.where(torch.rand(len(labels)) < share, 0, labels)


@answers.mutant("−1 for no label: no row of the embedding")
def hidden_labels(labels, nobody, share):
    return torch.where(torch.rand(len(labels)) < share, -1, labels)


@answers.mutant("the same coins at every call")
def hidden_labels(labels, nobody, share):
    coin = torch.rand(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.where(coin < share, nobody, labels)


@answers.mutant("floating-point labels")
def hidden_labels(labels, nobody, share):
    return torch.where(torch.rand(len(labels)) < share, float(nobody), labels.float())


@answers.mutant("dropped from the batch instead of replaced")
def hidden_labels(labels, nobody, share):
    return labels[torch.rand(len(labels)) >= share]


@answers.mutant("normal numbers for uniform ones")
def hidden_labels(labels, nobody, share):
    return torch.where(torch.randn(len(labels)) < share, nobody, labels)


@answers.mutant("dropout's 1/(1 − p) correction, which labels have no use for")
def hidden_labels(labels, nobody, share):
    return torch.where(torch.rand(len(labels)) < share, nobody, (labels / max(1 - share, 1e-6)).long())


# ---------------------------------------------------------------- free_guided


@answers.second
def free_guided(network, x, sigma, labels, nobody, scale):
    if scale == 1:
        return network(x, sigma, labels)
    if scale == 0:
        return network(x, sigma, torch.zeros_like(labels) + nobody)
    # the other order, and each example next to its twin
    asked = torch.stack([labels, torch.full_like(labels, nobody)], 1).flatten()
    said = network(x.repeat_interleave(2, 0), sigma.repeat_interleave(2), asked)
    return scale * said[0::2] + (1 - scale) * said[1::2]


def _both(network, x, sigma, labels, nobody):
    none = torch.full_like(labels, nobody)
    return network(torch.cat([x, x]), torch.cat([sigma, sigma]), torch.cat([none, labels])).chunk(2)


def _free(network, x, sigma, labels, nobody, scale, mix):
    if scale in (0, 1):
        return network(x, sigma, labels if scale else torch.full_like(labels, nobody))
    return mix(*_both(network, x, sigma, labels, nobody), scale)


@answers.mutant("Ho & Salimans' w for s: (1 + s) D(x, y) − s D(x, ∅)")
def free_guided(network, x, sigma, labels, nobody, scale):
    return _free(network, x, sigma, labels, nobody, scale, lambda none, told, s: (1 + s) * told - s * none)


@answers.mutant("s = 1 + w taken the wrong way: scale s − 1")
def free_guided(network, x, sigma, labels, nobody, scale):
    return _free(network, x, sigma, labels, nobody, scale, lambda none, told, s: none + (s - 1) * (told - none))


@answers.mutant("the halves exchanged: away from the label")
def free_guided(network, x, sigma, labels, nobody, scale):
    return _free(network, x, sigma, labels, nobody, scale, lambda none, told, s: told + s * (none - told))


@answers.mutant("the difference starts at D(x, y) instead of at D(x, ∅)")
def free_guided(network, x, sigma, labels, nobody, scale):
    return _free(network, x, sigma, labels, nobody, scale, lambda none, told, s: told + s * (told - none))


@answers.mutant("the difference alone")
def free_guided(network, x, sigma, labels, nobody, scale):
    return _free(network, x, sigma, labels, nobody, scale, lambda none, told, s: s * (told - none))


@answers.mutant("D(x, ∅) + s D(x, y): weights that do not sum to one")
def free_guided(network, x, sigma, labels, nobody, scale):
    return _free(network, x, sigma, labels, nobody, scale, lambda none, told, s: none + s * told)


@answers.mutant("interpolated only: s cut to [0, 1]")
def free_guided(network, x, sigma, labels, nobody, scale):
    return _free(
        network, x, sigma, labels, nobody, scale, lambda none, told, s: torch.lerp(none, told, min(max(s, 0.0), 1.0))
    )


@answers.mutant("clipped to [−1, 1], which was not asked for")
def free_guided(network, x, sigma, labels, nobody, scale):
    return _free(
        network, x, sigma, labels, nobody, scale, lambda none, told, s: (none + s * (told - none)).clamp(-1, 1)
    )


@answers.mutant("two calls")
def free_guided(network, x, sigma, labels, nobody, scale):
    none = torch.full_like(labels, nobody)
    if scale in (0, 1):
        return network(x, sigma, labels if scale else none)
    without, told = network(x, sigma, none), network(x, sigma, labels)
    return without + scale * (told - without)


@answers.mutant("both halves at every scale")
def free_guided(network, x, sigma, labels, nobody, scale):
    without, told = _both(network, x, sigma, labels, nobody)
    return without + scale * (told - without)


@answers.mutant("both halves at s = 0")
def free_guided(network, x, sigma, labels, nobody, scale):
    if scale == 1:
        return network(x, sigma, labels)
    without, told = _both(network, x, sigma, labels, nobody)
    return without + scale * (told - without)


@answers.mutant("s = 0 and s = 1 exchanged")
def free_guided(network, x, sigma, labels, nobody, scale):
    if scale in (0, 1):
        return network(x, sigma, torch.full_like(labels, nobody) if scale else labels)
    without, told = _both(network, x, sigma, labels, nobody)
    return without + scale * (told - without)


@answers.mutant("σ interleaved, pictures one after the other")
def free_guided(network, x, sigma, labels, nobody, scale):
    none = torch.full_like(labels, nobody)
    if scale in (0, 1):
        return network(x, sigma, labels if scale else none)
    both = network(torch.cat([x, x]), sigma.repeat_interleave(2), torch.cat([none, labels]))
    without, told = both.chunk(2)
    return without + scale * (told - without)


@answers.mutant("the first label for the batch")
def free_guided(network, x, sigma, labels, nobody, scale):
    labels = labels[:1].expand_as(labels)
    return _free(network, x, sigma, labels, nobody, scale, lambda none, told, s: none + s * (told - none))


@answers.mutant("label 0 for nobody")
def free_guided(network, x, sigma, labels, nobody, scale):
    return _free(network, x, sigma, labels, 0, scale, lambda none, told, s: none + s * (told - none))


@answers.mutant("negative scales taken for 0")
def free_guided(network, x, sigma, labels, nobody, scale):
    scale = max(scale, 0)
    return _free(network, x, sigma, labels, nobody, scale, lambda none, told, s: none + s * (told - none))


# ---------------------------------------------------------------- guided_pair


@answers.second
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    a = alpha_bar.double().reshape([-1] + [1] * (xt.dim() - 1))
    signal, noise = a.sqrt().to(xt), (1 - a).sqrt().to(xt)
    line = (1 + w) * told - w * untold
    picture = {
        "eps": lambda: (xt - noise * line) / signal,
        "x0": lambda: line,
        "v": lambda: signal * xt - noise * line,
    }[predicts]()
    picture = torch.clamp(picture, min=-1.0, max=1.0) if clip else picture
    return picture, (xt - signal * picture) / noise


KINDS = {"eps": EPSILON, "x0": X0, "v": VELOCITY}


def _pair(out, xt, alpha_bar, predicts, clip):
    a = _column(alpha_bar, xt)
    x0, eps = KINDS[predicts].x0(out, xt, a), KINDS[predicts].eps(out, xt, a)
    if clip:
        x0 = x0.clamp(-1, 1)
        eps = X0.eps(x0, xt, a)
    return x0, eps


@answers.mutant("w taken for s: w = 1 does nothing")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(untold + w * (told - untold), xt, alpha_bar, predicts, clip)


@answers.mutant("2 + w for 1 + w")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(told + (w + 1) * (told - untold), xt, alpha_bar, predicts, clip)


@answers.mutant("(1 − w) told + w untold: the paper's line with its sign lost")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair((1 - w) * told + w * untold, xt, alpha_bar, predicts, clip)


@answers.mutant("(1 + w) told − untold")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair((1 + w) * told - untold, xt, alpha_bar, predicts, clip)


@answers.mutant("told and untold exchanged")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair((1 + w) * untold - w * told, xt, alpha_bar, predicts, clip)


@answers.mutant("both clipped before the guidance")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    (x, _), (y, _) = (_pair(v, xt, alpha_bar, predicts, clip) for v in (told, untold))
    x0 = (1 + w) * x - w * y
    return x0, X0.eps(x0, xt, _column(alpha_bar, xt))


@answers.mutant("the network's output clipped, whatever it predicts")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    out = told + w * (told - untold)
    return _pair(out.clamp(-1, 1) if clip else out, xt, alpha_bar, predicts, False)


@answers.mutant("ε not made to fit the clipped picture")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    x0, eps = _pair(told + w * (told - untold), xt, alpha_bar, predicts, False)
    return x0.clamp(-1, 1) if clip else x0, eps


@answers.mutant("never clipped")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(told + w * (told - untold), xt, alpha_bar, predicts, False)


@answers.mutant("always clipped")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(told + w * (told - untold), xt, alpha_bar, predicts, True)


@answers.mutant("clipped to [0, 1]")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    x0, eps = _pair(told + w * (told - untold), xt, alpha_bar, predicts, False)
    if not clip:
        return x0, eps
    x0 = x0.clamp(0, 1)
    return x0, X0.eps(x0, xt, _column(alpha_bar, xt))


@answers.mutant("x_0 of the plain conditional model, only ε guided")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return (
        _pair(told, xt, alpha_bar, predicts, clip)[0],
        _pair(told + w * (told - untold), xt, alpha_bar, predicts, clip)[1],
    )


@answers.mutant("every output taken for ε")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(told + w * (told - untold), xt, alpha_bar, "eps", clip)


@answers.mutant("v taken for x_0")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(told + w * (told - untold), xt, alpha_bar, "x0" if predicts == "v" else predicts, clip)


@answers.mutant("√ᾱ for ᾱ")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(told + w * (told - untold), xt, alpha_bar.sqrt(), predicts, clip)


@answers.mutant("the first example's ᾱ for the batch")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(told + w * (told - untold), xt, alpha_bar[:1], predicts, clip)


@answers.mutant("(ε, x_0) for (x_0, ε)")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(told + w * (told - untold), xt, alpha_bar, predicts, clip)[::-1]


@answers.mutant("float64 leaks from ᾱ")
def guided_pair(told, untold, xt, alpha_bar, predicts, w, clip):
    return _pair(told + w * (told - untold), xt.double(), alpha_bar, predicts, clip)


# ---------------------------------------------------------------- two_variances


@answers.second
def two_variances(c, scale, start):
    # both powers in one: (1 + S²) c / (c + S²) is near c
    square = start * start
    shrink = (1 + square) * c / (c + square)
    precision = 1 + scale * (1 / c - 1)
    return square / (1 + square) * shrink**scale, 1 / precision


def _sampled(c, scale, start):
    square = start**2
    return math.exp(math.log(square) + (scale - 1) * math.log1p(square) - scale * math.log1p(square / c))


def _sharpened(c, scale):
    return 1 / (1 - scale + scale / c)


@answers.mutant("the limit c^s, not the finite S")
def two_variances(c, scale, start):
    return c**scale, _sharpened(c, scale)


@answers.mutant("the sharpened variance for both: as if noising and sharpening commuted")
def two_variances(c, scale, start):
    return _sharpened(c, scale), _sharpened(c, scale)


@answers.mutant("exchanged")
def two_variances(c, scale, start):
    return _sharpened(c, scale), _sampled(c, scale, start)


@answers.mutant("standard deviations")
def two_variances(c, scale, start):
    return math.sqrt(_sampled(c, scale, start)), math.sqrt(_sharpened(c, scale))


@answers.mutant("powers of 1 + S² as they are: overflow")
def two_variances(c, scale, start):
    square = start**2
    return square * (1 + square) ** (scale - 1) * (c / (c + square)) ** scale, _sharpened(c, scale)


@answers.mutant("s for s − 1 in the unconditional part")
def two_variances(c, scale, start):
    return (1 + start**2) * _sampled(c, scale, start), _sharpened(c, scale)


@answers.mutant("the variance at the start left out")
def two_variances(c, scale, start):
    return _sampled(c, scale, start) / start**2, _sharpened(c, scale)


@answers.mutant("S for S²")
def two_variances(c, scale, start):
    return _sampled(c, scale, math.sqrt(start)), _sharpened(c, scale)


@answers.mutant("Ho & Salimans' w: s = 1 + scale")
def two_variances(c, scale, start):
    return _sampled(c, 1 + scale, start), _sharpened(c, 1 + scale)


@answers.mutant("the prior's share forgotten in the sharpened density: posterior^s")
def two_variances(c, scale, start):
    return _sampled(c, scale, start), c / scale if scale else math.inf


@answers.mutant("s/c added to the prior whole: 1/ρ² taken for 1/c")
def two_variances(c, scale, start):
    return _sampled(c, scale, start), 1 / (1 + scale / c)


@answers.mutant("variances mixed where precisions are: 1 − s + s c")
def two_variances(c, scale, start):
    return _sampled(c, scale, start), 1 - scale + scale * c


@answers.mutant("sign of the conditional part: the sampler expands")
def two_variances(c, scale, start):
    square = start**2
    log_sampled = math.log(square) + (scale - 1) * math.log1p(square) + scale * math.log1p(square / c)
    return math.exp(min(log_sampled, 700.0)), _sharpened(c, scale)


@answers.mutant("tensors for floats")
def two_variances(c, scale, start):
    return torch.tensor(_sampled(c, scale, start)), torch.tensor(_sharpened(c, scale))
