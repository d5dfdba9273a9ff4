"""Which architecture file a checkpoint is built from: one of its own, or a guess by its keys."""

from pathlib import Path

from modules import shared

config_default = shared.sd_default_config
config_sd2 = str(Path(config_default).with_name("v2-inference.yaml"))
config_sdxl = str(Path(config_default).with_name("sd_xl_base.yaml"))
config_sdxl_refiner = str(Path(config_default).with_name("sd_xl_refiner.yaml"))


def find_checkpoint_config_near_filename(info):
    path = Path(info.filename).with_suffix(".yaml")
    return str(path) if path.exists() else None


def find_checkpoint_config(state_dict, info):
    near = find_checkpoint_config_near_filename(info)
    if near is not None:
        return near
    if "conditioner.embedders.1.model.ln_final.weight" in state_dict:
        return config_sdxl
    if "conditioner.embedders.0.model.ln_final.weight" in state_dict:
        return config_sdxl_refiner
    if "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight" in state_dict:
        return config_sd2
    return config_default
