"""What the tests do inside a real WebUI's process; returns plain values that they assert on.

Each `check_NAME` is called by `probe.py` in a thread of the web server, as a run's worker would be.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from modules import sd_models, shared

from lib_automerge.domain.payload import Hires, ImageJob, Payload
from lib_automerge.domain.recipe import ModelRef, Recipe
from lib_automerge.host.a1111 import A1111
from lib_automerge.host.webui import WebUIGenerator, WebUISession
from lib_automerge.merge.files import write_merge
from lib_automerge.merge.readers import open_checkpoint

PAYLOAD = Payload(
    prompt="a red ball by the sea",
    name="ball",
    steps=4,
    sampler="DDIM",
    cfg_scale=5.0,
    width=64,
    height=64,
)
UNET = {"IN01": 0.4, "IN04": 0.9, "M00": 0.25, "OUT05": 0.6, "OUT09": 1.0, "TIME_EMBED": 0.5}


def models() -> dict[str, Path]:
    folder = Path(sd_models.model_path)
    return {role: folder / f"automerge-demo-{role}.safetensors" for role in "abtn"}


def recipe(weights: dict[str, float]) -> Recipe:
    refs = {role: ModelRef(role) for role in "ab"}
    return Recipe(architecture="sd1", method="weighted_sum", models=refs, weights=weights)


def job(seed: int = 1, **changes: Any) -> ImageJob:
    import msgspec

    return ImageJob(0, msgspec.structs.replace(PAYLOAD, **changes), seed)


def digest(image: Any) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


def pictures(session: WebUISession, *jobs: ImageJob) -> list[str]:
    return [digest(image) for _, image in session.images(jobs or (job(),), lambda: False)]


@contextmanager
def session(generator: WebUIGenerator | None = None, b: str = "b") -> Iterator[WebUISession]:
    files = models()
    with open_checkpoint(files["a"]) as first, open_checkpoint(files[b]) as second:
        chosen = generator or WebUIGenerator(A1111())
        with chosen.open({"a": first, "b": second}) as opened:
            yield opened


def user_image(prompt: str = PAYLOAD.prompt, seed: int = 1) -> str:
    """An image as the user would make it in txt2img, by the WebUI alone."""
    from modules import processing
    from modules.call_queue import queue_lock

    with queue_lock:
        shared.state.begin("user")
        p = processing.StableDiffusionProcessingTxt2Img(
            prompt=prompt,
            seed=seed,
            steps=4,
            sampler_name="DDIM",
            scheduler="Automatic",
            cfg_scale=5.0,
            width=64,
            height=64,
            do_not_save_samples=True,
            do_not_save_grid=True,
        )
        found = processing.process_images(p).images[0]
        shared.state.end()
    return digest(found)


FORM: Any = None
"""The txt2img form that the probe has seen being built."""


def check_form() -> dict[str, Any]:
    """The form's components with their first values, as the page shows them."""
    from lib_automerge.host.a1111 import payload_of

    values = {name: component.value for name, component in FORM.components.items()}
    payload = payload_of(values)
    return {
        "fields": sorted(values),
        "sampler": payload.sampler,
        "width": payload.width,
        "seeds": list(payload.seeds),
        "hires": payload.hires is not None,
    }


def check_host() -> dict[str, Any]:
    """What the application gets to choose from."""
    import msgspec

    from lib_automerge.host.a1111 import A1111Host

    host = A1111Host()
    host.check_payload(PAYLOAD)
    return {
        "name": host.name,
        "models": [Path(m.path).name for m in host.models()],
        "loaded": host.loaded_model(),
        "choices": msgspec.to_builtins(host.choices()),
        "notices": host.notices(),
        "data": str(host.data),
    }


def check_alive() -> str:
    return "alive" if shared.sd_model is not None else "no model"


