"""The shapes in annotations are enforced while tests run, so they cannot rot; this tests that they really are."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing

import pytest
import torch
from jaxtyping import TypeCheckError

import course_lib
from course_lib.autoencoders.autoencoder import mlp_autoencoder
from course_lib.autoencoders.vae import mlp_vae
from course_lib.core.io import image_grid
from course_lib.data import binarize, toy2d
from course_lib.maths import divergences, gaussian
from course_lib.maths.mixture import GaussianMixture
from tests.conftest import CHECKED

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(course_lib.__path__, "course_lib.")
    if name.startswith(CHECKED) and "widgets" not in name and "figures" not in name  # those name matplotlib's types
]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: gaussian.kl_to_standard_normal(torch.zeros(3, 2), torch.zeros(3, 4)),
        lambda: gaussian.multivariate_log_prob(torch.zeros(3, 2), torch.zeros(1, 2), torch.eye(3).unsqueeze(0)),
        lambda: divergences.kl(torch.ones(2, 4) / 4, torch.ones(2, 5) / 5),
        lambda: divergences.wasserstein1(torch.zeros(3, 1), torch.zeros(3, 1)),
        lambda: GaussianMixture(torch.ones(3) / 3, torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2)),
        lambda: toy2d.density("ring8").log_prob(torch.zeros(2)),
        lambda: toy2d.density("checkerboard").log_prob(torch.zeros(2, 5, 2)),
        lambda: mlp_vae((1, 8, 8), 2, hidden=4).loss(torch.zeros(3, 64)),
        lambda: mlp_autoencoder((1, 8, 8), 2, 4).encode(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)),
        lambda: image_grid(torch.zeros(1, 8, 8)),
        lambda: binarize(torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_a_wrong_shape_or_dtype_is_refused(wrong):
    with pytest.raises(TypeCheckError):
        wrong()


def functions_of(module):
    for _, thing in inspect.getmembers(module):
        if getattr(thing, "__module__", "") != module.__name__:
            continue
        if inspect.isclass(thing):
            yield from (f for _, f in inspect.getmembers(thing, inspect.isfunction) if f.__module__ == module.__name__)
        elif inspect.isfunction(thing):
            yield thing


@pytest.mark.parametrize("name", MODULES)
def test_every_annotation_can_be_evaluated(name):
    """An annotation that raises is skipped in silence by the checker: ``Float[Tensor, b * shape]`` checked nothing."""
    module = importlib.import_module(name)
    for function in functions_of(module):
        typing.get_type_hints(inspect.unwrap(function), vars(module))
