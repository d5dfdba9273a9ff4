"""The VAE: the checkpoint's own, or another file's in its place."""

import copy
from pathlib import Path

from modules import devices, paths, script_callbacks, shared

vae_path = str(Path(paths.models_path) / "VAE")
vae_dict: dict[str, str] = {}
base_vae = None
loaded_vae_file = None
checkpoint_info = None


def refresh_vae_list():
    vae_dict.clear()
    for path in sorted(Path(vae_path).rglob("*.safetensors")):
        vae_dict[path.name] = str(path)


def get_loaded_vae_name():
    return Path(loaded_vae_file).name if loaded_vae_file else None


def delete_base_vae():
    global base_vae, checkpoint_info
    base_vae = checkpoint_info = None


def clear_loaded_vae():
    global loaded_vae_file
    loaded_vae_file = None


def resolve_vae(checkpoint_file):
    """Return (file or None, why)."""
    if shared.opts.sd_vae in ("Automatic", "auto", "None"):
        return None, None
    return vae_dict.get(shared.opts.sd_vae), "specified in settings"


def load_vae(model, vae_file=None, vae_source=""):
    global base_vae, checkpoint_info, loaded_vae_file
    from modules import sd_models

    if vae_file:
        if checkpoint_info != model.sd_checkpoint_info:
            base_vae = copy.deepcopy(model.first_stage_model.state_dict())
            checkpoint_info = model.sd_checkpoint_info
        weights = sd_models.read_state_dict(vae_file)
        model.first_stage_model.load_state_dict(weights)
    elif loaded_vae_file:
        if base_vae is not None and checkpoint_info == model.sd_checkpoint_info:
            model.first_stage_model.load_state_dict(base_vae)
        delete_base_vae()
    model.first_stage_model.to(devices.dtype_vae)
    loaded_vae_file = vae_file
    model.base_vae = base_vae
    model.loaded_vae_file = loaded_vae_file


def reload_vae_weights(sd_model=None, vae_file="unspecified"):
    from modules import sd_hijack

    model = sd_model or shared.sd_model
    source = "from function argument"
    if vae_file == "unspecified":
        vae_file, source = resolve_vae(model.sd_checkpoint_info.filename)
    if loaded_vae_file == vae_file:
        return None
    sd_hijack.model_hijack.undo_hijack(model)
    load_vae(model, vae_file, source)
    sd_hijack.model_hijack.hijack(model)
    script_callbacks.model_loaded_callback(model)
    return model