def check_basic() -> dict[str, Any]:
    options = dict(shared.opts.data)
    before = user_image()
    with session() as opened:
        start = pictures(opened)
        opened.apply(recipe(UNET))
        merged = pictures(opened)
        opened.apply(recipe({"BASE": 1.0}))
        text = pictures(opened)
        opened.apply(recipe(UNET))
        again = pictures(opened)
        opened.apply(recipe({}))
        restored = pictures(opened)
        opened.apply(recipe(UNET))
        news = opened.warnings()
    return {
        "before": before,
        "start": start,
        "merged": merged,
        "text": text,
        "again": again,
        "restored": restored,
        "after": user_image(),
        "news": news,
        "options": options == dict(shared.opts.data),
        "plain": type(shared.opts.data) is dict,
    }


def in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def file_of(role: str) -> Path:
    return models()[role]


def live_sums() -> dict[str, float]:
    """A number per live parameter, which tells whether any has changed."""
    model = sd_models.model_data.sd_model
    return {name: float(p.detach().double().sum()) for name, p in model.named_parameters()}


def title(role: str) -> str:
    return sd_models.get_closet_checkpoint_match(file_of(role).name).title


def use(role: str) -> None:
    """What the checkpoint dropdown does."""
    shared.opts.set("sd_model_checkpoint", title(role))
    assert Path(shared.sd_model.sd_checkpoint_info.filename).name == file_of(role).name


def check_all_blocks() -> dict[str, Any]:
    """Text encoder, denoiser and VAE of another model, one after the other and together."""
    before, sums = user_image(), live_sums()
    found: dict[str, Any] = {"before": before}
    parts = {
        "text": {"BASE": 1.0},
        "unet": UNET,
        "vae": {"VAE": 0.5},
        "all": UNET | {"BASE": 0.5, "VAE": 0.5},
    }
    with session(b="t") as opened:
        for name, weights in parts.items():
            opened.apply(recipe(weights))
            found[name] = pictures(opened)[0]
        opened.apply(recipe(parts["text"]))
        found["text again"] = pictures(opened)[0]
        opened.apply(recipe(parts["all"]))
    return found | {"after": user_image(), "same weights": live_sums() == sums}


LONG = "a red ball, " * 30
PARTS = {"all": UNET | {"BASE": 0.5, "VAE": 0.5}, "unet": UNET}
LAB = {
    "slerp": (("a", "b"), UNET, {}),
    "ties": (("base", "m001"), {}, {"k": 0.3, "scale": {"IN03": 0.5, "OUT05": 1.5}}),
}


def of_the_lab(method: str, files: dict[str, Path]) -> Recipe:
    """A recipe of the merge lab, of A and the third model, which it knows by their contents."""
    roles, weights, parameters = LAB[method]
    refs = {}
    for role, path in zip(roles, (files["a"], files["t"]), strict=True):
        with open_checkpoint(path) as model:
            refs[role] = ModelRef(model.name, model.sha256(), str(path))
    return Recipe(
        architecture="sd1", method=method, models=refs, weights=weights, parameters=parameters
    )


def check_saved(folder: str, part: str = "all", padded: bool = False) -> dict[str, Any]:
    """A merge, its file made by the engine, and the file loaded by the WebUI's own loader."""
    use("a")
    shared.opts.set("pad_cond_uncond", padded)
    files = models()
    asked = of_the_lab(part, files) if part in LAB else recipe(PARTS[part])
    path = Path(folder) / "merged-e0007.safetensors"
    titles, aliases = dict(sd_models.checkpoints_list), dict(sd_models.checkpoint_aliases)
    before = user_image()
    generator = WebUIGenerator(A1111())
    jobs = [job(1), job(2, prompt="a blue star"), job(3, prompt=LONG, width=128, height=128)]
    with session(generator, b="t") as opened:
        opened.apply(recipe({"IN03": 0.7, "BASE": 1.0}))
        opened.apply(asked)
        live = pictures(opened, *jobs)
    with open_checkpoint(files["a"]) as a, open_checkpoint(files["t"]) as b:
        path.unlink(missing_ok=True)
        write_merge(asked, {"a": a, "b": b}, path)
    with open_checkpoint(path) as merged, generator.open({"a": merged}) as opened:
        loaded = pictures(opened, *jobs)
    after = user_image()
    shared.opts.set("pad_cond_uncond", False)
    left = sorted(p.name for p in Path(folder).iterdir())
    same = (titles, aliases) == (sd_models.checkpoints_list, sd_models.checkpoint_aliases)
    return {
        "live": live,
        "loaded": loaded,
        "before": before,
        "after": after,
        "left": left,
        "same lists": same,
    }


