"""Which examples each step of a run may use, and how many of them: chosen by hashes, never by content.

Users are never shared between the recommender's learning and the verbalizer's, nor between the validation examples that
choose and those that report.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from recsys.errors import InputError
from recsys.logs.examples import bucket_examples, statistics_of
from recsys.seeding import unit_hash
from recsys.storage import read_parquet
from verbalize.recipe import Recipe
from verbalize.stages import log_files
from verbalize.stages.data import item_vectors


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


def rewarded_slates(folder: Path, examples: pl.DataFrame, targets: int) -> pl.DataFrame:
    """The redrawn slates of these examples and, after them, those of up to `targets` - 1 later targets of the same user
    in the same split, the next ones first: slate_index counts on.

    A later target was not touched before its own cutoff, nor was any of its negatives, so neither is in the earlier
    history. Targets of the same moment are not later.
    """
    own = load_slates(folder, examples)
    if targets == 1:
        return own
    columns = ["example_id", "user_id", "split", "cutoff_time"]
    users = pl.col("user_id").is_in(examples["user_id"].unique().implode())
    others = read_parquet(folder / "examples.parquet", columns, users)
    others = others.rename({"example_id": "later_id", "cutoff_time": "later_time"})
    following = (
        examples.select(columns)
        .join(others, on=["user_id", "split"])
        .filter(pl.col("later_time") > pl.col("cutoff_time"))
        .sort("example_id", "later_time", "later_id")
        .group_by("example_id", maintain_order=True)
        .head(targets - 1)
        .with_columns(place=pl.int_range(1, pl.len() + 1).over("example_id"))
        .select("example_id", "later_id", "place")
    )
    theirs = load_slates(folder, following.select(example_id="later_id")).rename({"example_id": "later_id"})
    more = following.join(theirs, on="later_id")
    counted = pl.concat([own.with_columns(place=pl.lit(0, pl.Int64)), more.select(*own.columns, "place")])
    counted = counted.sort("example_id", "place", "slate_index")
    return counted.with_columns(slate_index=pl.int_range(pl.len(), dtype=pl.Int32).over("example_id")).drop("place")


def _known(folder: Path, split: str) -> pl.DataFrame:
    """example_id and user_id of a split: to choose from a table that need not fit in memory."""
    return read_parquet(folder / "examples.parquet", ["example_id", "user_id"], pl.col("split") == split)


def _rows_of(folder: Path, chosen: pl.DataFrame) -> pl.DataFrame:
    """The examples that were chosen, in their order."""
    rows = read_parquet(folder / "examples.parquet", where=_is_one_of(chosen))
    return chosen.select("example_id").join(rows, on="example_id", maintain_order="left").select(rows.columns)


def _is_one_of(examples: pl.DataFrame) -> pl.Expr:
    return pl.col("example_id").is_in(examples["example_id"].unique().implode())
