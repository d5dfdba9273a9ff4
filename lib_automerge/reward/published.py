"""The published weights files of the rewards: where they are, how big, under which licence.

Sizes of files that are only quoted are rounded. SHA-256 digests are those of copies that were
opened, or, for OpenAI's files, the ones that their addresses contain.
"""

from __future__ import annotations

from lib_automerge.reward.files import WeightFile

_OPENAI = "https://openaipublic.azureedge.net/clip/models"
_L_14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
_B_32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"

IMAGE_REWARD = tuple(
    WeightFile(
        option="weights",
        name="ImageReward.pt",
        repo=repo,
        path="ImageReward.pt",
        size=1_790_000_000,
        licence="Apache-2.0",
        kept=".cache/ImageReward/ImageReward.pt",
    )
    # the organisation was renamed; a cache knows the file by the name it was asked for
    for repo in ("THUDM/ImageReward", "zai-org/ImageReward")
)

HPS_V2 = (
    WeightFile(
        option="weights",
        name="HPS_v2.1_compressed.pt",
        repo="xswu/HPSv2",
        path="HPS_v2.1_compressed.pt",
        size=1_970_000_000,
        licence="Apache-2.0",
    ),
)

PICK_SCORE = (
    WeightFile(
        option="weights",
        name="PickScore_v1.safetensors",
        repo="yuvalkirstain/PickScore_v1",
        path="model.safetensors",
        size=3_940_000_000,
        licence="MIT",
    ),
)


def _by_openai(option: str, name: str, size: int, sha256: str) -> WeightFile:
    return WeightFile(
        option=option,
        name=name,
        repo="",
        path=f"{_OPENAI}/{sha256}/{name}",
        size=size,
        licence="MIT",
        sha256=sha256,
        kept=f".cache/clip/{name}",
    )


def clip_l_14(option: str) -> tuple[WeightFile, ...]:
    """OpenAI's CLIP ViT-L/14, in the layouts in which people have it."""
    return (
        WeightFile(
            option=option,
            name="clip-vit-large-patch14.safetensors",
            repo="openai/clip-vit-large-patch14",
            path="model.safetensors",
            size=1_710_000_000,
            licence="MIT",
        ),
        _by_openai(option, "ViT-L-14.pt", 932_768_134, _L_14),
        WeightFile(
            option=option,
            name="vit_large_patch14_clip_224.openai.safetensors",
            repo="timm/vit_large_patch14_clip_224.openai",
            path="open_clip_model.safetensors",
            size=1_710_000_000,
            licence="MIT",
        ),
    )


def clip_b_32(option: str) -> tuple[WeightFile, ...]:
    """OpenAI's CLIP ViT-B/32."""
    return (
        _by_openai(option, "ViT-B-32.pt", 353_976_522, _B_32),
        WeightFile(
            option=option,
            name="clip-vit-base-patch32.bin",
            repo="openai/clip-vit-base-patch32",
            path="pytorch_model.bin",
            size=605_000_000,
            licence="MIT",
        ),
    )


LAION_V1 = WeightFile(
    option="weights",
    name="sa_0_4_vit_l_14_linear.pth",
    repo="",
    path="https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
    size=3_900,
    licence="MIT",
    sha256="2cd4e60f",
)

LAION_V2 = WeightFile(
    option="weights",
    name="sac+logos+ava1-l14-linearMSE.pth",
    repo="",
    path="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
    "sac%2Blogos%2Bava1-l14-linearMSE.pth",
    size=3_714_759,
    licence="Apache-2.0",
    sha256="21dd590f",
)

CHAD = WeightFile(
    option="weights",
    name="chadscorer.pth",
    repo="",
    path="https://github.com/grexzen/SD-Chad/raw/main/chadscorer.pth",
    size=3_700_000,
    licence="no licence stated",
    sha256="ba265592",
)

AES_B_32 = WeightFile(
    option="weights",
    name="aes-B32-v0.pth",
    repo="hakurei/waifu-diffusion-v1-4",
    path="models/aes-B32-v0.pth",
    size=660_000,
    licence="CreativeML OpenRAIL-M",
)

AESTHETIC_V25 = (
    WeightFile(
        option="weights",
        name="aesthetic_predictor_v2_5.pth",
        repo="",
        path="https://github.com/discus0434/aesthetic-predictor-v2-5/raw/main/models/"
        "aesthetic_predictor_v2_5.pth",
        size=2_500_000,
        licence="AGPL-3.0",
    ),
    WeightFile(
        option="encoder",
        name="siglip-so400m-patch14-384.safetensors",
        repo="google/siglip-so400m-patch14-384",
        path="model.safetensors",
        size=3_510_000_000,
        licence="Apache-2.0",
    ),
)