def check_lab(folder: str) -> dict[str, Any]:
    """A preview of the merge lab, the file that it stands for, and what is left afterwards."""
    import io

    import msgspec
    from PIL import Image

    from lib_automerge.app.desk import Desk
    from lib_automerge.app.lab_orders import Order
    from lib_automerge.host.a1111 import A1111Host

    use("a")
    host = A1111Host()
    host.data = Path(folder) / "data"
    desk = Desk(host, host)
    files = models()
    refs = {"base": "a", "m001": "b", "m002": "t"}
    order = Order(
        recipe=Recipe(
            architecture="sd1",
            method="ties",
            models={role: ModelRef(name, path=str(files[name])) for role, name in refs.items()},
            parameters={"k": 0.5, "scale": 0.7},
            precision="fp64",
        ),
        path=Path(folder) / "soup.safetensors",
    )
    titles = dict(sd_models.checkpoints_list)
    before = user_image()
    desk.preview_merge(order, msgspec.structs.replace(PAYLOAD, seeds=(1,)))
    desk.lab.wait()
    now = desk.lab.snapshot()
    after = user_image()
    shown = digest(Image.open(io.BytesIO(now.picture.png)).convert("RGB")) if now.picture else ""
    desk.merge(order)
    desk.lab.wait()
    with (
        open_checkpoint(order.path) as merged,
        WebUIGenerator(A1111()).open({"a": merged}) as opened,
    ):
        (saved,) = pictures(opened)
    return {
        "told": now.told,
        "shown": shown,
        "saved": saved,
        "before": before,
        "after": after,
        "left": sorted(p.name for p in host.data.rglob("*.safetensors*")),
        "same lists": titles == sd_models.checkpoints_list,
    }


def check_lora() -> dict[str, Any]:
    tag = "<lora:tiny:1>"
    use("a")
    before, with_lora = user_image(), user_image(PAYLOAD.prompt + tag)
    found: dict[str, Any] = {"before": before, "with lora": with_lora}
    plain, tagged = job(), job(prompt=PAYLOAD.prompt + tag)
    with session(b="t") as opened:
        found["start"] = pictures(opened)[0]
        found["start with lora"] = pictures(opened, tagged)[0]
        opened.apply(recipe(UNET | {"BASE": 0.5}))
        found["merged with lora"] = pictures(opened, tagged)[0]
        opened.apply(recipe({"IN04": 0.7}))
        found["other with lora"] = pictures(opened, tagged)[0]
        opened.apply(recipe(UNET | {"BASE": 0.5}))
        found["merged"] = pictures(opened, plain)[0]
        found["merged with lora again"] = pictures(opened, tagged)[0]
        opened.apply(recipe({}))
        found["restored with lora"] = pictures(opened, tagged)[0]
        opened.apply(recipe(UNET | {"BASE": 0.5}))
        pictures(opened, tagged)
    return found | {"after with lora": user_image(PAYLOAD.prompt + tag), "after": user_image()}


@contextmanager
def at_step(number: int, call: Any) -> Iterator[None]:
    """Call once, after the `number`-th sampling step from now on."""
    progress, steps = shared.total_tqdm, 0
    original = progress.update

    def update() -> None:
        nonlocal steps
        steps += 1
        if steps == number:
            call()

    progress.update = update
    try:
        yield
    finally:
        progress.update = original


def check_skip() -> dict[str, Any]:
    with session() as opened:
        opened.apply(recipe(UNET))
        expected = pictures(opened)
        with at_step(2, shared.state.skip):
            skipped = pictures(opened)
    return {"expected": expected, "skipped": skipped}


def check_interrupt(stopping: bool = False, between: bool = False) -> dict[str, Any]:
    before = user_image()
    asked, made = "", []
    interrupt = shared.state.stop_generating if stopping else shared.state.interrupt
    try:
        with session() as opened:
            opened.apply(recipe(UNET))
            if between:
                interrupt()
                made = pictures(opened)
            else:
                with at_step(2, interrupt):
                    made = pictures(opened)
    except Exception as error:
        asked = f"{type(error).__name__}: {error}"
    return {"asked": asked, "made": made, "before": before, "after": user_image()}


