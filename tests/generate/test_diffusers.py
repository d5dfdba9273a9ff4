"""The standalone generator makes the images of the merge, and of nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from lib_automerge.domain import architectures
from lib_automerge.domain.payload import ImageJob, Payload, jobs_of, named
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.errors import ConfigError, GenerationError, ModelError
from lib_automerge.generate import key_mapping, live, samplers
from lib_automerge.generate.base import Generator
from lib_automerge.generate.diffusers_ import DiffusersGenerator, DiffusersSession
from lib_automerge.generate.diffusers_config import write_config
from lib_automerge.generate.loading import components
from lib_automerge.merge.files import write_merge
from lib_automerge.merge.readers import Checkpoint, open_checkpoint
from tests.checkpoints import write_tiny
from tests.tiny_pipelines import write_tiny_pipeline

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning"),
]

ARCHITECTURES = ("sd1", "sd2", "sdxl")
STORED = {"sd1": torch.float16, "sd2": torch.float32, "sdxl": torch.bfloat16}
PROMPT = "a red circle on a blue background"


def generator(**options) -> Generator:
    return DiffusersGenerator(device="cpu", threads=1, **options)


def payload(**settings) -> Payload:
    defaults = {"prompt": PROMPT, "sampler": "Euler", "steps": 3, "width": 64, "height": 64}
    return named([Payload(**{**defaults, "seeds": (5,), **settings})])[0]


def never() -> bool:
    return False


def arrays(session: DiffusersSession, *payloads: Payload) -> list[np.ndarray]:
    return [np.asarray(image) for _, image in session.images(jobs_of(payloads), never)]


def recipe(architecture: str, *, shift: int = 0) -> Recipe:
    """Other weights in every block, text encoders and VAE included, none of them 0 or 1."""
    blocks = architectures.get(architecture).blocks
    weights = {block: 0.15 + 0.1 * ((i + shift) % 8) for i, block in enumerate(blocks)}
    return from_weights(architecture, weights)


def from_weights(architecture: str, weights: dict[str, float]) -> Recipe:
    return Recipe(
        architecture=architecture,
        method="weighted_sum",
        models={"a": ModelRef("a"), "b": ModelRef("b")},
        weights=weights,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipelines")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Iterator[dict[str, dict[str, Checkpoint]]]:
    """Per architecture a pair of random models, in various number types."""
    opened = {
        architecture: {
            "a": open_checkpoint(
                write_tiny_pipeline(
                    folder / f"{architecture}_a.safetensors",
                    architecture,
                    seed=1,
                    dtype=STORED[architecture],
                )
            ),
            "b": open_checkpoint(
                write_tiny_pipeline(folder / f"{architecture}_b.safetensors", architecture, seed=2)
            ),
        }
        for architecture in ARCHITECTURES
    }
    yield opened
    for pair in opened.values():
        for checkpoint in pair.values():
            checkpoint.close()


@pytest.fixture(scope="module", autouse=True)
def _no_network() -> Iterator[None]:
    def refuse(*args, **kwargs):
        pytest.fail("a connection was attempted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


class Sessions(dict[str, DiffusersSession]):
    """One session per architecture, opened when it is first asked for."""

    def __init__(
        self, pairs: dict[str, dict[str, Checkpoint]], stack: contextlib.ExitStack
    ) -> None:
        super().__init__()
        self._pairs = pairs
        self._stack = stack

    def __missing__(self, architecture: str) -> DiffusersSession:
        opened = generator().open(self._pairs[architecture])
        self[architecture] = self._stack.enter_context(opened)
        return self[architecture]


@pytest.fixture(scope="module")
def sessions(pairs: dict[str, dict[str, Checkpoint]]) -> Iterator[Sessions]:
    """For tests that do not care what was merged before."""
    with contextlib.ExitStack() as stack:
        yield Sessions(pairs, stack)


@pytest.fixture
def session(sessions: dict[str, DiffusersSession]) -> DiffusersSession:
    """The SD1 session, holding model A."""
    opened = sessions["sd1"]
    opened.apply(from_weights("sd1", {}))
    return opened


def stock_image(file: Path, folder: Path, made: Payload) -> np.ndarray:
    """The payload's first image by diffusers alone, from a file, with everything at its default."""
    folder.mkdir()
    checkpoint = open_checkpoint(file)
    architecture = checkpoint.detection.architecture
    shapes = {key: checkpoint.tensor(key).shape for key in checkpoint.detection.keys}
    write_config(folder, architecture, shapes)
    kind = StableDiffusionXLPipeline if architecture == "sdxl" else StableDiffusionPipeline
    pipeline = kind.from_single_file(str(file), config=str(folder), local_files_only=True)
    for module in components(pipeline).values():
        # With weights that want gradients torch takes other kernels, with other last bits.
        module.requires_grad_(False)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        prompt=[made.prompt],
        negative_prompt=[made.negative_prompt],
        num_inference_steps=made.steps,
        guidance_scale=made.cfg_scale,
        width=made.width,
        height=made.height,
        generator=[torch.Generator().manual_seed(made.seeds[0])],
        output_type="pil",
    ).images[0]
    return np.asarray(image)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_was_scored_is_what_is_saved(architecture, pairs, sessions, tmp_path):
    models, made = pairs[architecture], payload(negative_prompt="green", width=96)
    chosen, opened = recipe(architecture), sessions[architecture]
    opened.apply(from_weights(architecture, {}))
    of_a = arrays(opened, made)[0]
    opened.apply(recipe(architecture, shift=3))
    elsewhere = arrays(opened, made)[0]
    opened.apply(chosen)
    scored = arrays(opened, made)[0]
    assert not np.array_equal(scored, of_a)
    assert not np.array_equal(scored, elsewhere)
    opened.apply(from_weights(architecture, {}))
    assert np.array_equal(arrays(opened, made)[0], of_a)
    opened.apply(chosen)
    assert np.array_equal(arrays(opened, made)[0], scored)

    file = tmp_path / "merged.safetensors"
    write_merge(chosen, models, file)
    with open_checkpoint(file) as saved, generator().open({"a": saved}) as opened:
        assert np.array_equal(arrays(opened, made)[0], scored)
    assert np.array_equal(stock_image(file, tmp_path / "config", made), scored)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_block_reaches_the_image(architecture, sessions):
    made, opened = payload(steps=1, cfg_scale=1.0), sessions[architecture]
    opened.apply(from_weights(architecture, {}))
    plain = arrays(opened, made)[0]
    for block in architectures.get(architecture).blocks:
        opened.apply(from_weights(architecture, {block: 1.0}))
        assert not np.array_equal(arrays(opened, made)[0], plain), block


