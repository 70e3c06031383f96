"""``fit`` is the only training loop, so every promise it makes is tested here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from course_lib.core import EMA, FitOptions, Player, fit, minibatches, stream, warmup_cosine
from course_lib.data import load, toy2d
from course_lib.nn.mlp import mlp


def regression(seed: int = 0) -> tuple[nn.Module, object]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 5, generator=generator)
    y = x @ torch.arange(1.0, 6.0).unsqueeze(1) + 0.5
    torch.manual_seed(seed)
    return nn.Linear(5, 1), minibatches((x, y), 16, seed)


def squared_error(model):
    return lambda batch, step: (model(batch[0]) - batch[1]).square().mean()


def test_equals_the_loop_one_would_write():
    model, batches = regression()
    by_hand = nn.Linear(5, 1)
    by_hand.load_state_dict(model.state_dict())
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.05)
    for step in range(40):
        x, y = batches(step)
        adam.zero_grad()
        (by_hand(x) - y).square().mean().backward()
        adam.step()
    history = fit(Player("regression", model, squared_error(model), lr=0.05), batches, 40)
    assert torch.equal(model.weight, by_hand.weight)
    assert history.losses["regression"].shape == (40,)
    assert history.losses["regression"][-1] < history.losses["regression"][0]


def test_no_gradient_leaks_between_players():
    a, b = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(2.0))
    start_b = b.detach().clone()
    # each loss depends on both parameters; only the owner may move
    player = Player("a", [a], lambda batch, step: (a * b - batch.mean()).square())
    fit(player, lambda step: torch.zeros(4), 10)
    assert torch.equal(b.detach(), start_b)
    assert b.grad is None
    assert a.item() != 1.0


def test_players_move_in_order_and_see_each_others_update():
    a, b = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))
    seen = []

    def loss_b(batch, step):
        seen.append(a.item())
        return (b - 1).square()

    first = Player("a", [a], lambda batch, step: (a - 5).square(), lr=1.0)
    fit([first, Player("b", [b], loss_b)], lambda step: torch.zeros(2), 1)
    assert seen == [pytest.approx(1.0)]  # Adam's first step has length lr


def test_repeats_draw_fresh_batches():
    seen = {"critic": [], "generator": []}
    w = [nn.Parameter(torch.zeros(())) for _ in range(2)]

    def loss(name, parameter):
        def of(batch, step):
            seen[name].append(int(batch[0]))
            return (parameter - 1).square()

        return of

    fit(
        [
            Player("critic", [w[0]], loss("critic", w[0]), repeats=3),
            Player("generator", [w[1]], loss("generator", w[1])),
        ],
        lambda i: torch.tensor([i]),
        2,
    )
    assert seen == {"critic": [0, 1, 2, 3, 4, 5], "generator": [0, 3]}


def test_resume_is_bit_identical(tmp_path):
    """Dropout noise, batch-norm buffers, Adam moments, schedule, EMA and history all survive the break."""

    def run(steps, checkpoint=None):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 2))
        ema = EMA(model, 0.9)
        batches = stream(toy2d.density("ring8").sample, 32, seed=3)
        options = FitOptions(
            seed=5, schedule=warmup_cosine(30, 5), clip=1.0, checkpoint=checkpoint, watch_every=5,
            watch=lambda step: {"norm": model[0].weight.norm()},
        )  # fmt: skip
        player = Player("model", model, lambda x, step: (model(x) - x).square().mean(), lr=0.01)
        history = fit(player, batches, steps, ema=ema, options=options)
        return model, ema, history

    whole, whole_ema, whole_history = run(30)
    torch.manual_seed(99)
    checkpoint = tmp_path / "run.pt"
    # stop in the middle exactly as a crash would leave it: the last checkpoint, then a new process' objects
    run(15, checkpoint)
    resumed, resumed_ema, history = run(30, checkpoint)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole_ema.state_dict().values(), resumed_ema.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole_history.losses["model"], history.losses["model"])
    assert whole_history.watched == history.watched
    assert not list(tmp_path.glob("*.part"))


def test_checkpoint_of_other_players_is_refused(tmp_path):
    model, batches = regression()
    options = FitOptions(checkpoint=tmp_path / "c.pt")
    fit(Player("one", model, squared_error(model)), batches, 2, options=options)
    with pytest.raises(ValueError, match="differ in name or shape"):
        fit(Player("two", model, squared_error(model)), batches, 4, options=options)


def test_global_random_state_is_left_alone():
    model, batches = regression()
    torch.manual_seed(7)
    want = torch.rand(3)
    torch.manual_seed(7)
    player = Player("m", model, lambda b, s: squared_error(model)(b, s) + 0 * torch.rand(()))
    fit(player, batches, 3, options=FitOptions(seed=1))
    assert torch.equal(torch.rand(3), want)


def test_watching_does_not_disturb_training():
    def run(watch):
        model, batches = regression()
        noisy = Player("m", model, lambda b, s: squared_error(model)((b[0] + torch.randn_like(b[0]), b[1]), s))
        fit(noisy, batches, 12, options=FitOptions(watch=watch, watch_every=3))
        return model.weight.detach()

    assert torch.equal(run(None), run(lambda step: {"noise": torch.rand(())}))


def test_clipping_bounds_the_update():
    w = nn.Parameter(torch.zeros(3))
    norms = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: norms.append(w.grad.norm().item()))
    try:
        fit(Player("w", [w], lambda b, s: 100 * w.sum()), lambda s: torch.zeros(1), 3, options=FitOptions(clip=0.5))
    finally:
        hook.remove()
    assert norms == [pytest.approx(0.5, rel=1e-4)] * 3


def test_clipping_when_two_parameters_share_a_gradient():
    """Autograd returns one and the same tensor for a and b in a + b; scaling it in place would clip twice."""
    a, b = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    norms = []
    hook = register_optimizer_step_pre_hook(lambda o, args, kw: norms.append(torch.cat([a.grad, b.grad]).norm().item()))
    try:
        loss = lambda batch, step: ((a + b) * torch.tensor([3.0, 4.0])).sum()  # noqa: E731
        fit(Player("ab", [a, b], loss), lambda s: torch.zeros(1), 1, options=FitOptions(clip=1.0))
    finally:
        hook.remove()
    assert norms == [pytest.approx(1.0, rel=1e-4)]


def test_schedule_scales_the_learning_rate():
    w = nn.Parameter(torch.zeros(()))
    positions = []
    player = Player("w", [w], lambda b, s: positions.append(w.item()) or (w - 100).square(), lr=1.0)
    fit(player, lambda s: torch.zeros(1), 4, options=FitOptions(schedule=lambda s: float(s % 2)))
    assert positions[1] == positions[0] and positions[2] > positions[1] and positions[3] == positions[2]
    ramp = warmup_cosine(100, 10, floor=0.1)
    assert [ramp(0), ramp(9), ramp(100)] == [pytest.approx(0.1), pytest.approx(1.0), pytest.approx(0.1)]
    assert ramp(55) == pytest.approx(0.55)


def test_bf16_computes_in_bf16_and_keeps_float32_parameters():
    model, batches = regression()
    dtypes = []

    def loss(batch, step):
        out = model(batch[0])
        dtypes.append(out.dtype)
        return (out - batch[1]).square().mean()

    fit(Player("m", model, loss), batches, 3, options=FitOptions(bf16=True))
    assert set(dtypes) == {torch.bfloat16}
    assert model.weight.dtype == torch.float32


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_blows_up_is_named(bad):
    w = nn.Parameter(torch.ones(()))
    player = Player("critic", [w], lambda b, s: w * (bad if s == 3 else 1.0))
    with pytest.raises(FloatingPointError, match=r"'critic'.* at step 3"):
        fit(player, lambda s: torch.zeros(1), 8)


def test_mistakes_are_explained():
    w = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"scalar, got shape \(2,\)"):
        fit(Player("w", [w], lambda b, s: w), lambda s: torch.zeros(1), 1)
    with pytest.raises(ValueError, match="distinct names"):
        fit([Player("w", [w], lambda b, s: w.sum())] * 2, lambda s: torch.zeros(1), 1)
    with pytest.raises(ValueError, match="no parameter"):
        Player("frozen", nn.Linear(2, 2).requires_grad_(False), lambda b, s: w.sum())
    with pytest.raises(ValueError, match="different lengths"):
        minibatches((torch.zeros(3), torch.zeros(4)), 2)


def test_progress_bar_is_silent_where_nobody_looks(capfd, monkeypatch):
    model, batches = regression()
    for name in ("NBGRADER_EXECUTION", "NBGRADER_VALIDATING", "COURSE_HEADLESS"):
        monkeypatch.setenv(name, "1")
        fit(Player("m", model, squared_error(model)), batches, 3)
        monkeypatch.delenv(name)
    assert capfd.readouterr() == ("", "")
    fit(Player("m", model, squared_error(model)), batches, 3, options=FitOptions(progress=True))
    assert "/3" in capfd.readouterr().err


# --- the protocol carries what later lectures need ------------------------------------------------------------------


def test_wgan_gp_with_lazy_penalty_and_ema_learns_the_ring():
    """Two players, five critic updates a step, a lazy regularizer and an EMA generator."""
    torch.manual_seed(0)
    target = toy2d.density("ring8")
    generator, critic = mlp([2, 64, 64, 2]), mlp([2, 64, 64, 1])
    ema = EMA(generator, 0.995)
    penalties = []

    def fake(n):
        return generator(torch.randn(n, 2))

    def critic_loss(x, step):
        with torch.no_grad():
            g = fake(len(x))
        loss = critic(g).mean() - critic(x).mean()
        if step % 4 == 0:  # lazy: every fourth step, weighted by four
            u = torch.rand(len(x), 1)
            mixed = (u * x + (1 - u) * g).requires_grad_()
            (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
            loss = loss + 4 * 1.0 * (slope.norm(dim=1) - 1).square().mean()
            penalties.append(step)
        return loss

    players = [
        Player("critic", critic, critic_loss, lr=1e-3, betas=(0.0, 0.9), repeats=5),
        Player("generator", generator, lambda x, step: -critic(fake(len(x))).mean(), lr=1e-3, betas=(0.0, 0.9)),
    ]
    before = _modes_hit(generator, target)
    fit(players, stream(target.sample, 128), 400, ema=ema)
    assert set(penalties) == set(range(0, 400, 4))
    assert _modes_hit(ema.module, target) >= 6 > before


def _modes_hit(generator, target):
    with torch.no_grad():
        x = generator(torch.randn(2000, 2, generator=torch.Generator().manual_seed(1)))
    distance, mode = torch.cdist(x, target.means).min(1)
    return int((mode[distance < 0.3].bincount(minlength=8) >= 20).sum())


def test_vae_gan_has_three_players():
    """Larsen et al. 2016: encoder, decoder and discriminator each minimize a loss of their own."""
    torch.manual_seed(0)
    moons = toy2d.density("moons")
    encoder, decoder, critic = mlp([2, 64, 4]), mlp([2, 64, 2]), mlp([2, 64, 1])

    def code(x):
        mean, log_var = encoder(x).chunk(2, -1)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        return z, -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1).mean()

    def encoder_loss(x, step):
        z, kl = code(x)
        return 20 * (decoder(z) - x).square().sum(-1).mean() + kl

    def decoder_loss(x, step):
        z, _ = code(x)
        prior = decoder(torch.randn_like(z))
        return 20 * (decoder(z) - x).square().sum(-1).mean() + F.softplus(-critic(prior)).mean()

    def critic_loss(x, step):
        with torch.no_grad():
            fake = decoder(torch.randn(len(x), 2))
        return F.softplus(-critic(x)).mean() + F.softplus(critic(fake)).mean()

    players = [
        Player("encoder", encoder, encoder_loss),
        Player("decoder", decoder, decoder_loss),
        Player("discriminator", critic, critic_loss),
    ]
    history = fit(players, stream(moons.sample, 128), 600)
    assert set(history.losses) == {"encoder", "decoder", "discriminator"}
    held_out = moons.sample(1000, torch.Generator().manual_seed(9))
    with torch.no_grad():
        error = (decoder(encoder(held_out)[:, :2]) - held_out).square().sum(-1).mean()
    assert error < 0.1 * held_out.var(0).sum()
    assert 1.0 < history.losses["discriminator"][-50:].mean() < 1.6  # log 4 = 1.386 when it can no longer tell


def test_inversion_is_a_player_whose_parameter_is_a_latent():
    torch.manual_seed(0)
    decoder = mlp([3, 32, 64])
    frozen = [p.detach().clone() for p in decoder.parameters()]
    target = decoder(torch.tensor([[0.5, -1.0, 0.3]])).detach()
    z = nn.Parameter(torch.zeros(1, 3))
    history = fit(
        Player("latent", [z], lambda x, step: (decoder(z) - x).square().mean(), lr=0.05), lambda step: target, 300
    )
    assert history.losses["latent"][-1] < 1e-4 * history.losses["latent"][0]
    assert all(torch.equal(a, b) for a, b in zip(frozen, decoder.parameters(), strict=True))


def test_learns_real_digits():
    from course_lib.autoencoders.autoencoder import mlp_autoencoder

    x = load("digits", "train").x
    model = mlp_autoencoder((1, 28, 28), 16, 128)
    mean_only = (x - x.mean(0)).square().flatten(1).sum(1).mean()
    history = fit(Player.of(model, lr=2e-3), minibatches(x, 128), 250)
    assert history.losses["autoencoder"][-20:].mean() < 0.5 * mean_only


# --- several processes ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from torch.nn import functional as F
from course_lib.core import EMA, FitOptions, Player, fit, minibatches
from course_lib.nn.mlp import mlp

torch.manual_seed(int(__import__("os").environ.get("RANK", 0)))  # ranks start apart: fit must bring them together
generator = torch.Generator().manual_seed(0)
x, z = torch.randn(256, 2, generator=generator), torch.randn(256, 2, generator=generator)
if int(__import__("os").environ.get("RANK", 0)) == 0:
    torch.manual_seed(0)
G, D = mlp([2, 16, 2]), mlp([2, 16, 1])
ema = EMA(G, 0.9)
players = [
    Player("D", D, lambda b, s: F.softplus(-D(b[0])).mean() + F.softplus(D(G(b[1]).detach())).mean(), repeats=2),
    Player("G", G, lambda b, s: F.softplus(-D(G(b[1]))).mean()),
]
fit(players, minibatches((x, z), 32), 25, ema=ema, options=FitOptions(device="cpu", clip=1.0, checkpoint=sys.argv[1]))
"""


def test_two_processes_train_like_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    one = [sys.executable, str(script), str(tmp_path / "one.pt")]
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", "2"]
    for command in (one, [*torchrun, str(script), str(tmp_path / "two.pt")]):
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
    a, b = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    for player in ("D", "G"):
        for x, y in zip(a["params"][player], b["params"][player], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)
    for name in a["ema"]:
        torch.testing.assert_close(a["ema"][name], b["ema"][name], rtol=1e-4, atol=1e-6)


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("minibatches((x, z), 32)", "minibatches((x, z), 33)"))
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, str(script), str(tmp_path / "c.pt")], env=env, capture_output=True, text=True, timeout=180
    )
    assert done.returncode != 0
    assert "a batch of 33 does not divide among 2 processes" in done.stderr


@pytest.mark.cuda
def test_cuda_trains_to_the_same_loss():
    losses = []
    for device in ("cpu", "cuda"):
        model, batches = regression()
        model.to(device)
        history = fit(Player("m", model, squared_error(model), lr=0.05), batches, 30, options=FitOptions(device=device))
        losses.append(history.losses["m"])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-4)
