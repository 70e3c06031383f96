"""Answers for Logit, picture_bits, training_step, sample."""

from __future__ import annotations

import math

import torch
from torch import nn

from course_lib.maths.gaussian import standard_normal_log_prob
from tests.mutants.a08_flows.answers import answers

# ---------------------------------------------------------------- Logit


class _Logit(nn.Module):
    """The right logit, for mutants that change one thing."""

    def __init__(self, alpha=0.05):
        super().__init__()
        self.alpha = alpha

    def log_dp(self):
        return math.log((1 - 2 * self.alpha) / 2)

    def logdet(self, p):
        return (self.log_dp() - p.log() - (1 - p).log()).sum((1, 2, 3))

    def forward(self, x):
        p = self.alpha + (1 - 2 * self.alpha) * (x + 1) / 2
        return p.log() - (1 - p).log(), self.logdet(p)

    def inverse(self, y):
        p = y.sigmoid()
        return 2 * (p - self.alpha) / (1 - 2 * self.alpha) - 1, -self.logdet(p)


@answers.second
class Logit(nn.Module):
    """y = 2 atanh(r), r = (1 − 2α) x; dy/dx = 2 (1 − 2α) / (1 − r²)."""

    def __init__(self, alpha=0.05):
        super().__init__()
        self.shrink = 1 - 2 * alpha

    def _log_slope(self, r):
        return (math.log(2 * self.shrink) - torch.log1p(-r.square())).flatten(1).sum(dim=1)

    def forward(self, x):
        r = self.shrink * x
        return 2 * torch.atanh(r), self._log_slope(r)

    def inverse(self, y):
        r = torch.tanh(y / 2)
        return r / self.shrink, -self._log_slope(r)


@answers.mutant("forgets dp/dx")
class Logit(_Logit):
    def log_dp(self):
        return 0.0


@answers.mutant("dp/dx = 1 − 2α: as if pictures were in [0, 1]")
class Logit(_Logit):
    def log_dp(self):
        return math.log(1 - 2 * self.alpha)


@answers.mutant("dp/dx once for the picture, not for every pixel")
class Logit(_Logit):
    def logdet(self, p):
        return self.log_dp() - (p.log() + (1 - p).log()).sum((1, 2, 3))


@answers.mutant("log p(1 − p) with the sign of the sigmoid's slope")
class Logit(_Logit):
    def logdet(self, p):
        return (self.log_dp() + p.log() + (1 - p).log()).sum((1, 2, 3))


@answers.mutant("doubles the log-det in both directions")
class Logit(_Logit):
    def logdet(self, p):
        return 2 * super().logdet(p)


@answers.mutant("the inverse clamps to [−1, 1]")
class Logit(_Logit):
    def inverse(self, y):
        x, logdet = super().inverse(y)
        return x.clamp(-1, 1), logdet


@answers.mutant("the inverse returns the forward log-det")
class Logit(_Logit):
    def inverse(self, y):
        x, logdet = super().inverse(y)
        return x, -logdet


@answers.mutant("the inverse forgets α")
class Logit(_Logit):
    def inverse(self, y):
        return 2 * y.sigmoid() - 1, super().inverse(y)[1]


# ---------------------------------------------------------------- picture_bits


@answers.second
def picture_bits(log_prob, v, generator, levels=256):
    dims = math.prod(v.shape[1:])
    u = torch.empty(v.shape).uniform_(generator=generator)
    nats = log_prob((v.to(u.dtype) + u) * (2 / levels) - 1) - dims * math.log(levels / 2)  # log-density of v + u
    return -(nats / math.log(2)) / dims


def _noisy(v, generator, levels=256):
    return 2 * (v + torch.rand(v.shape, generator=generator)) / levels - 1


@answers.mutant("forgets the units: the density of x")
def picture_bits(log_prob, v, generator, levels=256):
    return -log_prob(_noisy(v, generator, levels)) / (v[0].numel() * math.log(2))


@answers.mutant("adds log2 K: as if pictures were in [0, 1]")
def picture_bits(log_prob, v, generator, levels=256):
    return -log_prob(_noisy(v, generator, levels)) / (v[0].numel() * math.log(2)) + math.log2(levels)


