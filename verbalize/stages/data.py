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
from recsys.logs.examples import build_examples
from recsys.logs.partitioned import write_tables
from recsys.logs.slates import ItemVectors, draw_slates
from recsys.logs.sources import SourceConfig, open_passing, read_log, read_whole, stored
from recsys.logs.tables import Log
from recsys.recommenders.candidates import render_candidates
from recsys.storage import file_hash, write_json, write_parquet
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
