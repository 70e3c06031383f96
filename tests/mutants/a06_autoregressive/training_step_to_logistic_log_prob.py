"""Answers for training_step, draw_raster, logistic_log_prob."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from course_lib.data import binarize
from course_lib.maths.discrete import bits_per_dim as library_bits_per_dim
from course_lib.maths.discrete import quantize
from tests.mutants.a06_autoregressive.answers import answers

# ---------------------------------------------------------------- training_step


@answers.second
def training_step(model, optimizer, grey, generator):
    v = (binarize(grey, generator).squeeze(1) > 0).long()
    loss = model.loss(v)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, gradient in zip(params, torch.autograd.grad(loss, params), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return float(loss.detach()) / (v.shape[1] * v.shape[2] * math.log(2))


def _bits_of(loss, v):
    return library_bits_per_dim(loss.item(), v[0].numel())


@answers.mutant("rounds the grey values instead of tossing coins")
def training_step(model, optimizer, grey, generator):
    v = quantize(grey, 2)
    loss = model.loss(v)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return _bits_of(loss, v)


@answers.mutant("coins of the global generator")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey), 2)
    loss = model.loss(v)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return _bits_of(loss, v)


@answers.mutant("trains on ±1 instead of symbols")
def training_step(model, optimizer, grey, generator):
    v = binarize(grey, generator).squeeze(1).long()
    loss = model.loss(v)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return _bits_of(loss, v)


@answers.mutant("no zero_grad")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey, generator), 2)
    loss = model.loss(v)
    loss.backward()
    optimizer.step()
    return _bits_of(loss, v)


@answers.mutant("zero_grad only after the step: an earlier gradient counts")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey, generator), 2)
    loss = model.loss(v)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return _bits_of(loss, v)


@answers.mutant("zero_grad between backward and step")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey, generator), 2)
    loss = model.loss(v)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return _bits_of(loss, v)


@answers.mutant("step before backward")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey, generator), 2)
    loss = model.loss(v)
    optimizer.zero_grad()
    optimizer.step()
    loss.backward()
    return _bits_of(loss, v)


@answers.mutant("returns the loss after the update")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey, generator), 2)
    optimizer.zero_grad()
    model.loss(v).backward()
    optimizer.step()
    return _bits_of(model.loss(v), v)


@answers.mutant("returns nats per picture")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey, generator), 2)
    loss = model.loss(v)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@answers.mutant("divides by the pixels of the whole batch")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey, generator), 2)
    loss = model.loss(v)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return library_bits_per_dim(loss.item(), v.numel())


@answers.mutant("returns the tensor with its graph")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey, generator), 2)
    loss = model.loss(v)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return library_bits_per_dim(loss, v[0].numel())


@answers.mutant("climbs: minimizes log P")
def training_step(model, optimizer, grey, generator):
    v = quantize(binarize(grey, generator), 2)
    loss = model.loss(v)
    optimizer.zero_grad()
    (-loss).backward()
    optimizer.step()
    return _bits_of(loss, v)


# ---------------------------------------------------------------- draw_raster


@answers.second
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    out = torch.where(known, v, torch.zeros_like(v))
    for place in range(known.numel()):
        i, j = divmod(place, known.shape[1])
        if bool(known[i, j]):
            continue
        a = logits(out)[:, :, i, j]
        gumbel = -torch.empty_like(a).exponential_(generator=generator).log()
        out[:, i, j] = torch.argmax(a + gumbel, dim=1)
    return out


def _draw(a, generator):
    """Symbols (b,) from logits (b, K)."""
    return torch.multinomial(a.softmax(1), 1, generator=generator)[:, 0]


def _fill(logits, v, places, generator):
    """Right but for the order: draws the given places one after the other."""
    v = v.clone()
    for i, j in places:
        v[:, i, j] = _draw(logits(v)[:, :, i, j], generator)
    return v


def _unknown(known):
    return (~known).nonzero().tolist()


@answers.mutant("all pixels from one pass")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    b, h, w = v.shape
    a = logits(v).movedim(1, -1).flatten(0, 2)
    return torch.where(known, v, _draw(a, generator).view(b, h, w))


@answers.mutant("the most probable symbol instead of a draw")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    v = v.clone()
    for i, j in _unknown(known):
        v[:, i, j] = logits(v)[:, :, i, j].argmax(1)
    return v


@answers.mutant("column after column")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    return _fill(logits, v, [(i, j) for j, i in (~known).T.nonzero().tolist()], generator)


@answers.mutant("from the last pixel to the first")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    return _fill(logits, v, _unknown(known)[::-1], generator)


@answers.mutant("known and unknown exchanged")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    return _fill(logits, v, known.nonzero().tolist(), generator)


@answers.mutant("ignores what is known")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    return _fill(logits, v, torch.ones_like(known).nonzero().tolist(), generator)


@answers.mutant("draws everything and pastes the known pixels at the end")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    return torch.where(known, v, _fill(logits, v, torch.ones_like(known).nonzero().tolist(), generator))


@answers.mutant("takes for granted that whole rows are known")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    rows = int(known.all(1).sum())
    return _fill(logits, v, [(i, j) for i in range(rows, len(known)) for j in range(known.shape[1])], generator)


@answers.mutant("writes into v")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    for i, j in _unknown(known):
        v[:, i, j] = _draw(logits(v)[:, :, i, j], generator)
    return v


@answers.mutant("the global generator")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    return _fill(logits, v, _unknown(known), None)


@answers.mutant("temperature ½")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    return _fill(lambda u: 2 * logits(u), v, _unknown(known), generator)


@answers.mutant("logits of the place before")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    return _fill(lambda u: logits(u).flatten(2).roll(1, 2).unflatten(2, u.shape[1:]), v, _unknown(known), generator)


@answers.mutant("one random number for the whole batch")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    v = v.clone()
    for i, j in _unknown(known):
        u = torch.rand(1, generator=generator)
        v[:, i, j] = (logits(v)[:, :, i, j].softmax(1).cumsum(1) < u).sum(1).clamp(max=logits(v).shape[1] - 1)
    return v


@answers.mutant("once a row: the pixels of a row do not see each other")
@torch.no_grad()
def draw_raster(logits, v, known, generator):
    v = v.clone()
    for i in range(v.shape[1]):
        a = logits(v)
        for j in range(v.shape[2]):
            if not known[i, j]:
                v[:, i, j] = _draw(a[:, :, i, j], generator)
    return v


# ---------------------------------------------------------------- logistic_log_prob


@answers.second
def logistic_log_prob(mean, log_scale, v, levels):
    scale = log_scale.exp()
    distance = v - mean
    # mirrored to the left tail, where σ itself (not 1 − σ) is small: both logarithms keep their digits
    left = -distance.abs()
    high, low = F.logsigmoid((left + 0.5) / scale), F.logsigmoid((left - 0.5) / scale)
    inside = high + (-torch.expm1(low - high)).log()
    first, last = F.logsigmoid((distance + 0.5) / scale), F.logsigmoid((0.5 - distance) / scale)
    return torch.where(v.eq(0), first, torch.where(v.eq(levels - 1), last, inside))


def _cells(mean, log_scale, v, levels, half=0.5):
    """(upper, lower) end of each cell, standardized."""
    scale = log_scale.exp()
    return (v + half - mean) / scale, (v - half - mean) / scale


def _three_terms(upper, lower):
    return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))


def _with_ends(upper, lower, inside, v, levels):
    return torch.where(v == 0, F.logsigmoid(upper), torch.where(v == levels - 1, F.logsigmoid(-lower), inside))


@answers.mutant("no tails in the end cells")
def logistic_log_prob(mean, log_scale, v, levels):
    return _three_terms(*_cells(mean, log_scale, v, levels))


@answers.mutant("difference of sigmoids, then log")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, log_scale, v, levels)
    return _with_ends(upper, lower, (upper.sigmoid() - lower.sigmoid()).log(), v, levels)


@answers.mutant("difference of sigmoids, clamped")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, log_scale, v, levels)
    return _with_ends(upper, lower, (upper.sigmoid() - lower.sigmoid()).clamp(min=1e-12).log(), v, levels)


@answers.mutant("the density at the centre of the cell")
def logistic_log_prob(mean, log_scale, v, levels):
    middle = (v - mean) / log_scale.exp()
    upper, lower = _cells(mean, log_scale, v, levels)
    density = F.logsigmoid(middle) + F.logsigmoid(-middle) - log_scale
    return _with_ends(upper, lower, density, v, levels)


@answers.mutant("cells of width 2")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, log_scale, v, levels, half=1.0)
    return _with_ends(upper, lower, _three_terms(upper, lower), v, levels)


@answers.mutant("tails exchanged")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, log_scale, v, levels)
    inside = _three_terms(upper, lower)
    return torch.where(v == 0, F.logsigmoid(-lower), torch.where(v == levels - 1, F.logsigmoid(upper), inside))


@answers.mutant("takes log s for s")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, log_scale.abs().clamp(min=1e-3).log(), v, levels)
    return _with_ends(upper, lower, _three_terms(upper, lower), v, levels)


@answers.mutant("multiplies by the scale")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, -log_scale, v, levels)
    return _with_ends(upper, lower, _three_terms(upper, lower), v, levels)


@answers.mutant("the last level is 255, whatever K is")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, log_scale, v, levels)
    return _with_ends(upper, lower, _three_terms(upper, lower), v, 256)


@answers.mutant("the last level is K instead of K − 1")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, log_scale, v, levels)
    return _with_ends(upper, lower, _three_terms(upper, lower), v, levels + 1)


@answers.mutant("clamps the log-scale from below")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, log_scale.clamp(min=-3.0), v, levels)
    return _with_ends(upper, lower, _three_terms(upper, lower), v, levels)


@answers.mutant("probabilities instead of logarithms")
def logistic_log_prob(mean, log_scale, v, levels):
    upper, lower = _cells(mean, log_scale, v, levels)
    return _with_ends(upper, lower, _three_terms(upper, lower), v, levels).exp()
