"""Prompts to what a UNet is conditioned on, the way the WebUI does it without attention syntax.

The stock pipelines apply clip skip to the prompt only and not to the negative prompt, count it in
another way, and fail with text encoders of newer transformers; so the embeddings are made here and
handed to them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lib_automerge.domain.payload import ImageJob, Payload
from lib_automerge.errors import GenerationError

FROM_PENULTIMATE = 2
"""SD2 and SDXL are trained on the last layer but one, which their clip skip 1 and 2 both mean.

A1111 goes no further for them; larger numbers skip more layers, as in Forge."""

_WEBUI_SYNTAX = re.compile(
    r"[(\[#]|<(?:lora|lyco|hypernet):|\b(?:AND|BREAK)\b|:\s*[-+]?(?:\d+\.?|\d*\.\d+)\s*$"
)


class Conditioner:
    """Encodes the prompts of batches with the text encoders of a live pipeline.

    Args:
        pipeline: a StableDiffusionPipeline or StableDiffusionXLPipeline; its weights may change.
        architecture: `sd1`, `sd2` or `sdxl`.
    """

    def __init__(self, pipeline: Any, architecture: str) -> None:
        self._pipeline = pipeline
        self._architecture = architecture

    def arguments(self, jobs: Sequence[ImageJob], *, guided: bool) -> dict[str, Any]:
        """Return the pipeline's arguments for the prompts of jobs with equal settings.

        Args:
            jobs: one for each image of the batch.
            guided: whether negative prompts are used.

        Raises:
            GenerationError: clip skip leaves no layer.
        """
        skip = jobs[0].payload.clip_skip
        positive = self._encode([job.payload.prompt for job in jobs], skip)
        arguments = {"prompt_embeds": positive[0], "pooled_prompt_embeds": positive[1]}
        if guided:
            texts = [job.payload.negative_prompt for job in jobs]
            embeddings, pooled = self._encode(texts, skip)
            if self._architecture == "sdxl":
                # SDXL is trained with zeros for "no prompt", and the WebUI gives it zeros.
                given = torch.tensor([bool(text) for text in texts], device=embeddings.device)
                embeddings = embeddings * given[:, None, None]
                pooled = pooled * given[:, None]
            arguments["negative_prompt_embeds"] = embeddings
            arguments["negative_pooled_prompt_embeds"] = pooled
        if self._architecture == "sdxl":
            return arguments
        return {name: value for name, value in arguments.items() if "pooled" not in name}

    def notes(self, payload: Payload) -> list[str]:
        """Return what this backend does with the payload's prompts differently from the WebUI."""
        sentences = []
        for kind, text in (
            ("prompt", payload.prompt),
            ("negative prompt", payload.negative_prompt),
        ):
            count = len(self._pipeline.tokenizer(text).input_ids)
            limit = self._pipeline.text_encoder.config.max_position_embeddings
            if count > limit:
                sentences.append(
                    f"The {kind} of payload {payload.name!r} has {count - 2} tokens; "
                    f"what follows the first {limit - 2} is left out. Shorten it."
                )
            if _WEBUI_SYNTAX.search(text):
                sentences.append(
                    f"The {kind} of payload {payload.name!r} uses WebUI syntax (attention, LoRA, "
                    "AND, BREAK, a comment or a weight at its end), which is read literally here. "
                    "Write plain text."
                )
        return sentences

    def _encode(self, texts: list[str], clip_skip: int) -> tuple[Tensor, Tensor]:
        """Return embeddings (n, tokens, width) and, for SDXL, the pooled ones (n, width)."""
        pipeline = self._pipeline
        with torch.no_grad():
            if self._architecture == "sdxl":
                back = max(FROM_PENULTIMATE, clip_skip)
                first = _run(pipeline.tokenizer, pipeline.text_encoder, texts)
                second = _run(pipeline.tokenizer_2, pipeline.text_encoder_2, texts)
                layers = [_layer(first, back), _layer(second, back)]
                return torch.cat(layers, dim=-1), second.text_embeds
            # diffusers leaves out the last layer of SD2: its last one is the last but one.
            back = max(1, clip_skip - 1) if self._architecture == "sd2" else clip_skip
            output = _run(pipeline.tokenizer, pipeline.text_encoder, texts)
            if back == 1:
                return output.last_hidden_state, output.last_hidden_state
            # Older versions of transformers hold the layers one level deeper.
            text_model = getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)
            embeddings = text_model.final_layer_norm(_layer(output, back))
            return embeddings, embeddings


def _run(tokenizer: Any, encoder: Any, texts: list[str]) -> Any:
    ids = tokenizer(
        texts,
        padding="max_length",
        max_length=encoder.config.max_position_embeddings,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return encoder(ids.to(encoder.device), output_hidden_states=True)


def _layer(output: Any, back: int) -> Tensor:
    # One entry for the input of the first layer, then one for each layer's output.
    depth = len(output.hidden_states) - 1
    if back > depth:
        raise GenerationError(
            f"clip skip leaves no layer: the text encoder has {depth} layers, and layer {back} "
            "from the end was asked for. Use a smaller clip_skip."
        )
    layer: Tensor = output.hidden_states[-back]
    return layer