def check_user_changes(folder: str) -> dict[str, Any]:
    """The user picks another checkpoint and other options while a session is open."""
    use("a")
    config = Path(folder) / "config.json"
    before = user_image()
    with session() as opened:
        opened.apply(recipe(UNET))
        expected = pictures(opened)
        waiting = in_thread(lambda: shared.opts.set("sd_model_checkpoint", title("t")))
        shared_changes = in_thread(lambda: shared.opts.set("CLIP_stop_at_last_layers", 2))
        shared_changes.join()
        time.sleep(0.2)
        change = partial(shared.opts.set, "eta_noise_seed_delta", 31337)
        with at_step(2, lambda: in_thread(change).join()):
            seen = pictures(opened)
        opened.apply(recipe({}))
        opened.apply(recipe(UNET))
        later = pictures(opened)
        in_thread(lambda: shared.opts.save(str(config))).join()
        news = opened.warnings()
        again = opened.warnings()
    waiting.join(60)
    saved = json.loads(config.read_text())
    found = {
        "before": before,
        "expected": expected,
        "seen": seen,
        "later": later,
        "news": news,
        "again": again,
        "saved": [saved["sd_model_checkpoint"], saved["CLIP_stop_at_last_layers"]],
        "loaded": Path(shared.sd_model.sd_checkpoint_info.filename).name,
        "clip skip": shared.opts.CLIP_stop_at_last_layers,
        "delta": shared.opts.eta_noise_seed_delta,
    }
    shared.opts.set("CLIP_stop_at_last_layers", 1)
    shared.opts.set("eta_noise_seed_delta", 0)
    use("a")
    return found | {"after": user_image()}


def check_overrides() -> dict[str, Any]:
    """Settings for single images, of options that the user has never set."""
    keys = ("CLIP_stop_at_last_layers", "token_merging_ratio", "eta_noise_seed_delta")
    held = {key: shared.opts.data.pop(key) for key in keys if key in shared.opts.data}
    before = dict(shared.opts.data)
    changed = {"token_merging_ratio": 0.5}
    with session() as opened:
        plain = pictures(opened)
        other = pictures(opened, job(override_settings=changed, clip_skip=3))
        inside = pictures(opened)
    same = dict(shared.opts.data) == before
    shared.opts.data.update(held)
    return {"plain": plain, "other": other, "inside": inside, "same options": same}


def check_other_model_loaded() -> dict[str, Any]:
    """The run's A is not the user's model."""
    use("a")
    expected = user_image()
    use("t")
    options = dict(shared.opts.data)
    before = user_image()
    with session() as opened:
        start = pictures(opened)
        opened.apply(recipe(UNET))
        pictures(opened)
    found = {
        "expected": expected,
        "start": start,
        "before": before,
        "after": user_image(),
        "loaded": Path(shared.sd_model.sd_checkpoint_info.filename).name,
        "same options": options == dict(shared.opts.data),
    }
    use("a")
    return found | {"a": user_image()}


def check_two_models_kept() -> dict[str, Any]:
    shared.opts.set("sd_checkpoints_limit", 2)
    try:
        use("a")
        found = check_other_model_loaded()
        use("t")
        with session() as opened:
            opened.apply(recipe(UNET))
            pictures(opened)
            # somebody takes the model away without asking; the merged one is kept aside
            with sd_models.SkipWritingToConfig():
                in_thread(
                    lambda: sd_models.reload_model_weights(
                        info=sd_models.get_closet_checkpoint_match(file_of("t").name)
                    )
                ).join()
        use("a")
        found["a"] = user_image()
    finally:
        shared.opts.set("sd_checkpoints_limit", 1)
        del sd_models.model_data.loaded_sd_models[1:]
    return found


