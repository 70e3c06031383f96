"""Answers for holes, palette_loss."""

from __future__ import annotations

import torch

from tests.mutants.a21_guidance.answers import answers


def _column(values, like):
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


# ---------------------------------------------------------------- holes


@answers.second
def holes(n, size, low, high):
    # floor of a uniform number in [0, m): every integer below m equally often
    sides = low + (torch.rand(n, 2, dtype=torch.float64) * (high - low + 1)).floor()
    first = (torch.rand(n, 2, dtype=torch.float64) * (size - sides + 1)).floor()
    pixel = torch.arange(size)
    inside = (pixel >= first[..., None]) & (pixel < (first + sides)[..., None])  # (n, 2, size)
    return (inside[:, 0, :, None] & inside[:, 1, None, :]).float()[:, None]


def _holes(n, size, sides, corner):
    mask = torch.zeros(n, 1, size, size)
    for one in mask:
        height, width = sides()
        top, left = corner(height), corner(width)
        one[:, top : top + height, left : left + width] = 1
    return mask


def _sides(low, high):
    return lambda: torch.randint(low, high + 1, (2,)).tolist()


def _corner(size):
    return lambda side: int(torch.randint(0, size - side + 1, ()))


@answers.mutant("1 where the picture is given")
def holes(n, size, low, high):
    return 1 - _holes(n, size, _sides(low, high), _corner(size))


@answers.mutant("one hole for the whole batch")
def holes(n, size, low, high):
    return _holes(1, size, _sides(low, high), _corner(size)).repeat(n, 1, 1, 1)


@answers.mutant("squares")
def holes(n, size, low, high):
    return _holes(n, size, lambda: [int(torch.randint(low, high + 1, ()))] * 2, _corner(size))


@answers.mutant("high is never drawn")
def holes(n, size, low, high):
    return _holes(n, size, _sides(low, max(low, high - 1)), _corner(size))


@answers.mutant("low is never drawn")
def holes(n, size, low, high):
    return _holes(n, size, _sides(min(low + 1, high), high), _corner(size))


@answers.mutant("the last row and column are never reached")
def holes(n, size, low, high):
    return _holes(n, size, _sides(low, high), lambda side: int(torch.randint(0, max(size - side, 1), ())))


@answers.mutant("the first row and column are never reached")
def holes(n, size, low, high):
    return _holes(n, size, _sides(low, high), lambda side: int(torch.randint(min(1, size - side), size - side + 1, ())))


@answers.mutant("sticks out: places as for the smallest hole")
def holes(n, size, low, high):
    return _holes(n, size, _sides(low, high), lambda side: int(torch.randint(0, size - low + 1, ())))


@answers.mutant("always in the middle")
def holes(n, size, low, high):
    return _holes(n, size, _sides(low, high), lambda side: (size - side) // 2)


@answers.mutant("on the diagonal: one number for both corners")
def holes(n, size, low, high):
    mask = torch.zeros(n, 1, size, size)
    for one in mask:
        height, width = torch.randint(low, high + 1, (2,)).tolist()
        u = torch.rand(())
        top, left = int(u * (size - height + 1)), int(u * (size - width + 1))
        one[:, top : top + height, left : left + width] = 1
    return mask


@answers.mutant("only the rim of the rectangle")
def holes(n, size, low, high):
    mask = _holes(n, size, _sides(low, high), _corner(size))
    return mask * (torch.nn.functional.avg_pool2d(mask, 3, 1, 1) < 1)


@answers.mutant("no axis for channels")
def holes(n, size, low, high):
    return _holes(n, size, _sides(low, high), _corner(size))[:, 0]


@answers.mutant("three channels")
def holes(n, size, low, high):
    return _holes(n, size, _sides(low, high), _corner(size)).repeat(1, 3, 1, 1)


@answers.mutant("bool")
def holes(n, size, low, high):
    return _holes(n, size, _sides(low, high), _corner(size)).bool()


@answers.mutant("the same holes at every call")
def holes(n, size, low, high):
    rng = torch.Generator().manual_seed(1)
    sides = lambda: torch.randint(low, high + 1, (2,), generator=rng).tolist()  # noqa: E731
    return _holes(n, size, sides, lambda side: int(torch.randint(0, size - side + 1, (), generator=rng)))


@answers.mutant("random pixels instead of a rectangle")
def holes(n, size, low, high):
    return (torch.rand(n, 1, size, size) < ((low + high) / 2 / size) ** 2).float()


# ---------------------------------------------------------------- palette_loss


@answers.second
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    angle = torch.arccos(alpha_bar.sqrt())[:, None, None, None]  # ᾱ = cos², 1 − ᾱ = sin²
    wanted = mask.bool().expand_as(x0)
    rotated, velocity = angle.cos() * x0 + angle.sin() * eps, angle.cos() * eps - angle.sin() * x0
    read = torch.cat([torch.where(wanted, rotated, x0), given, mask], dim=1)
    return torch.nn.functional.mse_loss(network(read, alpha_bar)[wanted], velocity[wanted])


def _loss(
    network,
    x0,
    given,
    mask,
    alpha_bar,
    eps,
    *,
    roots=None,
    noise_in=None,
    rest=None,
    read=None,
    target=None,
    reduce=None,
    told=None,
):
    """The loss, any part of it exchanged."""
    a = _column(alpha_bar, x0)
    signal, noise = roots(a) if roots else (a.sqrt(), (1 - a).sqrt())
    where = mask if noise_in is None else noise_in
    xt = where * (signal * x0 + noise * eps) + (1 - where) * (x0 if rest is None else rest)
    parts = read(xt, given, mask) if read else [xt, given, mask]
    out = network(torch.cat(parts, 1), alpha_bar if told is None else told)
    error = (out - (target(signal, noise) if target else signal * eps - noise * x0)).square()
    return reduce(error) if reduce else (mask * error).sum() / (mask.sum() * x0.shape[1])


@answers.mutant("noise everywhere")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, noise_in=torch.ones_like(mask))


