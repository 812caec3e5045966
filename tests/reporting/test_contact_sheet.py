"""The sheet shows the views that it is given, and its captions tell what was drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasac_jax.image import transforms
from dasac_jax.image.normalise import IMAGENET_MEAN, IMAGENET_STD
from dasac_jax.image.view_parameters import Jitter, Noise, Window
from dasac_jax.method import consistency
from dasac_jax.reporting import contact_sheet

SIZE, VIEWS = (64, 128), 3
STATISTICS = ((0.4, 0.5, 0.6), (0.2, 0.2, 0.3))


def photo(height, width):
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(x / 9 + y / 15), np.sin(x / 14 - y / 8), np.cos(x / 20)]
    return (0.5 + 0.45 * np.stack(waves, -1)).astype(np.float32)


def drawn_by_hand():
    """The whole frame; a flipped window of 3/4; a window of 1/2."""
    windows = Window(
        np.array([1, 0.75, 0.5], np.float32),
        np.array([[64, 128], [48, 96], [32, 64]]),
        np.array([[0, 0], [10, 5], [0, 64]]),
        np.array([False, True, False]),
    )
    frames = Window(np.full(3, 1.0625, np.float32), *windows[1:3], np.ones(3, bool))
    factors = np.tile(np.array([1.25, 0.75, 1.125, -0.0625], np.float32), (3, 1))
    jitter = Jitter(
        np.array([False, True, True]), factors, np.array([[0, 1, 2, 3], [3, 1, 0, 2], [2, 0, 1, 3]])
    )
    return contact_sheet.Drawn(
        frames,
        windows,
        Noise(np.array([0.5, 1.25, 2.0], np.float32), jitter, np.array([False, False, True])),
    )


@pytest.fixture(scope="module")
def batch():
    windows = drawn_by_hand().windows
    frame = photo(*SIZE)
    whole = tuple(jnp.ones(n, bool) for n in SIZE)
    clean, padded = jax.vmap(lambda w: transforms.zoom_view(frame, whole, w))(windows)
    to_reference, from_reference = transforms.window_matrices(windows, SIZE)
    normalised = (clean - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    source = (photo(*SIZE)[None] - np.array(STATISTICS[0])) / np.array(STATISTICS[1])
    source[:, :, 100:] = 0
    label = np.full((1, *SIZE), 255)
    label[:, 32:, :64] = 13
    made = {
        "teacher_view": normalised, "student_view": normalised[:, :, ::-1], "padded": padded,
        "to_reference": to_reference, "from_reference": from_reference,
        "source_image": source, "source_label": label,
    }  # fmt: skip
    return jax.tree.map(np.asarray, made)


def test_views_lie_on_their_reference_when_warped_back(batch):
    """With the matrices' signs turned they would not."""
    back, seen = contact_sheet.warped_back(batch)
    for view, share in enumerate((1.0, 0.75**2, 0.25)):
        inside = seen[view] > 0.99
        assert abs(inside.mean() - share) < 0.05
        assert np.abs(back[view] - photo(*SIZE))[inside].mean() < 1 / 255
        assert (back[view][seen[view] == 0] == 0).all()
    turned = batch | {"to_reference": batch["to_reference"] * np.array([1, 1, -1])}
    back, seen = contact_sheet.warped_back(turned)
    for view in (1, 2):
        assert np.abs(back[view] - photo(*SIZE))[seen[view] > 0.99].mean() > 10 / 255


def test_padding_is_not_seen(batch):
    padded = batch["padded"].copy()
    padded[2, :, :64] = True
    _, seen = contact_sheet.warped_back(batch | {"padded": padded})
    _, before = contact_sheet.warped_back(batch)
    assert abs(seen[2].mean() / before[2].mean() - 0.5) < 0.05


@pytest.fixture(scope="module")
def sheet(batch):
    raw = {
        "target_image": np.round(255 * photo(128, 256)).astype(np.uint8)[None],
        "names": ["game/images/a.png", "cityscapes/b.png"],
    }
    sources = Window(np.array([0.5]), np.zeros((1, 2)), np.zeros((1, 2)), np.array([True]))
    return contact_sheet.contact_sheet(
        raw, batch, drawn_by_hand(), sources, statistics=STATISTICS, title="a step"
    )


def found(sheet, picture):
    """Whether the picture lies somewhere in the sheet, but for rounding."""
    H, W, _ = picture.shape
    corner = (
        np.abs(sheet[: -H + 1 or None, : -W + 1 or None].astype(int) - picture[0, 0]).max(-1) <= 1
    )
    for top, left in zip(*np.nonzero(corner), strict=True):
        there = sheet[top : top + H, left : left + W].astype(int)
        if np.abs(there - picture).max() <= 1:
            return True
    return False


def test_the_sheet_holds_views_references_and_labels(sheet, batch):
    frame = np.round(255 * photo(*SIZE)).astype(int)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    for name in ("teacher_view", "student_view"):
        for view in batch[name]:
            shown = np.round(255 * np.clip(view * IMAGENET_STD + IMAGENET_MEAN, 0, 1)).astype(int)
            assert found(sheet, shown), name
    assert found(sheet, frame)
    padded = frame.copy()
    padded[:, 100:] = 225
    assert found(sheet, padded)
    padded[32:, :64] = 0.3 * padded[32:, :64] + 0.7 * np.array([0, 0, 142])
    assert found(sheet, padded)


def test_noise_in_words():
    noise = drawn_by_hand().noise
    words = [
        contact_sheet.noise_in_words(jax.tree.map(lambda x, i=i: x[i], noise)) for i in range(3)
    ]
    assert words == [
        "blur 0.5",
        "blur 1.2, hue -0.06, contrast 0.75, brightness 1.25, saturation 1.12",
        "blur 2.0, saturation 1.12, brightness 1.25, contrast 0.75, hue -0.06, grey",
    ]


def test_planted_signs_are_noticed(batch, monkeypatch):
    """The comparison that the sheet makes would show a wrong sign in the matrices themselves."""
    original = consistency.view_matrices

    def wrong(offsets, scales, flips, size):
        return original(-offsets, scales, flips, size)

    monkeypatch.setattr(transforms, "view_matrices", wrong)
    to_reference, _ = transforms.window_matrices(drawn_by_hand().windows, SIZE)
    back, seen = contact_sheet.warped_back(batch | {"to_reference": np.asarray(to_reference)})
    assert np.abs(back[2] - photo(*SIZE))[seen[2] > 0.99].mean() > 10 / 255