def check_rogue() -> dict[str, Any]:
    """Somebody loads another model, or the same one again, without the queue."""

    def rogue(role: str, forced: bool) -> None:
        info = sd_models.get_closet_checkpoint_match(file_of(role).name)
        with sd_models.SkipWritingToConfig():
            load = partial(sd_models.reload_model_weights, info=info, forced_reload=forced)
            in_thread(load).join()

    use("a")
    before = user_image()
    with session(b="t") as opened:
        opened.apply(recipe(UNET | {"BASE": 0.5}))
        expected = pictures(opened)
        rogue("t", False)
        swapped = pictures(opened)
        news = opened.warnings()
        rogue("a", True)
        reloaded = pictures(opened)
        with at_step(2, lambda: rogue("t", False)):
            within = pictures(opened)
    return {
        "before": before,
        "after": user_image(),
        "expected": expected,
        "swapped": swapped,
        "reloaded": reloaded,
        "within": within,
        "news": news,
    }


def check_shared() -> dict[str, Any]:
    """Others get in between candidates, on their own model."""
    shared.opts.add_option("automerge_share", shared.OptionInfo(False, "share", section=("x", "X")))
    use("t")
    before = user_image()
    shared.opts.set("automerge_share", True)
    got: list[str] = []
    try:
        with session() as opened:
            opened.apply(recipe(UNET))
            expected = pictures(opened)
            guest = in_thread(lambda: got.append(user_image()))
            time.sleep(0.3)
            too_early = list(got)
            opened.rest()
            guest.join(60)
            opened.apply(recipe({"M00": 0.3}))
            opened.apply(recipe(UNET))
            later = pictures(opened)
            start = time.perf_counter()
            opened.rest()
            idle = time.perf_counter() - start
    finally:
        shared.opts.set("automerge_share", False)
    after = user_image()
    use("a")
    return {
        "before": before,
        "guest": got,
        "too early": too_early,
        "expected": expected,
        "later": later,
        "after": after,
        "idle": idle,
    }


def check_settings() -> dict[str, Any]:
    """Hires fix, clip skip, styles and batches are what txt2img makes of them."""
    import msgspec
    from modules import processing, styles
    from modules.call_queue import queue_lock

    use("a")
    shared.prompt_styles.styles["night"] = styles.PromptStyle("night", "{prompt} at night", "day")
    hires = Hires(scale=1.5, upscaler="Latent", second_pass_steps=2, denoising_strength=0.6)
    hires = msgspec.structs.replace(hires, prompt="a green star")
    other = Hires(scale=1.5, upscaler="Lanczos", denoising_strength=0.75)

    def by_hand(**changes: Any) -> str:
        with queue_lock:
            settings = {
                "prompt": PAYLOAD.prompt,
                "seed": 1,
                "steps": 4,
                "sampler_name": "DDIM",
                "cfg_scale": 5.0,
                "scheduler": "Automatic",
                "width": 64,
                "height": 64,
                "do_not_save_samples": True,
                "do_not_save_grid": True,
            }
            options = dict(shared.opts.data)
            p = processing.StableDiffusionProcessingTxt2Img(**(settings | changes))
            made = [digest(image) for image in processing.process_images(p).images]
            shared.opts.data = options  # the WebUI leaves an override that was never set
            return made

    expected = {
        "hires": by_hand(
            enable_hr=True,
            hr_scale=1.5,
            hr_upscaler="Latent",
            hr_second_pass_steps=2,
            denoising_strength=0.6,
            hr_prompt="a green star",
        ),
        "clip skip": by_hand(override_settings={"CLIP_stop_at_last_layers": 3}),
        "style": by_hand(styles=["night"], negative_prompt="rain"),
        "both": by_hand(styles=["night"], enable_hr=True, hr_scale=1.5, hr_upscaler="Lanczos"),
        "batch": by_hand(prompt=["a ball", "a star"], seed=[3, 5], batch_size=2),
    }
    with session() as opened:
        found = {
            "hires": pictures(opened, job(hires=hires)),
            "clip skip": pictures(opened, job(clip_skip=3)),
            "both": pictures(opened, job(styles=("night",), hires=other)),
            "style": pictures(opened, job(styles=("night",), negative_prompt="rain")),
            "batch": pictures(
                opened,
                job(3, prompt="a ball", batch_size=2),
                job(5, prompt="a star", batch_size=2),
            ),
        }
        (image,) = [image for _, image in opened.images([job()], lambda: False)]
        infotext = image.info["parameters"]
    del shared.prompt_styles.styles["night"]
    return {"expected": expected, "found": found, "infotext": infotext}


