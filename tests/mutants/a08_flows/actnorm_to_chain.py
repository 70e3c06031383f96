"""Answers for ActNorm, InvertibleConv, Chain."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.mutants.a08_flows.answers import answers

# ---------------------------------------------------------------- ActNorm


class _ActNorm(nn.Module):
    """The right actnorm, for mutants that change one thing."""

    def __init__(self, channels):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.register_buffer("ready", torch.tensor(False))

    def statistics(self, x):
        return x.mean((0, 2, 3)), x.std((0, 2, 3))

    @torch.no_grad()
    def start(self, x):
        mean, std = self.statistics(x)
        self.log_scale.copy_(-std.log())
        self.shift.copy_(-mean / std)
        self.ready.fill_(True)

    def places(self, x):
        return x.shape[2] * x.shape[3]

    def forward(self, x):
        if not self.ready:
            self.start(x)
        y = x * self.log_scale.exp().view(-1, 1, 1) + self.shift.view(-1, 1, 1)
        return y, (self.places(x) * self.log_scale.sum()).expand(len(x))

    def inverse(self, y):
        x = (y - self.shift.view(-1, 1, 1)) * (-self.log_scale).exp().view(-1, 1, 1)
        return x, (-self.places(y) * self.log_scale.sum()).expand(len(y))


@answers.second
class ActNorm(nn.Module):
    """By var_mean with n in the denominator, .data, and a log-det summed over a map."""

    def __init__(self, channels):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.register_buffer("ready", torch.tensor(False))

    def _maps(self, like):
        a = self.log_scale.reshape(1, -1, 1, 1).expand_as(like)
        return a, self.shift.reshape(1, -1, 1, 1), a.sum(dim=(1, 2, 3))

    def forward(self, x):
        if not bool(self.ready):
            var, mean = torch.var_mean(x.detach().movedim(1, 0).reshape(x.shape[1], -1), dim=1, correction=0)
            self.log_scale.data = -0.5 * var.log()
            self.shift.data = -mean * torch.rsqrt(var)
            self.ready = torch.ones_like(self.ready)
        a, b, logdet = self._maps(x)
        return torch.addcmul(b, x, a.exp()), logdet

    def inverse(self, y):
        a, b, logdet = self._maps(y)
        return (y - b) / a.exp(), -logdet


@answers.mutant("forgets h·w")
class ActNorm(_ActNorm):
    def places(self, x):
        return 1


@answers.mutant("doubles the log-det in both directions")
class ActNorm(_ActNorm):
    def places(self, x):
        return 2 * super().places(x)


@answers.mutant("b·h·w: the log-det of the whole batch")
class ActNorm(_ActNorm):
    def places(self, x):
        return len(x) * super().places(x)


@answers.mutant("starts anew with every batch: batch norm")
class ActNorm(_ActNorm):
    def forward(self, x):
        self.start(x)
        return super().forward(x)


@answers.mutant("log_scale = + log std")
class ActNorm(_ActNorm):
    @torch.no_grad()
    def start(self, x):
        super().start(x)
        self.log_scale.neg_()


@answers.mutant("shift = −mean, not divided by std")
class ActNorm(_ActNorm):
    @torch.no_grad()
    def start(self, x):
        super().start(x)
        self.shift.copy_(-self.statistics(x)[0])


@answers.mutant("statistics of all channels together")
class ActNorm(_ActNorm):
    def statistics(self, x):
        return x.mean().expand(x.shape[1]), x.std().expand(x.shape[1])


@answers.mutant("new parameters that the optimizer does not know")
class ActNorm(_ActNorm):
    def start(self, x):
        mean, std = self.statistics(x.detach())
        self.log_scale, self.shift = nn.Parameter(-std.log()), nn.Parameter(-mean / std)
        self.ready.fill_(True)


@answers.mutant("remembers the start in a plain attribute")
class ActNorm(_ActNorm):
    started = False

    def forward(self, x):
        if not self.started:
            self.start(x)
            self.started = True
        y = x * self.log_scale.exp().view(-1, 1, 1) + self.shift.view(-1, 1, 1)
        return y, (self.places(x) * self.log_scale.sum()).expand(len(x))


@answers.mutant("no data-dependent start")
class ActNorm(_ActNorm):
    def start(self, x):
        self.ready.fill_(True)


@answers.mutant("the inverse returns the forward log-det")
class ActNorm(_ActNorm):
    def inverse(self, y):
        x, logdet = super().inverse(y)
        return x, -logdet


@answers.mutant("log-det of detached scales")
class ActNorm(_ActNorm):
    def forward(self, x):
        y, logdet = super().forward(x)
        return y, logdet.detach()


# ---------------------------------------------------------------- InvertibleConv


@answers.second
class InvertibleConv(nn.Module):
    """Glow's option: W = P L (U + diag s); the log-det is a sum, the inverse two triangular solves."""

    def __init__(self, channels):
        super().__init__()
        p, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels)).Q)
        s = upper.diagonal()
        self.register_buffer("p", p)
        self.register_buffer("sign", s.sign())
        self.log_s = nn.Parameter(s.abs().log())
        self.lower, self.upper = nn.Parameter(lower), nn.Parameter(upper)

    def factors(self):
        lower = self.lower.tril(-1) + torch.eye(len(self.p)).to(self.lower)
        return lower, self.upper.triu(1) + (self.sign * self.log_s.exp()).diag()

    def forward(self, x):
        lower, upper = self.factors()
        y = F.conv2d(x, (self.p @ lower @ upper)[:, :, None, None])
        return y, (self.log_s.sum() * x.shape[2] * x.shape[3]).repeat(len(x))

    def inverse(self, y):
        lower, upper = self.factors()
        flat = torch.linalg.solve_triangular(lower, self.p.T @ y.flatten(2), upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, flat, upper=True).view_as(y)
        return x, -(self.log_s.sum() * y.shape[2] * y.shape[3]).repeat(len(y))


