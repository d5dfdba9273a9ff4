"""The settings that an extension may meet, with the WebUI's defaults."""

from modules.options import OptionInfo

restricted_opts: set[str] = set()

_DEFAULTS = {
    "CLIP_stop_at_last_layers": 1,
    "add_model_hash_to_info": True,
    "add_model_name_to_info": True,
    "add_version_to_infotext": True,
    "auto_vae_precision": True,
    "auto_vae_precision_bfloat16": False,
    "cache_fp16_weight": False,
    "emphasis": "Original",
    "enable_pnginfo": True,
    "eta_noise_seed_delta": 0,
    "face_restoration": False,
    "fp8_storage": "Disable",
    "grid_format": "png",
    "grid_only_if_multiple": True,
    "grid_save": True,
    "hide_samplers": [],
    "hires_fix_use_firstpass_conds": False,
    "live_previews_enable": True,
    "lora_functional": False,
    "lora_in_memory_limit": 0,
    "outdir_grids": "",
    "outdir_samples": "",
    "outdir_txt2img_grids": "outputs/txt2img-grids",
    "outdir_txt2img_samples": "outputs/txt2img-images",
    "pad_cond_uncond": False,
    "persistent_cond_cache": True,
    "randn_source": "GPU",
    "return_grid": True,
    "samples_format": "png",
    "samples_save": True,
    "sd_checkpoint_cache": 0,
    "sd_checkpoint_hash": "",
    "sd_checkpoints_keep_in_cpu": True,
    "sd_checkpoints_limit": 1,
    "sd_lora": "None",
    "sd_model_checkpoint": None,
    "sd_noise_schedule": "Default",
    "sd_unet": "Automatic",
    "sd_vae": "Automatic",
    "sd_vae_overrides_per_model_preferences": True,
    "sdxl_crop_left": 0,
    "sdxl_crop_top": 0,
    "show_progress_every_n_steps": 10,
    "tiling": False,
    "token_merging_ratio": 0.0,
    "token_merging_ratio_hr": 0.0,
    "upcast_attn": False,
    "use_downcasted_alpha_bar": False,
    "use_old_scheduling": False,
}

options_templates = {
    key: OptionInfo(default, key, section=("fake", "Fake")) for key, default in _DEFAULTS.items()
}
