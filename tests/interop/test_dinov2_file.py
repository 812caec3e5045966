"""DINOv2's files: recognised by content, converted, written again bit for bit; others refused."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dasac_jax import interop
from dasac_jax.checkpoints import store
from dasac_jax.errors import UserError
from dasac_jax.inference import trained_network
from dasac_jax.interop import command, convert, dinov2_names, export, load_torch_file
from dasac_jax.interop.contents import recognise

ARCH = "dinov2_demo"


@pytest.fixture(scope="module")
def original():
    """The encoder's entries under the original names."""
    rng = np.random.default_rng(0)
    shapes = dinov2_names.entries(ARCH, 19)
    return {n: rng.random(s, np.float32) for n, s in shapes.items() if not n.startswith("head.")}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].shape == array.shape and ours[name].dtype == array.dtype, name
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def refused(loaded, **options):
    with pytest.raises(UserError) as caught:
        recognise(loaded, **options)
    return str(caught.value)


class TestConversion:
    def test_both_kinds_of_files_come_back_bit_for_bit(self, original, tmp_path, capsys):
        theirs = dinov2_names.to_transformers(original)
        save_file(theirs, tmp_path / "model.safetensors")
        interop.save_torch_file(tmp_path / "pretrain.pth", original)
        for name in ("model.safetensors", "pretrain.pth"):
            folder = tmp_path / name.split(".")[0]
            assert command.main([str(tmp_path / name), str(folder)]) == 0
            said = capsys.readouterr().out
            assert "dinov2_demo, dinov2, 19 classes" in said and "new layers" in said
            export.to_torch(folder, tmp_path / f"{name}.pth")
            assert_same(load_torch_file(tmp_path / f"{name}.pth"), original)
            export.to_safetensors(folder, tmp_path / f"{name}.back")
            assert_same(load_file(tmp_path / f"{name}.back"), theirs)

    def test_the_head_is_drawn_and_a_trained_one_is_kept(self, original, tmp_path):
        interop.save_torch_file(tmp_path / "a.pth", original)
        convert.convert(tmp_path / "a.pth", tmp_path / "a")
        drawn = store.facts(tmp_path / "a")["drawn"]
        assert len(drawn) == 10 and all(place.startswith("params/head/") for place in drawn)
        _, networks, _ = trained_network.open_checkpoint(tmp_path / "a")
        head = networks["student"]["params"]["head"]
        assert head["out"]["kernel"].std() == pytest.approx(0.1, rel=0.1)
        assert 0.9 < np.abs(head["up1"]["kernel"]).max() * (4 * 48) ** 0.5 <= 1

        whole = interop.state_dict_from_variables(ARCH, networks["student"])
        whole["head.out.weight"] = np.ones((7, 24, 1, 1), np.float32)
        found = recognise(dinov2_names.to_transformers(whole))
        assert (found.kind, found.num_classes, found.missing) == ("weights", 7, ())
        assert_same(found.student, whole)

    def test_names_in_memory_prefixes_and_timms_files(self, original):
        files = dinov2_names.to_transformers(original)
        memory = {
            name.replace("attention.attention.query", "attention.q_proj")
            .replace("attention.attention.key", "attention.k_proj")
            .replace("attention.attention.value", "attention.v_proj")
            .replace("attention.output.dense", "attention.o_proj"): array
            for name, array in files.items()
        }
        assert len(set(memory) - set(files)) == 4 * 4 * 2
        assert_same(recognise(memory).student, original)
        inside = {f"dinov2.{name}": array for name, array in files.items()}
        inside["classifier.weight"] = np.zeros((10, 192), np.float32)
        found = recognise({"model": inside})
        assert_same(found.student, original)
        assert list(found.dropped) == ["classifier.weight"]
        timms = {name: x for name, x in original.items() if name != "mask_token"}
        found = recognise(timms)
        assert not found.student["mask_token"].any()
        assert_same(found.student | {"mask_token": original["mask_token"]}, original)


class TestRefusals:
    def test_what_is_missing_too_much_or_not_finite_is_named(self, original):
        broken = dict(original)
        broken["extra"] = broken.pop("blocks.1.mlp.fc2.bias")
        broken["norm.weight"] = np.full(96, np.nan, np.float32)
        broken["ls"] = np.zeros(3, np.int32)
        said = refused(broken)
        assert "1 is missing: blocks.1.mlp.fc2.bias" in said
        assert "2 are unexpected: extra, ls" in said
        assert "1 is not finite: norm.weight" in said

    def test_a_part_of_queries_keys_and_values(self, original):
        files = dinov2_names.to_transformers(original)
        del files["encoder.layer.2.attention.attention.key.bias"]
        said = refused(files)
        assert "missing: blocks.2.attn.qkv.bias" in said
        assert "encoder.layer.2.attention.attention.query.bias" in said

    @pytest.mark.parametrize(
        ("entry", "name"),
        [
            ("embeddings.register_tokens", "DINOv2 with registers"),
            ("register_tokens", "DINOv2 with registers"),
            ("blocks.0.mlp.w12.weight", "DINOv2 giant"),
            ("encoder.layer.0.mlp.weights_in.weight", "DINOv2 giant"),
        ],
    )
    def test_kinds_that_are_not_offered(self, original, entry, name):
        said = refused(original | {entry: np.zeros((1, 4, 96), np.float32)})
        assert f"it is {name}, which is not offered" in said and "dinov2_vits14" in said

    @pytest.mark.parametrize(
        ("entry", "name"),
        [
            ("vision_model.encoder.layers.0.mlp.fc1.weight", "CLIP"),
            ("vit.encoder.layer.0.attention.attention.query.weight", "a vision transformer"),
            ("blocks.0.attn.qkv.weight", "a vision transformer without layer scale"),
            ("segformer.encoder.block.0.0.layer_norm_1.weight", "SegFormer"),
            ("model.layers.0.self_attn.q_proj.weight", "a language model"),
            ("layer.0.layer_scale1.lambda1", "DINOv3"),
        ],
    )
    def test_safetensors_of_another_model(self, tmp_path, capsys, entry, name):
        save_file({entry: np.zeros((4, 4), np.float32)}, tmp_path / "model.safetensors")
        code = command.main([str(tmp_path / "model.safetensors"), str(tmp_path / "out")])
        said = capsys.readouterr().err
        assert code == 2 and f"model.safetensors: it is {name}" in said
        assert not (tmp_path / "out").exists()

    def test_another_size_and_another_arch(self, original):
        wide = {name: x for name, x in original.items() if "blocks.3." not in name}
        assert "width 96 with 3 blocks, which is not offered" in refused(wide)
        said = refused(original, arch="dinov2_vits14")
        assert said == "it is dinov2_demo, not dinov2_vits14: leave --arch out"

    def test_a_damaged_file(self, original, tmp_path):
        path = tmp_path / "model.safetensors"
        save_file(original, path)
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(UserError, match="not a safetensors file that can be read"):
            convert.convert(path, tmp_path / "out")


def test_safetensors_of_the_other_networks_are_read_too(tmp_path):
    shapes = interop.names.entries("deeplabv2_demo", 19)
    arrays = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
    save_file(arrays, tmp_path / "mine.safetensors")
    done = convert.convert(tmp_path / "mine.safetensors", tmp_path / "out")
    assert (done.contents.arch, done.contents.kind) == ("deeplabv2_demo", "weights")