SWAPPED = {
    "unet": (
        "model.diffusion_model.output_blocks.4.0.in_layers.2.weight",
        "model.diffusion_model.output_blocks.3.0.in_layers.2.weight",
    ),
    "vae": (
        "first_stage_model.decoder.mid.attn_1.q.weight",
        "first_stage_model.decoder.mid.attn_1.k.weight",
    ),
    "text_encoder": (
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight",
    ),
}


@pytest.fixture
def swapped(request, monkeypatch) -> tuple[str, str]:
    """Break the key mapping: two keys of the same shape change places."""
    one, two = SWAPPED[request.param]

    def broken(keys):
        places = key_mapping.key_map(keys)
        places[one], places[two] = places[two], places[one]
        return places

    monkeypatch.setattr(live, "key_map", broken)
    return one, two


@pytest.mark.parametrize("swapped", SWAPPED, indirect=True)
def test_a_broken_key_mapping_is_found_when_the_model_is_opened(swapped, pairs):
    with pytest.raises(GenerationError) as found, generator().open(pairs["sd1"]):
        pass
    assert any(key in str(found.value) for key in swapped)


@pytest.mark.parametrize("swapped", SWAPPED, indirect=True)
def test_a_broken_key_mapping_makes_other_images(swapped, session, pairs, monkeypatch):
    session.apply(recipe("sd1"))
    right = arrays(session, payload())[0]
    broken = sink(session, pairs["sd1"])
    session.apply(from_weights("sd1", {}))
    monkeypatch.setattr(session, "_sink", broken)
    session.apply(recipe("sd1"))
    assert not np.array_equal(arrays(session, payload())[0], right)