class _Conv(nn.Module):
    """The right 1×1 convolution, for mutants that change one thing."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])

    def log_abs_det(self):
        return torch.linalg.slogdet(self.weight).logabsdet

    def places(self, x):
        return x.shape[2] * x.shape[3]

    def inverse_matrix(self):
        return torch.linalg.inv(self.weight)

    def forward(self, x):
        return torch.einsum("ij,bjhw->bihw", self.weight, x), (self.places(x) * self.log_abs_det()).expand(len(x))

    def inverse(self, y):
        x = torch.einsum("ij,bjhw->bihw", self.inverse_matrix(), y)
        return x, (-self.places(y) * self.log_abs_det()).expand(len(y))


@answers.mutant("forgets h·w")
class InvertibleConv(_Conv):
    def places(self, x):
        return 1


@answers.mutant("doubles the log-det in both directions")
class InvertibleConv(_Conv):
    def places(self, x):
        return 2 * super().places(x)


@answers.mutant("log det without the absolute value: NaN for a reflection")
class InvertibleConv(_Conv):
    def log_abs_det(self):
        return torch.linalg.det(self.weight).log()


@answers.mutant("log-det 0: a rotation at the start, and only then")
class InvertibleConv(_Conv):
    def log_abs_det(self):
        return 0 * self.weight.sum()


@answers.mutant("Wᵀ for the inverse: right at the start only")
class InvertibleConv(_Conv):
    def inverse_matrix(self):
        return self.weight.T


@answers.mutant("the inverse returns the forward log-det")
class InvertibleConv(_Conv):
    def inverse(self, y):
        x, logdet = super().inverse(y)
        return x, -logdet


@answers.mutant("W is a buffer: not learnt")
class InvertibleConv(_Conv):
    def __init__(self, channels):
        super().__init__(channels)
        weight = self.weight.detach()
        del self.weight
        self.register_buffer("weight", weight)


@answers.mutant("starts as the identity")
class InvertibleConv(_Conv):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.eye_(self.weight)


@answers.mutant("starts as a random matrix, no rotation")
class InvertibleConv(_Conv):
    def __init__(self, channels):
        super().__init__(channels)
        nn.init.normal_(self.weight)


@answers.mutant("log-det of a detached W")
class InvertibleConv(_Conv):
    def log_abs_det(self):
        return super().log_abs_det().detach()


# ---------------------------------------------------------------- Chain


class _Chain(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, logdet = layer(x)
            total = total + logdet
        return x, total

    def inverse(self, z):
        total = z.new_zeros(len(z))
        for layer in reversed(self.layers):
            z, logdet = layer.inverse(z)
            total = total + logdet
        return z, total


@answers.second
class Chain(nn.Module):
    """By recursion."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return self._go(x, [layer.forward for layer in self.layers])

    def inverse(self, z):
        return self._go(z, [layer.inverse for layer in self.layers][::-1])

    def _go(self, x, steps):
        if not steps:
            return x, torch.zeros(x.shape[0], dtype=x.dtype)
        out, first = steps[0](x)
        out, rest = self._go(out, steps[1:])
        return out, first + rest


@answers.mutant("the inverse keeps the order of the list")
class Chain(_Chain):
    def inverse(self, z):
        total = z.new_zeros(len(z))
        for layer in self.layers:
            z, logdet = layer.inverse(z)
            total = total + logdet
        return z, total


@answers.mutant("applies the last layer first, as f ∘ g reads")
class Chain(_Chain):
    def __init__(self, layers):
        super().__init__(layers[::-1])


@answers.mutant("log-det of the last layer only")
class Chain(_Chain):
    def forward(self, x):
        logdet = x.new_zeros(len(x))
        for layer in self.layers:
            x, logdet = layer(x)
        return x, logdet


@answers.mutant("log-dets at x, not at the point that reaches the layer")
class Chain(_Chain):
    def forward(self, x):
        total, h = x.new_zeros(len(x)), x
        for layer in self.layers:
            total = total + (layer(x)[1] if x.shape == h.shape else layer(h)[1])
            h, _ = layer(h)
        return h, total


@answers.mutant("subtracts the log-dets of the inverses: their sign counted twice")
class Chain(_Chain):
    def inverse(self, z):
        x, total = super().inverse(z)
        return x, -total


@answers.mutant("doubles the log-det in both directions")
class Chain(_Chain):
    def forward(self, x):
        z, total = super().forward(x)
        return z, 2 * total

    def inverse(self, z):
        x, total = super().inverse(z)
        return x, 2 * total


@answers.mutant("a number instead of a tensor for a chain without layers")
class Chain(_Chain):
    def forward(self, x):
        total = 0
        for layer in self.layers:
            x, logdet = layer(x)
            total = total + logdet
        return x, total


@answers.mutant("calls every layer twice")
class Chain(_Chain):
    def forward(self, x):
        total = x.new_zeros(len(x))
        for layer in self.layers:
            total = total + layer(x)[1]
            x = layer(x)[0]
        return x, total
