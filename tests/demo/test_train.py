from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_automerge.demo import (
    drawing,
    latents,
    networks,
    train,
    train_denoiser,
    train_reward,
    train_text,
    train_vae,
)
from lib_automerge.demo.specialists import PLANS
from lib_automerge.domain import architectures
from lib_automerge.reward.demo import DemoReward


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """All stages, two steps each."""
    monkeypatch.setattr(latents, "_PICTURES", 64)
    monkeypatch.setattr(train_vae, "PICTURES", 8)
    monkeypatch.setattr(train_vae, "DECODER_STEPS", 2)
    monkeypatch.setattr(train_vae, "ENCODER_STEPS", 2)
    monkeypatch.setattr(train_vae, "BATCH", 2)
    monkeypatch.setattr(train_text, "STEPS", 2)
    monkeypatch.setattr(train_denoiser, "BATCH", 2)
    monkeypatch.setattr(train_denoiser, "BASE_ROUNDS", ((2, 1e-3), (2, 1e-3)))
    monkeypatch.setattr(train_reward, "PICTURES", 8)
    monkeypatch.setattr(train_reward, "HELD_OUT", 8)
    monkeypatch.setattr(train_reward, "STEPS", 2)
    monkeypatch.setattr(train, "PLANS", tuple(replace(plan, steps=2) for plan in PLANS))
    monkeypatch.setattr(train, "PICTURES", 8)


@pytest.mark.usefixtures("short")
def test_training_makes_a_loadable_pair_and_skips_what_is_done(tmp_path: Path) -> None:
    files = train.train(tmp_path)

    sd1 = architectures.get("sd1")
    trained = {key for key in sd1.reference_keys if not sd1.is_copied(key)}
    tensors = {role: load_file(files[role]) for role in ("base", "a", "b")}
    for role in tensors:
        assert set(tensors[role]) == trained
        ranks = {key: len(sd1.reference_keys[key]) for key in trained}
        assert {key: value.ndim for key, value in tensors[role].items()} == ranks
    DemoReward(files["reward"])

    # A specialist changes all UNet blocks, and neither the text encoder nor the VAE.
    for role in ("a", "b"):
        changed = {
            sd1.block_of(key)
            for key, value in tensors[role].items()
            if not torch.equal(value, tensors["base"][key])
        }
        assert changed <= set(sd1.parameters)
        assert len(changed) > 20

    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*_*.safetensors")}
    written |= {path: path.stat().st_mtime_ns for path in tmp_path.glob("[abtv]*.safetensors")}
    (tmp_path / files["a"].name).unlink()
    train.train(tmp_path)
    stages = [path for path in written if not path.name.startswith("automerge")]
    assert len(stages) >= 7
    assert [path.name for path in stages if path.stat().st_mtime_ns != written[path]] == []
    assert {k: v.tolist() for k, v in load_file(files["a"]).items() if v.ndim == 1} == {
        k: v.tolist() for k, v in tensors["a"].items() if v.ndim == 1
    }


def test_baked_scale_leaves_the_decoder_as_it_was() -> None:
    torch.manual_seed(0)
    model = networks.vae().eval()
    latents = torch.randn(1, 4, 8, 8)
    pictures = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        decoded = model.decode(latents).sample
        encoded = model.encode(pictures).latent_dist.mean
        train_vae._bake_scale(model)
        again = model.decode(latents / networks.SCALING_FACTOR).sample
        assert torch.allclose(again, decoded, atol=1e-4)
        scaled = model.encode(pictures).latent_dist.mean * networks.SCALING_FACTOR
        assert torch.allclose(scaled, encoded, atol=1e-4)


def test_noise_schedule_is_that_of_stable_diffusion_1() -> None:
    from diffusers import DDPMScheduler

    reference = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).alphas_cumprod
    assert torch.allclose(train_denoiser.noise_schedule(), reference, atol=1e-5)


def test_codes_put_all_words_of_a_kind_equally_far_apart() -> None:
    for words in drawing.VOCABULARY.values():
        distances = torch.pdist(train_text.codes(list(words)))
        assert torch.allclose(distances, distances[0].expand_as(distances), atol=1e-5)
        assert distances[0] > 1


def test_codes_give_each_kind_its_own_channels() -> None:
    ball, star, any_colour = train_text.codes(["a red ball", "a red star", "a ball"])
    assert torch.equal(ball[5:], star[5:])
    assert not torch.equal(ball[:5], star[:5])
    assert torch.equal(any_colour[:5], ball[:5])
    assert not any_colour[5:].any()


def test_strength_multiplies_the_change_of_full_rate_blocks_only() -> None:
    plan = PLANS[0]
    base, model = networks.unet(), networks.unet()
    before = {name: value.clone() for name, value in model.named_parameters()}
    train_denoiser._strengthen(model, base, plan)
    for (name, value), start in zip(model.named_parameters(), base.parameters(), strict=True):
        full = not networks.unet_blocks()[name].startswith("OUT")
        expected = start + (plan.strength if full else 1.0) * (before[name] - start)
        assert torch.allclose(value, expected, atol=1e-5), name
