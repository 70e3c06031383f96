import numpy as np
import pytest
import skimage.data
import torch

from course_lib.data.photos import PHOTOS, TEXTURES, photo


@pytest.mark.parametrize("name", PHOTOS)
def test_each_photo_is_scikit_images_in_minus_one_to_one(name):
    x = photo(name)
    assert x.dtype == torch.float32 and x.shape[0] == (1 if name in TEXTURES else 3)
    assert -1 <= x.min() < -0.5 and 0.5 < x.max() <= 1
    back = ((x + 1) * 127.5).round().byte().movedim(0, -1).numpy()
    assert np.array_equal(back.squeeze(), getattr(skimage.data, name)())


@pytest.mark.parametrize("name", ["brick", "chelsea"])
def test_a_size_cuts_the_middle_square_and_shrinks_it(name):
    whole, small = photo(name), photo(name, 50)
    assert small.shape == (whole.shape[0], 50, 50) and small.min() >= -1 and small.max() <= 1
    side = min(whole.shape[1:])
    top, left = ((n - side) // 2 for n in whole.shape[1:])
    square = whole[:, top : top + side, left : left + side]
    # averages of a tenth of the side agree, so nothing is mirrored, moved or stretched
    coarse = [torch.nn.functional.adaptive_avg_pool2d(p, 10) for p in (square, small)]
    assert (coarse[0] - coarse[1]).abs().max() < 0.05
    assert torch.equal(small, photo(name, 50))


def test_an_unknown_name_is_refused_with_the_list():
    with pytest.raises(ValueError, match="unknown photo 'lena'; there are brick, grass, gravel"):
        photo("lena")
