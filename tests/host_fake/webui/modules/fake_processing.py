"""The settings of a generation that txt2img and img2img share. Part of `processing`."""

from dataclasses import dataclass, field

from PIL import Image

from modules import extra_networks, sd_samplers, shared
from modules.shared import opts


@dataclass(repr=False)
class StableDiffusionProcessing:
    sd_model: object = None
    outpath_samples: str = None
    outpath_grids: str = None
    prompt: str = ""
    prompt_for_display: str = None
    negative_prompt: str = ""
    styles: list[str] = None
    seed: int = -1
    subseed: int = -1
    subseed_strength: float = 0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    seed_enable_extras: bool = True
    sampler_name: str = None
    scheduler: str = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    restore_faces: bool = None
    tiling: bool = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    extra_generation_params: dict = None
    overlay_images: list = None
    eta: float = None
    do_not_reload_embeddings: bool = False
    denoising_strength: float = None
    ddim_discretize: str = None
    s_min_uncond: float = None
    s_churn: float = None
    s_tmax: float = None
    s_tmin: float = None
    s_noise: float = None
    override_settings: dict = None
    override_settings_restore_afterwards: bool = True
    sampler_index: int = None
    refiner_checkpoint: str = None
    refiner_switch_at: float = None
    disable_extra_networks: bool = False
    firstpass_image: Image = None
    comments: dict = None

    token_merging_ratio = 0
    token_merging_ratio_hr = 0
    # kept between generations, whoever starts them
    cached_uc = [None, None]  # noqa: RUF012 - shared on purpose
    cached_c = [None, None]  # noqa: RUF012 - shared on purpose

    scripts: object = field(default=None, init=False)
    script_args: list = field(default=None, init=False)
    is_hr_pass: bool = field(default=False, init=False)
    is_api: bool = field(default=False, init=False)
    user: str = field(default=None, init=False)
    iteration: int = field(default=0, init=False)
    sampler: object = field(default=None, init=False)

    def __post_init__(self):
        self.comments = {}
        self.styles = self.styles or []
        self.extra_generation_params = self.extra_generation_params or {}
        self.override_settings = self.override_settings or {}
        self.cached_uc = StableDiffusionProcessing.cached_uc
        self.cached_c = StableDiffusionProcessing.cached_c

    def comment(self, text):
        self.comments[text] = 1

    def close(self):
        self.sampler = self.c = self.uc = None
        if not opts.persistent_cond_cache:
            StableDiffusionProcessing.cached_c = [None, None]
            StableDiffusionProcessing.cached_uc = [None, None]

    def setup_prompts(self):
        count = self.batch_size * self.n_iter
        prompts, negatives = self.prompt, self.negative_prompt
        if not isinstance(prompts, list):
            prompts = [prompts] * (len(negatives) if isinstance(negatives, list) else count)
        if not isinstance(negatives, list):
            negatives = [negatives] * len(prompts)
        if len(prompts) != len(negatives):
            raise RuntimeError(
                f"Received a different number of prompts ({len(prompts)}) and negative prompts "
                f"({len(negatives)})"
            )
        styles = shared.prompt_styles
        self.all_prompts = [styles.apply_styles_to_prompt(x, self.styles) for x in prompts]
        self.all_negative_prompts = [
            styles.apply_negative_styles_to_prompt(x, self.styles) for x in negatives
        ]
        self.main_prompt, self.main_negative_prompt = prompts[0], negatives[0]

    def cached_params(self, required_prompts, steps, extra_network_data, hires_steps=None):
        """What makes a cached conditioning unusable: the weights are not among it."""
        return (
            required_prompts,
            steps,
            hires_steps,
            opts.use_old_scheduling,
            opts.CLIP_stop_at_last_layers,
            shared.sd_model.sd_checkpoint_info,
            extra_network_data,
            opts.sdxl_crop_left,
            opts.sdxl_crop_top,
            self.width,
            self.height,
            opts.fp8_storage,
            opts.cache_fp16_weight,
            opts.emphasis,
        )

    def get_conds_with_caching(self, prompts, steps, caches, extra_network_data, hires_steps=None):
        key = self.cached_params(list(prompts), steps, extra_network_data, hires_steps)
        for cache in caches:
            if cache[0] is not None and cache[0] == key:
                return cache[1]
        caches[0][1] = shared.sd_model.get_learned_conditioning(prompts)
        caches[0][0] = key
        return caches[0][1]

    def setup_conds(self):
        config = sd_samplers.find_sampler_config(self.sampler_name)
        self.firstpass_steps = config.total_steps(self.steps)
        self.step_multiplier = self.firstpass_steps // self.steps
        data = self.extra_network_data
        self.uc = self.get_conds_with_caching(
            self.negative_prompts, self.firstpass_steps, [self.cached_uc], data
        )
        self.c = self.get_conds_with_caching(
            self.prompts, self.firstpass_steps, [self.cached_c], data
        )

    def parse_extra_network_prompts(self):
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    def save_samples(self):
        return opts.samples_save and not self.do_not_save_samples

    def init(self, all_prompts, all_seeds, all_subseeds): ...

    def get_token_merging_ratio(self, for_hr=False):
        return self.token_merging_ratio or opts.token_merging_ratio
