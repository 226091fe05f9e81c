"""The recommender of a run: built from the recipe, with the trained adapter where the recipe trains one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.logs.partitioned import total_popularity
from recsys.logs.slates import draw_counted
from recsys.recommenders.candidates import CandidateDisplay, render_candidates
from recsys.recommenders.language import LanguageRecommenderConfig, build_language_recommender
from recsys.seeding import rng
from recsys.storage import read_parquet, write_parquet
from verbalize.config import plain
from verbalize.optimize.recommender_settings import METHODS, RecommenderTrainingConfig
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import data, learned_texts, log_files
from verbalize.stages.cards import card_of
from verbalize.verbalizers.actions import ActionConfig, execute, history_lengths
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.displays import DISPLAYS
from verbalize.verbalizers.templates import TemplateVerbalizer

if TYPE_CHECKING:
    from recsys.models.loading import LanguageModel

ADAPTER = "adapter"


def run(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """Trains the recommender's adapter on the train split; writes adapter/ and curve.parquet."""
    from recsys.models.adapters import add_lora, save_adapter
    from recsys.models.loading import load_language_model
    from recsys.models.tokenisation import encode_texts
    from recsys.recommenders.likelihood import LikelihoodRecommender
    from verbalize.optimize.recommender_training import TokenSlate, train_recommender

    config = recipe.recommender_training
    assert config is not None
    examples = data.recommender_sample(recipe, context.inputs["examples"])
    log = log_files.load_log(context.inputs["logs"], examples["user_id"])
    rounds = -(-config.examples // len(examples))
    touched = total_popularity(log_files.bucketed_log(context.inputs["logs"]))
    slates, _ = draw_counted(examples, log, recipe.examples.slate, rounds, recipe.examples.seed + 1, touched=touched)
    drawn = {(row[0], row[1]): row[2:] for row in slates.iter_rows()}
    learned = None
    if config.learned is not None:
        written = learned_texts.learned_texts(
            recipe, config.learned, examples.head(config.examples), context.folder / "parts"
        )
        learned = written + [""] * (len(examples) - len(written))  # the others are never shown
    texts = training_texts(examples, rounds, config, recipe.policy.actions, learned)
    lm = load_language_model(recipe.recommender.model, recipe.recommender.dtype, device=recipe.recommender.device)
    renderings = [render_candidates(log.items, display) for display in displays_read(recipe)]
    frames = LikelihoodRecommender(lm, renderings[0], recipe.recommender)
    model = add_lora(lm.model, config.lora, config.seed)
    ids = examples["example_id"].to_list()

    def token_slate(index: int) -> TokenSlate:
        turn, place = divmod(index, len(ids))
        slate, target = drawn[ids[place], turn]
        framed = [frames.frame(text) for text in (texts[turn][place], "")]
        prefix, unconditional = encode_texts(lm.tokenizer, framed)
        # By the place alone: a display that depended on the slate could point to its target.
        shown = renderings[rng(config.seed, "displays", index).integers(len(renderings))]
        return TokenSlate(prefix, unconditional, frames.candidate_tokens([shown[item] for item in slate]), target)

    def on_step(row: dict[str, float]) -> None:
        context.progress.step(
            "recommender", int(row["examples"]), config.examples, f"loss {row['loss']:.3f} hit {row['hit']:.2f}"
        )

    curve = train_recommender(model, token_slate, config, context.folder / "parts", on_step)
    model.eval()
    note = f"A recommender: {METHODS[config.method]} over slates on log-probability ratios."
    save_adapter(model, context.folder / ADAPTER, card_of(recipe, lm, command, note))
    write_parquet(pl.DataFrame(curve), context.folder / "curve.parquet")
    last = pl.DataFrame(curve).tail(max(1, len(curve) // 4))
    return {
        "training_examples": len(examples),
        "users": examples["user_id"].n_unique(),
        "last_loss": last["loss"].mean(),
        "last_hit": last["hit"].mean(),
    }


def training_texts(
    examples: pl.DataFrame,
    rounds: int,
    config: RecommenderTrainingConfig,
    actions: ActionConfig,
    learned: list[str] | None = None,
) -> list[list[str]]:
    """Texts by round and example: templates and, where given, learned texts in equal shares, and random keep/drop x
    metadata actions.
    """
    inputs = verbalizer_inputs(examples)
    templated = [TemplateVerbalizer(name).verbalize(inputs) for name in config.templates]
    templated += [] if learned is None else [learned]
    lengths = history_lengths(inputs, actions)
    rows = []
    for turn in range(rounds):
        random = rng(config.seed, "recommender texts", turn)
        # Each text has its own rates: texts with little kept or much metadata occur as well as even mixtures.
        keep, metadata = random.random((2, len(lengths)))
        chosen = [
            ((random.random(n) < k) * 2 + (random.random(n) < m)).astype(int).tolist()
            for n, k, m in zip(lengths, keep, metadata, strict=True)
        ]
        acted = execute(inputs, chosen, actions)
        use_actions = random.random(len(lengths)) < config.random_actions
        style = random.integers(max(len(templated), 1), size=len(lengths))
        rows.append(
            [acted[i] if use_actions[i] or not templated else templated[style[i]][i] for i in range(len(lengths))]
        )
    return rows


def displays_read(recipe: Recipe) -> list[CandidateDisplay]:
    """What candidates show while the recommender learns: where displays are compared, each in equal shares, since one
    that it had never read would be compared at a disadvantage.
    """
    return list(DISPLAYS.values()) if recipe.policy.kind == "display" else [recipe.candidates]


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


def training_identity(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the trained adapter; a key made before there were several methods still holds."""
    assert recipe.recommender_training is not None
    described = dict(plain(recipe.recommender_training))
    folder = described.pop("learned")
    if folder is not None:
        described["learned"] = learned_texts.identity(recipe, folder)
    if described["method"] == "cross_entropy":
        for name in ("method", "answers", "scale_advantages"):
            del described[name]
    if recipe.policy.kind == "display":
        described["displays"] = list(DISPLAYS)
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
