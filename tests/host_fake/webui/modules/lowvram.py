"""Keeps all but the running part of a model on the CPU, by hooks before its parts run."""

from modules import devices, shared

module_in_gpu = None
moves = 0
"""How often a part came to the device: of the fake alone."""


def send_everything_to_cpu():
    global module_in_gpu
    if module_in_gpu is not None:
        module_in_gpu.to(devices.cpu)
    module_in_gpu = None


def is_needed(sd_model):
    flags = shared.cmd_opts
    return (
        flags.lowvram or flags.medvram or (flags.medvram_sdxl and hasattr(sd_model, "conditioner"))
    )


def is_enabled(sd_model):
    return sd_model.lowvram


def _fetch(module, _):
    global module_in_gpu, moves
    if module_in_gpu is not module:
        send_everything_to_cpu()
        module.to(devices.device)
        module_in_gpu = module
        moves += 1


def apply(sd_model):
    needed = is_needed(sd_model)
    shared.parallel_processing_allowed = not needed
    if not needed:
        sd_model.lowvram = False
        return
    if getattr(sd_model, "lowvram", False):
        return
    sd_model.lowvram = True
    for embedder in getattr(getattr(sd_model, "conditioner", None), "embedders", None) or [
        sd_model.cond_stage_model
    ]:
        embedder.register_forward_pre_hook(_fetch)
    unet = sd_model.model.diffusion_model
    parts = [unet.time_embed, unet.middle_block, *unet.input_blocks, *unet.output_blocks]
    for part in parts if shared.cmd_opts.lowvram else [sd_model.model]:
        part.register_forward_pre_hook(_fetch)
