import pytest
import torch

from course_lib.core import FitOptions, Player, fit, minibatches, stream
from course_lib.data import load
from course_lib.energy.ebm import EBM, Chain, conv_ebm, mlp_ebm
from course_lib.maths.mixture import GaussianMixture
from tests.oracles import plane, slope


def target() -> GaussianMixture:
    return GaussianMixture.isotropic(torch.tensor([[-1.2, 0.0], [1.2, 0.6], [0.2, -1.4]]), 0.45)


def on_grid(log_weights: torch.Tensor) -> torch.Tensor:
    return log_weights.double().log_softmax(0)


def kl_on_grid(truth: GaussianMixture, model: EBM) -> float:
    points, _ = plane(3.0, 80)
    with torch.no_grad():
        p = on_grid(truth.double().log_prob(points))
        q = on_grid(-model.energy(points.float()) / model.chain.temperature)
    return float((p.exp() * (p - q)).sum())


def test_density_is_close_to_the_truth_after_a_short_training():
    """Maximum likelihood through sampling: KL(p ‖ model) by quadrature, against the untrained (flat) model."""
    torch.manual_seed(0)
    model = mlp_ebm(2, 64, Chain(step=0.05, steps=10), buffer=1024)
    before = kl_on_grid(target(), model)
    decay = lambda step: 1 - step / 400  # noqa: E731
    fit(Player.of(model, 3e-3), stream(target().sample, 256), 400, options=FitOptions(schedule=decay))
    after = kl_on_grid(target(), model)
    assert before > 0.8 and after < 0.08, (before, after)
    fake = model.sample(1000, 200, torch.Generator().manual_seed(0))
    assert (target().log_prob(fake).mean() - target().log_prob(target().sample(2000)).mean()).abs() < 0.3


class Quadratic(torch.nn.Module):
    """E = k x²/2: at temperature T, N(0, T/k) in every coordinate."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.k * x.square().flatten(1).sum(1)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_chains_sample_exp_of_minus_energy_over_temperature(temperature):
    model = EBM(Quadratic(4.0), (2,), Chain(0.02, temperature, 20), buffer=8).double()
    x = model.sample(8000, 300, torch.Generator().manual_seed(0))
    alpha = 0.02 * temperature
    variance = temperature / 4
    biased = variance / (1 - alpha / (4 * variance))
    assert x.var() == pytest.approx(biased, rel=0.04)
    inner = 0.5 * x[:50]
    torch.testing.assert_close(model.score(inner), -4 * inner / temperature)


def test_gradient_of_the_loss_is_that_of_minus_log_likelihood():
    """T = 1, E = kx²/2 in one dimension: d/dk (−log p) = E_data x²/2 − 1/(2k); the chain's samples are exact here."""
    model = EBM(Quadratic(2.0), (1,), weight=0.0).double()
    data = torch.randn(100_000, 1, dtype=torch.float64)
    samples = (1 / 2.0**0.5) * torch.randn(100_000, 1, dtype=torch.float64)
    contrast = model.contrast(model.energy(torch.cat([data, samples])))
    (got,) = torch.autograd.grad(contrast, model.net.k)

    def nll(k: torch.Tensor) -> torch.Tensor:
        return 0.5 * k[0] * data.square().mean() - 0.5 * k[0].log()

    assert float(got) == pytest.approx(float(slope(nll, torch.tensor([2.0], dtype=torch.float64))), abs=0.01)


def test_negatives_carry_no_gradient_and_live_in_the_box():
    model = mlp_ebm(2, 8, Chain(step=5.0, steps=3, extent=1.5), 16)
    fake = model.negatives(64)
    assert not fake.requires_grad and fake.abs().max() <= 1.5
    assert all(p.grad is None for p in model.parameters())


def test_the_buffer_moves_on_and_five_percent_restart():
    still = Chain(step=1e-12, steps=1)  # chains that do not move show where they started
    torch.manual_seed(0)
    model = mlp_ebm(2, 8, still, buffer=4096)
    model.replay.fill_(7.0)  # outside the box: what was here before
    model.chain = Chain(step=1e-12, steps=1, extent=8.0)
    x = model.negatives(4000)
    old = ((x - 7).abs() < 1e-3).all(1).double()
    assert abs(old.mean() - 0.95) < 5 * (0.95 * 0.05 / 4000) ** 0.5
    assert ((model.replay - 7).abs() > 1e-3).any(1).sum() > 50  # the fresh ones went into the buffer


def test_squared_energies_pull_the_mean_to_zero():
    """L does not see a constant added to E; the regularizer is its only force."""
    model = mlp_ebm(2, 8, Chain(steps=1), 8)
    with torch.no_grad():
        model.net[0][-1].bias.fill_(3.0)
    x = torch.randn(32, 2)
    model.weight = 0.0
    (free,) = torch.autograd.grad(model.loss(x), model.net[0][-1].bias)
    model.weight = 0.5
    (tied,) = torch.autograd.grad(model.loss(x), model.net[0][-1].bias)
    assert free.abs() < 1e-6 and tied > 3.0  # 2 · 0.5 · (E + E')


def test_clip_bounds_the_move():
    model = EBM(Quadratic(1e6), (2,), Chain(step=1.0, temperature=1e-12, steps=1, clip=0.1), buffer=8).double()
    x = torch.full((4, 2), 2.0, dtype=torch.float64)
    torch.testing.assert_close(model.run(x, 1), x - 0.1, atol=1e-4, rtol=0)


def test_a_checkpoint_keeps_the_chains(tmp_path):
    """Resuming equals not stopping only if the buffer is saved."""

    def train(steps: int, checkpoint) -> EBM:
        torch.manual_seed(0)
        model = mlp_ebm(2, 8, Chain(steps=2), 32)
        fit(Player.of(model), stream(target().sample, 16), steps, options=FitOptions(checkpoint=checkpoint))
        return model

    whole = train(8, tmp_path / "whole.pt")
    train(4, tmp_path / "half.pt")
    resumed = train(8, tmp_path / "half.pt")
    assert torch.equal(whole.replay, resumed.replay)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("wrong", [{"step": 0.0}, {"temperature": -1.0}, {"steps": 0}, {"extent": 0.0}])
def test_a_chain_that_cannot_run_is_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        Chain(**wrong)


def test_pictures_have_lower_energy_than_noise_and_blends():
    """An EBM of 8×8 digits, shortly trained, scores held-out digits below uniform noise and below superpositions."""
    digits, held = load("digits8"), load("digits8", "test")
    torch.manual_seed(0)
    model = conv_ebm(1, 8, 16, Chain(20.0, 0.005**2 / 20, 20, 0.03, 1.0), 512)
    fit(Player(("ebm"), model, lambda x, step: model.loss((x + 0.03 * torch.randn_like(x)).clamp(-1, 1)), 1e-3),
        minibatches(digits.x, 64), 100)  # fmt: skip
    with torch.no_grad():
        real, noise = model.energy(held.x), model.energy(model.noise(200))
        blend = model.energy((held.x + held.x.flip(0)) / 2)
    assert real.mean() < noise.mean() - 3 * noise.std()
    assert (real.mean() - blend.mean()) < 0