def test_a_mapping_that_misses_or_doubles_a_tensor_is_refused(pairs, monkeypatch):
    key = "model.diffusion_model.out.0.weight"

    def lacking(keys):
        places = key_mapping.key_map(keys)
        del places[key]
        return places

    def doubled(keys):
        places = key_mapping.key_map(keys)
        places[key] = places["model.diffusion_model.out.0.bias"]
        return places

    for mapping, message in (
        (lacking, "no weights for unet.conv_norm_out.weight"),
        (doubled, "2 weights share the place unet.conv_norm_out.bias"),
    ):
        monkeypatch.setattr(live, "key_map", mapping)
        with pytest.raises(GenerationError, match=message), generator().open(pairs["sd1"]):
            pass


def sink(session: DiffusersSession, pair: dict[str, Checkpoint], *more: str) -> live.LiveSink:
    keys = (*pair["a"].keys(), *more)
    architecture = architectures.get(pair["a"].detection.architecture)
    return live.LiveSink(components(session._pipeline), architecture, keys)


def test_the_sink_writes_into_the_live_tensor_where_it_can(sessions, pairs):
    session, pair = sessions["sd2"], pairs["sd2"]
    key = "first_stage_model.decoder.mid.attn_1.q.weight"
    weight = session._pipeline.vae.decoder.mid_block.attentions[0].to_q.weight
    opened = sink(session, pair)
    target = opened.target(key, torch.float32)
    assert target is not None
    assert target.shape == pair["a"].tensor(key).shape
    assert target.data_ptr() == weight.data_ptr()
    assert opened.target("model.diffusion_model.out.0.bias", torch.float16) is None
    joint = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias"
    assert opened.target(joint, torch.float32) is None


def test_the_sink_takes_every_weight_once_and_no_unknown_one(sessions, pairs):
    session, pair = sessions["sd2"], pairs["sd2"]
    ignored = (
        "model_ema.decay",
        "betas",
        "cond_stage_model.model.logit_scale",
        "cond_stage_model.model.transformer.resblocks.23.ln_1.bias",
        "stray",
    )
    opened = sink(session, pair, *ignored)
    for key in ignored:
        assert opened.target(key, torch.float32) is None
        opened.put(key, torch.zeros(()))
    with pytest.raises(GenerationError, match="'other', which model A has not"):
        opened.put("other", torch.zeros(()))
    for key in ("model.diffusion_model.out.0.bias", "model.diffusion_model.out.2.bias"):
        opened.put(key, pair["a"].tensor(key))
        with pytest.raises(GenerationError, match=f"wrote '{key}' twice"):
            opened.put(key, pair["a"].tensor(key))
    with pytest.raises(
        GenerationError, match=r"left out the weight 'model\.diffusion_model\.out\."
    ):
        opened.finish({"OUT"})
    opened.begin()
    opened.put(key, pair["a"].tensor(key))
    opened.finish(())
    session.apply(recipe("sd2"))


