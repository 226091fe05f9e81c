"""Training the recommender of a run: the language model or the sentence encoder, whichever ranks, on the same texts."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.logs.partitioned import total_popularity
from recsys.logs.slates import draw_counted
from recsys.recommenders.candidates import CandidateDisplay, render_candidates
from recsys.seeding import rng
from recsys.storage import write_parquet
from verbalize.config import plain
from verbalize.optimize.recommender_settings import METHODS, RecommenderTrainingConfig
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import learned_texts, log_files, samples
from verbalize.stages.cards import card_of
from verbalize.stages.recommender import ADAPTER
from verbalize.verbalizers.actions import ActionConfig, execute, history_lengths
from verbalize.verbalizers.base import verbalizer_inputs
from verbalize.verbalizers.displays import DISPLAYS
from verbalize.verbalizers.templates import TemplateVerbalizer

if TYPE_CHECKING:
    from verbalize.optimize.encoder_training import TextSlate

Curve = list[dict[str, float]]


def run(recipe: Recipe, context: Context, command: str) -> Mapping[str, Any]:
    """Trains the recommender's adapter on the train split; writes adapter/ and curve.parquet."""
    config = recipe.recommender_training
    assert config is not None
    examples = samples.recommender_examples(recipe, context.inputs)
    slates = text_slates(recipe, context, examples)
    train = _train_encoder if recipe.recommender.mode == "embedding" else _train_language_model
    curve = pl.DataFrame(train(recipe, context, slates, command))
    write_parquet(curve, context.folder / "curve.parquet")
    last = curve.tail(max(1, len(curve) // 4))
    return {
        "training_examples": len(examples),
        "users": examples["user_id"].n_unique(),
        "last_loss": last["loss"].mean(),
        "last_hit": last["hit"].mean(),
    }


def text_slates(recipe: Recipe, context: Context, examples: pl.DataFrame) -> "Callable[[int], TextSlate]":
    """The training decisions by number: examples in turn, negatives and texts redrawn every time round."""
    from verbalize.optimize.encoder_training import TextSlate

    config = recipe.recommender_training
    assert config is not None
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
    renderings = [render_candidates(log.items, display) for display in displays_read(recipe)]
    ids = examples["example_id"].to_list()

    def slate(index: int) -> TextSlate:
        turn, place = divmod(index, len(ids))
        items, target = drawn[ids[place], turn]
        # By the place alone: a display that depended on the slate could point to its target.
        shown = renderings[rng(config.seed, "displays", index).integers(len(renderings))]
        return TextSlate(texts[turn][place], [shown[item] for item in items], target)

    return slate


def _train_language_model(
    recipe: Recipe, context: Context, slates: "Callable[[int], TextSlate]", command: str
) -> Curve:
    from recsys.models.adapters import add_lora, save_adapter
    from recsys.models.loading import load_language_model
    from recsys.models.tokenisation import encode_texts
    from recsys.recommenders.likelihood import LikelihoodRecommender
    from verbalize.optimize.recommender_training import TokenSlate, train_recommender

    config = recipe.recommender_training
    assert config is not None
    lm = load_language_model(recipe.recommender.model, recipe.recommender.dtype, device=recipe.recommender.device)
    frames = LikelihoodRecommender(lm, {}, recipe.recommender)
    model = add_lora(lm.model, config.lora, config.seed)

    def token_slate(index: int) -> TokenSlate:
        slate = slates(index)
        prefix, unconditional = encode_texts(lm.tokenizer, [frames.frame(text) for text in (slate.text, "")])
        return TokenSlate(prefix, unconditional, frames.candidate_tokens(list(slate.candidates)), slate.target_index)

    curve = train_recommender(model, token_slate, config, context.folder / "parts", _reporting(context, config))
    model.eval()
    note = f"A recommender: {METHODS[config.method]} over slates on log-probability ratios."
    save_adapter(model, context.folder / ADAPTER, card_of(recipe, lm, command, note))
    return curve


def _train_encoder(recipe: Recipe, context: Context, slates: "Callable[[int], TextSlate]", command: str) -> Curve:
    from recsys.models.adapters import add_lora, save_adapter
    from recsys.models.embedding import SentenceEncoder
    from verbalize.optimize.encoder_training import encoder_scores
    from verbalize.optimize.recommender_training import train_recommender

    config, settings = recipe.recommender_training, recipe.recommender.embedding
    assert config is not None
    encoder = SentenceEncoder(settings.model, settings.batch_size, settings.max_tokens, recipe.recommender.device)
    encoder.encoder.requires_grad_(False)
    model = encoder.encoder = add_lora(encoder.encoder, config.lora, config.seed).eval()

    def scores_of(model: Any, slate: "TextSlate") -> Any:
        return encoder_scores(encoder, slate, settings.temperature)

    curve = train_recommender(model, slates, config, context.folder / "parts", _reporting(context, config), scores_of)
    note = f"A recommender: {METHODS[config.method]} over slates on cosines / {settings.temperature}."
    save_adapter(model, context.folder / ADAPTER, card_of(recipe, encoder, command, note))
    return curve


def _reporting(context: Context, config: RecommenderTrainingConfig) -> Callable[[dict[str, float]], None]:
    def on_step(row: dict[str, float]) -> None:
        context.progress.step(
            "recommender", int(row["examples"]), config.examples, f"loss {row['loss']:.3f} hit {row['hit']:.2f}"
        )

    return on_step


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


def training_identity(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the trained adapter."""
    assert recipe.recommender_training is not None
    described = dict(plain(recipe.recommender_training))
    folder = described.pop("learned")
    if folder is not None:
        described["learned"] = learned_texts.identity(recipe, folder)
    if recipe.policy.kind == "display":
        described["displays"] = list(DISPLAYS)
    return described
