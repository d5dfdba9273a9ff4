"""Loads a checkpoint into a stock diffusers pipeline, offline and without changing the file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib_automerge.domain import refusals
from lib_automerge.errors import AutomergeError, GenerationError, ModelError
from lib_automerge.generate.devices import is_out_of_memory
from lib_automerge.generate.diffusers_config import write_config
from lib_automerge.merge.readers import Checkpoint
from lib_automerge.merge.sinks import FileSink

_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
}


def components(pipeline: Any) -> dict[str, nn.Module]:
    """Return the pipeline's modules with weights, by attribute name."""
    found = {name: getattr(pipeline, name, None) for name in _COMPONENTS}
    return {name: module for name, module in found.items() if module is not None}


def load_pipeline(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """Return a pipeline on the CPU that holds the checkpoint and shares no memory with its file.

    Raises:
        ModelError: it is not a complete text-to-image checkpoint of SD1, SD2 or SDXL.
        GenerationError: diffusers cannot load it.
    """
    check_complete(checkpoint)
    try:
        with tempfile.TemporaryDirectory(prefix="automerge-") as name:
            folder = Path(name)
            shapes = {
                key: checkpoint.header.tensors[stored].shape
                for key, stored in checkpoint.detection.keys.items()
            }
            config = folder / "config"
            config.mkdir()
            write_config(config, checkpoint.detection.architecture, shapes)
            pipeline = _from_single_file(
                _PIPELINES[checkpoint.detection.architecture],
                _canonical_file(checkpoint, folder),
                config,
                dtype,
            )
            for module in components(pipeline).values():
                # Weights are written in place; and torch takes other kernels, with other last bits,
                # where they may need gradients.
                module.requires_grad_(False)
                for parameter in module.parameters():
                    # A parameter may still be a view of the mapped file: its alignment could then
                    # decide the last bits of images, and the file could not be replaced.
                    parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    except AutomergeError:
        raise
    except Exception as error:
        raise _loading_error(checkpoint.name, error) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def move_pipeline(pipeline: Any, device: torch.device, name: str) -> None:
    """Move the pipeline of the checkpoint `name` to the device.

    Raises:
        GenerationError: it does not fit there.
    """
    try:
        pipeline.to(device)
    except Exception as error:
        raise _loading_error(name, error) from error


def _loading_error(name: str, error: Exception) -> GenerationError:
    if is_out_of_memory(error):
        return GenerationError(
            f"out of memory while loading {name}. Use half precision (dtype fp16), another device, "
            "or close other programs that use it."
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return GenerationError(
        f"diffusers could not load {name}: {reason}. "
        "Use a complete checkpoint in the original layout."
    )


def check_complete(checkpoint: Checkpoint) -> None:
    """Raise ModelError unless images can be made from the checkpoint alone, and from prompts."""
    detection = checkpoint.detection
    reason = refusals.no_images(detection, _PIPELINES)
    if reason:
        raise ModelError(f"{checkpoint.name}: {reason}")
    if any(key.startswith("edm_vpred.") for key in detection.keys):
        raise ModelError(
            f"{checkpoint.name} has a continuous noise schedule (EDM), which this generator lacks. "
            "Pick another checkpoint, or generate with a WebUI."
        )
    for part, present in (
        ("text encoder", detection.has_text_encoder),
        ("VAE", detection.has_vae),
    ):
        if not present:
            raise ModelError(f"{checkpoint.name} has no {part}. Pick a full checkpoint as A.")


def _canonical_file(checkpoint: Checkpoint, folder: Path) -> Path:
    """Return a safetensors file with canonical names: the checkpoint's own if it is one."""
    names = checkpoint.detection.keys
    if checkpoint.path.suffix == ".safetensors" and all(
        key == stored for key, stored in names.items()
    ):
        return checkpoint.path
    tensors = {key: checkpoint.tensor(key) for key in names}
    path = folder / "renamed.safetensors"
    layout = {key: (tensor.dtype, tensor.shape) for key, tensor in tensors.items()}
    with FileSink(path, layout, {}, copied=layout) as sink:
        for key in sink.order:
            sink.put(key, tensors[key])
    return path


def _from_single_file(kind: str, file: Path, config: Path, dtype: torch.dtype) -> Any:
    import diffusers  # takes seconds, and most of the program does not need it

    parts = {"add_watermarker": False} if kind == "StableDiffusionXLPipeline" else {}
    return getattr(diffusers, kind).from_single_file(
        str(file), config=str(config), torch_dtype=dtype, local_files_only=True, **parts
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the advice and progress bars of diffusers and transformers in this context."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity(logging.ERROR)
            library.disable_progress_bar()
        yield
    finally:
        for library, level, bar in zip(libraries, before, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()
