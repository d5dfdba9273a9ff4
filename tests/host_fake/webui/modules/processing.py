"""From settings to pictures: `process_images` and what it is told."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn.functional import interpolate

from modules import (
    devices,
    extra_networks,
    fake_sampler,
    images,
    lowvram,
    paths,
    sd_hijack,
    sd_models,
    sd_samplers,
    sd_unet,
    sd_vae,
    shared,
)
from modules.fake_processing import StableDiffusionProcessing
from modules.fake_results import Processed, add_grid, create_infotext, pictures
from modules.shared import cmd_opts, opts, state

opt_C = 4  # noqa: N816 - the real name
opt_f = 8


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    enable_hr: bool = False
    denoising_strength: float = 0.75
    firstphase_width: int = 0
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_checkpoint_name: str = None
    hr_sampler_name: str = None
    hr_scheduler: str = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    force_task_id: str = None

    cached_hr_uc = [None, None]  # noqa: RUF012 - shared on purpose
    cached_hr_c = [None, None]  # noqa: RUF012 - shared on purpose

    hr_checkpoint_info: object = field(default=None, init=False)

    def __post_init__(self):
        super().__post_init__()
        self.cached_hr_uc = StableDiffusionProcessingTxt2Img.cached_hr_uc
        self.cached_hr_c = StableDiffusionProcessingTxt2Img.cached_hr_c

    def close(self):
        super().close()
        self.hr_c = self.hr_uc = None
        if not opts.persistent_cond_cache:
            StableDiffusionProcessingTxt2Img.cached_hr_c = [None, None]
            StableDiffusionProcessingTxt2Img.cached_hr_uc = [None, None]

    def init(self, all_prompts, all_seeds, all_subseeds):
        if not self.enable_hr:
            return
        if self.hr_checkpoint_name and self.hr_checkpoint_name != "Use same checkpoint":
            self.hr_checkpoint_info = sd_models.get_closet_checkpoint_match(self.hr_checkpoint_name)
            if self.hr_checkpoint_info is None:
                raise Exception(f"Could not find checkpoint with name {self.hr_checkpoint_name}")  # noqa: TRY002
        name = self.hr_upscaler or shared.latent_upscale_default_mode
        self.latent_scale_mode = shared.latent_upscale_modes.get(name)
        known = [upscaler.name for upscaler in shared.sd_upscalers]
        if self.latent_scale_mode is None and self.hr_upscaler not in known:
            raise Exception(f"could not find upscaler named {self.hr_upscaler}")  # noqa: TRY002
        if self.hr_resize_x == 0 and self.hr_resize_y == 0:
            self.hr_upscale_to_x = int(self.width * self.hr_scale)
            self.hr_upscale_to_y = int(self.height * self.hr_scale)
        else:
            self.hr_upscale_to_x = self.hr_resize_x or self.hr_resize_y * self.width // self.height
            self.hr_upscale_to_y = self.hr_resize_y or self.hr_resize_x * self.height // self.width
        if not state.processing_has_refined_job_count:
            state.job_count = (self.n_iter if state.job_count == -1 else state.job_count) * 2
            state.processing_has_refined_job_count = True

    def sample(self):
        height, width = self.height // opt_f, self.width // opt_f
        start = fake_sampler.noise(self, height, width)
        samples = fake_sampler.sample(
            self, start, self.c, self.uc, self.sampler_name, self.scheduler, self.steps
        )
        if not self.enable_hr:
            return samples
        with sd_models.SkipWritingToConfig():
            sd_models.reload_model_weights(info=self.hr_checkpoint_info)
        return samples if state.interrupted else self._second_pass(samples)

    def _second_pass(self, samples):
        size = (self.hr_upscale_to_y // opt_f, self.hr_upscale_to_x // opt_f)
        mode = self.latent_scale_mode or {"mode": "nearest"}
        samples = interpolate(samples, size=size, **mode)
        state.nextjob()
        if not self.disable_extra_networks:
            extra_networks.activate(self, self.extra_network_data)
        sampler = self.hr_sampler_name or self.sampler_name
        steps = self.hr_second_pass_steps or self.steps
        conds = {}
        for name, prompt, given, caches in (
            ("uc", self.hr_negative_prompt, self.negative_prompts, ("cached_hr_uc", "cached_uc")),
            ("c", self.hr_prompt, self.prompts, ("cached_hr_c", "cached_c")),
        ):
            prompts = [prompt] * len(given) if prompt else given
            conds[name] = self.get_conds_with_caching(
                prompts,
                self.firstpass_steps,
                [getattr(self, cache) for cache in caches],
                self.extra_network_data,
                sd_samplers.find_sampler_config(sampler).total_steps(steps),
            )
        self.hr_c, self.hr_uc = conds["c"], conds["uc"]
        return fake_sampler.sample(
            self,
            samples,
            self.hr_c,
            self.hr_uc,
            sampler,
            self.hr_scheduler or self.scheduler,
            steps,
            self.denoising_strength,
        )


def get_fixed_seed(seed):
    return random.randrange(4294967294) if seed in ("", None, -1) else seed


def fix_seed(p):
    p.seed = get_fixed_seed(p.seed)
    p.subseed = get_fixed_seed(p.subseed)


def decode_latent_batch(model, batch):
    return torch.stack([_decode(model, batch[i : i + 1]) for i in range(len(batch))])


def _decode(model, latent):
    """Make the image; a VAE of 16 bits that makes NaN has a second try with 32."""
    image = model.decode_first_stage(latent)[0]
    try:
        devices.test_for_nans(image, "vae")
    except devices.NansException:
        if not opts.auto_vae_precision or devices.dtype_vae == torch.float32:
            raise
        devices.dtype_vae = torch.float32
        model.first_stage_model.to(torch.float32)
        image = model.decode_first_stage(latent)[0]
    return image


def process_images(p):
    if p.scripts is not None:
        p.scripts.before_process(p)
    # an option that was never set is not in `data`: its override stays
    before = {key: opts.data[key] for key in p.override_settings if key in opts.data}
    try:
        if p.override_settings.get("sd_model_checkpoint") not in sd_models.checkpoint_aliases:
            p.override_settings.pop("sd_model_checkpoint", None)
            sd_models.reload_model_weights()
        for key, value in p.override_settings.items():
            opts.set(key, value, is_api=True, run_callbacks=False)
            if key == "sd_model_checkpoint":
                sd_models.reload_model_weights()
            if key == "sd_vae":
                sd_vae.reload_vae_weights()
        sd_models.apply_token_merging(shared.sd_model, p.get_token_merging_ratio())
        sd_samplers.fix_p_invalid_sampler_and_scheduler(p)
        with torch.no_grad():
            return process_images_inner(p)
    finally:
        sd_models.apply_token_merging(shared.sd_model, 0)
        if p.override_settings_restore_afterwards:
            for key, value in before.items():
                setattr(opts, key, value)
                if key == "sd_vae":
                    sd_vae.reload_vae_weights()


def process_images_inner(p):
    assert p.prompt is not None
    assert not isinstance(p.prompt, list) or p.prompt
    devices.torch_gc()
    seed, subseed = get_fixed_seed(p.seed), get_fixed_seed(p.subseed)
    p.sd_model_name = shared.sd_model.sd_checkpoint_info.name_for_extra
    p.sd_model_hash = shared.sd_model.sd_model_hash
    sd_hijack.model_hijack.clear_comments()
    p.setup_prompts()
    count = len(p.all_prompts)
    p.all_seeds = seed if isinstance(seed, list) else [int(seed) + i for i in range(count)]
    p.all_subseeds = subseed if isinstance(subseed, list) else [subseed + i for i in range(count)]
    if not p.do_not_reload_embeddings:
        sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings()
    p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
    sd_unet.apply_unet()
    if state.job_count == -1:
        state.job_count = p.n_iter
    output, infotexts = [], []
    for number in range(p.n_iter):
        p.iteration = number
        state.skipped = False
        if state.interrupted or state.stopping_generation:
            break
        sd_models.reload_model_weights()
        rows = slice(number * p.batch_size, (number + 1) * p.batch_size)
        p.prompts, p.negative_prompts = p.all_prompts[rows], p.all_negative_prompts[rows]
        p.seeds, p.subseeds = p.all_seeds[rows], p.all_subseeds[rows]
        if not p.prompts:
            break
        p.parse_extra_network_prompts()
        if not p.disable_extra_networks:
            extra_networks.activate(p, p.extra_network_data)
        p.setup_conds()
        if number == 0 and not cmd_opts.no_prompt_history:
            history = Path(paths.data_path) / "params.txt"
            history.write_text(create_infotext(p, 0), encoding="utf8")
        if p.n_iter > 1:
            state.job = f"Batch {number + 1} out of {p.n_iter}"
        samples = p.sample()
        devices.test_for_nans(samples, "unet")
        decoded = decode_latent_batch(shared.sd_model, samples)
        if lowvram.is_enabled(shared.sd_model):
            lowvram.send_everything_to_cpu()
        state.nextjob()
        for place, image in enumerate(pictures(decoded)):
            text = create_infotext(p, rows.start + place)
            infotexts.append(text)
            if opts.enable_pnginfo:
                image.info["parameters"] = text
            if p.save_samples():
                folder = p.outpath_samples
                images.save_image(image, folder, "", p.seeds[place])
            output.append(image)
    if not infotexts:
        infotexts.append(create_infotext(p, 0))
    first = add_grid(p, output, infotexts)
    if not p.disable_extra_networks and getattr(p, "extra_network_data", None):
        extra_networks.deactivate(p, p.extra_network_data)
    return Processed(
        p, output, p.all_seeds[0], infotexts[0], index_of_first_image=first, infotexts=infotexts
    )