def test_a_failed_merge_is_not_taken_for_the_live_one(session, monkeypatch):
    plain = arrays(session, payload())[0]
    with monkeypatch.context() as patch:
        patch.setattr(live.LiveSink, "finish", lambda self, blocks: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.apply(recipe("sd1"))
    assert not np.array_equal(arrays(session, payload())[0], plain)
    session.apply(from_weights("sd1", {}))
    assert np.array_equal(arrays(session, payload())[0], plain)


def test_the_parents_files_stay_as_they_are(pairs, session):
    def digests():
        return [hashlib.sha256(m.path.read_bytes()).digest() for m in pairs["sd1"].values()]

    before = digests()
    session.apply(recipe("sd1"))
    assert digests() == before


def test_a_recipe_with_a_role_that_is_not_open_is_refused(session):
    wanted = msgspec.structs.replace(recipe("sd1"), models={"a": ModelRef("a"), "c": ModelRef("c")})
    with pytest.raises(ConfigError, match=r"needs model 'c'.*\['a', 'b'\]"):
        session.apply(wanted)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_every_sampler_makes_a_picture(session, sampler):
    made = payload(sampler=sampler, steps=2, seeds=(1, 2), batch_size=2)
    first, second = session.images(jobs_of([made]), never)
    assert "broken" not in first[1].info
    assert first[1].mode == "RGB"
    assert np.asarray(first[1]).std() > 1
    again = arrays(session, made)
    assert np.array_equal(again[0], np.asarray(first[1]))
    assert not np.array_equal(again[0], np.asarray(second[1]))


def test_settings_change_the_image(session):
    plain = arrays(session, payload())[0]
    for changed in (
        payload(clip_skip=2),
        payload(cfg_scale=2.0),
        payload(negative_prompt="green"),
        payload(prompt="a green square"),
        payload(seeds=(6,)),
        payload(steps=4),
        payload(sampler="Euler a"),
        payload(scheduler="Karras"),
    ):
        assert not np.array_equal(arrays(session, changed)[0], plain), changed
    assert arrays(session, payload(width=96))[0].shape == (64, 96, 3)


def test_clip_skip_reaches_the_negative_prompt_too(session):
    """With the prompt as negative prompt there is nothing to guide by, at any clip skip."""
    for skip in (1, 2):
        same = payload(negative_prompt=PROMPT, clip_skip=skip, cfg_scale=30.0)
        without = payload(clip_skip=skip, cfg_scale=1.0)
        difference = arrays(session, same)[0].astype(int) - arrays(session, without)[0]
        assert np.abs(difference).max() <= 2


def test_prompts_become_the_tokens_that_the_models_were_trained_with(sessions):
    cat = [49406, 320, 1125, 539, 320, 2368, 49407]
    sdxl = sessions["sdxl"]._pipeline
    for tokenizer, padding in (
        (sessions["sd1"]._pipeline.tokenizer, 49407),
        (sessions["sd2"]._pipeline.tokenizer, 0),
        (sdxl.tokenizer, 49407),
        (sdxl.tokenizer_2, 0),
    ):
        ids = tokenizer("A photo of a cat", padding="max_length", max_length=77).input_ids
        assert ids == cat + [padding] * (77 - len(cat))


def test_sdxl_gets_zeros_for_an_empty_negative_prompt_and_only_then(sessions):
    jobs = [
        ImageJob(number, payload(negative_prompt=text), 1) for number, text in enumerate(("", "no"))
    ]
    given = sessions["sdxl"]._conditioner.arguments(jobs, guided=True)
    for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
        assert not given[name][0].any()
        assert given[name][1].any()
    assert given["prompt_embeds"].shape == (2, 77, 80)


def test_clip_skip_beyond_the_text_encoder_is_refused(session):
    with pytest.raises(GenerationError, match="the text encoder has 2 layers"):
        arrays(session, payload(clip_skip=3))


@pytest.mark.parametrize("architecture", ["sd2", "sdxl"])
def test_models_of_the_last_layer_but_one_read_clip_skip_1_and_2_alike(architecture, sessions):
    opened = sessions[architecture]
    one, two = (arrays(opened, payload(clip_skip=skip))[0] for skip in (1, 2))
    assert np.array_equal(one, two)
    if architecture == "sd2":
        assert not np.array_equal(arrays(opened, payload(clip_skip=3))[0], one)


def test_an_image_depends_on_its_own_job_alone(session):
    """Batches mix prompts; a job's picture is the same in any company, up to rounding."""
    made = named(
        [
            Payload(prompt=text, seeds=(3, 4), sampler="Euler a", steps=3, width=64, height=64,
                    batch_size=3, negative_prompt=negative)
            for text, negative in (("a red circle", ""), ("a blue star", "green"))
        ]
    )  # fmt: skip
    jobs = jobs_of(made)
    forth = {job.number: np.asarray(image) for job, image in session.images(jobs, never)}
    back = {job.number: np.asarray(image) for job, image in session.images(jobs[::-1], never)}
    assert list(forth) == [0, 1, 2, 3]
    assert list(back) == [3, 2, 1, 0]
    for number, image in forth.items():
        assert np.abs(image.astype(int) - back[number]).max() <= 2
    assert len({image.tobytes() for image in forth.values()}) == 4


def test_noise_is_that_of_the_seed_whatever_the_number_type(pairs, session):
    full = arrays(session, payload(steps=1))[0]
    with generator(dtype="bf16").open(pairs["sd1"]) as opened:
        half = arrays(opened, payload(steps=1))[0]
    assert np.corrcoef(half.ravel(), full.ravel())[0, 1] > 0.95


def test_stop_ends_between_batches(session):
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(len(asked) >= 1)
        return asked[-1]

    made = session.images(jobs_of([payload(seeds=(1, 2, 3), batch_size=2)]), stop)
    assert [job.seed for job, _ in made] == [1, 2]


class Crowded:
    """Makes a pipeline run out of memory with more than `most` images at once."""

    def __init__(self, most: int, error: BaseException) -> None:
        self.most = most
        self.error = error
        self.sizes: list[int] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        real = StableDiffusionPipeline.__call__

        def call(pipeline, **arguments):
            self.sizes.append(len(arguments["prompt_embeds"]))
            if self.sizes[-1] > self.most:
                raise self.error
            return real(pipeline, **arguments)

        patch.setattr(StableDiffusionPipeline, "__call__", call)


def test_out_of_memory_halves_the_batch_and_says_so(pairs, monkeypatch):
    made = payload(seeds=(1, 2, 3, 4, 5), batch_size=5, steps=1)
    with generator().open(pairs["sd1"]) as opened:
        whole = arrays(opened, made)
        crowded = Crowded(2, torch.cuda.OutOfMemoryError("Tried to allocate 2.00 GiB."))
        crowded.install(monkeypatch)
        halved = list(opened.images(jobs_of([made]), never))
        assert crowded.sizes == [5, 2, 2, 1]
        assert [job.seed for job, _ in halved] == [1, 2, 3, 4, 5]
        for image, (_, other) in zip(whole, halved, strict=True):
            assert np.abs(image.astype(int) - np.asarray(other)).max() <= 2
        (sentence,) = opened.warnings()
        assert "Out of memory with 5 images of 64x64 at once; going on with 2." in sentence
        arrays(opened, made)
        assert crowded.sizes[4:] == [2, 2, 1]
        assert opened.warnings() == []


def test_out_of_memory_with_one_image_is_an_error_with_advice(session, monkeypatch):
    Crowded(0, MemoryError()).install(monkeypatch)
    with pytest.raises(GenerationError, match=r"single image of 64x64\. Use smaller images"):
        arrays(session, payload())


def test_a_model_that_does_not_fit_the_device_is_an_error_with_advice(pairs, monkeypatch):
    def full(pipeline, device):
        raise torch.cuda.OutOfMemoryError("Tried to allocate 20 MiB.")

    monkeypatch.setattr(StableDiffusionPipeline, "to", full)
    with (
        pytest.raises(GenerationError, match=r"out of memory while loading sd1_a\. Use half"),
        generator().open(pairs["sd1"]),
    ):
        pass


def test_other_failures_of_diffusers_are_one_sentence(session, monkeypatch):
    Crowded(0, ValueError("bad shape.\nmore")).install(monkeypatch)
    with pytest.raises(GenerationError, match=r"'p01': ValueError: bad shape\. Change") as failure:
        arrays(session, payload())
    assert isinstance(failure.value.__cause__, ValueError)


@pytest.mark.parametrize(("value", "reason"), [(float("nan"), "NaN"), (-1e4, "black"), (0.0, None)])
def test_pictures_of_nothing_say_so(tmp_path, value, reason):
    key = "first_stage_model.decoder.conv_out.bias"
    file = write_tiny_pipeline(
        tmp_path / "a.safetensors", "sd1", extra={key: torch.full((3,), value)}
    )
    with open_checkpoint(file) as model, generator().open({"a": model}) as opened:
        (_, image), *_ = opened.images(jobs_of([payload(steps=1)]), never)
    assert image.info.get("broken") == reason


def test_half_precision_sdxl_decodes_in_full_precision(pairs, monkeypatch):
    """The pipeline widens the VAE for that, which gives its parameters new memory."""
    made = payload(steps=1)
    two = payload(steps=1, seeds=(5, 6), batch_size=2)
    decode = AutoencoderKL.decode

    def crowded(vae, latents, **options):
        if len(latents) > 1:
            raise MemoryError
        assert latents.dtype == torch.float32
        return decode(vae, latents, **options)

    monkeypatch.setattr(AutoencoderKL, "decode", crowded)
    with generator(dtype="fp16").open(pairs["sdxl"]) as opened:
        plain = arrays(opened, made)[0]
        opened.apply(from_weights("sdxl", {"VAE": 0.5}))
        changed = arrays(opened, made)[0]
        opened.apply(from_weights("sdxl", {}))
        assert np.array_equal(arrays(opened, made)[0], plain)
        assert np.array_equal(arrays(opened, two)[0], plain)
        assert "going on with 1" in opened.warnings()[0]
    assert not np.array_equal(changed, plain)


def test_prompts_that_the_webui_reads_differently_are_mentioned_once(session):
    session.warnings()
    long = payload(prompt="red " * 100, name="long", steps=1)
    weighted = payload(negative_prompt="(ugly:1.2)", name="weighted", steps=1)
    wide = payload(prompt="a photo, 16:9", name="wide", steps=1)
    weak = payload(cfg_scale=0.5, name="weak", steps=1)
    for made in (long, long, weighted, weighted, wide, weak, weak, payload(steps=1)):
        arrays(session, made)
    said = session.warnings()
    assert len(said) == 4
    assert "prompt of payload 'long' has 100 tokens; what follows the first 75" in said[0]
    assert "negative prompt of payload 'weighted' uses WebUI syntax" in said[1]
    assert "prompt of payload 'wide' uses WebUI syntax" in said[2]
    assert "'weak' has cfg_scale 0.5" in said[3]


def test_markers_in_the_file_decide_how_the_model_is_read(session, tmp_path):
    images = [arrays(session, payload())[0]]
    markers = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    for names in (["v_pred"], ["v_pred", "ztsnr"]):
        file = write_tiny_pipeline(
            tmp_path / f"{len(names)}.safetensors",
            "sd1",
            seed=1,
            dtype=STORED["sd1"],
            extra={name: markers[name] for name in names},
        )
        with open_checkpoint(file) as model, generator().open({"a": model}) as opened:
            images.append(arrays(opened, payload())[0])
            if "ztsnr" in names:
                with pytest.raises(ConfigError, match="'LMS' cannot start from pure noise"):
                    arrays(opened, payload(sampler="LMS"))
    assert len({image.tobytes() for image in images}) == 3


def test_sd2_says_that_its_prediction_type_is_a_guess(sessions):
    sentence = sessions["sd2"].warnings()[0]
    assert "sd2_a does not tell its prediction type; it is read as epsilon." in sentence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "cond_stage_model."}, "has no text encoder. Pick a full checkpoint as A"),
        ({"drop": "first_stage_model."}, "has no VAE. Pick a full checkpoint as A"),
        (
            {"extra": {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(16, 9, 3, 3)}},
            r"it is Stable Diffusion 1 \(inpainting\), which makes no images",
        ),
        ({"extra": {"edm_vpred.sigma_max": torch.tensor(120.0)}}, "continuous noise schedule"),
    ],
)
def test_models_that_make_no_images_alone_are_refused(tmp_path, change, message):
    file = write_tiny_pipeline(tmp_path / "a.safetensors", "sd1", **change)
    with (
        open_checkpoint(file) as model,
        pytest.raises(ModelError, match=message),
        generator().open({"a": model}),
    ):
        pass


