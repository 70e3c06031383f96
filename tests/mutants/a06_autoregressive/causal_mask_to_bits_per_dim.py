"""Answers for causal_mask, MaskedConv, SmallPixelCNN, negative_log_likelihood, bits_per_dim."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from course_lib.nn.masked import MaskedConv2d
from tests.mutants.a06_autoregressive.answers import answers

# ---------------------------------------------------------------- causal_mask


def _order(kernel):
    """Position of each tap in raster order; the centre is 0."""
    return torch.arange(kernel**2).reshape(kernel, kernel) - (kernel**2 - 1) // 2


@answers.second
def causal_mask(kernel, centre):
    shown = (kernel**2 - 1) // 2 + (1 if centre else 0)
    return torch.cat([torch.ones(shown), torch.zeros(kernel**2 - shown)]).view(kernel, kernel)


@answers.mutant("A and B exchanged")
def causal_mask(kernel, centre):
    return (_order(kernel) < int(not centre)).float()


@answers.mutant("always shows the centre")
def causal_mask(kernel, centre):
    return (_order(kernel) <= 0).float()


@answers.mutant("column order instead of raster order")
def causal_mask(kernel, centre):
    return (_order(kernel) < int(centre)).float().T


@answers.mutant("flipped: shows what comes after")
def causal_mask(kernel, centre):
    return (_order(kernel) < int(centre)).float().flip(0, 1)


@answers.mutant("forgets the own row")
def causal_mask(kernel, centre):
    mask = torch.zeros(kernel, kernel)
    mask[: kernel // 2] = 1
    mask[kernel // 2, kernel // 2] = float(centre)
    return mask


@answers.mutant("cuts the upper right off: a quarter plane")
def causal_mask(kernel, centre):
    mask = (_order(kernel) < int(centre)).float()
    mask[:, kernel // 2 + 1 :] = 0
    return mask


@answers.mutant("a mask of booleans")
def causal_mask(kernel, centre):
    return _order(kernel) < int(centre)


# ---------------------------------------------------------------- MaskedConv


@answers.second
class MaskedConv(nn.Conv2d):
    """PyTorch's layer, with a kernel that is masked on the way in."""

    def __init__(self, fan_in, fan_out, mask):
        super().__init__(fan_in, fan_out, mask.shape[-1], padding="same")
        self.register_buffer("shown", mask.bool())

    def forward(self, x):
        return self._conv_forward(x, self.weight.masked_fill(~self.shown, 0.0), self.bias)


class _RightConv(nn.Module):
    """The right layer, for mutants that change one thing."""

    def __init__(self, fan_in, fan_out, mask):
        super().__init__()
        self.register_buffer("mask", mask)
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, *mask.shape))
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.mask.shape[-1] // 2)


@answers.mutant("masks the weights once, at the start")
class MaskedConv(_RightConv):
    def __init__(self, fan_in, fan_out, mask):
        super().__init__(fan_in, fan_out, mask)
        self.weight.data *= mask

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, padding=self.mask.shape[-1] // 2)


@answers.mutant("no padding")
class MaskedConv(_RightConv):
    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias)


@answers.mutant("the mask is a parameter")
class MaskedConv(_RightConv):
    def __init__(self, fan_in, fan_out, mask):
        super().__init__(fan_in, fan_out, mask)
        del self.mask
        self.mask = nn.Parameter(mask.clone())


@answers.mutant("the mask is a plain attribute")
class MaskedConv(_RightConv):
    def __init__(self, fan_in, fan_out, mask):
        super().__init__(fan_in, fan_out, mask)
        del self.mask
        self.mask = mask


