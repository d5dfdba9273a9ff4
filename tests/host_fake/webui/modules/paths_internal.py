"""Folders of the process."""

from pathlib import Path

from modules.shared_cmd_options import cmd_opts

script_path = str(Path(__file__).resolve().parents[1])
data_path = cmd_opts.data_dir
models_path = str(Path(data_path) / "models")
extensions_dir = str(Path(data_path) / "extensions")
extensions_builtin_dir = str(Path(script_path) / "extensions-builtin")
default_output_dir = str(Path(data_path) / "outputs")
sd_configs_path = str(Path(script_path) / "configs")
sd_default_config = str(Path(sd_configs_path) / "v1-inference.yaml")
