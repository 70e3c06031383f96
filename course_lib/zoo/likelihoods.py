r"""The explicit likelihoods of lectures 04 to 08, each trained on the same digits and priced in the same unit.

``nats(name, model, v)`` is log P(v), or a lower bound of it, of pictures v of K grey values, in nats per picture:

- autoregressive models: exact;
- flows: the dequantization bound with one draw of u, log p(2(v + u)/K − 1) + d log(2/K);
- VAE: the ELBO with one draw of z, or the importance-weighted bound;
- codes: log p(x | k) + log p(k) at one k: for the VQ-VAEs the encoder's, with the probability of ink
  (1 + decoder)/2 (squared error's best answer is the conditional mean, on pixels ±1 that is 2P − 1), kept away
  from 0 and 1 by ``MARGIN``; for the dVAE −KL(q ‖ uniform) with one exact draw from q.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoencoders.dvae import DVAE, gumbel_softmax
from course_lib.autoencoders.likelihood import Bernoulli
from course_lib.autoencoders.vae import mlp_vae
from course_lib.autoencoders.vqvae import VQVAE
from course_lib.autoencoders.vqvae2 import VQVAE2, TwoLevelPrior
from course_lib.autoregressive.gated_pixelcnn import GatedPixelCNN
from course_lib.autoregressive.pixelcnn import PixelCNN
from course_lib.autoregressive.pixelcnnpp import PixelCNNpp
from course_lib.autoregressive.pixelrnn import PixelRNN
from course_lib.autoregressive.raster import EmbeddedCodes, ScaledPixels
from course_lib.autoregressive.transformer import CausalTransformer
from course_lib.core.player import Batch, BatchAt, minibatches
from course_lib.data.door import load as load_data
from course_lib.data.transforms import binarize, shifted
from course_lib.flows.glow import glow
from course_lib.flows.realnvp import realnvp
from course_lib.maths.discrete import bits_per_dim, dequantize, quantize, with_cell_noise
from course_lib.zoo.recipe import Loss, Measured, Recipe

SIDE, PIXELS = 28, 784
SHAPE = (1, SIDE, SIDE)
MARGIN = 1e-3  # a pixel of a VQ-VAE is ink with a probability in [MARGIN, 1 − MARGIN]; chosen on validation digits
WORDS = 64
GREY = frozenset({"pixelcnnpp_digits", "gated_pixelcnn_grey_digits", "realnvp_digits", "glow_digits"})  # 256 levels


def symbols(grey: Tensor, levels: int, generator: torch.Generator | None = None) -> Tensor:
    """Pictures in [−1, 1] as symbols (b, h, w): binarized anew at every call, or their 256 grey values."""
    return quantize(binarize(grey, generator) if levels == 2 else grey, levels)


@torch.no_grad()
def nats(name: str, model: nn.Module, v: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """log P(v) or a lower bound of it: (b,), in nats per picture.

    Args:
        name: of a recipe in this file.
        model: trained by it.
        v: pictures (b, 28, 28) of integers: 0 … 255 for the models in ``GREY``, 0 and 1 for all others.
        generator: for models that draw (z, u or a code).
    """
    return torch.cat([_NATS[name](model, part, generator) for part in v.split(50)])


def _exact(model: nn.Module, v: Tensor, generator: torch.Generator | None) -> Tensor:
    return model.log_prob(v)


def _elbo(model: nn.Module, v: Tensor, generator: torch.Generator | None) -> Tensor:
    return model.elbo(dequantize(v, 2), generator)


def _flow(levels: int) -> Callable[[nn.Module, Tensor, torch.Generator | None], Tensor]:
    def bound(model: nn.Module, v: Tensor, generator: torch.Generator | None) -> Tensor:
        return model.log_prob(with_cell_noise(v, levels, generator)) + PIXELS * math.log(2 / levels)

    return bound


def _ink(out: Tensor, v: Tensor) -> Tensor:
    """log p(v | code), the decoder's output being 2P − 1."""
    p = ((out + 1) / 2).clamp(MARGIN, 1 - MARGIN)
    return Bernoulli().log_prob(p.logit(), dequantize(v, 2))


def _coded(prior: nn.Module, v: Tensor, generator: torch.Generator | None) -> Tensor:
    pictures = _frozen("vqvae_digits", v.device)
    code = pictures.encode(dequantize(v, 2))
    sequence = code.flatten(1) if isinstance(prior, CausalTransformer) else code
    return _ink(pictures.decode(code), v) + prior.log_prob(sequence)


def _coded_twice(prior: nn.Module, v: Tensor, generator: torch.Generator | None) -> Tensor:
    pictures = _frozen("vqvae2_digits", v.device)
    codes = pictures.encode(_padded(dequantize(v, 2)))
    margin = (32 - SIDE) // 2  # given the codes pixels are independent: leaving the frame out is exact
    inside = pictures.decode(*codes)[..., margin:-margin, margin:-margin]
    return _ink(inside, v) + prior.log_prob(*codes)