@answers.mutant("always 7, whatever K")
def picture_bits(log_prob, v, generator, levels=256):
    return -log_prob(_noisy(v, generator, levels)) / (v[0].numel() * math.log(2)) + 7


@answers.mutant("nats per dimension")
def picture_bits(log_prob, v, generator, levels=256):
    return -log_prob(_noisy(v, generator, levels)) / v[0].numel() + math.log(levels / 2)


@answers.mutant("pixels, not pixels × channels")
def picture_bits(log_prob, v, generator, levels=256):
    return -log_prob(_noisy(v, generator, levels)) / (v[0, 0].numel() * math.log(2)) + math.log2(levels / 2)


@answers.mutant("sign of the log-density")
def picture_bits(log_prob, v, generator, levels=256):
    return log_prob(_noisy(v, generator, levels)) / (v[0].numel() * math.log(2)) + math.log2(levels / 2)


@answers.mutant("no noise")
def picture_bits(log_prob, v, generator, levels=256):
    return -log_prob(2 * v / levels - 1) / (v[0].numel() * math.log(2)) + math.log2(levels / 2)


@answers.mutant("divides by K − 1")
def picture_bits(log_prob, v, generator, levels=256):
    x = 2 * (v + torch.rand(v.shape, generator=generator)) / (levels - 1) - 1
    return -log_prob(x) / (v[0].numel() * math.log(2)) + math.log2(levels / 2)


@answers.mutant("noise around the grey value, ±½")
def picture_bits(log_prob, v, generator, levels=256):
    x = 2 * (v + torch.rand(v.shape, generator=generator) - 0.5) / levels - 1
    return -log_prob(x) / (v[0].numel() * math.log(2)) + math.log2(levels / 2)


@answers.mutant("doubles the bytes before it adds: uint8 wraps around")
def picture_bits(log_prob, v, generator, levels=256):
    x = (2 * v + 2 * torch.rand(v.shape, generator=generator)) / levels - 1
    return -log_prob(x) / (v[0].numel() * math.log(2)) + math.log2(levels / 2)


@answers.mutant("noise from the global generator")
def picture_bits(log_prob, v, generator, levels=256):
    return -log_prob(_noisy(v, None, levels)) / (v[0].numel() * math.log(2)) + math.log2(levels / 2)


@answers.mutant("one noise number for a picture")
def picture_bits(log_prob, v, generator, levels=256):
    x = 2 * (v + torch.rand(len(v), 1, 1, 1, generator=generator)) / levels - 1
    return -log_prob(x) / (v[0].numel() * math.log(2)) + math.log2(levels / 2)


@answers.mutant("the same noise for every picture")
def picture_bits(log_prob, v, generator, levels=256):
    x = 2 * (v + torch.rand(v.shape[1:], generator=generator)) / levels - 1
    return -log_prob(x) / (v[0].numel() * math.log(2)) + math.log2(levels / 2)


# ---------------------------------------------------------------- training_step


