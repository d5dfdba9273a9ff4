"""What a checkpoint is, told from the names, shapes and number types in its header alone.

The family comes from the topology of the UNet, never from the text encoders or the file's name, so
that files that hold only a UNet are recognised too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import msgspec

from lib_automerge.domain import architectures, refusals
from lib_automerge.domain.architectures import Architecture
from lib_automerge.errors import ModelError

FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
"""Number types that can be merged -> bytes per element."""

UNET_PREFIXES = (
    "model.diffusion_model.",
    "diffusion_model.",
    "model.model.",
    "model.",
    "unet.",
    "",
)
"""How the keys of the UNet start in the files of various tools; most common first."""

_SIGNATURE = ("input_blocks.0.0.weight", "time_embed.0.weight", "middle_block.0.in_layers.0.weight")
_VARIANTS = {4: None, 9: "inpainting", 8: "instruct-pix2pix", 5: "depth", 7: "upscaler"}

Prediction = Literal["epsilon", "v", "edm", "unknown"]

# The plain SD2 models exist in both types with the same shapes.
_SD2_KINDS: dict[str, Prediction] = {"inpainting": "epsilon", "depth": "epsilon", "upscaler": "v"}


class TensorInfo(msgspec.Struct, frozen=True):
    """One entry of a header: safetensors number type, shape, and byte range in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Header(msgspec.Struct, frozen=True):
    """Names, shapes and number types of a file, with its string metadata."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint is.

    Attributes:
        architecture: a name of `domain.architectures`.
        variant: None for the plain text-to-image model, else `inpainting`, `instruct-pix2pix`,
            `depth`, `upscaler` or `playground-2.5`; such models are merged with their like only.
        prediction: what the UNet predicts, as far as the file tells: SD2 models do not say.
        standard_size: False for models of the same topology with other widths.
        has_text_encoder: whether any text encoder is in the file.
        has_vae: whether the image autoencoder is in the file.
        has_ema: whether the file carries a second, averaged copy of the UNet.
        dtype: the safetensors number type of most parameters.
        unet_prefix: how the keys of the UNet start in the file; "" if they have no prefix.
        aliases: prefixes of the file that were renamed to the canonical ones.
        keys: canonical key -> key in the file, for every key of the file.
        strays: keys that do not belong to the model; they are copied from model A.
    """

    architecture: str
    variant: str | None
    prediction: Prediction
    standard_size: bool
    has_text_encoder: bool
    has_vae: bool
    has_ema: bool
    dtype: str
    unet_prefix: str
    aliases: tuple[str, ...]
    keys: Mapping[str, str]
    strays: tuple[str, ...]


def detect(header: Header) -> Detection:
    """Return what the file with this header is.

    Error texts say "it" of the file; a reader puts the file's name in front.

    Raises:
        ModelError: not a complete checkpoint of a known family, quantised, or with weights that
            the family does not have.
    """
    tensors = header.tensors
    reason = refusals.quantised(tensors, (info.dtype for info in tensors.values()))
    if reason:
        raise ModelError(reason)
    prefix = _unet_prefix(tensors)
    architecture = architectures.get(_family(tensors, prefix))
    keys, aliases = _canonical(tensors, architecture, prefix)
    blocks = {key: architecture.block_of(key) for key in keys}
    shapes = {key: tensors[keys[key]].shape for key in keys}
    standard = _check_unet(shapes, architecture)
    _check_floats({key: tensors[keys[key]].dtype for key in keys if blocks[key]})
    present = set(blocks.values())
    variant = _variant(shapes[architecture.unet_prefix + _SIGNATURE[0]][1], tensors)
    return Detection(
        architecture=architecture.name,
        variant=variant,
        prediction=_prediction(header, architecture, variant),
        standard_size=standard,
        has_text_encoder=not present.isdisjoint(architecture.text_encoders),
        has_vae=not present.isdisjoint(architecture.vae),
        has_ema=any(key.startswith("model_ema.diffusion_model") for key in tensors),
        dtype=_main_dtype(tensors),
        unet_prefix=prefix,
        aliases=aliases,
        keys=keys,
        strays=tuple(
            sorted(key for key in keys if not blocks[key] and not architecture.is_copied(key))
        ),
    )