def _dvae(model: nn.Module, v: Tensor, generator: torch.Generator | None) -> Tensor:
    x = dequantize(v, 2)
    logits = model.encoder(x)
    log_q = logits.log_softmax(1)
    kl = (log_q.exp() * (log_q + math.log(model.words))).flatten(1).sum(1)
    code = gumbel_softmax(logits, 1.0, generator).argmax(1)  # an exact draw
    out = model.decoder(F.embedding(code, model.table).movedim(-1, 1))
    return model.likelihood.log_prob(out, x) - kl


def _padded(x: Tensor) -> Tensor:
    return F.pad(x, [(32 - SIDE) // 2] * 4, value=-1.0)


@functools.cache
def _frozen(name: str, device: torch.device) -> nn.Module:
    from course_lib import zoo

    return zoo.load(name, device)


# ---------------------------------------------------------------- what is minimized


def _on_symbols(levels: int) -> Callable[[nn.Module, int], Loss]:
    return lambda model, steps: lambda x, step: model.loss(symbols(shifted(x), levels))


def _on_pictures(model: nn.Module, steps: int) -> Loss:
    return lambda x, step: model.loss(binarize(shifted(x)))


def _on_noisy(levels: int) -> Callable[[nn.Module, int], Loss]:
    return lambda model, steps: lambda x, step: model.loss(with_cell_noise(symbols(shifted(x), levels), levels))


def _vq(model: VQVAE | VQVAE2, steps: int) -> Loss:
    def loss(x: Tensor, step: int) -> Tensor:
        x = binarize(shifted(x))
        x = _padded(x) if isinstance(model, VQVAE2) else x
        if step % 20 == 0 and 0.1 * steps <= step < 0.8 * steps:  # early words move by themselves, late ones must rest
            if isinstance(model, VQVAE2):
                model.revive(x)
            else:
                model.codebook.revive(model.encoder(x))
        return model.loss(x)

    return loss


def _annealed(model: DVAE, steps: int) -> Loss:
    def loss(x: Tensor, step: int) -> Tensor:
        model.temperature = 0.1 ** (step / steps)
        return model.loss(binarize(shifted(x))) / PIXELS

    return loss


def _on_codes(model: nn.Module, steps: int) -> Loss:
    def loss(x: Tensor, step: int) -> Tensor:
        x = binarize(shifted(x))
        with torch.no_grad():
            if isinstance(model, TwoLevelPrior):
                return_codes: Batch = _frozen("vqvae2_digits", x.device).encode(_padded(x))
            else:
                code = _frozen("vqvae_digits", x.device).encode(x)
                return_codes = code.flatten(1) if isinstance(model, CausalTransformer) else code
        return model.loss(return_codes)

    return loss


# ---------------------------------------------------------------- recipes


def _batches(size: int) -> Callable[[int, torch.device], BatchAt]:
    return lambda seed, device: minibatches(load_data("digits", device=device).x, size, seed)


def _likelihood(name: str) -> Callable[[nn.Module], Measured]:
    levels = 256 if name in GREY else 2

    def measure(model: nn.Module) -> Measured:
        device = next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(0)
        v = symbols(load_data("digits", "test", device=device).x, levels, generator)
        values = -nats(name, model, v, generator).double()
        what = f"nats per digit ({'binarized' if levels == 2 else 'of 256 grey values'}), 500 test digits"
        stderr = float(values.std() / len(values) ** 0.5)
        if levels == 2:
            return Measured(what, float(values.mean()), stderr)
        scale = float(bits_per_dim(1.0, PIXELS))
        return Measured(f"bits/dim, {what}", float(values.mean()) * scale, stderr * scale)

    return measure


def _reconstruction(model: VQVAE | VQVAE2) -> Measured:
    device = next(model.parameters()).device
    x = binarize(load_data("digits", "test", device=device).x, torch.Generator(device).manual_seed(0))
    x = _padded(x) if isinstance(model, VQVAE2) else x
    with torch.no_grad():
        error = (model(x) - x).square().flatten(1).sum(1).double()
    return Measured("squared error per binarized test digit", float(error.mean()), float(error.std() / len(x) ** 0.5))


_PIXELS = ScaledPixels
RECIPES: dict[str, Recipe] = {
    "vae_digits": Recipe(
        "VAE of lecture 04 (MLP, 20 latents) on binarized digits",
        lambda: mlp_vae(SHAPE, 20), _on_pictures, _batches(128), _likelihood("vae_digits"), 6000, 1e-3, 0.999,
    ),
    "vqvae_digits": Recipe(
        f"VQ-VAE of lecture 05 on binarized digits: 7×7 symbols of {WORDS}",
        lambda: VQVAE(1, WORDS, 8, 32), _vq, _batches(64), _reconstruction, 2000, 2e-3, 0.0,
    ),
    "vqvae_pixelcnn_digits": Recipe(
        "gated PixelCNN over the codes of vqvae_digits",
        lambda: GatedPixelCNN(EmbeddedCodes(WORDS, 32), 48, 6),
        _on_codes, _batches(64), _likelihood("vqvae_pixelcnn_digits"), 2500, 3e-3, needs=("vqvae_digits",),
    ),
    "vqvae_transformer_digits": Recipe(
        "decoder-only transformer of lecture 07 over the codes of vqvae_digits",
        lambda: CausalTransformer(WORDS, 49, 96, 4, 4),
        _on_codes, _batches(64), _likelihood("vqvae_transformer_digits"), 3000, 1e-3, clip=1.0,
        needs=("vqvae_digits",),
    ),
    "vqvae2_digits": Recipe(
        "VQ-VAE-2 of lecture 05 on binarized digits, padded to 32×32: 4×4 and 8×8 symbols of 32",
        lambda: VQVAE2(1, 32, 8, 32), _vq, _batches(64), _reconstruction, 2000, 2e-3, 0.0,
    ),
    "vqvae2_prior_digits": Recipe(
        "two-level PixelCNN prior over the codes of vqvae2_digits",
        lambda: TwoLevelPrior(32, 32, 5),
        _on_codes, _batches(64), _likelihood("vqvae2_prior_digits"), 1500, 3e-3, needs=("vqvae2_digits",),
    ),
    "dvae_digits": Recipe(
        f"dVAE of lecture 05 on binarized digits: 7×7 symbols of {WORDS}, uniform prior",
        lambda: _bernoulli_dvae(), _annealed, _batches(64), _likelihood("dvae_digits"), 2000, 3e-3,
    ),
    "pixelrnn_digits": Recipe(
        "PixelRNN (diagonal BiLSTM) of lecture 06 on binarized digits",
        lambda: PixelRNN(_PIXELS(2), 16, 2), _on_symbols(2), _batches(16), _likelihood("pixelrnn_digits"),
        900, 3e-3, clip=200.0,
    ),
    "pixelcnn_digits": Recipe(
        "PixelCNN of lecture 06 on binarized digits",
        lambda: PixelCNN(_PIXELS(2), 32, 8), _on_symbols(2), _batches(16), _likelihood("pixelcnn_digits"),
        2000, 3e-3, clip=200.0,
    ),
    "gated_pixelcnn_digits": Recipe(
        "gated PixelCNN of lecture 06 on binarized digits",
        lambda: GatedPixelCNN(_PIXELS(2), 20, 10, first=27),
        _on_symbols(2), _batches(16), _likelihood("gated_pixelcnn_digits"), 3000, 3e-3, clip=200.0,
    ),
    "realnvp_binary_digits": Recipe(
        "Real NVP of lecture 08 on dequantized binarized digits",
        lambda: realnvp(SHAPE, width=32, alpha=1e-3),
        _on_noisy(2), _batches(32), _likelihood("realnvp_binary_digits"), 1200, 3e-3, clip=1.0,
    ),
    "glow_binary_digits": Recipe(
        "Glow of lecture 08 on dequantized binarized digits",
        lambda: glow(SHAPE, steps=6, width=64, alpha=1e-3),
        _on_noisy(2), _batches(32), _likelihood("glow_binary_digits"), 1200, 3e-3, clip=1.0,
    ),
    "pixelcnnpp_digits": Recipe(
        "PixelCNN++ (10 logistics) of lecture 06 on digits of 256 grey values",
        lambda: PixelCNNpp(256, 10, 20, 8, first=27),
        _on_symbols(256), _batches(16), _likelihood("pixelcnnpp_digits"), 2000, 3e-3, clip=200.0,
    ),
    "gated_pixelcnn_grey_digits": Recipe(
        "gated PixelCNN (softmax over 256) of lecture 06 on digits of 256 grey values",
        lambda: GatedPixelCNN(_PIXELS(256), 20, 8, first=27),
        _on_symbols(256), _batches(16), _likelihood("gated_pixelcnn_grey_digits"), 2000, 3e-3, clip=200.0,
    ),
    "realnvp_digits": Recipe(
        "Real NVP of lecture 08 on dequantized digits of 256 grey values",
        lambda: realnvp(SHAPE, width=32, alpha=1e-3),
        _on_noisy(256), _batches(32), _likelihood("realnvp_digits"), 3000, 3e-3, clip=1.0,
    ),
    "glow_digits": Recipe(
        "Glow of lecture 08 on dequantized digits of 256 grey values",
        lambda: glow(SHAPE, steps=8, width=96, alpha=1e-3),
        _on_noisy(256), _batches(32), _likelihood("glow_digits"), 6000, 3e-3, clip=1.0,
    ),
}  # fmt: skip


def _bernoulli_dvae() -> DVAE:
    model = DVAE(1, WORDS, 8, 32)
    model.likelihood = Bernoulli()
    return model


_NATS = {name: _exact for name in RECIPES} | {
    "vae_digits": _elbo,
    "vqvae_pixelcnn_digits": _coded,
    "vqvae_transformer_digits": _coded,
    "vqvae2_prior_digits": _coded_twice,
    "dvae_digits": _dvae,
    "realnvp_binary_digits": _flow(2),
    "glow_binary_digits": _flow(2),
    "realnvp_digits": _flow(256),
    "glow_digits": _flow(256),
}