@answers.mutant("noise outside of the hole: the mask the other way round in x_t")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, noise_in=1 - mask)


@answers.mutant("zeros, not the picture, where it is given")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, rest=torch.zeros_like(x0))


@answers.mutant("the picture outside of the hole shrunk by √ᾱ")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, rest=_column(alpha_bar, x0).sqrt() * x0)


@answers.mutant("the error of all pixels")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, reduce=torch.mean)


@answers.mutant("masked, but divided by all pixels")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, reduce=lambda e: (mask * e).mean())


@answers.mutant("divided by Σ m, the channels forgotten")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, reduce=lambda e: (mask * e).sum() / mask.sum())


@answers.mutant("the mean of the pictures' means: small holes count as much as large ones")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    def reduce(e):
        return ((mask * e).flatten(1).sum(1) / (mask.flatten(1).sum(1) * e.shape[1])).mean()

    return _loss(network, x0, given, mask, alpha_bar, eps, reduce=reduce)


@answers.mutant("the sum")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, reduce=lambda e: (mask * e).sum())


@answers.mutant("the error where the picture is given")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    def reduce(e):
        return ((1 - mask) * e).sum() / ((1 - mask).sum() * e.shape[1]).clamp_min(1)

    return _loss(network, x0, given, mask, alpha_bar, eps, reduce=reduce)


@answers.mutant("ε as the target")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, target=lambda signal, noise: eps)


@answers.mutant("x_0 as the target")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, target=lambda signal, noise: x0)


@answers.mutant("the sign of v")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, target=lambda s, n: n * x0 - s * eps)


@answers.mutant("plus in v")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, target=lambda s, n: s * eps + n * x0)


@answers.mutant("√ missing")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, roots=lambda a: (a, 1 - a))


@answers.mutant("the first example's ᾱ for the batch")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    a = alpha_bar[:1].expand_as(alpha_bar)
    return _loss(network, x0, given, mask, a, eps, told=alpha_bar)


@answers.mutant("the truth shown to the network: x_0 for what is given")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, read=lambda xt, y, m: [xt, x0, m])


@answers.mutant("what is given first, then x_t")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, read=lambda xt, y, m: [y, xt, m])


@answers.mutant("the mask first")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, read=lambda xt, y, m: [m, xt, y])


@answers.mutant("no mask among the channels")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, read=lambda xt, y, m: [xt, y])


@answers.mutant("the mask of what is given")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, read=lambda xt, y, m: [xt, y, 1 - m])


@answers.mutant("the network is told √ᾱ")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(network, x0, given, mask, alpha_bar, eps, told=alpha_bar.sqrt())


@answers.mutant("the network's answer detached")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return _loss(lambda *read: network(*read).detach(), x0, given, mask, alpha_bar, eps)


@answers.mutant("asked twice")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    return (_loss(network, x0, given, mask, alpha_bar, eps) + _loss(network, x0, given, mask, alpha_bar, eps)) / 2


@answers.mutant("absolute differences")
def palette_loss(network, x0, given, mask, alpha_bar, eps):
    def reduce(e):
        return (mask * e.sqrt()).sum() / (mask.sum() * e.shape[1])

    return _loss(network, x0, given, mask, alpha_bar, eps, reduce=reduce)
