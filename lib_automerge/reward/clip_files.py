"""Reading a CLIP from any of the layouts in which it is published, into one.

Three layouts, told apart by their keys: OpenAI's (a TorchScript program, or its state dict),
open_clip's (the same keys; HPSv2 wraps them into a checkpoint) and Hugging Face's, which is the one
that `lib_automerge.reward.clip.Clip` has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from lib_automerge.errors import RewardError
from lib_automerge.reward.torchscript import is_program, read_program
from lib_automerge.reward.weights import read_tensors

# Constants that some files hold beside the weights, and that the network does not need.
UNUSED = (
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
)

_OPEN_CLIP_MARK = "visual.class_embedding"
_HUGGING_FACE_MARK = "vision_model.embeddings.class_embedding"

# From open_clip's name to Hugging Face's: whole keys, then what a block's keys begin with, then
# what follows the block's number.
_KEYS = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_TRANSPOSED = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}
_BLOCKS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_JOINED = "attn.in_proj_"


def read_clip(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a CLIP, named and shaped as `Clip` wants them.

    Args:
        path: An existing file: `.safetensors`, an archive by `torch.save`, or OpenAI's program.

    Returns:
        Tensors on the CPU, mapped from the file: change neither them nor the file. What the layouts
        do not know keeps its name, so that `fill` can name it.

    Raises:
        RewardError: The file is damaged, could run code, or is no CLIP.
    """
    read = read_program(path) if is_program(path) else read_tensors(path, under="state_dict")
    tensors = {key.removeprefix("module."): tensor for key, tensor in read.items()}
    if _HUGGING_FACE_MARK in tensors:
        return tensors
    if _OPEN_CLIP_MARK in tensors:
        return dict(_renamed(tensors))
    raise RewardError(
        f"weights file is not a CLIP: {path}: it has neither {_HUGGING_FACE_MARK!r} nor "
        f"{_OPEN_CLIP_MARK!r}. Use the published file of this reward."
    )


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in tensors.items():
        if key in _TRANSPOSED and tensor.ndim == 2:
            yield _TRANSPOSED[key], tensor.T
            continue
        before = next((start for start in _BLOCKS if key.startswith(start)), None)
        if before is None:
            yield _KEYS.get(key, key), tensor
            continue
        number, _, name = key.removeprefix(before).partition(".")
        block = f"{_BLOCKS[before]}{number}."
        if name.startswith(_JOINED):
            kind = name.removeprefix(_JOINED)
            for part, rows in zip("qkv", tensor.chunk(3), strict=False):
                yield f"{block}self_attn.{part}_proj.{kind}", rows
        else:
            module, _, kind = name.rpartition(".")
            yield block + _IN_BLOCK.get(module, module) + f".{kind}", tensor
