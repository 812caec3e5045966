import numpy as np
import pytest

from dasac_jax.data import sampling
from dasac_jax.errors import UserError

COUNTS = np.array([[10, 0, 5], [30, 0, 0], [0, 0, 5], [60, 0, 90]])
CLASSES = ("road", "wall", "sky")
NAMES = ("b/one.png", "b/two.png", "a/three.png", "c/four.png")


def test_source_order_is_a_permutation_that_depends_on_seed_and_epoch():
    order = sampling.source_order(3, 5, 100)
    assert sorted(order.tolist()) == list(range(100))
    np.testing.assert_array_equal(order, sampling.source_order(3, 5, 100))
    for other in (sampling.source_order(3, 6, 100), sampling.source_order(4, 5, 100)):
        assert (order != other).mean() > 0.9


def test_source_order_shows_every_image_first_equally_often():
    firsts = np.array([sampling.source_order(0, epoch, 5)[0] for epoch in range(3000)])
    np.testing.assert_allclose(np.bincount(firsts, minlength=5) / 3000, 0.2, atol=0.03)


def test_importance_weights_are_shares_of_a_class():
    weights = sampling.importance_weights(COUNTS)
    np.testing.assert_allclose(weights[:, 0], [0.1, 0.3, 0, 0.6])
    np.testing.assert_array_equal(weights[:, 1], 0)
    np.testing.assert_allclose(weights[:, 2], [0.05, 0, 0.05, 0.9])


def test_probabilities_by_hand():
    found = sampling.target_probabilities(4, sampling.importance_weights(COUNTS), 3)
    np.testing.assert_allclose(found[0], [0.1375, 0.2875, 0.0625, 0.5125])
    np.testing.assert_allclose(found[1], 0.25)  # never predicted
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_left_out_classes_and_missing_weights_are_uniform():
    weights = sampling.importance_weights(COUNTS)
    found = sampling.target_probabilities(4, weights, 3, uniform_classes=(2,))
    np.testing.assert_allclose(found[2], 0.25)
    assert found[0].max() > 0.5
    np.testing.assert_allclose(sampling.target_probabilities(4, None, 3), 0.25)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(UserError, match=r"\(3, 4\).*4 target images and 3 classes"):
        sampling.target_sampler(4, sampling.importance_weights(COUNTS).T, 3)


def test_drawn_frequencies_follow_the_probabilities_of_the_position_s_class():
    weights = sampling.importance_weights(COUNTS)
    sampler = sampling.target_sampler(4, weights, 3, uniform_classes=(2,))
    expected = sampling.target_probabilities(4, weights, 3, uniform_classes=(2,))
    draws = 4000
    for c in range(3):
        found = [sampler.index(1, i % 7, c + 3 * i) for i in range(draws)]
        counts = np.bincount(found, minlength=4)
        chi_square = ((counts - draws * expected[c]) ** 2 / (draws * expected[c])).sum()
        assert chi_square < 16.3, (c, counts)  # 3 degrees of freedom: p = 0.001


def test_draws_repeat_and_differ_between_seeds_epochs_and_positions():
    sampler = sampling.target_sampler(10**6, None, 1)
    draws = [
        sampler.index(seed, epoch, position)
        for seed in range(3)
        for epoch in range(3)
        for position in range(20)
    ]
    assert len(set(draws)) > 175
    assert draws[0] == sampler.index(0, 0, 0)
    assert min(draws) >= 0 and max(draws) < 10**6


def test_orders_and_draws_never_change():
    """Pinned: another order after an upgrade would break the resuming of runs."""
    assert sampling.source_order(1, 2, 8).tolist() == [3, 4, 7, 6, 1, 5, 2, 0]
    sampler = sampling.target_sampler(1000, None, 19)
    assert [sampler.index(1, 2, i) for i in range(5)] == [648, 867, 519, 612, 190]


def test_weights_file_round_trip_in_another_order(tmp_path):
    path = tmp_path / "weights.tsv"
    sampling.save_weights(path, NAMES, COUNTS, CLASSES)
    np.testing.assert_array_equal(
        sampling.load_weights(path, NAMES, CLASSES), sampling.importance_weights(COUNTS)
    )
    np.testing.assert_array_equal(
        sampling.load_weights(path, NAMES[::-1], CLASSES),
        sampling.importance_weights(COUNTS)[::-1],
    )
    lines = path.read_text().splitlines()
    assert lines[1:3] == ["image\troad\twall\tsky", "b/one.png\t10\t0\t5"]
    assert [p.name for p in tmp_path.iterdir()] == ["weights.tsv"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[:3], "hold 1 others .first: c/four.png"),
        ((*NAMES, "new.png"), "lack 1 of the 5 .* hold 0 others .first: new.png"),
        (("x.png", *NAMES[1:]), "lack 1 of the 4 .* hold 1 others .first: x.png"),
    ],
)
def test_weights_of_other_images_are_refused(tmp_path, names, message):
    path = tmp_path / "weights.tsv"
    sampling.save_weights(path, NAMES, COUNTS, CLASSES)
    with pytest.raises(UserError, match=message):
        sampling.load_weights(path, names, CLASSES)


