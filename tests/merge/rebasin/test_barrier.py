"""The demo's two models were trained from one start, so their midpoint works; shuffling one of them
breaks it, and Re-Basin mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_automerge import demo
from lib_automerge.demo import drawing, networks
from lib_automerge.demo.train_denoiser import noise_loss
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.generate.loading import load_pipeline
from lib_automerge.merge import merge_files
from lib_automerge.merge.readers import open_checkpoint
from lib_automerge.merge.rebasin.cache import cached_match
from lib_automerge.merge.rebasin.formulas import rebasin
from lib_automerge.merge.rebasin.orders import Layout, shuffled
from lib_automerge.merge.rebasin.tensors import (
    Permuted,
    Stored,
    Tensors,
    shared_symmetries,
    whole,
)
from tests.merge.rebasin.test_files import write_shuffled

PICTURES = 48


class Task:
    """What the demo learnt: to predict the noise on drawn pictures with true captions."""

    def __init__(self, pipeline: Any) -> None:
        self._unet, self._encoder = pipeline.unet, pipeline.text_encoder
        self._generator = torch.Generator().manual_seed(0)
        shown = drawing.random_attributes(PICTURES, self._generator)
        vae = pipeline.vae
        with torch.no_grad():
            pictures = drawing.draw(shown, self._generator)
            self._latents = vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor
        texts = drawing.captions(shown, self._generator)
        self._tokens = networks.token_ids(texts, pipeline.tokenizer)

    def loss(self, model: Tensors) -> float:
        """The error of a model's UNet and text encoder; the VAE is the same in both."""
        targets: dict[str, dict[str, Tensor]] = {
            component: {
                name.removeprefix("text_model."): parameter
                for name, parameter in module.named_parameters()
            }
            for component, module in (("unet", self._unet), ("text_encoder", self._encoder))
        }
        with torch.no_grad():
            for key, place in networks.sd1_places().items():
                if place.component in targets:
                    targets[place.component][place.name].copy_(whole(model, key))
            states = self._encoder(self._tokens)[0]
            generator = torch.Generator().manual_seed(1)
            return noise_loss(self._unet, self._latents, states, generator).item()


def test_the_barrier_of_a_shuffled_model_is_gone() -> None:
    with open_checkpoint(demo.MODEL_A) as file_a, open_checkpoint(demo.MODEL_B) as file_b:
        task = Task(load_pipeline(file_a, torch.float32))
        a, b = Stored(file_a), Stored(file_b)
        known = shared_symmetries("sd1", a, b)
        shuffled_b = Permuted(b, Layout(known), shuffled(known, 11))
        found = cached_match(a, shuffled_b, "sd1", cache=None)
        ends = (task.loss(a) + task.loss(b)) / 2
        assert abs(task.loss(shuffled_b) - task.loss(b)) < 1e-5
        # the loss barrier: how much worse the midpoint is than its ends are on average
        plain, broken, mended = (
            task.loss(rebasin(a, other, 0.5)) - ends
            for other in (b, shuffled_b, found.permuted(shuffled_b))
        )
    assert ends < 0.1
    assert plain < 0.005
    assert broken > 0.1
    assert abs(mended - plain) < 1e-5


def test_the_method_of_the_lab_merges_a_shuffled_model_as_well_as_the_model(tmp_path: Path) -> None:
    shuffled_b = write_shuffled(demo.MODEL_B, tmp_path / "shuffled.safetensors")
    losses = []
    with open_checkpoint(demo.MODEL_A) as file_a:
        task = Task(load_pipeline(file_a, torch.float32))
    for number, (method, b) in enumerate(
        (
            ("weighted_sum", demo.MODEL_B),
            ("weighted_sum", shuffled_b),
            ("rebasin", shuffled_b),
            ("basin_sum", demo.MODEL_B),
        )
    ):
        models = {"a": ModelRef("a", path=str(demo.MODEL_A)), "b": ModelRef("b", path=str(b))}
        recipe = Recipe(
            architecture="sd1", method=method, models=models, parameters={"weight": 0.5},
            precision="fp64",
        )  # fmt: skip
        with open_checkpoint(merge_files(recipe, tmp_path / f"{number}.safetensors")) as merged:
            losses.append(task.loss(Stored(merged)))
    plain, broken, mended, summed = losses
    assert broken > plain + 0.1
    assert mended <= plain + 1e-5
    # B's own order is the nearest already
    assert abs(summed - plain) < 0.01
