from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from lib_automerge import demo
from lib_automerge.domain import architectures
from lib_automerge.errors import ConfigError, StorageError
from lib_automerge.merge.readers import open_checkpoint

MODELS = [demo.MODEL_A, demo.MODEL_B]


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(path, framework="pt") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("path", MODELS)
class TestCheckpoints:
    def test_keys_are_exactly_those_of_sd1(self, path: Path) -> None:
        sd1 = architectures.get("sd1")
        trained = {key for key in sd1.reference_keys if not sd1.is_copied(key)}
        assert set(shapes(path)) == trained

    def test_every_tensor_has_the_rank_of_the_real_one(self, path: Path) -> None:
        reference = architectures.get("sd1").reference_keys
        assert [
            key for key, shape in shapes(path).items() if len(shape) != len(reference[key])
        ] == []

    def test_is_fp16_and_small(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
        assert path.stat().st_size < 10_000_000

    def test_holds_finite_numbers(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            broken = [k for k in file.keys() if not file.get_tensor(k).isfinite().all()]  # noqa: SIM118
        assert broken == []

    def test_is_recognised_as_complete_sd1(self, path: Path) -> None:
        with open_checkpoint(path) as checkpoint:
            detection = checkpoint.detection
            assert detection.architecture == "sd1"
            assert detection.prediction == "epsilon"
            assert detection.has_text_encoder
            assert detection.has_vae


def test_pair_differs_in_every_unet_block_and_nowhere_else() -> None:
    sd1 = architectures.get("sd1")
    with (
        safe_open(demo.MODEL_A, framework="pt") as a,
        safe_open(demo.MODEL_B, framework="pt") as b,
    ):
        different = {
            sd1.block_of(key)
            for key in a.keys()  # noqa: SIM118
            if not torch.equal(a.get_tensor(key), b.get_tensor(key))
        }
    assert different == set(sd1.parameters)


class TestPayloads:
    def test_search_and_held_out_prompts_share_no_pair_of_subject_and_colour(self) -> None:
        from lib_automerge.demo.drawing import named_attributes

        def pairs(held_out: bool) -> set[tuple[str, str]]:
            named = [
                named_attributes(payload.prompt)
                for payload in demo.load_payloads()
                if payload.held_out == held_out
            ]
            return {(words["subject"], words["colour"]) for words in named}

        assert len(pairs(True)) == len(pairs(False)) == 16
        assert not pairs(True) & pairs(False)

    def test_every_prompt_names_all_three_attributes(self) -> None:
        from lib_automerge.demo.drawing import named_attributes

        for payload in demo.load_payloads():
            assert set(named_attributes(payload.prompt)) == {"subject", "colour", "scene"}

    def test_seeds_of_the_search_are_all_different(self) -> None:
        seeds = [seed for payload in demo.load_payloads() for seed in payload.seeds]
        assert len(seeds) == len(set(seeds)) == 48

    def test_config_keeps_held_out_prompts_when_the_search_is_cut(self) -> None:
        config = demo.config(payloads=2)
        assert sum(not payload.held_out for payload in config.payloads) == 2
        assert sum(payload.held_out for payload in config.payloads) == 16

    @pytest.mark.parametrize("count", [0, 17])
    def test_config_refuses_numbers_of_prompts_that_do_not_exist(self, count: int) -> None:
        with pytest.raises(ConfigError, match=f"payloads is {count}"):
            demo.config(payloads=count)


class TestExport:
    def test_writes_checkpoints_with_a_yaml_of_their_widths(self, tmp_path: Path) -> None:
        written = demo.export(tmp_path / "models")
        assert all(path.is_file() for path in written)
        for model in MODELS:
            copy = tmp_path / "models" / model.name
            assert copy.read_bytes() == model.read_bytes()
            params = yaml.safe_load(copy.with_suffix(".yaml").read_text("utf-8"))["model"]["params"]
            found = shapes(model)
            unet = params["unet_config"]["params"]
            for level, multiple in enumerate(unet["channel_mult"]):
                key = f"model.diffusion_model.input_blocks.{3 * level + 1}.0.out_layers.3.weight"
                assert found[key][0] == multiple * unet["model_channels"]
            attention = (
                "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
            )
            assert found[attention][1] == unet["context_dim"]
            vae = params["first_stage_config"]["params"]["ddconfig"]
            for level, multiple in enumerate(vae["ch_mult"]):
                key = f"first_stage_model.encoder.down.{level}.block.0.conv2.weight"
                assert found[key][0] == multiple * vae["ch"]

    def test_yaml_names_a_folder_with_a_loadable_text_encoder(self, tmp_path: Path) -> None:
        from transformers import CLIPTextConfig, CLIPTokenizer

        demo.export(tmp_path / "odd #1 'name'")
        yaml_file = tmp_path / "odd #1 'name'" / demo.MODEL_A.with_suffix(".yaml").name
        params = yaml.safe_load(yaml_file.read_text("utf-8"))["model"]["params"]
        folder = params["cond_stage_config"]["params"]["version"]
        config = CLIPTextConfig.from_pretrained(folder)
        width = shapes(demo.MODEL_A)[
            "cond_stage_model.transformer.text_model.final_layer_norm.weight"
        ]
        assert (config.hidden_size,) == width
        # The rule by which everybody guesses the number of heads from the width.
        assert config.num_attention_heads == max(1, config.hidden_size // 64)
        assert CLIPTokenizer.from_pretrained(folder).model_max_length == 77

    def test_refuses_to_overwrite_and_then_writes_nothing(self, tmp_path: Path) -> None:
        existing = tmp_path / demo.MODEL_B.with_suffix(".yaml").name
        existing.write_text("mine")
        with pytest.raises(StorageError, match=existing.name):
            demo.export(tmp_path)
        assert existing.read_text() == "mine"
        assert list(tmp_path.iterdir()) == [existing]


class TestTokenizer:
    @pytest.mark.parametrize(
        ("text", "ids"),
        [
            ("a photo of a cat", [49406, 320, 1125, 539, 320, 2368, 49407]),
            ("a RED  heart", [49406, 320, 736, 1936, 49407]),
            ("", [49406, 49407]),
        ],
    )
    def test_gives_the_numbers_of_clip(self, text: str, ids: list[int]) -> None:
        from lib_automerge.demo import networks

        assert networks.tokenizer()(text).input_ids == ids

    def test_pads_with_the_end_token_to_77(self) -> None:
        from lib_automerge.demo import networks

        ids = networks.token_ids(["a star"], networks.tokenizer())
        assert ids.shape == (1, 77)
        assert set(ids[0, 3:].tolist()) == {49407}
