import numpy as np
import pytest

from dasac_jax.data import labels
from dasac_jax.errors import UserError


def test_classes_are_in_train_id_order_with_unique_names_ids_and_colours():
    assert [c.train_id for c in labels.CLASSES] == list(range(19))
    for field in ("name", "label_id", "color"):
        assert len({getattr(c, field) for c in labels.CLASSES}) == 19


def test_train_ids_of_every_byte():
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    expected = np.full(256, 255)
    expected[ids] = np.arange(19)
    found = labels.train_ids(np.arange(256, dtype=np.uint8))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint16, np.int64])
def test_ids_outside_a_byte_are_unknown(dtype):
    ids = np.array([7, 33, 256 + 7, 1000], dtype)
    np.testing.assert_array_equal(labels.train_ids(ids), [0, 18, 255, 255])


def test_negative_ids_are_unknown():
    np.testing.assert_array_equal(labels.train_ids(np.array([-1, -249, 11])), [255, 255, 2])


def test_non_integer_ids_are_refused():
    with pytest.raises(UserError, match="float"):
        labels.train_ids(np.array([7.0]))


def test_label_ids_inverts_train_ids():
    ids = np.append(np.arange(19), 255).astype(np.uint8).reshape(4, 5)
    back = labels.label_ids(ids)
    assert back.dtype == np.uint8 and back.shape == (4, 5)
    assert back[3, 4] == 0
    np.testing.assert_array_equal(labels.train_ids(back), ids)


@pytest.mark.parametrize("value", [19, 254, -1])
def test_label_ids_refuses_what_is_no_train_id(value):
    with pytest.raises(UserError, match=str(value)):
        labels.label_ids(np.array([0, value]))


def test_synthia_ids():
    expected = {1: 10, 3: 0, 4: 1, 8: 13, 11: 18, 15: 6, 21: 3, 0: 255, 13: 255, 14: 255, 22: 255}
    found = labels.synthia_train_ids(np.array(list(expected)))
    np.testing.assert_array_equal(found, list(expected.values()))
    # Every train id has exactly one SYNTHIA class.
    all_ids = labels.synthia_train_ids(np.arange(256))
    assert sorted(all_ids[all_ids != 255].tolist()) == list(range(19))


def test_left_out_classes():
    names = [labels.CLASSES[i].name for i in labels.SYNTHIA_LEFT_OUT_13]
    assert names == ["wall", "fence", "pole", "terrain", "truck", "train"]
    assert [labels.CLASSES[i].name for i in labels.SYNTHIA_LEFT_OUT] == names[3:]


def test_palette_is_cityscapes():
    colors = labels.palette()
    assert colors.shape == (256, 3) and colors.dtype == np.uint8
    np.testing.assert_array_equal(colors[0], (128, 64, 128))
    np.testing.assert_array_equal(colors[18], (119, 11, 32))
    assert not colors[19:].any()
