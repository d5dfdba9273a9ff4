"""UNets of other engines, which take the place of the model's own."""

from torch import nn

from modules import script_callbacks, shared

unet_options = []
current_unet_option = None
current_unet = None


class SdUnetOption:
    model_name = None
    label = None

    def create_unet(self):
        raise NotImplementedError


class SdUnet(nn.Module):
    def activate(self): ...

    def deactivate(self): ...


def list_unets():
    unet_options[:] = script_callbacks.list_unets_callback()


def get_unet_option(option=None):
    wanted = option or shared.opts.sd_unet
    if wanted == "Automatic":
        name = shared.sd_model.sd_checkpoint_info.model_name
        return next((x for x in unet_options if x.model_name == name), None)
    return next((x for x in unet_options if x.label == wanted), None)


def apply_unet(option=None):
    global current_unet, current_unet_option
    wanted = get_unet_option(option)
    if wanted == current_unet_option:
        return
    if current_unet is not None:
        current_unet.deactivate()
    current_unet_option = wanted
    current_unet = None
    if wanted is not None:
        current_unet = wanted.create_unet()
        current_unet.option = wanted
        current_unet.activate()
