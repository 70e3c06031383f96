r"""PixelRNN with diagonal BiLSTM layers.

The map is skewed: row i moves i places to the right, so that a column of the skewed map is a diagonal of the picture. A
convolutional LSTM then walks over the columns; its 2-tap state-to-state convolution sees (i, j−1) and (i−1, j) and
so, over many steps, everything above and to the left. A second LSTM does the same on the mirrored map; its output moves
down one row before the two are added, or it would see pixels to the right in its own row.

Van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural networks", sections 3.2–3.3, figures 3 and 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoregressive.raster import naive, raster_log_prob, sample_raster
from course_lib.nn.masked import MaskedConv2d


def skew(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w2"]:
    """Shift row i right by i places: (h, w) becomes (h, w + h − 1)."""
    h, w = x.shape[2:]
    # padding every row by h and cutting the flat map into rows one shorter moves each row one further
    return F.pad(x, (0, h)).flatten(2)[..., : h * (w + h - 1)].unflatten(2, (h, w + h - 1))


def unskew(x: Float[Tensor, "b c h w2"]) -> Float[Tensor, "b c h w"]:
    """Undo ``skew``."""
    h, skewed = x.shape[2:]
    return F.pad(x.flatten(2), (0, h)).unflatten(2, (h, skewed + 1))[..., : skewed - h + 1]


class DiagonalLSTM(nn.Module):
    """LSTM along the diagonals: input-to-state 1×1, state-to-state 2×1 over the column before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = MaskedConv2d(width, 4 * width, 1, centre=True)
        self.state = nn.Conv1d(width, 4 * width, 2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        inputs = skew(self.input(x))  # (b, 4c, h, w + h − 1)
        b, c4, h, _ = inputs.shape
        hidden = cell = x.new_zeros(b, c4 // 4, h)
        outputs = []
        for column in inputs.unbind(-1):
            i, f, o, g = (column + self.state(F.pad(hidden, (1, 0)))).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return unskew(torch.stack(outputs, -1))


class DiagonalBiLSTM(nn.Module):
    """Both directions, and a residual connection around them (section 3.3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.right, self.left = DiagonalLSTM(width), DiagonalLSTM(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        from_left = self.right(x)
        from_right = self.left(x.flip(-1)).flip(-1)
        one_row_down = F.pad(from_right, (0, 0, 1, 0))[:, :, :-1]
        return x + self.out(from_left + one_row_down)


class PixelRNN(nn.Module):
    """Pictures of ``levels`` symbols.

    Args:
        embed: symbols (b, h, w) to (b, embed.channels, h, w), pointwise.
        width: channels of the LSTMs.
        layers: diagonal BiLSTM layers after the 7×7 first layer (mask A).
    """

    def __init__(self, embed: nn.Module, width: int = 16, layers: int = 2) -> None:
        super().__init__()
        self.embed, self.levels = embed, embed.levels
        self.first = MaskedConv2d(embed.channels, width, 7, centre=False)
        self.layers = nn.Sequential(*(DiagonalBiLSTM(width) for _ in range(layers)))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, self.levels, 1)
        )

    def logits(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, "b k h w"]:
        """Logits of p(v_i | v_<i) at every position."""
        # a column beyond the right edge: no feature of a row but this one knows the row's last pixel, and the LSTM that
        # comes from the right hands it on to the row below (without it, that pixel is a blind spot)
        x = F.pad(self.embed(v), (0, 1))
        return self.head(self.layers(self.first(x))[..., :-1])

    def log_prob(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, " b"]:
        """Exact log-probability of each picture, in nats."""
        return raster_log_prob(self.logits(v), v)

    def loss(self, v: Int[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """−log p in nats per picture, averaged over the batch."""
        return -self.log_prob(v).mean()

    @torch.no_grad()
    def sample(self, n: int, shape: tuple[int, int], generator: torch.Generator | None = None) -> Int[Tensor, "n h w"]:
        """n pictures of the given (h, w); every pixel costs a pass over the rows so far."""
        v = torch.zeros(n, *shape, dtype=torch.long, device=self.first.bias.device)
        return self.complete(v, torch.zeros(shape, dtype=torch.bool), generator)

    @torch.no_grad()
    def complete(
        self, v: Int[Tensor, "b h w"], known: Tensor, generator: torch.Generator | None = None
    ) -> Int[Tensor, "b h w"]:
        """Draw the pixels where ``known`` (h, w) is False, given those before them."""
        so_far = naive(self.logits)
        return sample_raster(lambda u, row, column: so_far(u[:, : row + 1], row, column), v, known, generator)
