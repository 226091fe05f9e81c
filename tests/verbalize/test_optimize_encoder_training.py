"""A sentence encoder learns what its texts do not say by themselves; its adapter is whole, resumable and its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.errors import InputError
from recsys.models.adapters import add_lora, load_adapter, save_adapter
from recsys.models.embedding import SentenceEncoder
from recsys.models.loading import load_language_model
from recsys.models.settings import AdapterCard, LoraSettings
from recsys.recommenders.base import Query
from recsys.recommenders.embedding import EmbeddingRecommender, EmbeddingSettings
from recsys.recommenders.language import LanguageRecommenderConfig, build_language_recommender
from recsys.seeding import rng
from verbalize.optimize.encoder_training import TextSlate, encoder_scores
from verbalize.optimize.recommender_settings import RecommenderTrainingConfig
from verbalize.optimize.recommender_training import train_recommender

pytestmark = pytest.mark.real_model

KINDS = ["comedies", "thrillers", "westerns", "musicals"]
NEXT = dict(zip(KINDS, KINDS[1:] + KINDS[:1], strict=True))
CONFIG = RecommenderTrainingConfig(examples=240, accumulation=8, save_every=40, learning_rate=2e-3, score_scale=1.0)
TEMPERATURE = 0.1


def crosswise(index: int) -> TextSlate:
    """Who likes one kind goes on with another: nearness of meaning alone misleads."""
    random = rng("crosswise", index)
    shown = random.permutation(KINDS).tolist()
    liked = str(random.choice(KINDS))
    return TextSlate(f"This viewer likes {liked}.", shown, shown.index(NEXT[liked]))


def student(seed: int = 0) -> SentenceEncoder:
    encoder = SentenceEncoder()
    encoder.encoder.requires_grad_(False)
    encoder.encoder = add_lora(encoder.encoder, LoraSettings(rank=8), seed).eval()
    return encoder


def taught(encoder: SentenceEncoder, folder: Path, slates=crosswise, config=CONFIG) -> list[dict[str, float]]:
    def scores_of(model: object, slate: TextSlate) -> torch.Tensor:
        return encoder_scores(encoder, slate, TEMPERATURE)

    return train_recommender(encoder.encoder, slates, config, folder, scores_of=scores_of)


def card(encoder: SentenceEncoder) -> AdapterCard:
    return AdapterCard("minilm", encoder.base_digest, "made up", "train", "Apache-2.0", "pytest", "0")


def test_it_learns_and_the_saved_adapter_ranks_alike(tmp_path: Path) -> None:
    encoder = student()
    curve = taught(encoder, tmp_path / "parts")
    first, last = ([row["hit"] for row in rows] for rows in (curve[:4], curve[-4:]))
    assert sum(first) / 4 < 0.4 and sum(last) / 4 > 0.8  # chance is a quarter
    save_adapter(encoder.encoder, tmp_path / "adapter", card(encoder))
    texts = {kind: kind for kind in KINDS}
    settings = EmbeddingSettings(temperature=TEMPERATURE)
    kept = LanguageRecommenderConfig(mode="embedding", embedding=settings, adapter=str(tmp_path / "adapter"))
    loaded = build_language_recommender(kept, texts)
    query = Query("1", "This viewer likes westerns.", [])
    (saved,) = loaded.rank([query], [KINDS])
    (own,) = EmbeddingRecommender(texts, encoder, settings).rank([query], [KINDS])
    np.testing.assert_allclose(saved, own, atol=1e-4)
    assert KINDS[int(saved.argmax())] == NEXT["westerns"]
    plain = build_language_recommender(LanguageRecommenderConfig(mode="embedding", embedding=settings), texts)
    assert KINDS[int(plain.rank([query], [KINDS])[0].argmax())] == "westerns"
    assert loaded.digest != plain.digest  # type: ignore[attr-defined]


def test_scores_are_those_of_the_recommender_and_a_blank_text_has_none() -> None:
    encoder, settings = SentenceEncoder(), EmbeddingSettings(temperature=TEMPERATURE)
    recommender = EmbeddingRecommender({kind: kind for kind in KINDS}, encoder, settings)
    for text in ("This viewer likes westerns.", " "):
        with torch.no_grad():
            scores = encoder_scores(encoder, TextSlate(text, KINDS, 0), TEMPERATURE)
        np.testing.assert_allclose(scores, recommender.rank([Query("1", text, [])], [KINDS])[0], atol=1e-4)


def test_an_interrupted_training_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    config = RecommenderTrainingConfig(examples=32, accumulation=8, save_every=8, score_scale=1.0)

    def dying(index: int) -> TextSlate:
        if index == 20:
            raise KeyboardInterrupt
        return crosswise(index)

    whole, broken, resumed = student(), student(), student()
    taught(whole, tmp_path / "whole", config=config)
    with pytest.raises(KeyboardInterrupt):
        taught(broken, tmp_path / "resumed", dying, config)
    taught(resumed, tmp_path / "resumed", config=config)
    for a, b in zip(whole.encoder.parameters(), resumed.encoder.parameters(), strict=True):
        assert torch.equal(a, b)


def test_refusals(tiny_model_dir: Path, tmp_path: Path) -> None:
    encoder = student()
    save_adapter(encoder.encoder, tmp_path / "adapter", card(encoder))
    with pytest.raises(InputError, match="does not belong to the loaded base"):
        load_adapter(load_language_model(str(tiny_model_dir)).model, tmp_path / "adapter", "another")
    with pytest.raises(InputError, match="no projections named q_proj or query"):
        add_lora(torch.nn.Linear(2, 2), LoraSettings(), 0)
    with pytest.raises(InputError, match="is for a local model"):
        remote = {"endpoint": "http://localhost:1/v1", "model": "m"}
        LanguageRecommenderConfig(mode="remote", remote=remote, adapter="a")  # type: ignore[arg-type]
