"""Checkpoints: which there are, which is loaded, and how one takes another's place."""

import collections
import threading

import torch

from modules import (
    devices,
    errors,
    fake_model,
    lowvram,
    script_callbacks,
    sd_hijack,
    sd_models_config,
    sd_unet,
    sd_vae,
    shared,
)
from modules.fake_checkpoints import (  # noqa: F401
    CheckpointInfo,
    checkpoint_aliases,
    checkpoint_tiles,
    checkpoints_list,
    get_closet_checkpoint_match,
    list_models,
    loads,
    model_path,
    read_state_dict,
    select_checkpoint,
)

checkpoints_loaded = collections.OrderedDict()


def get_checkpoint_state_dict(checkpoint_info, timer=None):
    checkpoint_info.calculate_shorthash()
    if checkpoint_info in checkpoints_loaded:
        checkpoints_loaded.move_to_end(checkpoint_info)
        return checkpoints_loaded[checkpoint_info]
    return read_state_dict(checkpoint_info.filename)


class SkipWritingToConfig:
    skip = False
    previous = None

    def __enter__(self):
        self.previous = SkipWritingToConfig.skip
        SkipWritingToConfig.skip = True
        return self

    def __exit__(self, *_):
        SkipWritingToConfig.skip = self.previous


def check_fp8(model):
    if model is None:
        return None
    wanted = shared.opts.fp8_storage
    return wanted == "Enable" or (wanted == "Enable for SDXL" and model.is_sdxl)


def _set_model_type(model):
    model.is_sdxl = hasattr(model, "conditioner")
    model.is_sd2 = not model.is_sdxl and hasattr(model.cond_stage_model, "model")
    model.is_sd1 = not model.is_sdxl and not model.is_sd2
    model.is_ssd = model.is_sd3 = model.is_sdxl_inpaint = False


def _to_half(model):
    vae = model.first_stage_model
    schedule = model.alphas_cumprod
    model.alphas_cumprod = None
    if shared.cmd_opts.no_half_vae:
        model.first_stage_model = None
    model.half()
    model.first_stage_model = vae
    model.alphas_cumprod = schedule


def _to_fp8(model):
    vae = model.first_stage_model
    model.first_stage_model = None
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            if shared.opts.cache_fp16_weight:
                module.fp16_weight = module.weight.data.clone().half()
                if module.bias is not None:
                    module.fp16_bias = module.bias.data.clone().half()
            module.to(torch.float8_e4m3fn)
    model.first_stage_model = vae


def load_model_weights(model, checkpoint_info, state_dict, timer=None):
    shorthash = checkpoint_info.calculate_shorthash()
    if devices.fp8:
        model.half()
    if not SkipWritingToConfig.skip:
        shared.opts.data["sd_model_checkpoint"] = checkpoint_info.title
    if state_dict is None:
        state_dict = get_checkpoint_state_dict(checkpoint_info)
    _set_model_type(model)
    if shared.opts.sd_checkpoint_cache > 0:
        checkpoints_loaded[checkpoint_info] = dict(state_dict)
    model.load_state_dict(state_dict, strict=False)
    if shared.cmd_opts.no_half:
        model.float()
        devices.dtype_unet = torch.float32
    else:
        _to_half(model)
        devices.dtype_unet = torch.float16
    model.alphas_cumprod_original = model.alphas_cumprod
    for module in model.modules():
        for name in ("fp16_weight", "fp16_bias"):
            module.__dict__.pop(name, None)
    devices.fp8 = check_fp8(model)
    if devices.fp8:
        _to_fp8(model)
    model.first_stage_model.to(devices.dtype_vae)
    while len(checkpoints_loaded) > shared.opts.sd_checkpoint_cache:
        checkpoints_loaded.popitem(last=False)
    model.sd_model_hash = shorthash
    model.sd_model_checkpoint = checkpoint_info.filename
    model.sd_checkpoint_info = checkpoint_info
    shared.opts.data["sd_checkpoint_hash"] = checkpoint_info.sha256
    sd_vae.delete_base_vae()
    sd_vae.clear_loaded_vae()
    sd_vae.load_vae(model, *sd_vae.resolve_vae(checkpoint_info.filename))


class SdModelData:
    def __init__(self):
        self.sd_model = None
        self.loaded_sd_models = []
        self.was_loaded_at_least_once = False
        self.lock = threading.Lock()

    def get_sd_model(self):
        if self.sd_model is not None or self.was_loaded_at_least_once:
            return self.sd_model
        with self.lock:
            if self.sd_model is None and not self.was_loaded_at_least_once:
                try:
                    load_model()
                except Exception as error:
                    errors.display(error, "loading stable diffusion model")
                    self.sd_model = None
        return self.sd_model

    def set_sd_model(self, v, already_loaded=False):
        self.sd_model = v
        if already_loaded:
            sd_vae.base_vae = v.base_vae
            sd_vae.loaded_vae_file = v.loaded_vae_file
            sd_vae.checkpoint_info = v.sd_checkpoint_info
        self.loaded_sd_models[:] = [x for x in self.loaded_sd_models if x is not v]
        if v is not None:
            self.loaded_sd_models.insert(0, v)


