"""What about an AUTOMATIC1111 WebUI decides the bits of its images. Import it only inside one."""

from __future__ import annotations

import sys

import launch
import torch
from modules import devices, shared

from lib_automerge.generate.devices import device_name

DECIDING = (
    "CLIP_stop_at_last_layers",
    "always_discard_next_to_last_sigma",
    "auto_vae_precision",
    "auto_vae_precision_bfloat16",
    "batch_cond_uncond",
    "cache_fp16_weight",
    "comma_padding_backtrack",
    "cross_attention_optimization",
    "emphasis",
    "enable_emphasis",
    "eta_ancestral",
    "eta_ddim",
    "eta_noise_seed_delta",
    "face_restoration",
    "fp8_storage",
    "hires_fix_use_firstpass_conds",
    "lora_functional",
    "pad_cond_uncond",
    "pad_cond_uncond_v0",
    "randn_source",
    "rho",
    "s_churn",
    "s_min_uncond",
    "s_min_uncond_all",
    "s_noise",
    "s_tmax",
    "s_tmin",
    "sd_noise_schedule",
    "sd_vae",
    "sd_vae_decode_method",
    "sd_vae_encode_method",
    "sd_vae_overrides_per_model_preferences",
    "sdxl_crop_left",
    "sdxl_crop_top",
    "sgm_noise_multiplier",
    "sigma_max",
    "sigma_min",
    "skip_early_cond",
    "tiling",
    "token_merging_ratio",
    "token_merging_ratio_hr",
    "uni_pc_lower_order_final",
    "uni_pc_order",
    "uni_pc_skip_type",
    "uni_pc_variant",
    "upcast_attn",
    "use_downcasted_alpha_bar",
    "use_old_emphasis_implementation",
    "use_old_hires_fix_width_height",
    "use_old_karras_scheduler_sigmas",
    "use_old_scheduling",
)
"""The WebUI's options that change images made from the same weights and payload."""

FLAGS = (
    "disable_nan_check",
    "lowvram",
    "medvram",
    "medvram_sdxl",
    "no_half",
    "no_half_vae",
    "opt_channelslast",
    "precision",
    "upcast_sampling",
)
"""The command line's, likewise."""


def version() -> str:
    """The WebUI's version as git tells it: "v1.10.1", "v1.10.1-5-g0123abc", or "<none>"."""
    return str(launch.git_tag())


def fingerprint() -> dict[str, str]:
    """Versions, device, number types, flags and options, each as text. Loads no model."""
    device = torch.device(devices.device)
    facts = {
        "backend": "a1111",
        "webui": version(),
        "torch": str(torch.__version__),
        "device": device_name(device),
        "dtype": str(devices.dtype).removeprefix("torch."),
        "dtype_vae": str(devices.dtype_vae).removeprefix("torch."),
    }
    if device.type == "cpu":
        facts["threads"] = str(torch.get_num_threads())
    for flag in FLAGS:
        if hasattr(shared.cmd_opts, flag):
            facts[f"flag {flag}"] = str(getattr(shared.cmd_opts, flag))
    for option in DECIDING:
        if option in shared.opts.data_labels:
            facts[f"option {option}"] = str(getattr(shared.opts, option))
    return facts


def loras() -> set[str] | None:
    """The names by which a prompt can call a LoRA; None if the LoRA extension is switched off."""
    networks = sys.modules.get("networks")
    if networks is None or not hasattr(networks, "available_network_aliases"):
        return None
    return set(networks.available_network_aliases) | set(networks.available_networks)
