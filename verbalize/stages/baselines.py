"""Recommenders without a language model, fitted on what lies strictly before the evaluated split begins."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys.evaluation import decide, summarise
from recsys.logs.splits import split_times
from recsys.recommenders.content import GenreOverlap, YearDistance
from recsys.recommenders.ease import Ease, EaseConfig
from recsys.recommenders.item_knn import ItemKNN
from recsys.recommenders.logit import ConditionalLogit
from recsys.recommenders.popularity import Popularity
from recsys.storage import read_parquet
from verbalize.recipe import Recipe
from verbalize.stages import samples
from verbalize.stages.log_files import ITEMS, scan_events

VERBALIZER = "history"
EASE_L2 = (10.0, 30.0, 100.0, 300.0, 1000.0)


def fitted(recipe: Recipe, inputs: Mapping[str, Path], split: str | None = None) -> Iterator[Any]:
    """The baselines a recipe lists, for ranking `split` (else the recipe's evaluated one). They read history ids, so
    their verbalizer is called `history`."""
    items, events = read_parquet(inputs["logs"] / ITEMS), scan_events(inputs["logs"])
    times = events.select("event_time").collect(engine="streaming")["event_time"]
    first, second = split_times(times, recipe.examples.split)
    before = second if (split or recipe.evaluation.split) == "test" else first
    past = events_before(events, before)
    for name in recipe.evaluation.baselines:
        if name == "popularity":
            yield Popularity.fit(past, items, before=before)
        elif name == "item_knn":
            yield ItemKNN.fit(past, items, before=before, config=recipe.baselines.item_knn)
        elif name == "ease":
            ease = recipe.baselines.ease or EaseConfig(l2=chosen_l2(recipe, inputs, items, first))
            yield Ease.fit(past, items, before=before, config=ease)
        elif name == "year_distance":
            yield YearDistance.fit(past, items, before=before)
        elif name == "genre_overlap":
            yield GenreOverlap.fit(past, items, before=before)
        elif name == "logit":
            train = samples.load_examples(inputs["examples"], "train").filter(pl.col("cutoff_time") < before)
            yield ConditionalLogit.fit(past, items, train, before=before)


def events_before(events: pl.LazyFrame, moment: datetime) -> pl.DataFrame:
    """The events a baseline learns from, with what it reads of them: some fifty bytes each are held."""
    read = events.select("user_id", "item_id", "event_time", "rating").filter(pl.col("event_time") < moment)
    return read.collect(engine="streaming")


def chosen_l2(recipe: Recipe, inputs: Mapping[str, Path], items: pl.DataFrame, first: datetime) -> float:
    """EASE^R's ridge: the best of a grid on the selection examples, fitted on events before T1."""
    examples, _ = samples.validation_samples(recipe, inputs["examples"])
    past = events_before(scan_events(inputs["logs"]), first)
    scores = {}
    for l2 in EASE_L2:
        model = Ease.fit(past, items, before=first, config=EaseConfig(l2=l2))
        decisions = decide(model, examples, [""] * len(examples), verbalizer=VERBALIZER)
        scores[l2] = summarise(decisions, ["mrr"], resamples=100)["value"][0]
    return max(scores, key=lambda l2: scores[l2])
