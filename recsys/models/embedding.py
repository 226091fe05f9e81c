"""Texts to unit vectors by a frozen sentence encoder: mean pooling over tokens, as sentence-transformers models do."""

from collections.abc import Sequence

import numpy as np

from recsys.models.loading import resolve_model


def embed_texts(texts: Sequence[str], model: str = "minilm", batch_size: int = 64, max_tokens: int = 256) -> np.ndarray:
    """N texts -> (N, D) float32, rows of length 1. `model` is an asset name, a folder or a Hugging Face id.

    Longer texts are cut at `max_tokens`. Batches go from short to long, so padding is little; the order of rows is
    kept.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = resolve_model(model)
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = np.zeros((len(texts), encoder.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = encoder(**batch).last_hidden_state  # (B, T, D)
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        vectors[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return vectors
