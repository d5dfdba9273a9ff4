"""The process's globals. `sd_model` is a property: asking for it loads the model once."""

import sys
from types import ModuleType

from modules.options import OptionHTML, OptionInfo, Options, options_section  # noqa: F401
from modules.paths_internal import (  # noqa: F401
    data_path,
    models_path,
    script_path,
    sd_default_config,
)
from modules.shared_cmd_options import cmd_opts
from modules.shared_options import options_templates, restricted_opts
from modules.shared_state import State
from modules.styles import StyleDatabase

config_filename = cmd_opts.ui_settings_file
device = "cpu"
weight_load_location = "cpu"
parallel_processing_allowed = True
xformers_available = False
demo = None
hypernetworks: dict[str, str] = {}
loaded_hypernetworks: list[object] = []
tab_names: list[str] = []

opts = Options(options_templates, restricted_opts)
opts.load(config_filename)
state = State()
prompt_styles = StyleDatabase([f"{data_path}/styles.csv"])


class Upscaler:
    def __init__(self, name):
        self.name = name


sd_upscalers = [Upscaler(name) for name in ("None", "Lanczos", "Nearest")]
latent_upscale_default_mode = "Latent"
latent_upscale_modes = {
    "Latent": {"mode": "bilinear", "antialias": False},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
    "Latent (nearest)": {"mode": "nearest", "antialias": False},
    "Latent (nearest-exact)": {"mode": "nearest-exact", "antialias": False},
}


class TotalProgress:
    def updateTotal(self, total): ...
    def update(self): ...
    def clear(self): ...


total_tqdm = TotalProgress()


class _Shared(ModuleType):
    @property
    def sd_model(self):
        from modules import sd_models

        return sd_models.model_data.get_sd_model()

    @sd_model.setter
    def sd_model(self, value):
        from modules import sd_models

        sd_models.model_data.set_sd_model(value)


sys.modules[__name__].__class__ = _Shared


def list_checkpoint_tiles(use_short=False):
    from modules import sd_models

    return sd_models.checkpoint_tiles(use_short)


def refresh_checkpoints():
    from modules import sd_models

    return sd_models.list_models()