def check_mergeable(models: Mapping[str, tuple[Header, Detection]]) -> tuple[str, ...]:
    """Check that models fit together and return what the user should know about them.

    Args:
        models: role or name -> model; the first is A, whose other keys a merge keeps.

    Returns:
        One sentence for each difference that is tolerated: components that only one model has, and
        prediction types that no file tells. Empty if there is none.

    Raises:
        ModelError: the models differ in family, variant, prediction type, or in the names or
            shapes of their weights.
    """
    (name_a, (header_a, a)), *others = models.items()
    notes: list[str] = []
    for name_b, (header_b, b) in others:
        pair = f"{name_a} and {name_b}"
        _check_kinds((name_a, a), (name_b, b))
        if a.prediction != b.prediction:
            notes.append(
                f"one of {pair} does not tell its prediction type: {a.prediction} and "
                f"{b.prediction}. Make sure that both are of the same type."
            )
        notes += _check_keys((name_a, header_a, a), (name_b, header_b, b))
    return tuple(notes)


def _unet_prefix(tensors: Mapping[str, TensorInfo]) -> str:
    for prefix in UNET_PREFIXES:
        if all(prefix + key in tensors for key in _SIGNATURE):
            return prefix
    raise ModelError(refusals.no_denoiser(tensors))


def _family(tensors: Mapping[str, TensorInfo], prefix: str) -> str:
    """Return the only architecture whose UNet can have these layers; `_check_unet` decides."""

    def shape(key: str) -> tuple[int, ...]:
        info = tensors.get(prefix + key)
        return info.shape if info else ()

    if any(".time_stack." in key for key in tensors):
        raise ModelError("it is a video model. Use a checkpoint of Stable Diffusion 1, 2 or XL.")
    classes = shape("label_emb.0.0.weight")
    if not classes:
        linear = len(shape("input_blocks.1.1.proj_in.weight")) == 2
        return "sd2" if linear else "sd1"
    if not shape("input_blocks.10.0.in_layers.0.weight"):
        if classes[-1] == 5632:
            raise ModelError("it is a Kolors model. Use a checkpoint of Stable Diffusion XL.")
        return "sdxl"
    if shape("input_blocks.4.1.transformer_blocks.1.attn1.to_q.weight"):
        return "sdxl_refiner"
    raise ModelError("it is an unCLIP model of Stable Diffusion 2. Use a plain SD 2 checkpoint.")


