"""Texts to unit vectors by a sentence encoder, pooled as its folder says (default: the mean)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.errors import AssetError
from recsys.models.loading import resolve_model, weights_digest
from recsys.models.quiet import no_progress_bars
from recsys.storage import read_json

if TYPE_CHECKING:
    from torch import Tensor


class SentenceEncoder:
    """A sentence-transformers model held in memory; calling it with N texts gives (N, D) float32, rows of length 1.

    `model` is an asset name, a folder or a Hugging Face id. Longer texts are cut at `max_tokens`. Batches go from short
    to long, so padding is little; the order of rows is kept. `adapter`: a folder written by `save_adapter`; one made
    for another base is refused. Raises AssetError for a pooling other than mean or first token.
    """

    def __init__(
        self,
        model: str = "minilm",
        batch_size: int = 64,
        max_tokens: int = 256,
        device: str | None = None,
        adapter: str | Path | None = None,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = resolve_model(model)
        self.name, self.batch_size, self.max_tokens, self.device = model, batch_size, max_tokens, device or "cpu"
        self.pooling = _pooling(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        with no_progress_bars():
            encoder: Any = AutoModel.from_pretrained(folder)
        self.base_digest = weights_digest(folder)
        if adapter is not None:
            from recsys.models.adapters import load_adapter

            encoder = load_adapter(encoder, adapter, self.base_digest).merge_and_unload()
        self.encoder = encoder.eval().to(self.device)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors = np.zeros((len(texts), self.encoder.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            with torch.inference_mode():
                vectors[rows] = self.batch([texts[row] for row in rows]).cpu().numpy()
        return vectors

    def batch(self, texts: Sequence[str]) -> "Tensor":
        """N texts in one forward pass, (N, D), differentiable where the encoder's weights are."""
        import torch

        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        hidden = self.encoder(**inputs).last_hidden_state  # (N, T, D)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(pooled, dim=-1)


def embed_texts(texts: Sequence[str], model: str = "minilm", batch_size: int = 64, max_tokens: int = 256) -> np.ndarray:
    """N texts -> (N, D) float32, rows of length 1. Loads the model for this one call: hold a `SentenceEncoder` to call
    often.
    """
    return SentenceEncoder(model, batch_size, max_tokens)(texts)


def _pooling(folder: Path) -> str:
    path = folder / "1_Pooling" / "config.json"
    modes = (
        {name.removeprefix("pooling_mode_") for name, on in read_json(path).items() if on is True}
        if path.is_file()
        else set()
    ) - {"include_prompt"}
    pooling = {frozenset(): "mean", frozenset({"mean_tokens"}): "mean", frozenset({"cls_token"}): "cls"}.get(
        frozenset(modes)
    )
    if pooling is None:
        raise AssetError(
            str(folder),
            f"pools its tokens by {', '.join(sorted(modes))}; only the mean and the first token are supported",
            "choose a sentence encoder with mean or cls pooling",
        )
    return pooling
