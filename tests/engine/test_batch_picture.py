"""The picture of a training batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from slowfast.datasets.augment.mixup import smooth_one_hot
from slowfast.engine.batch_picture import draw_batch, write_png

MEAN, STD = [0.45, 0.4, 0.35], [0.225, 0.2, 0.3]
# Where the first row of a picture begins, and the bar in it (px).
LEFT, BAR, FRAMES = 16, slice(64 + 30, 64 + 35), 64 + 39
BLUE, ORANGE = (31, 119, 180), (196, 78, 0)


def draw(clips, targets, class_names=None, label_smoothing=0.1):
    return draw_batch(clips, targets, MEAN, STD, label_smoothing, class_names, "title")


def normalised(grey_levels):
    offset, scale = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return (grey_levels.float() / 255 - offset) / scale


def bar_shares(picture):
    (bar,) = np.unique(picture[BAR, LEFT:-LEFT], axis=0)  # all its lines are the same
    return [(bar == color).all(axis=-1).mean() for color in (BLUE, ORANGE)]


@pytest.mark.parametrize(("side", "shown"), [(48, 144), (64, 192), (160, 160), (224, 224), (448, 224)])
def test_frames_have_their_grey_levels(side, shown):
    blocks = torch.randint(256, (2, 3, 4, side // 16, side // 16), dtype=torch.uint8)
    clips = blocks.repeat_interleave(16, -1).repeat_interleave(16, -2)
    picture = draw(normalised(clips), smooth_one_hot(torch.tensor([0, 1]), 5, 0.1))
    for frame in range(4):
        left = LEFT + frame * (shown + 4)
        found = torch.from_numpy(picture[FRAMES : FRAMES + shown, left : left + shown].copy()).permute(2, 0, 1)
        cell = shown * 16 // side
        expected = blocks[0, :, frame].repeat_interleave(cell, -1).repeat_interleave(cell, -2)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("num_classes", [2, 174])
@pytest.mark.parametrize("share", [0.5, 0.63, 0.9, 1.0])
def test_bar_shows_the_shares_of_the_mix_without_the_smoothing(num_classes, share):
    targets = smooth_one_hot(torch.tensor([1, 0]), num_classes, 0.1)
    targets = targets * share + targets.flip(0) * (1 - share)
    picture = draw(torch.zeros(2, 3, 4, 32, 32), targets)
    assert bar_shares(picture) == pytest.approx([share, 1 - share], abs=0.005)


def test_captions_of_other_classes_differ_and_long_ones_keep_to_their_half():
    clips = torch.zeros(2, 3, 4, 32, 32)
    targets = 0.6 * smooth_one_hot(torch.tensor([0, 1]), 3, 0.0) + 0.4 * smooth_one_hot(torch.tensor([1, 2]), 3, 0.0)
    long = "Pretending to put something into something, but missing it so that it falls beside something else, twice"
    short, cut = (draw(clips, targets, [name, "Ставить", "c"], 0.0)[64:94] for name in ("a", long))
    half = short.shape[1] // 2
    assert np.array_equal(short[:, half:], cut[:, half:]) and not np.array_equal(short, cut)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((1, 3, 1, 32, 32), 1, 1), ((3, 3, 5, 32, 32), 3, 5), ((64, 3, 7, 32, 32), 8, 6), ((2, 3, 32, 20, 40), 2, 6)],
)
def test_batches_of_any_shape_fit(shape, rows, columns):
    targets = smooth_one_hot(torch.zeros(shape[0], dtype=torch.int64), 4, 0.1)
    height, width = (160, 160) if shape[-1] == 32 else (80, 160)
    picture = draw(torch.randn(shape).to(torch.bfloat16), targets)
    assert picture.shape == (64 + rows * (39 + height + 16), max(2 * LEFT + columns * (width + 4) - 4, 640), 3)


def test_values_that_no_grey_level_has_do_not_wrap_around():
    clips = torch.tensor([-100.0, 100.0, float("nan")]).view(3, 1, 1, 1, 1).expand(3, 3, 2, 160, 160)
    picture = draw(clips, smooth_one_hot(torch.zeros(3, dtype=torch.int64), 4, 0.1))
    corners = [picture[FRAMES + row * (39 + 160 + 16), LEFT].tolist() for row in range(3)]
    assert corners == [[0] * 3, [255] * 3, [0] * 3]


def test_file_is_written_whole_or_not_at_all(tmp_path):
    picture = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    write_png(picture, str(path))
    assert np.array_equal(np.asarray(Image.open(path)), picture)
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]
    with pytest.raises(OSError, match=r"nowhere/picture\.png cannot be written: No such file"):
        write_png(picture, str(tmp_path / "nowhere" / "picture.png"))
