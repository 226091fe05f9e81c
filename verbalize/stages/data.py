"""Logs to events and items; events to examples, slates and their counts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.logs.engaged import EngagedConfig
from recsys.logs.examples import build_examples
from recsys.logs.partitioned import example_tables
from recsys.logs.slates import ItemVectors, draw_slates
from recsys.logs.sources import SourceConfig, read_log, stored
from recsys.logs.tables import Log
from recsys.recommenders.candidates import render_candidates
from recsys.seeding import unit_hash
from recsys.storage import file_hash, read_json, read_parquet, write_json, write_parquet
from verbalize.config import build, plain
from verbalize.pipeline import Context
from verbalize.recipe import Recipe

_TASKS_PER_CPU = 4  # users are dealt evenly, their events are not: several tasks a CPU even out


def resolved_source(recipe: Recipe) -> SourceConfig:
    """The source with the name of a fetched data set replaced by its folder in the cache."""
    from dataclasses import replace

    from recsys.models.assets import fetch

    source = recipe.source
    return replace(source, path=str(fetch(source.path))) if source.path == "movielens-100k" else source


def logs_config(recipe: Recipe) -> dict[str, Any]:
    """What the logs stage depends on: the source's settings and the bytes of its files, not where they lie."""
    source = resolved_source(recipe)
    if source.kind == "store":
        return {"kind": source.kind, **stored.contents(source.path)}
    root = Path(source.path).expanduser()
    # A simulation written in the recipe has no files: its settings are all there is.
    paths = (root.rglob("*") if root.is_dir() else [root]) if source.path else []
    files = sorted(path for path in paths if path.is_file())
    hashes = {str(path.relative_to(root)) if root.is_dir() else path.name: file_hash(path) for path in files}
    mapping = Path(source.mapping)
    mapped = file_hash(mapping) if source.mapping and mapping.is_file() else None
    settings = {"kind": source.kind, "inline": source.inline, "mapping": mapped, "files": hashes}
    return settings | ({"roll_up": True} if source.roll_up else {})