def check_custom_unet() -> dict[str, Any]:
    """Another denoiser (TensorRT and the like) is active, which ignores the weights."""
    from modules import sd_unet

    class Custom(sd_unet.SdUnet):
        def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
            return x * 0.1

    class Option(sd_unet.SdUnetOption):
        label, model_name = "custom", "custom"

        def create_unet(self) -> Any:
            return Custom()

    use("a")
    plain = user_image()
    sd_unet.unet_options.append(Option())
    shared.opts.set("sd_unet", "custom")
    before = user_image()
    with session() as opened:
        start = pictures(opened)
    after = user_image()
    shared.opts.set("sd_unet", "None")
    sd_unet.unet_options.pop()
    return {"plain": plain, "before": before, "start": start, "after": after, "again": user_image()}


def check_vae(folder: str) -> dict[str, Any]:
    """A VAE of the user's own, found by the checkpoint's name, is used for all images."""
    from modules import sd_vae
    from safetensors.torch import save_file

    use("a")
    plain = user_image()
    prefix = "first_stage_model."
    with open_checkpoint(file_of("t")) as twin:
        names = [key for key in twin.keys() if key.startswith(prefix)]  # noqa: SIM118
        vae = {name.removeprefix(prefix): twin.tensor(name).clone() for name in names}
    path = file_of("a").with_suffix(".vae.safetensors")
    save_file(vae, path)
    try:
        sd_vae.refresh_vae_list()
        sd_vae.reload_vae_weights()
        before, sums = user_image(), live_sums()
        generator = WebUIGenerator(A1111())
        with session(generator, b="t") as opened:
            news = opened.warnings()
            opened.apply(recipe(dict.fromkeys([*UNET, "VAE"], 1.0)))
            live = pictures(opened)
        merged = Path(folder) / "merged.safetensors"
        files = models()
        with open_checkpoint(files["a"]) as a, open_checkpoint(files["t"]) as b:
            write_merge(recipe(dict.fromkeys(UNET, 1.0)), {"a": a, "b": b}, merged)
        with open_checkpoint(merged) as file, generator.open({"a": file}) as opened:
            loaded = pictures(opened)
        after, same = user_image(), live_sums() == sums
    finally:
        path.unlink()
        sd_vae.refresh_vae_list()
        sd_vae.reload_vae_weights()
    return {
        "plain": plain,
        "before": before,
        "after": after,
        "same weights": same,
        "live": live,
        "loaded": loaded,
        "news": news,
        "again": user_image(),
    }


def check_nan() -> dict[str, Any]:
    with session(b="n") as opened:
        opened.apply(recipe({"OUT": 1.0}))
        broken = [image.info.get("broken") for _, image in opened.images([job()], lambda: False)]
        opened.apply(recipe({}))
        whole = [image.info.get("broken") for _, image in opened.images([job()], lambda: False)]
    return {"broken": broken, "whole": whole, "after": user_image()}


def check_fp8(folder: str) -> dict[str, Any]:
    """8-bit storage: the merge in the live model is the merge loaded from its file."""
    shared.opts.set("fp8_storage", "Enable")
    shared.opts.set("cache_fp16_weight", True)
    try:
        model = shared.sd_model
        kinds = sorted({str(p.dtype) for p in model.model.parameters()})
        found = check_saved(folder, "all")
        lora = check_lora()
    finally:
        shared.opts.set("cache_fp16_weight", False)
        shared.opts.set("fp8_storage", "Disable")
    return found | {"kinds": kinds, "lora": lora}


