"""Logs to events and items; events to examples, slates and their counts."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import InputError
from recsys.logs.bucketed_log import BucketedLog
from recsys.logs.buckets import PARTS, canonicalise_bucketed
from recsys.logs.engines import Run
from recsys.logs.examples import bucket_examples, build_examples, statistics_of
from recsys.logs.partitioned import write_tables
from recsys.logs.slates import ItemVectors, draw_slates
from recsys.logs.sources import SourceConfig, open_passing, read_log, read_whole, stored
from recsys.logs.tables import Log
from recsys.recommenders.candidates import render_candidates
from recsys.seeding import unit_hash
from recsys.storage import file_hash, read_parquet, write_json, write_parquet
from verbalize.config import plain
from verbalize.pipeline import Context
from verbalize.recipe import Recipe
from verbalize.stages import log_files


def resolved_source(recipe: Recipe) -> SourceConfig:
    """The source with the name of a fetched data set replaced by its folder in the cache."""
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
    """Writes the events (`log_files`) and items.parquet; returns the counts of every treatment.

    `expected` is the `logs_config` that the stage's key was made of. Raises InputError when a store has moved on since:
    the folder would hold another log than its key says.
    """
    folder, source = context.folder, resolved_source(recipe)
    if recipe.engine == "bucketed" or (recipe.engine == "ray" and not read_whole(source)):
        (folder / log_files.EVENTS).unlink(missing_ok=True)  # of a run that read it whole and was killed
        with engine(recipe) as run:
            log: Log | BucketedLog = canonicalise_bucketed(open_passing(source), folder, run, log_files.BUCKET_EVENTS)
    else:
        for name in (log_files.BUCKETS, PARTS):
            shutil.rmtree(folder / name, ignore_errors=True)
        log = read_log(source)
        if expected is not None and source.kind == "store" and logs_config(recipe) != expected:
            raise InputError(
                f"source.path {recipe.source.path!r}",
                "changed between the start of the run and its reading",
                "run the same command again: it reads the store as it is now",
            )
        write_parquet(log.events, folder / log_files.EVENTS)
        if log.impressions is not None:
            write_parquet(log.impressions, folder / log_files.IMPRESSIONS)
    write_parquet(log.items, folder / log_files.ITEMS)
    write_json(plain(log.engaged), folder / log_files.ENGAGED)
    return log.counts


def engine(recipe: Recipe) -> contextlib.AbstractContextManager[Run]:
    """What takes one bucket after the other, or several at once, where the recipe says."""
    if recipe.engine != "ray":
        return contextlib.nullcontext(Run())
    from recsys.logs.ray_engine import RayRun

    return RayRun()


def run_examples(recipe: Recipe, context: Context) -> Mapping[str, Any]:
    """Writes examples.parquet, and slates.parquet with `reward.slates` redraws for training and validation examples."""
    logs, settings, redraws = context.inputs["logs"], recipe.examples, recipe.reward.slates
    if recipe.engine != "local":
        with engine(recipe) as run:
            held = log_files.bucketed_log(logs, run.tasks)
            vectors = item_vectors(recipe, held.items)
            return write_tables(held, settings, redraws, context.folder, vectors, run)
    log = log_files.load_log(logs)
    vectors = item_vectors(recipe, log.items)
    examples, counts = build_examples(log, settings, vectors)
    seen = examples.filter(pl.col("split") != "test")
    slates = draw_slates(seen, log, settings.slate, n_slates=redraws, seed=settings.seed, vectors=vectors)
    # In one chunk: how a table was put together shows in the bytes of its file otherwise.
    write_parquet(examples.rechunk(), context.folder / "examples.parquet")
    write_parquet(slates.rechunk(), context.folder / "slates.parquet")
    return counts


def item_vectors(recipe: Recipe, items: pl.DataFrame) -> ItemVectors | None:
    """Embeddings of the candidates as shown, for the `retrieved` slate policy: of content, so nothing of the future.
    None for other policies."""
    if recipe.examples.slate.policy != "retrieved":
        return None
    from recsys.models.embedding import embed_texts

    shown = render_candidates(items, recipe.candidates)
    return ItemVectors(tuple(shown), embed_texts(list(shown.values())))


def load_examples(folder: Path, split: str, count: int | None = None, purpose: str = "") -> pl.DataFrame:
    """Examples of a split, at most `count` of them in the order of a hash of their ids.

    Raises InputError when the split is empty.
    """
    return _rows_of(folder, in_hash_order(_known(folder, split), count, purpose or split))


def of_targets(table: pl.DataFrame, inputs: Mapping[str, Path], targets: str) -> pl.DataFrame:
    """The rows of a table with example_id whose targets are discoveries (`discovery`) or not (`known`), or `all`.

    Raises InputError when none is left.
    """
    if targets == "all":
        return table
    examples = read_parquet(inputs["examples"] / "examples.parquet", ["example_id", "is_discovery"])
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
    examples = _known(folder, "validation")
    users = {user: unit_hash("selection", user) for user in examples["user_id"].unique()}
    share = recipe.sample.selection / max(recipe.sample.selection + recipe.sample.report, 1)
    selects = pl.col("user_id").is_in([user for user, place in users.items() if place < share])
    return (
        _rows_of(folder, in_hash_order(examples.filter(selects), recipe.sample.selection, "selection")),
        _rows_of(folder, in_hash_order(examples.filter(~selects), recipe.sample.report, "report")),
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
    examples = in_hash_order(_known(folder, "train"), None, "recommender training")
    return _rows_of(folder, _of_users(examples, 0.0, recipe.recommender_training.users, "recommender training"))


def recommender_examples(recipe: Recipe, inputs: Mapping[str, Path]) -> pl.DataFrame:
    """What the recommender learns from: `recommender_sample`, or as many targets of its users as the recipe says."""
    assert recipe.recommender_training is not None
    sample = recommender_sample(recipe, inputs["examples"])
    targets = recipe.recommender_training.targets_per_user
    if targets is None:
        return sample
    whole, settings = log_files.load_log(inputs["logs"]), replace(recipe.examples, targets_per_user=targets)
    theirs = log_files.load_log(inputs["logs"], sample["user_id"])
    vectors = item_vectors(recipe, whole.items)
    examples, _ = bucket_examples(theirs, statistics_of(whole, settings), settings, vectors)
    return in_hash_order(examples.filter(pl.col("split") == "train"), None, "recommender training")


def training_sample(recipe: Recipe, folder: Path) -> pl.DataFrame:
    """Training examples of the pool, the warm start and reinforcement learning: whole users in the order of their
    hashes, at most `sample.train_per_user` examples of each, so that few examples still hold many users and each user
    can be halved. Users the recommender learned from are left out."""
    examples = in_hash_order(_known(folder, "train"), None, "train")
    if recipe.recommender_training:
        examples = _of_users(examples, recipe.recommender_training.users, 1.0, "training of the verbalizer")
    if recipe.sample.train is None:
        return _rows_of(folder, examples)
    capped = examples.filter(pl.int_range(pl.len()).over("user_id") < recipe.sample.train_per_user)
    users = sorted(capped["user_id"].unique(), key=lambda user: unit_hash("training users", user))
    place = {user: number for number, user in enumerate(users)}
    order = capped["user_id"].replace_strict(place, return_dtype=pl.Int64)
    ordered = capped.with_columns(_order=order).sort("_order", maintain_order=True)
    return _rows_of(folder, ordered.head(recipe.sample.train))


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
    return read_parquet(folder / "slates.parquet", where=_is_one_of(examples))


def _known(folder: Path, split: str) -> pl.DataFrame:
    """example_id and user_id of a split: to choose from a table that need not fit in memory."""
    return read_parquet(folder / "examples.parquet", ["example_id", "user_id"], pl.col("split") == split)


def _rows_of(folder: Path, chosen: pl.DataFrame) -> pl.DataFrame:
    """The examples that were chosen, in their order."""
    rows = read_parquet(folder / "examples.parquet", where=_is_one_of(chosen))
    return chosen.select("example_id").join(rows, on="example_id", maintain_order="left").select(rows.columns)


def _is_one_of(examples: pl.DataFrame) -> pl.Expr:
    return pl.col("example_id").is_in(examples["example_id"].unique().implode())
