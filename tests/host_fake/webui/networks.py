"""The built-in Lora extension: changes weights in place when a layer runs.

A layer that runs while networks are active first copies its weights away, and keeps that copy for
as long as the model is loaded: whenever the set of networks changes it starts from the copy, never
from the weights that it finds.
"""

from pathlib import Path

import torch
from modules import extra_networks, script_callbacks, sd_models, shared

loaded_networks = []
available_networks = {}
available_network_aliases = {}


class Network:
    def __init__(self, name, filename):
        self.name = name
        self.filename = filename
        self.te_multiplier = 1.0
        self.unet_multiplier = 1.0
        self.dyn_dim = 1.0
        self.modules = {}
        for key, tensor in sd_models.read_state_dict(filename).items():
            layer, _, part = key.partition(".")
            layer = layer.replace("lora_unet", "diffusion_model")
            layer = layer.replace("lora_te_text_model", "transformer_text_model")
            self.modules.setdefault(layer, {})[part] = tensor.float()

    def change(self, layer):
        """Return what this network adds to the layer's weight, or None."""
        parts = self.modules.get(layer)
        if parts is None:
            return None
        down = parts["lora_down.weight"].flatten(1)
        scale = parts["alpha"].item() / down.shape[0] if "alpha" in parts else 1.0
        text = "transformer" in layer[:20]
        factor = scale * (self.te_multiplier if text else self.unet_multiplier)
        return factor * parts["lora_up.weight"].flatten(1) @ down


class ExtraNetworkLora(extra_networks.ExtraNetwork):
    def __init__(self):
        super().__init__("lora")

    def activate(self, p, params_list):
        loaded_networks.clear()
        for params in params_list:
            filename = available_networks.get(params.positional[0])
            if filename is None:
                p.comment(f"Lora not found: {params.positional[0]}")
                continue
            network = Network(params.positional[0], filename)
            text = float(params.positional[1]) if len(params.positional) > 1 else 1.0
            network.te_multiplier = float(params.named.get("te", text))
            unet = float(params.positional[2]) if len(params.positional) > 2 else text
            network.unet_multiplier = float(params.named.get("unet", unet))
            loaded_networks.append(network)

    def deactivate(self, p): ...


def list_available_networks():
    available_networks.clear()
    for path in sorted(Path(shared.cmd_opts.lora_dir).glob("*.safetensors")):
        available_networks[path.stem] = str(path)
    available_network_aliases.clear()
    available_network_aliases.update(available_networks)


def assign_network_names_to_compvis_modules(sd_model):
    mapping = {}
    if hasattr(sd_model, "conditioner"):
        roots = [(f"{i}_", e.wrapped) for i, e in enumerate(sd_model.conditioner.embedders)]
    else:
        roots = [("", sd_model.cond_stage_model.wrapped)]
    for prefix, root in [*roots, ("", sd_model.model)]:
        for name, module in root.named_modules():
            module.network_layer_name = prefix + name.replace(".", "_")
            mapping[module.network_layer_name] = module
    sd_model.network_layer_mapping = mapping


def _copies(layer):
    if isinstance(layer, torch.nn.MultiheadAttention):
        weights = (layer.in_proj_weight, layer.out_proj.weight)
        return tuple(w.detach().clone() for w in weights), layer.out_proj.bias
    return layer.weight.detach().clone(), layer.bias


@torch.no_grad()
def network_restore_weights_from_backup(layer):
    weights = getattr(layer, "network_weights_backup", None)
    bias = getattr(layer, "network_bias_backup", None)
    if weights is None and bias is None:
        return
    attention = isinstance(layer, torch.nn.MultiheadAttention)
    if attention:
        layer.in_proj_weight.copy_(weights[0])
        layer.out_proj.weight.copy_(weights[1])
    else:
        layer.weight.copy_(weights)
    owner = layer.out_proj if attention else layer
    if bias is None:
        owner.bias = None
    else:
        owner.bias.copy_(bias)


@torch.no_grad()
def network_apply_weights(layer):
    if getattr(layer, "network_layer_name", None) is None or isinstance(layer, torch.nn.Embedding):
        return
    current = getattr(layer, "network_current_names", ())
    wanted = tuple((n.name, n.te_multiplier, n.unet_multiplier, n.dyn_dim) for n in loaded_networks)
    if wanted and getattr(layer, "network_weights_backup", None) is None:
        if current:
            raise RuntimeError(f"{layer.network_layer_name} - no backup weights found")
        layer.network_weights_backup, bias = _copies(layer)
        layer.network_bias_backup = None if bias is None else bias.detach().clone()
    if current == wanted:
        return
    network_restore_weights_from_backup(layer)
    for network in loaded_networks:
        change = network.change(layer.network_layer_name)
        if change is not None:
            kept = getattr(layer, "fp16_weight", None)
            start = layer.weight if kept is None else kept
            layer.weight.copy_((start.float() + change.view(start.shape)).to(layer.weight.dtype))
    layer.network_current_names = wanted


extra_network_lora = ExtraNetworkLora()
script_callbacks.on_model_loaded(assign_network_names_to_compvis_modules)
extra_networks.register_extra_network(extra_network_lora)
list_available_networks()
