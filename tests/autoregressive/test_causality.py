"""Who sees whom, exactly: zeros of the Jacobian with respect to injected embeddings."""

import itertools

import pytest
import torch

from course_lib.autoregressive.gated_pixelcnn import GatedPixelCNN
from course_lib.autoregressive.pixelcnn import PixelCNN
from course_lib.autoregressive.raster import EmbeddedCodes, ScaledPixels
from course_lib.autoregressive.transformer import CausalTransformer
from course_lib.autoregressive.wavenet import WaveNet
from tests.autoregressive.models import (
    CLASSES,
    LENGTH,
    RASTER,
    SEQUENCE,
    Leaf,
    influence,
    label,
    lively,
    raster_influence,
)

SIDE = 7


def past(h, w):
    """[i, j] is True where place j comes before place i in raster order."""
    return torch.ones(h * w, h * w).tril(-1).bool()


def reachable(h, w, first, later, layers):
    """The same by walking offsets: which places a stack of masked windows can see; nothing of the library in it."""
    reach = set(first)
    for _ in range(layers):
        reach |= {(a + c, b + d) for a, b in reach for c, d in later}
    places = list(itertools.product(range(h), range(w)))
    return torch.tensor([[(r - i, c - j) in reach for r, c in places] for i, j in places])


def before(radius, centre):
    """Offsets of a masked window: all rows above, the left of the own one, and the centre if it is shown."""
    side = range(-radius, radius + 1)
    return [(r, c) for r in side for c in side if r < 0 or (r == 0 and (c < 0 or (centre and c == 0)))]


@pytest.mark.parametrize("name", RASTER)
def test_no_place_sees_itself_or_the_future(name):
    seen = raster_influence(name, SIDE, SIDE) > 0
    assert not (seen & ~past(SIDE, SIDE)).any()
    assert seen.any()


@pytest.mark.parametrize("name", [name for name in RASTER if not name.startswith("PixelCNN") or name == "PixelCNN++"])
def test_gated_models_and_pixelrnn_see_the_whole_past(name):
    seen = raster_influence(name, SIDE, SIDE) > 0
    assert torch.equal(seen, past(SIDE, SIDE))


@pytest.mark.parametrize("name", ["PixelCNN", "PixelCNN over codes"])
def test_plain_pixelcnn_has_the_blind_spot_of_its_masks(name):
    h = w = 8
    seen = raster_influence(name, h, w, draws=5) > 0
    assert torch.equal(seen, reachable(h, w, before(3, False), before(1, True), layers=6))
    # what is missing of the past is the wedge to the upper right: columns further right than rows up, plus 2
    blind = past(h, w) & ~seen
    places = list(itertools.product(range(h), range(w)))
    wedge = torch.tensor([[r < i and c - j > (i - r) + 2 for r, c in places] for i, j in places])
    assert blind.any() and torch.equal(blind, wedge)


def test_one_layer_sees_one_window():
    """Without later layers the plain model sees 7×7 above and left; the gated one 3 rows of 7 and 3 to the left."""
    plain = raster_influence("", SIDE, SIDE, make=lambda k: PixelCNN(ScaledPixels(k), 16, 0)) > 0
    assert torch.equal(plain, reachable(SIDE, SIDE, before(3, False), [], 0))
    gated = raster_influence("", SIDE, SIDE, make=lambda k: GatedPixelCNN(ScaledPixels(k), 8, 1)) > 0
    assert torch.equal(gated, reachable(SIDE, SIDE, before(3, False), [], 0))


@pytest.mark.parametrize("embed", [ScaledPixels(4), EmbeddedCodes(4, 3)], ids=["scaled", "codes"])
def test_embeddings_are_pointwise(embed):
    """The Jacobians above start behind the embedding, so it must not mix places itself."""
    v = torch.randint(4, (3, 5, 6))
    whole = embed(v)
    assert whole.shape == (3, embed.channels, 5, 6)
    for row, column in itertools.product(range(5), range(6)):
        alone = embed(v[:, row : row + 1, column : column + 1])
        assert torch.equal(whole[:, :, row, column], alone[:, :, 0, 0])


