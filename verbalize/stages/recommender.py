"""The recommender of a run: built from the recipe, with the trained adapter where the recipe trains one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.recommenders.candidates import CandidateDisplay, render_candidates
from recsys.recommenders.language import LanguageRecommenderConfig, build_language_recommender
from recsys.storage import read_parquet
from verbalize.config import plain
from verbalize.recipe import Recipe

if TYPE_CHECKING:
    from recsys.models.loading import LanguageModel

ADAPTER = "adapter"


def identity(config: LanguageRecommenderConfig) -> dict[str, Any]:
    """The settings that decide scores. Sections of other modes, patience, consent, money and the name of the key's
    variable change none, so a stage's key leaves them out.
    """
    described = dict(plain(config))
    remote = described.pop("remote")
    embedding = described.pop("embedding")
    if config.mode == "remote":
        described["remote"] = {name: remote[name] for name in ("endpoint", "model", "answer", "top_logprobs", "body")}
    if config.mode == "embedding":
        described["embedding"] = embedding
    return described


def length_tokenizer(recipe: Recipe) -> Any:
    """The tokenizer that measures texts: that of `recommender.model`, whatever the mode."""
    from recsys.models.loading import load_tokenizer

    return load_tokenizer(recipe.recommender.model)


def own_facts(recommender: Any) -> dict[str, Any]:
    """What a recommender says of its work in this process (calls, money, latency, texts cut), for a stage's facts."""
    return {"recommender": recommender.report()} if hasattr(recommender, "report") else {}


def open_recommender(
    recipe: Recipe,
    inputs: Mapping[str, Path],
    trained: bool = True,
    display: CandidateDisplay | None = None,
    lm: "LanguageModel | None" = None,
) -> Any:
    """The recipe's recommender, with the trained adapter if the run has one and `trained` asks for it. `display`: what
    candidates show, None as the recipe says; `lm`: the model of one opened before, to share its weights.
    """
    config: LanguageRecommenderConfig = recipe.recommender
    if trained and "recommender" in inputs:
        config = replace(config, adapter=str(inputs["recommender"] / ADAPTER))
    if config.cache is None:
        # Unconditional probabilities of the catalogue: the same in every stage and run, so kept beside the stages'
        # folders. So are a server's answers, each of which was paid for.
        name = "answers.sqlite" if config.mode == "remote" else "scores.sqlite"
        config = replace(config, cache=str(inputs["logs"].parents[1] / name))
    items = read_parquet(inputs["logs"] / "items.parquet")
    recommender = build_language_recommender(config, render_candidates(items, display or recipe.candidates), lm)
    if trained and "recommender" in inputs:
        recommender.name = f"{recommender.name}-trained"
    return recommender
