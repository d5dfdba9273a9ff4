"""Record what the reference packages compute, for tests to compare with: golden/clip.json.

Not a test, and not run by any: it needs packages that nothing else here needs. In an environment of
its own with torch, torchvision of the same build, transformers >= 5, open_clip_torch and ftfy:

    python -m tests.reward.record_goldens

What is recorded comes from those packages alone: their tokenizers, their preprocessing, their
networks filled with the tensors of tests/reward/tiny_clip.py. Of this project only those tensors
and the sizes are used. Where two packages compute the same, they must agree to 1e-5.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import open_clip
import torch
import transformers
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

import lib_automerge
from lib_automerge.reward.clip import ClipSizes
from tests.contracts.reward import sample_images
from tests.reward.tiny_clip import (
    TINY_LAION,
    TINY_OPENAI,
    TINY_SIGLIP,
    as_open_clip,
    random_encoder,
    random_head,
)

GOLDEN = Path(__file__).parent / "golden" / "clip.json"
TOKENIZER = Path(lib_automerge.__file__).parent / "data" / "clip_tokenizer"
PROMPTS = (
    "a cat",
    "",
    "masterpiece, (best quality:1.2), [[lowres]], 1girl, naïve café — 東京タワー, " * 5,
    "“It’s $5 &amp; 50% off!!”  ﬁne Ｆｕｌｌ width 😀❤️",
    "DON'T   panic…\n\tWE'LL see, ½ of x² 3000",
)
TEXTS = (
    *PROMPTS,
    "<lora:detail:0.8> BREAK (a:1.2) AND [b|c] {d} <b>bold</b>",
    "électroluminescence ÅNGSTRÖM straße İstanbul ΣΊΣΥΦΟΣ",
    "cafe\u0301 and caf\u00e9",
    "東京タワーの夜景、雪が降る。 한국어 텍스트 中文提示词，高质量",
    "👩‍👩‍👧 🏳️‍🌈 🔥🔥🔥",
    "zero\u200bwidth no\u00a0break wide\u3000end bell\x07 nel\x85 line\u2028end",
    "&quot;quoted&quot; &lt;tag&gt; &amp;amp; &copy; &ldquo;x&rdquo;",
    "Ⅷ ٣ ① ²³ 1234567890 3.14 -5 50%",
    "don't I'd we'LL they've I'm 'tis rock'n'roll ''quoted''",
    "C1 \x93quotes\x94 and \x91these\x92",
    "x" * 300,
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "a b  c\td\ne\rf",
    "_under_score_ snake_case camelCase kebab-case path/to/file.png https://example.org/?q=1",
    "!!!??? ... --- *** ((())) [[[]]] {{{}}} <<<>>> ::: ;;; ~~~ ``` ^^^ ||| \\\\",
)
SIZES = ((512, 512), (640, 448), (513, 640), (225, 300), (224, 100), (224, 227), (61, 150), (1, 1))
"""Those that every Pillow from 9 to 13 scales to the same bits: not (513, 777) to a square."""


def open_clip_model(sizes: ClipSizes, tensors: dict[str, Tensor]) -> Any:
    model = open_clip.CLIP(
        embed_dim=sizes.embedding,
        vision_cfg={
            "image_size": sizes.image_side,
            "patch_size": sizes.patch_side,
            "layers": sizes.image.layers,
            "width": sizes.image.width,
            "head_width": sizes.image.width // sizes.image.heads,
            "mlp_ratio": sizes.image.hidden / sizes.image.width,
        },
        text_cfg={
            "context_length": sizes.positions,
            "vocab_size": sizes.vocabulary,
            "width": sizes.text.width,
            "heads": sizes.text.heads,
            "layers": sizes.text.layers,
        },
        quick_gelu=sizes.quick_gelu,
    )
    model.load_state_dict(as_open_clip(tensors), strict=True)
    return model.eval()


def transformers_model(sizes: ClipSizes, tensors: dict[str, Tensor]) -> Any:
    def tower(of: Any) -> dict[str, Any]:
        return {
            "hidden_size": of.width,
            "intermediate_size": of.hidden,
            "num_hidden_layers": of.layers,
            "num_attention_heads": of.heads,
            "hidden_act": "quick_gelu" if sizes.quick_gelu else "gelu",
            "projection_dim": sizes.embedding,
        }

    config = CLIPConfig(
        vision_config={
            **tower(sizes.image),
            "image_size": sizes.image_side,
            "patch_size": sizes.patch_side,
        },
        text_config={**tower(sizes.text), "eos_token_id": 49407},
        projection_dim=sizes.embedding,
    )
    model = CLIPModel(config)
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def open_clip_transform(side: int, mode: str) -> Callable[[Image.Image], Tensor]:
    config = PreprocessCfg(
        size=(side, side),
        mean=open_clip.OPENAI_DATASET_MEAN,
        std=open_clip.OPENAI_DATASET_STD,
        interpolation="bicubic",
        resize_mode=mode,
        fill_color=0,
    )
    transform: Callable[[Image.Image], Tensor] = image_transform_v2(config, is_train=False)
    return transform


def transformers_transform(processor: Any) -> Callable[[Image.Image], Tensor]:
    def transform(image: Image.Image) -> Tensor:
        return torch.as_tensor(np.asarray(processor(image, return_tensors="pt").pixel_values[0]))

    return transform


def transforms(side: int, siglip_side: int) -> dict[str, Callable[[Image.Image], Tensor]]:
    clip = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    siglip = SiglipImageProcessorPil(size={"height": siglip_side, "width": siglip_side})
    return {
        "crop": open_clip_transform(side, "shortest"),
        "pad": open_clip_transform(side, "longest"),
        "crop_down": transformers_transform(clip),
        "squeeze": transformers_transform(siglip),
    }


def unit(x: Any) -> Tensor:
    # transformers 5 wraps embeddings into an output
    return functional.normalize(getattr(x, "pooler_output", x), dim=-1)


def stacked(transform: Callable[[Image.Image], Tensor]) -> Tensor:
    return torch.stack([transform(image) for image in sample_images()])


def rows(scores: Tensor) -> list[Any]:
    recorded: list[Any] = [[round(v, 7) for v in row] for row in scores.tolist()]
    return recorded


def same(one: Tensor, other: Tensor) -> Tensor:
    difference = float((one - other).abs().max())
    if difference > 1e-5:
        raise SystemExit(f"the packages disagree by {difference}")
    return one


def scores() -> dict[str, Any]:
    """A row per prompt and a column per sample image; one row where no prompt is read."""
    read = transforms(TINY_OPENAI.image_side, TINY_SIGLIP.image_side)
    openai, laion = (random_encoder(sizes) for sizes in (TINY_OPENAI, TINY_LAION))
    openai_ids = SimpleTokenizer()(list(PROMPTS))
    hub = CLIPTokenizer.from_pretrained(str(TOKENIZER))
    hub_ids = hub(list(PROMPTS), padding=True, truncation=True, max_length=77, return_tensors="pt")

    # HPSv2.1: open_clip's network, tokenizer and longest side
    model = open_clip_model(TINY_LAION, laion)
    images, texts = (
        unit(model.encode_image(stacked(read["pad"]))),
        unit(model.encode_text(openai_ids)),
    )
    found = {"hpsv2": rows(texts @ images.T)}

    # PickScore: transformers throughout
    hub_model = transformers_model(TINY_LAION, laion)
    images = unit(hub_model.get_image_features(stacked(read["crop_down"])))
    texts = unit(hub_model.get_text_features(**hub_ids))
    found["pickscore"] = rows(hub_model.logit_scale.exp() * (texts @ images.T))

    # CLIPScore and LAION: OpenAI's preprocessing; both packages have the network
    model, hub_model = open_clip_model(TINY_OPENAI, openai), transformers_model(TINY_OPENAI, openai)
    pixels = stacked(read["crop"])
    images = same(unit(model.encode_image(pixels)), unit(hub_model.get_image_features(pixels)))
    texts = same(unit(model.encode_text(openai_ids)), unit(hub_model.get_text_features(openai_ids)))
    found["clip_score"] = rows(texts @ images.T)
    found["laion_v1"] = [linear(images, random_head("laion_v1"), [""])]
    for reward in ("laion_v2", "chad"):
        keys = [f"layers.{number}." for number in (0, 2, 4, 6, 7)]
        found[reward] = [linear(images, random_head(reward), keys)]

    # aes-B32-v0: transformers' network and preprocessing, then a classifier whose logit is kept
    images = unit(hub_model.get_image_features(stacked(read["crop_down"])))
    found["aes_b32"] = [linear(images, random_head("aes_b32"), ["fc1.", "fc2.", "fc3."], relu=True)]

    keys = [f"scoring_head.{number}." for number in (0, 2, 4, 6, 8)]
    found["aesthetic_v25"] = [linear(siglip_embeddings(), random_head("aesthetic_v25"), keys)]
    return found


def linear(
    x: Tensor, tensors: dict[str, Tensor], keys: Sequence[str], *, relu: bool = False
) -> list[float]:
    for index, key in enumerate(keys):
        x = functional.linear(x, tensors[f"{key}weight"], tensors[f"{key}bias"])
        if relu and index < len(keys) - 1:
            x = x.relu()
    return [round(value, 7) for value in x[:, 0].tolist()]


def siglip_embeddings() -> Tensor:
    sizes = TINY_SIGLIP
    config = SiglipVisionConfig(
        hidden_size=sizes.image.width,
        intermediate_size=sizes.image.hidden,
        num_hidden_layers=sizes.image.layers,
        num_attention_heads=sizes.image.heads,
        image_size=sizes.image_side,
        patch_size=sizes.patch_side,
    )
    model = SiglipVisionModel(config)
    tensors = random_encoder(sizes)
    if not any(key.startswith("vision_model.") for key in model.state_dict()):
        tensors = {key.removeprefix("vision_model."): value for key, value in tensors.items()}
    model.load_state_dict(tensors, strict=True)
    pixels = stacked(transforms(TINY_OPENAI.image_side, sizes.image_side)["squeeze"])
    return unit(model.eval()(pixels).pooler_output)


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10_000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def eight_bit_digest(pixels: Tensor, mean: Sequence[float], sd: Sequence[float]) -> str:
    """Identity of the 8-bit pixels that were normalised, which is free of its rounding."""
    own = pixels * torch.tensor(sd).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    return hashlib.sha256((own * 255).round().to(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def pixels() -> dict[str, dict[str, str]]:
    found = {}
    for name, transform in transforms(224, 384).items():
        clip = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
        mean, sd = ((0.5,) * 3, (0.5,) * 3) if name == "squeeze" else clip
        found[name] = {
            f"{width}x{height}": eight_bit_digest(transform(noise(width, height)), mean, sd)
            for width, height in SIZES
            # open_clip fails on what needs no scaling and is not square
            if not (name == "pad" and (width, height) == (224, 100))
        }
    return found


def ids() -> dict[str, Any]:
    simple, hub = SimpleTokenizer(), CLIPTokenizer.from_pretrained(str(TOKENIZER))
    openai = [row[: row.index(49407) + 1] for row in simple(list(TEXTS)).tolist()]
    return {
        "texts": list(TEXTS),
        "openai": openai,
        "hugging_face": [hub(t, truncation=True, max_length=77).input_ids for t in TEXTS],
    }


def main() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        recorded = {
            "packages": {
                "ftfy": ftfy.__version__,
                "open_clip_torch": open_clip.__version__,
                "python": sys.version.split()[0],
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "prompts": list(PROMPTS),
            "scores": scores(),
            # the head hides small differences
            "siglip": rows(siglip_embeddings()),
            "pixels": pixels(),
            "tokens": ids(),
        }
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(recorded, ensure_ascii=True, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
