"""Models that come trained: ``zoo.load("gated_pixelcnn_digits")``.

Weights are safetensors of at most 4 MB beside a model card (command, metric, data, hash). ``course train NAME`` makes
them again. A model whose file does not match its card is not loaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from course_lib.core.io import load_weights
from course_lib.zoo.recipe import Recipe

WEIGHTS = Path(__file__).parent / "weights"


def recipes() -> dict[str, Recipe]:
    """All recipes by name, in the order in which they can be trained."""
    from course_lib.zoo.adversarial import RECIPES as adversarial
    from course_lib.zoo.classifiers import RECIPES as classifiers
    from course_lib.zoo.diffusion import RECIPES as diffusion
    from course_lib.zoo.likelihoods import RECIPES as likelihoods

    return {**classifiers, **likelihoods, **adversarial, **diffusion}


def recipe(name: str) -> Recipe:
    """One recipe.

    Raises:
        ValueError: unknown name; the message says what exists.
    """
    known = recipes()
    if name not in known:
        raise ValueError(f"no model {name!r} in the zoo; there are {', '.join(known)}")
    return known[name]


def load(name: str, device: torch.device | str = "cpu") -> nn.Module:
    """A trained model in evaluation mode, without gradients for its parameters.

    Raises:
        ValueError: unknown name, or the weights are not what the model card says.
        FileNotFoundError: this model was never trained here; the message says how to.
    """
    model = recipe(name).build()
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; make it with: course train {name}")
    return load_weights(path, model).requires_grad_(False).eval().to(device)