@answers.mutant("multiplies .data: hidden taps keep a gradient")
class MaskedConv(_RightConv):
    def forward(self, x):
        self.weight.data *= self.mask
        return F.conv2d(x, self.weight, self.bias, padding=self.mask.shape[-1] // 2)


@answers.mutant("true convolution: flips the kernel")
class MaskedConv(_RightConv):
    def forward(self, x):
        kernel = (self.weight * self.mask).flip(2, 3)
        return F.conv2d(x, kernel, self.bias, padding=self.mask.shape[-1] // 2)


@answers.mutant("forgets the bias")
class MaskedConv(_RightConv):
    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, padding=self.mask.shape[-1] // 2)


@answers.mutant("detaches the kernel")
class MaskedConv(_RightConv):
    def forward(self, x):
        return F.conv2d(x, (self.weight * self.mask).detach(), self.bias, padding=self.mask.shape[-1] // 2)


# ---------------------------------------------------------------- SmallPixelCNN


@answers.second
class SmallPixelCNN(nn.Module):
    """Residual blocks in a list, with a smooth nonlinearity."""

    def __init__(self, levels, width, layers):
        super().__init__()
        self.first = MaskedConv2d(1, width, 7, False)
        self.later = nn.ModuleList([MaskedConv2d(width, width, 3, True) for _ in range(layers)])
        self.last = nn.Conv2d(width, levels, kernel_size=1)

    def forward(self, x):
        h = self.first(x)
        for conv in self.later:
            h = h + conv(F.silu(h))
        return self.last(F.silu(h))


class _RightNetwork(nn.Module):
    """The right network, for mutants that change one thing."""

    nonlinearity = nn.ReLU
    first_centre, later_centre = False, True

    def __init__(self, levels, width, layers):
        super().__init__()
        self.first = self.first_layer(width)
        self.later = nn.ModuleList(self.later_layer(width) for _ in range(layers))
        self.last = nn.Conv2d(width, levels, 1)
        self.bend = self.nonlinearity()

    def first_layer(self, width):
        return MaskedConv2d(1, width, 7, self.first_centre)

    def later_layer(self, width):
        return MaskedConv2d(width, width, 3, self.later_centre)

    def forward(self, x):
        h = self.bend(self.first(x))
        for conv in self.later:
            h = self.bend(conv(h))
        return self.last(h)


@answers.mutant("mask B in the first layer: the pixel sees itself")
class SmallPixelCNN(_RightNetwork):
    first_centre = True


@answers.mutant("mask A in every layer")
class SmallPixelCNN(_RightNetwork):
    later_centre = False


@answers.mutant("A and B exchanged")
class SmallPixelCNN(_RightNetwork):
    first_centre, later_centre = True, False


@answers.mutant("ordinary 3×3 convolutions after the first layer")
class SmallPixelCNN(_RightNetwork):
    def later_layer(self, width):
        return nn.Conv2d(width, width, 3, padding=1)


@answers.mutant("normalizes over the picture: its mean leaks")
class SmallPixelCNN(_RightNetwork):
    def later_layer(self, width):
        return nn.Sequential(nn.GroupNorm(1, width, affine=False), super().later_layer(width))


@answers.mutant("normalizes over the batch")
class SmallPixelCNN(_RightNetwork):
    def later_layer(self, width):
        return nn.Sequential(nn.BatchNorm2d(width, affine=False), super().later_layer(width))


@answers.mutant("no nonlinearity")
class SmallPixelCNN(_RightNetwork):
    nonlinearity = nn.Identity


@answers.mutant("probabilities instead of logits")
class SmallPixelCNN(_RightNetwork):
    def forward(self, x):
        return super().forward(x).softmax(1)


@answers.mutant("one masked layer used again and again")
class SmallPixelCNN(_RightNetwork):
    def __init__(self, levels, width, layers):
        super().__init__(levels, width, layers)
        self.later = nn.ModuleList(list(self.later[:1]) * layers)


@answers.mutant("one layer too few")
class SmallPixelCNN(_RightNetwork):
    def __init__(self, levels, width, layers):
        super().__init__(levels, width, max(0, layers - 1))


@answers.mutant("shifts the logits by one place: they belong to the next symbol")
class SmallPixelCNN(_RightNetwork):
    def forward(self, x):
        return F.pad(super().forward(x), (1, 0))[..., :-1]


# ---------------------------------------------------------------- negative_log_likelihood


@answers.second
def negative_log_likelihood(logits, v):
    chosen = logits.gather(1, v[:, None]).squeeze(1)
    return (torch.logsumexp(logits, 1) - chosen).flatten(1).sum(1)


@answers.mutant("mean over pixels")
def negative_log_likelihood(logits, v):
    return F.cross_entropy(logits, v, reduction="none").mean((1, 2))


@answers.mutant("one number for the batch")
def negative_log_likelihood(logits, v):
    return F.cross_entropy(logits, v, reduction="sum")


@answers.mutant("sign flipped: the log-likelihood")
def negative_log_likelihood(logits, v):
    return -F.cross_entropy(logits, v, reduction="none").sum((1, 2))


@answers.mutant("softmax, then log")
def negative_log_likelihood(logits, v):
    return -logits.softmax(1).log().gather(1, v[:, None]).sum((1, 2, 3))


@answers.mutant("softmax, then log of a clamped probability")
def negative_log_likelihood(logits, v):
    return -logits.softmax(1).clamp(min=1e-8).log().gather(1, v[:, None]).sum((1, 2, 3))


@answers.mutant("softmax over the wrong axis")
def negative_log_likelihood(logits, v):
    return -logits.log_softmax(-1).gather(1, v[:, None]).sum((1, 2, 3))


@answers.mutant("forgets to normalize")
def negative_log_likelihood(logits, v):
    return -logits.gather(1, v[:, None]).sum((1, 2, 3))


@answers.mutant("shifts once more: logits at i against the next symbol")
def negative_log_likelihood(logits, v):
    flat = logits.flatten(2)[:, :, :-1]
    return F.cross_entropy(flat, v.flatten(1)[:, 1:], reduction="none").sum(1)


@answers.mutant("bits")
def negative_log_likelihood(logits, v):
    return F.cross_entropy(logits, v, reduction="none").sum((1, 2)) / math.log(2)


# ---------------------------------------------------------------- bits_per_dim


@answers.second
def bits_per_dim(log_p, dims, levels=None):
    if levels is not None:
        log_p = log_p + dims * (math.log(2) - math.log(levels))
    return log_p / dims * -math.log2(math.e)


def _bits(log_p, dims):
    return -log_p / (dims * math.log(2))


@answers.mutant("nats per dimension")
def bits_per_dim(log_p, dims, levels=None):
    return -log_p / dims + (math.log(levels / 2) if levels else 0)


@answers.mutant("bits per picture")
def bits_per_dim(log_p, dims, levels=None):
    return -log_p / math.log(2) + (dims * math.log2(levels / 2) if levels else 0)


@answers.mutant("sign flipped")
def bits_per_dim(log_p, dims, levels=None):
    return -_bits(log_p, dims) + (math.log2(levels / 2) if levels else 0)


@answers.mutant("a density taken for a probability: no offset")
def bits_per_dim(log_p, dims, levels=None):
    return _bits(log_p, dims)


@answers.mutant("offset log₂ K: the interval has length 2, not 1")
def bits_per_dim(log_p, dims, levels=None):
    return _bits(log_p, dims) + (math.log2(levels) if levels else 0)


@answers.mutant("offset with the wrong sign")
def bits_per_dim(log_p, dims, levels=None):
    return _bits(log_p, dims) - (math.log2(levels / 2) if levels else 0)


@answers.mutant("offset log₂ (K − 1)/2, as for a grid without dequantization")
def bits_per_dim(log_p, dims, levels=None):
    return _bits(log_p, dims) + (math.log2((levels - 1) / 2) if levels else 0)


@answers.mutant("offset once for the picture instead of once for each dimension")
def bits_per_dim(log_p, dims, levels=None):
    return _bits(log_p, dims) + (math.log2(levels / 2) / dims if levels else 0)


@answers.mutant("the 256 levels are a constant")
def bits_per_dim(log_p, dims, levels=None):
    return _bits(log_p, dims) + (7 if levels else 0)


@answers.mutant("mean over the batch")
def bits_per_dim(log_p, dims, levels=None):
    return (_bits(log_p, dims) + (math.log2(levels / 2) if levels else 0)).mean()
