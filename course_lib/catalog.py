"""Every system once: what it is called, how to build a tiny one, where it comes from, where it is taught.

The contract tests run over this list: a system that is missing here is not tested for gradients, shapes, state-dict
round trip, determinism and device placement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.autoencoders.autoencoder import conv_autoencoder, linear_autoencoder, mlp_autoencoder
from course_lib.autoencoders.conditional_vae import ConditionalVAE
from course_lib.autoencoders.dvae import DVAE
from course_lib.autoencoders.likelihood import Gaussian
from course_lib.autoencoders.vae import conv_vae, mlp_vae
from course_lib.autoencoders.vqvae import VQVAE
from course_lib.autoencoders.vqvae2 import VQVAE2, TwoLevelPrior
from course_lib.autoregressive.gated_pixelcnn import GatedPixelCNN
from course_lib.autoregressive.pixelcnn import PixelCNN
from course_lib.autoregressive.pixelcnnpp import PixelCNNpp
from course_lib.autoregressive.pixelrnn import PixelRNN
from course_lib.autoregressive.raster import EmbeddedCodes, ScaledPixels
from course_lib.autoregressive.transformer import CausalTransformer
from course_lib.autoregressive.wavenet import WaveNet
from course_lib.core.player import Batch
from course_lib.diffusion.ddpm import DDPM
from course_lib.diffusion.edm import clipped, heun, karras_sigmas
from course_lib.diffusion.guidance import NoisyClassifier, classifier_guidance
from course_lib.diffusion.p2 import p2_weight
from course_lib.diffusion.palette import Palette, colorization, inpainting, outpainting
from course_lib.diffusion.parametrization import VELOCITY, X0
from course_lib.energy.ebm import Chain, conv_ebm, mlp_ebm
from course_lib.energy.ncsn import mlp_ncsn, unet_ncsn
from course_lib.energy.score_matching import denoising, implicit_loss, mlp_score, sliced
from course_lib.flows.glow import glow
from course_lib.flows.realnvp import realnvp, realnvp_2d
from course_lib.gans.acgan import conv_acgan
from course_lib.gans.cgan import cgan, mlp_cgan
from course_lib.gans.dcgan import dcgan
from course_lib.gans.diffaugment import brightness, contrast, cutout, diffaugment, translation
from course_lib.gans.ebgan import conv_ebgan, mlp_ebgan
from course_lib.gans.gan import GAN, MINIMAX, mlp_gan
from course_lib.gans.infogan import conv_infogan
from course_lib.gans.least_squares_gan import least_squares_gan
from course_lib.gans.loss_sensitive import LossSensitiveGAN
from course_lib.gans.msgan import MSGAN
from course_lib.gans.networks import conv_discriminator, conv_generator, mlp_discriminator, mlp_generator
from course_lib.gans.r1 import r1
from course_lib.gans.spectral_norm import sngan
from course_lib.gans.wgan import WGAN
from course_lib.gans.wgan_gp import wgan_gp
from course_lib.maths.schedules import cosine_schedule, linear_schedule
from course_lib.nn.unet import AdaptiveGroupNorm, Added, UNet, UNetConfig

PICTURE = (1, 8, 8)
LEVELS = 5  # grey values or code words of the tiny autoregressive models


@dataclass(frozen=True)
class System:
    """One row of the course.

    Attributes:
        name: the field's name for it.
        build: constructs a tiny one (seconds to train, not useful).
        batch: ``batch(n, device)``: random input for its loss.
        sample: ``sample(model, n)``: what it generates (for an autoencoder: decoded codes).
        shape: of one sample.
        paper: authors and year.
        lecture: number of the lecture that teaches it.
        symbols: K where a sample consists of integers 0 … K − 1; None where it is made of real numbers.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[int, torch.device], Batch]
    sample: Callable[[nn.Module, int], Tensor]
    shape: tuple[int, ...]
    paper: str
    lecture: str
    symbols: int | None = None


def _pictures(n: int, device: torch.device) -> Tensor:
    return torch.rand(n, *PICTURE, device=device) * 2 - 1


