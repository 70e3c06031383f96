"""Answers for pushed_log_prob, Coupling, masks, Squeeze."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.mutants.a08_flows.answers import answers

# ---------------------------------------------------------------- pushed_log_prob


@answers.second
def pushed_log_prob(f, base_log_prob, x):
    z, slope = torch.func.jvp(f, (x,), (torch.ones_like(x),))
    return torch.add(base_log_prob(z), 0.5 * slope.square().log())


def _slope(f, x):
    """(x, f(x), f′(x)), right."""
    x = x if x.requires_grad else x.detach().clone().requires_grad_()
    z = f(x)
    return x, z, torch.autograd.grad(z.sum(), x, create_graph=True)[0]


@answers.mutant("no slope: the base density at f(x)")
def pushed_log_prob(f, base_log_prob, x):
    return base_log_prob(f(x))


@answers.mutant("minus log |f′|: the slope of the generating direction")
def pushed_log_prob(f, base_log_prob, x):
    _, z, slope = _slope(f, x)
    return base_log_prob(z) - slope.abs().log()


@answers.mutant("no absolute value")
def pushed_log_prob(f, base_log_prob, x):
    _, z, slope = _slope(f, x)
    return base_log_prob(z) + slope.log()


@answers.mutant("forgets the log of the slope")
def pushed_log_prob(f, base_log_prob, x):
    _, z, slope = _slope(f, x)
    return base_log_prob(z) + slope.abs()


@answers.mutant("base density at x")
def pushed_log_prob(f, base_log_prob, x):
    x, _, slope = _slope(f, x)
    return base_log_prob(x) + slope.abs().log()


@answers.mutant("one slope for the batch: the mean")
def pushed_log_prob(f, base_log_prob, x):
    _, z, slope = _slope(f, x)
    return base_log_prob(z) + slope.mean().abs().log()


@answers.mutant("slope without a graph: no create_graph")
def pushed_log_prob(f, base_log_prob, x):
    _, z, slope = _slope(f, x)
    return base_log_prob(z) + slope.detach().abs().log()


@answers.mutant("makes the caller's x require a gradient")
def pushed_log_prob(f, base_log_prob, x):
    if x.is_leaf:
        x.requires_grad_()
    z = f(x)
    (slope,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    return base_log_prob(z) + slope.abs().log()


# ---------------------------------------------------------------- Coupling


class _Coupling(nn.Module):
    """The right coupling, for mutants that change one thing."""

    def __init__(self, mask, net):
        super().__init__()
        self.register_buffer("mask", mask)
        self.net = net

    def st(self, x):
        s, t = self.net(self.mask * x).chunk(2, 1)
        return s * (1 - self.mask), t * (1 - self.mask)

    def apply_to(self, x):
        s, t = self.st(x)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def undo(self, y):
        s, t = self.st(y)
        return (y - t) * (-s).exp(), -s.flatten(1).sum(1)

    def forward(self, x):
        return self.apply_to(x)

    def inverse(self, y):
        return self.undo(y)


@answers.second
class Coupling(nn.Module):
    """By torch.where and a boolean mask, the log-det summed axis by axis."""

    def __init__(self, mask, net):
        super().__init__()
        self.register_buffer("keep", mask.bool())
        self.net = net

    def _run(self, v, back):
        out = self.net(torch.where(self.keep, v, torch.zeros_like(v)))
        half = out.shape[1] // 2
        s, t = out[:, :half], out[:, half:]
        moved = (v - t) / s.exp() if back else torch.addcmul(t, v, s.exp())
        logdet = torch.where(self.keep, torch.zeros_like(s), -s if back else s)
        while logdet.ndim > 1:
            logdet = logdet.sum(-1)
        return torch.where(self.keep, v, moved), logdet

    def forward(self, x):
        return self._run(x, back=False)

    def inverse(self, y):
        return self._run(y, back=True)


@answers.mutant("doubles the log-det in both directions")
class Coupling(_Coupling):
    def forward(self, x):
        y, logdet = self.apply_to(x)
        return y, 2 * logdet

    def inverse(self, y):
        x, logdet = self.undo(y)
        return x, 2 * logdet


@answers.mutant("signs of the log-dets exchanged")
class Coupling(_Coupling):
    def forward(self, x):
        y, logdet = self.apply_to(x)
        return y, -logdet

    def inverse(self, y):
        x, logdet = self.undo(y)
        return x, -logdet


@answers.mutant("the inverse returns the forward log-det")
class Coupling(_Coupling):
    def inverse(self, y):
        x, logdet = self.undo(y)
        return x, -logdet


@answers.mutant("mask the other way round")
class Coupling(_Coupling):
    def __init__(self, mask, net):
        super().__init__(1 - mask, net)


@answers.mutant("sums s over the kept numbers too")
class Coupling(_Coupling):
    def st(self, x):
        return self.net(self.mask * x).chunk(2, 1)

    def forward(self, x):
        s, t = self.st(x)
        return self.mask * x + (1 - self.mask) * (x * s.exp() + t), s.flatten(1).sum(1)

    def inverse(self, y):
        s, t = self.st(y)
        return self.mask * y + (1 - self.mask) * (y - t) * (-s).exp(), -s.flatten(1).sum(1)


@answers.mutant("the kept numbers are scaled and shifted as well")
class Coupling(_Coupling):
    def st(self, x):
        return self.net(self.mask * x).chunk(2, 1)


@answers.mutant("the network sees everything")
class Coupling(_Coupling):
    def st(self, x):
        s, t = self.net(x).chunk(2, 1)
        return s * (1 - self.mask), t * (1 - self.mask)


@answers.mutant("shifts before it scales, as Glow's code does")
class Coupling(_Coupling):
    def forward(self, x):
        s, t = self.st(x)
        return (x + t) * s.exp(), s.flatten(1).sum(1)

    def inverse(self, y):
        s, t = self.st(y)
        return y * (-s).exp() - t, -s.flatten(1).sum(1)


@answers.mutant("the inverse divides before it subtracts")
class Coupling(_Coupling):
    def inverse(self, y):
        s, t = self.st(y)
        return y * (-s).exp() - t, -s.flatten(1).sum(1)


@answers.mutant("s is the scale itself, not its log")
class Coupling(_Coupling):
    def forward(self, x):
        s, t = self.st(x)
        return x * torch.where(self.mask > 0, 1.0, s) + t, s.flatten(1).sum(1)


@answers.mutant("log-det of e^s: sums the scales")
class Coupling(_Coupling):
    def forward(self, x):
        s, t = self.st(x)
        return x * s.exp() + t, ((1 - self.mask) * s.exp()).flatten(1).sum(1)


@answers.mutant("sums over the channels only: right for points, a map for pictures")
class Coupling(_Coupling):
    def forward(self, x):
        s, t = self.st(x)
        return x * s.exp() + t, s.sum(1)


@answers.mutant("log-det detached: s is not trained")
class Coupling(_Coupling):
    def forward(self, x):
        y, logdet = self.apply_to(x)
        return y, logdet.detach()


# ---------------------------------------------------------------- masks


@answers.second
def masks(channels, height, width):
    board = torch.zeros(1, height, width)
    board[:, ::2, ::2] = 1
    board[:, 1::2, 1::2] = 1
    return board, torch.cat([torch.ones(channels // 2, 1, 1), torch.zeros(channels // 2, 1, 1)])


def _halves(channels):
    return (torch.arange(channels) < channels // 2).float().view(-1, 1, 1)


def _board(height, width):
    return ((torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0).float()[None]


@answers.mutant("parity of the pixel's running number: stripes at even widths")
def masks(channels, height, width):
    board = (torch.arange(height * width) % 2 == 0).float().view(1, height, width)
    return board, _halves(channels)


@answers.mutant("keeps where row + column is odd")
def masks(channels, height, width):
    return 1 - _board(height, width), _halves(channels)


@answers.mutant("every second channel")
def masks(channels, height, width):
    return _board(height, width), (torch.arange(channels) % 2 == 0).float().view(-1, 1, 1)


@answers.mutant("the second half of the channels")
def masks(channels, height, width):
    return _board(height, width), 1 - _halves(channels)


@answers.mutant("boolean masks")
def masks(channels, height, width):
    return _board(height, width).bool(), _halves(channels).bool()


@answers.mutant("channel mask without axes for the places")
def masks(channels, height, width):
    return _board(height, width), _halves(channels).flatten()


@answers.mutant("height and width exchanged")
def masks(channels, height, width):
    return _board(width, height), _halves(channels)


# ---------------------------------------------------------------- Squeeze


@answers.second
class Squeeze(nn.Module):
    """By slices, and by filling slices."""

    def forward(self, x):
        parts = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return torch.stack(parts, 2).flatten(1, 2), torch.zeros(len(x), dtype=x.dtype)

    def inverse(self, y):
        b, c, h, w = y.shape
        x = y.new_empty(b, c // 4, 2 * h, 2 * w)
        for k in range(4):
            x[:, :, k // 2 :: 2, k % 2 :: 2] = y[:, k::4]
        return x, torch.zeros(b, dtype=y.dtype)


class _Squeeze(nn.Module):
    def forward(self, x):
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y):
        return F.pixel_shuffle(y, 2), y.new_zeros(len(y))


@answers.mutant("reshapes without moving axes")
class Squeeze(_Squeeze):
    def forward(self, x):
        b, c, h, w = x.shape
        return x.reshape(b, 4 * c, h // 2, w // 2), x.new_zeros(b)

    def inverse(self, y):
        b, c, h, w = y.shape
        return y.reshape(b, c // 4, 2 * h, 2 * w), y.new_zeros(b)


@answers.mutant("place slowest, channel fastest: right for one channel")
class Squeeze(_Squeeze):
    def forward(self, x):
        return torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1), x.new_zeros(len(x))

    def inverse(self, y):
        b, c, h, w = y.shape
        return F.pixel_shuffle(y.view(b, 4, c // 4, h, w).transpose(1, 2).reshape(y.shape), 2), y.new_zeros(b)


@answers.mutant("row and column of the block exchanged")
class Squeeze(_Squeeze):
    def forward(self, x):
        return F.pixel_unshuffle(x.mT, 2).mT, x.new_zeros(len(x))

    def inverse(self, y):
        return F.pixel_shuffle(y.mT, 2).mT, y.new_zeros(len(y))


@answers.mutant("the inverse takes the channels apart in another order")
class Squeeze(_Squeeze):
    def inverse(self, y):
        return F.pixel_shuffle(y.mT, 2).mT, y.new_zeros(len(y))


@answers.mutant("log-det log 4 per place")
class Squeeze(_Squeeze):
    def forward(self, x):
        y, logdet = super().forward(x)
        return y, logdet + math.log(4) * y[0, 0].numel()

    def inverse(self, y):
        x, logdet = super().inverse(y)
        return x, logdet - math.log(4) * y[0, 0].numel()


@answers.mutant("one log-det for the batch")
class Squeeze(_Squeeze):
    def forward(self, x):
        return super().forward(x)[0], x.new_zeros(())


@answers.mutant("returns no log-det")
class Squeeze(_Squeeze):
    def forward(self, x):
        return super().forward(x)[0]
