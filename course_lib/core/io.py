"""Pictures out of tensors, and weights in files that cannot run code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

MAX_WEIGHT_BYTES = 4 << 20


def to_uint8(images: Float[Tensor, "*b c h w"]) -> UInt8[np.ndarray, "*b h w c"]:
    """Images in [−1, 1] to bytes with the channel last; values outside are clipped."""
    scaled = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.movedim(-3, -1).numpy()


def image_grid(
    images: Float[Tensor, "b c h w"], columns: int | None = None, pad: int = 1, background: int = 255
) -> UInt8[np.ndarray, "H W c"]:
    """Tile a batch into one picture, row by row.

    Args:
        images: in [−1, 1], 1 or 3 channels.
        columns: pictures in a row; default: as square as possible.
        pad: pixels between pictures.
        background: grey value of the padding and of missing pictures.
    """
    if not len(images):
        raise ValueError("image_grid needs at least one image")
    pictures = to_uint8(images)
    n, h, w, c = pictures.shape
    columns = min(columns or int(np.ceil(np.sqrt(n))), n)
    rows = -(-n // columns)
    grid = np.full((rows * (h + pad) - pad, columns * (w + pad) - pad, c), background, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (h + pad), (i % columns) * (w + pad)
        grid[top : top + h, left : left + w] = picture
    return grid


def save_png(path: Path | str, images: Float[Tensor, "b c h w"], columns: int | None = None, scale: int = 1) -> None:
    """Write a batch as one PNG, each pixel ``scale`` × ``scale``."""
    from PIL import Image

    grid = image_grid(images, columns)
    picture = Image.fromarray(grid.squeeze(-1) if grid.shape[-1] == 1 else grid)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(path)


def save_weights(path: Path | str, module: nn.Module, card: dict[str, object], dtype: torch.dtype | None = None) -> str:
    """Write ``module``'s state as safetensors beside a model card; returns the file's SHA-256.

    Args:
        path: ends in ``.safetensors``; the card goes to the same name with ``.md``.
        module: its parameters and buffers are stored.
        card: what a reader needs: command, seed, metric, data, licence.
        dtype: of the stored floats, e.g. ``torch.float16`` where 4 MB are too few; None = their own.

    Raises:
        ValueError: the file would exceed 4 MB.
    """
    from safetensors.torch import save

    path = Path(path)
    state = module.state_dict().items()
    data = save({k: v.to(dtype if v.is_floating_point() else None).contiguous().cpu() for k, v in state})
    if len(data) > MAX_WEIGHT_BYTES:
        raise ValueError(f"{path.name} would take {len(data) / 2**20:.1f} MiB; weights in the repository are at most 4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    rows = "\n".join(f"| {key} | {value} |" for key, value in {**card, "sha256": digest}.items())
    path.with_suffix(".md").write_text(f"# {path.stem}\n\n| | |\n|---|---|\n{rows}\n")
    return digest


def load_weights(path: Path | str, module: nn.Module) -> nn.Module:
    """Load ``save_weights``' file into ``module`` (strictly) and return it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not what its model card says, or does not fit the module.
    """
    from safetensors.torch import load

    path = Path(path)
    data = path.read_bytes()
    card = path.with_suffix(".md").read_text()
    if hashlib.sha256(data).hexdigest() not in card:
        raise ValueError(f"{path} does not have the SHA-256 that its model card {path.with_suffix('.md').name} states")
    try:
        module.load_state_dict(load(data))
    except RuntimeError as error:
        raise ValueError(f"{path.name} does not fit {type(module).__name__}: {error}") from error
    return module


def write_json(path: Path | str, value: object) -> None:
    """Write JSON for people and programs: sorted, indented, UTF-8."""
    Path(path).write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
