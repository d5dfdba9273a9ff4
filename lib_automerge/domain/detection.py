"""What a checkpoint is, told from the names, shapes and number types in its header alone.

The family comes from the topology of the denoiser (UNet or transformer), never from the text
encoders or the file's name, so that files that hold only a denoiser are recognised too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import msgspec

from lib_automerge.domain import architectures, refusals
from lib_automerge.domain.architectures import Architecture, Prediction
from lib_automerge.errors import ModelError

FLOATS = {"F8_E4M3": 1, "F8_E5M2": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}
"""Number types that can be merged -> bytes per element."""

SMALL_FLOATS = frozenset({"F8_E4M3", "F8_E5M2"})
"""Number types of 8 bits: stored to save space, too coarse to generate or to train with."""

UNET_PREFIXES = (
    "model.diffusion_model.",
    "model.diffusion_model.net.",
    "diffusion_model.",
    "net.",
    "model.model.",
    "model.",
    "transformer.",
    "unet.",
    "",
)
"""How the keys of the denoiser start in the files of various tools; most common first."""

_SIGNATURE = ("input_blocks.0.0.weight", "time_embed.0.weight", "middle_block.0.in_layers.0.weight")

EMA_COUNTERS = frozenset({"model_ema.decay", "model_ema.num_updates"})

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
            `depth`, `fill` and others; such models are merged with their like only.
        edition: which of two published kinds with nearly the same weights it is, such as `dev` or
            `schnell` of Flux.1; None if the family has no such kinds.
        prediction: what the denoiser predicts, as far as the file tells: SD2 models do not say.
        standard_size: False for models of the same topology with other widths.
        has_text_encoder: whether any text encoder is in the file.
        has_vae: whether the image autoencoder is in the file.
        has_ema: whether the file carries a second, averaged copy of the denoiser.
        dtype: the safetensors number type of most parameters.
        unet_prefix: how the keys of the denoiser start in the file; "" if they have no prefix.
        aliases: prefixes of the file that were renamed to the canonical ones.
        keys: canonical key -> key in the file, for every key of the file.
        strays: keys that do not belong to the model; they are copied from model A.
    """

    architecture: str
    variant: str | None
    edition: str | None
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
    prefix, architecture = _family(tensors)
    keys, aliases = _canonical(tensors, architecture, prefix)
    blocks = {key: architecture.block_of(key) for key in keys}
    shapes = {key: tensors[keys[key]].shape for key in keys}
    standard = _check_denoiser(shapes, architecture)
    check_floats({key: tensors[keys[key]].dtype for key in keys if blocks[key]})
    present = set(blocks.values())
    variant = _variant(shapes, architecture)
    return Detection(
        architecture=architecture.name,
        variant=variant,
        edition=_edition(shapes, architecture),
        prediction=_prediction(header, architecture, variant),
        standard_size=standard,
        has_text_encoder=not present.isdisjoint(architecture.text_encoders),
        has_vae=not present.isdisjoint(architecture.vae),
        has_ema=any(key.startswith("model_ema.") and key not in EMA_COUNTERS for key in tensors),
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


def _family(tensors: Mapping[str, TensorInfo]) -> tuple[str, Architecture]:
    """Return the prefix of the denoiser's keys, and the only family that can have such layers.

    A few keys tell it here; `_check_denoiser` looks at all of them.
    """
    transformers = [a for a in map(architectures.get, architectures.names()) if a.signature]
    for prefix in UNET_PREFIXES:
        if all(prefix + key in tensors for key in _SIGNATURE):
            return prefix, architectures.get(_unet_family(tensors, prefix))
        for architecture in transformers:
            if all(
                (prefix + key.removeprefix("!") in tensors) is not key.startswith("!")
                for key in architecture.signature
            ):
                return prefix, architecture
    raise ModelError(refusals.no_denoiser(tensors))


def _unet_family(tensors: Mapping[str, TensorInfo], prefix: str) -> str:
    """Return the only architecture whose UNet can have these layers."""

    def shape(key: str) -> tuple[int, ...]:
        info = tensors.get(prefix + key)
        return info.shape if info else ()

    if any(".time_stack." in key for key in tensors):
        raise ModelError("it is a video model. Use a checkpoint that makes images.")
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
        # Without a prefix any name would do: only known ones are taken for the denoiser's.
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


def _check_denoiser(shapes: Mapping[str, tuple[int, ...]], architecture: Architecture) -> bool:
    """Check that the denoiser has the weights of its family; return if all sizes are usual.

    The number of input channels is left to the variant.
    """
    prefix, name = architecture.unet_prefix, architecture.denoiser
    expected = {k: s for k, s in architecture.reference_keys.items() if k.startswith(prefix)}
    found = {key: shape for key, shape in shapes.items() if key.startswith(prefix)}
    missing = [key for key in expected if key not in found and not architecture.is_optional(key)]
    if missing:
        raise ModelError(
            f"its {name} is not that of {architecture.label}: {len(missing)} of {len(expected)} "
            f"weights are missing, first {missing[0]!r}. "
            "Use a complete model, neither pruned nor distilled to fewer layers."
        )
    foreign = next(
        (key for key in found if key not in expected and not architecture.is_optional(key)), None
    )
    if foreign is not None:
        raise ModelError(
            f"its {name} has layers that {architecture.label} has not: {foreign!r}. "
            "Use a plain checkpoint without built-in extensions."
        )
    expected = {key: shape for key, shape in expected.items() if key in found}
    uneven = next((key for key in expected if len(expected[key]) != len(found[key])), None)
    if uneven is not None:
        raise ModelError(
            f"its weight {uneven!r} has the shape {_times(found[uneven])}, which "
            f"{architecture.label} cannot have: it is {_times(expected[uneven])} there. "
            "Use a checkpoint in the original layout."
        )
    varying = architecture.varying_keys
    return all(found[key] == shape for key, shape in expected.items() if key not in varying)


def check_floats(dtypes: Mapping[str, str]) -> None:
    """Raise ModelError if the weights, key -> number type, are not all floating point numbers."""
    for key, dtype in dtypes.items():
        if dtype not in FLOATS:
            raise ModelError(
                f"its weights are not floating point numbers: {key!r} is {dtype}. "
                "Use the fp16, bf16 or fp32 version of this model."
            )


def _variant(shapes: Mapping[str, tuple[int, ...]], architecture: Architecture) -> str | None:
    if "edm_mean" in shapes and "edm_std" in shapes:
        return "playground-2.5"
    inputs = architecture.inputs
    if inputs is None:
        return None
    channels = shapes[architecture.unet_prefix + inputs.key][1]
    if channels == inputs.plain:
        return None
    return inputs.kinds.get(str(channels), f"{channels} input channels")


def _edition(shapes: Mapping[str, tuple[int, ...]], architecture: Architecture) -> str | None:
    editions = architecture.editions
    if editions is None:
        return None
    there = architecture.unet_prefix + editions.key in shapes
    return editions.present if there else editions.absent


def _prediction(header: Header, architecture: Architecture, variant: str | None) -> Prediction:
    """Markers in the file first, then its metadata, then what all models of the family do."""
    if variant == "playground-2.5":
        return "edm"
    if any(key == "v_pred" or key.startswith("edm_vpred.") for key in header.tensors):
        return "v"
    told = header.metadata.get("modelspec.prediction_type", "").lower()
    if told.startswith("v"):
        return "v"
    if told.startswith("eps"):
        return "epsilon"
    if architecture.prediction == "unknown":
        return _SD2_KINDS.get(variant or "", "unknown")
    return architecture.prediction


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
    """Compare trained weights; return a sentence for each part that is not in both models."""
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
    needed = sorted(
        key
        for key in single
        if key.startswith(architecture.unet_prefix) and not architecture.is_optional(key)
    )
    if needed:
        holder = name_a if needed[0] in trained_a else name_b
        raise ModelError(
            f"models with different layers: only {holder} has {needed[0]!r} "
            f"({len(needed)} such weights). Choose complete models of one family."
        )
    notes = []
    parts = (
        (architecture.parameters, architecture.denoiser),
        (architecture.text_encoders, "text encoder"),
        (architecture.vae, "VAE"),
    )
    for blocks, part in parts:
        for keys, name in ((trained_a - trained_b, name_b), (trained_b - trained_a, name_a)):
            lost = sum(architecture.block_of(key) in blocks for key in keys)
            if lost:
                result = "these are kept from" if name == name_b else "the result is without, as"
                notes.append(f"{name} lacks {lost} weights of the {part}: {result} {name_a}.")
    return notes


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
