"""What holds for every test: shapes in annotations are enforced, randomness is fixed, GPU tests say why they skip."""

from __future__ import annotations

import os

import pytest
import torch
from jaxtyping import install_import_hook

from tests import typechecker  # noqa: F401  (the hook finds it by name)

# Every annotated function and dataclass of these packages checks its arguments and results while the tests run. Before
# any import of course_lib, or nothing is checked. Not course_lib.classroom: it is about processes and has no tensors.
PACKAGES = (
    "autoencoders",
    "autoregressive",
    "catalog",
    "core",
    "data",
    "diffusion",
    "energy",
    "flows",
    "gans",
    "maths",
    "metrics",
    "nn",
    "viz",
    "zoo",
)
CHECKED = tuple(f"course_lib.{name}" for name in PACKAGES)
install_import_hook(CHECKED, "tests.typechecker.checked")

os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(1)  # pytest-xdist starts one process per core


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason=f"torch {torch.__version__} sees no CUDA GPU"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
