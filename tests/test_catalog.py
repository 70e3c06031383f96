"""The smallest contract, enforced for every system of the catalogue."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch
from torch import nn

import course_lib
from course_lib.catalog import CATALOG, System
from course_lib.core.player import Player, tensors_of

CPU = torch.device("cpu")
LECTURES = Path(__file__).parent.parent / "lectures"
# what their docstrings promise; an autoencoder without a last tanh decodes without bounds, a flow in the plane fills
# it (as does a generator of points), and a picture flow ends in a logit that reaches a little over the range of greys
BOUND = {
    "linear autoencoder": float("inf"),
    "MLP autoencoder": float("inf"),
    "Real NVP": 1 / 0.9,
    "Glow": 1 / 0.9,
}
# a Wasserstein critic may add any constant: its last bias has no gradient, and must have none; nor has that of a hinge
# critic as long as all its values lie between −1 and 1
IDLE = {
    "Wasserstein GAN": "gan.discriminator.6.bias",
    "WGAN-GP": "discriminator.6.bias",
    "SN-GAN (hinge, spectral normalization)": "discriminator.3.bias",
}
# the lectures whose losses draw no noise, but for the systems named
NOISELESS, NOISY = ("03", "05", "06", "07", "08"), ("dVAE",)

every_system = pytest.mark.parametrize("system", CATALOG.values(), ids=CATALOG)


def built(system: System, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = system.build()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # a layer that starts at zero (flows, labels) hides what is behind it
                parameter.normal_(std=0.1)
    return model


def players_of(model: nn.Module) -> list[Player]:
    """An adversarial system's players; everything else is one player, which minimizes ``model.loss``."""
    return model.players() if hasattr(model, "players") else [Player.of(model)]


def loss_of(model: nn.Module, batch) -> torch.Tensor:
    """The sum of the players' losses; gradients are left in ``.grad``, one player after the other as in ``fit``."""
    losses = []
    for player in players_of(model):
        losses.append(player.loss(batch, 0))
        losses[-1].backward(inputs=player.params)
    return torch.stack(losses).sum().detach()


def loss_and_sample(system: System, model: nn.Module, device: torch.device, seed: int = 1):
    torch.manual_seed(seed)
    loss = loss_of(model, system.batch(6, device))
    return loss, system.sample(model, 4)


@every_system
def test_loss_is_a_finite_scalar_and_every_parameter_gets_gradient(system):
    model = built(system)
    names = {parameter: name for name, parameter in model.named_parameters()}
    players = players_of(model)
    owned = [parameter for player in players for parameter in player.params]
    assert len(owned) == len(names) and set(owned) == set(names)  # each parameter has one owner
    torch.manual_seed(1)
    batch = system.batch(6, CPU)
    for player in players:
        loss = player.loss(batch, 0)
        assert loss.shape == () and torch.isfinite(loss), player.name
        gradients = torch.autograd.grad(loss, player.params, allow_unused=True)
        for parameter, gradient in zip(player.params, gradients, strict=True):
            name = names[parameter]
            assert gradient is not None and torch.isfinite(gradient).all(), name
            assert (gradient.abs().max() > 0) == (name != IDLE.get(system.name)), name


@pytest.mark.parametrize("system", [s for s in CATALOG.values() if hasattr(s.build(), "players")], ids=lambda s: s.name)
def test_an_adversarial_system_has_a_discriminator_that_cannot_reach_the_generator(system):
    model = built(system)
    discriminator, generator = model.players()
    assert (discriminator.name, generator.name) == ("discriminator", "generator")
    assert set(discriminator.params) == set(model.discriminator.parameters())
    assert set(generator.params) == set(model.generator.parameters())
    loss = discriminator.loss(system.batch(6, CPU), 0)
    assert all(g is None for g in torch.autograd.grad(loss, generator.params, allow_unused=True))