def test_weights_for_other_classes_are_refused(tmp_path):
    path = tmp_path / "weights.tsv"
    sampling.save_weights(path, NAMES, COUNTS, CLASSES)
    with pytest.raises(UserError, match="for the classes"):
        sampling.load_weights(path, NAMES, ("road", "sky", "wall"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b/one.png\t10\t0", "line 3: .*3 pixel counts expected"),
        ("b/one.png\t10\t0\t-5", "line 3"),
        ("b/one.png\t10\t0\t0.5", "line 3"),
        ("b/two.png\t10\t0\t5", "line 4: b/two.png is listed twice"),
    ],
)
def test_damaged_weights_name_the_line(tmp_path, line, message):
    path = tmp_path / "weights.tsv"
    sampling.save_weights(path, NAMES, COUNTS, CLASSES)
    path.write_text(path.read_text().replace("b/one.png\t10\t0\t5", line))
    with pytest.raises(UserError, match=message):
        sampling.load_weights(path, NAMES, CLASSES)


def test_shares_round_trip_exactly(tmp_path):
    path = tmp_path / "weights.tsv"
    shares = sampling.importance_weights(COUNTS + np.arange(12).reshape(4, 3) ** 3)
    shares[:, 1] *= [0, 1e-9, 1, 1]
    sampling.save_weights(path, NAMES, shares, CLASSES)
    found = sampling.load_weights(path, NAMES[::-1], CLASSES)[::-1]
    np.testing.assert_allclose(found, sampling.importance_weights(shares), rtol=1e-15)
    assert "e-" in path.read_text()
    path.write_text(path.read_text().replace("b/one.png\t", "b/one.png\t-"))
    with pytest.raises(UserError, match="line 3: an image name and 3 shares expected"):
        sampling.load_weights(path, NAMES, CLASSES)


def test_names_of_masks_stand_for_their_images(tmp_path):
    path = tmp_path / "weights.tsv"
    images = ("x/ulm/ulm_000001_000019_leftImg8bit.png", "x/bonn/bonn_000001_000019.jpg", "y/7.png")
    masks = ("7.png", "ulm_000001_000019_gtFine_labelIds.png", "m/bonn_000001_000019_pred.png")
    sampling.save_weights(path, masks, COUNTS[:3], CLASSES)
    found = sampling.load_weights(path, images, CLASSES)
    np.testing.assert_array_equal(found, sampling.importance_weights(COUNTS[:3])[[1, 2, 0]])
    with pytest.raises(UserError, match=r"lack 1 of the 2 .* hold 2 others .first: 8\)"):
        sampling.load_weights(path, (images[0], "y/8.png"), CLASSES)
    sampling.save_weights(path, (masks[0], "other/7.png", masks[1]), COUNTS[:3], CLASSES)
    with pytest.raises(UserError, match=r"weights\.tsv: two of them are called '7'"):
        sampling.load_weights(path, images, CLASSES)
    with pytest.raises(UserError, match="training images: two of them are called '7'"):
        sampling.load_weights(path, (*images, "z/7.png"), CLASSES)


def test_weights_that_are_missing_or_something_else_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        sampling.load_weights(tmp_path / "none.tsv", NAMES, CLASSES)
    (tmp_path / "other").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match="cannot read"):
        sampling.load_weights(tmp_path / "other", NAMES, CLASSES)
    (tmp_path / "text").write_text("image road\n")
    with pytest.raises(UserError, match="no file of importance weights"):
        sampling.load_weights(tmp_path / "text", NAMES, CLASSES)


def test_weights_that_cannot_be_saved_are_refused(tmp_path):
    with pytest.raises(UserError, match="do not fit 4 images and 2 classes"):
        sampling.save_weights(tmp_path / "w", NAMES, COUNTS, CLASSES[:2])
    with pytest.raises(UserError, match="tab"):
        sampling.save_weights(tmp_path / "w", ("a\tb", *NAMES[1:]), COUNTS, CLASSES)
    with pytest.raises(UserError, match="cannot write"):
        sampling.save_weights(tmp_path / "none" / "w", NAMES, COUNTS, CLASSES)