def _labelled(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _pictures(n, device), torch.randint(10, (n,), device=device)


def _decoded(model: nn.Module, n: int) -> Tensor:
    weight = next(model.parameters())
    return model.decode(torch.randn(n, 3, device=weight.device, dtype=weight.dtype))


def _of_labels(model: nn.Module, n: int) -> Tensor:
    return model.sample(torch.arange(n, device=next(model.parameters()).device) % 10)


def _sampled(model: nn.Module, n: int) -> Tensor:
    return model.sample(n)


def _symbols(*shape: int) -> Callable[[int, torch.device], Tensor]:
    return lambda n, device: torch.randint(LEVELS, (n, *shape), device=device)


def _labelled_symbols(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _symbols(4, 4)(n, device), torch.randint(10, (n,), device=device)


def _two_maps(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _symbols(2, 2)(n, device), _symbols(4, 4)(n, device)


def _points(n: int, device: torch.device) -> Tensor:
    return torch.randn(n, 2, device=device)


def _decoded_words(*sides: int) -> Callable[[nn.Module, int], Tensor]:
    """Pictures of random maps of words, one map per side."""

    def sample(model: nn.Module, n: int) -> Tensor:
        device = next(model.parameters()).device
        return model.decode(*(torch.randint(LEVELS, (n, side, side), device=device) for side in sides))

    return sample


def _drawn(model: nn.Module, n: int) -> Tensor:
    return model.sample(n, (4, 4))


def _drawn_of_labels(model: nn.Module, n: int) -> Tensor:
    return model.sample(n, (4, 4), torch.arange(n, device=next(model.parameters()).device) % 10)


def _one_of_each_label(model: nn.Module, n: int) -> Tensor:
    return model.sample(n, torch.arange(n, device=next(model.parameters()).device) % 10)


def _mlp_pair() -> tuple[nn.Module, nn.Module, int]:
    """Generator and discriminator of points, and the length of a code."""
    return mlp_generator(2, 2, 16), mlp_discriminator(2, 16), 2


def _conv_pair() -> tuple[nn.Module, nn.Module, int]:
    """The same for tiny pictures."""
    return conv_generator(3, 1, 8, 4), conv_discriminator(1, 8, 4), 3


def _augmented_gan() -> GAN:
    return GAN(*_conv_pair(), augment=diffaugment(brightness, contrast, translation, cutout))


def _tiny_unet(fan_in: int, fan_out: int, classes: int = 0, modulation: Callable = AdaptiveGroupNorm) -> UNet:
    return UNet(fan_in, fan_out, UNetConfig(8, (1, 2), 1, (1,), classes, modulation=modulation))


def _colours(n: int, device: torch.device) -> Tensor:
    return torch.rand(n, 3, 8, 8, device=device) * 2 - 1


def _restored(model: nn.Module, n: int) -> Tensor:
    weight = next(model.parameters())
    given, mask = inpainting(_colours(n, weight.device).to(weight.dtype))
    return model.restore(given, mask, steps=3)


def _guided(model: nn.Module, n: int) -> Tensor:
    """Pictures that a classifier alone makes, from a denoiser that knows one grey picture."""
    weight = next(model.parameters())
    x = torch.randn(n, *PICTURE, device=weight.device, dtype=weight.dtype)
    labels = torch.arange(n, device=weight.device) % 10
    guided = classifier_guidance(lambda x, sigma: torch.zeros_like(x), model.log_prob_of(labels), 1.0)
    return heun(clipped(guided), x, karras_sigmas(2, highest=1.0))


_SYSTEMS = (
    System("linear autoencoder", lambda: linear_autoencoder(PICTURE, 3), _pictures, _decoded, PICTURE,
           "Baldi & Hornik 1989", "03"),
    System("MLP autoencoder", lambda: mlp_autoencoder(PICTURE, 3, 16), _pictures, _decoded, PICTURE,
           "Hinton & Salakhutdinov 2006", "03"),
    System("convolutional autoencoder", lambda: conv_autoencoder(1, 8, 3, 4), _pictures, _decoded, PICTURE,
           "Hinton & Salakhutdinov 2006", "03"),
    System("VAE", lambda: mlp_vae(PICTURE, 3, hidden=16), _pictures, _sampled, PICTURE,
           "Kingma & Welling 2014", "04"),
    System("VAE, Gaussian pixels", lambda: mlp_vae(PICTURE, 3, Gaussian(0.3), 16), _pictures, _sampled, PICTURE,
           "Kingma & Welling 2014", "04"),
    System("convolutional VAE", lambda: conv_vae(1, 8, 3, width=4), _pictures, _sampled, PICTURE,
           "Kingma & Welling 2014", "04"),
    System("β-VAE", lambda: mlp_vae(PICTURE, 3, hidden=16, beta=4.0), _pictures, _sampled, PICTURE,
           "Higgins et al. 2017", "04"),
    System("conditional VAE", lambda: ConditionalVAE(PICTURE, 10, 3, 16), _labelled, _of_labels, PICTURE,
           "Sohn, Lee & Yan 2015", "04"),
    System("VQ-VAE", lambda: VQVAE(1, LEVELS, 3, 8), _pictures, _decoded_words(2), PICTURE,
           "van den Oord, Vinyals & Kavukcuoglu 2017", "05"),
    System("dVAE", lambda: DVAE(1, LEVELS, 3, 8), _pictures, _decoded_words(2), PICTURE,
           "Ramesh et al. 2021", "05"),
    System("VQ-VAE-2", lambda: VQVAE2(1, LEVELS, 3, 8), _pictures, _decoded_words(1, 2), PICTURE,
           "Razavi, van den Oord & Vinyals 2019", "05"),
    System("VQ-VAE-2 prior", lambda: TwoLevelPrior(LEVELS, 8, 2), _two_maps,
           lambda model, n: model.sample(n, (2, 2))[1], (4, 4), "Razavi, van den Oord & Vinyals 2019", "05", LEVELS),
    System("PixelRNN", lambda: PixelRNN(ScaledPixels(LEVELS), 8, 1), _symbols(4, 4), _drawn, (4, 4),
           "van den Oord, Kalchbrenner & Kavukcuoglu 2016", "06", LEVELS),
    System("PixelCNN", lambda: PixelCNN(ScaledPixels(LEVELS), 8, 2), _symbols(4, 4), _drawn, (4, 4),
           "van den Oord, Kalchbrenner & Kavukcuoglu 2016", "06", LEVELS),
    System("gated PixelCNN", lambda: GatedPixelCNN(EmbeddedCodes(LEVELS, 4), 8, 3), _symbols(4, 4), _drawn, (4, 4),
           "van den Oord et al. 2016", "06", LEVELS),
    System("class-conditional PixelCNN", lambda: GatedPixelCNN(ScaledPixels(LEVELS), 8, 3, 10), _labelled_symbols,
           _drawn_of_labels, (4, 4), "van den Oord et al. 2016", "06", LEVELS),
    System("PixelCNN++", lambda: PixelCNNpp(LEVELS, 2, 8, 3), _symbols(4, 4), _drawn, (4, 4),
           "Salimans et al. 2017", "06", LEVELS),
    System("WaveNet", lambda: WaveNet(LEVELS, 8, 8, 3), _symbols(12), lambda model, n: model.sample(n, 12), (12,),
           "van den Oord et al. 2016", "07", LEVELS),
    System("transformer over codes", lambda: CausalTransformer(LEVELS, 12, 8, 2, 2), _symbols(12), _sampled, (12,),
           "Esser, Rombach & Ommer 2021", "07", LEVELS),
    System("Real NVP in the plane", lambda: realnvp_2d(4, 8), _points, _sampled, (2,),
           "Dinh, Sohl-Dickstein & Bengio 2017", "08"),
    System("Real NVP", lambda: realnvp(PICTURE, 2, 8), _pictures, _sampled, PICTURE,
           "Dinh, Sohl-Dickstein & Bengio 2017", "08"),
    System("Glow", lambda: glow(PICTURE, 2, 2, 8), _pictures, _sampled, PICTURE,
           "Kingma & Dhariwal 2018", "08"),
    System("minimax GAN", lambda: mlp_gan(2, 2, 8, MINIMAX), _points, _sampled, (2,),
           "Goodfellow et al. 2014", "09"),
    System("GAN", lambda: mlp_gan(2, 2, 8), _points, _sampled, (2,), "Goodfellow et al. 2014", "09"),
    System("DCGAN", lambda: dcgan(1, 8, 3, 4), _pictures, _sampled, PICTURE,
           "Radford, Metz & Chintala 2016", "10"),
    System("conditional GAN", lambda: cgan(1, 8, 10, 3, 4), _labelled, _one_of_each_label, PICTURE,
           "Mirza & Osindero 2014", "10"),
    System("conditional GAN of points", lambda: mlp_cgan(2, 10, 2, 8),
           lambda n, device: (_points(n, device), torch.randint(10, (n,), device=device)), _one_of_each_label, (2,),
           "Mirza & Osindero 2014", "10"),
    System("AC-GAN", lambda: conv_acgan(1, 8, 10, 3, 4), _labelled, _of_labels, PICTURE,
           "Odena, Olah & Shlens 2017", "10"),
    System("InfoGAN", lambda: conv_infogan(1, 8, 3, 4, 2, 4), _pictures, _sampled, PICTURE,
           "Chen et al. 2016", "10"),
    System("Wasserstein GAN", lambda: WGAN(*_mlp_pair(), bound=0.4), _points, _sampled, (2,),
           "Arjovsky, Chintala & Bottou 2017", "11"),
    System("WGAN-GP", lambda: wgan_gp(*_mlp_pair()), _points, _sampled, (2,), "Gulrajani et al. 2017", "11"),
    System("least-squares GAN", lambda: least_squares_gan(*_conv_pair()), _pictures, _sampled, PICTURE,
           "Mao et al. 2017", "11"),
    System("loss-sensitive GAN", lambda: LossSensitiveGAN(*_mlp_pair()), _points, _sampled, (2,), "Qi 2017", "11"),
    System("SN-GAN (hinge, spectral normalization)", lambda: sngan(*_conv_pair()), _pictures, _sampled, PICTURE,
           "Miyato et al. 2018", "11"),
    System("GAN with R1", lambda: mlp_gan(2, 2, 8, regularizers=[r1(1.0)]), _points, _sampled, (2,),
           "Mescheder, Geiger & Nowozin 2018", "11"),
    System("EBGAN", lambda: conv_ebgan(1, 8, 3, 4, 3), _pictures, _sampled, PICTURE,
           "Zhao, Mathieu & LeCun 2017", "11"),
    System("EBGAN of points", lambda: mlp_ebgan(2, 2, 8), _points, _sampled, (2,),
           "Zhao, Mathieu & LeCun 2017", "11"),
    System("MSGAN", lambda: MSGAN(cgan(1, 8, 10, 3, 4)), _labelled, _one_of_each_label, PICTURE,
           "Mao et al. 2019", "11"),
    System("GAN with DiffAugment", _augmented_gan, _pictures, _sampled, PICTURE, "Zhao et al. 2020", "11"),
    System("energy-based model of points", lambda: mlp_ebm(2, 8, Chain(steps=3), 16), _points, _sampled, (2,),
           "Du & Mordatch 2019", "18"),
    System("energy-based model", lambda: conv_ebm(1, 8, 4, buffer=16), _pictures, _sampled, PICTURE,
           "Du & Mordatch 2019", "18"),
    System("score matching", lambda: mlp_score(implicit_loss, 2, 8), _points, _sampled, (2,),
           "Hyvärinen 2005", "18"),
    System("sliced score matching", lambda: mlp_score(sliced, 2, 8), _points, _sampled, (2,),
           "Song et al. 2019", "18"),
    System("denoising score matching", lambda: mlp_score(denoising(0.3), 2, 8), _points, _sampled, (2,),
           "Vincent 2011", "18"),
    System("NCSN of points", lambda: mlp_ncsn(2, 8), _points, _sampled, (2,), "Song & Ermon 2019", "18"),
    System("NCSN", lambda: unet_ncsn(1, 8, UNetConfig(8, (1, 2), 1, (1,)), (2.0, 0.5, 0.1)), _pictures, _sampled,
           PICTURE, "Song & Ermon 2019", "18"),
    System("DDPM", lambda: DDPM(_tiny_unet(1, 1), linear_schedule(30), PICTURE), _pictures, _sampled, PICTURE,
           "Ho, Jain & Abbeel 2020", "19"),
    System("DDPM, cosine schedule, x₀",
           lambda: DDPM(_tiny_unet(1, 1, modulation=Added), cosine_schedule(5), PICTURE, X0), _pictures, _sampled,
           PICTURE, "Nichol & Dhariwal 2021", "19"),
    System("DDPM with P2 weights", lambda: DDPM(_tiny_unet(1, 1), cosine_schedule(5), PICTURE, weight=p2_weight()),
           _pictures, _sampled, PICTURE, "Choi et al. 2022", "19"),
    System("class-conditional DDPM, v", lambda: DDPM(_tiny_unet(1, 1, 10), cosine_schedule(5), PICTURE, VELOCITY),
           _labelled, _one_of_each_label, PICTURE, "Salimans & Ho 2022", "21"),
    System("classifier guidance", lambda: NoisyClassifier(width=8), _labelled, _guided, PICTURE,
           "Dhariwal & Nichol 2021", "21"),
    System("Palette", lambda: Palette(_tiny_unet(7, 3), cosine_schedule(5), (3, 8, 8),
                                      (colorization, inpainting, outpainting)),
           _colours, _restored, (3, 8, 8), "Saharia et al. 2022", "21"),
)  # fmt: skip

CATALOG: dict[str, System] = {system.name: system for system in _SYSTEMS}
