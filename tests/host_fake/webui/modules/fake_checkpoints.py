"""Checkpoint files: their names, how they are found, and what is in them. Part of `sd_models`."""

import re
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file

from modules import errors, hashes, paths, shared

model_path = str(Path(paths.models_path).absolute() / "Stable-diffusion")
checkpoints_list = {}
checkpoint_aliases = {}
loads: list[str] = []
"""Files read so far: of the fake alone."""


class CheckpointInfo:
    def __init__(self, filename):
        self.filename = filename
        self.is_safetensors = filename.lower().endswith(".safetensors")
        path = Path(filename).absolute()
        below = path.is_relative_to(model_path)
        self.name = str(path.relative_to(model_path)) if below else path.name
        self.name_for_extra = Path(filename).stem
        self.model_name = self.name.replace("/", "_").rpartition(".")[0]
        self.metadata = {}
        if self.is_safetensors:
            try:
                with safe_open(filename, "pt") as file:
                    self.metadata = file.metadata() or {}
            except Exception as error:
                errors.display(error, f"reading metadata for {filename}")
        self.hash = "e3b0c442"  # of 64 kB from the second megabyte on: the same for tiny files
        self.sha256 = hashes.sha256_from_cache(filename, f"checkpoint/{self.name}")
        self.ids = [self.hash, self.model_name, self.name, self.name_for_extra]
        self._name_by_hash()

    def _name_by_hash(self):
        self.shorthash = self.sha256[:10] if self.sha256 else None
        ending = f" [{self.shorthash}]" if self.shorthash else ""
        self.title = self.name + ending
        self.short_title = self.name_for_extra + ending
        self.ids += [self.title, self.short_title]
        if self.sha256:
            self.ids += [self.shorthash, self.sha256]

    def register(self):
        checkpoints_list[self.title] = self
        for name in self.ids:
            checkpoint_aliases[name] = self

    def calculate_shorthash(self):
        self.sha256 = hashes.sha256(self.filename, f"checkpoint/{self.name}")
        if self.shorthash != self.sha256[:10]:
            before = self.title
            self._name_by_hash()
            renamed = [
                (self.title if title == before else title, info)
                for title, info in checkpoints_list.items()
            ]
            checkpoints_list.clear()
            checkpoints_list.update(renamed)
            self.register()
        return self.shorthash


def list_models():
    checkpoints_list.clear()
    checkpoint_aliases.clear()
    files = [p for p in Path(model_path).rglob("*") if p.suffix in (".safetensors", ".ckpt")]
    for path in sorted(files, key=lambda p: str(p).lower()):
        if not path.name.endswith((".vae.safetensors", ".vae.ckpt")):
            CheckpointInfo(str(path)).register()


def checkpoint_tiles(use_short=False):
    return [x.short_title if use_short else x.title for x in checkpoints_list.values()]


def get_closet_checkpoint_match(search_string):
    if not search_string:
        return None
    if search_string in checkpoint_aliases:
        return checkpoint_aliases[search_string]
    for text in (search_string, re.sub(r"\s*\[[^]]+]\s*$", "", search_string)):
        found = [info for info in checkpoints_list.values() if text in info.title]
        if found:
            return min(found, key=lambda info: len(info.title))
    return None


def select_checkpoint():
    info = checkpoint_aliases.get(shared.opts.sd_model_checkpoint)
    if info is not None:
        return info
    if not checkpoints_list:
        raise FileNotFoundError(f"No checkpoints found in {model_path}.")
    return next(iter(checkpoints_list.values()))


_OLD_TEXT_ENCODER = re.compile(
    r"^cond_stage_model\.transformer\.(embeddings|encoder|final_layer_norm)\."
)


def read_state_dict(checkpoint_file, print_global_state=False, map_location=None):
    loads.append(checkpoint_file)
    state = load_file(checkpoint_file)
    renamed = r"cond_stage_model.transformer.text_model.\1."
    return {_OLD_TEXT_ENCODER.sub(renamed, key): tensor for key, tensor in state.items()}
