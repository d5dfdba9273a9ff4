"""Texts in foreign formats: published ones, and such as the tools' own code writes."""

from __future__ import annotations

import json

AUTOMBW_15B = """\
modelA=08b-AstolfoMix-_13a_14a.safetensors
modelB=09b-AstolfoMix-_15a_16a.safetensors
modelO=15b-AstolfoMix-08b09b
position_id_fix=Keep Original
output_mode=Max Precision
0.4,0.9,0.5,0.6,0.5,0.0,0.9,0.9,1.0,0.4,0.3,0.8,0.3,0.9,0.6,0.8,0.9,0.7,0.6,1.0,0.9,0.6,0.7,0.3,0.6,1.0,0.0
"""
"""The recipe of AutoMBW's merge 15b."""

AUTOMBW_METADATA = json.loads("""{
    "__metadata__": {
        "sd_mbwrt_receipe": {
            "type": "auto-mbw-rt",
            "modelA": "_03a-mzpikas_tmnd_enhanced-sd-v1-4.safetensors",
            "modelB": "_04a-dreamshaper_8-sd-v1-4.safetensors",
            "modelO": "03b-verify",
            "position_id_fix": "Keep Original",
            "output_mode": "Max Precision",
            "mbwrt_weights": "\
0.3,0.8,1,0.5,1,0,0.7,0.9,0.5,0.9,0.2,0.2,0.6,0,0.3,0.3,1,1,0.8,0.2,0.7,0,1,0.3,0.2,0.9,0.2",
            "mbwrt_weights_seq": "[*sl_INPUT, *sl_MID, *sl_OUTPUT, sl_OUT, sl_TIME_EMBED]"
        },
        "format": "pt"
    }
}""")
"""From the readme of 6DammK9's runtime-block-merge."""

MECHA_TIES = """version 0.1.0
model "models/base.safetensors" model_config="sd1-ldm" merge_space="weight"
model "models/a.safetensors" model_config="sd1-ldm" merge_space="weight"
merge "subtract" &1 &0
model "models/b.safetensors" model_config="sd1-ldm" merge_space="weight"
merge "subtract" &3 &0
dict key=0.2
literal &5 model_config="singleton-mecha" merge_space=null
merge "convert_singleton" &6
dict key=true
literal &8 model_config="singleton-mecha" merge_space=null
merge "convert_singleton" &9
merge "ties_sum" &2 &4 k=&7 vote_sgn=&10
dict BASE=0.1 IN00=0.13 IN01=0.16 IN02=0.19 IN03=0.22 IN04=0.25 IN05=0.28 IN06=0.31 IN07=0.34 \
IN08=0.37 IN09=0.4 IN10=0.43 IN11=0.46 M00=0.49 OUT00=0.52 OUT01=0.55 OUT02=0.58 OUT03=0.61 \
OUT04=0.64 OUT05=0.67 OUT06=0.7 OUT07=0.73 OUT08=0.76 OUT09=0.79 OUT10=0.82 OUT11=0.85
merge "convert_sd1_blocks_to_ldm" &12
merge "add_difference" &0 &11 &13"""
"""Written by sd-mecha 1.1.8."""

_MECHA_MODELS = """version 0.1.0
model "a.safetensors" model_config="sd1-ldm" merge_space="weight"
model "b.safetensors" model_config="sd1-ldm" merge_space="weight"
model "c.safetensors" model_config="sd1-ldm" merge_space="weight"
"""

MECHA_MEDIAN = (
    _MECHA_MODELS
    + """dict key=1e-06
literal &3 model_config="singleton-mecha" merge_space="param"
merge "convert_singleton" &4
dict key=100
literal &6 model_config="singleton-mecha" merge_space="param"
merge "convert_singleton" &7
dict key=1e-20
literal &9 model_config="singleton-mecha" merge_space="param"
merge "convert_singleton" &10
merge "geometric_median" &0 &1 &2 eps=&5 maxiter=&8 ftol=&11"""
)
"""Written by sd-mecha 1.1.8."""

MECHA_EMBEDDED = (
    _MECHA_MODELS
    + """merge "subtract" &1 &2
dict BASE=0.1 IN00=0.0 IN01=0.01 IN02=0.02 IN03=0.03 IN04=0.04 IN05=0.05 IN06=0.06 IN07=0.07 \
IN08=0.08 IN09=0.09 IN10=0.1 IN11=0.11 M00=0.5 OUT00=0.0 OUT01=0.02 OUT02=0.04 OUT03=0.06 \
OUT04=0.08 OUT05=0.1 OUT06=0.12 OUT07=0.14 OUT08=0.16 OUT09=0.18 OUT10=0.2 OUT11=0.22
literal &4 model_config="sd1-supermerger_blocks" merge_space="param"
merge "convert_sd1_blocks_to_ldm" &5
merge "add_difference" &0 &3 &6"""
)
"""As sd-mecha 1.1.8 puts it in the header of what it merges."""

A, B, C = "1a" * 32, "2b" * 32, "3c" * 32
"""SHA-256 of models."""

SUPERMERGER_25 = [round(0.04 * n, 2) for n in range(25)]


def supermerger(**changes: object) -> dict[str, str]:
    """The header of a checkpoint that SuperMerger saved, as its code writes it."""
    recipe = {
        "type": "sd-webui-supermerger",
        "weights_alpha": SUPERMERGER_25,
        "weights_beta": "",
        "weights_alpha_orig": "0.5," + ",".join(map(str, SUPERMERGER_25)),
        "weights_beta_orig": "",
        "model_a": A,
        "model_b": B,
        "model_c": A,
        "base_alpha": 0.5,
        "base_beta": 0.25,
        "mode": "Weight sum",
        "mbw": True,
        "elemental_merge": "",
        "calcmode": "normal",
        "Off": [""],
    } | changes
    models = {
        A: {"name": "anything-v3.0", "legacy_hash": "2700c435"},
        B: {"name": "sub/basil mix.safetensors", "legacy_hash": "0ff127093f"[:8]},
        C: {"name": "c", "legacy_hash": None},
    }
    return {
        "format": "pt",
        "sd_merge_recipe": json.dumps(recipe),
        "sd_merge_models": json.dumps(models),
    }


def webui(**changes: object) -> dict[str, str]:
    """The header of a checkpoint that the WebUI's merger saved, as its code writes it."""
    recipe = {
        "type": "webui",
        "primary_model_hash": A,
        "secondary_model_hash": B,
        "tertiary_model_hash": None,
        "interp_method": "Weighted sum",
        "multiplier": 0.3,
        "save_as_half": True,
        "custom_name": "",
        "config_source": 0,
        "bake_in_vae": "None",
        "discard_weights": "",
        "is_inpainting": False,
        "is_instruct_pix2pix": False,
    } | changes
    models = {
        A: {"name": "a.safetensors", "legacy_hash": "11111111", "sd_merge_recipe": None},
        B: {"name": "b.ckpt", "legacy_hash": "22222222", "sd_merge_recipe": None},
        C: {"name": "c.safetensors", "legacy_hash": "33333333", "sd_merge_recipe": None},
    }
    return {
        "sd_merge_recipe": json.dumps(recipe),
        "sd_merge_models": json.dumps(models),
        "format": "pt",
    }
