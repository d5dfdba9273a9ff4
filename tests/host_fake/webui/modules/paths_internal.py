"""Folders of the process."""

import os

from modules.shared_cmd_options import cmd_opts

script_path = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
data_path = cmd_opts.data_dir
models_path = os.path.join(data_path, "models")
extensions_dir = os.path.join(data_path, "extensions")
extensions_builtin_dir = os.path.join(script_path, "extensions-builtin")
default_output_dir = os.path.join(data_path, "outputs")
sd_configs_path = os.path.join(script_path, "configs")
sd_default_config = os.path.join(sd_configs_path, "v1-inference.yaml")
