import pytest
import torch

from course_lib.autoencoders.vqvae import VQVAE, Codebook, code_decoder, code_encoder, perplexity
from course_lib.core import FitOptions, Player, fit, minibatches, warmup_cosine
from course_lib.data import load

WORDS, DIM, BETA = 7, 3, 0.25


def book(beta=BETA):
    torch.manual_seed(1)
    return Codebook(WORDS, DIM, beta).double()


def places(n=2, h=4, w=5):
    return torch.randn(n, DIM, h, w, dtype=torch.float64, requires_grad=True)


def test_nearest_is_brute_force():
    codebook, z = book(), places()
    code = codebook.nearest(z)
    for b, r, c in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).tolist():
        distances = [(z[b, :, r, c] - word).square().sum().item() for word in codebook.table]
        assert code[b, r, c] == distances.index(min(distances))
    looked_up = codebook.lookup(code)
    assert looked_up.shape == z.shape
    assert torch.equal(looked_up[1, :, 2, 3], codebook.table[code[1, 2, 3]])


def test_the_forward_value_is_the_code_word():
    codebook, z = book(), places()
    quantized, code, _ = codebook(z)
    torch.testing.assert_close(quantized, codebook.lookup(code))


def test_straight_through_jacobian_is_the_identity():
    codebook, z = book(), places(1, 2, 2)
    jacobian = torch.autograd.functional.jacobian(lambda z: codebook(z)[0], z).reshape(z.numel(), z.numel())
    assert torch.equal(jacobian, torch.eye(z.numel(), dtype=torch.float64))
    to_table = torch.autograd.grad(codebook(z)[0].sum(), codebook.table, allow_unused=True)[0]
    assert to_table is None or not to_table.any()  # the decoder does not move the code words


@pytest.mark.parametrize("beta", [0.1, 0.25, 2.0])
def test_gradients_of_the_terms_are_minus_one_to_beta(beta):
    """∂L/∂z_e = −β ∂L/∂e (a well-known implementation has β on the other term)."""
    codebook, z = book(beta), places()
    _, code, terms = codebook(z)
    by_z, by_table = torch.autograd.grad(terms, (z, codebook.table))
    flat_code, flat = code.flatten(), by_z.movedim(1, -1).flatten(0, -2)
    for word in range(WORDS):
        torch.testing.assert_close(flat[flat_code == word].sum(0), -beta * by_table[word])
    # and in absolute size: each place pulls with 2 (e − z) / places
    want = 2 * beta * (z - codebook.lookup(code)) / code.numel()
    torch.testing.assert_close(by_z, want)


def test_terms_are_the_mean_squared_distance_times_one_plus_beta():
    codebook, z = book(), places()
    _, code, terms = codebook(z)
    distance = (z - codebook.lookup(code)).square().sum(1).mean()
    torch.testing.assert_close(terms, (1 + BETA) * distance)


def test_perplexity_counts_the_words_in_use():
    assert perplexity(torch.full((2, 3, 3), 4), 9).item() == pytest.approx(1)
    assert perplexity(torch.arange(9).repeat(5), 9).item() == pytest.approx(9)
    assert perplexity(torch.arange(4).repeat(5), 9).item() == pytest.approx(4)
    p = torch.tensor([0.5, 0.25, 0.25])
    want = (-(p * p.log()).sum()).exp().item()
    assert perplexity(torch.tensor([0, 0, 1, 2]), 5).item() == pytest.approx(want)


def test_revive_moves_the_dead_words_and_no_others():
    codebook, z = book(), places().detach()
    with torch.no_grad():
        codebook.table[[1, 4]] = 1e3  # no place is near
    before, used = codebook.table.detach().clone(), codebook.nearest(z).unique()
    moved = codebook.revive(z, torch.Generator().manual_seed(0))
    assert moved == WORDS - len(used) >= 2
    assert torch.equal(codebook.table[used], before[used])
    rows = z.movedim(1, -1).flatten(0, -2)
    for word in set(range(WORDS)) - set(used.tolist()):
        assert (rows == codebook.table[word]).all(1).any()
    assert codebook.nearest(z).unique().numel() > len(used)


def test_loss_is_equation_3():
    model, x = VQVAE(1, WORDS, DIM, 8).double(), torch.rand(3, 1, 8, 8).double() * 2 - 1
    z = model.encoder(x)
    e = model.codebook.lookup(model.codebook.nearest(z))
    error = (model.decoder(e) - x).square().sum() / 3 / 4  # per picture and place
    distance = (z - e).square().sum(1).mean()
    torch.testing.assert_close(model.loss(x), error + (1 + model.codebook.beta) * distance)


def test_the_encoder_learns_from_the_reconstruction():
    model, x = VQVAE(1, WORDS, DIM, 8, beta=0.0), torch.rand(3, 1, 8, 8) * 2 - 1
    model.loss(x).backward()
    assert all(p.grad.abs().max() > 0 for p in model.encoder.parameters())


def test_shapes_and_range():
    model = VQVAE(3, WORDS, DIM, 8)
    x = torch.rand(2, 3, 28, 20) * 2 - 1
    code = model.encode(x)
    assert code.shape == (2, 7, 5) and code.min() >= 0 and code.max() < WORDS
    assert model(x).shape == x.shape and model(10 * x).abs().max() <= 1
    assert torch.equal(model.decode(code), model(x))
    assert code_encoder(1, 5, 8)(torch.zeros(2, 1, 12, 8)).shape == (2, 5, 3, 2)
    assert code_decoder(5, 1, 8)(torch.zeros(2, 5, 3, 2)).shape == (2, 1, 12, 8)


def test_beats_the_mean_digit_and_uses_its_words():
    """Short real training: 49 symbols of 32 words say far more about a digit than the mean does."""
    train, test = load("digits", "train").x, load("digits", "test").x
    model = VQVAE(1, 32, 8, 16)
    batches = minibatches(train, 32)

    def loss(x, step):
        if step % 25 == 0 and step < 150:
            model.codebook.revive(model.encoder(x))
        return model.loss(x)

    fit(Player("vqvae", model, loss, lr=6e-3), batches, 250, options=FitOptions(schedule=warmup_cosine(250, 10)))
    with torch.no_grad():
        error = (model(test) - test).square().sum((1, 2, 3)).mean().item()
        used = perplexity(model.encode(test), 32).item()
    mean_error = (train.mean(0) - test).square().sum((1, 2, 3)).mean().item()
    assert error < 0.4 * mean_error, (error, mean_error)
    assert used > 8, used