def test_scaled_pixels_are_the_pictures_grey_values():
    assert ScaledPixels(5)(torch.arange(5).view(1, 1, 5)).flatten().tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


def sequence_influence(model, length, draws=3):
    """(length, length): how much the symbol at s (the input that carries it) moves the logits at t."""
    total = torch.zeros(length, length, dtype=torch.float64)
    for _ in range(draws):
        if isinstance(model, WaveNet):  # its input at t carries the symbol at t − 1
            leaf = Leaf(torch.randn(1, length, model.embed.embedding_dim, dtype=torch.float64))
            model.embed = leaf
            shift = 1
        else:  # embeds the symbols without the last
            leaf = Leaf(torch.randn(1, length - 1, model.symbols.embedding_dim, dtype=torch.float64))
            model.symbols = leaf
            shift = 0
        logits = model.logits(torch.zeros(1, length, dtype=torch.long), *label(model, 1))
        seen = influence(logits, leaf.values).sum(2)[:, shift:]
        total += torch.nn.functional.pad(seen, (0, length - seen.shape[1]))
        leaf.embedding_dim = leaf.values.shape[2]
    return total


@pytest.mark.parametrize("name", SEQUENCE)
def test_sequence_models_see_exactly_their_past(name):
    model = lively(SEQUENCE[name], 3)
    seen = sequence_influence(model, LENGTH) > 0
    field = getattr(model, "receptive_field", LENGTH)
    ones = torch.ones(LENGTH, LENGTH).bool()
    assert torch.equal(seen, ones.tril(-1) & ones.triu(-field))


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_wavenet_sees_two_to_the_layers(layers):
    make = lambda k: WaveNet(k, 8, 8, layers)  # noqa: E731
    assert make(3).receptive_field == 2**layers
    seen = sequence_influence(lively(make, 3), 2**layers + 4) > 0
    assert seen[-1].sum() == 2**layers
    assert not seen[-1, : -(2**layers) - 1].any()


def test_labels_reach_every_place_and_start_without_effect():
    v, ys = torch.randint(2, (CLASSES, 4, 4)), torch.arange(CLASSES)
    for make in (lambda k: GatedPixelCNN(ScaledPixels(k), 8, 3, CLASSES),):
        fresh = make(2)
        same = fresh.logits(v[:1].expand(CLASSES, -1, -1), ys)
        assert torch.equal(same[0], same[1])  # zero labels: the unconditional model
        model = lively(make, 2)
        differ = model.logits(v[:1].expand(CLASSES, -1, -1), ys)
        assert ((differ[0] - differ[1]).abs().amax(0) > 1e-3).all()
    transformer = lively(lambda k: CausalTransformer(k, LENGTH, 12, 3, 2, CLASSES), 2)
    differ = transformer.logits(torch.zeros(CLASSES, LENGTH, dtype=torch.long), ys)
    assert ((differ[0] - differ[1]).abs().amax(0) > 1e-6).all()


@pytest.mark.parametrize(
    ("with_classes", "without"),
    [
        (GatedPixelCNN(ScaledPixels(2), 4, 2, 3), GatedPixelCNN(ScaledPixels(2), 4, 2)),
        (CausalTransformer(2, 4, 4, 1, 1, 3), CausalTransformer(2, 4, 4, 1, 1)),
    ],
)
def test_a_missing_or_needless_label_is_refused(with_classes, without):
    v = torch.zeros(2, 2, 2, dtype=torch.long) if isinstance(without, GatedPixelCNN) else torch.zeros(2, 4).long()
    y = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="has 3 classes, so labels must be given"):
        with_classes.log_prob(v)
    with pytest.raises(ValueError, match="has 0 classes, so labels must not be given"):
        without.log_prob(v, y)
    assert with_classes.log_prob(v, y).shape == without.log_prob(v).shape == (2,)