model_data = SdModelData()


def send_model_to_cpu(m):
    if m is not None and m.lowvram:
        lowvram.send_everything_to_cpu()
    elif m is not None:
        m.to(devices.cpu)


def send_model_to_device(m):
    lowvram.apply(m)
    if not m.lowvram:
        m.to(devices.device)


def send_model_to_trash(m):
    m.to(device="meta")


def get_empty_cond(sd_model):
    """Switches all extra networks off on the way."""
    from modules import extra_networks, processing

    extra_networks.activate(processing.StableDiffusionProcessingTxt2Img(), {})
    return sd_model.get_learned_conditioning([""])


def load_model(checkpoint_info=None, already_loaded_state_dict=None):
    """Build a new model; the previous one's weights are gone (on the meta device)."""
    info = checkpoint_info or select_checkpoint()
    if model_data.sd_model:
        send_model_to_trash(model_data.sd_model)
        model_data.sd_model = None
    state = already_loaded_state_dict or get_checkpoint_state_dict(info)
    config = sd_models_config.find_checkpoint_config(state, info)
    model = fake_model.create(state)
    model.used_config = config
    load_model_weights(model, info, state)
    send_model_to_device(model)
    sd_hijack.model_hijack.hijack(model)
    model.eval()
    model_data.set_sd_model(model)
    model_data.was_loaded_at_least_once = True
    sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
    script_callbacks.model_loaded_callback(model)
    with torch.no_grad():
        model.cond_stage_model_empty_prompt = get_empty_cond(model)
    return model


def reuse_model_from_already_loaded(sd_model, checkpoint_info, timer=None):
    """Return a loaded model of that file, one to load it into, or None; trash what is too many."""
    wanted = checkpoint_info.filename
    if sd_model is not None and sd_model.sd_checkpoint_info.filename == wanted:
        return sd_model
    if shared.opts.sd_checkpoints_keep_in_cpu:
        send_model_to_cpu(sd_model)
    limit = shared.opts.sd_checkpoints_limit
    loaded = model_data.loaded_sd_models
    found = None
    for model in reversed(list(loaded)):
        if model.sd_checkpoint_info.filename == wanted:
            found = model
        elif len(loaded) > limit > 0:
            loaded.remove(model)
            send_model_to_trash(model)
    if found is not None:
        send_model_to_device(found)
        model_data.set_sd_model(found, already_loaded=True)
        if not SkipWritingToConfig.skip:
            shared.opts.data["sd_model_checkpoint"] = found.sd_checkpoint_info.title
            shared.opts.data["sd_checkpoint_hash"] = found.sd_checkpoint_info.sha256
        sd_vae.reload_vae_weights(found)
        return found
    if limit > 1 and len(loaded) < limit:
        model_data.sd_model = None
        return load_model(checkpoint_info)
    if not loaded:
        return None
    model = loaded.pop()
    model_data.sd_model = model
    sd_vae.base_vae = model.base_vae
    sd_vae.loaded_vae_file = model.loaded_vae_file
    sd_vae.checkpoint_info = model.sd_checkpoint_info
    return model


def reload_model_weights(sd_model=None, info=None, forced_reload=False):
    checkpoint_info = info or select_checkpoint()
    sd_model = sd_model or model_data.sd_model
    current = sd_model.sd_checkpoint_info if sd_model is not None else None
    if sd_model is not None:
        if check_fp8(sd_model) != devices.fp8:
            forced_reload = True
        elif sd_model.sd_model_checkpoint == checkpoint_info.filename and not forced_reload:
            return sd_model
    sd_model = reuse_model_from_already_loaded(sd_model, checkpoint_info)
    if sd_model is not None:
        if not forced_reload and sd_model.sd_checkpoint_info.filename == checkpoint_info.filename:
            return sd_model
        sd_unet.apply_unet("None")
        send_model_to_cpu(sd_model)
        sd_hijack.model_hijack.undo_hijack(sd_model)
    state = get_checkpoint_state_dict(checkpoint_info)
    config = sd_models_config.find_checkpoint_config(state, checkpoint_info)
    if sd_model is None or config != sd_model.used_config:
        if sd_model is not None:
            send_model_to_trash(sd_model)
        load_model(checkpoint_info, already_loaded_state_dict=state)
        return model_data.sd_model
    try:
        load_model_weights(sd_model, checkpoint_info, state)
    except Exception:
        load_model_weights(sd_model, current, None)
        raise
    finally:
        sd_hijack.model_hijack.hijack(sd_model)
        if not sd_model.lowvram:
            sd_model.to(devices.device)
        script_callbacks.model_loaded_callback(sd_model)
    model_data.set_sd_model(sd_model)
    sd_unet.apply_unet()
    return sd_model


def unload_model_weights(sd_model=None, info=None):
    send_model_to_cpu(sd_model or shared.sd_model)
    return sd_model


def apply_token_merging(sd_model, token_merging_ratio):
    sd_model.applied_token_merged_ratio = token_merging_ratio