@every_system
def test_sample_shape_and_range(system):
    model = built(system)
    with torch.no_grad():
        sample = system.sample(model, 4)
        for parameter in model.parameters():
            parameter.mul_(10)  # a bound that only holds at initialization is none
        wild = system.sample(model, 4)
    assert sample.shape == (4, *system.shape)
    assert (sample[0] - sample[1]).abs().max() > 0  # not one picture four times
    if system.symbols is not None:
        assert sample.dtype == torch.int64
        assert min(sample.min(), wild.min()) >= 0 and max(sample.max(), wild.max()) < system.symbols
    else:
        assert sample.dtype == torch.float32 and torch.isfinite(sample).all()
        bound = float("inf") if system.shape == (2,) else BOUND.get(system.name, 1)
        # a flow's inverse divides by scales without a lower bound: it may overflow, but its last logit bounds the rest
        far = sample if system.lecture == "08" else wild
        assert bound == float("inf") or far.abs().max() <= bound + 1e-6


@every_system
def test_same_seed_same_result(system):
    first, second = (loss_and_sample(system, built(system, 3), CPU) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    other = loss_and_sample(system, built(system, 4), CPU)
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


@every_system
def test_state_dict_round_trip(system, tmp_path):
    model, other = built(system, 1), built(system, 2)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for a, b in zip(loss_and_sample(system, model, CPU), loss_and_sample(system, other, CPU), strict=True):
        assert torch.equal(a, b)
    clone = copy.deepcopy(model)
    assert torch.equal(loss_and_sample(system, clone, CPU)[0], loss_and_sample(system, model, CPU)[0])


@every_system
def test_everything_runs_where_the_parameters_are(system):
    """On the meta device, a tensor made on the CPU by mistake raises: CUDA placement, tested without a GPU."""
    model, meta = built(system).to("meta"), torch.device("meta")
    loss, sample = loss_and_sample(system, model, meta)
    assert loss.device == sample.device == meta
    assert sample.shape == (4, *system.shape)
    assert all(p.grad.device == meta for p in model.parameters())


@every_system
def test_everything_runs_in_the_parameters_precision(system):
    model = built(system).double()
    batch = system.batch(6, CPU)
    double = lambda t: t.double() if t.is_floating_point() else t  # noqa: E731
    batch = tuple(map(double, batch)) if isinstance(batch, tuple) else double(batch)
    assert all(player.loss(batch, 0).dtype == torch.float64 for player in players_of(model))
    assert system.sample(model, 2).dtype == (torch.float64 if system.symbols is None else torch.int64)


@pytest.mark.cuda
@every_system
def test_cuda_computes_what_the_cpu_does(system):
    model = built(system)
    batch = system.batch(6, CPU)
    on_gpu = copy.deepcopy(model).cuda()
    gpu_batch = tuple(t.cuda() for t in tensors_of(batch))
    gpu_batch = gpu_batch if isinstance(batch, tuple) else gpu_batch[0]
    loss, sample = loss_of(on_gpu, gpu_batch), system.sample(on_gpu, 4)
    assert loss.device.type == sample.device.type == "cuda" and torch.isfinite(loss)
    assert all(p.grad.abs().max() > 0 for name, p in on_gpu.named_parameters() if name != IDLE.get(system.name))
    # noise differs between the devices, so only noise-free losses are equal
    if system.lecture in NOISELESS and system.name not in NOISY:
        torch.testing.assert_close(loss.cpu(), loss_of(model, batch), rtol=1e-4, atol=1e-4)


@every_system
def test_each_entry_says_where_it_comes_from_and_where_it_is_taught(system):
    assert system.name and CATALOG[system.name] is system
    assert system.paper and system.paper[-4:].isdigit()
    assert len(system.lecture) == 2 and system.lecture.isdigit()
    written = len(list(LECTURES.glob(f"{system.lecture}_*.ipynb")))
    assert written == 1, f"lecture {system.lecture}: {written} notebooks"


def test_every_model_of_the_library_is_in_the_catalogue():
    """A class with a loss or players that is missing there would be tested for nothing above."""
    built_types = {type(built(system)) for system in CATALOG.values()}
    for _, name, is_package in pkgutil.walk_packages(course_lib.__path__, "course_lib."):
        if is_package or name.startswith("course_lib.classroom"):
            continue
        for _, thing in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if issubclass(thing, nn.Module) and (hasattr(thing, "loss") or hasattr(thing, "players")):
                assert thing in built_types, f"{thing.__name__} of {name} is not in course_lib.catalog"