@pytest.mark.parametrize("family", ["flux1", "sd3_medium", "hunyuandit", "sdxl_refiner"])
def test_families_that_this_generator_cannot_run_are_refused(tmp_path, family):
    file = write_tiny(tmp_path / "a.safetensors", family)
    with open_checkpoint(file) as model, pytest.raises(ModelError, match=r"images can|no images"):
        generator().check(model)


def test_an_incomplete_text_encoder_is_named(tmp_path):
    file = write_tiny_pipeline(
        tmp_path / "a.safetensors",
        "sd1",
        drop="cond_stage_model.transformer.text_model.final_layer_norm",
    )
    with (
        open_checkpoint(file) as model,
        pytest.raises(GenerationError, match=r"no weights for text_encoder\.final_layer_norm"),
        generator().open({"a": model}),
    ):
        pass


def test_files_with_other_key_names_make_the_same_images(session, tmp_path):
    """Early files have no `text_model.` in the keys of the text encoder."""

    def early(key: str) -> str:
        return key.replace(".transformer.text_model.", ".transformer.")

    file = write_tiny_pipeline(
        tmp_path / "early.safetensors", "sd1", seed=1, dtype=torch.float16, rename=early
    )
    with open_checkpoint(file) as model, generator().open({"a": model}) as opened:
        image = arrays(opened, payload())[0]
    assert np.array_equal(arrays(session, payload())[0], image)


