import torch

from course_lib.data.transforms import shifted


def test_shifts_move_the_whole_batch_by_up_to_so_many_pixels():
    x = torch.zeros(2, 1, 7, 7)
    x[:, :, 3, 3] = 1
    seen = set()
    for _ in range(400):
        moved = shifted(x, by=1)
        places = moved.nonzero()
        assert len(places) == 2 and (places[0, 2:] == places[1, 2:]).all()
        seen.add(tuple(places[0, 2:].tolist()))
    assert seen == {(i, j) for i in (2, 3, 4) for j in (2, 3, 4)}
    torch.testing.assert_close(shifted(x, by=0), x)
