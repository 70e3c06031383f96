"""The same mathematics in other libraries, side by side: equal numbers, a training step at least as fast on a CPU.

The peers are no dependencies of the course and are skipped where they are missing. To run this file:

    pip install --target /tmp/peers --no-deps vector-quantize-pytorch normflows einops einx frozendict loguru \
        torch-einops-utils
    PYTHONPATH=/tmp/peers OMP_NUM_THREADS=1 JAXTYPING_DISABLE=1 python -m pytest tests/benchmarks/test_peers.py \
        --benchmark-enable -o addopts= -s

Ratios are seconds of the peer / seconds of ours, median of alternating pairs within one run; see ``test_speed.py``.
"""

import copy

import jaxtyping
import pytest
import torch
from torch import nn

from course_lib.autoencoders.vqvae import Codebook
from course_lib.flows.flow import Chain, Flow
from course_lib.flows.glow import ActNorm, Coupling, InvertibleConv1x1
from course_lib.flows.realnvp import AffineCoupling
from course_lib.nn.mlp import mlp
from tests.benchmarks.test_speed import paired_ratio

WHY = "peers are measured, not depended on; the docstring of this file has the pip command"
ADAM = {"lr": 1e-3}


def training(loss, parameters, steps):
    """A function that runs ``steps`` steps of Adam on ``loss()``."""
    adam = torch.optim.Adam(list(parameters), **ADAM)

    def run():
        for _ in range(steps):
            adam.zero_grad(set_to_none=True)
            loss().backward()
            adam.step()

    return run


def compare(benchmark, what, peer, ours, rounds=7):
    # conftest.py checks every annotated call of ours while tests run, and none of the peer's
    assert jaxtyping.config.jaxtyping_disable, "set JAXTYPING_DISABLE=1 (make benchmark does)"
    ratio, all_ratios = paired_ratio(peer, ours, rounds)
    print(f"\n{what}: peer / ours {ratio:.2f}  ({', '.join(f'{r:.2f}' for r in sorted(all_ratios))})")
    benchmark.extra_info["ratio"] = ratio
    benchmark.pedantic(ours, rounds=1)
    assert ratio >= 1


# --- vector quantization ----------------------------------------------------------------------------------------------

WORDS, DIM, BATCH, SIDE = 64, 16, 64, 7  # the codebook of lecture 05


@pytest.fixture
def codebooks():
    """Ours with β = 1 and the peer's learnt codebook: there its one term moves both, too; then the sums are equal."""
    peers = pytest.importorskip("vector_quantize_pytorch", reason=WHY)
    peer = peers.VectorQuantize(
        DIM, WORDS, learnable_codebook=True, ema_update=False, accept_image_fmap=True, commitment_weight=DIM
    )
    ours = Codebook(WORDS, DIM, beta=1.0)
    with torch.no_grad():
        ours.table.copy_(peer.codebook)
    return ours, peer.train()


def test_codebook_computes_what_the_peer_does(codebooks):
    ours, peer = codebooks
    z = torch.randn(BATCH, DIM, SIDE, SIDE)
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    quantized, code, terms = ours(a)
    their_quantized, their_code, their_terms = peer(b)
    assert torch.equal(code, their_code)
    torch.testing.assert_close(quantized, their_quantized)
    # ours counts the distance once for each side (1 + β = 2), the peer once for both; the gradients are the same
    torch.testing.assert_close(terms, 2 * their_terms.squeeze())
    (terms + quantized.square().mean()).backward()
    (their_terms.squeeze() + their_quantized.square().mean()).backward()
    torch.testing.assert_close(a.grad, b.grad)
    (table,) = peer.parameters()
    torch.testing.assert_close(ours.table.grad, table.grad.view_as(ours.table))


def test_codebook_training_step(benchmark, codebooks):
    ours, peer = codebooks
    z = torch.randn(BATCH, DIM, SIDE, SIDE, requires_grad=True)

    def our_loss():
        quantized, _, terms = ours(z)
        return terms + quantized.square().mean()

    def peer_loss():
        quantized, _, terms = peer(z)
        return terms.squeeze() + quantized.square().mean()

    compare(
        benchmark, "codebook", training(peer_loss, peer.parameters(), 100), training(our_loss, ours.parameters(), 100)
    )


# --- flows ------------------------------------------------------------------------------------------------------------


class Interleaved(nn.Module):
    """Our nets in the peer's convention: shift and scale of each number side by side, and our bound on the scale."""

    def __init__(self, net, bound):
        super().__init__()
        self.net, self.bound = net, bound

    def forward(self, x):
        s, t = self.net(x).chunk(2, 1)
        return torch.stack([t, self.bound * (s / self.bound).tanh()], 2).flatten(1)


