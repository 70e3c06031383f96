"""The schedulers and the U-Net of ``diffusers``, side by side: equal steps, and at least their speed on a CPU.

The peer is no dependency of the course; what needs it is skipped where it is missing. To run this file:

    pip install --target /tmp/peers --no-deps "diffusers<0.36" "huggingface_hub<1" importlib_metadata zipp filelock
    PYTHONPATH=/tmp/peers OMP_NUM_THREADS=1 JAXTYPING_DISABLE=1 python -m pytest --benchmark-enable -o addopts= -s \
        tests/benchmarks/test_diffusion_peers.py
"""

import pytest
import torch
from torch import nn

from course_lib.diffusion import edm
from course_lib.diffusion.ddim import ddim_sample, respaced, walk
from course_lib.diffusion.ddpm import DDPM
from course_lib.maths.schedules import linear_schedule
from course_lib.nn.unet import UNet, UNetConfig
from tests.benchmarks.test_peers import WHY, compare, training

SCHEDULE = linear_schedule()
LINEAR = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
EQUAL = {"rtol": 1e-5, "atol": 1e-5}


class Guess(nn.Module):
    """Some ε: the same for both sides, and blind to t, which the two count from different ends of the step."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t=None):
        return torch.tanh(self.body(x))


@pytest.fixture
def peers():
    return pytest.importorskip("diffusers", reason=WHY)


@pytest.fixture
def model():
    return DDPM(Guess(), SCHEDULE, (1, 8, 8), clip=False).requires_grad_(False)


def with_our_tables(scheduler):
    """The peer subtracts float32 tables from 1, which costs four digits at t = 1: it gets ours, in float64."""
    scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = (
        table[1:] for table in (SCHEDULE.beta, SCHEDULE.alpha, SCHEDULE.alpha_bar)
    )
    scheduler.one = scheduler.final_alpha_cumprod = SCHEDULE.alpha_bar[0]
    return scheduler


def test_ddpm_step(peers, model):
    scheduler = with_our_tables(peers.DDPMScheduler(**LINEAR, clip_sample=False))
    x = model.noise(4)
    for t in (1, 2, 500, 1000):
        theirs = scheduler.step(model.network(x), t - 1, x, generator=torch.Generator().manual_seed(1)).prev_sample
        ours = model.p_sample(x, torch.full((4,), t), generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(ours, theirs, **EQUAL)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_walk(peers, model, eta):
    scheduler = with_our_tables(peers.DDIMScheduler(**LINEAR, clip_sample=False, timestep_spacing="trailing"))
    scheduler.set_timesteps(20)
    start = theirs = model.noise(4)
    generator = torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        theirs = scheduler.step(model.network(theirs), t, theirs, eta=eta, generator=generator).prev_sample
    ours = walk(model.x0_and_eps, SCHEDULE, start, respaced(20, 1000), eta, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours, theirs, **EQUAL)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_ode_solvers(peers, model, solver):
    kind = peers.EulerDiscreteScheduler if solver == "euler" else peers.HeunDiscreteScheduler
    scheduler = kind(**LINEAR, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.double().unique().flip(0)
    start = theirs = model.noise(4) * sigmas[0].float()
    for t in scheduler.timesteps:
        eps = model.network(scheduler.scale_model_input(theirs, t))
        theirs = scheduler.step(eps, t, theirs).prev_sample

    def denoise(x, sigma):
        s = sigma.view(-1, 1, 1, 1)
        return x - s * model.network(x / (1 + s.square()).sqrt())

    ours = getattr(edm, solver)(denoise, start, sigmas)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * start.abs().max().item())


# --- speed ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def networks(peers):
    """Equal depth and, within a few per cent, equal numbers of parameters."""
    theirs = peers.UNet2DModel(
        sample_size=28, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(32, 56, 56),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), norm_num_groups=8,
    )  # fmt: skip
    ours = UNet(1, 1, UNetConfig(32, (1, 2, 2), 1, (2,)))
    counts = [sum(p.numel() for p in net.parameters()) for net in (ours, theirs)]
    assert 0.95 < counts[0] / counts[1] < 1.05, counts
    return ours.to(memory_format=torch.channels_last), theirs.to(memory_format=torch.channels_last)


class Peer(nn.Module):
    """The peer's network with our signature."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t):
        return self.network(x, t).sample


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_unet_training_step(benchmark, networks, bf16):
    x = torch.randn(32, 1, 28, 28)

    def steps(network):
        model = DDPM(network, SCHEDULE, (1, 28, 28))

        def loss():
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return model.loss(x)

        return training(loss, model.parameters(), 2)

    ours, theirs = networks
    compare(benchmark, f"U-Net training step, bf16 {bf16}", steps(Peer(theirs)), steps(ours))


def test_sampling_in_50_steps(benchmark, peers, networks):
    ours, theirs = networks
    model, scheduler = DDPM(ours, SCHEDULE, (1, 28, 28)).eval(), peers.DDIMScheduler(**LINEAR)
    theirs.eval()

    @torch.no_grad()
    def peer():
        scheduler.set_timesteps(50)
        x = torch.randn(16, 1, 28, 28)
        for t in scheduler.timesteps:
            x = scheduler.step(theirs(x, t).sample, t, x).prev_sample

    compare(benchmark, "50 steps of DDIM", peer, lambda: ddim_sample(model, 16, 50), rounds=5)
