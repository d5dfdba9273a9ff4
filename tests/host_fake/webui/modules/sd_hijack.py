"""What wraps a model after loading: prompt handling around text encoders and token embeddings."""

import torch
from torch import nn

from modules import shared
from modules.fake_model import (
    COND_WIDTH,
    TOKENS,
    FrozenCLIPEmbedder,
    FrozenOpenCLIPEmbedder,
    FrozenOpenCLIPEmbedder2,
    pattern,
    read,
)


class EmbeddingsWithFixes(nn.Module):
    def __init__(self, wrapped, embeddings):
        super().__init__()
        self.wrapped = wrapped
        self.embeddings = embeddings

    def forward(self, reading):
        self.wrapped(reading)


class CustomWords(nn.Module):
    """Turns texts into conditioning: a function of each text, the clip skip and the weights."""

    def __init__(self, wrapped, hijack):
        super().__init__()
        self.wrapped = wrapped
        self.hijack = hijack

    def forward(self, texts):
        checksum, tone = read(self.wrapped, f"text encoder {type(self.wrapped).__name__}")
        skip = shared.opts.CLIP_stop_at_last_layers
        tone = 0.5 * torch.tanh(torch.tensor(tone))
        shape = (TOKENS, COND_WIDTH)
        return torch.stack([pattern(shape, checksum, skip, str(text)) + tone for text in texts])


class FrozenCLIPEmbedderWithCustomWords(CustomWords): ...


class FrozenOpenCLIPEmbedderWithCustomWords(CustomWords): ...


class EmbeddingDatabase:
    def __init__(self):
        self.word_embeddings = {}
        self.skipped_embeddings = {}
        self.loads = 0

    def load_textual_inversion_embeddings(self, force_reload=False):
        self.loads += 1


def _tokens_of(embedder):
    if isinstance(embedder, FrozenCLIPEmbedder):
        return embedder.transformer.text_model.embeddings
    return embedder.model


class StableDiffusionModelHijack:
    def __init__(self):
        self.embedding_db = EmbeddingDatabase()
        self.extra_generation_params = {}
        self.comments = []
        self.clip = None
        self.layers = None

    def _wrap(self, embedder):
        known = (FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder, FrozenOpenCLIPEmbedder2)
        if not isinstance(embedder, known):
            return embedder
        tokens = _tokens_of(embedder)
        tokens.token_embedding = EmbeddingsWithFixes(tokens.token_embedding, self)
        clip = isinstance(embedder, FrozenCLIPEmbedder)
        wrapper = (
            FrozenCLIPEmbedderWithCustomWords if clip else FrozenOpenCLIPEmbedderWithCustomWords
        )
        return wrapper(embedder, self)

    def _unwrap(self, embedder):
        if not isinstance(embedder, CustomWords):
            return embedder
        tokens = _tokens_of(embedder.wrapped)
        if isinstance(tokens.token_embedding, EmbeddingsWithFixes):
            tokens.token_embedding = tokens.token_embedding.wrapped
        return embedder.wrapped

    def hijack(self, m):
        if hasattr(m, "conditioner"):
            embedders = m.conditioner.embedders
            for number, embedder in enumerate(embedders):
                embedders[number] = self._wrap(embedder)
            m.cond_stage_model = embedders[0] if len(embedders) == 1 else m.conditioner
        else:
            m.cond_stage_model = self._wrap(m.cond_stage_model)
        self.clip = m.cond_stage_model
        self.layers = list(m.modules())

    def undo_hijack(self, m):
        if hasattr(m, "conditioner"):
            embedders = m.conditioner.embedders
            for number, embedder in enumerate(embedders):
                embedders[number] = self._unwrap(embedder)
            if hasattr(m, "cond_stage_model"):
                del m.cond_stage_model
        else:
            m.cond_stage_model = self._unwrap(m.cond_stage_model)
        self.clip = None
        self.layers = None

    def apply_circular(self, enable): ...

    def clear_comments(self):
        self.comments = []
        self.extra_generation_params = {}


model_hijack = StableDiffusionModelHijack()
