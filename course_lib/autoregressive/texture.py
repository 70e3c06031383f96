r"""Texture synthesis by non-parametric sampling: the first autoregressive picture model has no parameters.

A pixel is drawn from the pixels whose neighbourhoods in the sample look like its own: p(pixel | known neighbours) is
estimated by all windows with distance at most (1 + ε) times the smallest,

.. math:: d(w, s) = \sum_k m_k g_k (w_k - s_k)^2 / \sum_k m_k g_k

where m marks the neighbours known so far and g is a Gaussian over the window. Efros & Leung 1999, "Texture synthesis by
non-parametric sampling", section 2. All pixels of one layer of the onion are compared with all windows in three
matrix products.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def synthesize(
    sample: Float[Tensor, "c h w"],
    start: Float[Tensor, "c H W"],
    known: Bool[Tensor, "H W"],
    window: int = 11,
    tolerance: float = 0.1,
    generator: torch.Generator | None = None,
    floor: float = 0.0,
) -> Float[Tensor, "c H W"]:
    """Grow texture from the known pixels outwards.

    Args:
        sample: the texture to imitate, in [−1, 1].
        start: the picture to fill; unknown values are ignored.
        known: which pixels stand (at least one): a seed in the middle, or everything but a hole.
        window: odd side of the neighbourhood; smaller than the texture's structures forgets them.
        tolerance: ε.
        generator: for the choice among matches.
        floor: squared grey difference that always counts as a match. With 0 an exact match is the only one, and there
            is one wherever the known pixels were copied from one place: the rest of that place follows.

    Raises:
        ValueError: even window, one below 3, a window larger than the sample, or nothing known.
    """
    if window % 2 == 0 or not 3 <= window <= min(sample.shape[1:]):
        raise ValueError(
            f"the window must be odd, at least 3 and fit into the sample {tuple(sample.shape[1:])}, got {window}"
        )
    if not known.any():
        raise ValueError("texture has to grow from something: mark at least one pixel as known")
    r, c = window // 2, len(sample)
    axis = torch.arange(window, dtype=sample.dtype) - r
    gaussian = torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * (window / 6.4) ** 2)).flatten().to(sample.device)
    windows = F.unfold(sample.unsqueeze(0), window)[0].T.contiguous()  # (N, c k²)
    squares, centres = windows.square(), windows.unflatten(1, (c, window**2))[:, :, window**2 // 2]
    canvas, known = F.pad(start * known, (r, r, r, r)), F.pad(known, (r, r, r, r))
    inside = F.pad(torch.ones_like(start[0], dtype=torch.bool), (r, r, r, r))
    while not known[inside].all():
        neighbours = F.conv2d(known[None, None].to(sample.dtype), torch.ones(1, 1, 3, 3).to(sample), padding=1)[0, 0]
        rows, columns = ((neighbours > 0) & ~known & inside).nonzero(as_tuple=True)
        # (P, c k²) windows around the layer's pixels, and which of their pixels are known
        offsets = torch.arange(window, device=sample.device) - r
        at = ((rows[:, None] + offsets)[:, :, None], (columns[:, None] + offsets)[:, None, :])
        patch = canvas[:, at[0], at[1]].movedim(0, 1).flatten(1)
        weight = (known[at[0], at[1]].flatten(1) * gaussian).repeat(1, c)
        # Σ m g (w − s)² = Σ m g w² − 2 (m g w)·s + (m g)·s²
        distance = (weight * patch.square()).sum(1, True) - 2 * (weight * patch) @ windows.T + weight @ squares.T
        distance = (distance / weight.sum(1, True)).clamp_min(0)
        # 1e-9: ties, up to rounding
        close = distance <= (distance.amin(1, True) * (1 + tolerance)).clamp_min(floor) + 1e-9
        choice = torch.multinomial(close.to(sample.dtype), 1, generator=generator)[:, 0]
        canvas[:, rows, columns] = centres[choice].T
        known[rows, columns] = True
    return canvas[:, r:-r, r:-r]