def run_logs(recipe: Recipe, context: Context, expected: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Writes events.parquet and items.parquet; returns the counts of every treatment.

    `expected` is the `logs_config` that the stage's key was made of. Raises InputError when a store has moved on since:
    the folder would hold another log than its key says.
    """
    log = read_log(resolved_source(recipe))
    if expected is not None and recipe.source.kind == "store" and logs_config(recipe) != expected:
        raise InputError(
            f"source.path {recipe.source.path!r}",
            "changed between the start of the run and its reading",
            "run the same command again: it reads the store as it is now",
        )
    write_parquet(log.events, context.folder / "events.parquet")
    write_parquet(log.items, context.folder / "items.parquet")
    if log.impressions is not None:
        write_parquet(log.impressions, context.folder / "impressions.parquet")
    write_json(plain(log.engaged), context.folder / "engaged.json")
    return log.counts


def load_log(folder: Path) -> Log:
    """The canonical log a logs stage wrote."""
    rule = read_json(folder / "engaged.json")
    engaged = build(EngagedConfig, rule) if rule else None
    events, items = read_parquet(folder / "events.parquet"), read_parquet(folder / "items.parquet")
    shown = folder / "impressions.parquet"
    return Log(events, items, engaged=engaged, impressions=read_parquet(shown) if shown.is_file() else None)


def examples_config(recipe: Recipe) -> dict[str, Any]:
    """What examples depend on besides the log; a key made before a limit on the past existed still holds."""
    described: dict[str, Any] = plain(recipe.examples)
    if described["past_max"] is None:
        del described["past_max"]
    return described


def run_examples(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes examples.parquet, and slates.parquet with `reward.slates` redraws for training and validation examples."""
    log = load_log(context.inputs["logs"])
    vectors = item_vectors(recipe, log) if recipe.examples.slate.policy == "retrieved" else None
    if recipe.engine == "ray":
        from recsys.logs.ray_engine import RayRun

        with RayRun() as run:
            examples, slates, counts = example_tables(
                log, recipe.examples, recipe.reward.slates, run, _TASKS_PER_CPU * run.parallelism, vectors
            )
    else:
        examples, counts = build_examples(log, recipe.examples, vectors)
        seen = examples.filter(pl.col("split") != "test")
        slates = draw_slates(
            seen, log, recipe.examples.slate, n_slates=recipe.reward.slates, seed=recipe.examples.seed, vectors=vectors
        )
    # In one chunk: how a table was put together shows in the bytes of its file otherwise.
    write_parquet(examples.rechunk(), context.folder / "examples.parquet")
    write_parquet(slates.rechunk(), context.folder / "slates.parquet")
    return counts


def item_vectors(recipe: Recipe, log: Log) -> ItemVectors:
    """Embeddings of the candidates as shown, for the `retrieved` slate policy: of content, so nothing of the future."""
    from recsys.models.embedding import embed_texts

    shown = render_candidates(log.items, recipe.candidates)
    return ItemVectors(tuple(shown), embed_texts(list(shown.values())))


def load_examples(folder: Path, split: str, count: int | None = None, purpose: str = "") -> pl.DataFrame:
    """Examples of a split, at most `count` of them in the order of a hash of their ids.

    Raises InputError when the split is empty.
    """
    examples = read_parquet(folder / "examples.parquet").filter(pl.col("split") == split)
    return in_hash_order(examples, count, purpose or split)


def of_targets(table: pl.DataFrame, inputs: Mapping[str, Path], targets: str) -> pl.DataFrame:
    """The rows of a table with example_id whose targets are discoveries (`discovery`) or not (`known`), or `all`.

    Raises InputError when none is left.
    """
    if targets == "all":
        return table
    examples = read_parquet(inputs["examples"] / "examples.parquet").select("example_id", "is_discovery")
    wanted = examples.filter(pl.col("is_discovery") == (targets == "discovery"))
    kept = table.join(wanted, on="example_id", how="semi", maintain_order="left")
    if kept.is_empty():
        raise InputError(
            f"targets {targets}: none of {table['example_id'].n_unique()} examples",
            "a claim needs targets of its kind",
            "set examples.discovery_only: false for known works, or evaluate more examples",
        )
    return kept


def validation_samples(recipe: Recipe, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Validation examples that select, and those that only report; no user is in both."""
    examples = read_parquet(folder / "examples.parquet").filter(pl.col("split") == "validation")
    users = {user: unit_hash("selection", user) for user in examples["user_id"].unique()}
    share = recipe.sample.selection / max(recipe.sample.selection + recipe.sample.report, 1)
    selects = pl.col("user_id").is_in([user for user, place in users.items() if place < share])
    return (
        in_hash_order(examples.filter(selects), recipe.sample.selection, "selection"),
        in_hash_order(examples.filter(~selects), recipe.sample.report, "report"),
    )


def in_hash_order(examples: pl.DataFrame, count: int | None, purpose: str) -> pl.DataFrame:
    """The first `count` examples by hash: a larger count only adds to a smaller one."""
    if examples.is_empty():
        raise InputError(
            f"{purpose}: 0 examples",
            "a step needs at least one example",
            "widen the split's share of users or its window of time",
        )
    places = pl.Series([unit_hash("sample", example_id) for example_id in examples["example_id"]])
    ordered = examples[places.arg_sort()]
    return ordered if count is None else ordered.head(count)


def recommender_sample(recipe: Recipe, folder: Path) -> pl.DataFrame:
    """Training examples of the users from whom the recommender learns, in the order of a hash of their ids."""
    assert recipe.recommender_training is not None
    examples = load_examples(folder, "train", purpose="recommender training")
    return _of_users(examples, 0.0, recipe.recommender_training.users, "recommender training")


def training_sample(recipe: Recipe, folder: Path) -> pl.DataFrame:
    """Training examples of the pool, the warm start and reinforcement learning: whole users in the order of their
    hashes, at most `sample.train_per_user` examples of each, so that few examples still hold many users and each user
    can be halved. Users the recommender learned from are left out."""
    examples = load_examples(folder, "train")
    if recipe.recommender_training:
        examples = _of_users(examples, recipe.recommender_training.users, 1.0, "training of the verbalizer")
    if recipe.sample.train is None:
        return examples
    capped = examples.filter(pl.int_range(pl.len()).over("user_id") < recipe.sample.train_per_user)
    users = sorted(capped["user_id"].unique(), key=lambda user: unit_hash("training users", user))
    place = {user: number for number, user in enumerate(users)}
    order = capped["user_id"].replace_strict(place, return_dtype=pl.Int64)
    return (
        capped.with_columns(_order=order).sort("_order", maintain_order=True).drop("_order").head(recipe.sample.train)
    )


def _of_users(examples: pl.DataFrame, low: float, high: float, purpose: str) -> pl.DataFrame:
    """Examples of the users whose hash lies in [low, high); InputError when there is none."""
    chosen = [user for user in examples["user_id"].unique() if low <= unit_hash("recommender users", user) < high]
    kept = examples.filter(pl.col("user_id").is_in(chosen))
    if kept.is_empty():
        raise InputError(
            f"{purpose}: 0 of {examples['user_id'].n_unique()} training users",
            "the recommender and the verbalizer learn from different users, by recommender_training.users",
            "widen the split's training share, or change recommender_training.users",
        )
    return kept


def load_slates(folder: Path, examples: pl.DataFrame) -> pl.DataFrame:
    """The redrawn slates of these examples."""
    return read_parquet(folder / "slates.parquet").join(examples.select("example_id"), on="example_id", how="semi")