def realnvps(normflows, layers=8, hidden=64):
    """Real NVP in the plane, twice: actnorm and affine couplings that change x₁ and x₂ in turn, weights equal."""
    ours, theirs = [], []
    for i in range(layers):
        # our masked net takes both numbers and answers for both; the peer's has the rows and columns that count
        net, twin = mlp([2, hidden, hidden, 4], nn.ReLU), mlp([1, hidden, hidden, 2], nn.ReLU)
        kept, changed = i % 2, 1 - i % 2
        first, last = net[0], net[-1]
        with torch.no_grad():
            for mine, other in zip(net.parameters(), twin.parameters(), strict=True):
                if mine is first.weight:
                    other.copy_(mine[:, kept : kept + 1])
                elif mine is last.weight or mine is last.bias:
                    other.copy_(mine[[changed, 2 + changed]])
                else:
                    other.copy_(mine)
        mask = torch.tensor([1.0, 0.0]).roll(i)
        norm, their_norm = ActNorm(2), normflows.flows.ActNorm(2)
        norm.ready.fill_(True)
        their_norm.data_dep_init_done = torch.tensor(1.0)
        with torch.no_grad():
            norm.log_scale.normal_(std=0.2), norm.shift.normal_(std=0.2)
            their_norm.s.copy_(norm.log_scale[None]), their_norm.t.copy_(norm.shift[None])
        ours += [norm, AffineCoupling(mask, net)]
        swap = [normflows.flows.Permute(2, mode="swap")] if i % 2 else []
        coupling = normflows.flows.AffineCouplingBlock(Interleaved(twin, 2.0))
        theirs += [their_norm, *swap, coupling, *swap]
    # theirs go from latents to data, ours from data to latents
    reverse = [normflows.flows.Reverse(layer) for layer in reversed(theirs)]
    peer = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(2, trainable=False), reverse)
    return Flow(Chain(ours), (2,)), peer


def test_realnvp_computes_what_the_peer_does():
    ours, peer = (flow.double() for flow in realnvps(pytest.importorskip("normflows", reason=WHY)))
    x = torch.randn(200, 2, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(x), peer.log_prob(x), rtol=1e-10, atol=1e-10)


def test_realnvp_training_step(benchmark):
    ours, peer = realnvps(pytest.importorskip("normflows", reason=WHY))
    x = torch.randn(512, 2)
    compare(
        benchmark,
        "Real NVP in the plane, 8 layers, batch 512",
        training(lambda: -peer.log_prob(x).mean(), peer.parameters(), 60),
        training(lambda: -ours.log_prob(x).mean(), ours.parameters(), 60),
    )


def glow_steps(normflows, channels=8, width=64, steps=3):
    """Steps of Glow on planes: actnorm, LU 1×1 convolution, affine coupling with sigmoid(a + 2), weights equal."""
    ours, theirs = [], []
    for _ in range(steps):
        norm, conv, coupling = ActNorm(channels), InvertibleConv1x1(channels), Coupling(channels, width)
        norm.ready.fill_(True)
        their_norm = normflows.flows.ActNorm((channels, 1, 1))
        their_norm.data_dep_init_done = torch.tensor(1.0)
        their_conv = normflows.flows.Invertible1x1Conv(channels, use_lu=True)
        with torch.no_grad():
            for parameter in coupling.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            norm.log_scale.normal_(std=0.1), norm.shift.normal_(std=0.1)
            their_norm.s.copy_(norm.log_scale[None, :, None, None]), their_norm.t.copy_(norm.shift[None, :, None, None])
            their_conv.P.copy_(conv.p), their_conv.sign_S.copy_(conv.sign), their_conv.log_S.copy_(conv.log_s)
            their_conv.L.copy_(conv.lower), their_conv.U.copy_(conv.upper)
        block = normflows.flows.AffineCouplingBlock(Twin(coupling.net), scale_map="sigmoid_inv")
        ours += [norm, conv, coupling]
        theirs += [their_norm, normflows.flows.Reverse(their_conv), block]
    return Chain(ours), nn.ModuleList(theirs)


class Twin(nn.Module):
    """A copy of our coupling's net in the peer's convention: y_b = x_b s + shift with shift = t s, side by side."""

    def __init__(self, net):
        super().__init__()
        self.net = copy.deepcopy(net)

    def forward(self, x):
        a, t = self.net(x).chunk(2, 1)
        return torch.stack([t * (a + 2).sigmoid(), a], 2).flatten(1, 2)


def through(layers, x):
    total = 0.0
    for layer in layers:
        x, logdet = layer(x)
        total = total + logdet
    return x, total


def test_glow_steps_compute_what_the_peer_does():
    ours, theirs = (m.double() for m in glow_steps(pytest.importorskip("normflows", reason=WHY)))
    x = torch.randn(4, 8, 7, 7, dtype=torch.float64)
    (z, logdet), (their_z, their_logdet) = ours(x), through(theirs, x)
    torch.testing.assert_close(z, their_z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(logdet, their_logdet, rtol=1e-8, atol=1e-8)


def test_glow_training_step(benchmark):
    ours, theirs = glow_steps(pytest.importorskip("normflows", reason=WHY))
    x = torch.randn(32, 8, 14, 14)

    def loss(run):
        z, logdet = run(x)
        return (z.square().flatten(1).sum(1) / 2 - logdet).mean()

    compare(
        benchmark,
        "3 steps of Glow on 8×14×14, batch 32",
        training(lambda: loss(lambda x: through(theirs, x)), theirs.parameters(), 12),
        training(lambda: loss(ours), ours.parameters(), 12),
    )