def _canonical(
    tensors: Mapping[str, TensorInfo], architecture: Architecture, prefix: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return canonical key -> key in the file, and the alias prefixes that the file uses."""
    keys: dict[str, str] = {}
    used: set[str] = set()
    for key in tensors:
        name = key
        rest = architecture.unet_prefix + key.removeprefix(prefix)
        alias = _alias(key, architecture)
        # Without a prefix any name would do, so that only known ones are taken for the UNet's.
        if key.startswith(prefix) and (prefix or architecture.has_block(rest)):
            name = rest
        elif alias and alias[1] + key.removeprefix(alias[0]) not in tensors:
            name = alias[1] + key.removeprefix(alias[0])
            used.add(alias[0])
        if name in keys:
            raise ModelError(
                f"it holds the same weight twice: {keys[name]!r} and {key!r}. "
                "Use a file in which every weight has one name."
            )
        keys[name] = key
    return keys, tuple(sorted(used))


def _alias(key: str, architecture: Architecture) -> tuple[str, str] | None:
    """Return (prefix in the file, canonical prefix) if the key is named in another way."""
    for found, canonical in architecture.aliases.items():
        if key.startswith(found) and not key.startswith(canonical):
            return found, canonical
    return None


def _check_unet(shapes: Mapping[str, tuple[int, ...]], architecture: Architecture) -> bool:
    """Check that the UNet has exactly the weights of its family; return if all sizes are usual.

    The number of input channels is left to the variant.
    """
    prefix = architecture.unet_prefix
    expected = {k: s for k, s in architecture.reference_keys.items() if k.startswith(prefix)}
    found = {key: shape for key, shape in shapes.items() if key.startswith(prefix)}
    missing = [key for key in expected if key not in found]
    if missing:
        raise ModelError(
            f"its UNet is not that of {architecture.label}: {len(missing)} of {len(expected)} "
            f"weights are missing, first {missing[0]!r}. "
            "Use a complete model, neither pruned nor distilled to fewer layers."
        )
    foreign = next((key for key in found if key not in expected), None)
    if foreign is not None:
        raise ModelError(
            f"its UNet has layers that {architecture.label} has not: {foreign!r}. "
            "Use a plain checkpoint without built-in extensions."
        )
    uneven = next((key for key in expected if len(expected[key]) != len(found[key])), None)
    if uneven is not None:
        raise ModelError(
            f"its weight {uneven!r} has the shape {_times(found[uneven])}, which "
            f"{architecture.label} cannot have: it is {_times(expected[uneven])} there. "
            "Use a checkpoint in the original layout."
        )
    first = prefix + _SIGNATURE[0]
    return all(found[key] == shape for key, shape in expected.items() if key != first)


def _check_floats(dtypes: Mapping[str, str]) -> None:
    for key, dtype in dtypes.items():
        if dtype not in FLOATS:
            raise ModelError(
                f"its weights are not floating point numbers: {key!r} is {dtype}. "
                "Use the fp16, bf16 or fp32 version of this model."
            )


def _variant(input_channels: int, tensors: Mapping[str, TensorInfo]) -> str | None:
    if "edm_mean" in tensors and "edm_std" in tensors:
        return "playground-2.5"
    return _VARIANTS.get(input_channels, f"{input_channels} input channels")


def _prediction(header: Header, architecture: Architecture, variant: str | None) -> Prediction:
    """Markers in the file first, then its metadata, then what all models of the family do."""
    if variant == "playground-2.5":
        return "edm"
    if any(key == "v_pred" or key.startswith("edm_vpred.") for key in header.tensors):
        return "v"
    told = header.metadata.get("modelspec.prediction_type", "").lower()
    if told.startswith("v"):
        return "v"
    if told.startswith("eps") or architecture.name != "sd2":
        return "epsilon"
    return _SD2_KINDS.get(variant or "", "unknown")


def _main_dtype(tensors: Mapping[str, TensorInfo]) -> str:
    elements: Counter[str] = Counter()
    for info in tensors.values():
        elements[info.dtype] += math.prod(info.shape)
    return elements.most_common(1)[0][0]


def _check_kinds(model_a: tuple[str, Detection], model_b: tuple[str, Detection]) -> None:
    (name_a, a), (name_b, b) = model_a, model_b
    if a.architecture != b.architecture:
        labels = [architectures.get(model.architecture).label for model in (a, b)]
        raise ModelError(
            f"models of different families: {name_a} is {labels[0]}, {name_b} is {labels[1]}. "
            "Choose models of one family."
        )
    if a.variant != b.variant:
        kinds = [model.variant or "a plain text-to-image model" for model in (a, b)]
        raise ModelError(
            f"models of different kinds: {name_a} is {kinds[0]}, {name_b} is {kinds[1]}. "
            "Choose models of one kind."
        )
    known = {a.prediction, b.prediction} - {"unknown"}
    if len(known) > 1:
        raise ModelError(
            f"models with different prediction types: {name_a} predicts {a.prediction}, "
            f"{name_b} predicts {b.prediction}. Choose models of one type."
        )


def _check_keys(
    model_a: tuple[str, Header, Detection], model_b: tuple[str, Header, Detection]
) -> list[str]:
    """Compare trained weights; return a sentence for each component that is not in both models."""
    (name_a, header_a, a), (name_b, header_b, b) = model_a, model_b
    architecture = architectures.get(a.architecture)
    trained_a, trained_b = (
        {key for key in model.keys if architecture.block_of(key)} for model in (a, b)
    )
    for key in sorted(trained_a & trained_b):
        shape_a = header_a.tensors[a.keys[key]].shape
        shape_b = header_b.tensors[b.keys[key]].shape
        if shape_a != shape_b:
            raise ModelError(
                f"models of different sizes: {key!r} is {_times(shape_a)} in {name_a} and "
                f"{_times(shape_b)} in {name_b}. Choose models of one size."
            )
    single = trained_a ^ trained_b
    unet = sorted(key for key in single if key.startswith(architecture.unet_prefix))
    if unet:
        holder = name_a if unet[0] in trained_a else name_b
        raise ModelError(
            f"models with different layers: only {holder} has {unet[0]!r} "
            f"({len(unet)} such weights). Choose complete models of one family."
        )
    notes = []
    for blocks, part in ((architecture.text_encoders, "text encoder"), (architecture.vae, "VAE")):
        for keys, name in ((trained_a - trained_b, name_b), (trained_b - trained_a, name_a)):
            lost = sum(architecture.block_of(key) in blocks for key in keys)
            if lost:
                result = "these are kept from" if name == name_b else "the result is without, as"
                notes.append(f"{name} lacks {lost} weights of the {part}: {result} {name_a}.")
    return notes


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