def check_memory(applies: int = 500, images: int = 100) -> dict[str, Any]:
    import gc
    import random

    def resident() -> float:
        gc.collect()
        text = Path("/proc/self/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    rng = random.Random(0)
    blocks = [*UNET, "IN07", "IN08", "OUT00", "BASE"]
    trace: list[float] = []
    with session(b="t") as opened:
        seconds = 0.0
        for number in range(applies):
            start = time.perf_counter()
            opened.apply(recipe({block: round(rng.random(), 3) for block in blocks}))
            seconds += time.perf_counter() - start
            if number % (applies // images) == 0:
                pictures(opened, job(number))
            if number % (applies // 10) == applies // 10 - 1:
                trace.append(round(resident(), 1))
    return {"trace MB": trace, "seconds per apply": seconds / applies}


REPORT: dict[str, Any] = {}


def check_reload_begin() -> str:
    """Start a session that sees the user interface reloaded; its outcome is asked for later."""
    REPORT.clear()

    def work() -> None:
        try:
            with session() as opened:
                opened.apply(recipe(UNET))
                REPORT["expected"] = pictures(opened, job(prompt=PAYLOAD.prompt + "<lora:tiny:1>"))
                with at_step(2, shared.state.request_restart):
                    REPORT["seen"] = pictures(opened, job(prompt=PAYLOAD.prompt + "<lora:tiny:1>"))
                REPORT["later"] = pictures(opened)
                REPORT["news"] = opened.warnings()
            REPORT["after"] = user_image()
        except BaseException as error:
            REPORT["error"] = f"{type(error).__name__}: {error}"
        REPORT["done"] = True

    in_thread(work)
    return "begun"


def check_reload_report() -> dict[str, Any]:
    return dict(REPORT)


def check_cached_files() -> dict[str, Any]:
    """The WebUI keeps files' tensors in memory; they must not be the live ones."""
    shared.opts.set("sd_checkpoint_cache", 2)
    use("t")
    use("a")
    found = check_basic()
    sd_models.reload_model_weights(forced_reload=True)
    found["reloaded"] = user_image()
    shared.opts.set("sd_checkpoint_cache", 0)
    return found


def _full_size_clip(folder: str) -> str:
    """The demo's tokenizer with the widths of CLIP ViT-L/14, so that nothing is downloaded."""
    target = Path(folder) / "clip"
    shutil.copytree(Path(sd_models.model_path) / "automerge-demo-text-encoder", target)
    config = json.loads((target / "config.json").read_text())
    widths = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    (target / "config.json").write_text(json.dumps(config | widths | {"projection_dim": 768}))
    return str(target)


def check_names(family: str, folder: str) -> dict[str, Any]:
    """The WebUI's own model of a family at full size, without memory, hijacked as for use."""
    import open_clip
    from modules import sd_disable_initialization, sd_hijack, sd_models_config, sd_models_xl
    from omegaconf import OmegaConf

    from lib_automerge.domain import architectures
    from lib_automerge.host.live_parameters import Casts, LiveParameters

    architecture = architectures.get(family)
    name = {"sd1": "config_default", "sd2": "config_sd2", "sdxl": "config_sdxl"}[family]
    # it prepares pictures for a part of the encoder that nobody here uses
    open_clip.factory.image_transform = lambda *_, **__: None
    config = OmegaConf.load(getattr(sd_models_config, name))
    sd_models.repair_config(config, {})
    if family == "sd1":
        config.model.params.cond_stage_config.params = {"version": _full_size_clip(folder)}
    if family == "sdxl":
        encoder = config.model.params.conditioner_config.params.emb_models[0].params
        encoder.version = _full_size_clip(folder)
    with (
        sd_disable_initialization.DisableInitialization(disable_clip=True),
        sd_disable_initialization.InitializeOnMeta(),
    ):
        model = sd_models.instantiate_from_config(config.model, {})
    if family == "sdxl":
        sd_models_xl.extend_sdxl(model)
    sd_hijack.model_hijack.hijack(model)
    shapes = dict(architecture.reference_keys)
    live = LiveParameters(model, architecture, shapes, Casts(None, None))
    wrong = [
        key
        for key, place in live._places.items()
        if tuple(getattr(place.module, place.name).shape) != tuple(shapes[key])
    ]
    return {"wrong": wrong, "places": len(live._places), "keys": len(shapes)}


def check_fingerprint() -> dict[str, str]:
    return A1111().fingerprint()