def test_torch_is_left_as_found_and_the_weights_are_gone(pairs):
    def state():
        flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
        return torch.get_num_threads(), *flags, torch.backends.cuda.matmul.allow_tf32

    before = state()
    other = 2 if torch.get_num_threads() == 1 else 1
    with DiffusersGenerator(device="cpu", threads=other).open(pairs["sd1"]) as opened:
        inside = state()
        weights = weakref.ref(next(opened._pipeline.unet.parameters()))
        assert weights() is not None
    assert inside[0] == other
    assert inside[2] is True
    assert state() == before
    assert weights() is None


def test_the_fingerprint_names_what_decides_the_bits():
    found = generator(dtype="bf16").fingerprint()
    assert found["backend"] == "diffusers"
    assert found["dtype"] == "bfloat16"
    assert found["threads"] == "1"
    assert found["torch"] == torch.__version__
    assert found["device"].startswith("cpu ")
    assert set(found) == {"backend", "diffusers", "transformers", "torch", "device", "dtype",
                          "threads"}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "warp"}, "unknown device: 'warp'"),
        ({"device": "cpu:7"}, "there is no device 'cpu:7'"),
        ({"dtype": "fp8"}, "unknown dtype: 'fp8'"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DiffusersGenerator(**{"device": "cpu", **options})


def test_jobs_keep_their_payload(session):
    made = payload(steps=1)
    ((job, _),) = session.images([ImageJob(7, made, 11)], never)
    assert job == ImageJob(7, made, 11)