@answers.second
def training_step(flow, optimizer, x):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    z, logdet = flow.encode(x)
    loss = (0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1) - logdet).sum() / len(x)
    for parameter, gradient in zip(params, torch.autograd.grad(loss, params), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return float(loss.detach())


def _update(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _nll(flow, x):
    z, logdet = flow.encode(x)
    return -(standard_normal_log_prob(z) + logdet).mean()


@answers.mutant("log-det with the wrong sign")
def training_step(flow, optimizer, x):
    z, logdet = flow.encode(x)
    return _update(-(standard_normal_log_prob(z) - logdet).mean(), optimizer)


@answers.mutant("no log-det")
def training_step(flow, optimizer, x):
    z, _ = flow.encode(x)
    return _update(-standard_normal_log_prob(z).mean(), optimizer)


@answers.mutant("log-det detached")
def training_step(flow, optimizer, x):
    z, logdet = flow.encode(x)
    return _update(-(standard_normal_log_prob(z) + logdet.detach()).mean(), optimizer)


@answers.mutant("drops the constant of the normal density")
def training_step(flow, optimizer, x):
    z, logdet = flow.encode(x)
    return _update((0.5 * z.square().sum(1) - logdet).mean(), optimizer)


@answers.mutant("½ log 2π once, not per coordinate")
def training_step(flow, optimizer, x):
    z, logdet = flow.encode(x)
    return _update((0.5 * z.square().sum(1) + 0.5 * math.log(2 * math.pi) - logdet).mean(), optimizer)


@answers.mutant("nats per dimension")
def training_step(flow, optimizer, x):
    return _update(_nll(flow, x) / 2, optimizer)


@answers.mutant("sum over the batch")
def training_step(flow, optimizer, x):
    return _update(_nll(flow, x) * len(x), optimizer)


@answers.mutant("no zero_grad")
def training_step(flow, optimizer, x):
    loss = _nll(flow, x)
    loss.backward()
    optimizer.step()
    return loss.item()


@answers.mutant("zero_grad only after the step")
def training_step(flow, optimizer, x):
    loss = _nll(flow, x)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@answers.mutant("step before backward")
def training_step(flow, optimizer, x):
    loss = _nll(flow, x)
    optimizer.zero_grad()
    optimizer.step()
    loss.backward()
    return loss.item()


@answers.mutant("returns the tensor with its graph")
def training_step(flow, optimizer, x):
    loss = _nll(flow, x)
    _update(loss, optimizer)
    return loss


@answers.mutant("returns the loss after the update")
def training_step(flow, optimizer, x):
    _update(_nll(flow, x), optimizer)
    return _nll(flow, x).item()


@answers.mutant("encodes twice")
def training_step(flow, optimizer, x):
    z, logdet = flow.encode(x)[0], flow.encode(x)[1]
    return _update(-(standard_normal_log_prob(z) + logdet).mean(), optimizer)


# ---------------------------------------------------------------- sample


@answers.second
def sample(flow, n, generator, temperature=1.0):
    z = torch.empty(n, flow.dims).normal_(generator=generator) * temperature
    return flow.decode(z).detach()


@answers.mutant("T²")
def sample(flow, n, generator, temperature=1.0):
    with torch.no_grad():
        return flow.decode(temperature**2 * torch.randn(n, flow.dims, generator=generator))


@answers.mutant("√T: takes T for the variance")
def sample(flow, n, generator, temperature=1.0):
    with torch.no_grad():
        return flow.decode(temperature**0.5 * torch.randn(n, flow.dims, generator=generator))


@answers.mutant("scales the points instead of the latents")
def sample(flow, n, generator, temperature=1.0):
    with torch.no_grad():
        return temperature * flow.decode(torch.randn(n, flow.dims, generator=generator))


@answers.mutant("encodes the noise")
def sample(flow, n, generator, temperature=1.0):
    with torch.no_grad():
        return flow.encode(temperature * torch.randn(n, flow.dims, generator=generator))[0]


@answers.mutant("uniform latents with the right variance")
def sample(flow, n, generator, temperature=1.0):
    with torch.no_grad():
        z = (torch.rand(n, flow.dims, generator=generator) - 0.5) * math.sqrt(12)
        return flow.decode(temperature * z)


@answers.mutant("one latent for all points")
def sample(flow, n, generator, temperature=1.0):
    with torch.no_grad():
        return flow.decode(temperature * torch.randn(1, flow.dims, generator=generator).expand(n, -1))


@answers.mutant("seeds the global generator")
def sample(flow, n, generator, temperature=1.0):
    torch.manual_seed(generator.initial_seed())
    with torch.no_grad():
        return flow.decode(temperature * torch.randn(n, flow.dims))


@answers.mutant("noise from the global generator")
def sample(flow, n, generator, temperature=1.0):
    with torch.no_grad():
        return flow.decode(temperature * torch.randn(n, flow.dims))


@answers.mutant("keeps the graph")
def sample(flow, n, generator, temperature=1.0):
    return flow.decode(temperature * torch.randn(n, flow.dims, generator=generator))
